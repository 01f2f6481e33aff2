"""SQLite, embedded, through aiosqlite: one file, which several processes may use."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import aiosqlite

from addrservice.config import SQLITE_DSN, SQLSettings
from addrservice.errors import (
    NothingDoneError, StartError, StoreError, StoreMisconfiguredError, StoreUnavailableError,
)
from addrservice.sql_connectors import Connections, Rows, SQLConnector, Value, start_task

OLDEST: Final = (3, 35)  # the first with RETURNING

# A write-ahead log, so that readers and the writer do not wait for each other; and a commit that
# is on the disk before it is acknowledged, on macOS too.
SETTINGS: Final = 'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;'

# What a wait for a lock may take of the deadline: less than half, so that it can be tried again.
BUSY_SHARE: Final = 0.4

# Seconds that a stop waits for statements to end.
FAREWELL: Final = 2

# Primary result code -> what became of a statement (https://sqlite.org/rescode.html). One that is
# not here is a bug.
OUTCOMES: Final[dict[int, type[StoreError]]] = {
    sqlite3.SQLITE_ERROR: StoreMisconfiguredError,  # no such table
    sqlite3.SQLITE_PERM: StoreMisconfiguredError,
    sqlite3.SQLITE_BUSY: NothingDoneError,
    sqlite3.SQLITE_LOCKED: NothingDoneError,
    sqlite3.SQLITE_NOMEM: StoreUnavailableError,
    sqlite3.SQLITE_READONLY: StoreUnavailableError,
    sqlite3.SQLITE_INTERRUPT: StoreUnavailableError,
    sqlite3.SQLITE_IOERR: StoreUnavailableError,
    sqlite3.SQLITE_CORRUPT: StoreMisconfiguredError,
    sqlite3.SQLITE_FULL: StoreUnavailableError,
    sqlite3.SQLITE_CANTOPEN: StoreUnavailableError,
    sqlite3.SQLITE_PROTOCOL: NothingDoneError,      # too many wait for a lock
    sqlite3.SQLITE_AUTH: StoreMisconfiguredError,
    sqlite3.SQLITE_NOTADB: StoreMisconfiguredError,
}


class SQLiteConnector(SQLConnector):
    """One connection that writes, for SQLite has one writer at a time, and some that read."""

    system = 'sqlite'
    key_type = 'TEXT'
    find_table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1"
    items = 'json_each($1)'
    member = "json_extract(value, '$[{}]')"  # ->> is of SQLite 3.38

    def __init__(self, settings: SQLSettings) -> None:
        self._path = database_path(settings.dsn)
        busy_timeout = BUSY_SHARE * settings.deadline
        self._writer = _Connections(1, self._path, busy_timeout)
        self._readers = _Connections(settings.pool_size, self._path, busy_timeout)
        self._write_failed = False

    async def start(self) -> None:
        if sqlite3.sqlite_version_info < OLDEST:
            raise StartError(f'SQLite {OLDEST[0]}.{OLDEST[1]} or newer is needed; the one of this '
                             f'Python is {sqlite3.sqlite_version}')

    async def stop(self) -> None:
        await self._readers.close()
        await self._writer.close()

    def connections(self) -> Connections:
        pools = self._readers, self._writer
        in_use = sum(pool.in_use for pool in pools)
        return Connections(in_use, sum(pool.size for pool in pools) - in_use)

    async def read(self, statement: str, *arguments: Value) -> Rows:
        return await self._fetch(self._readers, statement, arguments)

    async def write(self, statement: str, *arguments: Value) -> Rows:
        try:
            rows = await self._fetch(self._writer, statement, arguments)
        except StoreUnavailableError as error:
            self._write_failed |= not isinstance(error, NothingDoneError)
            raise
        self._write_failed = False
        return rows

    async def run_exclusively(self, statements: Sequence[str]) -> None:
        script = ';'.join(['BEGIN IMMEDIATE', *statements, 'COMMIT'])
        async with self._errors_told(), self._writer.connection() as connection:
            await connection.executescript(script)

    async def check(self, statement: str) -> None:
        if self._write_failed:  # a full disk can be read: only a write tells when it is mended
            await self.write('PRAGMA user_version = 0')
        await super().check(statement)

    async def _fetch(
        self, connections: '_Connections', statement: str, arguments: Sequence[Value]
    ) -> Rows:
        # To SQLite, $1 is the parameter with the name 1.
        named = {str(number): value for number, value in enumerate(arguments, 1)}
        async with self._errors_told(), connections.connection() as connection:
            return list(await connection.execute_fetchall(statement, named))

    @asynccontextmanager
    async def _errors_told(self) -> AsyncIterator[None]:
        """Lets the driver's errors out as the house's."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise outcome(error)(f'{self._path}: {_one_line(error)}') from None


