"""The SQL store over a mocked connector: what it asks the database, what it makes of the answers.

Nothing but the call into the connector is mocked. That the statements do what they should is for
the contract tests, which run over real databases.
"""

import asyncio
import gc
import unittest
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple
from unittest import mock

import orjson

from addrservice.addressbook_db import (
    AbstractAddressBookDB, InMemoryAddressBookDB, Place, SQLAddressBookDB, StoredEntry,
    create_addressbook_db,
)
from addrservice.addressbook_db.abstract import digest
from addrservice.addressbook_db.statements import (
    CHECK, DELETE, DELETE_VERSION, FIND_FIRST_PAGE, FIND_PAGE, INSERT, SCHEMA_VERSION, SELECT,
    SELECT_FIRST_PAGE, SELECT_NAMELESS, SELECT_PAGE, SELECT_SCHEMA_VERSION, SET_NAME,
    SET_SCHEMA_VERSION, UPDATE, UPDATE_VERSION,
)
from addrservice.config import SQLSettings, StoreSettings
from addrservice.errors import (
    KeyReusedError, NewerSchemaError, NicknameTakenError, NothingDoneError, OutcomeUnknownError,
    PreconditionFailedError, StartError, StoreError, StoreMisconfiguredError,
    StoreUnavailableError, UnknownNicknameError,
)
from addrservice.sql_connectors import SQLConnector
from tests.support import DEADLINE

ENTRY: Final = {'name': "Robert'); DROP TABLE addresses; --"}
DOCUMENT: Final = """{"name":"Robert'); DROP TABLE addresses; --"}"""
NAME: Final = "robert'); drop table addresses; --"
ORIGIN: Final = digest(DOCUMENT.encode())
ROW: Final = ('bobby', DOCUMENT, 7, None)

TABLE_IS_THERE: Final = [(1,)]
VERSION: Final = [(SCHEMA_VERSION,)]  # a row: so this answers both questions
NEWER_VERSION: Final = [(SCHEMA_VERSION + 1,)]


def make_connector(is_remote: bool = True) -> Any:
    """A mocked connector to a database, on this machine or another one."""
    return mock.create_autospec(
        SQLConnector, instance=True, system='sql', is_remote=is_remote, key_type='KEY',
        find_table='FIND $1', items='ITEMS', member='MEMBER {}', join='JOIN {0} ON {1}')


class MockedConnectorTestCase(unittest.IsolatedAsyncioTestCase):
    """A store over a mocked connector, started where the table is there."""

    settings = SQLSettings('sqlite:///never/opened')

    async def asyncSetUp(self) -> None:
        self.connector = make_connector()
        self.connector.read.return_value = VERSION
        self.db = SQLAddressBookDB(self.connector, self.settings)
        await self.db.start()
        self.connector.reset_mock()

    def assert_asked(self, *calls: Any) -> None:
        """These calls went to the connector, and no others."""
        self.assertEqual(list(calls), self.connector.mock_calls)


