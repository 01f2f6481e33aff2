"""The store of one process."""

from itertools import islice, takewhile

from sortedcontainers import SortedDict, SortedList

from addrservice.addressbook_db.abstract import (
    AbstractAddressBookDB, Place, StoredEntry, now, place_of, why_missing,
)
from addrservice.errors import NicknameTakenError


class InMemoryAddressBookDB(AbstractAddressBookDB):
    """Keeps entries in this process; they are gone when it ends.

    What is held is serialised, so nobody who passed an entry in or got one back can change the
    store through it.
    """

    def __init__(self) -> None:
        self._entries: SortedDict[str, StoredEntry] = SortedDict()
        self._places: SortedList[Place] = SortedList()
        self._latest = 0  # version

    async def ping(self) -> None:
        """Returns at once: what is in this process is in reach."""

    async def delete_address(self, nickname: str, version: int | None = None) -> None:
        self._places.remove(place_of(self._entry(nickname, version)))
        del self._entries[nickname]

    async def read_entry(self, nickname: str) -> StoredEntry:
        return self._entry(nickname, None)

    async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
        nicknames = self._entries.irange(minimum=after, inclusive=(False, True))
        return [self._entries[nickname] for nickname in islice(nicknames, limit)]

    async def _find_page(
        self, prefix: str, after: Place | None, limit: int
    ) -> list[StoredEntry]:
        places = self._places.irange(
            minimum=after or Place(prefix, ''), inclusive=(after is None, True))
        found = takewhile(lambda place: place.name.startswith(prefix), places)
        return [self._entries[place.nickname] for place in islice(found, limit)]

    async def _insert(
        self, nickname: str, document: bytes, name: str, origin: str | None = None
    ) -> int:
        if nickname in self._entries:
            raise NicknameTakenError(nickname)
        return self._keep(nickname, document, name, origin)

    async def _replace(
        self, nickname: str, document: bytes, name: str, version: int | None
    ) -> int:
        replaced = self._entry(nickname, version)
        self._places.remove(place_of(replaced))
        return self._keep(nickname, document, name, replaced.origin)

    def _entry(self, nickname: str, version: int | None) -> StoredEntry:
        entry = self._entries.get(nickname)
        if entry is None or version not in (None, entry.version):
            raise why_missing(nickname, version)
        return entry

    def _keep(self, nickname: str, document: bytes, name: str, origin: str | None) -> int:
        # A copy, for what orjson returns occupies at least 4 KB, however short it is.
        document = bytes(memoryview(document))
        self._latest = max(now(), self._latest + 1)
        self._entries[nickname] = StoredEntry(nickname, document, self._latest, origin)
        self._places.add(Place(name, nickname))
        return self._latest
