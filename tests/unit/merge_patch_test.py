"""JSON Merge Patch, by the examples of RFC 7396 and beyond them."""

import copy
import json
import random
import unittest
from typing import Any, Final

from addrservice.errors import InvalidEntryError, Violation
from addrservice.merge_patch import merge_patch
from tests.support import address

# Original, patch, result: all test cases of RFC 7396, appendix A, in their order.
RFC_7396: Final[tuple[tuple[Any, Any, Any], ...]] = (
    ({'a': 'b'}, {'a': 'c'}, {'a': 'c'}),
    ({'a': 'b'}, {'b': 'c'}, {'a': 'b', 'b': 'c'}),
    ({'a': 'b'}, {'a': None}, {}),
    ({'a': 'b', 'b': 'c'}, {'a': None}, {'b': 'c'}),
    ({'a': ['b']}, {'a': 'c'}, {'a': 'c'}),
    ({'a': 'c'}, {'a': ['b']}, {'a': ['b']}),
    ({'a': {'b': 'c'}}, {'a': {'b': 'd', 'c': None}}, {'a': {'b': 'd'}}),
    ({'a': [{'b': 'c'}]}, {'a': [1]}, {'a': [1]}),
    (['a', 'b'], ['c', 'd'], ['c', 'd']),
    ({'a': 'b'}, ['c'], ['c']),
    ({'a': 'foo'}, None, None),
    ({'a': 'foo'}, 'bar', 'bar'),
    ({'e': None}, {'a': 1}, {'e': None, 'a': 1}),
    ([1, 2], {'a': 'b', 'c': None}, {'a': 'b'}),
    ({}, {'a': {'bb': {'ccc': None}}}, {'a': {'bb': {}}}),
)


def nested(depth: int) -> dict[str, Any]:
    """An object in an object in an object ..."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {'a': value}
    return value


class MergePatchTest(unittest.TestCase):
    """What a value becomes."""

    def test_the_examples_of_the_rfc_come_out_as_it_says(self) -> None:
        for target, patch, result in RFC_7396:
            with self.subTest(target=target, patch=patch):
                self.assertEqual(json.dumps(result), json.dumps(merge_patch(target, patch)))

    def test_the_example_of_its_third_section_does_too(self) -> None:
        target = {'title': 'Goodbye!',
                  'author': {'givenName': 'John', 'familyName': 'Doe'},
                  'tags': ['example', 'sample'],
                  'content': 'This will be unchanged'}
        patch = {'title': 'Hello!',
                 'phoneNumber': '+01-123-456-7890',
                 'author': {'familyName': None},
                 'tags': ['example']}
        self.assertEqual({'title': 'Hello!',
                          'author': {'givenName': 'John'},
                          'tags': ['example'],
                          'content': 'This will be unchanged',
                          'phoneNumber': '+01-123-456-7890'}, merge_patch(target, patch))

    def test_a_patch_of_nothing_changes_nothing(self) -> None:
        for target in (address('namo'), {}):
            self.assertEqual(json.dumps(target), json.dumps(merge_patch(target, {})))

    def test_members_stay_in_their_order_and_new_ones_come_last(self) -> None:
        target = {'c': 1, 'a': 2, 'b': 3}
        self.assertEqual('{"c": 1, "a": 9, "b": 3, "d": 4}',
                         json.dumps(merge_patch(target, {'d': 4, 'a': 9, 'e': None})))

    def test_a_null_in_a_list_is_a_value(self) -> None:
        for target in ({}, {'a': [1]}, {'a': {'b': 1}}):
            self.assertEqual({'a': [None, {'b': None}]},
                             merge_patch(target, {'a': [None, {'b': None}]}))

    def test_what_is_false_is_a_value(self) -> None:
        values: list[Any] = [False, 0, '', [], {}]
        for value in values:
            with self.subTest(value=value):
                self.assertEqual({'a': value}, merge_patch({'a': 'x'}, {'a': value}))
                self.assertEqual({'a': value}, merge_patch({'a': value}, {'b': None}))

    def test_neither_the_value_nor_the_patch_is_changed(self) -> None:
        target = {'a': {'b': [1], 'c': {'d': 1}}, 'e': 'f'}
        patch = {'a': {'c': {'d': None, 'x': {'y': None}}, 'b': None}, 'e': {'z': None}}
        before = copy.deepcopy((target, patch))
        merge_patch(target, patch)
        self.assertEqual(before, (target, patch))

    def test_a_patch_that_was_applied_changes_nothing_more(self) -> None:
        """Whatever the values: a client may send it again."""
        chance = random.Random(7396)

        def value(depth: int) -> Any:
            if depth and chance.random() < 0.7:
                return {key: value(depth - 1) for key in chance.sample('abc', chance.randint(0, 3))}
            return chance.choice((None, 1, 'x', [None], [{'a': None}], False))

        for _ in range(300):
            target, patch = value(3), value(3)
            once = merge_patch(target, patch)
            self.assertEqual(json.dumps(once), json.dumps(merge_patch(once, patch)))

    def test_a_patch_that_is_nested_too_deeply_is_invalid_and_no_crash(self) -> None:
        self.assertEqual(nested(200), merge_patch({}, nested(200)))
        with self.assertRaises(InvalidEntryError) as caught:
            merge_patch({}, nested(100_000))
        self.assertEqual([Violation('', 'is nested too deeply')], caught.exception.violations)


if __name__ == '__main__':
    unittest.main()
