"""Stores that misbehave, and one that tells what is done with it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from addrservice.addressbook_db import PAGE_SIZE, InMemoryAddressBookDB, Place, StoredEntry
from addrservice.errors import NicknameTakenError, StoreMisconfiguredError, StoreUnavailableError
from tests.wire import SECRET


class Unreachable(InMemoryAddressBookDB):
    """A store that cannot be reached."""

    async def ping(self) -> None:
        raise StoreUnavailableError('the store does not answer')

    async def read_entry(self, nickname: str) -> StoredEntry:
        await self.ping()
        return await super().read_entry(nickname)

    async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
        await self.ping()
        return await super().read_page(after, limit)

    async def delete_address(self, nickname: str, version: int | None = None) -> None:
        await self.ping()

    async def _find_page(self, prefix: str, after: Place | None, limit: int) -> list[StoredEntry]:
        await self.ping()
        return await super()._find_page(prefix, after, limit)

    async def _insert(
        self, nickname: str, document: bytes, name: str, origin: str | None = None
    ) -> int:
        await self.ping()
        return await super()._insert(nickname, document, name, origin)

    async def _replace(
        self, nickname: str, document: bytes, name: str, version: int | None
    ) -> int:
        await self.ping()
        return await super()._replace(nickname, document, name, version)


class Locked(Unreachable):
    """A store that turns the service away."""

    async def ping(self) -> None:
        raise StoreMisconfiguredError(f'{SECRET} may not')


class Buggy(Unreachable):
    """A store with a bug that knows a secret."""

    async def ping(self) -> None:
        raise RuntimeError(SECRET)


class Slow(InMemoryAddressBookDB):
    """A store that takes for ever, and knows who waits for it."""

    waiting: asyncio.Task[Any] | None = None

    async def read_entry(self, nickname: str) -> StoredEntry:
        self.waiting = asyncio.current_task()
        return await asyncio.Future()


class Sluggish(InMemoryAddressBookDB):
    """A store that takes its time."""

    delay = 0.02  # seconds

    async def ping(self) -> None:
        await asyncio.sleep(self.delay)


class Taken(InMemoryAddressBookDB):
    """A store that has every nickname already."""

    async def _insert(
        self, nickname: str, document: bytes, name: str, origin: str | None = None
    ) -> int:
        raise NicknameTakenError(nickname)


class Watched(InMemoryAddressBookDB):
    """A store that knows who is at its pages, and fails half-way where a test wants that.

    ``readers`` is how many are at its pages now, ``given`` how many pages they have got.
    """

    readers = 0
    given = 0
    _failure: Exception | None = None
    _good = 0

    def fail(self, failure: Exception, after: int) -> None:
        """Raises an error in the place of a page, after so many."""
        self._failure, self._good, self.given = failure, after, 0

    async def pages(
        self, size: int = PAGE_SIZE, after: str | None = None
    ) -> AsyncGenerator[list[StoredEntry], None]:
        self.readers += 1
        try:
            async for page in super().pages(size, after):
                if self._failure is not None and self.given == self._good:
                    raise self._failure
                self.given += 1
                yield page
        finally:
            self.readers -= 1