class StatementsTest(MockedConnectorTestCase):
    """Each operation is one statement; each value is an argument of it, never a part."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        # 7 microseconds after the beginning of 1970.
        self.enterContext(mock.patch('time.time_ns', return_value=7_999))

    async def test_create_inserts_the_document_under_its_nickname(self) -> None:
        self.connector.write.return_value = [(7,)]
        self.assertEqual('bobby', await self.db.create_address(ENTRY, 'bobby'))
        self.assert_asked(mock.call.write(INSERT, 'bobby', DOCUMENT, NAME, 7, None))

    async def test_create_is_refused_where_nothing_was_inserted(self) -> None:
        self.connector.write.return_value = []
        with self.assertRaises(NicknameTakenError):
            await self.db.create_address(ENTRY, 'bobby')

    async def test_create_gives_the_version_that_was_inserted(self) -> None:
        self.connector.write.return_value = [(8,)]
        self.assertEqual(StoredEntry('bobby', DOCUMENT.encode(), 8),
                         await self.db.create_entry(ENTRY, 'bobby'))

    async def test_read_selects_by_nickname(self) -> None:
        self.connector.read.return_value = [ROW]
        self.assertEqual(ENTRY, await self.db.read_address('bobby'))
        self.assert_asked(mock.call.read(SELECT, 'bobby'))

    async def test_read_finds_nothing_where_no_row_comes_back(self) -> None:
        self.connector.read.return_value = []
        with self.assertRaises(UnknownNicknameError):
            await self.db.read_address('bobby')

    async def test_update_replaces_the_document(self) -> None:
        self.connector.write.return_value = [(8,)]
        self.assertEqual(8, await self.db.update_address('bobby', ENTRY))
        self.assert_asked(mock.call.write(UPDATE, 'bobby', DOCUMENT, NAME, 7))

    async def test_update_finds_nothing_where_no_row_was_updated(self) -> None:
        self.connector.write.return_value = []
        with self.assertRaises(UnknownNicknameError):
            await self.db.update_address('bobby', ENTRY)

    async def test_an_update_that_needs_a_version_asks_for_it_in_the_same_statement(self) -> None:
        self.connector.write.return_value = [(8,)]
        for version in (6, 0):
            self.assertEqual(8, await self.db.update_address('bobby', ENTRY, version))
        self.assert_asked(mock.call.write(UPDATE_VERSION, 'bobby', DOCUMENT, NAME, 7, 6),
                          mock.call.write(UPDATE_VERSION, 'bobby', DOCUMENT, NAME, 7, 0))

    async def test_delete_deletes_by_nickname(self) -> None:
        self.connector.write.return_value = [(7,)]
        await self.db.delete_address('bobby')
        self.assert_asked(mock.call.write(DELETE, 'bobby'))

    async def test_delete_finds_nothing_where_no_row_was_deleted(self) -> None:
        self.connector.write.return_value = []
        with self.assertRaises(UnknownNicknameError):
            await self.db.delete_address('bobby')

    async def test_a_delete_that_needs_a_version_asks_for_it_in_the_same_statement(self) -> None:
        self.connector.write.return_value = [(6,)]
        for version in (6, 0):
            await self.db.delete_address('bobby', version)
        self.assert_asked(mock.call.write(DELETE_VERSION, 'bobby', 6),
                          mock.call.write(DELETE_VERSION, 'bobby', 0))

    async def test_no_row_with_that_version_is_a_precondition_that_failed(self) -> None:
        self.connector.write.return_value = []
        for operation in (self.db.update_address('bobby', ENTRY, 6),
                          self.db.delete_address('bobby', 6)):
            with self.assertRaisesRegex(PreconditionFailedError, "'bobby'"):
                await operation

    async def test_a_search_asks_for_what_is_between_the_prefix_and_all_that_begins_so(
        self
    ) -> None:
        self.connector.read.return_value = [ROW]
        for prefix in ('ROB', 'rob'):
            self.assertEqual([StoredEntry('bobby', DOCUMENT.encode(), 7)],
                             await self.db.find_page(prefix, None, 10))
        last = 'rob' + '\U0010ffff' * 253
        self.assert_asked(*[mock.call.read(FIND_FIRST_PAGE, 'rob', last, 10)] * 2)

    async def test_a_search_goes_on_after_a_place(self) -> None:
        self.connector.read.return_value = [ROW]
        await self.db.find_page('x' * 256, Place('x' * 256, 'bobby'), 10)
        self.assert_asked(mock.call.read(FIND_PAGE, 'x' * 256, 'bobby', 'x' * 256, 10))

    async def test_a_place_before_all_that_is_sought_is_the_beginning(self) -> None:
        self.connector.read.return_value = []
        await self.db.find_page('b', Place('a', 'bobby'), 10)
        self.assert_asked(mock.call.read(FIND_FIRST_PAGE, 'b', mock.ANY, 10))

    async def test_all_are_read_page_by_page_until_one_is_not_full(self) -> None:
        """Each page starts after the last nickname of the one before."""
        a, b, c = (StoredEntry(nickname, b'1', 7) for nickname in 'abc')
        self.connector.read.side_effect = [
            [('a', '1', 7, None), ('b', '1', 7, None)], [('c', '1', 7, None)]]
        self.assertEqual([[a, b], [c]], [page async for page in self.db.pages(2)])
        self.assert_asked(mock.call.read(SELECT_FIRST_PAGE, 2), mock.call.read(SELECT_PAGE, 'b', 2))

    async def test_where_each_page_is_full_the_last_one_that_is_read_is_empty(self) -> None:
        self.connector.read.side_effect = [
            [('a', '{"name":"A"}', 7, None)], [], [ROW], []]
        [[entry]] = [page async for page in self.db.pages(1)]
        [[found]] = [page async for page in self.db.found_pages('R', 1)]
        self.assertEqual(('a', 'bobby'), (entry.nickname, found.nickname))
        self.assert_asked(mock.call.read(SELECT_FIRST_PAGE, 1), mock.call.read(SELECT_PAGE, 'a', 1),
                          mock.call.read(FIND_FIRST_PAGE, 'r', mock.ANY, 1),
                          mock.call.read(FIND_PAGE, NAME, 'bobby', mock.ANY, 1))

    async def test_all_found_are_read_page_by_page_until_one_is_not_full(self) -> None:
        self.connector.read.side_effect = [
            [('a', '{"name":"X"}', 7, None), ROW], [ROW]]
        pages = [page async for page in self.db.found_pages('', 2)]
        self.assertEqual([2, 1], list(map(len, pages)))
        self.assert_asked(mock.call.read(FIND_FIRST_PAGE, '', mock.ANY, 2),
                          mock.call.read(FIND_PAGE, NAME, 'bobby', mock.ANY, 2))

    async def test_a_row_becomes_an_entry_as_it_is_stored(self) -> None:
        self.connector.read.return_value = [('bobby', '{"name":"Zoë"}', 7, None)]
        stored = StoredEntry('bobby', '{"name":"Zoë"}'.encode(), 7)
        self.assertEqual(stored, await self.db.read_entry('bobby'))
        self.assertEqual([stored], await self.db.read_page(None, 10))
        self.assertEqual([stored], await self.db.read_page('alice', 10))

    async def test_one_entry_comes_with_its_origin(self) -> None:
        self.connector.read.return_value = [('bobby', '{"name":"Zoë"}', 7, 'xyz')]
        self.assertEqual(StoredEntry('bobby', '{"name":"Zoë"}'.encode(), 7, 'xyz'),
                         await self.db.read_entry('bobby'))


class TogetherTest(MockedConnectorTestCase):
    """What is asked for at the same time of a database that is not on this machine."""

    async def asyncSetUp(self) -> None:
        """Others have asked before; what is asked for when there is nothing to do goes alone."""
        await super().asyncSetUp()
        self.connector.read.side_effect = self.connector.write.side_effect = never
        for operation in (self.db.read_entry('busy'), self.db.create_entry(ENTRY, 'busy')):
            self.addCleanup(asyncio.create_task(operation).cancel)
        await asyncio.sleep(0)
        self.connector.reset_mock(side_effect=True)

    def statement(self) -> str:
        """The one statement that went to the connector; its argument becomes ``self.values``."""
        [[_, (statement, argument), _]] = self.connector.mock_calls
        self.values = orjson.loads(argument)
        return str(statement)

    async def test_entries_are_read_by_one_statement_and_each_is_given_its_own(self) -> None:
        self.connector.read.return_value = [('c', '3', 7, None), ('a', '1', 7, 'xyz')]
        found = await asyncio.gather(*map(self.db.read_entry, 'abca'), return_exceptions=True)
        a = StoredEntry('a', b'1', 7, 'xyz')
        self.assertEqual([a, StoredEntry('c', b'3', 7), a], [found[0], *found[2:]])
        self.assertIsInstance(found[1], UnknownNicknameError)
        self.assertIn(' FROM ITEMS JOIN addresses ON nickname = MEMBER 0', self.statement())
        self.assertEqual([['a'], ['b'], ['c'], ['a']], self.values)

    async def test_entries_are_created_by_one_statement_and_each_is_told_what_became_of_its_own(
        self
    ) -> None:
        """In the order of their nicknames, so that two stores do not wait for each other."""
        self.connector.write.return_value = [('b',), ('a',)]
        with mock.patch('time.time_ns', side_effect=[7_999, 8_999, 9_999]):
            made = await asyncio.gather(
                *(self.db.create_entry(ENTRY, nickname) for nickname in 'bca'),
                return_exceptions=True)
        self.assertEqual([StoredEntry('b', DOCUMENT.encode(), 7),
                          StoredEntry('a', DOCUMENT.encode(), 9)], made[::2])
        self.assertIsInstance(made[1], NicknameTakenError)
        self.assertRegex(self.statement(), '^INSERT INTO addresses .* FROM ITEMS ')
        self.assertEqual([[nickname, DOCUMENT, NAME, version, None] for nickname, version
                          in (('a', 9), ('b', 7), ('c', 8))], self.values)

    async def test_of_those_with_one_nickname_the_first_is_created(self) -> None:
        self.connector.write.return_value = [('bobby',)]
        made = await asyncio.gather(
            *(self.db.create_entry({'name': name}, 'bobby') for name in ('Zoë', 'Bob', 'Zoë')),
            return_exceptions=True)
        self.assertEqual([StoredEntry, NicknameTakenError, NicknameTakenError],
                         list(map(type, made)))
        self.statement()
        self.assertEqual([['bobby', '{"name":"Zoë"}']], [each[:2] for each in self.values])

    async def test_where_their_nickname_is_taken_none_is_created(self) -> None:
        self.connector.write.return_value = []
        made = await asyncio.gather(*(self.db.create_entry(ENTRY, 'bobby') for _ in range(2)),
                                    return_exceptions=True)
        self.assertEqual([NicknameTakenError] * 2, list(map(type, made)))

    async def test_each_is_given_up_at_its_own_deadline(self) -> None:
        self.db._deadline.seconds = 0.05
        self.connector.read.side_effect = never
        first = asyncio.gather(*map(self.db.read_entry, 'ab'))
        asyncio.get_running_loop().call_soon(setattr, self.db._deadline, 'seconds', DEADLINE)
        late = asyncio.create_task(self.db.read_entry('c'))
        with self.assertRaises(OutcomeUnknownError):
            await first
        self.statement()
        self.assertEqual((3, False), (len(self.values), late.done()))
        late.cancel()

    async def test_a_database_on_this_machine_gets_a_statement_for_each(self) -> None:
        async def answer(*_: object) -> list[tuple[object, ...]]:
            await asyncio.sleep(0)
            return [ROW]

        connector = make_connector(is_remote=False)
        connector.read.side_effect = connector.write.side_effect = answer
        db = SQLAddressBookDB(connector, self.settings)
        db._tables.are_ready = True
        await asyncio.gather(
            *map(db.read_entry, 'abc'), *(db.create_entry(ENTRY, nickname) for nickname in 'def'),
            return_exceptions=True)
        self.assertEqual(
            [mock.call.read(SELECT, nickname) for nickname in 'abc']
            + [mock.call.write(INSERT, nickname, DOCUMENT, NAME, mock.ANY, None)
               for nickname in 'def'], connector.mock_calls)


class OnceTest(MockedConnectorTestCase):
    """An entry is made with a key: the database decides whether it is the first one."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.connector.write.return_value = [(7,)]
        self.nickname = (await self.db.create_entry_once(ENTRY, 'key')).nickname
        self.connector.reset_mock()

    def row(self, document: str = DOCUMENT, origin: str | None = ORIGIN) -> tuple[object, ...]:
        """What the database has of the entry."""
        return self.nickname, document, 7, origin

    async def test_the_first_one_is_inserted(self) -> None:
        with mock.patch('time.time_ns', return_value=7_999):
            made = await self.db.create_entry_once(ENTRY, 'key')
        self.assertEqual(StoredEntry(self.nickname, DOCUMENT.encode(), 7, ORIGIN), made)
        self.assert_asked(mock.call.write(INSERT, self.nickname, DOCUMENT, NAME, 7, ORIGIN))

    async def test_where_nothing_was_inserted_what_is_there_is_given(self) -> None:
        self.connector.write.return_value = []
        for document in (DOCUMENT, '{"name":"Zoë"}'):
            self.connector.reset_mock()
            self.connector.read.return_value = [self.row(document)]
            self.assertEqual(StoredEntry(self.nickname, document.encode(), 7, ORIGIN),
                             await self.db.create_entry_once(ENTRY, 'key'))
            self.assert_asked(mock.call.write(INSERT, self.nickname, *[mock.ANY] * 4),
                              mock.call.read(SELECT, self.nickname))

    async def test_what_is_there_has_to_have_been_made_of_the_same_entry(self) -> None:
        self.connector.write.return_value = []
        for origin in (None, '', digest(b'{}')):
            self.connector.read.return_value = [self.row(origin=origin)]
            with self.assertRaises(KeyReusedError):
                await self.db.create_entry_once(ENTRY, 'key')

    async def test_what_is_deleted_between_two_statements_is_made_anew(self) -> None:
        self.connector.write.side_effect = [[], [], [(9,)]]
        self.connector.read.return_value = []
        made = await self.db.create_entry_once(ENTRY, 'key')
        self.assertEqual(StoredEntry(self.nickname, DOCUMENT.encode(), 9, ORIGIN), made)
        self.assertEqual(5, len(self.connector.mock_calls))

    async def test_all_of_it_has_the_time_of_one_operation(self) -> None:
        """However often it comes too late for the key and too late for the entry."""
        async def take_time(*_: object) -> list[tuple[object, ...]]:
            self.assertLess(self.connector.read.call_count, 100)
            await asyncio.sleep(0.001)
            return []

        self.connector.write.side_effect = self.connector.read.side_effect = take_time
        db = SQLAddressBookDB(self.connector, SQLSettings('sqlite:///never', deadline=0.02))
        db._tables.are_ready = True
        with self.assertRaises(OutcomeUnknownError):
            await db.create_entry_once(ENTRY, 'key')
        self.assertTrue(self.connector.read.called)

    async def test_an_error_of_the_store_is_passed_on(self) -> None:
        trouble = StoreUnavailableError('gone')
        for write, read in ((trouble, None), ([[]], trouble)):
            self.connector.write.side_effect = write
            self.connector.read.side_effect = read
            with self.assertRaises(StoreUnavailableError) as caught:
                await self.db.create_entry_once(ENTRY, 'key')
            self.assertIs(trouble, caught.exception)


