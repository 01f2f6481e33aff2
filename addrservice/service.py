"""The address book's use cases: no web, no SQL."""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from addrservice.addressbook_db import AbstractAddressBookDB, StoredEntry, create_addressbook_db
from addrservice.config import Settings
from addrservice.errors import StoreError, StoreMisconfiguredError
from addrservice.tracing import trace
from addrservice.validation import Entry


class ServiceStatus(NamedTuple):
    """Whether requests should be sent here.

    :param ready: the store is in reach and the process is not about to end
    :param uptime: milliseconds since the start
    """

    ready: bool
    uptime: int


class AddressBookService:
    """Keeps an address book in a store.

    Entries are dictionaries as the JSON Schema has them; ids are the store's nicknames. Each
    method may raise ``StoreError``.
    """

    def __init__(self, db: AbstractAddressBookDB, logger: logging.Logger) -> None:
        self._db = db
        self._logger = logger
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

    @trace()
    async def post_address(self, addr: Entry) -> str:
        """Keeps a new entry and gives its id: 32 hex digits that sort by time of creation.

        :raises InvalidEntryError: the entry breaks the schema
        """
        return await self._db.create_address(addr)

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
    async def put_address(self, nickname: str, addr: Entry) -> None:
        """Puts another entry in the place of the one with that id.

        :raises InvalidEntryError: the entry breaks the schema
        :raises UnknownNicknameError: there is none
        """
        await self._db.update_address(nickname, addr)

    @trace()
    async def delete_address(self, nickname: str) -> None:
        """Removes the entry with that id.

        :raises UnknownNicknameError: there is none
        """
        await self._db.delete_address(nickname)

    @trace()
    async def get_all_addresses(self) -> dict[str, Entry]:
        """All entries by id, in order of id. Whoever must not hold them all: ``pages``."""
        return await self._db.read_all_addresses()

    @trace()
    async def pages(self) -> AsyncGenerator[list[StoredEntry], None]:
        """All entries, serialised, in order of id, some at a time; no page is empty."""
        async with aclosing(self._db.pages()) as pages:
            async for page in pages:
                yield page
