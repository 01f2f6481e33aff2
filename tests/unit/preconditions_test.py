"""Conditional requests: what entity tags and dates ask for, and what comes of it."""

import time
import unittest
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import product
from typing import Final
from unittest import mock

from addrservice.preconditions import Preconditions, entity_tag, last_modified

# A version, the second it is of, and that as HTTP has it.
VERSION: Final = 784_111_777_123_456
DATE: Final = 'Sun, 06 Nov 1994 08:49:37 GMT'
BEFORE: Final = 'Sun, 06 Nov 1994 08:49:36 GMT'
AFTER: Final = 'Sun, 06 Nov 1994 08:49:38 GMT'

TAG: Final = f'"{VERSION}"'
GZIPPED: Final = f'"{VERSION}-gzip"'

# Lists with a tag of the version in them, which is a strong one.
STRONG: Final = (
    TAG, GZIPPED, f' {TAG} ', f'"x", {TAG}', f'{TAG},"x"', f'"x",{GZIPPED},"y"', f'\t"x"\t,\t{TAG}',
    f',,{TAG}', f'W/"x", {TAG}', f'W/{TAG}, {TAG}', f'"", {TAG}', f'"a,b", {TAG}',
    f'"\xe4", {TAG}', f'"W/", {TAG}', '*', ' * ',
    ', '.join(f'"{n}"' for n in range(99)) + f', {TAG}',
)

# Lists with only weak ones of it.
WEAK: Final = (f'W/{TAG}', f'W/{GZIPPED}', f'"x", W/{TAG}', f'W/"x",W/{TAG}')

# Whatever is no tag of it.
NONE: Final = (
    '', ' ', ',', '"x"', 'W/"x"', f'"{VERSION + 1}"', f'"{VERSION - 1}"', f'"{VERSION}0"',
    f'"0{VERSION}"', f'"{VERSION}-GZIP"', f'"{VERSION}-gzip-gzip"', f'"-gzip{VERSION}"', '""',
    '"*"', 'W/*', f'" {VERSION}"', '"x,y"', '"x" "',
)

# What is no tag, with one of it inside.
NO_TAGS: Final = (
    str(VERSION), f"'{VERSION}'", f'"{VERSION}', f'{VERSION}"', f'w/{TAG}', f'W/ {TAG}', f'x{TAG}',
    f'{TAG}x', f'"x"{TAG}', f'W{TAG}', f'/{TAG}', f'W/W/{TAG}', f'"x" {TAG}',
)

# The date, as old senders have it (RFC 9110, 5.6.7).
OTHER_FORMS: Final = ('Sunday, 06-Nov-94 08:49:37 GMT', 'Sun Nov  6 08:49:37 1994')

NO_DATES: Final = (
    '', ' ', 'yesterday', '0', '784111777', '-1', DATE[5:9], 'Sun, 31 Feb 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 25:49:37 GMT', 'Sun, 06 Nov 99999999999 08:49:37 GMT', '1994-11-06',
    'Sun, 06 Foo 1994 08:49:37 GMT', 'Sun, 06 Nov 1994', '\xe4', ', ' * 50, '(' * 50,
    'Sun, 06 Nov 1994 08:49:37 +99999999',
)


class ValidatorTest(unittest.TestCase):
    """What an answer says of a version."""

    def test_a_version_and_its_gzip_form_have_a_strong_tag_each(self) -> None:
        self.assertEqual(TAG, entity_tag(VERSION))
        self.assertEqual(GZIPPED, entity_tag(VERSION, gzipped=True))

    def test_whatever_else_has_one_version_has_tags_too(self) -> None:
        self.assertEqual('"1.0-x"', entity_tag('1.0-x'))
        self.assertEqual('"1.0-x-gzip"', entity_tag('1.0-x', gzipped=True))

    def test_the_last_change_is_told_in_seconds(self) -> None:
        for microseconds in (0, 1, 999_999):
            self.assertEqual(DATE, last_modified(784_111_777_000_000 + microseconds))
        self.assertEqual('Thu, 01 Jan 1970 00:00:00 GMT', last_modified(0))

    def test_the_last_change_is_never_one_to_come(self) -> None:
        """Where a clock went back, or another replica's is fast (RFC 9110, 8.8.2.1)."""
        with mock.patch('time.time', return_value=784_111_777.9):
            for seconds in (0, 1, 3600):
                self.assertEqual(DATE, last_modified(VERSION + seconds * 1_000_000))
        told = parsedate_to_datetime(last_modified(time.time_ns()))
        self.assertLessEqual(told, datetime.now(UTC))


