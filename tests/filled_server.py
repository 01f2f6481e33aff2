"""The service on a store that holds 100,000 entries from the start."""

import sys
from unittest import mock

from addrservice import server
from addrservice.addressbook_db import InMemoryAddressBookDB
from tests.support import address


class FilledAddressBookDB(InMemoryAddressBookDB):
    """Many entries, in memory."""

    async def start(self) -> None:
        entry = address('namo')
        for _ in range(100_000):
            await self.create_address(entry)


if __name__ == '__main__':
    with mock.patch('addrservice.service.create_addressbook_db') as create:
        create.return_value = FilledAddressBookDB()
        sys.exit(server.main())
