"""The PostgreSQL connector without a server: what errors mean, and which host is taken.

asyncpg's ``connect`` is replaced; how the real one behaves is for the integration tests.
"""

import asyncio
import gc
import inspect
import socket
import ssl
import unittest
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from unittest import mock

import asyncpg
from asyncpg.exceptions import _base

from addrservice.config import POSTGRESQL_DSN, SQLSettings
from addrservice.errors import (
    NothingDoneError, OutcomeUnknownError, StoreError, StoreMisconfiguredError,
    StoreUnavailableError,
)
from addrservice.sql_connectors import Rows
from addrservice.sql_connectors.postgresql import (
    DRIVER_ERRORS, PostgreSQLConnector, dsns, why_failed, why_unconnected,
)
from tests.support import DEADLINE
from tests.wire import SECRET

MODULE: Final = 'addrservice.sql_connectors.postgresql'

# What each SQLSTATE that asyncpg knows means for a statement that met it, by its class, or one by
# one where a class has some of both sorts. A new one fails a test until somebody has decided.
DECISIONS: Final = {
    StoreError: (
        '03 09 0A 0B 0F 0L 0P 0Z 10 20 21 22 23 24 27 2B 2D 2F 34 38 39 3B 44 54 58 72 F0 HV P0 XX '
        '25000 25001 25002 25003 25004 25005 25007 25008 25P01 25P02 25P03 25P04 '
        '55000 55006 55P02 55P04'),
    StoreUnavailableError: '53 57014',
    NothingDoneError: '25006 40000 40001 40002 40P01 55P03 57P03',
    OutcomeUnknownError: '08 40003 57000 57P01 57P02 57P04 57P05',
    StoreMisconfiguredError: '22P05 26 28 3D 3F 42',
}
BY_SQLSTATE: Final = {
    code: meaning for meaning, codes in DECISIONS.items() for code in codes.split()}

# The same for what has no SQLSTATE.
BY_CLASS: Final[dict[type[Exception], type[StoreError]]] = {
    asyncpg.PostgresError: StoreError,
    asyncpg.FatalPostgresError: StoreError,
    asyncpg.UnknownPostgresError: StoreError,
    asyncpg.InterfaceError: NothingDoneError,
    asyncpg.UnsupportedClientFeatureError: NothingDoneError,
    asyncpg.UnsupportedServerFeatureError: NothingDoneError,
    asyncpg.ClientConfigurationError: StoreMisconfiguredError,
    _base.DataError: StoreError,
    asyncpg.InternalClientError: OutcomeUnknownError,
    asyncpg.ProtocolError: OutcomeUnknownError,
    asyncpg.TargetServerAttributeNotMatched: OutcomeUnknownError,
    asyncpg.OutdatedSchemaCacheError: OutcomeUnknownError,
}

# Never raised to those who use asyncpg, except for a message that no PostgreSQL would send.
INNER_ERRORS: Final = {'_NextHostSignal', '_RetryConnectSignal', 'BufferError'}


def subclasses(cls: type[BaseException]) -> Iterator[type[BaseException]]:
    """All that are derived from a class, however far; some more than once."""
    for subclass in cls.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def errors_of_the_driver() -> set[type[BaseException]]:
    """The exceptions that asyncpg defines, without warnings, which go to listeners alone."""
    return {cls for cls in subclasses(BaseException)
            if cls.__module__.split('.')[0] == 'asyncpg' and not issubclass(cls, Warning)}


def decision(cls: type[BaseException]) -> type[StoreError] | None:
    """What the tables above say of an exception of asyncpg."""
    if issubclass(cls, asyncpg.PostgresError) and cls.sqlstate is not None:
        return BY_SQLSTATE.get(cls.sqlstate) or BY_SQLSTATE.get(cls.sqlstate[:2])
    return next((meaning for known, meaning in BY_CLASS.items() if known is cls), None)


def server_error(code: str, message: str = 'no', **fields: str) -> asyncpg.PostgresError:
    """An error as asyncpg makes it of what a server sends."""
    error: asyncpg.PostgresError = asyncpg.PostgresError.new({'C': code, 'M': message, **fields})
    return error


