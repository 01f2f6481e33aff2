"""The address book's use cases: no web, no SQL."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Final, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import orjson

from addrservice.addressbook_db import (
    PAGE_SIZE, AbstractAddressBookDB, Place, StoredEntry, create_addressbook_db, place_of,
)
from addrservice.config import Settings
from addrservice.errors import PreconditionFailedError, StoreError, StoreMisconfiguredError
from addrservice.merge_patch import merge_patch
from addrservice.tracing import trace
from addrservice.validation import Entry, serialise_entry

T = TypeVar('T')
Condition = Callable[[StoredEntry], bool]

# What is held at once of an answer, for clients may take their time to read it.
MAX_PAGE_BYTES: Final = 1024 * 1024


class ServiceStatus(NamedTuple):
    """Whether requests should be sent here.

    :param ready: the store is in reach and the process is not about to end
    :param uptime: milliseconds since the start
    """

    ready: bool
    uptime: int


class Page(NamedTuple):
    """Some entries in their order.

    :param after: what the next page comes after; None where there is no next one
    """

    entries: list[StoredEntry]
    after: str | None


class AddressBookService:
    """Keeps an address book in a store.

    Entries are dictionaries as the JSON Schema has them; ids are the store's nicknames. Each
    method may raise ``StoreError``.
    """

    def __init__(self, db: AbstractAddressBookDB, logger: logging.Logger) -> None:
        self._db = db
        self._logger = logger
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._accepting = False
        self._trouble: str | None = None  # of the store, as the log was told; '' if it may pass
        self._started_ns = time.monotonic_ns()

    @classmethod
    def from_config(cls, settings: Settings, logger: logging.Logger) -> 'AddressBookService':
        """A service on the store that the settings name, not yet started.

        :raises StartError: there can be no such store
        """
        return cls(create_addressbook_db(settings.addr_db), logger)

    async def start(self) -> None:
        """Opens the store; from here on the service is ready whenever that is.

        :raises StartError: this store can never be used
        """
        await self._db.start()
        self._accepting = True
        self._started_ns = time.monotonic_ns()
        self._logger.debug('store opened')

    async def stop(self) -> None:
        """Closes the store."""
        self._accepting = False
        await self._db.stop()
        self._logger.debug('store closed')

    def drain(self) -> None:
        """Says from now on that it is not ready. Requests are still served."""
        self._accepting = False

    def uptime_millis(self) -> int:
        """Milliseconds since the start."""
        return (time.monotonic_ns() - self._started_ns) // 1_000_000

    async def status(self) -> ServiceStatus:
        """Whether the store is in reach and the service not about to end."""
        in_reach = self._accepting and await self._store_in_reach()
        # Asked again, for a drain may have begun while the store was asked.
        return ServiceStatus(in_reach and self._accepting, self.uptime_millis())

    async def _store_in_reach(self) -> bool:
        try:
            await self._db.ping()
        except StoreError as error:
            self._tell_of(error)
            return False
        if self._trouble is not None:
            self._logger.info('the store can be used again')
            self._trouble = None
        return True

    def has_told(self, error: StoreError) -> bool:
        """Whether the log has been told just this, and that it lasts."""
        return isinstance(error, StoreMisconfiguredError) and self._trouble == str(error)

    def _tell_of(self, error: StoreError) -> None:
        """Logs trouble with the store once: it is asked again and again while that lasts."""
        if isinstance(error, StoreMisconfiguredError):
            level, trouble = logging.ERROR, str(error)
        else:
            level, trouble = logging.WARNING, ''  # out of reach in one way or another
        if self._trouble != trouble:
            self._logger.log(level, 'the store cannot be used: %s', error)
            self._trouble = trouble

    def gauges(self) -> dict[str, Callable[[], float]]:
        """Figures of the store, by name, each to be read at any time."""
        return self._db.gauges()

    @trace()
    async def post_address(self, addr: Entry) -> str:
        """Keeps a new entry and gives its id: 32 hex digits that sort by time of creation.

        :raises InvalidEntryError: the entry breaks the schema
        """
        return (await self.post_entry(addr)).nickname

    @trace()
    async def post_entry(self, addr: Entry, key: str | None = None) -> StoredEntry:
        """Keeps a new entry, with a key only once: then gives the one that was made with it.

        :raises InvalidEntryError: the entry breaks the schema
        :raises KeyReusedError: it was another entry that was made with the key
        """
        if key is None:
            return await self._db.create_entry(addr)
        return await self._db.create_entry_once(addr, key)

    @trace()
    async def get_address(self, nickname: str) -> Entry:
        """The entry with that id.

        :raises UnknownNicknameError: there is none
        """
        return await self._db.read_address(nickname)

    @trace()
    async def get_entry(self, nickname: str) -> StoredEntry:
        """The entry with that id, serialised and with its version.

        :raises UnknownNicknameError: there is none
        """
        return await self._db.read_entry(nickname)

    @trace()
    async def put_address(
        self, nickname: str, addr: Entry, condition: Condition | None = None
    ) -> int:
        """Puts another entry in the place of the one with that id; gives its version.

        :param condition: what the one that is there must meet
        :raises InvalidEntryError: the entry breaks the schema
        :raises UnknownNicknameError: there is none
        :raises PreconditionFailedError: it does not meet the condition
        """
        if condition is None:
            return await self._db.update_address(nickname, addr)
        serialise_entry(addr)  # what is wrong with it is told whatever the state

        async def replace(entry: StoredEntry) -> int:
            return await self._db.update_address(nickname, addr, entry.version)

        return await self._write_if(nickname, condition, replace)

    @trace()
    async def patch_address(
        self, nickname: str, patch: Any, condition: Condition | None = None
    ) -> int:
        """Changes the entry with that id by a JSON Merge Patch (RFC 7396); gives its version.

        :param condition: what the one that is there must meet
        :raises InvalidEntryError: what comes out breaks the schema
        :raises UnknownNicknameError: there is none
        :raises PreconditionFailedError: it does not meet the condition
        """
        def patched(entry: StoredEntry) -> Any:
            return merge_patch(orjson.loads(entry.document), patch)

        async def change(entry: StoredEntry) -> int:
            return await self._db.update_address(nickname, patched(entry), entry.version)

        return await self._write_if(
            nickname, condition, change, lambda entry: serialise_entry(patched(entry)))

    @trace()
    async def delete_address(self, nickname: str, condition: Condition | None = None) -> None:
        """Removes the entry with that id.

        :param condition: what it must meet
        :raises UnknownNicknameError: there is none
        :raises PreconditionFailedError: it does not meet the condition
        """
        if condition is None:
            return await self._db.delete_address(nickname)

        async def delete(entry: StoredEntry) -> None:
            await self._db.delete_address(nickname, entry.version)

        return await self._write_if(nickname, condition, delete)

    async def _write_if(
        self,
        nickname: str,
        condition: Condition | None,
        write: Callable[[StoredEntry], Awaitable[T]],
        check: Callable[[StoredEntry], object] | None = None,
    ) -> T:
        """Writes what follows from an entry that meets a condition.

        The store refuses it if another process has changed the entry meanwhile; then it is read
        again. Within this one they take turns, so that a crowd costs each of them no more.

        :param check: raises what would be wrong in any case, where the condition is not met
        """
        async with self._db.in_time(), self._turns.setdefault(nickname, asyncio.Lock()):
            while True:
                entry = await self._db.read_entry(nickname)
                if condition is not None and not condition(entry):
                    if check is not None:
                        check(entry)
                    raise PreconditionFailedError(nickname)
                with suppress(PreconditionFailedError):
                    return await write(entry)

    @trace()
    async def get_all_addresses(self) -> dict[str, Entry]:
        """All entries by id, in order of id. Whoever must not hold them all: ``pages``."""
        return await self._db.read_all_addresses()

    @trace()
    async def pages(
        self, name: str | None = None, after: str | None = None, size: int = PAGE_SIZE
    ) -> AsyncGenerator[list[StoredEntry], None]:
        """All entries, serialised, up to ``size`` at a time; no page is empty.

        They come in order of id or, where they are searched by name, in order of name, then of id:
        only so what a page costs does not depend on how many there are.

        :param name: what the names begin with, without regard to case
        :param after: where to go on, as ``page`` gives it, or an id
        :raises UnknownNicknameError: a search cannot go on after an entry that is not there
        """
        if name is None:
            chosen = self._db.pages(size, _nickname(after))
        else:
            chosen = self._db.found_pages(name, size, await self._place(after))
        async with aclosing(chosen) as pages:
            async for page in pages:
                yield page

    @trace()
    async def page(self, limit: int, name: str | None = None, after: str | None = None) -> Page:
        """Up to ``limit`` of the entries that ``pages`` would give; fewer where they are large.

        :raises UnknownNicknameError: as ``pages``
        """
        entries: list[StoredEntry] = []
        room = MAX_PAGE_BYTES
        async with aclosing(self.pages(name, after, min(limit, PAGE_SIZE) + 1)) as pages:
            async for page in pages:
                for entry in page:
                    if len(entries) == limit or room <= 0:
                        return Page(entries, _after(entries[-1], name))
                    entries.append(entry)
                    room -= len(entry.document)
        return Page(entries, None)

    async def _place(self, after: str | None) -> Place | None:
        """Where a search goes on."""
        if after is None:
            return None
        nickname, colon, name = after.partition(':')
        return Place(name, nickname) if colon else place_of(await self._db.read_entry(nickname))


def _after(entry: StoredEntry, name: str | None) -> str:
    """What the next page comes after."""
    return entry.nickname if name is None else f'{entry.nickname}:{place_of(entry).name}'


def _nickname(after: str | None) -> str | None:
    """Where the book goes on."""
    return None if after is None else after.partition(':')[0]
