"""What may enter the store, what is said of the rest, and that two validators agree on it."""

import datetime
import decimal
import itertools
import json
import unittest
import uuid
from collections.abc import Callable
from typing import Any, Final

from hypothesis import given, settings, strategies as st

from addrservice import ENTRY_SCHEMA
from addrservice.errors import (
    InvalidEntryError, InvalidInputError, InvalidJSONError, Violation, json_pointer,
)
from addrservice.explanation import MAX_VIOLATIONS, explain
from addrservice.validation import parse_json, serialise_entry
from tests.entries import (
    ADDRESS, ARRAYS, EMAIL_ADDRESS, KINDS, LONGEST_EMAIL, NUMBERS, OBJECTS, REQUIRED, TEXTS,
    Place, at, full_entry, places, replaced, without,
)
from tests.properties import keep_home_temporary
from tests.support import address

MARK: Final = 'swordfish'
LARGEST: Final = 2**53 - 1

PROPERTY: Final = settings(max_examples=200, deadline=None, database=None, derandomize=True)


setUpModule = keep_home_temporary


def nested(levels: int) -> list[Any]:
    """An empty list in that many others."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def violations(entry: Any) -> list[Violation]:
    """What ``serialise_entry`` says of an entry that it refuses."""
    try:
        serialise_entry(entry)
    except InvalidEntryError as error:
        return list(error.violations)
    raise AssertionError(f'was taken: {entry!r}')


class ParseTest(unittest.TestCase):
    """JSON as RFC 8259 has it, no more and no less."""

    def assert_refused(self, text: bytes) -> None:
        with self.assertRaises(InvalidJSONError) as caught:
            parse_json(text)
        self.assertEqual('Invalid JSON body', str(caught.exception))
        self.assertIsInstance(caught.exception, ValueError)
        (violation,) = caught.exception.violations
        self.assertEqual('', violation.path)
        self.assertRegex(violation.message, r'\w+.* line 1 column \d+')
        self.assertIsNone(caught.exception.__cause__)

    def test_every_kind_of_value_is_read(self) -> None:
        text = b' {"a": [null, true, false, -1, 2.5e3, "\\u00e4\xc3\xa4\\ud83d\\ude00"]} \n'
        self.assertEqual({'a': [None, True, False, -1, 2500.0, 'ää\U0001f600']}, parse_json(text))

    def test_keys_keep_their_order(self) -> None:
        self.assertEqual(['b', 'a', 'c'], list(parse_json(b'{"b": 1, "a": 2, "c": 3}')))

    def test_numbers_that_json_does_not_know_are_refused(self) -> None:
        for text in (b'NaN', b'-NaN', b'Infinity', b'-Infinity', b'[NaN]', b'01', b'+1', b'.5',
                     b'0x10', b'1_000'):
            with self.subTest(text=text):
                self.assert_refused(text)

    def test_numbers_that_no_double_can_hold_are_refused(self) -> None:
        for text in (b'1e400', b'-1e400', b'9' * 5000, b'{"a": 1e400}'):
            with self.subTest(text=text[:20]):
                self.assert_refused(text)

    def test_what_is_not_utf_8_is_refused(self) -> None:
        for text in (b'"\xed\xa0\x80"', b'"\xff"', b'"\xc0\x80"', b'\xef\xbb\xbf{}',
                     '{}'.encode('utf-16'), '{}'.encode('utf-16-le'), '{}'.encode('utf-32')):
            with self.subTest(text=text):
                self.assert_refused(text)

    def test_a_lone_surrogate_is_refused(self) -> None:
        for text in (b'"\\ud800"', b'"\\udc00"', b'"\\ud800x"', b'{"\\ud800": 1}'):
            with self.subTest(text=text):
                self.assert_refused(text)

    def test_what_is_not_json_at_all_is_refused(self) -> None:
        for text in (b'', b' ', b'{', b'{}}', b"{'a': 1}", b'{"a": 1,}', b'{a: 1}', b'nul',
                     b'"\n"', b'"\0"', b'name=Ada', b'<name/>', b'{} // no'):
            with self.subTest(text=text):
                self.assert_refused(text)

    def test_what_is_nested_without_end_is_refused(self) -> None:
        self.assert_refused(b'[' * 100_000)
        self.assert_refused(b'[' * 100_000 + b']' * 100_000)

    def test_a_reason_does_not_repeat_the_text(self) -> None:
        with self.assertRaises(InvalidJSONError) as caught:
            parse_json(b'{"name": "%b" oops}' % MARK.encode())
        self.assertNotIn(MARK, caught.exception.violations[0].message)

    def test_what_json_allows_and_an_entry_does_not_is_left_to_the_schema(self) -> None:
        for text in (b'18446744073709551616', b'9007199254740992', b'"\\u0000"', b'[]', b'1',
                     b'[' * 1000 + b']' * 1000):
            with self.subTest(text=text[:20]):
                with self.assertRaises(InvalidEntryError):
                    serialise_entry(parse_json(text))
                value = replaced(full_entry(), NUMBERS[0], parse_json(text))
                if text != b'1':
                    self.assertEqual(1, len(violations(value)))


class ExplainTest(unittest.TestCase):
    """Where an entry is wrong, and what a person can do about it."""

    def test_nothing_is_said_of_a_valid_entry(self) -> None:
        for entry in (full_entry(), {'name': 'Ada'}, address('namo'), address('raga')):
            self.assertEqual([], list(explain(entry)))

    def test_each_kind_of_mistake_has_its_message(self) -> None:
        mistakes: list[tuple[Place, object, str]] = [
            ((), None, 'must be an object'),
            ((), [], 'must be an object'),
            (('name',), 1, 'must be a string'),
            (('name',), '', 'must not be empty'),
            (('name',), 'x' * 257, 'must be at most 256 characters long'),
            (('name',), 'x\0', 'must not contain the character U+0000'),
            (('addresses',), {}, 'must be an array'),
            (('addresses',), full_entry()['addresses'] * 101, 'must have at most 100 items'),
            ((*ADDRESS, 'kind'), 'away', 'must be one of home, work'),
            ((*ADDRESS, 'pincode'), None, 'must be a number or a string'),
            ((*ADDRESS, 'pincode'), 2**53, 'must be at most 9007199254740991'),
            ((*ADDRESS, 'pincode'), -2**53, 'must be at least -9007199254740991'),
            ((*ADDRESS, 'colour'), 1, 'is not a known property'),
            (EMAIL_ADDRESS, 'ada', 'must be an email address such as name@example.org'),
            (EMAIL_ADDRESS, 'a' + LONGEST_EMAIL, 'must be at most 254 characters long'),
        ]
        for place, value, message in mistakes:
            with self.subTest(message, place=place):
                found = explain(replaced(full_entry(), place, value))
                self.assertEqual([Violation(json_pointer(place), message)], list(found))

    def test_a_missing_property_is_named_at_its_object(self) -> None:
        for place in REQUIRED:
            with self.subTest(place=place):
                self.assertEqual(
                    [Violation(json_pointer(place[:-1]), f"'{place[-1]}' is a required property")],
                    list(explain(without(full_entry(), place))))

    def test_a_wrong_type_is_named_at_every_place(self) -> None:
        wanted = {
            'must be an object': OBJECTS,
            'must be an array': ARRAYS,
            'must be a string': [*TEXTS, *KINDS, EMAIL_ADDRESS],
            'must be a number or a string': NUMBERS,
        }
        for message, places_of_type in wanted.items():
            for place in places_of_type:
                with self.subTest(place=place):
                    found = explain(replaced(full_entry(), place, None))
                    self.assertIn(Violation(json_pointer(place), message), found)
                    self.assertEqual({json_pointer(place)}, {path for path, _ in found})

    def test_an_unknown_property_is_named_at_every_object(self) -> None:
        for place in OBJECTS:
            with self.subTest(place=place):
                found = explain(replaced(full_entry(), (*place, 'colour'), 'red'))
                self.assertEqual(
                    [Violation(json_pointer(place) + '/colour', 'is not a known property')],
                    list(found))

    def test_all_mistakes_of_an_entry_are_named(self) -> None:
        entry = full_entry()
        wrong: list[Place] = [('name',), KINDS[1], NUMBERS[2], EMAIL_ADDRESS, ('colour',)]
        for place in wrong:
            entry = replaced(entry, place, [])
        self.assertEqual({json_pointer(place) for place in wrong},
                         {path for path, _ in explain(entry)})

    def test_the_item_of_a_list_is_named_by_its_number(self) -> None:
        item = full_entry()['emails'][0]
        entry = replaced(full_entry(), ('emails',), [item, item, {**item, 'value': 'ada'}])
        self.assertEqual(['/emails/2/value'], [path for path, _ in explain(entry)])

    def test_several_unknown_properties_of_one_object_are_each_named(self) -> None:
        self.assertEqual(['/first', '/second'],
                         [path for path, _ in explain({'name': 'x', 'first': 1, 'second': 2})])

    def test_a_path_is_a_json_pointer(self) -> None:
        """RFC 6901: ``~0`` stands for a tilde, ``~1`` for a slash."""
        self.assertEqual('', json_pointer([]))
        self.assertEqual('/emails/0/value', json_pointer(['emails', 0, 'value']))
        for name, path in {'a/b': '/a~1b', 'a~b': '/a~0b', '~1': '/~01', '/~': '/~1~0', '': '/',
                           ' "': '/ "', 'ä\n': '/ä\n'}.items():
            with self.subTest(name=name):
                self.assertEqual([Violation(path, 'is not a known property')],
                                 list(explain({'name': 'x', name: 1})))

    def test_ten_places_are_named_at_most(self) -> None:
        self.assertEqual(10, MAX_VIOLATIONS)
        many: list[object] = [
            {'name': 'x', **dict.fromkeys(map(str, range(50)), 1)},
            {'name': 'x', 'emails': [{}] * 90},
            {'name': 'x', 'addresses': [1] * 100, 'phoneNumbers': [2] * 100},
        ]
        for entry in many:
            self.assertEqual(10, len(explain(entry)))
            self.assertEqual(10, len(violations(entry)))

    def test_all_ten_are_named_where_there_are_ten(self) -> None:
        entry = {'name': 'x', **dict.fromkeys('abcdefghij', 1)}
        self.assertEqual([f'/{name}' for name in 'abcdefghij'],
                         [path for path, _ in explain(entry)])

    def test_a_message_never_repeats_the_value(self) -> None:
        wrong: list[object] = [MARK + '\0', MARK * 50, [MARK], {MARK: MARK}, [[MARK]]]
        for place in places(full_entry()):
            for value in wrong:
                with self.subTest(place=place, value=value):
                    found = violations(replaced(full_entry(), place, value))
                    self.assertNotIn(MARK, ' '.join(message for _, message in found))

    def test_a_message_never_repeats_a_number(self) -> None:
        for place in places(full_entry()):
            with self.subTest(place=place):
                for violation in violations(replaced(full_entry(), place, 12345 * 10**15)):
                    self.assertNotIn('12345', violation.message)

    def test_what_is_nested_deeply_is_refused_as_anything_else(self) -> None:
        for place in ((), ('name',), ADDRESS, ARRAYS[0], NUMBERS[0], ('colour',)):
            for levels in (300, 1000, 100_000):
                with self.subTest(place=place, levels=levels):
                    entry = replaced(full_entry(), place, nested(levels))
                    self.assertTrue(explain(entry))
                    self.assertTrue(violations(entry))

    def test_the_items_of_a_list_that_is_too_long_are_not_looked_at(self) -> None:
        """There may be thousands, and each takes its time."""
        self.assertEqual([('/emails', 'must have at most 100 items')],
                         violations({'name': 'x', 'emails': [None] * 101}))

    def test_the_error_carries_what_was_found(self) -> None:
        with self.assertRaises(InvalidEntryError) as caught:
            serialise_entry({'name': ''})
        self.assertEqual('JSON Schema validation failed', str(caught.exception))
        self.assertIsInstance(caught.exception, ValueError)
        self.assertEqual([('/name', 'must not be empty')], list(caught.exception.violations))


class Opaque:
    """Something that JSON has no form for."""


NOT_JSON: Final[dict[str, Callable[[], object]]] = {
    'a set': lambda: {MARK},
    'an object': Opaque,
    'a class': lambda: Opaque,
    'bytes': MARK.encode,
    'a generator': lambda: (c for c in MARK),
    'a complex number': lambda: 1j,
    'a date': lambda: datetime.date(2024, 2, 29),
    'a UUID': lambda: uuid.UUID(int=1),
    'not a number': lambda: float('nan'),
    'infinity': lambda: float('inf'),
    'minus infinity': lambda: float('-inf'),
    'a decimal': lambda: decimal.Decimal('1.5'),
    'a decimal that is not a number': lambda: decimal.Decimal('nan'),
    'an integer of 5,000 digits': lambda: 10**5000,
    'a lone surrogate': lambda: MARK + '\ud800',
    'a key that is a number': lambda: {1: 'x'},
    'a key that is None': lambda: {None: 'x'},
    'a key that is a tuple': lambda: {(1, 2): 'x'},
    'a key with a lone surrogate': lambda: {'\ud800': 'x'},
}


class NotJSONTest(unittest.TestCase):
    """Values of Python that JSON cannot hold are invalid entries, and no other error."""

    def assert_refused(self, entry: Any) -> None:
        with self.assertRaises(InvalidEntryError) as caught:
            serialise_entry(entry)
        found = caught.exception.violations
        self.assertTrue(0 < len(found) <= MAX_VIOLATIONS, found)
        self.assertNotIn(MARK, ' '.join(message for _, message in found))

    def test_they_are_refused_as_the_entry(self) -> None:
        for name, make in NOT_JSON.items():
            with self.subTest(name):
                self.assert_refused(make())

    def test_they_are_refused_in_every_place(self) -> None:
        for name, make in NOT_JSON.items():
            for place in places(full_entry()):
                with self.subTest(name, place=place):
                    self.assert_refused(replaced(full_entry(), place, make()))

    def test_they_are_refused_under_an_unknown_property(self) -> None:
        for name, make in NOT_JSON.items():
            with self.subTest(name):
                self.assert_refused({'name': 'x', 'colour': make()})

    def test_they_are_refused_beside_another_mistake(self) -> None:
        for name, make in NOT_JSON.items():
            with self.subTest(name):
                entry = replaced(full_entry(), NUMBERS[0], make())
                self.assert_refused({**entry, 'name': ''})
                self.assert_refused({'name': '', **entry, 'emails': 1})

    def test_keys_that_are_not_strings_are_refused_in_every_object(self) -> None:
        keys: list[Any] = [1, 1.5, None, True, (1, 2), '\ud800', b'name']
        for key in keys:
            for place in OBJECTS:
                with self.subTest(key=key, place=place):
                    self.assert_refused(replaced(full_entry(), (*place, key), 'x'))

    def test_what_contains_itself_is_refused(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        book: dict[str, Any] = {'name': 'x'}
        book['addresses'] = [book]
        for value in (loop, book):
            self.assert_refused(value)
            self.assert_refused(replaced(full_entry(), NUMBERS[0], value))

    def test_it_is_said_that_a_value_is_not_json(self) -> None:
        for value in ({1}, Opaque(), 'x\ud800'):
            (violation,) = violations({'name': value})
            self.assertEqual('', violation.path)
            self.assertTrue(violation.message.startswith('is not JSON: '), violation)


class SerialiseTest(unittest.TestCase):
    """What is stored is what the service serialised itself."""

    def assert_kept(self, entry: dict[str, Any]) -> None:
        """By the text that the standard library makes: it tells 1 from 1.0 and shows the order."""
        self.assertEqual(json.dumps(entry), json.dumps(parse_json(serialise_entry(entry))))

    def test_it_is_compact_text_in_utf_8(self) -> None:
        entry = {'name': 'Ädä', 'emails': [{'kind': 'home', 'value': 'a@b'}]}
        self.assertEqual('{"name":"Ädä","emails":[{"kind":"home","value":"a@b"}]}'.encode(),
                         serialise_entry(entry))

    def test_keys_stay_in_the_order_they_came(self) -> None:
        for keys in itertools.permutations(['name', 'emails', 'faxNumbers', 'addresses']):
            self.assert_kept({key: full_entry()[key] for key in keys})
        self.assertEqual(b'{"emails":[],"name":"x"}', serialise_entry({'emails': [], 'name': 'x'}))

    def test_numbers_are_kept_exactly(self) -> None:
        for number in (0, -1, LARGEST, -LARGEST, 1.0, -0.0, 0.1, 1e-7, 5e-324, float(LARGEST)):
            with self.subTest(number=number):
                self.assert_kept(replaced(full_entry(), NUMBERS[0], number))

    def test_texts_are_kept_exactly(self) -> None:
        for text in ('', '\x01\x1f\x7f', '\r\n\t\b\f', '"\\/', '\u2028\u2029', '\ufeff', '\uffff',
                     '\U0010ffff', 'e\u0301', '\U0001f600' * 256, '</script>', '1', 'null'):
            with self.subTest(text=text):
                self.assert_kept(replaced(full_entry(), NUMBERS[0], text))

    def test_the_test_data_is_kept(self) -> None:
        for entry in (address('namo'), address('raga'), full_entry()):
            self.assert_kept(entry)

    def test_an_invalid_entry_is_refused(self) -> None:
        with self.assertRaises(InvalidInputError):
            serialise_entry({'name': ''})

    def test_a_valid_entry_passes_and_stays_as_it_is(self) -> None:
        entry = full_entry()
        serialise_entry(entry)
        self.assertEqual(full_entry(), entry)


# Characters at the borders: of what a line is, of what UTF-16 holds in one unit, of what prints.
ODD_CHARACTERS: Final = '\x01\t\n\r\x1f "\\/~@.\x7f\x85\xa0¡ä\u2028\u2029\ud7ff\ue000\ufeff\uffff' \
                        '\U00010000\U0001f600\U0010ffff'
CHARACTERS: Final = st.sampled_from(ODD_CHARACTERS) | st.characters(
    exclude_categories=['Cs'], exclude_characters='\0')


def texts(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """Texts that a schema allows, the longest among them."""
    least, most = schema.get('minLength', 0), schema['maxLength']
    if schema.get('format') == 'email':
        letters = st.text("aZ0.!#$%&'*+/=?^_`{|}~-¡äन\u2028\uffff", min_size=1, max_size=9)
        labels = st.text('aZ0-¡äन\uffff', min_size=1, max_size=9)
        domains = st.lists(labels, min_size=1, max_size=4).map('.'.join)
        return st.builds('{}@{}'.format, letters, domains) | st.just(LONGEST_EMAIL)
    longest = st.sampled_from('a\n\u2028\uffff\U0001f600').map(lambda c: c * int(most))
    return st.text(CHARACTERS, min_size=least, max_size=12) | longest


def numbers(schema: dict[str, Any]) -> st.SearchStrategy[int | float]:
    """Numbers that a schema allows, with and without a fraction."""
    least, most = schema['minimum'], schema['maximum']
    return st.sampled_from([least, most, 0, -0.0, 5e-324, float(most)]) | st.integers(
        least, most) | st.floats(float(least), float(most))


def objects(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that a schema allows, their keys in any order."""
    properties = {name: values(part) for name, part in schema['properties'].items()}
    required = {name: properties.pop(name) for name in schema['required']}
    return st.fixed_dictionaries(required, optional=properties).flatmap(
        lambda made: st.permutations(list(made.items())).map(dict))


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a part of the entry's schema allows, made after its structure."""
    if '$ref' in schema:
        return values(ENTRY_SCHEMA['definitions'][schema['$ref'].rpartition('/')[2]])
    if 'enum' in schema:
        return st.sampled_from(schema['enum'])
    match schema['type']:
        case 'object':
            return objects(schema)
        case 'array':
            return st.lists(values(schema['items']), max_size=2)
        case 'string':
            return texts(schema)
        case ['number', 'string']:
            return texts(schema) | numbers(schema)
        case other:
            raise NotImplementedError(other)