class MappingTest(unittest.TestCase):
    """Each error of the driver has its place in the tree."""

    def test_it_is_decided_what_each_exception_of_asyncpg_means(self) -> None:
        errors = errors_of_the_driver()
        self.assertGreaterEqual(
            errors, {cls for name in asyncpg.exceptions.__all__
                     if inspect.isclass(cls := getattr(asyncpg, name))
                     and issubclass(cls, Exception) and not issubclass(cls, Warning)})
        undecided = {cls.__name__ for cls in errors if decision(cls) is None}
        self.assertEqual(INNER_ERRORS, undecided)

    def test_each_exception_of_asyncpg_means_what_was_decided(self) -> None:
        for cls in errors_of_the_driver():
            if (meaning := decision(cls)) is not None:
                with self.subTest(cls=cls):
                    self.assertTrue(issubclass(cls, DRIVER_ERRORS))
                    self.assertIs(meaning, type(why_failed(cls('no'))))

    def test_no_decision_is_about_what_there_is_no_more(self) -> None:
        codes = {cls.sqlstate for cls in errors_of_the_driver()
                 if issubclass(cls, asyncpg.PostgresError) and cls.sqlstate}
        self.assertEqual(set(), BY_SQLSTATE.keys() - codes - {code[:2] for code in codes})

    def test_a_code_that_asyncpg_does_not_know_means_what_its_class_means(self) -> None:
        for code, meaning in (('53999', StoreUnavailableError), ('08999', OutcomeUnknownError),
                              ('28999', StoreMisconfiguredError), ('99999', StoreError)):
            with self.subTest(code=code):
                error = server_error(code)
                self.assertIs(asyncpg.UnknownPostgresError, type(error))
                self.assertIs(meaning, type(why_failed(error)))

    def test_of_what_a_broken_connection_did_nothing_is_known(self) -> None:
        for error in (TimeoutError(), ConnectionResetError(104, 'reset'), BrokenPipeError(),
                      socket.gaierror(-2, 'unknown'), ssl.SSLEOFError('end'),
                      ssl.SSLCertVerificationError('expired'), OSError(113, 'no route')):
            with self.subTest(error=error):
                self.assertIsInstance(error, DRIVER_ERRORS)
                self.assertIs(OutcomeUnknownError, type(why_failed(error)))


class MessageTest(unittest.TestCase):
    """What operators get to read: the reason in one line, nothing of what is in the book."""

    def test_it_is_what_the_server_says_without_details(self) -> None:
        """Those quote values."""
        error = server_error('42501', 'permission denied', D=SECRET, H=SECRET, W=SECRET)
        self.assertIn(SECRET, str(error))
        self.assertEqual('permission denied', str(why_failed(error)))
        closed = asyncpg.InterfaceError('closed', detail=SECRET, hint=SECRET)
        self.assertIn(SECRET, str(closed))
        self.assertEqual('closed', str(why_failed(closed)))

    def test_of_what_nobody_foresaw_it_is_the_name_for_the_words_may_quote_a_value(self) -> None:
        for error, name in (
            (server_error('22P02', f'invalid input: "{SECRET}"'),
             'InvalidTextRepresentationError 22P02'),
            (_base.DataError(f'invalid input for $1: {SECRET}'), 'DataError'),
        ):
            with self.subTest(name=name):
                self.assertEqual(name, str(why_failed(error)))

    def test_it_is_one_line(self) -> None:
        for error in (server_error('57014', 'a\n b\r\n'), asyncpg.InterfaceError('a\nb'),
                      OSError('a\tb')):
            with self.subTest(error=error):
                self.assertEqual('a b', str(why_failed(error)))

    def test_an_error_without_words_is_named(self) -> None:
        for error, words in ((TimeoutError(), 'no answer in time'),
                             (ConnectionResetError(), 'ConnectionResetError')):
            self.assertEqual(words, str(why_failed(error)))


