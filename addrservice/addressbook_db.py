"""The store: address book entries by nickname.

``AbstractAddressBookDB`` is the contract, ``InMemoryAddressBookDB`` its simplest keeper and the
official fake of the tests, ``SQLAddressBookDB`` the durable one. A backend stores what
``serialise_entry`` made of an entry, never what a client sent, and gives back those very bytes:
``StoredEntry`` is that form. The ``*_address`` methods take and give entries as dictionaries.
"""

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import count, islice
from typing import Final, NamedTuple, TypeVar

import orjson
import uuid_utils
from sortedcontainers import SortedDict

from addrservice.config import SQLITE_DSN, SQLSettings, StoreSettings
from addrservice.errors import (
    NewerSchemaError, NicknameTakenError, NothingDoneError, OutcomeUnknownError, StartError,
    StoreError, UnknownNicknameError,
)
from addrservice.sql_connectors import Row, Rows, SQLConnector, Value, hear
from addrservice.validation import Entry, serialise_entry

T = TypeVar('T')

PAGE_SIZE: Final = 100

# What UTF-8 or PostgreSQL has no place for.
_UNKEEPABLE: Final = re.compile('[\x00\ud800-\udfff]')

# What is tried again, and after how many seconds. A write is not where nobody knows whether it was
# done: done again, it would undo what somebody else wrote meanwhile.
READ_AGAIN: Final = (NothingDoneError, OutcomeUnknownError)
WRITE_AGAIN: Final = (NothingDoneError,)
RETRY_PAUSE: Final = 0.05

# Seconds that a ping waits for an answer, and that an answer is good for.
PING_DEADLINE: Final = 0.5
PING_INTERVAL: Final = 1

# All SQL that both databases share. What only one of them knows is in its connector.
SCHEMA_VERSION: Final = 1
SCHEMA: Final = (
    """
    CREATE TABLE IF NOT EXISTS addresses (
        nickname {key_type} NOT NULL PRIMARY KEY,
        document TEXT NOT NULL,
        version BIGINT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
    )
    """,
    'CREATE TABLE IF NOT EXISTS addresses_schema (version INTEGER NOT NULL)',
    f'INSERT INTO addresses_schema (version) SELECT {SCHEMA_VERSION} '
    'WHERE NOT EXISTS (SELECT 1 FROM addresses_schema)',
)
SELECT_SCHEMA_VERSION: Final = 'SELECT COALESCE(MAX(version), 0) FROM addresses_schema'
# Writes nothing, but fails where nothing could be written: a standby, no right, no table.
CHECK: Final = 'UPDATE addresses SET version = version WHERE 1 = 0 RETURNING version'
INSERT: Final = (
    'INSERT INTO addresses (nickname, document, version) VALUES ($1, $2, $3) '
    'ON CONFLICT (nickname) DO NOTHING RETURNING version')
UPDATE: Final = (
    'UPDATE addresses SET document = $2, version = version + 1, updated_at = CURRENT_TIMESTAMP '
    'WHERE nickname = $1 RETURNING version')
DELETE: Final = 'DELETE FROM addresses WHERE nickname = $1 RETURNING version'
SELECT: Final = 'SELECT nickname, document, version FROM addresses WHERE nickname = $1'
SELECT_FIRST_PAGE: Final = (
    'SELECT nickname, document, version FROM addresses ORDER BY nickname LIMIT $1')
SELECT_PAGE: Final = (
    'SELECT nickname, document, version FROM addresses WHERE nickname > $1 '
    'ORDER BY nickname LIMIT $2')


class StoredEntry(NamedTuple):
    """One entry as a store keeps it.

    :param nickname: the key
    :param document: the entry as JSON text in UTF-8, as ``serialise_entry`` made it
    :param version: a number that is another one after each update
    """

    nickname: str
    document: bytes
    version: int


