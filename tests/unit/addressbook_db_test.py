"""The in-memory store: the contract of all stores, and what is peculiar to it."""

import asyncio
import tracemalloc
import unittest

from addrservice.addressbook_db import (
    AbstractAddressBookDB, InMemoryAddressBookDB, create_addressbook_db,
)
from addrservice.config import StoreSettings
from tests.addressbook_db_contract import AddressBookDBContract
from tests.support import address

ENTRIES = 50_000


class CountingNickname(str):
    """Counts how often it is compared with another nickname."""

    comparisons = 0

    __hash__ = str.__hash__

    def __lt__(self, other: str) -> bool:
        self.comparisons += 1
        return str.__lt__(self, other)

    def __le__(self, other: str) -> bool:
        self.comparisons += 1
        return str.__le__(self, other)

    def __gt__(self, other: str) -> bool:
        self.comparisons += 1
        return str.__gt__(self, other)

    def __ge__(self, other: str) -> bool:
        self.comparisons += 1
        return str.__ge__(self, other)

    def __eq__(self, other: object) -> bool:
        self.comparisons += 1
        return str.__eq__(self, other)


class InMemoryAddressBookDBTest(AddressBookDBContract, unittest.IsolatedAsyncioTestCase):
    """The store of one process."""

    async def make_store(self) -> AbstractAddressBookDB:
        return InMemoryAddressBookDB()

    async def test_two_stores_share_nothing(self) -> None:
        await self.store.create_address(address('namo'), 'pm')
        self.assertEqual({}, await InMemoryAddressBookDB().read_all_addresses())

    async def test_a_page_deep_in_a_large_store_does_not_walk_the_whole_of_it(self) -> None:
        """Neither by comparing nicknames one by one nor by making a list of them all."""
        entry = {'name': 'x'}
        for number in range(ENTRIES):
            if number % 1000 == 0:
                await asyncio.sleep(0)  # or asyncio complains of a step that takes long
            await self.store.create_address(entry, f'{number:05}')
        after = CountingNickname('39999')
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        page = await self.store.read_page(after, 10)
        _, peak = tracemalloc.get_traced_memory()
        self.assertEqual([f'{number:05}' for number in range(40_000, 40_010)],
                         [entry.nickname for entry in page])
        self.assertTrue(0 < after.comparisons < 100, after.comparisons)
        self.assertLess(peak, ENTRIES)  # a list of all would take 8 bytes an entry

    async def test_a_small_entry_occupies_little_memory(self) -> None:
        """What orjson returns is a string in a block of its own, far larger than a small entry."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(100):
            await self.store.create_address({'name': 'x'}, f'{number:05}')
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess(after - before, 100 * 1024)


class CreateAddressBookDBTest(unittest.TestCase):
    """The store that the configuration names."""

    def test_memory_gives_a_store_in_memory(self) -> None:
        self.assertIsInstance(create_addressbook_db(StoreSettings(memory=None)),
                              InMemoryAddressBookDB)

    def test_each_call_gives_a_store_of_its_own(self) -> None:
        settings = StoreSettings(memory=None)
        self.assertIsNot(create_addressbook_db(settings), create_addressbook_db(settings))
