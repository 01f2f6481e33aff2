"""What every store keeps to. Each backend's tests inherit the suite and say how it is made."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from unittest import IsolatedAsyncioTestCase

from addrservice.addressbook_db import PAGE_SIZE, AbstractAddressBookDB, StoredEntry
from addrservice.errors import InvalidEntryError, NicknameTakenError, UnknownNicknameError
from addrservice.validation import serialise_entry
from tests.support import address

if TYPE_CHECKING:
    _TestCase = IsolatedAsyncioTestCase
else:
    _TestCase = object  # no test case by itself, so that nothing collects it where it is imported

INVALID: Final[list[Any]] = [
    None, [], {}, {'name': ''}, {'name': 'x\0'}, {'name': 'x' * 257}, {'name': 'x', 'colour': 1},
    {'name': 'x', 'emails': [{'kind': 'home', 'value': 'nobody'}]}, {'name': 'x\ud800'},
    {'name': {1}},
]

ODD_NICKNAMES: Final = [
    '', ' ', '0', 'a', 'B', 'A', 'a ', ' a', 'a/b', '../a', 'a%2Fb', 'a%', 'a_', '%', '_', '*', '?',
    "'", '"', "''", "a'; DROP TABLE addresses; --", "' OR '1'='1", '$1', '%s', '{0}', ':nickname',
    '\\', "\\'", 'NULL', 'a\nb', 'a\n', '\t', '\x01', '\x7f', 'ä', 'a\u0308', 'नमो', 'ß', 'SS',
    '\u2028', '\ufeff', '\uffff', '\U0001f600', '\U0010ffff', 'x' * 255,
]

HOSTILE_TEXTS: Final = [
    "'", '"', "'; DROP TABLE addresses; --", "' OR '1'='1", '$1', '%s', '%(a)s', '{0}', '?', ':a',
    '\\', "\\'; --", '\\u0000', '\x01\x1f\x7f', '\r\n\t', '\u2028', '\ufeff', '\ufffe\uffff',
    'e\u0301', '\u0439', '\U0001f600', '\U0010ffff', '</script>', 'null', '0', ' ', '',
]

NUMBERS: Final = [0, -1, 2**31, -2**31, 2**53 - 1, 1 - 2**53, 1.0, -0.0, 0.1, 1e-7, 1e15, 5e-324]


def entry_named(name: str) -> dict[str, Any]:
    """An entry that nothing but its name tells from others."""
    return {**address('namo'), 'name': name}


def entry_at(pincode: int | float | str) -> dict[str, Any]:
    """An entry that nothing but its pincode tells from others."""
    entry = address('namo')
    entry['addresses'][0]['pincode'] = pincode
    return entry


def largest_entry() -> dict[str, Any]:
    """As much as the schema allows: 100 of everything, each text of 256 characters of 4 bytes."""
    text = '\U0001f600' * 256
    texts = dict.fromkeys(('buildingName', 'unitNumber', 'streetNumber', 'streetName', 'locality',
                           'city', 'state', 'pincode', 'country'), text)
    phones = dict.fromkeys(('countryCode', 'areaCode', 'number'), text)
    return {
        'name': text,
        'addresses': [{'kind': 'home', **texts}] * 100,
        'phoneNumbers': [{'kind': 'work', **phones}] * 100,
        'faxNumbers': [{'kind': 'work', **phones}] * 100,
        'emails': [{'kind': 'work', 'value': '\uffff' * 252 + '@b'}] * 100,
    }


class StoreContract(ABC, _TestCase):
    """What is to be held against a store.

    A backend's test inherits this first, then ``unittest.IsolatedAsyncioTestCase``.
    """

    @abstractmethod
    async def make_store(self) -> AbstractAddressBookDB:
        """A store without entries, not yet started; what it needs besides is cleaned up later."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        # Else asyncio notes who began each step, which takes longer than what the databases do.
        asyncio.get_running_loop().set_debug(False)
        self.store = await self.make_store()
        await self.store.start()
        self.addAsyncCleanup(self.store.stop)