class OddNicknameTest(MockedConnectorTestCase):
    """No nickname that is kept has a U+0000 or a lone surrogate, which not every database takes."""

    ODD: Final = ('bob\0by', '\0', 'bob\ud800by', '\udfff')

    async def test_no_store_keeps_one(self) -> None:
        for db in (self.db, InMemoryAddressBookDB()):
            for nickname in self.ODD:
                with self.subTest(db=type(db), nickname=nickname):
                    with self.assertRaisesRegex(ValueError, r"^'.*\\.*' cannot be a nickname$"):
                        await db.create_address(ENTRY, nickname)
        self.assert_asked()

    async def test_none_is_found_without_asking_the_database(self) -> None:
        for nickname in self.ODD:
            for operation in (self.db.read_address(nickname), self.db.delete_address(nickname),
                              self.db.update_address(nickname, ENTRY)):
                with self.assertRaises(UnknownNicknameError):
                    await operation
            for operation in (self.db.delete_address(nickname, 7),
                              self.db.update_address(nickname, ENTRY, 7)):
                with self.assertRaises(PreconditionFailedError):
                    await operation
        self.assert_asked()

    async def test_no_name_begins_with_one(self) -> None:
        for prefix in self.ODD:
            self.assertEqual([], await self.db.find_page(prefix, None, 10))
        self.assert_asked()

    async def test_a_page_after_one_with_a_null_starts_after_what_precedes_that(self) -> None:
        self.connector.read.return_value = [ROW]
        await self.db.read_page('bob\0by', 10)
        self.assert_asked(mock.call.read(SELECT_PAGE, 'bob', 10))


