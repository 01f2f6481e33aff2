"""The store of one process."""

from collections.abc import Collection, Sequence
from itertools import islice, takewhile

from sortedcontainers import SortedDict, SortedList

from addrservice.addressbook_db.abstract import (
    AbstractAddressBookDB, Place, StoredEntry, now, place_of, why_missing,
)
from addrservice.errors import NicknameTakenError
from addrservice.tracing import trace


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

    @trace('delete', 'store')
    async def delete_address(self, nickname: str, version: int | None = None) -> None:
        self._places.remove(place_of(self._entry(nickname, version)))
        del self._entries[nickname]

    @trace('read', 'store')
    async def read_entry(self, nickname: str) -> StoredEntry:
        return self._entry(nickname, None)

    @trace('read', 'store')
    async def read_entries(self, nicknames: Collection[str]) -> list[StoredEntry]:
        return [self._entries[nickname] for nickname in nicknames if nickname in self._entries]

    @trace('create', 'store')
    async def create_entries(self, entries: Sequence[StoredEntry]) -> set[str]:
        taken = {entry.nickname for entry in entries if entry.nickname in self._entries}
        for entry in entries:
            if entry.nickname not in taken:
                compact = entry._replace(document=_compact(entry.document))
                self._add(compact, place_of(entry))
        return taken

    @trace('list', 'store')
    async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
        nicknames = self._entries.irange(minimum=after, inclusive=(False, True))
        return [self._entries[nickname] for nickname in islice(nicknames, limit)]

    @trace('search', 'store')
    async def _find_page(
        self, prefix: str, after: Place | None, limit: int
    ) -> list[StoredEntry]:
        places = self._places.irange(
            minimum=after or Place(prefix, ''), inclusive=(after is None, True))
        found = takewhile(lambda place: place.name.startswith(prefix), places)
        return [self._entries[place.nickname] for place in islice(found, limit)]

    @trace('create', 'store')
    async def _insert(
        self, nickname: str, document: bytes, name: str, origin: str | None = None
    ) -> int:
        if nickname in self._entries:
            raise NicknameTakenError(nickname)
        return self._keep(nickname, document, name, origin)

    @trace('update', 'store')
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
        version = max(now(), self._latest + 1)
        entry = StoredEntry(nickname, _compact(document), version, origin)
        self._add(entry, Place(name, nickname))
        return version

    def _add(self, entry: StoredEntry, place: Place) -> None:
        self._entries[entry.nickname] = entry
        self._places.add(place)
        self._latest = max(entry.version, self._latest)


def _compact(document: bytes) -> bytes:
    """A copy, for what orjson returns occupies at least 4 KB, however short it is."""
    return bytes(memoryview(document))
