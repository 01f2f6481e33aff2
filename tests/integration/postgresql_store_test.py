"""The store in a real PostgreSQL: the contract of all stores, and what is peculiar to it."""

import asyncio
import os
import unittest
from abc import abstractmethod
from contextlib import suppress
from unittest import mock

import asyncpg

from addrservice.addressbook_db import (
    AbstractAddressBookDB, SQLAddressBookDB, StoredEntry, create_addressbook_db,
)
from addrservice.addressbook_db.batches import Batches
from addrservice.config import SQLSettings, StoreSettings
from addrservice.errors import StoreError, StoreUnavailableError
from addrservice.sql_connectors import Rows, Value
from addrservice.sql_connectors.postgresql import LOCK, PostgreSQLConnector
from tests.addressbook_db_conditions_contract import ConditionsContract
from tests.addressbook_db_search_contract import SearchContract
from tests.backends import postgresql
from tests.postgresql import (
    ENVIRONMENT, PASSWORD, PgBouncer, dsn_of, find_pgbouncer, new_role, shared_server,
)
from tests.proxy import Proxy
from tests.support import DEADLINE

setUpModule = shared_server  # now, for to start it would hold up an event loop


class InPostgreSQL(ConditionsContract, SearchContract):
    """The contract of all stores, kept in a database.

    All tests of a class use one schema, emptied before each: to make one takes longer than most.
    """

    role: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.role = new_role()

    @abstractmethod
    def make_settings(self) -> SQLSettings:
        """The way to the schema."""

    async def make_store(self) -> AbstractAddressBookDB:
        self.enterContext(mock.patch.dict(os.environ, ENVIRONMENT))
        settings = self.make_settings()
        self.connector = PostgreSQLConnector(settings)
        return SQLAddressBookDB(self.connector, settings)

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        await self.connector.write('DELETE FROM addresses')

    async def another_store(self) -> AbstractAddressBookDB:
        other = create_addressbook_db(StoreSettings(sql=self.make_settings()))
        await other.start()
        self.addAsyncCleanup(other.stop)
        return other


class PostgreSQLAddressBookDBTest(InPostgreSQL, unittest.IsolatedAsyncioTestCase):
    """Asked directly; nothing here may make the server log an error."""

    def setUp(self) -> None:
        before = len(shared_server().logged_errors('.*'))
        self.addCleanup(
            lambda: self.assertEqual([], shared_server().logged_errors('.*')[before:]))

    def make_settings(self) -> SQLSettings:
        return SQLSettings(dsn_of(shared_server().port, role=self.role))


class TogetherTest(PostgreSQLAddressBookDBTest):
    """Each entry is read and made by the statement for several, also where it is the only one."""

    async def make_store(self) -> AbstractAddressBookDB:
        async def do(batches: Batches, statement: str, *arguments: Value) -> Rows:
            [rows] = await batches._several([arguments])
            return rows

        self.enterContext(mock.patch.object(Batches, 'do', do))
        return await super().make_store()


class RefusedTest(unittest.IsolatedAsyncioTestCase):
    """The database does not take an entry, which nobody foresaw."""

    async def test_those_that_are_created_at_the_same_time_are_taken(self) -> None:
        settings = postgresql(self)
        assert isinstance(settings.sql, SQLSettings)
        connector = PostgreSQLConnector(settings.sql)
        store = SQLAddressBookDB(connector, settings.sql)
        await store.start()
        self.addAsyncCleanup(store.stop)
        await connector.run_exclusively(["ALTER TABLE addresses ADD CHECK (name_key <> 'no')"])
        made = await asyncio.gather(
            *(store.create_address({'name': name}, name) for name in ('a', 'no', 'b')),
            return_exceptions=True)
        self.assertEqual(['a', 'b'], [each for each in made if isinstance(each, str)])
        self.assertIs(StoreError, type(made[1]))
        self.assertEqual(['a', 'b'], [entry.nickname for entry in await store.read_page(None, 9)])


class PreparationTest(unittest.IsolatedAsyncioTestCase):
    """Tables that cannot be made yet."""

    async def asyncSetUp(self) -> None:
        self.other = await asyncpg.connect(shared_server().dsn, password=PASSWORD)
        self.addAsyncCleanup(self.other.close)
        await self.other.execute(f'SELECT pg_advisory_lock({LOCK})')
        self.proxy = self.enterContext(Proxy(shared_server().port))
        self.store = create_addressbook_db(postgresql(self, port=self.proxy.port, deadline=0.2))
        await self.store.start()
        self.addAsyncCleanup(self.store.stop)

    async def begin(self) -> 'asyncio.Task[list[StoredEntry]]':
        """An operation that has to wait, as the server knows, until it may make the tables."""
        operation = asyncio.create_task(self.store.read_page(None, 1))
        while not await self.other.fetch(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        ):
            if operation.done():  # it waited for what another one had begun, to no avail
                self.assertIsInstance(operation.exception(), StoreUnavailableError)
                operation = asyncio.create_task(self.store.read_page(None, 1))
        return operation

    async def test_a_replica_that_makes_them_for_ever_holds_nobody_up(self) -> None:
        """Not even if the server falls silent meanwhile: an operation ends at its deadline."""
        async with asyncio.timeout(DEADLINE):
            for silent in (False, True):
                operation = await self.begin()
                if silent:
                    self.proxy.stall()
                with self.assertRaises(StoreUnavailableError):
                    await operation
            self.proxy.forward()
            await self.other.execute(f'SELECT pg_advisory_unlock({LOCK})')
            while True:
                with suppress(StoreUnavailableError):
                    self.assertEqual([], await self.store.read_page(None, 1))
                    break


@unittest.skipUnless(find_pgbouncer(), 'PgBouncer is not installed')
class PgBouncerTest(InPostgreSQL, unittest.IsolatedAsyncioTestCase):
    """Behind a pooler that gives out a connection for one transaction at a time."""

    bouncer: PgBouncer

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.bouncer = cls.enterClassContext(PgBouncer(shared_server()))

    def make_settings(self) -> SQLSettings:
        return SQLSettings(dsn_of(self.bouncer.port, role=self.role), statement_cache_size=0)


if __name__ == '__main__':
    unittest.main()
