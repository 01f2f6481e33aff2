"""The JSON Schema of an entry, place by place, as both validators read it."""

import unittest
from typing import Final

import jsonschema_rs
from jsonschema import Draft7Validator

from addrservice import ENTRY_SCHEMA
from tests.entries import (
    ADDRESS, ARRAYS, EMAIL, EMAIL_ADDRESS, KINDS, LONGEST_EMAIL, NUMBERS, OBJECTS, PHONE,
    REQUIRED, TEXTS, Place, at, full_entry, places, replaced, without,
)
from tests.support import ADDRESSES, address

_decides: Final = jsonschema_rs.Draft7Validator(ENTRY_SCHEMA, validate_formats=False)
_explains: Final = Draft7Validator(ENTRY_SCHEMA)


class SchemaTestCase(unittest.TestCase):
    """What one validator takes and the other refuses fails the test."""

    def is_valid(self, entry: object) -> bool:
        valid = _decides.is_valid(entry)
        self.assertEqual(valid, not list(_explains.iter_errors(entry)), entry)
        return valid

    def assert_valid(self, entry: object) -> None:
        self.assertTrue(self.is_valid(entry), entry)

    def assert_invalid(self, entry: object) -> None:
        self.assertFalse(self.is_valid(entry), entry)


class SchemaTest(SchemaTestCase):
    """The schema as a document."""

    def test_it_is_valid_draft_07(self) -> None:
        self.assertEqual('http://json-schema.org/draft-07/schema#', ENTRY_SCHEMA['$schema'])
        Draft7Validator.check_schema(ENTRY_SCHEMA)
        jsonschema_rs.meta.validate(ENTRY_SCHEMA)

    def test_it_knows_exactly_the_properties_of_an_entry(self) -> None:
        entry = full_entry()
        parts = {'address': ADDRESS, 'phone': PHONE, 'email': EMAIL}
        self.assertEqual(set(entry), set(ENTRY_SCHEMA['properties']))
        for name, place in parts.items():
            with self.subTest(name):
                self.assertEqual(set(at(entry, place)),
                                 set(ENTRY_SCHEMA['definitions'][name]['properties']))

    def test_these_tests_know_every_place_of_an_entry(self) -> None:
        known = [*OBJECTS, *ARRAYS, *KINDS, *TEXTS, *NUMBERS, EMAIL_ADDRESS]
        self.assertCountEqual(known, places(full_entry()))


class DataTest(SchemaTestCase):
    """The entries that come with the tests."""

    def test_every_entry_of_the_test_data_is_valid(self) -> None:
        files = sorted(path.stem for path in ADDRESSES.glob('*.json'))
        self.assertLessEqual({'namo', 'raga'}, set(files))
        for name in files:
            with self.subTest(name):
                self.assert_valid(address(name))

    def test_they_are_who_their_file_says(self) -> None:
        self.assertEqual('Narendra Modi', address('namo')['name'])
        self.assertEqual('Rahul Gandhi', address('raga')['name'])


class StructureTest(SchemaTestCase):
    """Which properties there may be, and which there must be."""

    def test_an_entry_may_use_every_property(self) -> None:
        self.assert_valid(full_entry())

    def test_a_name_is_enough(self) -> None:
        self.assert_valid({'name': 'Ada Lovelace'})

    def test_an_entry_is_an_object(self) -> None:
        values: list[object] = [None, True, 1, 'Ada', [], [full_entry()], {}]
        for value in values:
            with self.subTest(value=value):
                self.assert_invalid(value)

    def test_required_properties_cannot_be_left_out(self) -> None:
        for place in REQUIRED:
            with self.subTest(place=place):
                self.assert_invalid(without(full_entry(), place))

    def test_all_others_can_be_left_out(self) -> None:
        for place in [*ARRAYS, *KINDS, *TEXTS, *NUMBERS, EMAIL_ADDRESS]:
            if place not in REQUIRED:
                with self.subTest(place=place):
                    self.assert_valid(without(full_entry(), place))

    def test_required_properties_alone_are_enough(self) -> None:
        entry = full_entry()
        for place in [*NUMBERS, *TEXTS]:
            if place not in REQUIRED:
                entry = without(entry, place)
        self.assert_valid(entry)

    def test_an_unknown_property_is_refused_wherever_it_is(self) -> None:
        for place in OBJECTS:
            for name in ('nickname', '', 'Name', 'kind ', 'id'):
                with self.subTest(place=place, name=name):
                    self.assert_invalid(replaced(full_entry(), (*place, name), 'x'))

    def test_a_list_may_be_empty(self) -> None:
        for place in ARRAYS:
            with self.subTest(place=place):
                self.assert_valid(replaced(full_entry(), place, []))

    def test_a_list_has_at_most_100_items(self) -> None:
        for place in ARRAYS:
            with self.subTest(place=place):
                item = at(full_entry(), place)[0]
                self.assert_valid(replaced(full_entry(), place, [item] * 100))
                self.assert_invalid(replaced(full_entry(), place, [item] * 101))

    def test_every_item_of_a_list_is_looked_at(self) -> None:
        for place in ARRAYS:
            with self.subTest(place=place):
                item = at(full_entry(), place)[0]
                self.assert_invalid(replaced(full_entry(), place, [item, {}]))


