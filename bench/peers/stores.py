"""Where the peers keep entries: a dictionary, SQLite or PostgreSQL, straight through the drivers.

The tables, their indexes and how durable a commit is are those of the service.
"""

import sqlite3
import time
from abc import ABC, abstractmethod
from typing import Any, Final

import uuid_utils

PRAGMAS: Final = 'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;'
TABLES: Final = """
    CREATE TABLE IF NOT EXISTS addresses (
        nickname {key_type} NOT NULL PRIMARY KEY,
        document TEXT NOT NULL,
        version BIGINT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
        name_key {key_type} NOT NULL,
        origin TEXT
    );
    CREATE INDEX IF NOT EXISTS addresses_by_name ON addresses (name_key, nickname)
"""
INSERT: Final = (
    'INSERT INTO addresses (nickname, document, name_key, version, origin) '
    'VALUES ($1, $2, $3, $4, $5) ON CONFLICT (nickname) DO NOTHING RETURNING version')
SELECT: Final = 'SELECT document FROM addresses WHERE nickname = $1'
SELECT_PAGE: Final = 'SELECT nickname, document FROM addresses ORDER BY nickname LIMIT $1'
SELECT_ALL: Final = 'SELECT nickname, document FROM addresses ORDER BY nickname'
UPDATE: Final = (
    'UPDATE addresses SET document = $2, name_key = $3, updated_at = CURRENT_TIMESTAMP, '
    'version = CASE WHEN version < $4 THEN $4 ELSE version + 1 END WHERE nickname = $1 '
    'RETURNING version')
DELETE: Final = 'DELETE FROM addresses WHERE nickname = $1 RETURNING version'

BUSY_TIMEOUT: Final = 30  # seconds that SQLite waits for the writer of another process
POOL_SIZE: Final = 10

Row = Any  # of either driver: what it holds is known by its place
Arguments = tuple[str | int | None, ...]


class Store(ABC):
    """Keeps JSON documents by key; ``name`` is that of the entry, which searches would use."""

    async def open(self) -> None:
        """Connects, and makes the tables unless they are there."""

    async def close(self) -> None:
        """Closes what ``open`` opened."""

    @abstractmethod
    async def create(self, document: bytes, name: str) -> str:
        """Gives the new key."""

    @abstractmethod
    async def read(self, key: str) -> bytes | None:
        """The document; None if there is none."""

    @abstractmethod
    async def replace(self, key: str, document: bytes, name: str) -> bool:
        """Whether there was one."""

    @abstractmethod
    async def delete(self, key: str) -> bool:
        """Whether there was one."""

    @abstractmethod
    async def entries(self, limit: int | None) -> list[tuple[str, bytes]]:
        """Keys and documents in the order of the keys: the first ones, or all."""

    async def book(self, limit: int | None) -> bytes:
        """The entries as one JSON object, key -> document."""
        members = [b'"%s":%s' % (key.encode(), document)
                   for key, document in await self.entries(limit)]
        return b'{%s}' % b','.join(members)


class MemoryStore(Store):
    """A dictionary, sorted where the order is asked for."""

    def __init__(self) -> None:
        self._documents: dict[str, bytes] = {}

    async def create(self, document: bytes, name: str) -> str:
        key = new_key()
        self._documents[key] = document
        return key

    async def read(self, key: str) -> bytes | None:
        return self._documents.get(key)

    async def replace(self, key: str, document: bytes, name: str) -> bool:
        if key not in self._documents:
            return False
        self._documents[key] = document
        return True

    async def delete(self, key: str) -> bool:
        return self._documents.pop(key, None) is not None

    async def entries(self, limit: int | None) -> list[tuple[str, bytes]]:
        return [(key, self._documents[key]) for key in sorted(self._documents)[:limit]]


class SQLStore(Store):
    """What the two databases share."""

    @abstractmethod
    async def _read(self, statement: str, *arguments: str | int | None) -> list[Row]:
        """The rows of a statement that changes nothing."""

    @abstractmethod
    async def _write(self, statement: str, *arguments: str | int | None) -> list[Row]:
        """The rows of a statement that is committed."""

    async def create(self, document: bytes, name: str) -> str:
        values = new_row(document, name)
        await self._write(INSERT, *values)
        return str(values[0])

    async def read(self, key: str) -> bytes | None:
        rows = await self._read(SELECT, key)
        return rows[0][0].encode() if rows else None

    async def replace(self, key: str, document: bytes, name: str) -> bool:
        arguments = key, document.decode(), name.casefold()[:256], new_version()
        return bool(await self._write(UPDATE, *arguments))

    async def delete(self, key: str) -> bool:
        return bool(await self._write(DELETE, key))

    async def entries(self, limit: int | None) -> list[tuple[str, bytes]]:
        if limit is None:
            rows = await self._read(SELECT_ALL)
        else:
            rows = await self._read(SELECT_PAGE, limit)
        return [(key, document.encode()) for key, document in rows]


class SQLiteStore(SQLStore):
    """Through aiosqlite: a connection that writes and one that reads, each with its thread."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def open(self) -> None:
        import aiosqlite  # here, for the other stores to need less memory
        self._writer = await aiosqlite.connect(
            self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
        await self._writer.executescript(PRAGMAS + TABLES.format(key_type='TEXT'))
        self._reader = await aiosqlite.connect(
            self._path, timeout=BUSY_TIMEOUT, isolation_level=None)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()

    async def _read(self, statement: str, *arguments: str | int | None) -> list[Row]:
        return list(await self._reader.execute_fetchall(statement, named(arguments)))

    async def _write(self, statement: str, *arguments: str | int | None) -> list[Row]:
        return list(await self._writer.execute_fetchall(statement, named(arguments)))


class PostgreSQLStore(SQLStore):
    """Through a pool of asyncpg as it comes: it prepares each statement once a connection, and
    resets a connection whenever it is given back.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def open(self) -> None:
        import asyncpg  # here, for the other stores to need less memory
        self._pool = await asyncpg.create_pool(self._dsn, min_size=POOL_SIZE, max_size=POOL_SIZE)
        await self._pool.execute(TABLES.format(key_type='TEXT COLLATE "C"'))

    async def close(self) -> None:
        await self._pool.close()

    async def _read(self, statement: str, *arguments: str | int | None) -> list[Row]:
        rows: list[Row] = await self._pool.fetch(statement, *arguments)
        return rows

    _write = _read  # each statement is a transaction of its own


def make_store(address: str) -> Store:
    """The store that an address names: ``memory``, ``sqlite:///PATH`` or ``postgresql://...``."""
    if address == 'memory':
        return MemoryStore()
    if address.startswith('sqlite://'):
        return SQLiteStore(address.removeprefix('sqlite://'))
    if address.startswith('postgresql://'):
        return PostgreSQLStore(address)
    raise ValueError(f'no such store: {address}')


def new_key() -> str:
    """Later ones sort after earlier ones."""
    return uuid_utils.uuid7().hex


def new_version() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def new_row(document: bytes, name: str) -> Arguments:
    """What ``INSERT`` takes."""
    return new_key(), document.decode(), name.casefold()[:256], new_version(), None


def named(arguments: Arguments) -> dict[str, str | int | None]:
    """To SQLite, ``$1`` is the parameter with the name 1."""
    return {str(number): value for number, value in enumerate(arguments, 1)}


def open_sqlite(path: str) -> sqlite3.Connection:
    """A connection that commits each statement, to a file with the tables."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(PRAGMAS + TABLES.format(key_type='TEXT'))
    return connection