class HeadersTest(unittest.TestCase):
    """Where the preconditions come from."""

    def test_each_header_is_one(self) -> None:
        headers = {'If-Match': 'a', 'If-None-Match': 'b', 'If-Modified-Since': 'c',
                   'If-Unmodified-Since': 'd', 'If-Range': 'e', 'ETag': 'f'}
        self.assertEqual(
            Preconditions(if_match='a', if_none_match='b', if_modified_since='c',
                          if_unmodified_since='d'), Preconditions.of(headers))

    def test_without_headers_there_are_none(self) -> None:
        self.assertIsNone(Preconditions.of({'Accept': '*/*'}))

    def test_where_there_are_none_all_is_allowed(self) -> None:
        none = Preconditions()
        self.assertFalse(none.concern_writing())
        self.assertTrue(none.allow_reading(VERSION))
        self.assertTrue(none.allow_writing(VERSION))
        self.assertFalse(none.find_unmodified(VERSION))

    def test_each_but_if_modified_since_concerns_writing(self) -> None:
        """An empty one too: it is there."""
        for field in ('', 'x', TAG, DATE):
            for name in Preconditions._fields:
                with self.subTest(name=name, field=field):
                    self.assertIs(name != 'if_modified_since',
                                  Preconditions(**{name: field}).concern_writing())

    def test_what_any_entry_meets_does_not_concern_writing(self) -> None:
        """Nothing has to be read for it: where there is no entry, that is told in any case."""
        for field in ('*', ' * '):
            self.assertFalse(Preconditions(if_match=field).concern_writing())
            self.assertFalse(Preconditions(field, if_unmodified_since=DATE).concern_writing())
            self.assertTrue(Preconditions(field, if_none_match=TAG).concern_writing())


class PreconditionTestCase(unittest.TestCase):
    def assert_allowed(self, writing: bool, reading: bool | None = None, **fields: str) -> None:
        """Whether who writes and, the same unless told, who reads may go on."""
        preconditions = Preconditions(**fields)
        with self.subTest(**fields):
            self.assertIs(writing, preconditions.allow_writing(VERSION))
            self.assertIs(writing if reading is None else reading,
                          preconditions.allow_reading(VERSION))

    def assert_unmodified(self, unmodified: bool, **fields: str) -> None:
        """Whether who reads has the entry already."""
        with self.subTest(**fields):
            self.assertIs(unmodified, Preconditions(**fields).find_unmodified(VERSION))


class IfMatchTest(PreconditionTestCase):
    """The entry must be one of those that are listed."""

    def test_a_strong_tag_of_the_version_matches(self) -> None:
        for field in STRONG:
            self.assert_allowed(True, if_match=field)

    def test_a_weak_one_does_not(self) -> None:
        for field in WEAK:
            self.assert_allowed(False, if_match=field)

    def test_no_other_one_does(self) -> None:
        for field in NONE:
            self.assert_allowed(False, if_match=field)

    def test_what_is_no_tag_matches_nothing(self) -> None:
        for field in NO_TAGS:
            self.assert_allowed(False, if_match=field)

    def test_it_makes_if_unmodified_since_count_for_nothing(self) -> None:
        for date in (BEFORE, AFTER, 'yesterday'):
            self.assert_allowed(True, if_match=TAG, if_unmodified_since=date)
            self.assert_allowed(False, if_match='"x"', if_unmodified_since=date)

    def test_it_says_nothing_of_what_the_reader_has(self) -> None:
        for field in (*STRONG, *WEAK, *NONE):
            self.assert_unmodified(False, if_match=field)


