"""PostgreSQL, through asyncpg."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import asyncpg

from addrservice.config import POSTGRESQL_DSN, SQLSettings
from addrservice.errors import (
    NothingDoneError, OutcomeUnknownError, StoreError, StoreMisconfiguredError,
    StoreUnavailableError,
)
from addrservice.sql_connectors import Connections, Rows, SQLConnector, Value, start_task
from addrservice.sql_connectors.postgresql_pool import Pool

T = TypeVar('T')

DRIVER_ERRORS: Final = (
    asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

# Seconds that a host has to take a connection before the next one is tried beside it.
HEAD_START: Final = 0.1

# Seconds in which the server has to confirm that it gave up a statement; else it is silent.
CONFIRMATION: Final = 0.5

# Seconds that a stop waits for statements and connections to end.
FAREWELL: Final = 2

# Any number will do that every replica has: here "addr" in ASCII.
LOCK: Final = 0x61646472

# SQLSTATE, or its first two characters for all others of the class -> what became of a statement
# (PostgreSQL documentation, Appendix A). A class that is not here is a bug.
OUTCOMES: Final[dict[str, type[StoreError]]] = {
    '08': OutcomeUnknownError,         # connection exception
    '22P05': StoreMisconfiguredError,  # no such character in the encoding of the database
    '25006': NothingDoneError,         # read-only transaction: a primary no more
    '26': StoreMisconfiguredError,     # no such prepared statement: PgBouncer and a statement cache
    '28': StoreMisconfiguredError,     # credentials
    '3D': StoreMisconfiguredError,     # no such database
    '3F': StoreMisconfiguredError,     # no such schema
    '40': NothingDoneError,            # rolled back: serialization failure, deadlock
    '40003': OutcomeUnknownError,      # statement completion unknown
    '42': StoreMisconfiguredError,     # no such table, no right to it
    '53': StoreUnavailableError,       # insufficient resources
    '55P03': NothingDoneError,         # lock not available
    '57': OutcomeUnknownError,         # shut down or crashed meanwhile
    '57014': StoreUnavailableError,    # cancelled
    '57P03': NothingDoneError,         # starting or stopping
}


class PostgreSQLConnector(SQLConnector):
    """A pool of connections to a PostgreSQL database, or to the one of several that will do."""

    system = 'postgresql'
    is_remote = True
    key_type = 'TEXT COLLATE "C"'
    find_table = 'SELECT 1 WHERE to_regclass($1) IS NOT NULL'
    items = 'jsonb_array_elements($1)'
    member = 'value ->> {}'
    join = 'JOIN LATERAL (SELECT * FROM {0} WHERE {1} LIMIT 1) AS found ON TRUE'

    def __init__(self, settings: SQLSettings) -> None:
        self._settings = settings
        self._dsns = dsns(settings.dsn)
        self._options = _options(settings)
        self._connecting: set[asyncio.Task[asyncpg.Connection]] = set()
        self._unclaimed: set[asyncio.Task[asyncpg.Connection]] = set()
        self._recovering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._pool = Pool(self._connect, self._settings.pool_size)

    async def stop(self) -> None:
        with suppress(TimeoutError):  # then the pool has ended its connections the hard way
            async with asyncio.timeout(FAREWELL):
                await self._pool.close()
        for attempt in self._connecting:
            attempt.cancel()
        await asyncio.gather(*self._connecting, *self._recovering, return_exceptions=True)

    def connections(self) -> Connections:
        in_use = self._pool.in_use
        return Connections(in_use, self._pool.size - in_use)

    async def read(self, statement: str, *arguments: Value) -> Rows:
        return await self._use(lambda connection: connection.fetch(statement, *arguments))

    write = read  # each statement is a transaction of its own

    async def run_exclusively(self, statements: Sequence[str]) -> None:
        # In one message, which is one transaction. Committed by others must be what is read after
        # the lock is ours, whatever the default of the database.
        message = ';'.join(['SET TRANSACTION ISOLATION LEVEL READ COMMITTED',
                            f'SELECT pg_advisory_xact_lock({LOCK})', *statements])
        await self._use(lambda connection: connection.execute(message))

    async def _use(self, operate: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Does something over a connection; the driver's errors come out as the house's."""
        connection = await self._pool.acquire()
        try:
            result = await operate(connection)
        except BaseException as error:
            # Not awaited: a statement that was cancelled has to be given up by the server first.
            no_primary = isinstance(error, asyncpg.ReadOnlySQLTransactionError)
            start_task(self._recover(connection, stale=no_primary), self._recovering)
            if isinstance(error, DRIVER_ERRORS):
                raise why_failed(error) from None
            raise
        self._pool.release(connection)
        return result

    async def _recover(self, connection: asyncpg.Connection, stale: bool) -> None:
        """Gives a connection back after a statement that has not ended well.

        :param stale: whether to end it with those that nobody uses, for their server is the wrong
            one; so it is too if it is silent
        """
        try:
            # asyncpg sends it when the server has given up the statement.
            await connection.execute('SELECT 1', timeout=CONFIRMATION)
        except DRIVER_ERRORS as error:
            connection.terminate()
            stale |= isinstance(error, TimeoutError)
        finally:
            if stale:
                connection.terminate()
                self._pool.terminate_free()
            self._pool.release(connection)

    async def _connect(self) -> asyncpg.Connection:
        """Connects to the first host that will do.

        Each attempt has a head start on the next one, which is then made beside it (as RFC 8305
        has it for addresses), so that a silent host takes no time from the others.
        """
        attempts = self._attempts()
        racing: set[asyncio.Task[asyncpg.Connection]] = set()
        errors: list[BaseException] = []
        try:
            while (attempt := next(attempts, None)) or racing:
                if attempt:
                    racing.add(attempt)
                done, _ = await asyncio.wait(racing, timeout=HEAD_START if attempt else None,
                                             return_when=asyncio.FIRST_COMPLETED)
                winner = next(filter(_has_succeeded, done), None)
                if winner:
                    racing.remove(winner)
                    return winner.result()
                racing -= done
                errors += [error for task in done if (error := task.exception())]
        except asyncio.CancelledError:
            self._unclaimed |= {attempt for attempt in racing if not attempt.done()}
            raise
        finally:
            for attempt in racing - self._unclaimed:
                attempt.add_done_callback(_hang_up)
        raise why_unconnected(errors)

    def _attempts(self) -> Iterator['asyncio.Task[asyncpg.Connection]']:
        """Attempts to connect: one that an operation has given up waiting for, then new ones.

        None is cancelled: where many operations are given up at the same time, each new one would
        begin with an attempt that comes to nothing, and asyncpg complains of it in the log.
        """
        if self._unclaimed:
            yield self._unclaimed.pop()
        for dsn in self._dsns:
            attempt = start_task(asyncpg.connect(dsn, **self._options), self._connecting)
            attempt.add_done_callback(self._end_unclaimed)
            yield attempt

    def _end_unclaimed(self, attempt: 'asyncio.Task[asyncpg.Connection]') -> None:
        if attempt in self._unclaimed:
            self._unclaimed.remove(attempt)
            _hang_up(attempt)