class UnconnectedTest(unittest.TestCase):
    """What it means that no host took a connection."""

    def test_nothing_was_done_whatever_the_reason(self) -> None:
        for error in (TimeoutError(), ConnectionRefusedError('refused'),
                      socket.gaierror(-2, 'unknown'), server_error('57P03'), server_error('53300'),
                      server_error('XX000'), server_error('08006'),
                      asyncpg.TargetServerAttributeNotMatched('no'), asyncpg.InterfaceError('no')):
            with self.subTest(error=error):
                self.assertIs(NothingDoneError, type(why_unconnected([error])))

    def test_an_operator_has_to_act_where_every_host_turned_the_service_away(self) -> None:
        away = [server_error('28P01'), server_error('3D000'),
                asyncpg.ClientConfigurationError('no')]
        for errors in ([away[0]], [away[1]], [away[2]], away):
            with self.subTest(errors=errors):
                self.assertIs(StoreMisconfiguredError, type(why_unconnected(errors)))
                self.assertIs(NothingDoneError,
                              type(why_unconnected([*errors, TimeoutError()])))

    def test_the_message_has_each_reason_once_in_order(self) -> None:
        errors = [OSError('b'), server_error('28P01', 'a'), OSError('b'), OSError('c')]
        self.assertEqual('a; b; c', str(why_unconnected(errors)))

    def test_a_dsn_that_no_host_could_have_is_for_an_operator_to_mend(self) -> None:
        """Python raises these, before anything is sent."""
        for error in (UnicodeError('label too long'), OverflowError('port must be 0-65535')):
            with self.subTest(error=error):
                self.assertIs(StoreMisconfiguredError, type(why_unconnected([error])))
                self.assertIs(NothingDoneError, type(why_unconnected([error, TimeoutError()])))


class DSNTest(unittest.TestCase):
    def test_each_host_gets_a_dsn_with_all_the_rest(self) -> None:
        for dsn, expected in (
            ('postgresql://', ['postgresql://']),
            ('postgres://a', ['postgres://a']),
            ('postgresql:///db', ['postgresql:///db']),
            ('postgresql://me@a:5433/db', ['postgresql://me@a:5433/db']),
            ('postgresql://a,b', ['postgresql://a', 'postgresql://b']),
            ('postgresql://me@a:1,b,c:3/db?target_session_attrs=primary&x=y,z', [
                'postgresql://me@a:1/db?target_session_attrs=primary&x=y,z',
                'postgresql://me@b/db?target_session_attrs=primary&x=y,z',
                'postgresql://me@c:3/db?target_session_attrs=primary&x=y,z']),
            ('postgresql://[::1]:5433,[fe80::1],127.0.0.1/db', [
                'postgresql://[::1]:5433/db', 'postgresql://[fe80::1]/db',
                'postgresql://127.0.0.1/db']),
            ('postgresql://a,b?sslmode=require', [
                'postgresql://a?sslmode=require', 'postgresql://b?sslmode=require']),
        ):
            with self.subTest(dsn=dsn):
                self.assertEqual(expected, dsns(dsn))


class Network:
    """In place of ``asyncpg.connect``: hosts of which each does what a test says.

    ``events`` tells in order which host was tried, which attempt given up.
    """

    def __init__(self) -> None:
        self.conduct: dict[str, Callable[[], Awaitable[Any]]] = {}
        self.events: list[str] = []
        self.options: dict[str, Any] = {}

    async def connect(self, dsn: str, **options: Any) -> Any:
        self.options = options
        match = POSTGRESQL_DSN.fullmatch(dsn)
        assert match is not None
        host = match['hosts']
        self.events.append(f'{host} tried')
        try:
            return await self.conduct[host]()
        except asyncio.CancelledError:
            self.events.append(f'{host} given up')
            raise


def new_connection() -> Any:
    """In place of a connection of asyncpg, which is open until it is ended."""
    def end() -> None:
        connection.is_closed.return_value = True

    connection = mock.NonCallableMock(spec=asyncpg.Connection)
    connection.is_closed.return_value = False
    connection.terminate.side_effect = connection.close.side_effect = end
    return connection


async def never(*_: object) -> None:
    """An answer that does not come."""
    await asyncio.Future()


def never_after(event: asyncio.Event) -> Callable[..., Awaitable[None]]:
    """An answer that does not come; the event is set once it was asked for."""
    async def ask(*_: object) -> None:
        event.set()
        await never()

    return ask


