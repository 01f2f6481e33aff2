"""What reading costs: it is found by the index alone, however many entries there are."""

import json
import sqlite3
import unittest
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from addrservice.addressbook_db import SQLAddressBookDB
from addrservice.addressbook_db.statements import (
    FIND_FIRST_PAGE, FIND_PAGE, SELECT, SELECT_ALL, SELECT_FIRST_PAGE, SELECT_PAGE,
)
from addrservice.config import SQLSettings, StoreSettings
from addrservice.sql_connectors import SQLConnector, Value
from addrservice.sql_connectors.postgresql import PostgreSQLConnector
from addrservice.sql_connectors.sqlite import SQLiteConnector, database_path
from tests import backends
from tests.postgresql import shared_server

setUpModule = shared_server  # now, for to start it would hold up an event loop

FEW: Final = 1_000
MANY: Final = 100_000
PAGE: Final = 100
DOCUMENT: Final = '{"name":"' + 'x' * 240 + '"}'

# The names of all entries begin so, and with no more of it are they found.
PREFIX: Final = 'x' * 20
LAST: Final = PREFIX.ljust(256, '\U0010ffff')


class Read(NamedTuple):
    """A reading statement; where it takes a place, that is one in the middle of what it reads.

    :param arguments: what it is run with, from the nickname in the middle of the book, and the
        first name in the second half of all in their order
    :param indexes: what it is found by, as PostgreSQL calls it and as SQLite does
    """

    statement: str
    arguments: Callable[[str, str], tuple[Value, ...]]
    rows: int = PAGE
    indexes: tuple[str, str] = 'addresses_pkey', 'sqlite_autoindex_addresses_1'


BY_NAME: Final = 'addresses_by_name', 'addresses_by_name'
READS: Final = {
    'entry': Read(SELECT, lambda nickname, _: (nickname,), rows=1),
    'entries': Read(SELECT_ALL, lambda nickname, _: (json.dumps([[nickname]]),), rows=1),
    'first page': Read(SELECT_FIRST_PAGE, lambda *_: (PAGE,)),
    'page': Read(SELECT_PAGE, lambda nickname, _: (nickname, PAGE)),
    'first page of a search': Read(
        FIND_FIRST_PAGE, lambda *_: (PREFIX, LAST, PAGE), indexes=BY_NAME),
    'page of a search': Read(FIND_PAGE, lambda _, name: (name, '', LAST, PAGE), indexes=BY_NAME),
    'page of a search among the same names': Read(
        FIND_PAGE, lambda nickname, _: (PREFIX, nickname, LAST, PAGE), indexes=BY_NAME),
    'search that finds one': Read(
        FIND_FIRST_PAGE, lambda _, name: (name, name.ljust(256, '\U0010ffff'), PAGE),
        rows=1, indexes=BY_NAME),
    'search that finds none': Read(
        FIND_FIRST_PAGE, lambda *_: ('y', 'y'.ljust(256, '\U0010ffff'), PAGE),
        rows=0, indexes=BY_NAME),
}


def arguments(read: Read, entries: int) -> tuple[Value, ...]:
    """What a statement is run with in a book of so many entries.

    Of these, every other one has nothing but the prefix for a name.
    """
    return read.arguments(f'{entries // 2:032x}', f'{PREFIX}{1:032x}')


class QueryPlanTestCase(unittest.IsolatedAsyncioTestCase):
    async def open(
        self, settings: StoreSettings, connector: type[PostgreSQLConnector | SQLiteConnector]
    ) -> SQLConnector:
        """A connector to a database with the tables of the store."""
        assert isinstance(settings.sql, SQLSettings)
        store = SQLAddressBookDB(made := connector(settings.sql), settings.sql)
        await store.start()
        self.addAsyncCleanup(store.stop)
        self.reads = {name: read._replace(statement=store._unpacking(read.statement))
                      for name, read in READS.items()}
        return made