class AbstractAddressBookDB(ABC):
    """Keeps entries by nickname. Each method but ``stop`` may raise ``StoreError``."""

    async def start(self) -> None:
        """Opens what the store needs. Called once, before any other method.

        A store that is out of reach is no reason to fail: it may come.

        :raises StartError: this store can never be used
        """

    async def stop(self) -> None:
        """Closes what ``start`` opened. No method is called after it."""

    @abstractmethod
    async def ping(self) -> None:
        """Returns when the store can be used.

        :raises StoreError: when it cannot
        """

    async def create_address(self, addr: Entry, nickname: str | None = None) -> str:
        """Keeps a new entry and gives its nickname.

        Without a nickname the store makes one: a UUIDv7 (RFC 9562) as 32 hex digits, so that
        nicknames sort by time of creation.

        :raises InvalidEntryError: the entry breaks the schema
        :raises NicknameTakenError: an entry has that nickname
        :raises ValueError: not every store can keep the nickname, for it has a U+0000 or a lone
            surrogate in it
        """
        document = serialise_entry(addr)
        if nickname is None:
            nickname = uuid_utils.uuid7().hex
        elif _UNKEEPABLE.search(nickname):
            raise ValueError(f'{nickname!r} cannot be a nickname')
        await self._insert(nickname, document)
        return nickname

    async def read_address(self, nickname: str) -> Entry:
        """The entry with that nickname.

        :raises UnknownNicknameError: there is none
        """
        entry: Entry = orjson.loads((await self.read_entry(nickname)).document)
        return entry

    async def update_address(self, nickname: str, addr: Entry) -> None:
        """Puts another entry in the place of the one with that nickname.

        :raises InvalidEntryError: the entry breaks the schema
        :raises UnknownNicknameError: no entry has that nickname
        """
        await self._replace(nickname, serialise_entry(addr))

    @abstractmethod
    async def delete_address(self, nickname: str) -> None:
        """Removes the entry with that nickname.

        :raises UnknownNicknameError: there is none
        """

    async def read_all_addresses(self) -> dict[str, Entry]:
        """All entries by nickname, in that order. Whoever must not hold them all: ``pages``."""
        return {
            entry.nickname: orjson.loads(entry.document)
            async for page in self.pages()
            for entry in page
        }

    async def pages(self, size: int = PAGE_SIZE) -> AsyncGenerator[list[StoredEntry], None]:
        """All entries in order of nickname, up to ``size`` at a time; no page is empty.

        An entry that stays while the pages are read is on exactly one of them, whatever is
        written meanwhile.
        """
        page = await self.read_page(None, size)
        while page:
            yield page
            page = await self.read_page(page[-1].nickname, size)

    @abstractmethod
    async def read_entry(self, nickname: str) -> StoredEntry:
        """The entry with that nickname, as it is stored.

        :raises UnknownNicknameError: there is none
        """

    @abstractmethod
    async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
        """Up to ``limit`` entries whose nicknames come after ``after``, in order of nickname."""

    @abstractmethod
    async def _insert(self, nickname: str, document: bytes) -> None:
        """Keeps a new document.

        :raises NicknameTakenError: there is one with that nickname
        """

    @abstractmethod
    async def _replace(self, nickname: str, document: bytes) -> None:
        """Keeps another document under that nickname.

        :raises UnknownNicknameError: there is none
        """


class InMemoryAddressBookDB(AbstractAddressBookDB):
    """Keeps entries in this process; they are gone when it ends.

    What is held is serialised, so nobody who passed an entry in or got one back can change the
    store through it.
    """

    def __init__(self) -> None:
        self._entries: SortedDict[str, StoredEntry] = SortedDict()
        self._versions = count(1)

    async def ping(self) -> None:
        """Returns at once: what is in this process is in reach."""

    async def delete_address(self, nickname: str) -> None:
        if self._entries.pop(nickname, None) is None:
            raise UnknownNicknameError(nickname)

    async def read_entry(self, nickname: str) -> StoredEntry:
        try:
            return self._entries[nickname]
        except KeyError:
            raise UnknownNicknameError(nickname) from None

    async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
        nicknames = self._entries.irange(minimum=after, inclusive=(False, True))
        return [self._entries[nickname] for nickname in islice(nicknames, limit)]

    async def _insert(self, nickname: str, document: bytes) -> None:
        if nickname in self._entries:
            raise NicknameTakenError(nickname)
        self._keep(nickname, document)

    async def _replace(self, nickname: str, document: bytes) -> None:
        if nickname not in self._entries:
            raise UnknownNicknameError(nickname)
        self._keep(nickname, document)

    def _keep(self, nickname: str, document: bytes) -> None:
        # A copy, for what orjson returns occupies at least 4 KB, however short it is.
        document = bytes(memoryview(document))
        self._entries[nickname] = StoredEntry(nickname, document, next(self._versions))


