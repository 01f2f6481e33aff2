"""What every store keeps to, and the forms in which entries go in and come out."""

import hashlib
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple
from unicodedata import normalize

import orjson
import uuid_utils

from addrservice.errors import (
    AddressBookError, KeyReusedError, NicknameTakenError, PreconditionFailedError,
    UnknownNicknameError,
)
from addrservice.validation import Entry, serialise_entry

PAGE_SIZE: Final = 250

# What UTF-8 or PostgreSQL has no place for.
UNKEEPABLE: Final = re.compile('[\x00\ud800-\udfff]')

# Characters of a folded name that entries are found by: an index has no room for the longest names.
NAME_LENGTH: Final = 256

# Ids of entries that are made with a key are UUIDv5 (RFC 9562) of the key in this namespace.
KEYS: Final = uuid_utils.UUID('8f2ac9ab-4ba2-4a04-8fd3-0d3a3ba4f4ea')


class StoredEntry(NamedTuple):
    """One entry as a store keeps it.

    :param nickname: the key
    :param document: the entry as JSON text in UTF-8, as ``serialise_entry`` made it
    :param version: the time of the last change, in microseconds since 1970; where that would not be
        more than the version before, one more than that
    :param origin: the digest of the first document, of an entry that was made with a key
    """

    nickname: str
    document: bytes
    version: int
    origin: str | None = None

    @property
    def is_original(self) -> bool:
        """Whether an entry that was made with a key is as it was made."""
        return self.origin == digest(self.document)