VALID_ENTRIES: Final = values(ENTRY_SCHEMA)

NAMES: Final = [*sorted({str(place[-1]) for place in places(full_entry()) if place}),
                'colour', '', 'Name', 'name ', 'a/b~c', '\0', '__proto__', '\U0001f600']
EDGES: Final[list[Any]] = [
    None, True, False, 0, 1, -0.0, 1.5, LARGEST, -LARGEST, 2**53, -2**53, 2.0**53, -2.0**53,
    2**63, 2**64, -2**64, 10**400, 1e308, 5e-324, [], {}, [[]], [{}], [None], nested(300),
    {'name': 'x'}, {'kind': 'home'}, {'kind': 'home', 'value': 'a@b'},
    '', ' ', '\0', 'x\0', 'x\0\n', 'home', 'home\n', 'Home', 'work\0', 'true', '1',
    'a@b', 'a@b\n', 'a@b\r', 'a@b\r\n', 'a@b\n\n', 'a@b\x0b', 'a@b\x85', 'a@b\u2028', 'a@b\u2029',
    '\na@b', 'a\n@b', 'a@b\nc@d', 'a@b\0', 'a@\U0001f600', '\U0001f600@b', 'a@\uffff', 'a@b.', 'a@',
    'a@b..c', '@', LONGEST_EMAIL, 'a' + LONGEST_EMAIL, LONGEST_EMAIL + '\n',
    *(c * n for c in 'a\n\u2028\uffff\U0001f600' for n in (254, 255, 256, 257)),
    [{'kind': 'home', 'value': 'a@b'}] * 100, [{'kind': 'home', 'value': 'a@b'}] * 101,
    [1] * 101, dict.fromkeys(map(str, range(20)), 1),
]
LEAVES: Final = st.one_of(
    st.sampled_from(EDGES),
    st.text(CHARACTERS | st.just('\0'), max_size=9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(),
)
JSON_VALUES: Final = LEAVES | st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=5)


