"""The SQL store over a mocked connector: what it asks the database, what it makes of the answers.

Nothing but the call into the connector is mocked. That the statements do what they should is for
the contract tests, which run over real databases.
"""

import asyncio
import gc
import unittest
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple
from unittest import mock

from addrservice.addressbook_db import (
    CHECK, DELETE, INSERT, PAGE_SIZE, SCHEMA_VERSION, SELECT, SELECT_FIRST_PAGE, SELECT_PAGE,
    SELECT_SCHEMA_VERSION, UPDATE, AbstractAddressBookDB, InMemoryAddressBookDB, SQLAddressBookDB,
    StoredEntry, create_addressbook_db,
)
from addrservice.config import SQLSettings, StoreSettings
from addrservice.errors import (
    NewerSchemaError, NicknameTakenError, NothingDoneError, OutcomeUnknownError, StartError,
    StoreError, StoreMisconfiguredError, StoreUnavailableError, UnknownNicknameError,
)
from addrservice.sql_connectors import SQLConnector
from tests.support import DEADLINE

ENTRY: Final = {'name': "Robert'); DROP TABLE addresses; --"}
DOCUMENT: Final = """{"name":"Robert'); DROP TABLE addresses; --"}"""
ROW: Final = ('bobby', DOCUMENT, 7)

# Both are one row with a 1 in it.
TABLE_IS_THERE: Final = [(1,)]
VERSION: Final = [(SCHEMA_VERSION,)]
NEWER_VERSION: Final = [(SCHEMA_VERSION + 1,)]


class MockedConnectorTestCase(unittest.IsolatedAsyncioTestCase):
    """A store over a mocked connector, started where the table is there."""

    settings = SQLSettings('sqlite:///never/opened')

    async def asyncSetUp(self) -> None:
        self.connector = mock.create_autospec(
            SQLConnector, instance=True, key_type='KEY', find_table='FIND $1')
        self.connector.read.return_value = TABLE_IS_THERE
        self.db = SQLAddressBookDB(self.connector, self.settings)
        await self.db.start()
        self.connector.reset_mock()

    def assert_asked(self, *calls: Any) -> None:
        """These calls went to the connector, and no others."""
        self.assertEqual(list(calls), self.connector.mock_calls)


class StatementsTest(MockedConnectorTestCase):
    """Each operation is one statement; each value is an argument of it, never a part."""

    async def test_create_inserts_the_document_under_its_nickname(self) -> None:
        self.connector.write.return_value = [(1,)]
        self.assertEqual('bobby', await self.db.create_address(ENTRY, 'bobby'))
        self.assert_asked(mock.call.write(INSERT, 'bobby', DOCUMENT, mock.ANY))

    async def test_create_is_refused_where_nothing_was_inserted(self) -> None:
        self.connector.write.return_value = []
        with self.assertRaises(NicknameTakenError):
            await self.db.create_address(ENTRY, 'bobby')

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
        await self.db.update_address('bobby', ENTRY)
        self.assert_asked(mock.call.write(UPDATE, 'bobby', DOCUMENT))

    async def test_update_finds_nothing_where_no_row_was_updated(self) -> None:
        self.connector.write.return_value = []
        with self.assertRaises(UnknownNicknameError):
            await self.db.update_address('bobby', ENTRY)

    async def test_delete_deletes_by_nickname(self) -> None:
        self.connector.write.return_value = [(7,)]
        await self.db.delete_address('bobby')
        self.assert_asked(mock.call.write(DELETE, 'bobby'))

    async def test_delete_finds_nothing_where_no_row_was_deleted(self) -> None:
        self.connector.write.return_value = []
        with self.assertRaises(UnknownNicknameError):
            await self.db.delete_address('bobby')

    async def test_all_are_read_page_by_page_until_one_is_empty(self) -> None:
        """Each page starts after the last nickname of the one before."""
        self.connector.read.side_effect = [[('a', '1', 7), ('b', '2', 7)], [('c', '3', 7)], []]
        self.assertEqual({'a': 1, 'b': 2, 'c': 3}, await self.db.read_all_addresses())
        self.assert_asked(mock.call.read(SELECT_FIRST_PAGE, PAGE_SIZE),
                          mock.call.read(SELECT_PAGE, 'b', PAGE_SIZE),
                          mock.call.read(SELECT_PAGE, 'c', PAGE_SIZE))

    async def test_a_row_becomes_an_entry_as_it_is_stored(self) -> None:
        self.connector.read.return_value = [('bobby', '{"name":"Zoë"}', 7)]
        stored = StoredEntry('bobby', '{"name":"Zoë"}'.encode(), 7)
        self.assertEqual(stored, await self.db.read_entry('bobby'))
        self.assertEqual([stored], await self.db.read_page(None, 10))
        self.assertEqual([stored], await self.db.read_page('alice', 10))

    async def test_the_first_version_of_an_entry_is_the_time_in_microseconds(self) -> None:
        self.connector.write.return_value = [(1,)]
        with mock.patch('time.time_ns', return_value=1_700_000_000_123_456_789):
            await self.db.create_address(ENTRY, 'bobby')
        self.assert_asked(mock.call.write(INSERT, 'bobby', DOCUMENT, 1_700_000_000_123_456))


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
        self.assert_asked()

    async def test_a_page_after_one_with_a_null_starts_after_what_precedes_that(self) -> None:
        self.connector.read.return_value = [ROW]
        await self.db.read_page('bob\0by', 10)
        self.assert_asked(mock.call.read(SELECT_PAGE, 'bob', 10))


