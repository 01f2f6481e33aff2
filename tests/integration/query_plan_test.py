"""What reading costs: it is found by the index alone, however many entries there are."""

import json
import sqlite3
import unittest
from typing import Any, Final

from addrservice.addressbook_db import SELECT, SELECT_FIRST_PAGE, SELECT_PAGE, SQLAddressBookDB
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

# Each reading statement; where it takes a nickname, one in the middle of the book.
READS: Final = {'entry': SELECT, 'first page': SELECT_FIRST_PAGE, 'page': SELECT_PAGE}


def arguments(read: str, entries: int) -> tuple[Value, ...]:
    """What a reading statement is run with in a book of so many entries."""
    middle = f'{entries // 2:032x}'
    choices: dict[str, tuple[Value, ...]] = {
        'entry': (middle,), 'first page': (PAGE,), 'page': (middle, PAGE)}
    return choices[read]


class QueryPlanTestCase(unittest.IsolatedAsyncioTestCase):
    async def open(
        self, settings: StoreSettings, connector: type[PostgreSQLConnector | SQLiteConnector]
    ) -> SQLConnector:
        """A connector to a database with the tables of the store."""
        assert isinstance(settings.sql, SQLSettings)
        store = SQLAddressBookDB(made := connector(settings.sql), settings.sql)
        await store.start()
        self.addAsyncCleanup(store.stop)
        return made


class PostgreSQLQueryPlanTest(QueryPlanTestCase):
    async def fill(self, connector: SQLConnector, entries: int) -> None:
        await connector.write(
            'INSERT INTO addresses (nickname, document, version) '
            "SELECT lpad(to_hex(number), 32, '0'), $1, number "
            'FROM generate_series((SELECT count(*) FROM addresses), $2::int - 1) number',
            DOCUMENT, entries)
        await connector.write('ANALYZE addresses')

    async def explain(self, connector: SQLConnector, read: str, entries: int) -> dict[str, Any]:
        """The plan of a reading statement as PostgreSQL carries it out."""
        statement = f'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {READS[read]}'
        for _ in range(2):  # the second time what is read is in memory
            [[text]] = await connector.read(statement, *arguments(read, entries))
        plan: dict[str, Any] = json.loads(text)[0]['Plan']
        return plan

    async def test_reading_costs_the_same_in_a_small_and_in_a_large_book(self) -> None:
        """The entry or the page is found by the index and nothing else; counted in blocks read."""
        connector = await self.open(backends.postgresql(self, deadline=60), PostgreSQLConnector)
        blocks: dict[str, list[int]] = {read: [] for read in READS}
        for entries in (FEW, MANY):
            await self.fill(connector, entries)
            for read in READS:
                with self.subTest(read=read, entries=entries):
                    plan = await self.explain(connector, read, entries)
                    scan = plan['Plans'][0] if plan['Node Type'] == 'Limit' else plan
                    self.assertEqual('Index Scan', scan['Node Type'])
                    self.assertEqual('addresses_pkey', scan['Index Name'])
                    self.assertNotIn('Filter', scan)
                    self.assertEqual(1 if read == 'entry' else PAGE, scan['Actual Rows'])
                    blocks[read].append(plan['Shared Hit Blocks'] + plan['Shared Read Blocks'])
        for read, (few, many) in blocks.items():
            self.assertLessEqual(many, few + 3, read)  # a level or two of the index


class SQLiteQueryPlanTest(QueryPlanTestCase):
    async def fill(self, connector: SQLConnector, entries: int) -> None:
        await connector.write(
            'WITH RECURSIVE numbers (number) AS (SELECT (SELECT count(*) FROM addresses) '
            'UNION ALL SELECT number + 1 FROM numbers WHERE number < $2 - 1) '
            'INSERT INTO addresses (nickname, document, version) '
            "SELECT printf('%032x', number), $1, number FROM numbers", DOCUMENT, entries)
        await connector.write('ANALYZE')

    def steps(self, database: sqlite3.Connection, read: str, entries: int) -> int:
        """The instructions of SQLite's machine that a reading statement takes."""
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        named = {str(n): value for n, value in enumerate(arguments(read, entries), 1)}
        database.set_progress_handler(step, 1)
        rows = database.execute(READS[read], named).fetchall()
        database.set_progress_handler(None, 0)
        self.assertEqual(1 if read == 'entry' else PAGE, len(rows))
        [plan] = database.execute(f'EXPLAIN QUERY PLAN {READS[read]}', named)
        self.assertIn('USING INDEX sqlite_autoindex_addresses_1', plan[-1])
        return count

    async def test_reading_costs_the_same_in_a_small_and_in_a_large_book(self) -> None:
        settings = backends.sqlite(self)
        connector = await self.open(settings, SQLiteConnector)
        assert isinstance(settings.sql, SQLSettings)
        database = sqlite3.connect(database_path(settings.sql.dsn))
        self.addCleanup(database.close)
        steps: dict[str, list[int]] = {read: [] for read in READS}
        for entries in (FEW, MANY):
            await self.fill(connector, entries)
            for read in READS:
                with self.subTest(read=read, entries=entries):
                    self.steps(database, read, entries)  # the first one reads the schema too
                    steps[read].append(self.steps(database, read, entries))
        for read, (few, many) in steps.items():
            self.assertEqual(few, many, read)


if __name__ == '__main__':
    unittest.main()
