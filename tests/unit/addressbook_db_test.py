"""The in-memory store: the contract of all stores, and what is peculiar to it."""

import sys
import tracemalloc
import unittest
from collections.abc import Awaitable
from typing import TypeVar
from unittest import mock

from addrservice.addressbook_db import (
    AbstractAddressBookDB, InMemoryAddressBookDB, Place, create_addressbook_db,
)
from addrservice.config import StoreSettings
from tests.addressbook_db_conditions_contract import ConditionsContract
from tests.addressbook_db_search_contract import SearchContract
from tests.support import address

T = TypeVar('T')

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


async def counted(operation: Awaitable[T]) -> tuple[T, int]:
    """What an operation gives, and how many calls it took; it must not have to wait."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        return await operation, calls
    finally:
        sys.setprofile(None)


class InMemoryAddressBookDBTest(
    ConditionsContract, SearchContract, unittest.IsolatedAsyncioTestCase
):
    """The store of one process."""

    async def make_store(self) -> AbstractAddressBookDB:
        return InMemoryAddressBookDB()

    async def test_two_stores_share_nothing(self) -> None:
        await self.store.create_address(address('namo'), 'pm')
        self.assertEqual({}, await InMemoryAddressBookDB().read_all_addresses())

    async def test_a_page_deep_in_a_large_store_does_not_walk_the_whole_of_it(self) -> None:
        """Neither one by one nor by making a list of them all. Nor does a search."""
        entry = {'name': 'x'}
        for number in range(ENTRIES):
            await self.store.create_address(entry, f'{number:05}')
        after = CountingNickname('39999')
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for read in (self.store.read_page(after, 10),
                     self.store.find_page('X', Place('x', after), 10)):
            tracemalloc.reset_peak()
            after.comparisons = 0
            page, calls = await counted(read)
            _, peak = tracemalloc.get_traced_memory()
            self.assertTrue(10 < calls < 1000, calls)
            self.assertEqual([f'{number:05}' for number in range(40_000, 40_010)],
                             [entry.nickname for entry in page])
            self.assertTrue(0 < after.comparisons < 100, after.comparisons)
            self.assertLess(peak, ENTRIES)  # a list of all would take 8 bytes an entry
        for prefix in ('w', 'y'):
            page, calls = await counted(self.store.find_page(prefix, None, 10))
            self.assertTrue(page == [] and calls < 1000, calls)

    async def test_no_version_is_used_again_even_if_the_clock_goes_back(self) -> None:
        """Which no database can promise: it keeps nothing of what was deleted."""
        with mock.patch('time.time_ns', return_value=7_000):
            versions = []
            for _ in range(3):
                versions.append((await self.store.create_entry(address('namo'), 'pm')).version)
                await self.store.delete_address('pm')
        self.assertEqual([7, 8, 9], versions)

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
