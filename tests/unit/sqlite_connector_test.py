"""The SQLite connector on real files: what errors mean, and what happens when there is trouble."""

import asyncio
import itertools
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from unittest import mock

from addrservice.addressbook_db import AbstractAddressBookDB, create_addressbook_db
from addrservice.addressbook_db.statements import SCHEMA_VERSION
from addrservice.config import SQLSettings, StoreSettings
from addrservice.errors import (
    NothingDoneError, StartError, StoreError, StoreMisconfiguredError, StoreUnavailableError,
)
from addrservice.sql_connectors.sqlite import SQLiteConnector, database_path, outcome
from addrservice.sql_connectors.sqlite_threads import Writer
from tests.addressbook_db_conditions_contract import ConditionsContract
from tests.addressbook_db_contract import entry_named
from tests.addressbook_db_search_contract import SearchContract
from tests.support import DEADLINE, ROOT, wait_until

# What each primary result code means for a statement that met it; see
# https://sqlite.org/rescode.html.
DECISIONS: Final = {
    StoreError: 'INTERNAL ABORT NOTFOUND EMPTY SCHEMA TOOBIG CONSTRAINT MISMATCH MISUSE NOLFS '
                'FORMAT RANGE',
    StoreUnavailableError: 'NOMEM READONLY INTERRUPT IOERR FULL CANTOPEN',
    NothingDoneError: 'BUSY LOCKED PROTOCOL',
    StoreMisconfiguredError: 'ERROR PERM CORRUPT AUTH NOTADB',
}
MEANINGS: Final = {f'SQLITE_{name}': meaning
                   for meaning, names in DECISIONS.items() for name in names.split()}

# Not errors of a statement: other results, and numbers for other purposes.
OTHERS: Final = {f'SQLITE_{name}' for name in (
    'OK NOTICE WARNING ROW DONE '
    'CREATE_INDEX CREATE_TABLE CREATE_TEMP_INDEX CREATE_TEMP_TABLE CREATE_TEMP_TRIGGER '
    'CREATE_TEMP_VIEW CREATE_TRIGGER CREATE_VIEW CREATE_VTABLE DROP_INDEX DROP_TABLE '
    'DROP_TEMP_INDEX DROP_TEMP_TABLE DROP_TEMP_TRIGGER DROP_TEMP_VIEW DROP_TRIGGER DROP_VIEW '
    'DROP_VTABLE ALTER_TABLE ANALYZE ATTACH DETACH DELETE INSERT UPDATE SELECT READ PRAGMA '
    'TRANSACTION SAVEPOINT REINDEX FUNCTION RECURSIVE DENY IGNORE').split()}

# What another process does that takes the file for itself, which it can if nobody uses it.
TAKER: Final = '''
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
try:
    print(connection.execute('PRAGMA journal_mode = DELETE').fetchone()[0])
except sqlite3.OperationalError as error:
    print(error)
connection.close()
'''

# What another process does at the same time as its like: it prepares one file after the other.
STARTER: Final = '''
import asyncio, sys
from addrservice.addressbook_db import create_addressbook_db
from addrservice.config import SQLSettings, StoreSettings

async def prepare(dsn):
    store = create_addressbook_db(StoreSettings(sql=SQLSettings(dsn, deadline=10)))
    await store.start()
    await store.create_address({'name': 'x'})
    await store.stop()

for dsn in sys.argv[1:]:
    print('ready', flush=True)
    sys.stdin.readline()
    asyncio.run(prepare(dsn))
'''


def result_codes() -> dict[str, int]:
    """The numbers that the driver has names for, without those that belong to a setting."""
    return {name: value for name, value in vars(sqlite3).items()
            if name.startswith('SQLITE_') and not name.startswith(('SQLITE_LIMIT', 'SQLITE_DBCON'))}


