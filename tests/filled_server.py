"""The service on a store that holds 100,000 entries from the start."""

import sys
from unittest import mock

import uuid_utils

from addrservice import server
from addrservice.addressbook_db import InMemoryAddressBookDB, StoredEntry
from addrservice.addressbook_db.abstract import now
from addrservice.validation import serialise_entry
from tests.support import address


class FilledAddressBookDB(InMemoryAddressBookDB):
    """Many entries, in memory."""

    async def start(self) -> None:
        document = serialise_entry(address('namo'))
        await self.create_entries([
            StoredEntry(uuid_utils.uuid7().hex, document, now()) for _ in range(100_000)])


if __name__ == '__main__':
    with mock.patch('addrservice.service.create_addressbook_db') as create:
        create.return_value = FilledAddressBookDB()
        sys.exit(server.main())
