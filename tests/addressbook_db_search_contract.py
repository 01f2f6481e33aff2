"""What every store keeps to where entries are searched by name.

Each backend's tests inherit the suite, as they do ``AddressBookDBContract``.
"""

import json
import random
from collections.abc import AsyncIterator, Sequence
from itertools import chain
from typing import Final

from addrservice.addressbook_db import PAGE_SIZE, Place, StoredEntry
from addrservice.addressbook_db.abstract import fold
from addrservice.errors import PreconditionFailedError
from tests.addressbook_db_contract import (
    HOSTILE_TEXTS, ODD_NICKNAMES, AddressBookDBContract, entry_named,
)
from tests.support import address

# Texts that are the same but for case and for how their characters are encoded.
ALIKE: Final = (
    ('Straße', 'STRASSE', 'strasse', 'STRAẞE'),
    ('é', 'É', 'e\u0301', 'E\u0301'),
    ('\u212b', 'Å', 'å', 'A\u030a'),
    ('\u212a', 'K', 'k'),
    ('Σίσυφος', 'ΣΊΣΥΦΟΣ', 'σίσυφοσ'),
    ('a\u0323\u0307', 'a\u0307\u0323', 'Ạ\u0307', 'ạ\u0307'),
    ('\u1fb4', 'α\u0345\u0301', 'ΆΙ'),   # the iota below is a letter once folded
    ('\u0390', '\u1fd3'),
    ('\ufb03', 'FFI'),
    ('\u0149', '\u02bcN'),
    ('한', '\u1112\u1161\u11ab'),
    ('\u13a0', '\uab70'),
    ('\U00010400', '\U00010428'),        # outside of the first plane
    ('İ', 'i\u0307', 'I\u0307'),
)

# Texts that are not the same, though some would take them for it.
UNLIKE: Final = (
    ('e', 'é'), ('ı', 'i'), ('ı', 'I'), ('o', 'ø'), ('ss', 's'), ('a', 'α'), ('½', '1⁄2'),
    ('x', 'ｘ'), ('x', 'x '), ('x', ' x'), ('a b', 'a  b'), ('2', '²'),
)

# Of each of them, whatever follows it in a name comes before what follows it in the order.
EDGES: Final = ('\x01', ' ', '%', '_', '*', 'z', '\x7f', '\u0440', '\ud7ff', '\ue000', '\uffff',
                '\U00010000', '\U0010fffe', '\U0010ffff')

ALPHABET: Final = ('a', 'A', 'b', 'ß', 'ss', 'é', 'e\u0301', '%', '_', "'", '\\', '\ud7ff',
                   '\ue000', '\U0010ffff', ' ')