def mutated(entries: st.SearchStrategy[Any], new: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Entries with one place dropped, added, repeated, retyped or stretched."""

    @st.composite
    def mutate(draw: st.DrawFn) -> Any:
        entry = draw(entries)
        place = draw(st.sampled_from(list(places(entry))))
        value = at(entry, place)
        changes = ['replace']
        if place:
            changes.append('drop')
        if isinstance(value, dict):
            changes.append('add')
        elif isinstance(value, (list, str)):
            changes.append('stretch')
        match draw(st.sampled_from(changes)):
            case 'drop':
                return without(entry, place)
            case 'add':
                return replaced(entry, (*place, draw(st.sampled_from(NAMES))), draw(new))
            case 'stretch':
                times = draw(st.sampled_from([2, 50, 51, 100, 101, 257]))
                return replaced(entry, place, value * times)
            case _:
                return replaced(entry, place, draw(new))

    return mutate()


MUTATED_ENTRIES: Final = mutated(VALID_ENTRIES, JSON_VALUES)
HOSTILE_ENTRIES: Final = JSON_VALUES | mutated(MUTATED_ENTRIES, LEAVES)
PYTHON_VALUES: Final = st.sampled_from(sorted(NOT_JSON)).flatmap(
    lambda name: st.builds(NOT_JSON[name]))


def is_taken(entry: Any) -> bool:
    """Whether an entry is valid; fails on any error but ``InvalidEntryError``."""
    try:
        serialise_entry(entry)
    except InvalidEntryError as error:
        assert 0 < len(error.violations) <= MAX_VIOLATIONS
        return False
    return True


class PropertyTest(unittest.TestCase):
    """What holds for whatever entry one can think of."""

    @PROPERTY
    @given(VALID_ENTRIES)
    def test_what_follows_the_structure_of_the_schema_is_taken(self, entry: Any) -> None:
        self.assertEqual([], list(explain(entry)))
        self.assertTrue(is_taken(entry))

    @PROPERTY
    @given(VALID_ENTRIES)
    def test_what_is_taken_comes_back_unchanged(self, entry: Any) -> None:
        document = serialise_entry(entry)
        self.assertEqual(json.dumps(entry), json.dumps(parse_json(document)))
        self.assertEqual(document, serialise_entry(parse_json(document)))

    @PROPERTY
    @given(MUTATED_ENTRIES)
    def test_the_validators_agree_on_an_entry_with_one_change(self, entry: Any) -> None:
        self.assert_agreement(entry)

    @PROPERTY
    @given(HOSTILE_ENTRIES)
    def test_the_validators_agree_on_what_is_far_from_an_entry(self, entry: Any) -> None:
        self.assert_agreement(entry)

    def test_the_validators_agree_on_every_edge_in_every_place(self) -> None:
        entry = without(full_entry(), ('faxNumbers',))  # as phone numbers
        for place in places(entry):
            for value in EDGES:
                with self.subTest(place=place, value=value):
                    self.assert_agreement(replaced(entry, place, value))

    @PROPERTY
    @given(mutated(HOSTILE_ENTRIES, PYTHON_VALUES) | PYTHON_VALUES)
    def test_a_refusal_is_the_only_error_whatever_comes(self, entry: Any) -> None:
        if is_taken(entry):
            serialise_entry(entry)
        else:
            self.assertRaises(InvalidEntryError, serialise_entry, entry)

    def assert_agreement(self, entry: Any) -> None:
        """Valid for jsonschema-rs just when jsonschema finds nothing; then it is kept exactly."""
        taken = is_taken(entry)
        self.assertEqual(taken, not explain(entry))
        if taken:
            self.assertEqual(json.dumps(entry), json.dumps(parse_json(serialise_entry(entry))))