class Place(NamedTuple):
    """Where an entry stands in a search: in order of the name, then of the nickname.

    :param name: the folded name
    """

    name: str
    nickname: str


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

    def gauges(self) -> dict[str, Callable[[], float]]:
        """Figures of the store, by name, each to be read at any time and from any thread."""
        return {}

    @asynccontextmanager
    async def in_time(self) -> AsyncGenerator[None, None]:
        """Bounds what several operations may take together, where the store bounds one."""
        yield

    async def create_address(self, addr: Entry, nickname: str | None = None) -> str:
        """Keeps a new entry and gives its nickname.

        Without a nickname the store makes one: a UUIDv7 (RFC 9562) as 32 hex digits, so that
        nicknames sort by time of creation.

        :raises InvalidEntryError: the entry breaks the schema
        :raises NicknameTakenError: an entry has that nickname
        :raises ValueError: not every store can keep the nickname, for it has a U+0000 or a lone
            surrogate in it
        """
        return (await self.create_entry(addr, nickname)).nickname

    async def create_entry(self, addr: Entry, nickname: str | None = None) -> StoredEntry:
        """As ``create_address``, but gives the entry as it is stored."""
        document = serialise_entry(addr)
        if nickname is None:
            nickname = uuid_utils.uuid7().hex
        elif UNKEEPABLE.search(nickname):
            raise ValueError(f'{nickname!r} cannot be a nickname')
        version = await self._insert(nickname, document, fold(addr['name']))
        return StoredEntry(nickname, document, version)

    async def create_entry_once(self, addr: Entry, key: str) -> StoredEntry:
        """Keeps a new entry, unless it has been kept with this key before: then gives that one.

        The key makes the nickname, so that of many who do this at the same time, anywhere, one
        makes the entry. An entry that was removed is made anew.

        :raises InvalidEntryError: the entry breaks the schema
        :raises KeyReusedError: it was another entry that was made with the key
        """
        document = serialise_entry(addr)
        nickname, origin = uuid_utils.uuid5(KEYS, key).hex, digest(document)
        async with self.in_time():
            while True:
                try:
                    version = await self._insert(nickname, document, fold(addr['name']), origin)
                    return StoredEntry(nickname, document, version, origin)
                except NicknameTakenError:
                    with suppress(UnknownNicknameError):  # removed meanwhile
                        entry = await self.read_entry(nickname)
                        if entry.origin != origin:
                            raise KeyReusedError from None
                        return entry

    async def read_address(self, nickname: str) -> Entry:
        """The entry with that nickname.

        :raises UnknownNicknameError: there is none
        """
        entry: Entry = orjson.loads((await self.read_entry(nickname)).document)
        return entry

    async def update_address(
        self, nickname: str, addr: Entry, version: int | None = None
    ) -> int:
        """Puts another entry in the place of the one with that nickname; gives its version.

        :param version: what the version has to be up to now, if that matters
        :raises InvalidEntryError: the entry breaks the schema
        :raises UnknownNicknameError: no entry has that nickname
        :raises PreconditionFailedError: none has it with that version
        """
        return await self._replace(nickname, serialise_entry(addr), fold(addr['name']), version)

    @abstractmethod
    async def delete_address(self, nickname: str, version: int | None = None) -> None:
        """Removes the entry with that nickname.

        :param version: what the version has to be, if that matters
        :raises UnknownNicknameError: there is none
        :raises PreconditionFailedError: there is none with that version
        """

    async def read_all_addresses(self) -> dict[str, Entry]:
        """All entries by nickname, in that order. Whoever must not hold them all: ``pages``."""
        return {
            entry.nickname: orjson.loads(entry.document)
            async for page in self.pages()
            for entry in page
        }

    async def pages(
        self, size: int = PAGE_SIZE, after: str | None = None
    ) -> AsyncGenerator[list[StoredEntry], None]:
        """All entries in order of nickname, up to ``size`` at a time; no page is empty.

        An entry that stays while the pages are read is on exactly one of them, whatever is
        written meanwhile.

        :param after: a nickname, of an entry or not, to go on from
        """
        while page := await self.read_page(after, size):
            yield page
            if len(page) < size:
                return
            after = page[-1].nickname

    async def found_pages(
        self, prefix: str, size: int = PAGE_SIZE, after: Place | None = None
    ) -> AsyncGenerator[list[StoredEntry], None]:
        """As ``pages``, but those that ``find_page`` gives. One that is renamed does not stay."""
        while page := await self.find_page(prefix, after, size):
            yield page
            if len(page) < size:
                return
            after = place_of(page[-1])

    async def find_page(
        self, prefix: str, after: Place | None, limit: int
    ) -> list[StoredEntry]:
        """Up to ``limit`` entries whose names begin so, without regard to case, in order of name.

        :param after: a place, of an entry or not, to go on from
        """
        prefix = fold(prefix)
        if after is not None and after.name < prefix:
            after = None
        return await self._find_page(prefix, after, limit)

    @abstractmethod
    async def read_entry(self, nickname: str) -> StoredEntry:
        """The entry with that nickname, as it is stored.

        :raises UnknownNicknameError: there is none
        """

    @abstractmethod
    async def read_entries(self, nicknames: Collection[str]) -> list[StoredEntry]:
        """Those of the entries with these nicknames that are there, in any order."""

    @abstractmethod
    async def create_entries(self, entries: Sequence[StoredEntry]) -> set[str]:
        """Keeps new entries just as they are, all in one transaction.

        :param entries: a thousand or so, each with a nickname of its own that every store can keep
            and with a document that ``serialise_entry`` made
        :return: the nicknames that are taken: what has one of them stays as it is
        """

    @abstractmethod
    async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
        """Up to ``limit`` entries whose nicknames come after ``after``, in order of nickname."""

    @abstractmethod
    async def _find_page(
        self, prefix: str, after: Place | None, limit: int
    ) -> list[StoredEntry]:
        """As ``find_page``, with a prefix that is folded, and a place that is not before it."""

    @abstractmethod
    async def _insert(
        self, nickname: str, document: bytes, name: str, origin: str | None = None
    ) -> int:
        """Keeps a new document, to be found by the folded name; gives its version.

        :raises NicknameTakenError: there is one with that nickname
        """

    @abstractmethod
    async def _replace(
        self, nickname: str, document: bytes, name: str, version: int | None
    ) -> int:
        """Keeps another document under that nickname; gives its version.

        :raises UnknownNicknameError: there is none
        :raises PreconditionFailedError: there is none with that version
        """


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def digest(document: bytes) -> str:
    """What tells one document from another."""
    return hashlib.sha256(document).hexdigest()


def fold(name: str) -> str:
    """A name without regard to case, nor to how its characters are composed (Unicode, D145)."""
    if not name.isascii():  # else it is composed of nothing
        name = normalize('NFD', name)
    name = name.casefold()
    return (name if name.isascii() else normalize('NFC', name))[:NAME_LENGTH]


def place_of(entry: StoredEntry) -> Place:
    """Where an entry stands in a search."""
    return Place(fold(orjson.loads(entry.document)['name']), entry.nickname)


def why_missing(nickname: str, version: int | None) -> AddressBookError:
    """The error of an operation that found no entry with that nickname and, if any, version."""
    if version is None:
        return UnknownNicknameError(nickname)
    return PreconditionFailedError(nickname)