def after(event: asyncio.Event, answer: Any) -> Callable[[], Awaitable[Any]]:
    """An answer that comes after an event: a connection, or an error to raise."""
    async def ask() -> Any:
        await event.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


async def let_all_run(*unused: object) -> None:
    """Gives every task that can go on its turns."""
    for _ in range(5):
        await asyncio.sleep(0)


class ConnectorTestCase(unittest.IsolatedAsyncioTestCase):
    """A connector between a pool and a network that do what a test says."""

    dsn = 'postgresql://a/addressbook'

    async def asyncSetUp(self) -> None:
        self.network = Network()
        self.enterContext(mock.patch('asyncpg.connect', self.network.connect))
        self.connector = PostgreSQLConnector(SQLSettings(self.dsn))
        await self.connector.start()

    async def read(self, statement: str = 'SELECT 1') -> Rows:
        """The rows that the connector reads."""
        async with asyncio.timeout(DEADLINE):
            return await self.connector.read(statement)

    async def stop(self) -> None:
        """Stops the connector."""
        async with asyncio.timeout(DEADLINE):
            await self.connector.stop()

    def takes(self, host: str, connection: Any | None = None) -> Any:
        """Makes a host take connections; gives the one that it takes, a new one unless told."""
        connection = connection or new_connection()
        self.network.conduct[host] = mock.AsyncMock(return_value=connection)
        return connection

    def refuses(self, host: str, error: Exception) -> None:
        """Makes a host refuse connections."""
        self.network.conduct[host] = mock.AsyncMock(side_effect=error)

    def complaints(self) -> mock.Mock:
        """What asyncio would put into the log, from here on."""
        complaints = mock.Mock()
        asyncio.get_running_loop().set_exception_handler(complaints)
        return complaints

    def assert_nothing_left(self) -> None:
        """No task is under way but the test's own."""
        self.assertEqual({asyncio.current_task()}, asyncio.all_tasks())


class ConnectionsTest(ConnectorTestCase):
    """When connections are made, how, and how many."""

    async def start_with(self, dsn: str = '', **settings: Any) -> None:
        """Starts another connector, in place of the one of the test."""
        await self.stop()
        self.connector = PostgreSQLConnector(SQLSettings(self.dsn + dsn, **settings))
        await self.connector.start()

    async def test_it_connects_as_the_settings_say_and_when_it_has_to(self) -> None:
        await self.start_with(connect_timeout=3, statement_cache_size=0)
        self.assertEqual([], self.network.events)
        self.takes('a')
        await self.read()
        self.assertEqual({'timeout': 3, 'statement_cache_size': 0,
                          'server_settings': {'application_name': 'addrservice'}},
                         self.network.options)

    async def test_a_dsn_may_name_the_application(self) -> None:
        await self.start_with('?application_name=x')
        self.takes('a')
        await self.read()
        self.assertEqual({}, self.network.options['server_settings'])

    async def test_connections_are_counted(self) -> None:
        await self.start_with(pool_size=7)
        self.assertEqual((0, 7), self.connector.connections())
        self.takes('a').fetch.side_effect = never
        reading = asyncio.create_task(self.read())
        await let_all_run()
        self.assertEqual((1, 6), self.connector.connections())
        reading.cancel()

    async def test_a_stop_closes_them(self) -> None:
        connection = self.takes('a')
        await self.read()
        await self.stop()
        connection.close.assert_awaited_once_with()
        self.assert_nothing_left()


