"""The books that the benchmark makes are as the service would have made them."""

import os
import unittest
from unittest import mock

from addrservice.addressbook_db import SQLAddressBookDB, create_addressbook_db, place_of
from addrservice.config import SQLSettings, StoreSettings
from addrservice.validation import parse_json, serialise_entry
from bench.trials import scale
from tests.postgresql import ENVIRONMENT, dsn_of, shared_server

ENTRIES = 250


class BookTest(unittest.IsolatedAsyncioTestCase):
    book: scale.Book

    @classmethod
    def setUpClass(cls) -> None:
        cls.book = scale.make_book(shared_server(), ENTRIES)

    async def asyncSetUp(self) -> None:
        self.enterContext(mock.patch.dict(os.environ, ENVIRONMENT))
        self.store = create_addressbook_db(StoreSettings(sql=SQLSettings(
            dsn_of(shared_server().port, role=self.book.role))))
        await self.store.start()
        self.addAsyncCleanup(self.store.stop)

    async def test_documents_are_as_the_service_writes_them(self) -> None:
        """Valid, compact, of some 450 bytes."""
        page = await self.store.read_page(None, 1000)
        self.assertEqual(ENTRIES, len(page))
        for entry in page:
            self.assertEqual(serialise_entry(parse_json(entry.document)), entry.document)
            self.assertAlmostEqual(450, len(entry.document), delta=45)

    async def test_ids_are_like_those_of_the_service(self) -> None:
        """UUIDs of version 7, in the order in which they were made."""
        page = await self.store.read_page(None, 1000)
        versions = [entry.version for entry in page]
        self.assertEqual(sorted(set(versions)), versions)
        for entry in page:
            self.assertRegex(entry.nickname, r'^[0-9a-f]{12}7[0-9a-f]{3}8[0-9a-f]{15}$')

    async def test_a_search_finds_them(self) -> None:
        """Each in its place."""
        found = await self.store.find_page('', None, 1000)
        self.assertEqual(sorted(map(place_of, found)), [*map(place_of, found)])
        self.assertEqual(ENTRIES, len(found))
        some = await self.store.find_page('CORA', None, 1000)
        self.assertEqual(len([entry for entry in found if b'"name":"Cora ' in entry.document]),
                         len(some))

    async def test_random_ids_are_there_with_a_page_behind_them(self) -> None:
        """Whichever they are."""
        for nickname in set(scale.nicknames(shared_server(), ENTRIES, 300)):
            await self.store.read_entry(nickname)
            self.assertEqual(scale.PAGE, len(await self.store.read_page(nickname, scale.PAGE)))

    async def test_the_service_finds_nothing_to_do(self) -> None:
        """The tables are those of its version, and its own."""
        assert isinstance(self.store, SQLAddressBookDB)
        await self.store.ping()
        await self.store.delete_address((await self.store.read_page(None, 1))[0].nickname)
        self.assertEqual(ENTRIES - 1, len(await self.store.read_page(None, 1000)))
        await self.store.create_address(parse_json(b'{"name":"Zora"}'), '0')


if __name__ == '__main__':
    unittest.main()
