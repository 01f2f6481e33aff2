"""The SQLite connector: the contract of all stores on a real file."""

import tempfile
import unittest
from pathlib import Path

from addrservice.addressbook_db import AbstractAddressBookDB, create_addressbook_db
from addrservice.config import SQLSettings, StoreSettings
from tests.addressbook_db_contract import AddressBookDBContract


class SQLiteAddressBookDBTest(AddressBookDBContract, unittest.IsolatedAsyncioTestCase):
    """The store in one file."""

    async def make_store(self) -> AbstractAddressBookDB:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        dsn = Path(folder.name, 'addressbook.db').as_uri().replace('file:', 'sqlite:')
        return create_addressbook_db(StoreSettings(sql=SQLSettings(dsn)))