class StatementTestCase(ConnectorTestCase):
    """A connector that gets one connection."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.connection = self.takes('a')

    def assert_back(self) -> None:
        """The connection is free and as good as new."""
        self.assertEqual(0, self.connector.connections().in_use)
        self.connection.terminate.assert_not_called()


class StatementTest(StatementTestCase):
    """What goes to the driver for a statement, and what comes back."""

    async def test_statement_and_arguments_go_to_the_driver(self) -> None:
        self.connection.fetch.return_value = rows = [('a', 1)]
        for run in (self.connector.read, self.connector.write):
            with self.subTest(run=run):
                self.connection.fetch.reset_mock()
                self.assertEqual(rows, await run('SELECT $1, $2', 'a', 1))
                self.connection.fetch.assert_awaited_once_with('SELECT $1, $2', 'a', 1)
                self.connection.execute.assert_not_called()
                self.assert_back()

    async def test_statements_run_exclusively_are_one_transaction_under_a_lock(self) -> None:
        await self.connector.run_exclusively(['CREATE', 'INSERT'])
        self.connection.execute.assert_awaited_once_with(
            'SET TRANSACTION ISOLATION LEVEL READ COMMITTED;'
            f'SELECT pg_advisory_xact_lock({0x61646472});CREATE;INSERT')
        self.assert_back()

    async def test_an_error_of_the_driver_comes_out_as_one_of_the_house(self) -> None:
        """Alone: the driver's may quote values, and a traceback would show it."""
        for error, meaning in ((server_error('42P01', 'no'), StoreMisconfiguredError),
                               (OSError('no'), OutcomeUnknownError),
                               (asyncpg.InterfaceError('no'), NothingDoneError)):
            with self.subTest(error=error):
                self.connection.fetch.side_effect = error
                with self.assertRaises(StoreError) as caught:
                    await self.read()
                self.assertIs(meaning, type(caught.exception))
                self.assertEqual('no', str(caught.exception))
                self.assertTrue(caught.exception.__suppress_context__)

    async def test_another_error_comes_out_as_it_is(self) -> None:
        """It is a bug; the connection goes back nevertheless."""
        self.connection.fetch.side_effect = error = RuntimeError('a bug')
        with self.assertRaises(RuntimeError) as caught:
            await self.read()
        self.assertIs(error, caught.exception)
        await let_all_run()
        self.assert_back()


class RecoveryTest(StatementTestCase):
    """What becomes of a connection after a statement that has not ended well."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.confirmed = asyncio.Event()
        self.connection.execute.side_effect = self.confirm

    async def confirm(self, statement: str, *, timeout: float) -> None:
        await self.confirmed.wait()

    async def test_it_is_kept_when_the_server_has_given_up_the_statement(self) -> None:
        """Who fails does not wait for that: the server may be silent. A stop does."""
        self.connection.fetch.side_effect = OSError('gone')
        with self.assertRaises(OutcomeUnknownError):
            await self.read()
        stop = asyncio.create_task(self.connector.stop())
        await let_all_run()
        self.assertEqual((False, 1), (stop.done(), self.connection.execute.await_count))
        self.confirmed.set()
        await stop
        self.connection.close.assert_awaited_once_with()
        self.assert_nothing_left()

    async def test_who_is_cancelled_does_not_wait_either(self) -> None:
        begun = asyncio.Event()
        self.connection.fetch.side_effect = never_after(begun)
        reading = asyncio.create_task(self.read())
        async with asyncio.timeout(DEADLINE):
            await begun.wait()
        reading.cancel()
        await asyncio.wait([reading], timeout=DEADLINE)
        self.assertEqual((True, 1), (reading.cancelled(), self.connector.connections().in_use))
        self.confirmed.set()
        await let_all_run()
        self.assert_back()

    async def test_the_server_has_a_moment_to_confirm_it(self) -> None:
        self.connection.fetch.side_effect = OSError('gone')
        self.enterContext(mock.patch(f'{MODULE}.CONFIRMATION', 7))
        self.confirmed.set()
        with self.assertRaises(OutcomeUnknownError):
            await self.read()
        await let_all_run()
        self.connection.execute.assert_awaited_once_with('SELECT 1', timeout=7)

    async def test_it_is_ended_where_that_fails(self) -> None:
        self.connection.fetch.side_effect = OSError('gone')
        for trouble in (asyncpg.InterfaceError('closed'), server_error('57P01'),
                        asyncpg.InternalClientError('state'), ConnectionResetError('reset'),
                        TimeoutError()):
            with self.subTest(trouble=trouble):
                self.connection.is_closed.return_value = False
                self.connection.execute.side_effect = trouble
                with self.assertRaises(OutcomeUnknownError):
                    await self.read()
                await let_all_run()
                self.assertTrue(self.connection.is_closed())
                self.assertEqual(0, self.connector.connections().in_use)

    async def test_a_bug_takes_no_place_from_others(self) -> None:
        complaints = self.complaints()
        self.connection.fetch.side_effect = OSError('gone')
        self.connection.execute.side_effect = RuntimeError('a bug')
        with self.assertRaises(OutcomeUnknownError):
            await self.read()
        await let_all_run()
        self.assertEqual(0, self.connector.connections().in_use)
        complaints.assert_not_called()

    async def make_two_idle(self) -> list[Any]:
        """Two connections that nobody uses; the next operation takes the second of them."""
        connections = [new_connection(), new_connection()]
        self.network.conduct['a'] = mock.AsyncMock(side_effect=connections)
        for connection in connections:
            connection.fetch.side_effect = let_all_run
        await asyncio.gather(*(self.read() for _ in connections))
        for connection in connections:
            connection.fetch.side_effect = None
        return connections

    async def test_a_server_that_does_not_confirm_it_costs_all_idle_connections(self) -> None:
        """Each of them would cost a request its time; other troubles concern only the one."""
        for trouble, costs in ((ConnectionResetError('reset'), 0), (TimeoutError(), 1)):
            with self.subTest(trouble=trouble):
                another, used = await self.make_two_idle()
                used.fetch.side_effect = OSError('gone')
                used.execute.side_effect = trouble
                with self.assertRaises(OutcomeUnknownError):
                    await self.connector.write('INSERT')
                await let_all_run()
                self.assertEqual(costs, another.terminate.call_count)
                another.is_closed.return_value = True

    async def test_a_server_that_is_no_primary_any_more_costs_all_idle_connections(self) -> None:
        """They all lead to it; the next ones lead to the new primary."""
        for code, costs in (('25P02', 0), ('25006', 1)):
            with self.subTest(code=code):
                another, used = await self.make_two_idle()
                used.fetch.side_effect = server_error(code)
                with self.assertRaises(StoreError):
                    await self.connector.write('INSERT')
                await let_all_run()
                self.assertEqual(costs, another.terminate.call_count)
                self.assertEqual(costs, used.terminate.call_count)
                another.is_closed.return_value = used.is_closed.return_value = True

    async def test_a_stop_does_not_wait_for_ever(self) -> None:
        """It is no concern of anybody's how the connections came to their end."""
        self.enterContext(mock.patch(f'{MODULE}.FAREWELL', 0.01))
        await self.read()
        self.connection.close.side_effect = never
        await self.stop()
        self.connection.terminate.assert_called_once_with()
        self.assert_nothing_left()