ROWS: Final = [ROW]
ONE_WRITTEN: Final = [(8,)]


class Operation(NamedTuple):
    """One operation of the store, for tests of what all of them have in common."""

    name: str
    run: Callable[[SQLAddressBookDB], Awaitable[object]]
    rows: object = ROWS  # that are an answer to it


READING: Final = (
    Operation('read an entry', lambda db: db.read_entry('bobby')),
    Operation('read the first page', lambda db: db.read_page(None, 10)),
    Operation('read a page', lambda db: db.read_page('bobby', 10)),
    Operation('find the first page', lambda db: db.find_page('bob', None, 10)),
    Operation('find a page', lambda db: db.find_page('bob', Place('bob', 'bobby'), 10)),
)
WRITING: Final = (
    Operation('create', lambda db: db.create_address(ENTRY, 'bobby'), ONE_WRITTEN),
    Operation('create once', lambda db: db.create_entry_once(ENTRY, 'key'), ONE_WRITTEN),
    Operation('update', lambda db: db.update_address('bobby', ENTRY), ONE_WRITTEN),
    Operation('update a version', lambda db: db.update_address('bobby', ENTRY, 7), ONE_WRITTEN),
    Operation('delete', lambda db: db.delete_address('bobby'), ONE_WRITTEN),
    Operation('delete a version', lambda db: db.delete_address('bobby', 7), ONE_WRITTEN),
)


