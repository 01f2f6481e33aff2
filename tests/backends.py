"""The SQL backends, a database of its own for each test."""

import os
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from addrservice.addressbook_db import AbstractAddressBookDB, create_addressbook_db
from addrservice.config import Settings, SQLSettings, StoreSettings
from tests.postgresql import ENVIRONMENT, dsn_of, new_role, shared_server
from tests.support import HTTPTestCase, make_settings


def sqlite(test: unittest.TestCase, **keys: Any) -> StoreSettings:
    """A file that is yet to be made; further keys go to the settings."""
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return StoreSettings(sql=SQLSettings(f'sqlite://{Path(folder.name, "addressbook.db")}', **keys))


def postgresql(test: unittest.TestCase, port: int | None = None, **keys: Any) -> StoreSettings:
    """An empty schema of the shared server; further keys go to the settings.

    :param port: of what stands before the server, where it is not asked itself
    """
    environment = mock.patch.dict(os.environ, ENVIRONMENT)
    environment.start()
    test.addCleanup(environment.stop)
    role = new_role()
    dsn = dsn_of(port or shared_server().port, role=role)
    return StoreSettings(sql=SQLSettings(dsn, **keys))


def sqlite_store(test: unittest.TestCase) -> AbstractAddressBookDB:
    """A store on an empty file."""
    return create_addressbook_db(sqlite(test))


def postgresql_store(test: unittest.TestCase) -> AbstractAddressBookDB:
    """A store on an empty schema."""
    return create_addressbook_db(postgresql(test))


class OnSQLite(HTTPTestCase):
    """Serves a book that is kept in a SQLite file."""

    def make_settings(self) -> Settings:
        return msgspec.structs.replace(make_settings(), addr_db=sqlite(self))


class OnPostgreSQL(HTTPTestCase):
    """Serves a book that is kept in PostgreSQL."""

    def make_settings(self) -> Settings:
        return msgspec.structs.replace(make_settings(), addr_db=postgresql(self))
