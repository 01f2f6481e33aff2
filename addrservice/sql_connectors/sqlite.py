"""SQLite, embedded: one file, which several processes may use."""

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from addrservice.config import SQLITE_DSN, SQLSettings
from addrservice.errors import (
    NothingDoneError, StartError, StoreError, StoreMisconfiguredError, StoreUnavailableError,
)
from addrservice.sql_connectors import Connections, Rows, SQLConnector, Value
from addrservice.sql_connectors.sqlite_threads import Reader, Statement, Threads, Writer

OLDEST: Final = (3, 35)  # the first with RETURNING

# A write-ahead log, so that readers and the writer do not wait for each other; and a commit that
# is on the disk before it is acknowledged, on macOS too.
SETTINGS: Final = 'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;'

# What a wait for a lock may take of the deadline: less than half, so that it can be tried again.
BUSY_SHARE: Final = 0.4

# Writes that are committed together, at the most: meanwhile, no other process can write.
GROUP: Final = 100

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
    """One thread that writes, for SQLite has one writer at a time, and some that read."""

    system = 'sqlite'
    is_remote = False
    key_type = 'TEXT'
    find_table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1"
    items = 'json_each($1)'
    member = "json_extract(value, '$[{}]')"  # ->> is of SQLite 3.38
    join = 'CROSS JOIN {0} ON {1}'  # which SQLite leaves in this order

    def __init__(self, settings: SQLSettings) -> None:
        self._path = database_path(settings.dsn)
        self._busy_timeout = BUSY_SHARE * settings.deadline
        self._writer = Threads(
            1, GROUP, lambda: Writer(self._connect, self._explain, self._busy_timeout))
        self._readers = Threads(
            settings.pool_size, 1, lambda: Reader(self._connect, self._explain))
        self._write_failed = False

    async def start(self) -> None:
        if sqlite3.sqlite_version_info < OLDEST:
            raise StartError(f'SQLite {OLDEST[0]}.{OLDEST[1]} or newer is needed; the one of this '
                             f'Python is {sqlite3.sqlite_version}')

    async def stop(self) -> None:
        await asyncio.gather(self._readers.close(FAREWELL), self._writer.close(FAREWELL))

    def connections(self) -> Connections:
        threads = self._readers, self._writer
        in_use = sum(each.in_use for each in threads)
        return Connections(in_use, sum(each.size for each in threads) - in_use)

    async def read(self, statement: str, *arguments: Value) -> Rows:
        return await self._readers.run(_named(statement, *arguments))

    async def write(self, statement: str, *arguments: Value) -> Rows:
        return await self._write(_named(statement, *arguments))

    async def run_exclusively(self, statements: Sequence[str]) -> None:
        await self._write(*map(_named, statements))

    async def check(self, statement: str) -> None:
        if self._write_failed:  # a full disk can be read: only a write tells when it is mended
            await self.write('PRAGMA user_version = 0')
        await super().check(statement)

    async def _write(self, *statements: Statement) -> Rows:
        try:
            rows = await self._writer.run(*statements)
        except StoreUnavailableError as error:
            self._write_failed |= not isinstance(error, NothingDoneError)
            raise
        self._write_failed = False
        return rows

    def _connect(self) -> sqlite3.Connection:
        # SQLite would let everybody read a new file; what is in an address book is personal. One
        # that is there must not be opened here: to close it would free the locks that SQLite has
        # on it (https://sqlite.org/howtocorrupt.html, 2.2).
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout, isolation_level=None)
        try:
            connection.executescript(SETTINGS)
        except BaseException:
            connection.close()
            raise
        return connection

    def _explain(self, error: Exception) -> Exception:
        """The house's error for one of the driver's; any other one is a bug, and stays."""
        if isinstance(error, (sqlite3.Error, OSError)):
            return outcome(error)(f'{self._path}: {_one_line(error)}')
        return error


def _named(statement: str, *arguments: Value) -> Statement:
    # To SQLite, $1 is the parameter with the name 1.
    return Statement(statement, {str(number): value for number, value in enumerate(arguments, 1)})


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