class RetryTestCase(MockedConnectorTestCase):
    """A connector that gives a test's answers one by one, whatever it is asked."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.enterContext(mock.patch('addrservice.addressbook_db.sql.RETRY_PAUSE', 0))

    def answer(self, *answers: object) -> None:
        """Sets the next answers: rows, or errors to raise."""
        self.connector.reset_mock()
        self.connector.read.side_effect = self.connector.write.side_effect = iter(answers)

    def assert_tried(self, times: int) -> None:
        """One statement went to the connector, so often."""
        calls = self.connector.mock_calls
        self.assertEqual([calls[0]] * times, calls)

    async def assert_fails(
        self, operation: Operation, error: BaseException, *earlier: object, after_tries: int
    ) -> None:
        """An operation raises an error that the connector raised."""
        with self.subTest(operation=operation.name, error=error):
            self.answer(*earlier, error, operation.rows)
            with self.assertRaises(type(error)) as caught:
                await operation.run(self.db)
            self.assertIs(error, caught.exception)
            self.assert_tried(after_tries)


class RetryTest(RetryTestCase):
    """What is tried once more: what cannot do harm."""

    async def test_what_did_nothing_is_tried_once_more(self) -> None:
        for operation in (*READING, *WRITING):
            with self.subTest(operation=operation.name):
                self.answer(NothingDoneError('busy'), operation.rows)
                await operation.run(self.db)
                self.assert_tried(2)

    async def test_what_reads_is_tried_once_more_where_no_answer_came(self) -> None:
        for operation in READING:
            with self.subTest(operation=operation.name):
                self.answer(OutcomeUnknownError('cut off'), ROWS)
                await operation.run(self.db)
                self.assert_tried(2)

    async def test_what_writes_is_not_tried_again_where_no_answer_came(self) -> None:
        for operation in WRITING:
            await self.assert_fails(operation, OutcomeUnknownError('cut off'), after_tries=1)

    async def test_nothing_is_tried_a_third_time(self) -> None:
        for operation in (*READING, *WRITING):
            for second in (NothingDoneError('busy'), OutcomeUnknownError('cut off')):
                await self.assert_fails(
                    operation, second, NothingDoneError('still busy'), after_tries=2)

    async def test_no_other_error_is_tried_again(self) -> None:
        for operation in (*READING, *WRITING):
            for error in (StoreUnavailableError('full'), StoreMisconfiguredError('who are you?'),
                          StoreError('what?'), RuntimeError('a bug')):
                await self.assert_fails(operation, error, after_tries=1)

    async def test_a_preparation_that_did_nothing_is_tried_once_more(self) -> None:
        """Also where the operation writes: it had no turn yet."""
        for operation in (*READING, *WRITING):
            with self.subTest(operation=operation.name):
                db = SQLAddressBookDB(self.connector, self.settings)
                self.answer(NothingDoneError('busy'), TABLE_IS_THERE, VERSION,
                            operation.rows)
                await operation.run(db)
                self.assertEqual(4, len(self.connector.mock_calls))


class DeadlineTest(RetryTestCase):
    """Both tries, the pause between them and the preparation have one deadline together."""

    settings = SQLSettings('sqlite:///never/opened', deadline=0.05)

    async def assert_given_up(self, operation: Operation, db: SQLAddressBookDB) -> None:
        with self.assertRaisesRegex(OutcomeUnknownError, '^no answer in time$'):
            await operation.run(db)

    async def test_a_connector_that_never_answers_is_given_up(self) -> None:
        self.connector.read.side_effect = self.connector.write.side_effect = never
        operations = (*READING, *WRITING)
        await asyncio.gather(*(self.assert_given_up(each, self.db) for each in operations))
        self.assertEqual(len(operations), len(self.connector.mock_calls))

    async def test_a_preparation_that_never_ends_is_given_up(self) -> None:
        self.connector.read.side_effect = never
        db = SQLAddressBookDB(self.connector, self.settings)
        await self.assert_given_up(WRITING[0], db)
        self.connector.write.assert_not_called()

    async def test_the_second_try_has_only_the_time_that_the_first_one_left(self) -> None:
        """Here each alone would be in time."""
        async def answer_late(*_: object) -> object:
            await asyncio.sleep(0.14)
            if self.connector.read.call_count == 1:
                raise NothingDoneError('busy')
            return ROWS

        db = SQLAddressBookDB(self.connector, SQLSettings('sqlite:///never/opened', deadline=0.2))
        await db.start()
        self.connector.reset_mock()
        self.connector.read.side_effect = answer_late
        await self.assert_given_up(READING[0], db)
        self.assert_tried(2)

    async def test_the_pause_counts(self) -> None:
        self.answer(NothingDoneError('busy'), ROWS)
        with mock.patch('addrservice.addressbook_db.sql.RETRY_PAUSE', 3600):
            await self.assert_given_up(READING[0], self.db)
        self.assert_tried(1)


async def never(*_: object) -> None:
    """An answer that does not come."""
    await asyncio.Future()


class Question:
    """A question to the connector that is answered when the test says so."""

    def __init__(self, trouble: StoreError | None = None) -> None:
        self._asked = asyncio.Event()
        self.answered = asyncio.Event()
        self.cancelled = False
        self._trouble = trouble

    async def until_asked(self) -> None:
        """Waits until the connector was asked."""
        async with asyncio.timeout(DEADLINE):
            await self._asked.wait()

    async def ask(self, *_: object) -> None:
        """To be put in the place of a method of the connector."""
        self._asked.set()
        try:
            await self.answered.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self._trouble is not None:
            raise self._trouble


class PingTest(MockedConnectorTestCase):
    """How the store asks whether the database can be used."""

    ASKED: Final = mock.call.check(CHECK)

    async def asyncSetUp(self) -> None:
        self.clock = self.enterContext(mock.patch('addrservice.addressbook_db.sql.time'))
        self.clock.monotonic.return_value = 1000.0
        await super().asyncSetUp()

    def let_time_pass(self) -> None:
        """After that, the last answer is no longer good."""
        self.clock.monotonic.return_value += 1

    async def test_it_asks_whether_entries_can_be_written_and_writes_none(self) -> None:
        self.let_time_pass()
        await self.db.ping()
        self.assert_asked(self.ASKED)

    async def test_an_answer_is_good_for_a_second(self) -> None:
        """That of the start too."""
        self.clock.monotonic.return_value += 0.999
        await self.db.ping()
        self.assert_asked()
        self.clock.monotonic.return_value += 0.001
        await self.db.ping()
        await self.db.ping()
        self.assert_asked(self.ASKED)

    async def test_a_bad_answer_is_told_for_a_second_too(self) -> None:
        trouble = StoreUnavailableError('gone')
        self.connector.check.side_effect = trouble
        self.let_time_pass()
        for _ in range(2):
            with self.assertRaises(StoreUnavailableError) as caught:
                await self.db.ping()
            self.assertIs(trouble, caught.exception)
        self.assert_asked(self.ASKED)
        self.connector.check.side_effect = None
        self.let_time_pass()
        await self.db.ping()

    async def test_a_question_that_got_no_good_answer_by_chance_is_asked_once_more(self) -> None:
        self.enterContext(mock.patch('addrservice.addressbook_db.sql.RETRY_PAUSE', 0))
        for trouble in (NothingDoneError('busy'), OutcomeUnknownError('cut off')):
            with self.subTest(trouble=trouble):
                self.connector.reset_mock()
                self.connector.check.side_effect = [trouble, None]
                self.let_time_pass()
                await self.db.ping()
                self.assert_asked(self.ASKED, self.ASKED)

    async def test_many_at_the_same_time_share_one_question(self) -> None:
        for trouble in (None, StoreUnavailableError('gone')):
            with self.subTest(trouble=trouble):
                question = self.hold_back(trouble)
                pings = [asyncio.create_task(self.db.ping()) for _ in range(20)]
                await question.until_asked()
                question.answered.set()
                self.assertEqual([trouble] * 20,
                                 await asyncio.gather(*pings, return_exceptions=True))
                self.assert_asked(self.ASKED)

    async def test_who_is_cancelled_takes_the_answer_from_nobody(self) -> None:
        question = self.hold_back()
        first, second = (asyncio.create_task(self.db.ping()) for _ in range(2))
        await question.until_asked()
        first.cancel()
        await asyncio.wait([first])
        question.answered.set()
        await second
        self.assert_asked(self.ASKED)

    async def test_it_waits_for_a_moment_only_while_the_question_goes_on(self) -> None:
        """So that a database that is silent is not asked by more and more."""
        question = self.hold_back()
        with mock.patch('addrservice.addressbook_db.sql.PING_DEADLINE', 0.01):
            for _ in range(3):
                with self.assertRaisesRegex(OutcomeUnknownError, '^no answer in time$'):
                    await self.db.ping()
                self.let_time_pass()
        self.assert_asked(self.ASKED)
        question.answered.set()
        await self.db.ping()
        await self.db.ping()
        self.assert_asked(self.ASKED)
        self.let_time_pass()
        await self.db.ping()
        self.assert_asked(self.ASKED, self.ASKED)

    async def test_a_bad_answer_that_nobody_waits_for_is_not_complained_of(self) -> None:
        complaints = mock.Mock()
        asyncio.get_running_loop().set_exception_handler(complaints)
        question = self.hold_back(StoreUnavailableError('gone'))
        with mock.patch('addrservice.addressbook_db.sql.PING_DEADLINE', 0.01):
            with self.assertRaises(OutcomeUnknownError):
                await self.db.ping()
        question.answered.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others)
        del others
        self.let_time_pass()
        self.connector.check.side_effect = None
        await self.db.ping()
        gc.collect()
        complaints.assert_not_called()

    async def test_a_stop_ends_the_question_that_is_under_way(self) -> None:
        question = self.hold_back()
        ping = asyncio.create_task(self.db.ping())
        await question.until_asked()
        await self.db.stop()
        with self.assertRaises(OutcomeUnknownError):
            await ping
        self.assertTrue(question.cancelled)
        self.assert_asked(self.ASKED, mock.call.stop())

    def hold_back(self, trouble: StoreError | None = None) -> Question:
        """Makes the next question one that the test answers."""
        question = Question(trouble)
        self.connector.reset_mock()
        self.connector.check.side_effect = question.ask
        self.let_time_pass()
        return question


class PingDeadlineTest(MockedConnectorTestCase):
    settings = SQLSettings('sqlite:///never/opened', deadline=0.001, connect_timeout=0.02)

    async def test_a_question_that_gets_no_answer_is_given_up(self) -> None:
        """Not before there was time to connect; then another one can be asked."""
        self.connector.check.side_effect = never
        with mock.patch('addrservice.addressbook_db.sql.PING_INTERVAL', 0):
            for _ in range(2):
                with self.assertRaisesRegex(OutcomeUnknownError, '^no answer in time$'):
                    await self.db.ping()
        self.assertEqual(2, self.connector.check.await_count)


class StartTest(unittest.IsolatedAsyncioTestCase):
    """The table is made when the database is first in reach, whenever that is."""

    FIND: Final = mock.call.read('FIND $1', 'addresses_schema')
    ASK_VERSION: Final = mock.call.read(SELECT_SCHEMA_VERSION)
    CHECK: Final = mock.call.check(CHECK)

    # What is read where there are no tables yet, and what is asked then.
    NONE: Final = [[], TABLE_IS_THERE, VERSION]
    MADE: Final = [FIND, mock.call.run_exclusively(mock.ANY), FIND, ASK_VERSION]

    def setUp(self) -> None:
        self.connector = make_connector()
        self.db = SQLAddressBookDB(self.connector, SQLSettings('sqlite:///never/opened'))
        self.enterContext(mock.patch('addrservice.addressbook_db.sql.PING_INTERVAL', 0))

    def assert_asked(self, *calls: Any) -> None:
        """These calls went to the connector, and no others."""
        self.assertEqual(list(calls), self.connector.mock_calls)

    async def start_out_of_reach(self) -> None:
        """Starts the store while the database cannot be reached; from then on it can."""
        self.connector.read.side_effect = StoreUnavailableError('gone')
        await self.db.start()
        self.connector.reset_mock(side_effect=True)

    async def test_a_table_that_is_there_is_left_as_it_is(self) -> None:
        self.connector.read.return_value = VERSION
        await self.db.start()
        self.connector.run_exclusively.assert_not_called()
        self.connector.stop.assert_not_called()

    async def test_tables_that_are_missing_are_made(self) -> None:
        self.connector.read.side_effect = self.NONE
        await self.db.start()
        self.assert_asked(mock.call.start(), *self.MADE, self.CHECK)

    async def test_tables_without_a_version_are_made_again(self) -> None:
        """Whatever is there is kept: each statement does nothing where all is done."""
        self.connector.read.side_effect = [TABLE_IS_THERE, [(0,)], TABLE_IS_THERE, VERSION]
        await self.db.start()
        self.connector.run_exclusively.assert_awaited_once()
        self.assertIn('CREATE TABLE', self.statements()[0])

    async def test_keys_are_of_the_type_that_the_connector_names(self) -> None:
        self.connector.read.side_effect = self.NONE
        await self.db.start()
        text = ' '.join(self.statements())
        self.assertIn(' nickname KEY NOT NULL PRIMARY KEY', text)
        self.assertIn(' name_key KEY NOT NULL', text)
        self.assertNotIn('{', text)

    def statements(self) -> list[str]:
        """What was run exclusively."""
        [statements] = self.connector.run_exclusively.await_args.args
        return list(statements)

    async def test_once_is_enough(self) -> None:
        self.connector.read.return_value = VERSION
        await self.db.start()
        self.connector.reset_mock()
        self.connector.read.return_value = [ROW]
        await self.db.read_entry('bobby')
        await self.db.ping()
        self.assert_asked(mock.call.read(SELECT, 'bobby'), self.CHECK)

    async def test_a_store_out_of_reach_starts_and_is_prepared_by_the_first_operation(self) -> None:
        await self.start_out_of_reach()
        self.connector.read.side_effect = [*self.NONE, [ROW], [ROW]]
        await self.db.read_entry('bobby')
        await self.db.read_entry('bobby')
        self.assert_asked(*self.MADE, *[mock.call.read(SELECT, 'bobby')] * 2)

    async def test_a_store_out_of_reach_is_prepared_by_a_ping(self) -> None:
        """So that it becomes ready though nobody uses it."""
        await self.start_out_of_reach()
        self.connector.read.side_effect = self.NONE
        await self.db.ping()
        self.assert_asked(*self.MADE, self.CHECK)

    async def test_a_silent_database_does_not_keep_the_store_from_starting(self) -> None:
        self.connector.read.side_effect = never
        settings = SQLSettings('sqlite:///never/opened', deadline=0.01, connect_timeout=0.01)
        db = SQLAddressBookDB(self.connector, settings)
        await db.start()
        await db.stop()
        self.assertEqual([mock.call.start(), self.FIND, mock.call.stop()],
                         self.connector.mock_calls)

    async def test_a_database_that_turns_the_service_away_does_not_either(self) -> None:
        """An operator may set that right."""
        self.connector.read.side_effect = StoreMisconfiguredError('who are you?')
        await self.db.start()
        self.connector.stop.assert_not_called()

    async def test_a_newer_schema_keeps_the_store_from_starting(self) -> None:
        """What was opened is closed again."""
        self.connector.read.side_effect = [TABLE_IS_THERE, NEWER_VERSION]
        with self.assertRaisesRegex(NewerSchemaError, 'of version 4, of a newer service.*to .* 3$'):
            await self.db.start()
        self.connector.run_exclusively.assert_not_called()
        self.connector.stop.assert_awaited_once_with()

    async def test_a_newer_schema_keeps_it_from_starting_also_where_the_answer_takes_long(
        self
    ) -> None:
        """Longer than a ping would wait for it."""
        answers = iter([TABLE_IS_THERE, NEWER_VERSION])

        async def answer_late(*_: object) -> object:
            await asyncio.sleep(0.02)
            return next(answers)

        self.connector.read.side_effect = answer_late
        with mock.patch('addrservice.addressbook_db.sql.PING_DEADLINE', 0):
            with self.assertRaises(NewerSchemaError):
                await self.db.start()

    async def test_a_newer_schema_that_turns_up_later_is_left_alone(self) -> None:
        await self.start_out_of_reach()
        self.connector.read.side_effect = [TABLE_IS_THERE, NEWER_VERSION] * 2
        for operation in (self.db.create_address(ENTRY), self.db.ping()):
            with self.assertRaises(StoreMisconfiguredError):
                await operation
        self.assert_asked(*[self.FIND, self.ASK_VERSION] * 2)

    async def test_a_connector_that_can_never_be_used_keeps_the_store_from_starting(self) -> None:
        self.connector.start.side_effect = StartError('too old')
        with self.assertRaisesRegex(StartError, 'too old'):
            await self.db.start()
        self.assert_asked(mock.call.start())

    async def test_stop_closes_the_connector_also_without_a_start(self) -> None:
        await self.db.stop()
        self.assert_asked(mock.call.stop())


class UpgradeTest(unittest.IsolatedAsyncioTestCase):
    """Tables of an older version, or none, are made what they should be, once for all.

    That the statements do that is for the integration tests.
    """

    NAMELESS: Final = [(f'{n:03}', f'{{"name":"N{n:03}"}}', 10 + n) for n in range(3)]

    def setUp(self) -> None:
        self.tables = 1  # the version; 0 where there are none
        self.nameless = list(self.NAMELESS)
        self.connector = make_connector()
        self.connector.read.side_effect = self.read
        self.connector.write.side_effect = self.write
        self.connector.run_exclusively.side_effect = self.run_exclusively
        self.enterContext(mock.patch('addrservice.addressbook_db.sql.RETRY_PAUSE', 0))

    def make_store(self, deadline: float = DEADLINE) -> SQLAddressBookDB:
        """A store of a service that is just starting, until the end of the test."""
        store = SQLAddressBookDB(
            self.connector, SQLSettings('sqlite:///never/opened', deadline=deadline))
        self.addAsyncCleanup(store.stop)
        return store

    def read(self, statement: str, *arguments: object) -> list[tuple[object, ...]]:
        """What a database answers that has these tables; up to two nameless ones at a time."""
        answers: dict[str, list[tuple[object, ...]]] = {
            'FIND $1': [(1,)] if self.tables else [],
            SELECT_SCHEMA_VERSION: [(self.tables,)],
            SELECT_NAMELESS: list(self.nameless[:2]),
        }
        return answers.get(statement, [ROW])

    def write(self, statement: str, *arguments: object) -> list[tuple[object, ...]]:
        """What a write does to it."""
        if statement == SET_NAME:
            self.nameless = [row for row in self.nameless if row[0] != arguments[0]]
        elif statement == SET_SCHEMA_VERSION:
            self.tables = max(self.tables, SCHEMA_VERSION)
        return [(1,)]

    def run_exclusively(self, statements: list[str]) -> None:
        """They make the newest tables, but of those that are there: of these, version 2."""
        self.tables = max(self.tables, 2) if self.tables else SCHEMA_VERSION

    def statements(self) -> str:
        """What was run exclusively, once."""
        self.connector.run_exclusively.assert_awaited_once()
        return '; '.join(self.connector.run_exclusively.await_args.args[0])

    def names_set(self) -> list[Any]:
        """With what each name was set."""
        return [call.args[1:] for call in self.connector.write.await_args_list
                if call.args[0] == SET_NAME]

    async def test_tables_of_version_1_are_altered_and_not_made(self) -> None:
        self.assertEqual(ROWS[0][0], (await self.make_store().read_entry('bobby')).nickname)
        self.assertEqual(3, self.tables)
        self.assertIn('ALTER TABLE addresses ', self.statements())
        self.assertNotIn('CREATE TABLE', self.statements())

    async def test_tables_that_are_missing_are_made_as_the_newest(self) -> None:
        self.tables, self.nameless = 0, []
        await self.make_store().read_entry('bobby')
        self.assertIn('CREATE TABLE', self.statements())
        self.assertNotIn('ALTER TABLE', self.statements())
        self.assertEqual(SCHEMA_VERSION, self.tables)
        self.connector.write.assert_not_called()

    async def test_each_entry_gets_its_name_while_it_has_the_version_that_was_read(self) -> None:
        await self.make_store().read_entry('bobby')
        self.assertEqual([('000', 'n000', 10), ('001', 'n001', 11), ('002', 'n002', 12)],
                         self.names_set())
        self.assertEqual([], self.nameless)

    async def test_where_only_names_are_missing_only_these_are_filled_in(self) -> None:
        self.tables = 2
        await self.make_store().read_entry('bobby')
        self.assertEqual(('', 3, 3), (self.statements(), len(self.names_set()), self.tables))

    async def test_the_newest_tables_are_left_as_they_are(self) -> None:
        self.tables = SCHEMA_VERSION
        await self.make_store().read_entry('bobby')
        self.connector.run_exclusively.assert_not_called()
        self.connector.write.assert_not_called()

    async def test_what_another_service_did_at_the_same_time_is_gone_on_with(self) -> None:
        def be_too_late(_: object) -> None:
            self.tables = 2
            raise StoreMisconfiguredError('there is such a column')

        self.connector.run_exclusively.side_effect = be_too_late
        await self.make_store().read_entry('bobby')
        self.assertEqual((3, []), (self.tables, self.nameless))

    async def test_what_a_newer_service_did_at_the_same_time_is_left_alone(self) -> None:
        def be_too_late(_: object) -> None:
            self.tables, self.nameless = 4, []
            raise StoreMisconfiguredError('there is such a column')

        self.connector.run_exclusively.side_effect = be_too_late
        with self.assertRaises(NewerSchemaError):
            await self.make_store().read_entry('bobby')
        self.assertEqual(4, self.tables)

    async def test_what_nobody_may_change_is_told_each_time(self) -> None:
        trouble = StoreMisconfiguredError('no right to that')
        self.connector.run_exclusively.side_effect = trouble
        store = self.make_store()
        for times in (1, 2):
            with self.assertRaises(StoreMisconfiguredError) as caught:
                await store.read_entry('bobby')
            self.assertIs(trouble, caught.exception)
            self.assertEqual(times, self.connector.run_exclusively.await_count)
        self.assertEqual(1, self.tables)

    async def test_it_goes_on_when_the_operation_has_no_more_time(self) -> None:
        """As long as it takes; the next operation finds it done, and does not begin again."""
        question = Question()
        self.connector.run_exclusively.side_effect = question.ask
        store = self.make_store(deadline=0.01)
        for _ in range(3):
            with self.assertRaisesRegex(OutcomeUnknownError, '^no answer in time$'):
                await store.read_entry('bobby')
        store._deadline.seconds = DEADLINE
        question.answered.set()
        self.tables = 2
        async with asyncio.timeout(DEADLINE):
            while self.tables < SCHEMA_VERSION:
                await asyncio.sleep(0)
        await store.read_entry('bobby')
        self.connector.run_exclusively.assert_awaited_once()
        self.assertFalse(question.cancelled)

    async def test_many_operations_wait_for_one(self) -> None:
        store = self.make_store()
        await asyncio.gather(*(store.read_entry('bobby') for _ in range(20)))
        self.connector.run_exclusively.assert_awaited_once()
        self.assertEqual(3, len(self.names_set()))

    async def test_one_that_takes_for_ever_is_given_up(self) -> None:
        """Then the next operation begins another one."""
        self.connector.run_exclusively.side_effect = never
        store = self.make_store()
        with mock.patch('addrservice.addressbook_db.tables.UPGRADE_DEADLINE', 0.001):
            for times in (2, 4):  # each operation tries it once more
                with self.assertRaises(OutcomeUnknownError):
                    await store.read_entry('bobby')
                self.assertEqual(times, self.connector.run_exclusively.await_count)

    async def test_where_there_is_nothing_to_upgrade_it_has_no_more_time_than_an_operation(
        self
    ) -> None:
        """So that the next one may begin again soon: on another connection, perhaps."""
        self.tables = 0
        self.connector.run_exclusively.side_effect = never
        store = self.make_store(deadline=0.01)
        async with asyncio.timeout(DEADLINE):
            while self.connector.run_exclusively.await_count < 3:
                with self.assertRaises(OutcomeUnknownError):
                    await store.read_entry('bobby')

    async def test_names_that_take_for_ever_are_given_up_too(self) -> None:
        async def write(statement: str, *arguments: object) -> list[tuple[object, ...]]:
            if statement == SET_NAME:
                await never()
            return self.write(statement, *arguments)

        self.connector.write.side_effect = write
        store = self.make_store(deadline=0.01)
        with self.assertRaises(OutcomeUnknownError):
            await store.read_entry('bobby')
        self.connector.write.side_effect = self.write
        async with asyncio.timeout(DEADLINE):
            while self.tables < SCHEMA_VERSION:
                with suppress(OutcomeUnknownError):  # of the one that is about to be given up
                    await store.read_entry('bobby')
        self.assertEqual([], self.nameless)

    async def test_a_stop_ends_it(self) -> None:
        question = Question()
        self.connector.run_exclusively.side_effect = question.ask
        store = self.make_store()
        operation = asyncio.create_task(store.read_entry('bobby'))
        await question.until_asked()
        await store.stop()
        await asyncio.wait([operation])
        self.assertTrue(question.cancelled)

    async def test_one_that_fails_when_nobody_waits_is_not_complained_of(self) -> None:
        complaints = mock.Mock()
        asyncio.get_running_loop().set_exception_handler(complaints)
        question = Question(StoreUnavailableError('gone'))
        self.connector.run_exclusively.side_effect = question.ask
        store = self.make_store(deadline=0.01)
        with self.assertRaises(OutcomeUnknownError):
            await store.read_entry('bobby')
        question.answered.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others)
        del others
        store._deadline.seconds = DEADLINE
        self.connector.run_exclusively.side_effect = self.run_exclusively
        await store.read_entry('bobby')
        gc.collect()
        complaints.assert_not_called()


class CreateAddressBookDBTest(unittest.TestCase):
    def test_the_dsn_names_the_connector(self) -> None:
        for dsn, connector in (
            ('sqlite:///a.db', 'sqlite.SQLiteConnector'),
            ('postgresql://db.example/addressbook', 'postgresql.PostgreSQLConnector'),
            ('postgres://db.example', 'postgresql.PostgreSQLConnector'),
        ):
            with self.subTest(dsn=dsn):
                settings = SQLSettings(dsn)
                with mock.patch(f'addrservice.sql_connectors.{connector}') as made:
                    store: AbstractAddressBookDB = create_addressbook_db(
                        StoreSettings(sql=settings))
                self.assertIsInstance(store, SQLAddressBookDB)
                made.assert_called_once_with(settings)


if __name__ == '__main__':
    unittest.main()
