"""The store: address book entries by nickname.

``AbstractAddressBookDB`` is the contract, ``InMemoryAddressBookDB`` its simplest keeper and the
official fake of the tests. A backend stores what ``serialise_entry`` made of an entry, never what
a client sent, and gives back those very bytes: ``StoredEntry`` is that form. The ``*_address``
methods take and give entries as dictionaries.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from itertools import count, islice
from typing import Final, NamedTuple

import orjson
import uuid_utils
from sortedcontainers import SortedDict

from addrservice.config import StoreSettings
from addrservice.errors import NicknameTakenError, UnknownNicknameError
from addrservice.validation import Entry, serialise_entry

PAGE_SIZE: Final = 100


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
    """Keeps entries by nickname. Each method may raise ``StoreUnavailableError``."""

    async def start(self) -> None:
        """Opens what the store needs. Called once, before any other method."""

    async def stop(self) -> None:
        """Closes what ``start`` opened. No method is called after it."""

    @abstractmethod
    async def ping(self) -> None:
        """Returns when the store can be reached.

        :raises StoreUnavailableError: when it cannot
        """

    async def create_address(self, addr: Entry, nickname: str | None = None) -> str:
        """Keeps a new entry and gives its nickname.

        Without a nickname the store makes one: a UUIDv7 (RFC 9562) as 32 hex digits, so that
        nicknames sort by time of creation.

        :raises InvalidEntryError: the entry breaks the schema
        :raises NicknameTakenError: an entry has that nickname
        """
        document = serialise_entry(addr)
        if nickname is None:
            nickname = uuid_utils.uuid7().hex
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


def create_addressbook_db(settings: StoreSettings) -> AbstractAddressBookDB:
    """The store that the configuration names under ``addr-db``, not yet started."""
    return InMemoryAddressBookDB()