class SearchContract(AddressBookDBContract):
    """Entries by the beginning of their names, in order of these and of their nicknames."""

    # Helpers

    async def name_all(self, names: dict[str, str]) -> None:
        """Creates an entry per nickname, with a name."""
        for nickname, name in names.items():
            await self.store.create_address(entry_named(name), nickname)

    async def find(self, prefix: str, after: Place | None = None, limit: int = 1000) -> list[str]:
        """The nicknames of one page."""
        return [entry.nickname for entry in await self.store.find_page(prefix, after, limit)]

    async def assert_found(self, nicknames: Sequence[str], prefix: str) -> None:
        """Just these entries have names that begin with a prefix; they come in this order."""
        with self.subTest(prefix=prefix):
            self.assertEqual(list(nicknames), await self.find(prefix))

    async def found_by_turns(self, prefix: str, size: int) -> AsyncIterator[list[str]]:
        """The nicknames page by page, as a client gets them."""
        after: Place | None = None
        while entries := await self.store.find_page(prefix, after, size):
            yield [entry.nickname for entry in entries]
            after = place(entries[-1])

    # Folding

    async def test_texts_that_differ_in_case_or_encoding_are_folded_alike(self) -> None:
        for texts in ALIKE:
            with self.subTest(texts=texts):
                self.assertEqual(1, len(set(map(fold, texts))), list(map(fold, texts)))

    async def test_texts_that_differ_otherwise_are_not(self) -> None:
        for one, another in UNLIKE:
            with self.subTest(one=one, another=another):
                self.assertNotEqual(fold(one), fold(another))

    async def test_a_folded_text_is_composed_and_stays_as_it_is(self) -> None:
        self.assertEqual('strasse', fold('Straße'))
        self.assertEqual('\u00e9', fold('E\u0301'))
        self.assertEqual('άι', fold('\u1fb4'))
        for text in (*HOSTILE_TEXTS, *EDGES, *ODD_NICKNAMES, *chain.from_iterable(ALIKE)):
            self.assertEqual(fold(text), fold(fold(text)))

    async def test_a_folded_text_has_256_characters_at_the_most(self) -> None:
        for text, character in (('X' * 256, 'x'), ('X' * 257, 'x'), ('ß' * 256, 's'),
                                ('e\u0301' * 256, 'é'), ('\U0010ffff' * 300, '\U0010ffff')):
            with self.subTest(text=text[:2]):
                self.assertEqual(character * 256, fold(text))

    async def test_a_name_is_found_by_whatever_is_folded_alike(self) -> None:
        for number, texts in enumerate(ALIKE):
            await self.name_all({
                f'{number}-{n}': f'{text} & sons' for n, text in enumerate(texts)})
        for number, texts in enumerate(ALIKE):
            nicknames = [f'{number}-{n}' for n in range(len(texts))]
            for prefix in texts:
                await self.assert_found(nicknames, f'{prefix} &')

    async def test_a_name_is_not_found_by_what_is_not(self) -> None:
        for number, (one, another) in enumerate(UNLIKE):
            await self.name_all({f'{number}-1': f'{number} {one}.',
                                 f'{number}-2': f'{number} {another}.'})
        for number, (one, another) in enumerate(UNLIKE):
            await self.assert_found([f'{number}-1'], f'{number} {one}.')
            await self.assert_found([f'{number}-2'], f'{number} {another}.')

    # What is found

    async def test_nothing_is_found_in_an_empty_store(self) -> None:
        await self.assert_found([], 'x')
        self.assertEqual([], [page async for page in self.store.found_pages('x')])

    async def test_nothing_is_found_where_no_name_begins_so(self) -> None:
        await self.name_all({'pm': 'Narendra', 'lop': 'Rahul'})
        for prefix in ('narendras', 'arendra', 'ndra', 'a', 'o', 'm', 'raj', ' ', '\x01', 'z',
                       '\U0010ffff', "n' OR '1'='1", 'x' * 10_000):
            await self.assert_found([], prefix)

    async def test_a_name_is_found_by_each_beginning_of_it(self) -> None:
        await self.name_all({'pm': 'Narendra', 'lop': 'Rahul'})
        for end in range(1, 9):
            await self.assert_found(['pm'], 'Narendra'[:end])

    async def test_matches_come_in_order_of_folded_name_then_nickname(self) -> None:
        await self.name_all({
            '1': 'mB', '2': 'MA', '3': 'mä', '4': 'm', '5': 'Ma', '6': 'M\U0010ffff', '7': 'm ',
            '8': 'ma', '9': 'ma ', '10': 'mA', '11': 'm\ue000'})
        await self.assert_found(['4', '7', '10', '2', '5', '8', '9', '1', '3', '11', '6'], 'm')

    async def test_matches_are_entries_as_they_are_stored(self) -> None:
        await self.store.create_address(address('namo'), 'pm')
        await self.store.create_entry_once({**address('namo'), 'emails': []}, 'key')
        await self.store.update_address('pm', address('namo'))
        everything = await self.store.read_page(None, 10)
        found = await self.store.find_page(address('namo')['name'][:3], None, 10)
        self.assertEqual(sorted(everything), sorted(found))
        self.assertEqual({StoredEntry}, set(map(type, found)))

    async def test_wildcards_and_quotes_are_plain_characters(self) -> None:
        texts = ('%', '_', '*', '?', '[a-z]', '\\', '\\%', "'", '"', "''", '$1', '%s', ':a', '{0}',
                 '.*', '--', ';', "'; DROP TABLE addresses; --")
        names = {str(n): f'{text}x' for n, text in enumerate(texts)}
        await self.name_all({**names, 'plain': 'abcx', 'short': 'x'})
        for prefix in (*texts, *(f'{text}x' for text in texts), 'x', 'X', 'ab%', 'a_c', '%x', '%%'):
            await self.assert_found(model(names | {'plain': 'abcx', 'short': 'x'}, prefix), prefix)

    async def test_hostile_texts_are_found_as_they_are(self) -> None:
        names = {str(n): text or 'nobody' for n, text in enumerate(HOSTILE_TEXTS)}
        await self.name_all(names)
        for prefix in names.values():
            await self.assert_found(model(names, prefix), prefix)

    async def test_a_prefix_may_end_anywhere_in_the_order_of_characters(self) -> None:
        """Also in the last character of all, or the last one before those that do not exist."""
        names = {}
        for number, edge in enumerate(EDGES):
            for end, rest in enumerate(('', '\x01', 'z', '\U0010ffff', '\U0010ffff\U0010ffff')):
                names[f'{number:02}-{end}'] = edge + rest
                names[f'{number:02}-{end}-a'] = f'a{edge}{rest}'
        await self.name_all(names)
        for edge in EDGES:
            for prefix in (edge, f'a{edge}', f'{edge}\U0010ffff', f'a{edge}\U0010ffff\U0010ffff'):
                await self.assert_found(model(names, prefix), prefix)

    async def test_a_prefix_that_is_longer_than_what_is_folded_finds_what_begins_alike(
        self
    ) -> None:
        """The 256 characters that are compared are those that a name may have."""
        names = {'255': 'x' * 255, '256': 'x' * 256, 'other': 'x' * 255 + 'y', 'sharp': 'ß' * 256}
        await self.name_all(names)
        await self.assert_found(['255', '256', 'other'], 'X' * 255)
        for length in (256, 257, 1000, 100_000):
            await self.assert_found(['256'], 'X' * length)
        await self.assert_found(['other'], 'x' * 255 + 'Y' * 2)
        for prefix in ('ß' * 128, 'S' * 256, 'ß' * 256, 'S' * 600):
            await self.assert_found(['sharp'], prefix)

    async def test_the_longest_names_of_the_widest_characters_are_found(self) -> None:
        names = {'1': '\U0010ffff' * 256, '2': '\U0010ffff' * 255 + 'x', '3': '\u0390' * 256}
        await self.name_all(names)
        for prefix in ('\U0010ffff', '\U0010ffff' * 255, '\U0010ffff' * 256, '\U0010ffff' * 300,
                       '\u0390' * 256, 'ι\u0308\u0301' * 256):
            await self.assert_found(model(names, prefix), prefix)

    async def test_odd_nicknames_are_found_in_order(self) -> None:
        await self.name_all(dict.fromkeys(ODD_NICKNAMES, 'Narendra'))
        await self.assert_found(sorted(ODD_NICKNAMES), 'narendra')
        pages = [page async for page in self.found_by_turns('narendra', 1)]
        self.assertEqual([[nickname] for nickname in sorted(ODD_NICKNAMES)], pages)

    # Pages

    async def test_a_page_has_no_more_matches_than_its_limit(self) -> None:
        await self.name_all({'1': 'a', '2': 'b', '3': 'a', '4': 'c', '5': 'a', '6': 'aa'})
        for limit in range(6):
            with self.subTest(limit=limit):
                self.assertEqual(['1', '3', '5', '6'][:limit], await self.find('a', None, limit))
                self.assertEqual(['5', '6'][:limit], await self.find('a', Place('a', '3'), limit))

    async def test_a_page_may_start_in_a_place_where_nothing_is(self) -> None:
        await self.name_all({'b': 'mb', 'd': 'md', 'f': 'mf'})
        for name, nickname, page in (
            ('', '', 'bdf'), ('a', 'z', 'bdf'), ('m', '', 'bdf'), ('mb', '', 'bdf'),
            ('mb', 'a', 'bdf'), ('mb', 'b', 'df'), ('mb', 'c', 'df'), ('mc', 'f', 'df'),
            ('md', '\U0010ffff', 'f'), ('mf', 'f', ''), ('mg', '', ''), ('z', '', ''),
            ('\U0010ffff' * 256, '\U0010ffff', ''), ('m' * 256, 'x' * 255, ''),
        ):
            with self.subTest(name=name, nickname=nickname):
                self.assertEqual(list(page), await self.find('M', Place(name, nickname)))

    async def test_matches_are_complete_and_in_order_whatever_their_pages(self) -> None:
        names = {f'{n:02}': f'{"Mm"[n % 2]}{n % 5}' for n in range(12)}
        await self.name_all({**names, '99': 'other'})
        expected = model(names, 'm')
        for size in (1, 2, 5, 6, 11, 12, 13, 1000):
            with self.subTest(size=size):
                pages = [[entry.nickname for entry in page]
                         async for page in self.store.found_pages('m', size=size)]
                self.assertEqual([expected[n:n + size] for n in range(0, 12, size)], pages)

    async def test_matches_may_start_after_a_place(self) -> None:
        await self.name_all({'b': 'mb', 'd': 'md', 'f': 'mf', 'g': 'mg'})
        pages = [[entry.nickname for entry in page]
                 async for page in self.store.found_pages('m', 1, Place('md', 'd'))]
        self.assertEqual([['f'], ['g']], pages)

    async def test_pages_of_the_book_may_start_after_a_nickname(self) -> None:
        await self.create_all(*'bdfhj')
        for after, expected in (('c', [['d', 'f'], ['h', 'j']]), ('d', [['f', 'h'], ['j']]),
                                (None, [['b', 'd'], ['f', 'h'], ['j']]), ('j', [])):
            with self.subTest(after=after):
                pages = [[entry.nickname for entry in page]
                         async for page in self.store.pages(2, after)]
                self.assertEqual(expected, pages)

    async def test_matches_come_in_pages_of_250_unless_told(self) -> None:
        await self.name_all({f'{n:03}': 'x' for n in range(300)})
        self.assertEqual([250, 50], [len(page) async for page in self.store.found_pages('X')])
        self.assertEqual(250, PAGE_SIZE)

    async def test_matches_that_stay_come_once_whatever_is_written_meanwhile(self) -> None:
        """What is renamed may be seen at its old place, at its new one, at both or at none."""
        await self.name_all({letter: f'm{letter}' for letter in 'bdfhjlnprt'})
        await self.name_all({'same': 'mr'})
        seen: list[str] = []
        turns = 0
        async for page in self.found_by_turns('M', 3):
            seen.extend(page)
            turns += 1
            if turns == 1:    # after b, d, f
                await self.name_all({'c': 'mc', 'g': 'mg'})
                await self.store.delete_address('f')               # the last one read
                await self.store.update_address('b', entry_named('x'))
            elif turns == 2:  # after g, h, j
                await self.store.update_address('l', entry_named('ma'))  # to what was read
                await self.store.update_address('d', entry_named('mz'))  # to what was not
                await self.store.update_address('j', entry_named('ma'))  # the last one read
                await self.name_all({'k': 'MK'})
        self.assertEqual(list('bdfghjknpr') + ['same', 't', 'd'], seen)

    # The index

    async def test_an_updated_entry_is_found_by_its_new_name_alone(self) -> None:
        await self.name_all({'pm': 'Narendra', 'lop': 'Nobody'})
        version = await self.store.update_address('pm', entry_named('Rahul'))
        await self.assert_found(['lop'], 'n')
        await self.assert_found(['pm'], 'r')
        version = await self.store.update_address('pm', entry_named('Sonia'), version)
        await self.assert_found([], 'r')
        await self.assert_found(['pm'], 's')
        await self.store.update_address('pm', {'name': 'SONIA'}, version)
        await self.assert_found(['pm'], 'sonia')
        self.assertEqual(b'{"name":"SONIA"}',
                         (await self.store.find_page('s', None, 1))[0].document)

    async def test_an_update_that_is_refused_changes_nothing_of_what_is_found(self) -> None:
        await self.name_all({'pm': 'Narendra'})
        with self.assertRaises(PreconditionFailedError):
            await self.store.update_address('pm', entry_named('Rahul'), 1)
        with self.assertRaises(PreconditionFailedError):
            await self.store.delete_address('pm', 1)
        await self.assert_found(['pm'], 'n')
        await self.assert_found([], 'r')

    async def test_a_deleted_entry_is_not_found(self) -> None:
        await self.name_all({'1': 'Narendra', '2': 'Narendra', '3': 'Narendra'})
        await self.store.delete_address('2')
        await self.assert_found(['1', '3'], 'n')
        await self.store.delete_address('3', (await self.store.read_entry('3')).version)
        await self.assert_found(['1'], 'n')
        await self.name_all({'2': 'Rahul'})
        await self.assert_found(['1'], 'n')
        await self.assert_found(['2'], 'r')

    async def test_an_entry_of_a_key_is_found_once(self) -> None:
        made = [await self.store.create_entry_once(entry_named('Narendra'), 'key')
                for _ in range(3)]
        await self.assert_found([made[0].nickname], 'n')

    async def test_whatever_is_written_the_index_has_the_names_of_all_entries(self) -> None:
        """Held against the plain way to search: to look at each entry."""
        chance = random.Random(5)
        names: dict[str, str] = {}
        for number in range(150):
            nickname = str(chance.randrange(60))
            name = ''.join(chance.choices(ALPHABET, k=chance.randint(1, 3)))
            if nickname not in names:
                await self.store.create_address(entry_named(name), nickname)
                names[nickname] = name
            elif chance.random() < 0.7:
                await self.store.update_address(nickname, entry_named(name))
                names[nickname] = name
            else:
                await self.store.delete_address(nickname)
                del names[nickname]
        for _ in range(60):
            prefix = ''.join(chance.choices(ALPHABET, k=chance.randint(1, 2)))
            after = Place(fold(''.join(chance.choices(ALPHABET, k=2))), str(chance.randrange(60)))
            with self.subTest(prefix=prefix, after=after):
                self.assertEqual(model(names, prefix), await self.find(prefix))
                self.assertEqual(model(names, prefix, after)[:3], await self.find(prefix, after, 3))


def place(entry: StoredEntry) -> Place:
    """Where an entry stands among those that a search finds."""
    return Place(fold(json.loads(entry.document)['name']), entry.nickname)


def model(names: dict[str, str], prefix: str, after: Place | None = None) -> list[str]:
    """The nicknames of those whose names begin with a prefix, as the contract has it."""
    places = sorted((fold(name), nickname) for nickname, name in names.items())
    return [nickname for name, nickname in places if name.startswith(fold(prefix))
            and (after is None or (name, nickname) > tuple(after))]
