"""Tables that an older service has made: a newer one makes them new, and loses nothing."""

import asyncio
import unittest
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import orjson

from addrservice.addressbook_db import PAGE_SIZE, SQLAddressBookDB, StoredEntry
from addrservice.addressbook_db.statements import (
    SCHEMA_VERSION, SELECT_NAMELESS, SET_NAME, SET_SCHEMA_VERSION,
)
from addrservice.config import SQLSettings
from addrservice.errors import NewerSchemaError, StoreUnavailableError
from addrservice.sql_connectors import Rows, SQLConnector, Value
from addrservice.sql_connectors.postgresql import PostgreSQLConnector
from addrservice.sql_connectors.sqlite import SQLiteConnector
from addrservice.validation import serialise_entry
from tests.backends import postgresql, sqlite
from tests.postgresql import shared_server
from tests.support import DEADLINE, address

setUpModule = shared_server  # now, for to start it would hold up an event loop

if TYPE_CHECKING:
    _TestCase = unittest.IsolatedAsyncioTestCase
else:
    _TestCase = object  # no test case by itself

# How the service of version 1 of the tables made and filled them.
SCHEMA_1: Final = (
    """
    CREATE TABLE IF NOT EXISTS addresses (
        nickname {key_type} NOT NULL PRIMARY KEY,
        document TEXT NOT NULL,
        version BIGINT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
    )
    """,
    'CREATE TABLE IF NOT EXISTS addresses_schema (version INTEGER NOT NULL)',
    'INSERT INTO addresses_schema (version) SELECT 1 '
    'WHERE NOT EXISTS (SELECT 1 FROM addresses_schema)',
)
INSERT_1: Final = 'INSERT INTO addresses (nickname, document, version) VALUES '
UPDATE_1: Final = (
    'UPDATE addresses SET document = $2, version = version + 1, updated_at = CURRENT_TIMESTAMP '
    'WHERE nickname = $1 RETURNING version')

# The entries in the tables: more than one page of names to fill in.
NAMES: Final = ['Straße', 'e\u0301', '\U0010ffff' * 256, "'; DROP TABLE addresses; --", '%', ' ',
                *(f'Narendra {n:03}' for n in range(400))]

# A day that all of it was written on, long ago.
LONG_AGO: Final = "UPDATE addresses SET created_at = '2001-02-03', updated_at = '2004-05-06'"
EVERYTHING: Final = (
    'SELECT nickname, document, version, CAST(created_at AS TEXT), CAST(updated_at AS TEXT) '
    'FROM addresses ORDER BY nickname')


def entry_named(name: str) -> dict[str, Any]:
    return {**address('namo'), 'name': name}