class HostsTest(ConnectorTestCase):
    """Which of several hosts is taken."""

    dsn = 'postgresql://a,b,c/addressbook'
    ALL_TRIED: Final = ['a tried', 'b tried', 'c tried']

    def head_start(self, seconds: float) -> None:
        """How long a host has to take a connection before the next one is tried too."""
        self.enterContext(mock.patch(f'{MODULE}.HEAD_START', seconds))

    async def assert_taken(self, connection: Any) -> None:
        """It is this connection that is used, and kept."""
        await self.read()
        connection.fetch.assert_awaited_once_with('SELECT 1')
        await let_all_run()
        connection.terminate.assert_not_called()

    async def test_a_host_that_answers_in_time_is_alone_with_it(self) -> None:
        self.head_start(3600)
        await self.assert_taken(self.takes('a'))
        self.assertEqual(['a tried'], self.network.events)

    async def test_a_host_that_refuses_makes_way_at_once(self) -> None:
        self.head_start(3600)
        self.refuses('a', ConnectionRefusedError('refused'))
        self.refuses('b', asyncpg.TargetServerAttributeNotMatched('a standby'))
        await self.assert_taken(self.takes('c'))
        self.assertEqual(self.ALL_TRIED, self.network.events)

    async def test_a_silent_host_takes_no_time_from_the_others(self) -> None:
        """It has a head start, not the whole time."""
        self.head_start(0.01)
        self.network.conduct.update(a=never, b=never)
        await self.assert_taken(self.takes('c'))
        self.assertEqual(self.ALL_TRIED, self.network.events)

    async def test_a_slow_host_may_still_be_the_one(self) -> None:
        """If it answers before those that were tried after it."""
        self.head_start(0)
        all_were_tried, connection = asyncio.Event(), new_connection()
        self.network.conduct.update(
            a=after(all_were_tried, connection), b=never, c=never_after(all_were_tried))
        await self.assert_taken(connection)

    async def test_the_last_one_has_as_much_time_as_it_takes(self) -> None:
        self.head_start(0)
        late, connection = asyncio.Event(), new_connection()
        self.network.conduct['a'] = after(late, connection)
        self.refuses('b', ConnectionRefusedError('refused'))
        self.refuses('c', ConnectionRefusedError('refused'))
        reading = asyncio.create_task(self.read())
        for _ in self.ALL_TRIED:
            await let_all_run()
        self.assertEqual(self.ALL_TRIED, self.network.events)
        late.set()
        await reading
        connection.fetch.assert_awaited_once_with('SELECT 1')

    async def test_of_two_that_answer_at_the_same_moment_one_is_hung_up_on(self) -> None:
        self.head_start(0)
        all_were_tried, connections = asyncio.Event(), [new_connection(), new_connection()]
        self.network.conduct.update(
            a=after(all_were_tried, connections[0]), b=after(all_were_tried, connections[1]),
            c=never_after(all_were_tried))
        await self.read()
        await let_all_run()
        self.assertCountEqual(
            [(1, 0), (0, 1)],  # used and kept, not used and hung up on
            [(each.fetch.call_count, each.terminate.call_count) for each in connections])

    async def test_those_that_answer_too_late_are_hung_up_on(self) -> None:
        """Of those that fail then, nobody hears."""
        complaints = self.complaints()
        self.head_start(0)
        another_was_taken, late = asyncio.Event(), new_connection()
        self.network.conduct.update(
            a=after(another_was_taken, late), b=after(another_was_taken, OSError('no')))
        await self.assert_taken(self.takes('c'))
        another_was_taken.set()
        await let_all_run()
        late.terminate.assert_called_once_with()
        self.assert_nothing_left()
        gc.collect()
        complaints.assert_not_called()

    async def test_where_no_host_will_do_each_says_why(self) -> None:
        self.head_start(3600)
        self.refuses('a', ConnectionRefusedError('refused'))
        self.refuses('b', server_error('28P01', 'who are you?'))
        self.refuses('c', TimeoutError())
        reasons = '^no answer in time; refused; who are you[?]$'
        with self.assertRaisesRegex(NothingDoneError, reasons):
            await self.read()
        self.assert_nothing_left()

    async def test_where_every_host_turns_the_service_away_an_operator_has_to_act(self) -> None:
        self.head_start(3600)
        for host in 'abc':
            self.refuses(host, server_error('28P01', 'who are you?'))
        with self.assertRaisesRegex(StoreMisconfiguredError, '^who are you[?]$'):
            await self.read()

    async def test_a_stop_ends_all_attempts(self) -> None:
        self.head_start(0)
        self.network.conduct.update(a=never, b=never)
        await self.assert_taken(self.takes('c'))
        await self.stop()
        self.assertCountEqual(['a given up', 'b given up'], self.network.events[3:])
        self.assert_nothing_left()