class PostgreSQLQueryPlanTest(QueryPlanTestCase):
    async def fill(self, connector: SQLConnector, entries: int) -> None:
        await connector.write(
            'INSERT INTO addresses (nickname, document, version, name_key) '
            "SELECT nickname, $1, number, $3 || CASE number % 2 WHEN 0 THEN '' ELSE nickname END "
            "FROM (SELECT number, lpad(to_hex(number), 32, '0') nickname FROM "
            'generate_series((SELECT count(*) FROM addresses), $2::int - 1) number) made',
            DOCUMENT, entries, PREFIX)
        await connector.write('ANALYZE addresses')

    async def explain(self, connector: SQLConnector, read: Read, entries: int) -> dict[str, Any]:
        """The plan of a reading statement as PostgreSQL carries it out."""
        statement = f'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {read.statement}'
        for _ in range(2):  # the second time what is read is in memory
            [[text]] = await connector.read(statement, *arguments(read, entries))
        plan: dict[str, Any] = json.loads(text)[0]['Plan']
        return plan

    async def test_reading_costs_the_same_in_a_small_and_in_a_large_book(self) -> None:
        """The entry or the page is found by the index and nothing else; counted in blocks read."""
        connector = await self.open(backends.postgresql(self, deadline=60), PostgreSQLConnector)
        blocks: dict[str, list[int]] = {name: [] for name in READS}
        for entries in (FEW, MANY):
            await self.fill(connector, entries)
            for name, read in self.reads.items():
                with self.subTest(read=name, entries=entries):
                    plan = await self.explain(connector, read, entries)
                    scan = plan
                    while 'Plans' in scan:
                        scan = scan['Plans'][-1]
                    self.assertEqual('Index Scan', scan['Node Type'])
                    self.assertEqual(read.indexes[0], scan['Index Name'])
                    self.assertNotIn('Filter', scan)
                    self.assertEqual(read.rows, scan['Actual Rows'])
                    blocks[name].append(plan['Shared Hit Blocks'] + plan['Shared Read Blocks'])
        for name, (few, many) in blocks.items():
            self.assertLessEqual(many, few + 3, name)  # a level or two of the index


class SQLiteQueryPlanTest(QueryPlanTestCase):
    async def fill(self, connector: SQLConnector, entries: int) -> None:
        await connector.write(
            'WITH RECURSIVE numbers (number) AS (SELECT (SELECT count(*) FROM addresses) '
            'UNION ALL SELECT number + 1 FROM numbers WHERE number < $2 - 1) '
            'INSERT INTO addresses (nickname, document, version, name_key) '
            "SELECT printf('%032x', number), $1, number, "
            "$3 || CASE number % 2 WHEN 0 THEN '' ELSE printf('%032x', number) END FROM numbers",
            DOCUMENT, entries, PREFIX)
        await connector.write('ANALYZE')

    def steps(self, database: sqlite3.Connection, read: Read, entries: int) -> int:
        """The instructions of SQLite's machine that a reading statement takes."""
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        named = {str(n): value for n, value in enumerate(arguments(read, entries), 1)}
        database.set_progress_handler(step, 1)
        rows = database.execute(read.statement, named).fetchall()
        database.set_progress_handler(None, 0)
        self.assertEqual(read.rows, len(rows))
        *_, plan = database.execute(f'EXPLAIN QUERY PLAN {read.statement}', named)
        self.assertIn(f'USING INDEX {read.indexes[1]}', plan[-1])
        return count

    async def test_reading_costs_the_same_in_a_small_and_in_a_large_book(self) -> None:
        settings = backends.sqlite(self)
        connector = await self.open(settings, SQLiteConnector)
        assert isinstance(settings.sql, SQLSettings)
        database = sqlite3.connect(database_path(settings.sql.dsn))
        self.addCleanup(database.close)
        steps: dict[str, list[int]] = {name: [] for name in READS}
        for entries in (FEW, MANY):
            await self.fill(connector, entries)
            for name, read in self.reads.items():
                with self.subTest(read=name, entries=entries):
                    self.steps(database, read, entries)  # the first one reads the schema too
                    steps[name].append(self.steps(database, read, entries))
        for name, (few, many) in steps.items():
            self.assertEqual(few, many, name)


if __name__ == '__main__':
    unittest.main()
