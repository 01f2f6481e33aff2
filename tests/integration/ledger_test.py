"""Nothing that was acknowledged is lost in a crash, in a short form; and the ledger that tells."""

import random
import unittest
from typing import Any

from tests.ledger import Ledger, content_of, crash_test


class CrashTest(unittest.TestCase):
    """The service and its database are killed while clients write."""

    def assert_nothing_lost(self, backend: str, kills: int) -> None:
        seed = random.randrange(1_000_000)
        with self.subTest(seed=seed):
            report = crash_test(backend, kills=kills, writes=200, writers=8, seed=seed)
            self.assertEqual([], sum(report.faults.values(), [])[:10], report)
            self.assertGreater(report.unknown, 0, 'no crash met a request')

    def test_sqlite_keeps_what_was_acknowledged_before_the_service_was_killed(self) -> None:
        self.assert_nothing_lost('sqlite', 2)

    def test_postgresql_keeps_what_was_acknowledged_before_it_or_the_service_was_killed(
        self
    ) -> None:
        self.assert_nothing_lost('postgresql', 1)


class LedgerTest(unittest.TestCase):
    """What the ledger says of a book."""

    def setUp(self) -> None:
        self.ledger = Ledger()
        self.ledger.created('id', 'a')

    def assert_faults(self, kinds: list[str], book: dict[str, Any]) -> None:
        faults = self.ledger.faults(book)
        self.assertEqual(kinds, [kind for kind, lines in faults.items() for _ in lines])

    def assert_states(self, expected: dict[str | None, list[str]]) -> None:
        """Checks what it says of each state of the entry."""
        for state, kinds in expected.items():
            with self.subTest(state):
                self.assert_faults(kinds, {} if state is None else {'id': content_of(state)})

    def test_an_acknowledged_entry_has_to_be_there_with_its_content(self) -> None:
        self.assert_states({'a': [], None: ['lost'], 'b': ['wrong']})

    def test_an_acknowledged_update_leaves_only_the_new_content(self) -> None:
        self.ledger.changed('id', 'b')
        self.assert_states({'b': [], 'a': ['lost'], None: ['lost'], 'c': ['wrong']})

    def test_an_acknowledged_delete_leaves_nothing(self) -> None:
        self.ledger.changed('id', None)
        self.assert_states({None: [], 'a': ['resurrected'], 'b': ['resurrected']})

    def test_an_update_of_unknown_outcome_leaves_the_old_content_or_the_new_one(self) -> None:
        self.ledger.changed('id', 'b')
        self.ledger.may_be_changed('id', 'c')
        self.assert_states({'b': [], 'c': [], 'a': ['lost'], None: ['lost'], 'd': ['wrong']})

    def test_a_delete_of_unknown_outcome_leaves_the_content_or_nothing(self) -> None:
        self.ledger.changed('id', 'b')
        self.ledger.may_be_changed('id', None)
        self.assert_states({'b': [], None: [], 'a': ['lost'], 'c': ['wrong']})

    def test_an_acknowledged_update_settles_what_was_unknown(self) -> None:
        self.ledger.may_be_changed('id', 'b')
        self.ledger.changed('id', 'c')
        self.assert_states({'c': [], 'a': ['lost'], 'b': ['lost'], None: ['lost']})

    def test_a_creation_of_unknown_outcome_allows_for_one_entry_with_its_content(self) -> None:
        self.ledger.may_be_created('b')
        book = {'id': content_of('a')}
        self.assert_faults([], book)
        self.assert_faults([], {**book, 'x': content_of('b')})
        self.assert_faults(['too many'], {**book, 'x': content_of('c')})
        self.assert_faults(['too many'], {**book, 'x': content_of('b'), 'y': content_of('b')})

    def test_an_entry_that_nobody_made_is_too_many(self) -> None:
        self.assert_faults(['too many'], {'id': content_of('a'), 'x': content_of('a')})

    def test_the_whole_content_counts(self) -> None:
        mixed = {**content_of('a'), 'emails': content_of('b')['emails']}
        more = {**content_of('a'), 'faxNumbers': []}
        for entry in (mixed, more, {'name': 'a'}, {}, None):
            with self.subTest(entry):
                self.assert_faults(['wrong'], {'id': entry})

    def test_no_two_entries_have_one_id(self) -> None:
        with self.assertRaisesRegex(AssertionError, 'the id id was given to two entries'):
            self.ledger.created('id', 'b')