def error_with(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError('no')
    error.sqlite_errorcode = code
    return error


def dsn_of(path: Path) -> str:
    """The DSN of a file."""
    return path.as_uri().replace('file:', 'sqlite:')


@contextmanager
def full_disk() -> Iterator[None]:
    """This process can write into no file. Nor can it print, so whoever is in here fails mutely."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def unprivileged() -> Iterator[None]:
    """This process has the rights of everybody, for root may open any file."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


async def let_all_run(turns: int = 5) -> None:
    """Gives every task that can go on its turns."""
    for _ in range(turns):
        await asyncio.sleep(0)


class SQLiteAddressBookDBTest(
    ConditionsContract, SearchContract, unittest.IsolatedAsyncioTestCase
):
    """The contract of all stores, kept in one file."""

    async def make_store(self) -> AbstractAddressBookDB:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.settings = StoreSettings(sql=SQLSettings(dsn_of(Path(folder.name, 'addressbook.db'))))
        return create_addressbook_db(self.settings)

    async def another_store(self) -> AbstractAddressBookDB:
        other = create_addressbook_db(self.settings)
        await other.start()
        self.addAsyncCleanup(other.stop)
        return other

    async def test_two_stores_on_one_file_see_what_the_other_one_wrote(self) -> None:
        other = await self.another_store()
        for number in range(10):
            await self.store.create_address(entry_named(f'{number}'), 'pm')
            self.assertEqual(entry_named(f'{number}'), await other.read_address('pm'))
            await other.update_address('pm', entry_named(f'{number}, again'))
            self.assertEqual(entry_named(f'{number}, again'), await self.store.read_address('pm'))
            await other.delete_address('pm')
            self.assertEqual({}, await self.store.read_all_addresses())


class MappingTest(unittest.TestCase):
    """Each error of the driver has its place in the tree."""

    def test_it_is_decided_what_each_primary_result_code_means(self) -> None:
        primary = {name for name, value in result_codes().items() if value < 256}
        self.assertEqual(set(), primary - MEANINGS.keys() - OTHERS)
        self.assertEqual(set(), MEANINGS.keys() - primary)

    def test_each_result_code_means_what_was_decided(self) -> None:
        """An extended one means the same as its primary one, whose name its own begins with."""
        for name, value in result_codes().items():
            for primary, meaning in MEANINGS.items():
                if name == primary or value > 255 and name.startswith(f'{primary}_'):
                    with self.subTest(name=name):
                        self.assertIs(meaning, outcome(error_with(value)))

    def test_an_error_without_a_code_is_one_that_nobody_foresaw(self) -> None:
        self.assertIs(StoreError, outcome(sqlite3.ProgrammingError('Cannot operate on a closed')))

    def test_an_error_of_the_file_system_is_trouble_that_may_pass(self) -> None:
        for error in (FileNotFoundError(), PermissionError(), IsADirectoryError(), OSError(28, '')):
            with self.subTest(error=error):
                self.assertIs(StoreUnavailableError, outcome(error))


class PathTest(unittest.TestCase):
    """Which file a DSN names."""

    def test_a_dsn_names_an_absolute_path(self) -> None:
        for dsn, path in (
            ('sqlite:///a/b.db', '/a/b.db'),
            ('sqlite:///a%20b%3F%23%25/%C3%A4.db', '/a b?#%/ä.db'),
            ('sqlite:///a/~/b.db', '/a/~/b.db'),
            ('sqlite:///~a/b.db', '/~a/b.db'),
        ):
            with self.subTest(dsn=dsn):
                self.assertEqual(Path(path), database_path(dsn))

    def test_a_tilde_is_the_home_folder(self) -> None:
        with mock.patch.dict(os.environ, HOME='/home/ada'):
            self.assertEqual(Path('/home/ada/a b.db'), database_path('sqlite:///~/a%20b.db'))

    def test_who_has_no_home_cannot_have_a_file_in_it(self) -> None:
        settings = StoreSettings(sql=SQLSettings('sqlite:///~/a.db'))
        with (mock.patch.dict(os.environ), mock.patch('pwd.getpwuid', side_effect=KeyError)):
            os.environ.pop('HOME', None)
            with self.assertRaisesRegex(StartError, '^sqlite:///~/a.db: .*home'):
                create_addressbook_db(settings)


class ConnectorTestCase(unittest.IsolatedAsyncioTestCase):
    """A connector to a file that is not there yet."""

    deadline: float = DEADLINE  # of which a statement may wait a part for a lock
    pool_size = 3

    async def asyncSetUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, 'address book.db')
        self._threads = set(threading.enumerate())
        self._started: list[SQLiteConnector] = []
        self.addAsyncCleanup(self.stop)
        self.connector = await self.start(self.path)

    async def start(self, path: Path) -> SQLiteConnector:
        """A connector to a file, until ``stop``."""
        connector = SQLiteConnector(
            SQLSettings(dsn_of(path), deadline=self.deadline, pool_size=self.pool_size))
        await connector.start()
        self._started.append(connector)
        return connector

    async def stop(self) -> None:
        """Stops what was started; so does the end of the test."""
        async with asyncio.timeout(DEADLINE):
            while self._started:
                await self._started.pop().stop()

    async def make_table(self) -> None:
        """Makes a table for numbers, empty, on the one connection that writes."""
        await self.connector.run_exclusively(['CREATE TABLE numbers (number INTEGER NOT NULL)'])

    async def insert(self, number: int) -> None:
        async with asyncio.timeout(DEADLINE):
            await self.connector.write('INSERT INTO numbers VALUES ($1)', number)

    async def numbers(self) -> list[int]:
        """What is in the table, in the order in which it came."""
        async with asyncio.timeout(DEADLINE):
            rows = await self.connector.read('SELECT number FROM numbers ORDER BY rowid')
        return [number for number, in rows]

    def another_connection(self) -> sqlite3.Connection:
        """A connection of somebody else's to the file."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        return connection

    def new_threads(self) -> int:
        """How many threads there are more than before: one for each connection."""
        return len(set(threading.enumerate()) - self._threads)


class ConnectionsTest(ConnectorTestCase):
    """When connections are made, how, and that they are closed again."""

    async def use_all(self) -> None:
        """Reads and writes as often at the same time as it takes to use each connection."""
        async with asyncio.timeout(DEADLINE):
            await self.connector.read('SELECT 1')  # alone: who makes the file locks it meanwhile
            await asyncio.gather(*(self.connector.read('SELECT 1') for _ in range(10)),
                                 *(self.connector.write('SELECT 1') for _ in range(10)))

    async def test_nothing_is_opened_before_it_is_needed(self) -> None:
        self.assertEqual((0, False), (self.new_threads(), self.path.exists()))
        for _ in range(3):
            await self.connector.read('SELECT 1')
        self.assertEqual((1, True), (self.new_threads(), self.path.exists()))
        await self.connector.write('PRAGMA user_version = 0')
        self.assertEqual(2, self.new_threads())

    async def test_no_more_are_made_than_the_pool_may_have_and_one_that_writes(self) -> None:
        await self.use_all()
        self.assertEqual(self.pool_size + 1, self.new_threads())

    async def test_a_commit_is_on_the_disk_and_readers_do_not_wait_for_the_writer(self) -> None:
        await self.use_all()
        for pragma, value in (('journal_mode', 'wal'), ('synchronous', 2), ('fullfsync', 1)):
            with self.subTest(pragma=pragma):
                rows = await asyncio.gather(
                    self.connector.write(f'PRAGMA {pragma}'),
                    *(self.connector.read(f'PRAGMA {pragma}') for _ in range(self.pool_size)))
                self.assertEqual([[(value,)]] * (1 + self.pool_size), rows)

    async def test_a_new_file_can_be_read_by_nobody_else(self) -> None:
        """Nor can the files that SQLite keeps beside it."""
        self.addCleanup(os.umask, os.umask(0))
        await self.make_table()
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in self.path.parent.iterdir()}
        self.assertEqual(dict.fromkeys(
            [self.path.name, f'{self.path.name}-wal', f'{self.path.name}-shm'], '0o600'), modes)

    async def test_a_file_that_is_there_keeps_its_mode(self) -> None:
        self.path.touch()
        self.path.chmod(0o640)
        await self.make_table()
        self.assertEqual(0o640, self.path.stat().st_mode & 0o777)

    async def test_a_file_in_use_is_not_taken_by_another_process(self) -> None:
        """Whatever was opened meanwhile: with the locks on it, the last writes would be lost."""
        await self.connector.write('PRAGMA user_version = 1')
        await self.use_all()
        taker = [sys.executable, '-I', '-S', '-c', TAKER, str(self.path)]
        done = subprocess.run(taker, capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual(('database is locked\n', ''), (done.stdout, done.stderr))
        await self.stop()
        done = subprocess.run(taker, capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual(('delete\n', ''), (done.stdout, done.stderr))

    async def test_a_stop_ends_all_threads(self) -> None:
        await self.use_all()
        await self.stop()
        wait_until(lambda: self.new_threads() == 0)

    async def begin_and_cancel(self, turns: int) -> None:
        """Cancels operations on all connections after so many turns of the event loop."""
        operations = [asyncio.create_task(run('SELECT 1')) for _ in range(self.pool_size)
                      for run in (self.connector.read, self.connector.write)]
        await let_all_run(turns)
        for operation in operations:
            operation.cancel()
        await asyncio.gather(*operations, return_exceptions=True)

    async def test_a_stop_ends_all_threads_also_those_of_cancelled_operations(self) -> None:
        """Whether these were still connecting, at work or almost done."""
        await self.use_all()
        for turns in (0, 1, 2, 3, 5, 8, 13, 100, 1000):
            with self.subTest(turns=turns):
                await self.begin_and_cancel(turns)
                await self.stop()
                wait_until(lambda: self.new_threads() == 0)
                self.connector = await self.start(self.path)

    async def test_cancelled_operations_cost_no_connection(self) -> None:
        await self.use_all()
        for turns in (0, 1, 2, 3, 5, 8, 13, 100, 1000):
            await self.begin_and_cancel(turns)
        await self.use_all()
        wait_until(lambda: self.new_threads() == self.pool_size + 1)

    async def test_a_stop_does_not_wait_for_ever(self) -> None:
        """A thread that is at work ends later."""
        await self.make_table()
        lock = self.another_connection()
        lock.execute('BEGIN IMMEDIATE')
        writing = asyncio.create_task(self.insert(1))
        await let_all_run()
        with mock.patch('addrservice.sql_connectors.sqlite.FAREWELL', 0.01):
            await self.stop()
        self.assertEqual(1, self.new_threads())
        lock.execute('COMMIT')
        await writing
        async with asyncio.timeout(DEADLINE):
            while self.new_threads():
                await asyncio.sleep(0.005)

    async def test_what_is_at_work_is_in_use_even_if_nobody_waits_for_it(self) -> None:
        await self.make_table()
        self.assertEqual((0, self.pool_size + 1), self.connector.connections())
        lock = self.another_connection()
        lock.execute('BEGIN IMMEDIATE')
        begin = mock.patch.object(Writer, '_begin', autospec=True, side_effect=Writer._begin)
        with begin as begun:
            writing = [asyncio.create_task(self.insert(number)) for number in range(5)]
            async with asyncio.timeout(DEADLINE):
                while not begun.called:  # what is given up before is not at work
                    await asyncio.sleep(0.001)
        self.assertEqual((1, self.pool_size), self.connector.connections())
        for each in writing:
            each.cancel()
        await let_all_run()
        self.assertEqual((1, self.pool_size), self.connector.connections())
        lock.execute('COMMIT')
        async with asyncio.timeout(DEADLINE):
            while self.connector.connections().in_use:
                await asyncio.sleep(0.001)

    async def test_an_sqlite_that_is_too_old_is_refused(self) -> None:
        for version in ((3, 34, 1), (2, 99, 0)):
            with (self.subTest(version=version),
                  mock.patch('sqlite3.sqlite_version_info', version),
                  mock.patch('sqlite3.sqlite_version', '.'.join(map(str, version)))):
                with self.assertRaisesRegex(StartError, r'SQLite 3\.35 or newer.* is [23]\.[0-9]+'):
                    await self.start(self.path)
        with mock.patch('sqlite3.sqlite_version_info', (3, 35, 0)):
            await self.start(self.path)


class LockTest(ConnectorTestCase):
    """Somebody else writes into the file."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        await self.make_table()
        self.other = self.another_connection()

    async def test_a_write_that_waits_too_long_has_done_nothing_and_never_will(self) -> None:
        self.deadline = 0.2
        self.connector = await self.start(self.path)
        self.other.execute('BEGIN IMMEDIATE')
        for write in (self.insert(1), self.connector.run_exclusively(['SELECT 1'])):
            with self.assertRaisesRegex(NothingDoneError, 'locked'):
                async with asyncio.timeout(4):  # it waits for 0.08 s; unless told, for 5 s
                    await write
        self.other.execute('COMMIT')
        await self.insert(2)
        self.assertEqual([2], await self.numbers())

    async def test_reads_go_on_while_a_write_waits(self) -> None:
        """They see what was committed before."""
        self.other.execute('BEGIN IMMEDIATE')
        self.other.execute('INSERT INTO numbers VALUES (1)')
        writing = asyncio.create_task(self.insert(2))
        await let_all_run()
        self.assertEqual([], await self.numbers())
        self.assertFalse(writing.done())
        self.other.execute('COMMIT')
        await writing
        self.assertEqual([1, 2], await self.numbers())

    async def test_a_write_that_waits_is_done_when_the_lock_is_released(self) -> None:
        self.other.execute('BEGIN IMMEDIATE')
        writing = asyncio.create_task(self.insert(1))
        await let_all_run()
        self.other.execute('COMMIT')
        await writing
        self.assertEqual([1], await self.numbers())

    async def test_a_write_that_was_cancelled_before_its_turn_is_never_done(self) -> None:
        self.other.execute('BEGIN IMMEDIATE')
        first, *others = (asyncio.create_task(self.insert(number)) for number in range(10))
        await let_all_run()
        for each in others:
            each.cancel()
        self.other.execute('COMMIT')
        await asyncio.wait([first, *others])
        await self.insert(99)
        self.assertEqual([0, 99], await self.numbers())

    async def test_a_write_that_was_cancelled_makes_way_for_the_next(self) -> None:
        self.other.execute('BEGIN IMMEDIATE')
        writing = asyncio.create_task(self.insert(1))
        await let_all_run()
        writing.cancel()
        self.other.execute('COMMIT')
        await asyncio.wait([writing])
        await self.insert(2)
        self.assertEqual(2, (await self.numbers())[-1])