def _has_succeeded(attempt: 'asyncio.Task[asyncpg.Connection]') -> bool:
    return not attempt.cancelled() and attempt.exception() is None


def _hang_up(attempt: 'asyncio.Task[asyncpg.Connection]') -> None:
    if _has_succeeded(attempt):
        attempt.result().terminate()


def _options(settings: SQLSettings) -> dict[str, Any]:
    """How to connect, whichever the host."""
    named = 'application_name=' in settings.dsn
    return {
        'timeout': settings.connect_timeout,
        'statement_cache_size': settings.statement_cache_size,
        'server_settings': {} if named else {'application_name': 'addrservice'},
    }


def dsns(dsn: str) -> list[str]:
    """A DSN for each of the hosts that a DSN names."""
    match = POSTGRESQL_DSN.fullmatch(dsn)
    assert match is not None  # the settings were checked
    return [match['before'] + host + match['after'] for host in match['hosts'].split(',')]


def why_unconnected(errors: Sequence[BaseException]) -> StoreError:
    """The error of the house for those of all hosts; nothing was done, in any case."""
    reasons = [why_failed(error) for error in errors]
    message = '; '.join(sorted(set(map(str, reasons))))
    # What is no error of the driver is one of the DSN: a port or a name that cannot be one.
    passing = [error for error, reason in zip(errors, reasons) if isinstance(error, DRIVER_ERRORS)
               and not isinstance(reason, StoreMisconfiguredError)]
    return (NothingDoneError if passing else StoreMisconfiguredError)(message)


def why_failed(error: BaseException) -> StoreError:
    """The error of the house for one of the driver's, raised by a statement."""
    meaning = outcome(error)
    if meaning is StoreError:  # what nobody foresaw may quote a value
        code = getattr(error, 'sqlstate', None) or ''
        return StoreError(f'{type(error).__name__} {code}'.rstrip())
    return meaning(_one_line(error))


def outcome(error: BaseException) -> type[StoreError]:
    """What an error of the driver means for the statement that met it."""
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ''
        return OUTCOMES.get(code) or OUTCOMES.get(code[:2]) or StoreError
    if isinstance(error, OSError):
        return OutcomeUnknownError
    if isinstance(error, asyncpg.ClientConfigurationError):
        return StoreMisconfiguredError
    if isinstance(error, asyncpg.InternalClientError):  # perhaps of the answer
        return OutcomeUnknownError
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
        return NothingDoneError
    return StoreError  # ValueError: an argument that the statement does not take


def _one_line(error: BaseException) -> str:
    """What an error says, without the details, for they quote values."""
    if isinstance(error, TimeoutError):
        return 'no answer in time'
    told_by_asyncpg = isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError)
    text = str(error.args[0]) if told_by_asyncpg and error.args else str(error)
    return ' '.join(text.split()) or type(error).__name__
