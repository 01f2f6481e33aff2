"""Pages of the book, and search by name, as they hold for every backend: see ``http_contract``.

``ParameterTest`` and ``FoldingTest`` are about what is the same whatever the store is.
"""

import asyncio
import json
import re
import unicodedata
from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from tornado.httpclient import HTTPResponse

from addrservice.addressbook_db import PAGE_SIZE
from addrservice.service import MAX_PAGE_BYTES
from tests.support import JSON
from tests.wire import SMALL, UNKNOWN_ID, WireTestCase

Member = tuple[str, str]  # an id and a name

LINK: Final = re.compile(r'<(/addressbook\?[!-;=?-~]+)>; rel="next"')
LAST: Final = '\U0010ffff'  # no character comes after it

# Values that a parameter cannot have, as they stand in a request.
BAD_LIMITS: Final = (
    '', '0', '00', '01', '-1', '%2B1', '1.0', '1e1', '1_0', '1001', '9999', '10000', '9' * 5000,
    'x', '%201', '1+', '1%0A', '%D9%A3', '1%D9%A3', '1%00', '%FF')
BAD_IDS: Final = (
    '', 'x', '0' * 31, '0' * 33, 'A' * 32, 'g' * 32, UNKNOWN_ID + '%0A', '%D9%A3' * 32,
    '%00' * 32, UNKNOWN_ID[:31] + '%FF')
BAD_NAMES: Final = ('', '%00', 'a%00', 'a' * 257, '%F0%9F%98%80' * 257, '%FF', 'a%C3', '%ED%A0%80')


def fold(name: str) -> str:
    """The form of a name in which it is compared."""
    folded = unicodedata.normalize('NFD', name).casefold()
    return unicodedata.normalize('NFC', folded)[:256]


class PageTestCase(WireTestCase):
    """A book that is read page by page."""

    async def fill(self, *names: str) -> list[Member]:
        """Keeps entries of those names."""
        return [(await self.service.post_address({'name': name}), name) for name in names]

    def members(self, answer: HTTPResponse) -> list[Member]:
        """The entries in an answer, of which each has just a name; one that comes twice, twice."""
        self.assertEqual(200, answer.code, answer.body)
        pairs = json.loads(answer.body, object_pairs_hook=list)
        return [(nickname, dict(entry)['name']) for nickname, entry in pairs]

    def next_of(self, answer: HTTPResponse) -> str | None:
        """The target of the page that follows."""
        if 'Link' not in answer.headers:
            return None
        match = LINK.fullmatch(answer.headers['Link'])
        assert match is not None, answer.headers['Link']
        return match[1]

    async def pages(self, target: str | None) -> AsyncGenerator[list[Member], None]:
        """The pages from one to the last, as the links lead."""
        while target is not None:
            answer = await self.fetch('GET', target)
            yield self.members(answer)
            target = self.next_of(answer)

    async def assert_finds(self, prefix: str, *names: str) -> list[Member]:
        """Checks which names a prefix finds, in order of name, then id."""
        with self.subTest(prefix):
            answer = await self.fetch('GET', f'/addressbook?name={quote(prefix, safe="")}')
            self.assertNotIn('Link', answer.headers)
            found = self.members(answer)
            self.assertEqual(sorted(names), sorted(name for _, name in found))
            in_order = sorted(found, key=lambda member: (fold(member[1]), member[0]))
            self.assertEqual(in_order, found)
        return found

    async def assert_bad(self, query: str, parameter: str) -> None:
        """Checks that a query is refused, and which parameter is named."""
        with self.subTest(query[:80]):
            error = self.assert_error(await self.fetch('GET', f'/addressbook?{query}'), 400)
            [violation] = error['errors']
            self.assertEqual(parameter, violation['path'])
            self.assertTrue(violation['message'])
            self.assertIn(parameter, error['message'])


