"""What every store keeps to where entries come and go by the thousand."""

from typing import Final

from addrservice.addressbook_db import StoredEntry
from addrservice.addressbook_db.abstract import digest, now
from addrservice.validation import serialise_entry
from tests.addressbook_db_contract import (
    HOSTILE_TEXTS, NUMBERS, ODD_NICKNAMES, StoreContract, entry_at, entry_named, largest_entry,
)
from tests.addressbook_db_search_contract import ALIKE
from tests.support import address

LONG_AGO: Final = 1_000_000


def stored(nickname: str, entry: object, version: int, origin: str | None = None) -> StoredEntry:
    """An entry as a store keeps it."""
    assert isinstance(entry, dict)
    return StoredEntry(nickname, serialise_entry(entry), version, origin)


def many(number: int, version: int = LONG_AGO) -> list[StoredEntry]:
    """So many entries, in order of nickname."""
    return [stored(f'{index:032x}', entry_named(f'N{index}'), version + index)
            for index in range(number)]


class TransferContract(StoreContract):
    """The contract of ``create_entries`` and ``read_entries``."""

    async def everything(self) -> list[StoredEntry]:
        """All entries."""
        return [entry async for page in self.store.pages(1000) for entry in page]

    async def test_a_thousand_entries_are_kept_as_they_are(self) -> None:
        """With their versions, which are their ETags, and with what they were made from."""
        entries = many(1000)
        entries[7] = entries[7]._replace(origin=digest(b'{}'))
        self.assertEqual(set(), await self.store.create_entries(entries[::-1]))
        self.assertEqual(entries, await self.everything())
        self.assertEqual(entries[7], await self.store.read_entry(entries[7].nickname))

    async def test_any_document_and_any_nickname_comes_back_as_it_was(self) -> None:
        contents = [*map(entry_named, filter(None, HOSTILE_TEXTS)), *map(entry_at, NUMBERS),
                    largest_entry()]
        entries = [stored(f'{index:032x}', content, LONG_AGO)
                   for index, content in enumerate(contents)]
        entries += [stored(nickname, address('namo'), LONG_AGO) for nickname in ODD_NICKNAMES]
        await self.store.create_entries(entries)
        self.assertEqual(sorted(entries), await self.everything())
        self.assertEqual(sorted(entries), sorted(
            await self.store.read_entries([entry.nickname for entry in entries])))

    async def test_what_is_there_stays_and_the_rest_is_kept(self) -> None:
        there = await self.store.create_entry(entry_named('first'), '1')
        entries = [stored(nickname, entry_named('second'), LONG_AGO) for nickname in '012']
        self.assertEqual({'1'}, await self.store.create_entries(entries))
        self.assertEqual([entries[0], there, entries[2]], await self.everything())
        self.assertEqual({'0', '1', '2'}, await self.store.create_entries(entries))
        self.assertEqual([entries[0], there, entries[2]], await self.everything())

    async def test_they_are_found_by_name_whatever_its_case_or_encoding(self) -> None:
        for alike in ALIKE:
            with self.subTest(alike=alike):
                entries = [stored(str(index), entry_named(name), LONG_AGO)
                           for index, name in enumerate(alike)]
                await self.store.create_entries(entries)
                for name in alike:
                    self.assertEqual(entries, await self.store.find_page(name, None, 10))
                for entry in entries:
                    await self.store.delete_address(entry.nickname)

    async def test_what_is_there_is_read_by_its_nicknames(self) -> None:
        entries = many(5)
        await self.store.create_entries(entries)
        wanted = [entries[3].nickname, 'nobody', 'x\0', 'x\ud800', entries[1].nickname]
        self.assertEqual([entries[1], entries[3]], sorted(await self.store.read_entries(wanted)))
        self.assertEqual([], await self.store.read_entries(set()))

    async def test_none_at_all_is_no_trouble(self) -> None:
        self.assertEqual(set(), await self.store.create_entries([]))
        self.assertEqual([], await self.everything())

    async def test_a_change_later_has_a_later_version_even_if_the_clock_is_behind(self) -> None:
        to_come = now() + 10**12
        await self.store.create_entries([stored('1', address('namo'), to_come)])
        self.assertLess(to_come, await self.store.update_address('1', address('raga')))
        await self.store.update_address('1', address('namo'), to_come + 1)

    async def test_what_was_made_with_a_key_still_is(self) -> None:
        """So that a repeated request is known in the store that entries were moved to."""
        made = await self.store.create_entry_once(address('namo'), 'key')
        await self.store.delete_address(made.nickname)
        await self.store.create_entries([made])
        self.assertEqual(made, await self.store.create_entry_once(address('namo'), 'key'))

    async def test_pages_and_searches_tell_what_an_entry_was_made_from(self) -> None:
        made = await self.store.create_entry_once(address('namo'), 'key')
        for page in (await self.store.read_page(None, 1), await self.store.read_page('', 1),
                     await self.store.find_page('', None, 1)):
            self.assertEqual([made], page)