class GroupTest(ConnectorTestCase):
    """Writes that wait at the same time are committed together."""

    async def asyncSetUp(self) -> None:
        self.statements: list[str] = []  # as they were run, with their values
        connect = sqlite3.connect
        self.enterContext(mock.patch('sqlite3.connect', lambda *args, **keys: self.traced(
            connect(*args, **keys))))
        await super().asyncSetUp()
        await self.make_table()
        self.other = self.another_connection()
        self.other.set_trace_callback(None)

    def traced(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """A connection that tells which statements it runs."""
        connection.set_trace_callback(self.statements.append)
        return connection

    def lock(self) -> None:
        """Has all writes wait, until ``unlock``."""
        self.other.execute('BEGIN IMMEDIATE')
        self.statements.clear()

    def unlock(self) -> None:
        """Has them go on."""
        self.other.execute('COMMIT')

    async def wait_for_lock(self, times: int = 1) -> None:
        """Waits until the first write has asked for the lock so many times.

        Those to come will make a group.
        """
        async with asyncio.timeout(DEADLINE):
            while self.statements.count('BEGIN IMMEDIATE') < times:
                await asyncio.sleep(0.001)

    async def group(
        self, *writes: Awaitable[object]
    ) -> tuple[asyncio.Task[object], list[asyncio.Task[object]]]:
        """Writes the number 0, which waits for the lock; gives that, and the writes behind it."""
        self.lock()
        first: asyncio.Task[object] = asyncio.create_task(self.insert(0))
        await self.wait_for_lock()
        others = [asyncio.ensure_future(write) for write in writes]
        await let_all_run()
        return first, others

    async def results(self, *writes: Awaitable[object]) -> list[object]:
        """What the writes of a group come to, errors as their text."""
        first, others = await self.group(*writes)
        self.unlock()
        async with asyncio.timeout(DEADLINE):
            await first
            results = await asyncio.gather(*others, return_exceptions=True)
        return [str(result) if isinstance(result, Exception) else result for result in results]

    async def test_a_write_that_comes_alone_is_committed_at_once(self) -> None:
        self.statements.clear()
        await self.insert(1)
        self.assertEqual(['BEGIN IMMEDIATE', 'INSERT INTO numbers VALUES (1)', 'COMMIT'],
                         self.statements)

    async def test_what_has_come_while_one_was_committed_is_committed_together(self) -> None:
        await self.results(*(self.insert(number) for number in range(1, 10)))
        self.assertEqual(
            ['BEGIN IMMEDIATE', 'INSERT INTO numbers VALUES (0)', 'COMMIT', 'BEGIN IMMEDIATE',
             *(f'INSERT INTO numbers VALUES ({number})' for number in range(1, 10)), 'COMMIT'],
            [statement for statement, _ in itertools.groupby(self.statements)])
        self.assertEqual([*range(10)], await self.numbers())

    async def test_a_group_has_a_bound(self) -> None:
        """Else other processes would wait too long for the lock."""
        with mock.patch('addrservice.sql_connectors.sqlite.GROUP', 4):
            self.connector = await self.start(self.path)
        await self.results(*(self.insert(number) for number in range(1, 10)))
        self.assertEqual(1 + 3, self.statements.count('COMMIT'))
        self.assertEqual([*range(10)], await self.numbers())

    async def test_each_is_told_what_its_own_statement_gave(self) -> None:
        write = self.connector.write
        self.assertEqual([[(11,)], [], [(12,), (13,)]], await self.results(
            write('INSERT INTO numbers VALUES ($1) RETURNING number', 11),
            write('INSERT INTO numbers SELECT 1 WHERE 0 RETURNING number'),
            write('INSERT INTO numbers VALUES (12), ($1) RETURNING number', 13)))

    async def test_nobody_is_told_before_the_commit(self) -> None:
        """Where that fails, all are told so, and none was done."""
        first, others = await self.group(*(self.insert(number) for number in range(1, 5)))
        with full_disk():
            self.unlock()
            async with asyncio.timeout(DEADLINE):
                results = await asyncio.gather(first, *others, return_exceptions=True)
        self.assertEqual([StoreUnavailableError] * 5, [type(result) for result in results])
        self.assertEqual(5, len(set(map(id, results))))  # each may be raised, and changed
        self.assertEqual([], await self.numbers())
        await self.insert(6)
        self.assertEqual([6], await self.numbers())

    async def test_one_that_cannot_be_done_does_no_harm_to_the_others(self) -> None:
        """Whether the database refuses it or its driver. Nor is any other one done twice."""
        write = self.connector.write
        self.assertEqual(
            [None, f'{self.path}: NOT NULL constraint failed: numbers.number',
             None, f'{self.path}: no such table: nowhere',
             None, 'Python int too large to convert to SQLite INTEGER', None],
            await self.results(
                self.insert(1), write('INSERT INTO numbers VALUES (8), (NULL)'),
                self.insert(2), write('INSERT INTO nowhere VALUES (9)'),
                self.insert(3), self.insert(2 ** 70), self.insert(4)))
        self.assertEqual([*range(5)], await self.numbers())

    async def test_statements_that_belong_together_are_done_all_or_not_at_all(self) -> None:
        run = self.connector.run_exclusively
        self.assertEqual([None, f'{self.path}: no such table: nowhere', None, None],
                         await self.results(
            self.insert(1),
            run(['INSERT INTO numbers VALUES (9)', 'INSERT INTO nowhere VALUES (9)']),
            run(['INSERT INTO numbers VALUES (2)', 'INSERT INTO numbers VALUES (3)']),
            self.insert(4)))
        self.assertEqual([*range(5)], await self.numbers())

    async def test_who_is_cancelled_takes_nobody_along(self) -> None:
        first, others = await self.group(*(self.insert(number) for number in range(1, 10)))
        for each in others[::2]:
            each.cancel()
        self.unlock()
        await asyncio.wait([first, *others])
        self.assertEqual([0, 2, 4, 6, 8], await self.numbers())

    async def test_where_all_are_cancelled_nobody_asks_for_the_lock(self) -> None:
        first, others = await self.group(self.insert(1), self.insert(2))
        for each in others:
            each.cancel()
        self.unlock()
        await asyncio.wait([first, *others])
        await self.connector.stop()  # which is when all is done
        self.assertEqual(1, self.statements.count('COMMIT'))

    async def test_a_lock_that_stays_has_none_of_them_done_and_all_told_in_time(self) -> None:
        """Each of them has time left to be tried again."""
        self.deadline = 1
        self.connector = await self.start(self.path)
        first, others = await self.group(*(self.insert(number) for number in range(1, 10)))
        async with asyncio.timeout(3):  # one by one, it would take 4 s
            results = await asyncio.gather(first, *others, return_exceptions=True)
        self.assertEqual([NothingDoneError] * 10, [type(result) for result in results])
        self.unlock()
        self.assertEqual([], await self.numbers())

    async def test_the_lock_is_asked_for_often(self) -> None:
        """Who asks ever more rarely does not get it where others write without a pause."""
        self.deadline = 2 * DEADLINE
        self.connector = await self.start(self.path)
        first, _ = await self.group()
        await self.wait_for_lock(100)
        self.unlock()
        await first

    async def test_what_waits_when_it_is_told_to_stop_is_done_first(self) -> None:
        first, others = await self.group(*(self.insert(number) for number in range(1, 10)))
        stopping = asyncio.create_task(self.stop())
        await let_all_run()
        self.unlock()
        await stopping
        self.assertEqual([None] * 10, await asyncio.gather(first, *others))
        rows = self.other.execute('SELECT number FROM numbers ORDER BY rowid')
        self.assertEqual([*range(10)], [number for number, in rows])

    async def test_groups_of_several_writers_take_turns(self) -> None:
        writers = [await self.start(self.path) for _ in range(3)]
        await asyncio.gather(*(
            writer.write('INSERT INTO numbers VALUES ($1)', number)
            for number in range(30) for writer in writers))
        self.assertEqual(sorted([*range(30)] * 3), sorted(await self.numbers()))


class TransactionTest(ConnectorTestCase):
    """Statements that are run exclusively are done all or not at all."""

    async def test_all_of_them_are_done(self) -> None:
        await self.connector.run_exclusively(
            ['CREATE TABLE numbers (number INTEGER)', 'INSERT INTO numbers VALUES (1), (2)'])
        self.assertEqual([1, 2], await self.numbers())

    async def test_where_one_fails_none_is_done(self) -> None:
        """The next ones are none the worse for it."""
        await self.make_table()
        for _ in range(2):
            with self.assertRaisesRegex(StoreMisconfiguredError, 'nowhere'):
                await self.connector.run_exclusively(
                    ['INSERT INTO numbers VALUES (1)', 'INSERT INTO nowhere VALUES (1)'])
            self.assertEqual([], await self.numbers())
        await self.connector.run_exclusively(['INSERT INTO numbers VALUES (2)'])
        await self.insert(3)
        self.assertEqual([2, 3], await self.numbers())

    def let_prepare(self, processes: list[subprocess.Popen[bytes]], files: int) -> None:
        """Has processes prepare one file after the other, each at the same moment."""
        for _ in range(files):
            for process in processes:
                assert process.stdout is not None
                self.assertEqual(b'ready\n', process.stdout.readline())
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b'\n')
        for process in processes:
            self.assertEqual((b'', b''), process.communicate(timeout=DEADLINE))

    async def test_two_processes_may_prepare_a_file_at_the_same_time(self) -> None:
        paths = [self.path.with_name(str(number)) for number in range(5)]
        command = [sys.executable, '-c', STARTER, *map(dsn_of, paths)]
        processes = [self.enterContext(subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, bufsize=0)) for _ in range(2)]
        for process in processes:
            self.addCleanup(process.kill)
        await asyncio.to_thread(self.let_prepare, processes, len(paths))
        for path in paths:
            store = await self.start(path)
            self.assertEqual([(2,)], await store.read('SELECT count(*) FROM addresses'))
            self.assertEqual([(SCHEMA_VERSION,)],
                             await store.read('SELECT version FROM addresses_schema'))