class ValueTest(SchemaTestCase):
    """What may stand in each place."""

    def assert_refused(self, place: Place, *values: object) -> None:
        for value in values:
            with self.subTest(place=place, value=value):
                self.assert_invalid(replaced(full_entry(), place, value))

    def assert_taken(self, place: Place, *values: object) -> None:
        for value in values:
            with self.subTest(place=place, value=value):
                self.assert_valid(replaced(full_entry(), place, value))

    def test_every_place_refuses_values_of_other_types(self) -> None:
        for place in OBJECTS:
            self.assert_refused(place, None, True, 1, 1.5, 'x', [], [{}])
        for place in ARRAYS:
            self.assert_refused(place, None, False, 0, 1.5, 'x', {}, {'0': {}})
        for place in [*TEXTS, *KINDS, EMAIL_ADDRESS]:
            self.assert_refused(place, None, True, 0, 1.5, [], ['work'], {}, {'kind': 'work'})
        for place in NUMBERS:
            self.assert_refused(place, None, True, False, [], [1], {}, {'number': 1})

    def test_a_kind_is_home_or_work(self) -> None:
        for place in KINDS:
            self.assert_taken(place, 'home', 'work')
            self.assert_refused(place, '', 'mobile', 'Home', 'work ', 'home\n', 'work\0', 'atwork')

    def test_a_name_is_not_empty(self) -> None:
        self.assert_taken(('name',), ' ', '0', '\n')
        self.assert_refused(('name',), '')

    def test_a_text_has_at_most_256_characters(self) -> None:
        """Characters are code points, not bytes and not UTF-16 code units."""
        for place in [*TEXTS, *NUMBERS]:
            self.assert_taken(place, 'x' * 256, '\U0001f600' * 256)
            self.assert_refused(place, 'x' * 257, '\U0001f600' * 257)

    def test_no_text_contains_the_null_character(self) -> None:
        for place in [*TEXTS, *NUMBERS]:
            self.assert_refused(place, '\0', 'x\0', '\0x', 'x\n\0', 'x\0\n', 'x' * 255 + '\0')

    def test_a_text_may_contain_any_other_character(self) -> None:
        for place in [*TEXTS, *NUMBERS]:
            self.assert_taken(place, '\x01', '\n', 'x\r\n', '\x7f\x85', '\u2028', '\ufeffx',
                              '\ufffe\uffff', '\U0010ffff', "'\"\\/", '<b>&amp;', 'नरेन्द्र')

    def test_numbers_may_be_text_where_real_ones_are(self) -> None:
        for place in NUMBERS:
            self.assert_taken(place, '12B', 'SW1A 2AA', '020 7946', '+91', '011', '')

    def test_numbers_are_those_that_every_reader_of_json_keeps_exactly(self) -> None:
        largest = 2**53 - 1
        for place in NUMBERS:
            self.assert_taken(place, 0, 1, -1, 110011, 1.5, -0.0, 5e-324, largest, -largest,
                              float(largest), float(-largest))
            self.assert_refused(place, 2**53, -2**53, 2.0**53, -2.0**53, 2**63, 2**64, -2**64,
                                10**400, 1e308, -1e308)

    def test_an_email_address_is_one(self) -> None:
        self.assert_taken(
            EMAIL_ADDRESS, 'ada@example.org', 'a@b', 'ada.lovelace+books@mail.example.co.uk',
            "o'neil_%-{x}@example.org", 'Ädä@bücher.example', 'नरेन्द्र@example.in')

    def test_what_is_no_email_address_is_refused(self) -> None:
        self.assert_refused(
            EMAIL_ADDRESS, '', 'ada', '@', 'ada@', '@example.org', 'ada@@example.org',
            'a@b@c', 'ada @example.org', 'ada@exam ple.org', ' ada@example.org',
            'ada@example.org ', 'ada@.org', 'ada@example.', 'ada@example..org', 'ada@exa_mple.org',
            '<ada@example.org>', 'ada@example.org,bob@example.org', '"ada"@example.org',
            'ada@[127.0.0.1]', 'mailto:ada@example.org', 'ada@exämple\0.org', 'ada\0@example.org')

    def test_a_line_break_does_not_end_an_email_address(self) -> None:
        self.assert_refused(
            EMAIL_ADDRESS, 'ada@example.org\n', 'ada@example.org\r\n', 'ada@example.org\n\n',
            '\nada@example.org', 'ada\n@example.org', 'x\nada@example.org', 'ada@example.org\nx')

    def test_an_email_address_has_at_most_254_characters(self) -> None:
        self.assert_taken(EMAIL_ADDRESS, LONGEST_EMAIL)
        self.assert_refused(EMAIL_ADDRESS, 'a' + LONGEST_EMAIL)