class Operation(NamedTuple):
    """One operation of the store, for tests of what all of them have in common."""

    name: str
    run: Callable[[SQLAddressBookDB], Awaitable[object]]


READING: Final = (
    Operation('read an entry', lambda db: db.read_entry('bobby')),
    Operation('read the first page', lambda db: db.read_page(None, 10)),
    Operation('read a page', lambda db: db.read_page('bobby', 10)),
)
WRITING: Final = (
    Operation('create', lambda db: db.create_address(ENTRY, 'bobby')),
    Operation('update', lambda db: db.update_address('bobby', ENTRY)),
    Operation('delete', lambda db: db.delete_address('bobby')),
)

ROWS: Final = [ROW]


class RetryTestCase(MockedConnectorTestCase):
    """A connector that gives a test's answers one by one, whatever it is asked."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.enterContext(mock.patch('addrservice.addressbook_db.RETRY_PAUSE', 0))

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
            self.answer(*earlier, error, ROWS)
            with self.assertRaises(type(error)) as caught:
                await operation.run(self.db)
            self.assertIs(error, caught.exception)
            self.assert_tried(after_tries)


class RetryTest(RetryTestCase):
    """What is tried once more: what cannot do harm."""

    async def test_what_did_nothing_is_tried_once_more(self) -> None:
        for operation in (*READING, *WRITING):
            with self.subTest(operation=operation.name):
                self.answer(NothingDoneError('busy'), ROWS)
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
                self.answer(NothingDoneError('busy'), TABLE_IS_THERE, VERSION, ROWS)
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
            await asyncio.sleep(0.035)
            if self.connector.read.call_count == 1:
                raise NothingDoneError('busy')
            return ROWS

        self.connector.read.side_effect = answer_late
        await self.assert_given_up(READING[0], self.db)
        self.assert_tried(2)

    async def test_the_pause_counts(self) -> None:
        self.answer(NothingDoneError('busy'), ROWS)
        with mock.patch('addrservice.addressbook_db.RETRY_PAUSE', 3600):
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
        self.clock = self.enterContext(mock.patch('addrservice.addressbook_db.time'))
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
        self.enterContext(mock.patch('addrservice.addressbook_db.RETRY_PAUSE', 0))
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
        with mock.patch('addrservice.addressbook_db.PING_DEADLINE', 0.01):
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
        with mock.patch('addrservice.addressbook_db.PING_DEADLINE', 0.01):
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
        with mock.patch('addrservice.addressbook_db.PING_INTERVAL', 0):
            for _ in range(2):
                with self.assertRaisesRegex(OutcomeUnknownError, '^no answer in time$'):
                    await self.db.ping()
        self.assertEqual(2, self.connector.check.await_count)


class StartTest(unittest.IsolatedAsyncioTestCase):
    """The table is made when the database is first in reach, whenever that is."""

    FIND: Final = mock.call.read('FIND $1', 'addresses_schema')
    VERSION: Final = mock.call.read(SELECT_SCHEMA_VERSION)
    CHECK: Final = mock.call.check(CHECK)

    def setUp(self) -> None:
        self.connector = mock.create_autospec(
            SQLConnector, instance=True, key_type='KEY', find_table='FIND $1')
        self.db = SQLAddressBookDB(self.connector, SQLSettings('sqlite:///never/opened'))
        self.enterContext(mock.patch('addrservice.addressbook_db.PING_INTERVAL', 0))

    def assert_asked(self, *calls: Any) -> None:
        """These calls went to the connector, and no others."""
        self.assertEqual(list(calls), self.connector.mock_calls)

    async def start_out_of_reach(self) -> None:
        """Starts the store while the database cannot be reached; from then on it can."""
        self.connector.read.side_effect = StoreUnavailableError('gone')
        await self.db.start()
        self.connector.reset_mock(side_effect=True)

    async def test_a_table_that_is_there_is_left_as_it_is(self) -> None:
        self.connector.read.return_value = TABLE_IS_THERE
        await self.db.start()
        self.connector.run_exclusively.assert_not_called()
        self.connector.stop.assert_not_called()

    async def test_a_table_that_is_missing_is_made(self) -> None:
        self.connector.read.side_effect = [[], TABLE_IS_THERE, VERSION]
        await self.db.start()
        self.assert_asked(mock.call.start(), self.FIND, mock.call.run_exclusively(mock.ANY),
                          self.FIND, self.VERSION, self.CHECK)

    async def test_a_table_without_a_version_is_made_again(self) -> None:
        """Whatever is there is kept: each statement does nothing where all is done."""
        self.connector.read.side_effect = [TABLE_IS_THERE, [(0,)], TABLE_IS_THERE, VERSION]
        await self.db.start()
        self.connector.run_exclusively.assert_awaited_once()

    async def test_the_key_of_the_table_is_of_the_type_that_the_connector_names(self) -> None:
        self.connector.read.side_effect = [[], TABLE_IS_THERE, VERSION]
        await self.db.start()
        [statements] = self.connector.run_exclusively.await_args.args
        self.assertIn('nickname KEY NOT NULL PRIMARY KEY', statements[0])
        self.assertNotIn('{', ' '.join(statements))

    async def test_once_is_enough(self) -> None:
        self.connector.read.return_value = TABLE_IS_THERE
        await self.db.start()
        self.connector.reset_mock()
        self.connector.read.return_value = [ROW]
        await self.db.read_entry('bobby')
        await self.db.ping()
        self.assert_asked(mock.call.read(SELECT, 'bobby'), self.CHECK)

    async def test_a_store_out_of_reach_starts_and_is_prepared_by_the_first_operation(self) -> None:
        await self.start_out_of_reach()
        self.connector.read.side_effect = [[], TABLE_IS_THERE, VERSION, [ROW], [ROW]]
        await self.db.read_entry('bobby')
        await self.db.read_entry('bobby')
        self.assert_asked(self.FIND, mock.call.run_exclusively(mock.ANY), self.FIND, self.VERSION,
                          *[mock.call.read(SELECT, 'bobby')] * 2)

    async def test_a_store_out_of_reach_is_prepared_by_a_ping(self) -> None:
        """So that it becomes ready though nobody uses it."""
        await self.start_out_of_reach()
        self.connector.read.side_effect = [[], TABLE_IS_THERE, VERSION]
        await self.db.ping()
        self.assert_asked(self.FIND, mock.call.run_exclusively(mock.ANY), self.FIND, self.VERSION,
                          self.CHECK)

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
        with self.assertRaisesRegex(NewerSchemaError, 'of version 2, of a newer service.*to .* 1$'):
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
        with mock.patch('addrservice.addressbook_db.PING_DEADLINE', 0):
            with self.assertRaises(NewerSchemaError):
                await self.db.start()

    async def test_a_newer_schema_that_turns_up_later_is_left_alone(self) -> None:
        await self.start_out_of_reach()
        self.connector.read.side_effect = [TABLE_IS_THERE, NEWER_VERSION] * 2
        for operation in (self.db.create_address(ENTRY), self.db.ping()):
            with self.assertRaises(StoreMisconfiguredError):
                await operation
        self.assert_asked(*[self.FIND, self.VERSION] * 2)

    async def test_a_connector_that_can_never_be_used_keeps_the_store_from_starting(self) -> None:
        self.connector.start.side_effect = StartError('too old')
        with self.assertRaisesRegex(StartError, 'too old'):
            await self.db.start()
        self.assert_asked(mock.call.start())

    async def test_stop_closes_the_connector_also_without_a_start(self) -> None:
        await self.db.stop()
        self.assert_asked(mock.call.stop())


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