class SQLAddressBookDB(AbstractAddressBookDB):
    """Keeps entries in a table of a SQL database, which may come and go.

    An operation that did nothing is tried once more, and a reading one also where no answer came,
    all within one deadline. The tables are made when the database is first in reach.

    :param connector: the way to the database
    :param settings: how long things may take
    """

    def __init__(self, connector: SQLConnector, settings: SQLSettings) -> None:
        self._connector = connector
        self._deadline = settings.deadline
        self._check_deadline = max(settings.deadline, settings.connect_timeout)
        self._prepared = False
        self._check: asyncio.Task[None] | None = None
        self._checked = 0.0

    async def start(self) -> None:
        await self._connector.start()
        check = self._latest_check()
        await asyncio.wait({check}, timeout=self._deadline)
        if check.done() and isinstance(check.exception(), StartError):
            await self.stop()
            check.result()

    async def stop(self) -> None:
        if self._check is not None:
            self._check.cancel()
        await self._connector.stop()

    async def ping(self) -> None:
        """Asks the database, at most once a second; waits for a moment only."""
        check = self._latest_check()
        await asyncio.wait({check}, timeout=PING_DEADLINE)
        if not check.done() or check.cancelled():
            raise OutcomeUnknownError('no answer in time')
        check.result()

    def _latest_check(self) -> asyncio.Task[None]:
        """The check that is under way, or has ended just now; else a new one."""
        if self._check is None or (
            self._check.done() and time.monotonic() >= self._checked + PING_INTERVAL
        ):
            self._check = asyncio.create_task(self._make_check())
            self._check.add_done_callback(hear)
        return self._check

    async def _make_check(self) -> None:
        try:
            await self._run(self._check_deadline, READ_AGAIN, self._connector.check, CHECK)
        finally:
            self._checked = time.monotonic()

    async def delete_address(self, nickname: str) -> None:
        if not await self._write(DELETE, _key(nickname)):
            raise UnknownNicknameError(nickname)

    async def read_entry(self, nickname: str) -> StoredEntry:
        rows = await self._read(SELECT, _key(nickname))
        if not rows:
            raise UnknownNicknameError(nickname)
        return _entry(rows[0])

    async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
        if after is None:
            rows = await self._read(SELECT_FIRST_PAGE, limit)
        else:
            # No key has a U+0000, so there is none between this text and what precedes it there.
            rows = await self._read(SELECT_PAGE, after.partition('\0')[0], limit)
        return [_entry(row) for row in rows]

    async def _insert(self, nickname: str, document: bytes) -> None:
        # The time, so that an entry that is made again after its end has no version twice.
        version = time.time_ns() // 1000
        if not await self._write(INSERT, nickname, document.decode(), version):
            raise NicknameTakenError(nickname)

    async def _replace(self, nickname: str, document: bytes) -> None:
        if not await self._write(UPDATE, _key(nickname), document.decode()):
            raise UnknownNicknameError(nickname)

    async def _read(self, statement: str, *arguments: Value) -> Rows:
        return await self._run(
            self._deadline, READ_AGAIN, self._connector.read, statement, *arguments)

    async def _write(self, statement: str, *arguments: Value) -> Rows:
        return await self._run(
            self._deadline, WRITE_AGAIN, self._connector.write, statement, *arguments)

    async def _run(
        self,
        deadline: float,
        again: tuple[type[StoreError], ...],
        operation: Callable[..., Awaitable[T]],
        statement: str,
        *arguments: Value,
    ) -> T:
        """Runs a statement within a deadline, and once more after an error that allows it."""
        async def attempt() -> T:
            if not self._prepared:
                await self._prepare()
            return await operation(statement, *arguments)

        try:
            async with asyncio.timeout(deadline):
                try:
                    return await attempt()
                except again:
                    await asyncio.sleep(RETRY_PAUSE)
                    return await attempt()
        except TimeoutError:
            raise OutcomeUnknownError('no answer in time') from None

    async def _prepare(self) -> None:
        """Makes the tables unless they are there; that they are is asked once."""
        version = await self._schema_version()
        if version < SCHEMA_VERSION:
            await self._connector.run_exclusively(
                [statement.format(key_type=self._connector.key_type) for statement in SCHEMA])
            version = await self._schema_version()  # perhaps made by another one, and newer
        if version > SCHEMA_VERSION:
            raise NewerSchemaError(f'the tables are of version {version}, of a newer service; '
                                   f'this one knows them up to version {SCHEMA_VERSION}')
        self._prepared = True

    async def _schema_version(self) -> int:
        if not await self._connector.read(self._connector.find_table, 'addresses_schema'):
            return 0
        [[version]] = await self._connector.read(SELECT_SCHEMA_VERSION)
        return int(version)


def _key(nickname: str) -> str:
    """A nickname to look for, if it can be one."""
    if _UNKEEPABLE.search(nickname):
        raise UnknownNicknameError(nickname)
    return nickname


def _entry(row: Row) -> StoredEntry:
    nickname, document, version = row
    return StoredEntry(nickname, document.encode(), version)


def create_addressbook_db(settings: StoreSettings) -> AbstractAddressBookDB:
    """The store that the configuration names under ``addr-db``, not yet started.

    A database's driver is imported only where it is the one.

    :raises StartError: it names a file that cannot be found
    """
    if not isinstance(settings.sql, SQLSettings):
        return InMemoryAddressBookDB()
    return SQLAddressBookDB(_create_connector(settings.sql), settings.sql)


def _create_connector(settings: SQLSettings) -> SQLConnector:
    if SQLITE_DSN.fullmatch(settings.dsn):
        from addrservice.sql_connectors.sqlite import SQLiteConnector
        return SQLiteConnector(settings)
    from addrservice.sql_connectors.postgresql import PostgreSQLConnector
    return PostgreSQLConnector(settings)