class IfNoneMatchTest(PreconditionTestCase):
    """The entry must be none of those that are listed; to who reads it need not be sent then."""

    def test_a_tag_of_the_version_matches_weak_or_strong(self) -> None:
        for field in (*STRONG, *WEAK):
            self.assert_allowed(False, reading=True, if_none_match=field)
            self.assert_unmodified(True, if_none_match=field)

    def test_no_other_one_does(self) -> None:
        for field in (*NONE, *NO_TAGS):
            self.assert_allowed(True, if_none_match=field)
            self.assert_unmodified(False, if_none_match=field)

    def test_it_makes_if_modified_since_count_for_nothing(self) -> None:
        for date in (BEFORE, AFTER, 'yesterday'):
            self.assert_unmodified(True, if_none_match=TAG, if_modified_since=date)
            self.assert_unmodified(False, if_none_match='"x"', if_modified_since=date)

    def test_who_writes_has_to_meet_it_beside_the_others(self) -> None:
        for match, met in ((TAG, True), ('"x"', False)):
            self.assert_allowed(met, if_match=match, if_none_match='"x"')
            self.assert_allowed(False, reading=met, if_match=match, if_none_match=TAG)
        for date, met in ((DATE, True), (BEFORE, False)):
            self.assert_allowed(met, if_unmodified_since=date, if_none_match='"x"')
            self.assert_allowed(False, reading=met, if_unmodified_since=date, if_none_match=TAG)


class DateTest(PreconditionTestCase):
    """The entry must be unmodified since a date; or need not be sent unless it was modified."""

    def test_who_changes_what_was_not_changed_since_may(self) -> None:
        for date in (DATE, AFTER, 'Fri, 31 Dec 9999 23:59:59 GMT', *OTHER_FORMS):
            self.assert_allowed(True, if_unmodified_since=date)
        for date in (BEFORE, 'Thu, 01 Jan 1970 00:00:00 GMT'):
            self.assert_allowed(False, if_unmodified_since=date)

    def test_who_has_what_was_not_changed_since_need_not_get_it(self) -> None:
        for date in (DATE, AFTER, 'Fri, 31 Dec 9999 23:59:59 GMT', *OTHER_FORMS):
            self.assert_unmodified(True, if_modified_since=date)
        for date in (BEFORE, 'Thu, 01 Jan 1970 00:00:00 GMT'):
            self.assert_unmodified(False, if_modified_since=date)

    def test_what_is_told_as_the_last_change_is_such_a_date(self) -> None:
        date = last_modified(VERSION)
        self.assert_allowed(True, if_unmodified_since=date)
        self.assert_unmodified(True, if_modified_since=date)
        later = Preconditions(if_unmodified_since=date, if_modified_since=date)
        self.assertFalse(later.allow_writing(VERSION + 1_000_000))
        self.assertFalse(later.find_unmodified(VERSION + 1_000_000))

    def test_what_is_no_date_is_as_if_it_were_not_there(self) -> None:
        for date in NO_DATES:
            self.assert_allowed(True, if_unmodified_since=date)
            self.assert_unmodified(False, if_modified_since=date)

    def test_neither_counts_for_the_other(self) -> None:
        for date in (BEFORE, DATE, AFTER):
            self.assert_allowed(True, if_modified_since=date)
            self.assert_unmodified(False, if_unmodified_since=date)


class PrecedenceTest(unittest.TestCase):
    """All together, as RFC 9110 (13.2.2) has them in order."""

    def test_each_combination_comes_out_as_the_steps_say(self) -> None:
        tags = {None: None, TAG: True, '"x"': False}
        dates: dict[str | None, bool | None] = {None: None, DATE: True, BEFORE: False}
        for match, unmodified, none, modified in product(tags, dates, tags, dates):
            met = tags[match] if match is not None else dates[unmodified] is not False
            has = tags[none] is True
            unchanged = has if none is not None else dates[modified] is True
            preconditions = Preconditions(match, unmodified, none, modified)
            with self.subTest(preconditions=preconditions):
                self.assertIs(met, preconditions.allow_reading(VERSION))
                self.assertIs(met and not has, preconditions.allow_writing(VERSION))
                self.assertIs(unchanged, preconditions.find_unmodified(VERSION))


if __name__ == '__main__':
    unittest.main()