class _Connections:
    """Some connections to a file, each with a thread of its own, made when they are needed.

    A statement is handed to a thread only when that is free: one that waited in its queue would
    be run even if it was cancelled meanwhile.
    """

    def __init__(self, size: int, path: Path, busy_timeout: float) -> None:
        self.size = size
        self._path = path
        self._busy_timeout = busy_timeout
        self._turns = asyncio.Semaphore(size)  # fair, which a queue of connections is not
        self._idle: list[asyncio.Task[aiosqlite.Connection]] = []
        self._opening: set[asyncio.Task[aiosqlite.Connection]] = set()
        self._dropping: set[asyncio.Task[None]] = set()
        self.in_use = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[aiosqlite.Connection]:
        """A connection for one operation. Where that fails, the next one gets a new one."""
        await self._turns.acquire()
        self.in_use += 1
        opening = self._idle.pop() if self._idle else start_task(self._open(), self._opening)
        try:
            # Shielded, for an opening that is cancelled leaves its connection to the garbage.
            yield await asyncio.shield(opening)
        except BaseException:
            start_task(self._drop(opening), self._dropping)  # its thread may be still at work
            raise
        self.in_use -= 1
        self._idle.append(opening)
        self._turns.release()

    async def close(self) -> None:
        """Closes all of them, as soon as they have nothing to do."""
        with suppress(TimeoutError):  # the disk hangs, and the threads with it
            async with asyncio.timeout(FAREWELL):
                for _ in range(self.size):
                    await self._turns.acquire()
                while self._idle:
                    await self._idle.pop().result().close()

    async def _open(self) -> aiosqlite.Connection:
        # SQLite would let everybody read a new file; what is in an address book is personal. One
        # that is there must not be opened here: to close it would free the locks that SQLite has
        # on it (https://sqlite.org/howtocorrupt.html, 2.2).
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        connection = await aiosqlite.connect(
            self._path, timeout=self._busy_timeout, isolation_level=None)
        try:
            await connection.executescript(SETTINGS)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _drop(self, opening: 'asyncio.Task[aiosqlite.Connection]') -> None:
        try:
            await (await opening).close()
        finally:
            self.in_use -= 1
            self._turns.release()


def database_path(dsn: str) -> Path:
    """The file that a DSN names.

    :raises StartError: it is in the home folder, and nobody knows where that is
    """
    match = SQLITE_DSN.fullmatch(dsn)
    assert match is not None  # the settings were checked
    path = unquote(match['path'])
    try:
        return Path(path.removeprefix('/') if path.startswith('/~/') else path).expanduser()
    except RuntimeError as error:
        raise StartError(f'{dsn}: {error}') from None


def outcome(error: sqlite3.Error | OSError) -> type[StoreError]:
    """What an error of the driver or the file system means for the statement that met it."""
    if isinstance(error, OSError):
        return StoreUnavailableError
    return OUTCOMES.get(getattr(error, 'sqlite_errorcode', 0) & 0xFF, StoreError)


def _one_line(error: sqlite3.Error | OSError) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return ' '.join((reason or str(error)).split())