class TroubleTest(ConnectorTestCase):
    """The file cannot be used; once it can, nobody needs to restart anything."""

    async def assert_trouble(
        self, error: type[StoreError], reason: str, repair: Callable[[], object]
    ) -> None:
        """Each operation fails for a reason, and works after a repair."""
        for _ in range(2):
            for operation in (self.connector.read('SELECT 1'), self.connector.write('SELECT 1'),
                              self.connector.check('SELECT 1'),
                              self.connector.run_exclusively(['SELECT 1'])):
                with self.assertRaises(StoreError) as caught:
                    await operation
                self.assertIs(error, type(caught.exception))
                self.assertEqual(f'{self.path}: {reason}', str(caught.exception))
        repair()
        await self.make_table()
        await self.connector.check('SELECT 1')
        await self.insert(1)
        self.assertEqual([1], await self.numbers())

    async def test_the_folder_is_missing(self) -> None:
        self.path = self.path.parent / 'folder' / 'file'
        self.connector = await self.start(self.path)
        await self.assert_trouble(
            StoreUnavailableError, 'No such file or directory', self.path.parent.mkdir)

    async def test_a_folder_is_in_the_place_of_the_file(self) -> None:
        self.path.mkdir()
        await self.assert_trouble(
            StoreUnavailableError, 'unable to open database file', self.path.rmdir)

    async def test_the_file_is_no_database(self) -> None:
        self.path.write_bytes(b'Dear diary, ' * 1000)
        await self.assert_trouble(
            StoreMisconfiguredError, 'file is not a database', self.path.unlink)

    async def test_the_file_may_not_be_opened(self) -> None:
        self.path.touch(0o000)
        with unprivileged():
            with self.assertRaisesRegex(StoreUnavailableError, '(denied|unable to open .*)$'):
                await self.connector.read('SELECT 1')
        self.path.chmod(0o600)
        await self.make_table()

    async def test_a_table_is_missing(self) -> None:
        with self.assertRaisesRegex(StoreMisconfiguredError, 'no such table: numbers$'):
            await self.numbers()

    async def test_what_may_only_be_read_refuses_a_write_at_once(self) -> None:
        await self.make_table()
        await self.connector.write('PRAGMA query_only = ON')
        async with asyncio.timeout(2):  # a lock would be waited for twice as long
            with self.assertRaisesRegex(StoreUnavailableError, 'readonly') as caught:
                await self.insert(1)
        self.assertIs(StoreUnavailableError, type(caught.exception))
        await self.insert(2)
        self.assertEqual([2], await self.numbers())

    async def test_a_database_that_may_grow_no_more_takes_no_write(self) -> None:
        await self.make_table()
        await self.connector.write('PRAGMA max_page_count = 2')
        with self.assertRaisesRegex(StoreUnavailableError, 'full') as caught:
            await self.connector.write('CREATE TABLE another (number INTEGER)')
        self.assertIs(StoreUnavailableError, type(caught.exception))


