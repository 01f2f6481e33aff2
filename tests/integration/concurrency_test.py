"""Clients that write at the same time: one wins, nothing is lost, nothing is made twice.

Real processes: one that keeps the book in memory, or two that share a SQL database, with the
clients spread over both.
"""

import itertools
import json
import re
import unittest
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

from tests.postgresql import shared_server
from tests.replicas import Answer, OnPostgreSQL, OnSQLite, ReplicasTestCase, Request, post

CROWD: Final = 50
FIRST: Final = {'name': 'Ada', 'emails': [{'kind': 'home', 'value': 'ada@example.org'}]}
OTHERS: Final = [{'name': f'Bob {number}'} for number in range(CROWD)]
PAGE: Final = 7  # entries

setUpModule = shared_server  # now, so that no test waits for its start


class ConcurrencyTest(ReplicasTestCase):
    """What each backend promises to fifty clients at once."""

    def create(self) -> tuple[str, dict[str, str]]:
        """A new entry: its path, and the header of a write that is meant for it as it is now."""
        [answer] = self.crowd([post(FIRST)])
        self.assertEqual(201, answer.status, answer.body)
        return answer.headers['Location'], {'If-Match': answer.headers['ETag']}

    def entry(self, path: str) -> Any:
        """The entry, None where there is none."""
        answer = self.read(path)
        self.assertIn(answer.status, (200, 404))
        return json.loads(answer.body) if answer.status == 200 else None

    def assert_statuses(self, expected: Iterable[int], answers: Iterable[Answer]) -> None:
        """Checks how each was answered."""
        self.assertEqual(list(expected), [answer.status for answer in answers])

    def winner(self, answers: Sequence[Answer], refusals: Collection[int]) -> int:
        """Which of the answers is the one that is no refusal."""
        statuses = [answer.status for answer in answers]
        self.assertEqual(1, statuses.count(204), Counter(statuses))
        self.assertLessEqual(set(statuses), {204, *refusals})
        return statuses.index(204)

    def test_of_fifty_puts_with_one_etag_one_wins(self) -> None:
        path, if_match = self.create()
        answers = self.crowd([Request('PUT', path, entry, if_match) for entry in OTHERS])
        winner = self.winner(answers, {412})
        self.assertEqual(OTHERS[winner], self.entry(path))
        self.assertEqual(answers[winner].headers['ETag'], self.read(path).headers['ETag'])

    def test_of_fifty_deletes_with_one_etag_one_wins(self) -> None:
        path, if_match = self.create()
        answers = self.crowd([Request('DELETE', path, None, if_match)] * CROWD)
        self.winner(answers, {404, 412})
        self.assertIsNone(self.entry(path))

    def test_of_different_writes_with_one_etag_one_wins(self) -> None:
        methods = ['PUT', 'PATCH', 'DELETE'] * 2
        contests = [self.contest(methods[first:] + methods[:first]) for first in [0, 1, 2] * 4]
        answers = iter(self.crowd([request for contest in contests for request in contest]))
        for contest in contests:
            winner = contest[self.winner(list(itertools.islice(answers, len(contest))), {404, 412})]
            outcomes = {'PUT': winner.content, 'PATCH': {**FIRST, **winner.content},
                        'DELETE': None}
            self.assertEqual(outcomes[winner.method], self.entry(winner.path))

    def contest(self, methods: Sequence[str]) -> list[Request]:
        """Writes to a new entry, by those methods; each is meant for it as it is now."""
        path, if_match = self.create()
        # A DELETE too has a body, which means nothing there: without one it would always be first.
        return [Request(method, path, entry, if_match) for method, entry in zip(methods, OTHERS)]

    def test_each_of_fifty_puts_has_an_etag_of_its_own(self) -> None:
        path, if_match = self.create()
        answers = self.crowd([Request('PUT', path, entry) for entry in OTHERS])
        self.assert_statuses([204] * CROWD, answers)
        etags = [answer.headers['ETag'] for answer in answers]
        self.assertEqual(CROWD + 1, len({*etags, *if_match.values()}))
        self.assertEqual(OTHERS[etags.index(self.read(path).headers['ETag'])], self.entry(path))

    def test_patches_of_different_members_all_stay(self) -> None:
        phone = {'kind': 'home', 'countryCode': 44, 'number': 1}
        street = {'kind': 'work', 'streetName': 'Main Street', 'pincode': 1, 'country': 'India'}
        whole = {'name': 'Bob', 'addresses': [street], 'phoneNumbers': [phone],
                 'faxNumbers': [phone], 'emails': [{'kind': 'work', 'value': 'bob@example.org'}]}
        paths = [self.create()[0] for _ in range(CROWD // len(whole))]
        answers = self.crowd([Request('PATCH', path, {member: value})
                              for path in paths for member, value in whole.items()])
        self.assert_statuses([204] * CROWD, answers)
        for path in paths:
            self.assertEqual(whole, self.entry(path))

    def test_fifty_posts_with_one_key_make_one_entry(self) -> None:
        entry = {'name': 'Once'}
        answers = self.crowd([post(entry, 'once')] * CROWD)
        self.assert_statuses([201] * CROWD, answers)
        [path] = {answer.headers['Location'] for answer in answers}
        [etag] = {answer.headers['ETag'] for answer in answers}
        self.assertEqual([path], [path for path, found in self.book().items() if found == entry])
        self.assertEqual(etag, self.read(path).headers['ETag'])

    def test_of_two_entries_with_one_key_one_wins_everywhere(self) -> None:
        entries = [{'name': 'Either'}, {'name': 'Or'}]
        # Not in step with the processes, so that each of those gets both.
        asked = [entries[number // 2 % 2] for number in range(CROWD)]
        answers = self.crowd([post(entry, 'either-or') for entry in asked])
        [path] = {answer.headers['Location'] for answer in answers if answer.status == 201}
        winner = self.entry(path)
        self.assert_statuses([201 if entry == winner else 422 for entry in asked], answers)
        self.assertEqual([winner], [entry for entry in self.book().values() if entry in entries])

    def test_a_late_retry_undoes_nothing(self) -> None:
        retry = post(FIRST, 'late')
        path = self.crowd([retry])[0].headers['Location']
        answers = self.crowd([request for entry in OTHERS[:CROWD // 2]
                              for request in (Request('PUT', path, entry), retry, retry)])
        self.assert_statuses([204, 201, 201] * (CROWD // 2), answers)
        self.assertEqual({path, None}, {answer.headers['Location'] for answer in answers})
        self.assertIn(self.entry(path), OTHERS)

    def test_the_pages_of_the_book_have_all_that_stays_once(self) -> None:
        others = Others(self, 'Gasse')
        found = self.walk(f'/addressbook?limit={PAGE}', others.write)
        self.assertEqual(sorted(set(found)), found)
        self.assertLessEqual({*others.untouched, *others.renamed}, set(found))

    def test_the_pages_of_a_search_have_all_that_stays_once(self) -> None:
        others = Others(self, 'Straße')
        found = Counter(self.walk(f'/addressbook?limit={PAGE}&name=sTRASSE', others.write))
        self.assertEqual(dict.fromkeys(others.untouched, 1),
                         {nickname: found[nickname] for nickname in others.untouched})

    def walk(self, path: str, meanwhile: Callable[[list[str]], list[Request]]) -> list[str]:
        """The ids on a page of the first process and on all that follow it.

        :param meanwhile: what the last process is asked at the same time as the first one for the
            next page; by the ids on the page before
        """
        found: list[str] = []
        writes: list[Request] = []
        while path:
            page, *written = self.crowd(
                [Request('GET', path), *writes],
                [self.servers[0], *[self.servers[-1]] * len(writes)])
            self.assertEqual(200, page.status, page.body)
            self.assertLessEqual({answer.status for answer in written}, {201, 204})
            nicknames = list(json.loads(page.body))
            self.assertLessEqual(len(nicknames), PAGE)
            found += nicknames
            self.assertLess(len(found), 10 * CROWD, 'there is no end')
            writes = meanwhile(nicknames)
            following = re.fullmatch('<(.*)>; rel="next"', page.headers['Link'] or '')
            path = following[1] if following else ''
        return found


class SQLiteConcurrencyTest(OnSQLite, ConcurrencyTest):
    """The same of two processes and a file."""


class PostgreSQLConcurrencyTest(OnPostgreSQL, ConcurrencyTest):
    """The same of two processes and a server."""


class Others:
    """Who creates, deletes and renames entries while somebody reads one page after another.

    Of the entries that are there from the start, a third is never touched, a third is renamed at
    some time, and a third deleted. Several have the same name.

    :param name: what all names begin with
    """

    def __init__(self, test: ReplicasTestCase, name: str) -> None:
        made = test.crowd([post({'name': f'{name} {number // 6}'}) for number in range(54)])
        nicknames = [answer.headers['Location'].rpartition('/')[2] for answer in made]
        self.untouched, self.renamed, deleted = (nicknames[first::3] for first in range(3))
        self._changes: dict[str, Request] = {}
        # In a search, one half of the renamed goes forwards and the other one backwards.
        for renamed, end, gone in zip(self.renamed, itertools.cycle('09'), deleted):
            new = {'name': f'{name} {end}'}
            self._changes[renamed] = Request('PUT', f'/addressbook/{renamed}', new)
            self._changes[gone] = Request('DELETE', f'/addressbook/{gone}')
        self._creations = iter([post({'name': f'{name} {number % 10}'}) for number in range(20)])

    def write(self, read: Iterable[str]) -> list[Request]:
        """What to write after a page: changes to its entries and to some far ahead, and a new one.

        What the link to the next page refers to may be among them.
        """
        changed = {*read, *[*self._changes][-2:]} & self._changes.keys()
        changes = [self._changes.pop(nickname) for nickname in changed]
        return [*changes, *itertools.islice(self._creations, 1)]


if __name__ == '__main__':
    unittest.main()