class BookPageTest(PageTestCase):
    """GET /addressbook?limit=N&after=ID."""

    async def test_a_page_has_a_link_to_the_next_one_while_more_follow(self) -> None:
        members = await self.fill(*'abcdefg')
        answer = await self.fetch('GET', '/addressbook?limit=3')
        self.assertEqual('application/json', answer.headers['Content-Type'])
        self.assertEqual(members[:3], self.members(answer))
        target = self.next_of(answer)
        self.assertEqual({'limit': ['3'], 'after': [members[2][0]]},
                         parse_qs(urlsplit(target).query))
        pages = [page async for page in self.pages(target)]
        self.assertEqual([members[3:6], members[6:]], pages)

    async def test_a_page_that_ends_with_the_book_has_no_link(self) -> None:
        members = await self.fill(*'abcdef')
        for limit, sizes in (('3', [3, 3]), ('6', [6]), ('7', [6]), ('1000', [6]), ('5', [5, 1])):
            with self.subTest(limit):
                pages = [page async for page in self.pages(f'/addressbook/?limit={limit}')]
                self.assertEqual(sizes, [len(page) for page in pages])
                self.assertEqual(members, sum(pages, []))

    async def test_an_empty_book_has_one_empty_page(self) -> None:
        for query in ('limit=1', f'limit=1000&after={UNKNOWN_ID}', f'after={UNKNOWN_ID}'):
            answer = await self.fetch('GET', f'/addressbook?{query}')
            self.assertEqual((200, b'{}'), (answer.code, answer.body))
            self.assertNotIn('Link', answer.headers)

    async def test_a_page_may_be_larger_than_one_of_the_store(self) -> None:
        members = await self.fill(*['x'] * (PAGE_SIZE + 60))
        for limit in (PAGE_SIZE, PAGE_SIZE + 1, PAGE_SIZE + 50, PAGE_SIZE + 60):
            pages = [page async for page in self.pages(f'/addressbook?limit={limit}')]
            self.assertEqual([part for part in (members[:limit], members[limit:]) if part], pages)
        [page] = [page async for page in self.pages(f'/addressbook?after={members[9][0]}')]
        self.assertEqual(members[10:], page)

    async def test_a_page_may_begin_after_an_id_that_no_entry_has(self) -> None:
        members = await self.fill(*'abcd')
        gone = members.pop(1)[0]
        await self.service.delete_address(gone)
        for after, expected in ((UNKNOWN_ID, members), (gone, members[1:]), ('f' * 32, [])):
            for query in (f'after={after}', f'limit=9&after={after}', f'after={after}&limit=1000'):
                with self.subTest(query):
                    answer = await self.fetch('GET', f'/addressbook?{query}')
                    self.assertEqual(expected, self.members(answer))
                    self.assertNotIn('Link', answer.headers)