class FullDiskTest(ConnectorTestCase):
    """Nothing can be written, while all can be read."""

    deadline = 0.2

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        await self.make_table()
        await self.insert(1)
        await self.numbers()  # so that there is a connection that reads

    async def check(self) -> None:
        """Asks whether the database can be used."""
        await self.connector.check('SELECT number FROM numbers')

    async def fail_to_write(self) -> None:
        with self.assertRaises(StoreUnavailableError) as caught:
            await self.insert(2)
        self.assertNotIsInstance(caught.exception, NothingDoneError)

    async def test_a_write_fails_and_a_read_does_not(self) -> None:
        with full_disk():
            await self.fail_to_write()
            self.assertEqual([1], await self.numbers())
        await self.insert(3)
        self.assertEqual([1, 3], await self.numbers())

    async def test_once_a_write_has_failed_it_takes_one_to_be_ready_again(self) -> None:
        with full_disk():
            await self.check()
            await self.fail_to_write()
            for _ in range(2):
                with self.assertRaises(StoreUnavailableError):
                    await self.check()
        await self.check()

    async def test_a_write_that_succeeds_is_proof_enough(self) -> None:
        with full_disk():
            await self.fail_to_write()
        await self.insert(3)
        with full_disk():
            await self.check()

    async def test_a_locked_file_proves_nothing(self) -> None:
        other = self.another_connection()
        with full_disk():
            await self.fail_to_write()
            other.execute('BEGIN IMMEDIATE')
            with self.assertRaises(NothingDoneError):
                await self.insert(2)
            other.execute('ROLLBACK')
            with self.assertRaises(StoreUnavailableError):
                await self.check()


if __name__ == '__main__':
    unittest.main()