class UpgradeContract(ABC, _TestCase):
    """A backend's test inherits this first, then ``unittest.IsolatedAsyncioTestCase``."""

    @abstractmethod
    def make_settings(self) -> SQLSettings:
        """An empty database, with much time for each operation."""

    @abstractmethod
    def make_connector(self) -> SQLConnector:
        """One more way to the database."""

    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().set_debug(False)  # or asyncio takes longer than the database
        self.settings = self.make_settings()
        self.old = await self.connect()

    async def connect(self) -> SQLConnector:
        """A connector until the end of the test."""
        connector = self.make_connector()
        await connector.start()
        self.addAsyncCleanup(connector.stop)
        return connector

    def make_store(self, connector: SQLConnector | None = None) -> SQLAddressBookDB:
        """A service's store, until the end of the test."""
        store = SQLAddressBookDB(connector or self.make_connector(), self.settings)
        self.addAsyncCleanup(store.stop)
        return store

    async def start(self) -> SQLAddressBookDB:
        """A store that has made the tables what it needs."""
        store = self.make_store()
        await store.start()
        await store.ping()
        return store

    async def fill(self, names: Sequence[str] = NAMES) -> list[StoredEntry]:
        """Makes tables of version 1 with an entry of each name; gives these in their order."""
        await self.old.run_exclusively(
            [statement.format(key_type=self.old.key_type) for statement in SCHEMA_1])
        entries = [StoredEntry(f'{n:032x}', serialise_entry(entry_named(name)), 10**15 + n)
                   for n, name in enumerate(names)]
        values = ', '.join(f'(${n}, ${n + 1}, ${n + 2})' for n in range(1, 3 * len(entries), 3))
        await self.old.write(INSERT_1 + values, *(
            value for nickname, document, version, _ in entries
            for value in (nickname, document.decode(), version)))
        await self.old.write(LONG_AGO)
        return entries

    async def names_found(self, store: SQLAddressBookDB, prefix: str = '') -> list[str]:
        """The names of all that a search finds, in its order."""
        return [orjson.loads(entry.document)['name']
                async for page in store.found_pages(prefix) for entry in page]

    async def version(self) -> int:
        """The version of the tables."""
        [[version]] = await self.old.read('SELECT version FROM addresses_schema')
        return int(version)

    async def test_a_fresh_database_gets_the_newest_tables(self) -> None:
        await self.start()
        self.assertEqual(SCHEMA_VERSION, await self.version())
        self.assertEqual([], list(await self.old.read(
            'SELECT nickname, document, version, created_at, updated_at, name_key, origin '
            'FROM addresses')))

    async def test_all_entries_are_kept_with_their_versions_and_times(self) -> None:
        entries = await self.fill()
        before = [tuple(row) for row in await self.old.read(EVERYTHING)]
        store = await self.start()
        self.assertEqual(SCHEMA_VERSION, await self.version())
        self.assertEqual(entries, await store.read_page(None, 1000))
        self.assertEqual(before, [tuple(row) for row in await self.old.read(EVERYTHING)])
        self.assertEqual(entries[7], await store.read_entry(entries[7].nickname))

    async def test_a_search_finds_them_all(self) -> None:
        await self.fill()
        store = await self.start()
        self.assertEqual(sorted(NAMES), sorted(await self.names_found(store)))
        for prefix, names in (
            ('NARENDRA', NAMES[6:]), ('STRASSE', ['Straße']), ('É', ['e\u0301']), ('%', ['%']),
            ('\U0010ffff' * 256, [NAMES[2]]), ("'", [NAMES[3]]), (' ', [' ']), ('x', []),
        ):
            with self.subTest(prefix=prefix):
                self.assertEqual(names, await self.names_found(store, prefix))

    async def test_they_can_be_changed_as_any_others(self) -> None:
        entries = await self.fill(['Ada', 'Eve', 'Ida'])
        store = await self.start()
        version = await store.update_address(
            entries[0].nickname, entry_named('Grace'), entries[0].version)
        self.assertGreater(version, entries[0].version)
        await store.delete_address(entries[1].nickname, entries[1].version)
        made = await store.create_entry_once(address('raga'), 'key')
        self.assertEqual(made, await store.create_entry_once(address('raga'), 'key'))
        self.assertEqual(['Grace', 'Ida', address('raga')['name']], await self.names_found(store))

    async def test_two_services_may_upgrade_at_the_same_time(self) -> None:
        await self.fill()
        stores = [self.make_store() for _ in range(2)]
        await asyncio.gather(*(store.start() for store in stores))
        await asyncio.gather(*(store.ping() for store in stores))
        self.assertEqual(SCHEMA_VERSION, await self.version())
        for store in stores:
            self.assertEqual(sorted(NAMES), sorted(await self.names_found(store)))

    async def test_what_ends_while_names_are_filled_in_goes_on_later(self) -> None:
        await self.fill()
        connector = self.make_connector()
        write, done = connector.write, 0

        async def write_some(statement: str, *arguments: Value) -> Rows:
            nonlocal done
            done += statement == SET_NAME
            if done > 300:
                raise StoreUnavailableError('gone')
            return await write(statement, *arguments)

        with mock.patch.object(connector, 'write', write_some):
            first = self.make_store(connector)
            await first.start()
            with self.assertRaises(StoreUnavailableError):
                await first.read_page(None, 1)
        left = await self.old.read(SELECT_NAMELESS, 1000)
        self.assertEqual(2, await self.version())
        self.assertTrue(0 < len(left) <= len(NAMES) - PAGE_SIZE, len(left))
        store = await self.start()
        self.assertEqual(SCHEMA_VERSION, await self.version())
        self.assertEqual(sorted(NAMES), sorted(await self.names_found(store)))
        self.assertEqual(sorted(NAMES), sorted(await self.names_found(first)))

    async def test_what_fails_while_the_tables_are_changed_leaves_them_as_they_were(self) -> None:
        entries = await self.fill()
        connector = self.make_connector()
        run = connector.run_exclusively

        async def run_and_fail(statements: Sequence[str]) -> None:
            await run([*statements, 'INSERT INTO addresses_schema (version) VALUES (NULL)'])

        with mock.patch.object(connector, 'run_exclusively', run_and_fail):
            first = self.make_store(connector)
            await first.start()
        self.assertEqual(1, await self.version())
        self.assertEqual(entries, await first.read_page(None, 1000))
        self.assertEqual(SCHEMA_VERSION, await self.version())

    async def test_what_an_old_service_changes_meanwhile_is_found_by_its_new_name(self) -> None:
        entries = await self.fill(['Ada', 'Eve'])
        connector = self.make_connector()
        write, changed = connector.write, False

        async def write_second(statement: str, *arguments: Value) -> Rows:
            nonlocal changed
            if statement == SET_NAME and not changed:
                changed = True
                await self.old.write(
                    UPDATE_1, arguments[0], serialise_entry(entry_named('Zoe')).decode())
            return await write(statement, *arguments)

        with mock.patch.object(connector, 'write', write_second):
            store = self.make_store(connector)
            await store.start()
            await store.ping()
        self.assertEqual(['Zoe'], await self.names_found(store, 'z'))
        self.assertEqual(2, len(await self.names_found(store)))
        self.assertEqual(entries[0].version + 1,
                         (await store.find_page('z', None, 1))[0].version)

    async def test_what_a_newer_service_makes_of_them_meanwhile_stays(self) -> None:
        await self.fill(['Ada'])
        connector = self.make_connector()
        write = connector.write

        async def write_second(statement: str, *arguments: Value) -> Rows:
            if statement == SET_SCHEMA_VERSION:
                await self.old.write(SET_SCHEMA_VERSION, SCHEMA_VERSION + 1)
            return await write(statement, *arguments)

        store = SQLAddressBookDB(connector, self.settings)
        with mock.patch.object(connector, 'write', write_second):
            with self.assertRaises(NewerSchemaError):
                await store.start()
                self.addAsyncCleanup(store.stop)  # else it is stopped already
        self.assertEqual(SCHEMA_VERSION + 1, await self.version())


class SQLiteUpgradeTest(UpgradeContract, unittest.IsolatedAsyncioTestCase):
    """Tables in a file."""

    def make_settings(self) -> SQLSettings:
        settings = sqlite(self, deadline=DEADLINE).sql
        assert isinstance(settings, SQLSettings)
        return settings

    def make_connector(self) -> SQLConnector:
        return SQLiteConnector(self.settings)


class PostgreSQLUpgradeTest(UpgradeContract, unittest.IsolatedAsyncioTestCase):
    """Tables in a schema."""

    def make_settings(self) -> SQLSettings:
        settings = postgresql(self, deadline=DEADLINE).sql
        assert isinstance(settings, SQLSettings)
        return settings

    def make_connector(self) -> SQLConnector:
        return PostgreSQLConnector(self.settings)


if __name__ == '__main__':
    unittest.main()
