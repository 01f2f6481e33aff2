"""The store in a real PostgreSQL: the contract of all stores, and what is peculiar to it."""

import unittest

from addrservice.addressbook_db import AbstractAddressBookDB, create_addressbook_db
from tests.addressbook_db_contract import AddressBookDBContract
from tests.backends import postgresql
from tests.postgresql import PgBouncer, find_pgbouncer, shared_server

setUpModule = shared_server  # now, for to start it would hold up an event loop


class PostgreSQLAddressBookDBTest(AddressBookDBContract, unittest.IsolatedAsyncioTestCase):
    """The store in a database; nothing here may make it log an error."""

    async def make_store(self) -> AbstractAddressBookDB:
        before = len(shared_server().logged_errors('.*'))
        self.addCleanup(
            lambda: self.assertEqual([], shared_server().logged_errors('.*')[before:]))
        return create_addressbook_db(postgresql(self))


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