class AddressBookDBContract(StoreContract):
    """The contract of ``AbstractAddressBookDB``."""

    # Helpers

    async def create_all(self, *nicknames: str) -> None:
        """Creates an entry per nickname, named after it."""
        for nickname in nicknames:
            await self.store.create_address(entry_named(nickname or 'nobody'), nickname)

    async def nicknames(self) -> list[str]:
        """All nicknames in the order of the store."""
        return list(await self.store.read_all_addresses())

    async def read_pages(self, size: int) -> list[list[str]]:
        """The nicknames, page by page."""
        return [[entry.nickname for entry in page] async for page in self.store.pages(size)]

    async def page(self, after: str | None, limit: int) -> list[str]:
        """The nicknames of one page."""
        return [entry.nickname for entry in await self.store.read_page(after, limit)]

    async def assert_kept(self, entry: dict[str, Any]) -> None:
        """An entry comes back as it was: numbers of the same kind, keys in the same order."""
        nickname = await self.store.create_address(entry)
        self.assertEqual(json.dumps(entry), json.dumps(await self.store.read_address(nickname)))
        everything = await self.store.read_all_addresses()
        self.assertEqual(json.dumps(entry), json.dumps(everything[nickname]))
        self.assertEqual(serialise_entry(entry), (await self.store.read_entry(nickname)).document)

    async def outcomes(self, *operations: Awaitable[object]) -> list[type | None]:
        """What became of operations at the same time: the class of the error, None for success."""
        results = await asyncio.gather(*operations, return_exceptions=True)
        return [type(result) if isinstance(result, BaseException) else None for result in results]

    # One entry

    async def test_ping_returns_when_the_store_is_in_reach(self) -> None:
        await self.store.ping()

    async def test_a_new_store_is_empty(self) -> None:
        self.assertEqual({}, await self.store.read_all_addresses())

    async def test_an_entry_can_be_read_under_the_nickname_it_got(self) -> None:
        nickname = await self.store.create_address(address('namo'))
        self.assertEqual(address('namo'), await self.store.read_address(nickname))

    async def test_an_entry_can_be_read_under_the_nickname_it_was_given(self) -> None:
        self.assertEqual('raga', await self.store.create_address(address('raga'), 'raga'))
        self.assertEqual(address('raga'), await self.store.read_address('raga'))

    async def test_a_nickname_is_32_hex_digits(self) -> None:
        self.assertRegex(await self.store.create_address(address('namo')), r'\A[0-9a-f]{32}\Z')

    async def test_nicknames_sort_by_time_of_creation(self) -> None:
        made = [await self.store.create_address(entry_named(str(n))) for n in range(300)]
        self.assertEqual(made, sorted(set(made)))
        everything = await self.store.read_all_addresses()
        self.assertEqual([(nickname, str(n)) for n, nickname in enumerate(made)],
                         [(nickname, entry['name']) for nickname, entry in everything.items()])

    async def test_the_same_entry_can_be_created_twice(self) -> None:
        first = await self.store.create_address(address('namo'))
        second = await self.store.create_address(address('namo'))
        self.assertEqual([first, second], await self.nicknames())

    async def test_a_taken_nickname_is_refused_and_its_entry_stays(self) -> None:
        await self.store.create_address(address('namo'), 'pm')
        with self.assertRaises(NicknameTakenError) as caught:
            await self.store.create_address(address('raga'), 'pm')
        self.assertIsInstance(caught.exception, KeyError)
        self.assertIn("'pm'", str(caught.exception))
        self.assertEqual({'pm': address('namo')}, await self.store.read_all_addresses())

    async def test_an_update_replaces_the_whole_entry(self) -> None:
        await self.create_all('before', 'pm', 'then')
        await self.store.update_address('pm', {'name': 'Rahul Gandhi'})
        self.assertEqual({'name': 'Rahul Gandhi'}, await self.store.read_address('pm'))
        self.assertEqual(['before', 'pm', 'then'], await self.nicknames())

    async def test_an_update_leaves_the_others_alone(self) -> None:
        await self.create_all('before', 'pm', 'then')
        await self.store.update_address('pm', address('raga'))
        self.assertEqual(entry_named('before'), await self.store.read_address('before'))
        self.assertEqual(entry_named('then'), await self.store.read_address('then'))

    async def test_a_deleted_entry_is_gone(self) -> None:
        await self.create_all('before', 'pm', 'then')
        await self.store.delete_address('pm')
        self.assertEqual(['before', 'then'], await self.nicknames())
        with self.assertRaises(UnknownNicknameError):
            await self.store.read_address('pm')

    async def test_the_nickname_of_a_deleted_entry_is_free_again(self) -> None:
        await self.create_all('pm')
        await self.store.delete_address('pm')
        await self.store.create_address(address('raga'), 'pm')
        self.assertEqual(address('raga'), await self.store.read_address('pm'))

    async def test_an_unknown_nickname_is_refused_by_each_operation(self) -> None:
        await self.create_all('pm')
        operations: list[Callable[[str], Awaitable[object]]] = [
            self.store.read_address,
            self.store.read_entry,
            self.store.delete_address,
            lambda nickname: self.store.update_address(nickname, address('raga')),
        ]
        for operation in operations:
            for nickname in ('', 'p', 'pm ', 'PM', 'p%', 'p_', "pm' OR '1'='1", 'x' * 10_000,
                             'pm\0', '\U0001f600'):
                with self.subTest(operation=operation, nickname=nickname):
                    with self.assertRaises(UnknownNicknameError) as caught:
                        await operation(nickname)
                    self.assertIsInstance(caught.exception, KeyError)
                    self.assertIn(repr(nickname), str(caught.exception))
        self.assertEqual({'pm': entry_named('pm')}, await self.store.read_all_addresses())

    async def test_what_was_deleted_is_unknown_to_each_operation(self) -> None:
        await self.create_all('pm')
        await self.store.delete_address('pm')
        self.assertEqual([UnknownNicknameError] * 4, await self.outcomes(
            self.store.read_address('pm'), self.store.read_entry('pm'),
            self.store.delete_address('pm'), self.store.update_address('pm', address('raga'))))

    # Entries that are not valid

    async def test_an_invalid_entry_is_never_created(self) -> None:
        for entry in INVALID:
            for nickname in (None, 'pm'):
                with self.subTest(entry=entry, nickname=nickname):
                    with self.assertRaises(InvalidEntryError) as caught:
                        await self.store.create_address(entry, nickname)
                    self.assertIsInstance(caught.exception, ValueError)
                    self.assertEqual({}, await self.store.read_all_addresses())

    async def test_an_invalid_entry_never_replaces_another(self) -> None:
        await self.store.create_address(address('namo'), 'pm')
        before = await self.store.read_entry('pm')
        for entry in INVALID:
            with self.subTest(entry=entry):
                with self.assertRaises(InvalidEntryError):
                    await self.store.update_address('pm', entry)
                self.assertEqual(before, await self.store.read_entry('pm'))

    # What is held belongs to the store

    async def test_a_change_of_what_was_passed_in_does_not_reach_the_store(self) -> None:
        entry = address('namo')
        nickname = await self.store.create_address(entry)
        entry['name'] = 'Somebody'
        entry['addresses'][0]['kind'] = 'away'
        self.assertEqual(address('namo'), await self.store.read_address(nickname))

        entry = address('raga')
        await self.store.update_address(nickname, entry)
        entry['emails'].clear()
        self.assertEqual(address('raga'), await self.store.read_address(nickname))

    async def test_a_change_of_what_came_back_does_not_reach_the_store(self) -> None:
        nickname = await self.store.create_address(address('namo'))
        (await self.store.read_address(nickname))['addresses'][0].clear()
        everything = await self.store.read_all_addresses()
        everything[nickname]['phoneNumbers'].clear()
        everything.clear()
        (await self.store.read_page(None, 10)).clear()
        self.assertEqual({nickname: address('namo')}, await self.store.read_all_addresses())

    # Documents and versions

    async def test_a_document_comes_back_byte_for_byte(self) -> None:
        entries = {'lop': address('raga'), 'pm': address('namo')}
        for nickname, addr in entries.items():
            await self.store.create_address(addr, nickname)
        documents = {nickname: serialise_entry(addr) for nickname, addr in entries.items()}
        page = await self.store.read_page(None, 10)
        self.assertEqual(documents, {entry.nickname: entry.document for entry in page})
        for nickname, document in documents.items():
            entry = await self.store.read_entry(nickname)
            self.assertEqual((nickname, document), (entry.nickname, entry.document))
            self.assertIs(bytes, type(entry.document))

    async def test_keys_stay_in_the_order_they_came(self) -> None:
        entry = address('raga')
        await self.assert_kept(dict(reversed(entry.items())))
        await self.assert_kept(dict(sorted(entry.items())))

    async def test_each_update_gives_another_version(self) -> None:
        nickname = await self.store.create_address(address('namo'))
        versions = [(await self.store.read_entry(nickname)).version]
        for name in ('raga', 'namo', 'namo', 'raga'):
            await self.store.update_address(nickname, address(name))
            versions.append((await self.store.read_entry(nickname)).version)
        self.assertEqual(5, len(set(versions)), versions)
        self.assertEqual({int}, set(map(type, versions)))

    async def test_an_update_leaves_the_versions_of_the_others(self) -> None:
        await self.create_all('pm', 'lop')
        before = await self.store.read_entry('lop')
        await self.store.update_address('pm', address('raga'))
        self.assertEqual(before, await self.store.read_entry('lop'))

    async def test_a_page_has_the_entries_as_read_entry_gives_them(self) -> None:
        await self.create_all('a', 'b')
        await self.store.update_address('a', address('raga'))
        page = await self.store.read_page(None, 10)
        self.assertEqual([await self.store.read_entry('a'), await self.store.read_entry('b')], page)
        self.assertEqual({StoredEntry}, set(map(type, page)))

    # All entries, and pages of them

    async def test_all_entries_come_in_order_of_nickname(self) -> None:
        await self.create_all('c', 'a', 'B', 'b', '10', '9')
        self.assertEqual(['10', '9', 'B', 'a', 'b', 'c'], await self.nicknames())

    async def test_pages_are_complete_and_in_order_whatever_their_size(self) -> None:
        nicknames = [f'{n:02}' for n in range(12)]
        await self.create_all(*reversed(nicknames))
        for size in (1, 2, 5, 6, 11, 12, 13, 1000):
            with self.subTest(size=size):
                self.assertEqual([nicknames[n:n + size] for n in range(0, 12, size)],
                                 await self.read_pages(size))

    async def test_pages_have_250_entries_unless_told(self) -> None:
        await self.create_all(*(f'{n:03}' for n in range(600)))
        self.assertEqual([250, 250, 100], [len(page) async for page in self.store.pages()])
        self.assertEqual(250, PAGE_SIZE)

    async def test_an_empty_store_has_no_pages(self) -> None:
        self.assertEqual([], await self.read_pages(10))
        await self.create_all('pm')
        await self.store.delete_address('pm')
        self.assertEqual([], await self.read_pages(10))

    async def test_entries_that_stay_come_once_whatever_is_written_meanwhile(self) -> None:
        await self.create_all(*'bdfhjlnprt')
        seen: list[str] = []
        changes = iter([
            (['a', 'c', 'e', 'g'], ['b', 'f']),  # around what was read, then its last
            (['i', 'u'], ['p', 'h']),
            (['k', 'z'], ['t', 'j']),
        ])
        async for page in self.store.pages(3):
            seen.extend(entry.nickname for entry in page)
            created, deleted = next(changes, ([], []))
            await self.create_all(*created)
            for nickname in deleted:
                await self.store.delete_address(nickname)
        self.assertEqual(seen, sorted(set(seen)))
        self.assertEqual([], sorted(set('dlnr') - set(seen)))
        self.assertFalse({'p', 't'} & set(seen), 'deleted before their turn')

    async def test_an_update_between_pages_moves_no_entry(self) -> None:
        await self.create_all(*'abcdef')
        seen: list[str] = []
        async for page in self.store.pages(2):
            seen.extend(entry.nickname for entry in page)
            for nickname in 'abcdef':
                await self.store.update_address(nickname, address('raga'))
        self.assertEqual(list('abcdef'), seen)

    async def test_pages_can_be_given_up_early(self) -> None:
        await self.create_all(*'abc')
        async with aclosing(self.store.pages(1)) as pages:
            self.assertEqual('a', (await anext(pages))[0].nickname)
        await self.store.delete_address('a')
        self.assertEqual(['b', 'c'], await self.nicknames())

    async def test_two_readers_of_pages_do_not_disturb_each_other(self) -> None:
        await self.create_all(*'abcdef')
        self.assertEqual([[['a', 'b'], ['c', 'd'], ['e', 'f']], [[c] for c in 'abcdef']],
                         await asyncio.gather(self.read_pages(2), self.read_pages(1)))

    async def test_a_page_starts_after_a_nickname(self) -> None:
        await self.create_all(*'bdf')
        self.assertEqual(['b', 'd'], await self.page(None, 2))
        self.assertEqual(['d', 'f'], await self.page('b', 2))
        self.assertEqual(['f'], await self.page('d', 2))
        self.assertEqual([], await self.page('f', 2))

    async def test_a_page_may_start_after_a_nickname_that_was_never_there(self) -> None:
        await self.create_all(*'bdf')
        for after, page in {'': 'bdf', 'a': 'bdf', 'c': 'df', 'd\0': 'f', 'dd': 'f', 'g': '',
                            '\U0010ffff': ''}.items():
            with self.subTest(after=after):
                self.assertEqual(list(page), await self.page(after, 10))

    async def test_a_page_may_start_after_a_nickname_that_was_deleted(self) -> None:
        await self.create_all(*'bdf')
        await self.store.delete_address('d')
        self.assertEqual(['f'], await self.page('d', 10))
        await self.store.delete_address('f')
        self.assertEqual([], await self.page('d', 10))

    async def test_a_page_has_no_more_entries_than_its_limit(self) -> None:
        await self.create_all(*'abcd')
        for limit in range(6):
            with self.subTest(limit=limit):
                self.assertEqual(list('abcd'[:limit]), await self.page(None, limit))
                self.assertEqual(list('bcd'[:limit]), await self.page('a', limit))

    # Hostile values

    async def test_odd_nicknames_are_kept_as_they_are(self) -> None:
        """They are told apart by their code points, and sort by them."""
        await self.create_all(*ODD_NICKNAMES)
        self.assertEqual(sorted(ODD_NICKNAMES), await self.nicknames())
        self.assertEqual([[nickname] for nickname in sorted(ODD_NICKNAMES)],
                         await self.read_pages(1))

    async def test_odd_nicknames_can_be_read_updated_taken_and_deleted(self) -> None:
        for nickname in ODD_NICKNAMES:
            with self.subTest(nickname=nickname):
                self.assertEqual(
                    nickname, await self.store.create_address(address('namo'), nickname))
                with self.assertRaises(NicknameTakenError):
                    await self.store.create_address(address('raga'), nickname)
                self.assertEqual(address('namo'), await self.store.read_address(nickname))
                await self.store.update_address(nickname, address('raga'))
                self.assertEqual({nickname: address('raga')},
                                 await self.store.read_all_addresses())
                await self.store.delete_address(nickname)
        self.assertEqual([], await self.nicknames())

    async def test_hostile_texts_come_back_unchanged(self) -> None:
        for text in HOSTILE_TEXTS:
            with self.subTest(text=text):
                await self.assert_kept(entry_at(text))
                await self.assert_kept(entry_named(text or 'nobody'))

    async def test_numbers_come_back_unchanged(self) -> None:
        for number in NUMBERS:
            with self.subTest(number=number):
                await self.assert_kept(entry_at(number))

    async def test_the_longest_texts_come_back_unchanged(self) -> None:
        for character in ('x', "'", '\n', '\x01', '\u2028', '\U0010ffff'):
            with self.subTest(character=character):
                await self.assert_kept(entry_named(character * 256))

    async def test_the_largest_entry_comes_back_unchanged(self) -> None:
        await self.assert_kept(largest_entry())

    # Several at the same time

    async def test_many_entries_can_be_created_at_the_same_time(self) -> None:
        entries = [entry_named(str(n)) for n in range(200)]
        made = await asyncio.gather(*map(self.store.create_address, entries))
        self.assertEqual(200, len(set(made)))
        self.assertEqual(dict(zip(made, entries, strict=True)),
                         await self.store.read_all_addresses())

    async def test_one_of_many_gets_a_nickname(self) -> None:
        outcomes = await self.outcomes(
            *(self.store.create_address(entry_named(str(n)), 'pm') for n in range(50)))
        self.assertEqual([NicknameTakenError] * 49, [error for error in outcomes if error])
        self.assertEqual(str(outcomes.index(None)), (await self.store.read_address('pm'))['name'])

    async def test_one_of_many_deletes_an_entry(self) -> None:
        await self.create_all('pm')
        outcomes = await self.outcomes(*(self.store.delete_address('pm') for _ in range(50)))
        self.assertEqual([UnknownNicknameError] * 49, [error for error in outcomes if error])

    async def test_one_of_many_updates_comes_last(self) -> None:
        await self.create_all('pm')
        outcomes = await self.outcomes(
            *(self.store.update_address('pm', entry_named(str(n))) for n in range(50)))
        self.assertEqual([None] * 50, outcomes)
        self.assertIn(await self.store.read_address('pm'),
                      [entry_named(str(n)) for n in range(50)])
