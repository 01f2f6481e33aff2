"""The store in a SQL database."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Final, TypeVar

import orjson

from addrservice.addressbook_db.abstract import (
    NAME_LENGTH, UNKEEPABLE, AbstractAddressBookDB, Place, StoredEntry, now, place_of, why_missing,
)
from addrservice.addressbook_db.batches import Arguments, Batches
from addrservice.addressbook_db.deadline import Deadline
from addrservice.addressbook_db.statements import (
    CHECK, DELETE, DELETE_VERSION, FIND_FIRST_PAGE, FIND_PAGE, INSERT, INSERT_ALL, SELECT,
    SELECT_ALL, SELECT_FIRST_PAGE, SELECT_PAGE, UPDATE, UPDATE_VERSION,
)
from addrservice.addressbook_db.tables import Tables
from addrservice.config import SQLSettings
from addrservice.errors import (
    NicknameTakenError, NothingDoneError, OutcomeUnknownError, StartError, StoreError,
    StoreOverloadedError, UnknownNicknameError,
)
from addrservice.sql_connectors import Row, Rows, SQLConnector, Value, hear
from addrservice.tracing import Attribute, Kind, is_followed_here, span, trace

T = TypeVar('T')

# What is tried again, and after how many seconds. A write is not where nobody knows whether it was
# done: done again, it would undo what somebody else wrote meanwhile.
READ_AGAIN: Final = (NothingDoneError, OutcomeUnknownError)
WRITE_AGAIN: Final = (NothingDoneError,)
RETRY_PAUSE: Final = 0.05

# Seconds that new entries wait for others that are being committed: to commit is what takes long.
PATIENCE: Final = 0.02

# Seconds that a ping waits for an answer, and that an answer is good for.
PING_DEADLINE: Final = 0.5
PING_INTERVAL: Final = 1

LAST_CHARACTER: Final = '\U0010ffff'


class SQLAddressBookDB(AbstractAddressBookDB):
    """Keeps entries in a table of a SQL database, which may come and go.

    An operation that did nothing is tried once more, and a reading one also where no answer came,
    all within one deadline. The tables are made when the database is first in reach.

    :param connector: the way to the database
    :param settings: how long things may take
    """

    def __init__(self, connector: SQLConnector, settings: SQLSettings) -> None:
        self._connector = connector
        self._deadline = Deadline(settings.deadline)
        self._check_deadline = Deadline(max(settings.deadline, settings.connect_timeout))
        self._max_operations = settings.pool_size + settings.max_waiting
        self._operations = 0
        self._tables = Tables(connector, self._deadline)
        self._check: asyncio.Task[None] | None = None
        self._checked = 0.0
        self._select_all, self._insert_all = map(self._unpacking, (SELECT_ALL, INSERT_ALL))
        self._select_one, self._insert_one = connector.read, connector.write
        if connector.is_remote:
            limit = settings.pool_size
            self._select_one = Batches(connector.read, self._select_several, limit).do
            self._insert_one = Batches(connector.write, self._insert_several, limit, PATIENCE).do

    async def start(self) -> None:
        await self._connector.start()
        check = self._latest_check()
        await asyncio.wait({check}, timeout=self._deadline.seconds)
        if check.done() and isinstance(check.exception(), StartError):
            await self.stop()
            check.result()

    async def stop(self) -> None:
        if self._check is not None:
            self._check.cancel()
        self._tables.stop()
        await self._connector.stop()

    @trace('ping', 'store')
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

    @asynccontextmanager
    async def in_time(self) -> AsyncGenerator[None, None]:
        with self._deadline.bound():
            yield

    @trace('delete', 'store')
    async def delete_address(self, nickname: str, version: int | None = None) -> None:
        key = _key(nickname, version)
        if version is None:
            rows = await self._write(DELETE, key)
        else:
            rows = await self._write(DELETE_VERSION, key, version)
        if not rows:
            raise why_missing(nickname, version)

    @trace('read', 'store')
    async def read_entry(self, nickname: str) -> StoredEntry:
        rows = await self._in_line(READ_AGAIN, self._select_one, SELECT, (_key(nickname),))
        if not rows:
            raise UnknownNicknameError(nickname)
        return _entry(rows[0])

    @trace('read', 'store')
    async def read_entries(self, nicknames: Collection[str]) -> list[StoredEntry]:
        keys = [[nickname] for nickname in nicknames if not UNKEEPABLE.search(nickname)]
        rows = await self._read(self._select_all, orjson.dumps(keys).decode())
        return [_entry(row) for row in rows]

    @trace('create', 'store')
    async def create_entries(self, entries: Sequence[StoredEntry]) -> set[str]:
        # In the order of the nicknames, so that two that do this do not wait for each other.
        values = [(entry.nickname, entry.document.decode(), place_of(entry).name, entry.version,
                   entry.origin) for entry in sorted(entries)]
        kept = await self._write(self._insert_all, orjson.dumps(values).decode())
        return {entry.nickname for entry in entries} - {nickname for [nickname] in kept}

    @trace('list', 'store')
    async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
        if after is None:
            rows = await self._read(SELECT_FIRST_PAGE, limit)
        else:
            # No key has a U+0000, so there is none between this text and what precedes it there.
            rows = await self._read(SELECT_PAGE, after.partition('\0')[0], limit)
        return [_entry(row) for row in rows]

    @trace('search', 'store')
    async def _find_page(
        self, prefix: str, after: Place | None, limit: int
    ) -> list[StoredEntry]:
        if UNKEEPABLE.search(prefix):
            return []
        last = prefix.ljust(NAME_LENGTH, LAST_CHARACTER)  # of all names that begin so
        if after is None:
            rows = await self._read(FIND_FIRST_PAGE, prefix, last, limit)
        else:
            rows = await self._read(FIND_PAGE, *after, last, limit)
        return [_entry(row) for row in rows]

    @trace('create', 'store')
    async def _insert(
        self, nickname: str, document: bytes, name: str, origin: str | None = None
    ) -> int:
        values = nickname, document.decode(), name, now(), origin
        rows = await self._in_line(WRITE_AGAIN, self._insert_one, INSERT, values)
        if not rows:
            raise NicknameTakenError(nickname)
        return _version(rows)

    @trace('update', 'store')
    async def _replace(
        self, nickname: str, document: bytes, name: str, version: int | None
    ) -> int:
        arguments = _key(nickname, version), document.decode(), name, now()
        if version is None:
            rows = await self._write(UPDATE, *arguments)
        else:
            rows = await self._write(UPDATE_VERSION, *arguments, version)
        if not rows:
            raise why_missing(nickname, version)
        return _version(rows)

    async def _select_several(self, keys: Sequence[Arguments]) -> list[Rows]:
        """What ``SELECT`` gives for each of these arguments."""
        rows = await self._connector.read(self._select_all, orjson.dumps(keys).decode())
        found = {nickname: [(nickname, *rest)] for nickname, *rest in rows}
        return [found.get(nickname, []) for [nickname] in keys]

    async def _insert_several(self, entries: Sequence[Arguments]) -> list[Rows]:
        """What ``INSERT`` gives for each of these arguments; of one nickname, the first counts."""
        first = {entry[0]: entry for entry in reversed(entries)}
        values = orjson.dumps(sorted(first.values())).decode()
        rows = await self._connector.write(self._insert_all, values)
        kept = {nickname for [nickname] in rows}
        return [[(version,)] if nickname in kept and entry is first[nickname] else []
                for entry in entries for nickname, _, _, version, _ in [entry]]

    def gauges(self) -> dict[str, Callable[[], float]]:
        return {
            'store_connections_in_use': lambda: self._connector.connections().in_use,
            'store_connections_free': lambda: self._connector.connections().free,
        }

    def _read(self, statement: str, *arguments: Value) -> Awaitable[Rows]:
        return self._in_line(READ_AGAIN, self._connector.read, statement, arguments)

    def _write(self, statement: str, *arguments: Value) -> Awaitable[Rows]:
        return self._in_line(WRITE_AGAIN, self._connector.write, statement, arguments)

    def _in_line(
        self,
        again: tuple[type[StoreError], ...],
        operation: Callable[..., Awaitable[Rows]],
        statement: str,
        arguments: tuple[Value, ...],
    ) -> Awaitable[Rows]:
        """Lets in as many as may run and wait: if all waited, all would wait in vain."""
        if self._operations >= self._max_operations:
            raise StoreOverloadedError('too many operations wait for a connection')
        return self._run(self._deadline, again, operation, statement, arguments)

    def _unpacking(self, statement: str) -> str:
        """A statement that takes its values from one JSON array, as this database does that."""
        members = [*map(self._connector.member.format, range(5))]
        entry = self._connector.join.format('addresses', f'nickname = {members[0]}')
        return statement.format(*members, items=self._connector.items, entry=entry)

    async def _run(
        self,
        deadline: Deadline,
        again: tuple[type[StoreError], ...],
        operation: Callable[..., Awaitable[T]],
        statement: str,
        arguments: tuple[Value, ...] = (),
    ) -> T:
        """Runs a statement within a deadline, and once more after an error that allows it."""
        self._operations += 1
        try:
            with deadline.bound():
                try:
                    return await self._attempt(operation, statement, arguments)
                except again:
                    await asyncio.sleep(RETRY_PAUSE)
                    return await self._attempt(operation, statement, arguments)
        finally:
            self._operations -= 1

    def _attempt(
        self, operation: Callable[..., Awaitable[T]], statement: str, arguments: tuple[Value, ...]
    ) -> Awaitable[T]:
        if self._tables.are_ready and not is_followed_here('client'):
            return operation(statement, *arguments)  # at once: each coroutine between takes time
        return self._prepared_attempt(operation, statement, arguments)

    async def _prepared_attempt(
        self, operation: Callable[..., Awaitable[T]], statement: str, arguments: tuple[Value, ...]
    ) -> T:
        if not self._tables.are_ready:
            await self._tables.prepare()
        with span(*_described(self._connector.system, statement)):
            return await operation(statement, *arguments)


@cache
def _described(system: str, statement: str) -> tuple[str, Kind, dict[str, Attribute]]:
    """Name, kind and attributes of a statement's span (OpenTelemetry semantic conventions)."""
    operation = statement.split(maxsplit=1)[0]
    return f'{operation} addresses', 'client', {
        'db.system.name': system,
        'db.operation.name': operation,
        'db.collection.name': 'addresses',
        'db.query.text': statement,
    }


def _key(nickname: str, version: int | None = None) -> str:
    """A nickname to look for, with that version, if it can be one."""
    if UNKEEPABLE.search(nickname):
        raise why_missing(nickname, version)
    return nickname


def _entry(row: Row) -> StoredEntry:
    nickname, document, version, origin = row
    return StoredEntry(nickname, document.encode(), version, origin)


def _version(rows: Rows) -> int:
    [[version]] = rows
    return int(version)