class MeanwhileTest(PageTestCase):
    """Pages that are read while others write."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.reading = True
        self.rounds = 0
        # As keys make them, for ids all over the book.
        self.kept = sorted([(await self.keyed(f'kept-{number}', 'kept'), 'kept')
                            for number in range(12)])

    async def keyed(self, key: str, name: str) -> str:
        """An entry that is made with a key, for its id sorts anywhere."""
        headers = {**JSON, 'Idempotency-Key': key}
        answer = await self.fetch('POST', '/addressbook', json.dumps({'name': name}), headers)
        return answer.headers['Location'].rpartition('/')[2]

    async def write(self, writer: int) -> None:
        """Creates, renames and deletes entries, of which it leaves some."""
        number = 0
        while self.reading:
            number += 1
            path = f'/addressbook/{await self.keyed(f"{writer}-{number}", "kept by nobody")}'
            await self.fetch('PUT', path, json.dumps({'name': 'keen'}), JSON)
            if number % 4:
                await self.fetch('DELETE', path)
            self.rounds += 1

    async def assert_kept(self, target: str) -> None:
        """Checks that what stayed comes just once, in order, while others write."""
        writers = [asyncio.create_task(self.write(writer)) for writer in range(2)]
        try:
            while self.rounds < 8:
                pages = [page async for page in self.pages(target)]
                members = [member for page in pages for member in page]
                self.assertEqual(self.kept, [member for member in members if member in self.kept])
                self.assertEqual(len(members), len(set(members)))
                self.assertEqual({3}, {len(page) for page in pages[:-1]})
        finally:
            self.reading = False
            await asyncio.gather(*writers)

    async def test_entries_that_stay_come_just_once(self) -> None:
        await self.assert_kept('/addressbook?limit=3')

    async def test_matches_that_stay_come_just_once(self) -> None:
        await self.assert_kept('/addressbook?limit=3&name=ke')


class SearchTest(PageTestCase):
    """GET /addressbook?name=PREFIX."""

    async def test_case_and_composition_are_all_the_same(self) -> None:
        names = ['Straße', 'STRASSE', 'stra\u1e9ee', 'e\u0301té', 'ÉTE\u0301']
        await self.fill(*names, 'Strand', 'ete')
        for prefix in ('strasse', 'Straß', 'STRASSE'):
            await self.assert_finds(prefix, *names[:3])
        for prefix in ('é', 'E\u0301T'):
            await self.assert_finds(prefix, *names[3:])

    async def test_a_prefix_may_be_the_whole_name_and_is_not_found_within_one(self) -> None:
        await self.fill('Ada', 'ada', 'Adam', 'Nevada', 'Ad', 'Ada Lovelace', 'b')
        await self.assert_finds('ADA', 'Ada', 'ada', 'Adam', 'Ada Lovelace')
        await self.assert_finds('Ada ', 'Ada Lovelace')
        await self.assert_finds('Adam', 'Adam')
        for prefix in ('Adamas', 'evada', ' Ada', 'c'):
            await self.assert_finds(prefix)

    async def test_no_character_is_a_wildcard(self) -> None:
        names = ['%', '_', '\\', "'", '"', '*', '?', '[a]', '^', '(', "';--", 'a%b', 'a_b', 'a\\b']
        await self.fill('axb', 'a', 'ab', *names)
        for name in names:
            expected = [other for other in names if other.startswith(name)]
            await self.assert_finds(name, *expected)

    async def test_a_prefix_may_end_with_any_character(self) -> None:
        """There is a next one to some, but none to the last, and surrogates to U+D7FF."""
        names = ['a', f'a{LAST}', f'a{LAST}{LAST}', f'a{LAST}b', 'a\ud7ff', 'a\ud7ffb', 'a\ue000',
                 'a\uffff', 'a\U00010000', 'a\x01', 'a\x7f', LAST, LAST * 2]
        await self.fill('b', *names)
        for prefix in ('a', f'a{LAST}', f'a{LAST}{LAST}', 'a\ud7ff', 'a\ue000', 'a\uffff',
                       'a\U00010000', 'a\x01', 'a\x7f', LAST, LAST * 2, LAST * 3):
            await self.assert_finds(prefix, *(name for name in names if name.startswith(prefix)))
        found = await self.assert_finds('a', *(name for name in names if name.startswith('a')))
        pages = [page async for page in self.pages('/addressbook?name=A&limit=1')]
        self.assertEqual([[member] for member in found], pages)

    async def test_names_and_prefixes_may_be_as_long_as_a_name_may_be(self) -> None:
        names = ['ß' * 256, 's' * 256, '\U0001f600' * 256, '\u0390' * 256]
        await self.fill(*names)
        for prefix in ('ß' * 256, 'ß' * 128, 's' * 256, 'S' * 100):
            await self.assert_finds(prefix, 'ß' * 256, 's' * 256)
        await self.assert_finds('\U0001f600' * 256, '\U0001f600' * 256)
        await self.assert_finds('\u0390' * 256, '\u0390' * 256)

    async def test_entries_of_one_name_come_in_order_of_id(self) -> None:
        members = await self.fill(*['Ada', 'ADA', 'ada'] * 3)
        pages = [page async for page in self.pages('/addressbook?name=ada&limit=4')]
        self.assertEqual([members[:4], members[4:8], members[8:]], pages)

    async def test_the_place_after_an_entry_is_known_while_there_is_one(self) -> None:
        """The plain id of an entry will do, as in pages of the book."""
        middle, last, first, other = await self.fill('ab', 'AC', 'aa', 'b')
        for after, expected in ((first, [middle, last]), (middle, [last]), (last, []), (other, [])):
            answer = await self.fetch('GET', f'/addressbook?name=a&after={after[0]}')
            self.assertEqual(expected, self.members(answer))
        answer = await self.fetch('GET', f'/addressbook?name=B&after={first[0]}')
        self.assertEqual([other], self.members(answer))  # however far before them it is
        target = f'/addressbook?name=a&limit=1&after={first[0]}'
        self.assertEqual([[middle], [last]], [page async for page in self.pages(target)])
        await self.service.delete_address(middle[0])
        for limit in ('', '&limit=1'):
            answer = await self.fetch('GET', f'/addressbook?name=a&after={middle[0]}{limit}')
            self.assertIn(middle[0], self.assert_error(answer, 404)['message'])

    async def test_a_link_leads_on_whatever_becomes_of_the_entry_before_it(self) -> None:
        for change in ('PUT', 'DELETE'):
            with self.subTest(change):
                first, second, third, fourth = await self.fill('x1', 'X2', 'x3', 'x4')
                answer = await self.fetch('GET', '/addressbook?name=x&limit=2')
                self.assertEqual([first, second], self.members(answer))
                for nickname, _ in (first, second, third):
                    body = b'{"name": "y"}' if change == 'PUT' else None
                    await self.fetch(change, f'/addressbook/{nickname}', body, JSON)
                pages = [page async for page in self.pages(self.next_of(answer))]
                self.assertEqual([[fourth]], pages)
                await self.service.delete_address(fourth[0])

    async def test_an_entry_is_found_by_the_name_that_it_has_now(self) -> None:
        path = await self.post({'name': 'Ada'})
        await self.assert_finds('ada', 'Ada')
        await self.fetch('PUT', path, b'{"name": "Bob"}', JSON)
        await self.assert_finds('ada')
        await self.assert_finds('bob', 'Bob')
        merge = {'Content-Type': 'application/merge-patch+json'}
        await self.fetch('PATCH', path, b'{"name": "Cyd"}', merge)
        await self.assert_finds('bob')
        await self.assert_finds('cyd', 'Cyd')
        await self.fetch('DELETE', path)
        await self.assert_finds('cyd')
        self.assertEqual(201, (await self.fetch('POST', '/addressbook', SMALL, JSON)).code)
        await self.assert_finds('ada', 'Ada')


class ParameterTest(PageTestCase):
    """The parameters of GET /addressbook, and those of its links."""

    async def test_a_head_has_the_link_of_the_page(self) -> None:
        [first, *_] = await self.fill(*'abc')
        for query in ('limit=2', f'limit=2&after={first[0]}', 'limit=3', 'name=a&limit=1',
                      'limit=1&name=B', f'after={first[0]}'):
            with self.subTest(query):
                get = await self.fetch('GET', f'/addressbook?{query}')
                head = await self.fetch('HEAD', f'/addressbook?{query}')
                self.assertEqual((200, b''), (head.code, head.body))
                for name in ('Link', 'Content-Type', 'Cache-Control', 'Vary'):
                    self.assertEqual(get.headers.get(name), head.headers.get(name), name)
        self.assertEqual(400, (await self.fetch('HEAD', '/addressbook?limit=0')).code)

    async def test_a_page_of_large_entries_ends_sooner(self) -> None:
        """It is held until it has been read; a limit is a limit, not a promise."""
        place = {'kind': 'home', 'streetName': 'x' * 250, 'pincode': 1, 'country': 'y' * 250}
        entry = {'name': 'Ada', 'addresses': [place] * 100}
        size = len(json.dumps(entry, separators=(',', ':')))
        members = [(await self.service.post_address(entry), 'Ada') for _ in range(30)]
        for query in ('limit=1000', 'limit=1000&name=a'):
            pages = [page async for page in self.pages(f'/addressbook?{query}')]
            self.assertEqual(members, sum(pages, []))
            self.assertEqual(2, len(pages))
            self.assertLess(len(pages[0]) * size, MAX_PAGE_BYTES + size)
            self.assertGreaterEqual(len(pages[0]) * size, MAX_PAGE_BYTES)

    async def test_a_page_may_begin_at_the_place_that_a_search_has(self) -> None:
        """Its id counts."""
        members = await self.fill(*'ba')
        for name in ('b', 'zz', '%C3%A9'):
            answer = await self.fetch('GET', f'/addressbook?limit=1&after={members[0][0]}:{name}')
            self.assertEqual(members[1:], self.members(answer))

    async def test_a_bad_parameter_is_named(self) -> None:
        for name, values in (('limit', BAD_LIMITS), ('after', BAD_IDS), ('name', BAD_NAMES)):
            for value in values:
                await self.assert_bad(f'{name}={value}', name)
        await self.assert_bad('limit', 'limit')
        await self.assert_bad('name=a&limit=0', 'limit')

    async def test_a_bad_place_is_named(self) -> None:
        [member] = await self.fill('a')
        for value in (*BAD_IDS, ':a', 'x:a', 'A' * 32 + ':a', '0' * 31 + ':a', f'{member[0]}:%00',
                      f'{member[0]}:%FF', f'{member[0]}%0A:a', f'{member[0]};a'):
            await self.assert_bad(f'name=a&after={value}', 'after')

    async def test_an_unknown_parameter_and_one_given_twice_are_named(self) -> None:
        for query, name in (
            ('q=1', 'q'), ('Limit=1', 'Limit'), ('limit=1&limits=1', 'limits'), ('x', 'x'),
            ('limit=1&limit=1', 'limit'), ('name=a&limit=1&name=b', 'name'),
            ('name=a&name=', 'name'), (f'after={UNKNOWN_ID}&after={UNKNOWN_ID}', 'after'),
            ('name%5B%5D=a', 'name[]'),
        ):
            await self.assert_bad(query, name)
        self.assert_error(await self.fetch('GET', '/addressbook?%FF=1'), 400)

    async def test_a_blank_may_be_written_as_forms_write_it(self) -> None:
        await self.fill('C++ user', 'C  user', 'C user')
        for written, name in (('c++', 'C  user'), ('c%20u', 'C user'), ('c%2B%2B+U', 'C++ user')):
            with self.subTest(written):
                answer = await self.fetch('GET', f'/addressbook?name={written}')
                self.assertEqual([name], [found for _, found in self.members(answer)])

    async def test_the_link_has_the_parameters_and_the_place(self) -> None:
        for name in ('Straße & Söhne', '100% "<sûr>"?#;+=:', 'a\r\nLink: b', 'नरेन्द्र मोदी', LAST):
            first, second = await self.fill(name, name)
            query = urlencode({'limit': 1, 'name': name})
            answer = await self.fetch('GET', f'/addressbook?{query}')
            target = self.next_of(answer)
            with self.subTest(name):
                self.assertEqual(
                    {'limit': ['1'], 'name': [name], 'after': [f'{first[0]}:{fold(name)}']},
                    parse_qs(urlsplit(target).query, strict_parsing=True))
                self.assertEqual([[second]], [page async for page in self.pages(target)])


class FoldingTest(PageTestCase):
    """What is the same to a search."""

    async def test_case_is_all_the_same(self) -> None:
        await self.fill('Straße', 'STRASSE', 'Strand', 'Σίσυφος', 'ﬁnn', 'İzmir', 'ǆ')
        for prefix in ('Straße', 'STRASSE', 'strasse', 'strass', 'stra\u1e9ee', 'Straß'):
            await self.assert_finds(prefix, 'Straße', 'STRASSE')
        await self.assert_finds('STRA', 'Straße', 'STRASSE', 'Strand')
        for prefix, name in (('ΣΊΣΥΦΟΣ', 'Σίσυφος'), ('FIN', 'ﬁnn'), ('i\u0307Z', 'İzmir'),
                             ('Ǆ', 'ǆ'), ('ǅ', 'ǆ')):
            await self.assert_finds(prefix, name)

    async def test_composed_and_decomposed_characters_are_the_same(self) -> None:
        names = ['\u00e9t\u00e9', 'e\u0301te\u0301', 'E\u0301T\u00c9', '\u00c9T\u00c9']
        await self.fill('ete', *names)
        for prefix in ('\u00e9', 'e\u0301', '\u00c9t', 'E\u0301Te\u0301', *names):
            await self.assert_finds(prefix, *names)
        await self.assert_finds('et', 'ete')
        names = ['\u1eadm', 'a\u0323\u0302m', 'a\u0302\u0323M']  # marks in any order
        await self.fill(*names)
        await self.assert_finds('A\u0302\u0323', *names)
        names = ['\u1fb4', 'α\u0345\u0301', 'ά\u0345', 'ΑΙ\u0301'.lower()]
        await self.fill(*names)
        await self.assert_finds('\u1fb4', *names[:3])