class UnclaimedTest(ConnectorTestCase):
    """An attempt to connect goes on when its operation has no more time, for the next one."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.enterContext(mock.patch(f'{MODULE}.HEAD_START', 3600))
        self.host_answers = asyncio.Event()

    async def give_up(self, answer: Any) -> None:
        """An operation that is cancelled while its host has yet to give this answer."""
        self.network.conduct['a'] = after(self.host_answers, answer)
        operation = asyncio.create_task(self.read())
        await let_all_run()
        self.assertEqual(['a tried'], self.network.events)
        operation.cancel()
        await asyncio.wait([operation], timeout=DEADLINE)
        self.assertTrue(operation.cancelled())

    async def begin_another(self) -> 'asyncio.Task[Any]':
        """The next operation, which waits for a connection."""
        operation = asyncio.create_task(self.read('SELECT 2'))
        await let_all_run()
        return operation

    async def test_the_next_operation_waits_for_the_attempt(self) -> None:
        connection = new_connection()
        await self.give_up(connection)
        operation = await self.begin_another()
        self.host_answers.set()
        await operation
        connection.fetch.assert_awaited_once_with('SELECT 2')
        self.assertEqual(['a tried'], self.network.events)

    async def test_only_one_operation_waits_for_it(self) -> None:
        connection = new_connection()
        await self.give_up(connection)
        operation = await self.begin_another()
        another = self.takes('a')
        await self.read('SELECT 3')
        another.fetch.assert_awaited_once_with('SELECT 3')
        self.host_answers.set()
        await operation
        connection.fetch.assert_awaited_once_with('SELECT 2')

    async def test_another_attempt_is_made_beside_one_that_is_silent(self) -> None:
        """It has had its head start; whichever comes too late is hung up on."""
        connection = new_connection()
        await self.give_up(connection)
        another = self.takes('a')
        with mock.patch(f'{MODULE}.HEAD_START', 0.01):
            await self.read('SELECT 2')
        another.fetch.assert_awaited_once_with('SELECT 2')
        self.host_answers.set()
        await let_all_run()
        connection.terminate.assert_called_once_with()
        another.terminate.assert_not_called()

    async def test_another_attempt_is_made_after_one_that_fails(self) -> None:
        await self.give_up(ConnectionRefusedError('refused'))
        another = self.takes('a')
        operation = await self.begin_another()
        self.host_answers.set()
        await operation
        another.fetch.assert_awaited_once_with('SELECT 2')

    async def test_one_may_be_given_up_again(self) -> None:
        connection = new_connection()
        await self.give_up(connection)
        for _ in range(3):
            operation = await self.begin_another()
            operation.cancel()
            await asyncio.wait([operation], timeout=DEADLINE)
        operation = await self.begin_another()
        self.host_answers.set()
        await operation
        connection.fetch.assert_awaited_once_with('SELECT 2')
        self.assertEqual(['a tried'], self.network.events)

    async def test_a_connection_that_is_made_when_nobody_waits_for_it_is_hung_up_on(self) -> None:
        connection = new_connection()
        await self.give_up(connection)
        self.host_answers.set()
        await let_all_run()
        connection.terminate.assert_called_once_with()
        another = self.takes('a')
        await self.read('SELECT 2')
        another.fetch.assert_awaited_once_with('SELECT 2')
        self.assert_nothing_left()

    async def test_of_an_attempt_that_fails_when_nobody_waits_for_it_nobody_hears(self) -> None:
        complaints = self.complaints()
        await self.give_up(OSError('no'))
        self.host_answers.set()
        await let_all_run()
        await self.stop()
        del self.connector  # all that keeps it
        gc.collect()
        complaints.assert_not_called()

    async def test_a_connection_that_comes_just_when_it_is_given_up_is_hung_up_on(self) -> None:
        connection = new_connection()
        self.network.conduct['a'] = after(self.host_answers, connection)
        operation = await self.begin_another()
        self.host_answers.set()
        await asyncio.sleep(0)  # the attempt is done, but the operation has not noticed that yet
        operation.cancel()
        await asyncio.wait([operation], timeout=DEADLINE)
        await let_all_run()
        self.assertTrue(operation.cancelled())
        connection.terminate.assert_called_once_with()

    async def test_a_stop_ends_an_attempt_that_nobody_waits_for(self) -> None:
        await self.give_up(new_connection())
        await self.stop()
        self.assertEqual(['a tried', 'a given up'], self.network.events)
        self.assert_nothing_left()


class RefusedTest(unittest.IsolatedAsyncioTestCase):
    """The real driver, and nobody who listens."""

    async def test_it_starts_and_says_at_each_operation_that_nothing_was_done(self) -> None:
        with socket.socket() as taken:  # and not listening
            taken.bind(('127.0.0.1', 0))
            host = '127.0.0.1:{}'.format(taken.getsockname()[1])
            connector = PostgreSQLConnector(SQLSettings(f'postgresql://me@{host},{host}/db'))
            await connector.start()
            for _ in range(2):
                with self.assertRaisesRegex(NothingDoneError, '(?i)connect'):
                    await connector.read('SELECT 1')
            await connector.stop()
            with self.assertRaisesRegex(NothingDoneError, 'closed'):
                await connector.read('SELECT 1')


if __name__ == '__main__':
    unittest.main()
