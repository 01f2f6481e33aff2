"""The store in a real PostgreSQL: the contract of all stores, and what is peculiar to it."""

import asyncio
import unittest

import asyncpg

from addrservice.addressbook_db import AbstractAddressBookDB, create_addressbook_db
from addrservice.errors import StoreUnavailableError
from addrservice.sql_connectors.postgresql import LOCK
from tests.addressbook_db_contract import AddressBookDBContract
from tests.backends import postgresql
from tests.postgresql import PASSWORD, PgBouncer, find_pgbouncer, shared_server
from tests.proxy import Proxy
from tests.support import DEADLINE, wait_until

setUpModule = shared_server  # now, for to start it would hold up an event loop


class PostgreSQLAddressBookDBTest(AddressBookDBContract, unittest.IsolatedAsyncioTestCase):
    """The store in a database; nothing here may make it log an error."""

    async def make_store(self) -> AbstractAddressBookDB:
        before = len(shared_server().logged_errors('.*'))
        self.addCleanup(
            lambda: self.assertEqual([], shared_server().logged_errors('.*')[before:]))
        return create_addressbook_db(postgresql(self))


class PreparationTest(unittest.IsolatedAsyncioTestCase):
    """Tables that cannot be made yet."""

    async def test_a_replica_that_makes_them_for_ever_holds_nobody_up(self) -> None:
        """Not even if the server falls silent meanwhile: an operation ends at its deadline."""
        other = await asyncpg.connect(shared_server().dsn, password=PASSWORD)
        self.addAsyncCleanup(other.close)
        await other.execute(f'SELECT pg_advisory_lock({LOCK})')
        proxy = self.enterContext(Proxy(shared_server().port))
        store = create_addressbook_db(postgresql(self, port=proxy.port, deadline=0.2))
        await store.start()
        self.addAsyncCleanup(store.stop)
        for silent in (False, True):
            async with asyncio.timeout(DEADLINE):
                operation = asyncio.create_task(store.read_page(None, 1))
                await asyncio.to_thread(wait_until, lambda: shared_server().sql(
                    "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
                if silent:
                    proxy.stall()
                with self.assertRaises(StoreUnavailableError):
                    await operation
        proxy.forward()
        await other.execute(f'SELECT pg_advisory_unlock({LOCK})')
        self.assertEqual([], await store.read_page(None, 1))


@unittest.skipUnless(find_pgbouncer(), 'PgBouncer is not installed')
class PgBouncerTest(AddressBookDBContract, unittest.IsolatedAsyncioTestCase):
    """The store behind a pooler that gives out a connection for one transaction at a time."""

    bouncer: PgBouncer

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.bouncer = cls.enterClassContext(PgBouncer(shared_server()))

    async def make_store(self) -> AbstractAddressBookDB:
        return create_addressbook_db(
            postgresql(self, port=self.bouncer.port, statement_cache_size=0))


if __name__ == '__main__':
    unittest.main()
