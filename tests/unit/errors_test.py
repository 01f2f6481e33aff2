"""The error tree: its drawing, its messages, what its errors carry."""

import inspect
import re
import unittest
from typing import Final, NamedTuple

from addrservice import errors
from addrservice.errors import (
    AccessError, AddressBookError, AuthenticatorUnavailableError, BadCredentialsError,
    ConfigError, ForbiddenError, InvalidEntryError, InvalidInputError, InvalidJSONError,
    InvalidParameterError, KeyReusedError, NewerSchemaError, NicknameTakenError, NothingDoneError,
    OutcomeUnknownError, OverloadedError, PreconditionFailedError, StartError, StoreError,
    StoreMisconfiguredError, StoreOverloadedError, StoreUnavailableError, TooManyRequestsError,
    UnauthenticatedError, UnknownNicknameError, Violation,
)

TREE_LINE: Final = re.compile(
    r' {4}(?P<branch>[ │├└─]*)(?P<name>\w+)(?: \((?P<second_parent>\w+)\))?(?: {2,}(?P<cause>.+))?')

VIOLATIONS: Final = [Violation('/name', 'must be a string'), Violation('', 'is wrong')]

# One error of each class, with the text that a person gets to see.
EXAMPLES: Final[list[tuple[AddressBookError, str]]] = [
    (AddressBookError('Something'), 'Something'),
    (InvalidInputError('Not so', VIOLATIONS), 'Not so'),
    (InvalidJSONError('unexpected end: line 1'), 'Invalid JSON body'),
    (InvalidEntryError(VIOLATIONS), 'JSON Schema validation failed'),
    (InvalidParameterError('limit', 'must be small'), "The parameter 'limit' must be small"),
    (UnknownNicknameError('raga'), "There is no entry 'raga'"),
    (NicknameTakenError('raga'), "There is an entry 'raga' already"),
    (KeyReusedError(), 'The Idempotency-Key was used for another entry'),
    (PreconditionFailedError('raga'),
     "The entry 'raga' is not in the state that the request asks for"),
    (AccessError('Not you', 'not_you'), 'Not you'),
    (BadCredentialsError('Who are you?'), 'Who are you?'),
    (UnauthenticatedError('I do not know you'), 'I do not know you'),
    (ForbiddenError('addressbook:write'), 'The scope addressbook:write is needed'),
    (AuthenticatorUnavailableError('Nobody can tell'), 'Nobody can tell'),
    (OverloadedError('Too much'), 'Too much'),
    (TooManyRequestsError(7), 'Too many requests; try again in 7 s'),
    (StoreError('The store is confused'), 'The store is confused'),
    (StoreUnavailableError('The store is asleep'), 'The store is asleep'),
    (NothingDoneError('The store is busy'), 'The store is busy'),
    (OutcomeUnknownError('The store is gone'), 'The store is gone'),
    (StoreOverloadedError('There is a queue'), 'There is a queue'),
    (StoreMisconfiguredError('The store knows nobody'), 'The store knows nobody'),
    (StartError('cannot listen'), 'cannot listen'),
    (ConfigError('a.yaml: no such key'), 'a.yaml: no such key'),
    (NewerSchemaError('The tables are of version 9'), 'The tables are of version 9'),
]


class Node(NamedTuple):
    """One class of the tree."""

    name: str
    parent: str | None
    second_parent: str | None
    cause: str | None


def drawn_tree() -> list[Node]:
    """The tree in the module's docstring."""
    nodes: list[Node] = []
    path: list[str] = []
    for line in (errors.__doc__ or '').splitlines():
        if match := TREE_LINE.fullmatch(line):
            depth = len(match['branch']) // 4
            path[depth:] = [match['name']]
            parent = path[depth - 1] if depth else None
            nodes.append(Node(match['name'], parent, match['second_parent'], match['cause']))
    return nodes


def error_classes() -> list[type[BaseException]]:
    """The exceptions that the module defines."""
    return [value for value in vars(errors).values()
            if inspect.isclass(value) and issubclass(value, BaseException)]


def node_of(cls: type[BaseException]) -> Node:
    """A class as the drawing should show it."""
    if cls is AddressBookError:
        return Node(cls.__name__, None, None, None)
    parent, *others = (base.__name__ for base in cls.__bases__)
    return Node(cls.__name__, parent, ', '.join(others) or None,
                (cls.__doc__ or '').splitlines()[0])


class ErrorTreeTest(unittest.TestCase):
    def test_the_docstring_draws_the_tree_that_the_code_has(self) -> None:
        """Same classes in the same order, same parents, a second one in brackets."""
        self.assertEqual([node_of(cls) for cls in error_classes()], drawn_tree())

    def test_the_root_is_an_exception_and_no_special_one(self) -> None:
        self.assertEqual((Exception,), AddressBookError.__bases__)

    def test_what_a_python_reader_expects_is_caught_too(self) -> None:
        """A missing or taken nickname is a KeyError, what cannot be taken a ValueError."""
        for expected, classes in (
            (KeyError, (UnknownNicknameError, NicknameTakenError)),
            (ValueError, (InvalidEntryError, InvalidJSONError, InvalidParameterError,
                          ConfigError)),
        ):
            for cls in classes:
                with self.subTest(cls=cls):
                    self.assertTrue(issubclass(cls, expected))

    def test_each_class_has_an_example_here(self) -> None:
        """So that no new error goes without the tests below."""
        self.assertEqual(error_classes(), [type(error) for error, _ in EXAMPLES])


class ErrorMessageTest(unittest.TestCase):
    def test_the_text_of_an_error_is_its_message_unquoted(self) -> None:
        """Also of a KeyError, which would quote it."""
        for error, text in EXAMPLES:
            with self.subTest(error=error):
                self.assertEqual(text, str(error))
                self.assertEqual(text, error.message)
                self.assertEqual((text,), error.args)

    def test_a_message_is_one_line_whatever_the_nickname(self) -> None:
        for cls in (UnknownNicknameError, NicknameTakenError, PreconditionFailedError):
            with self.subTest(cls=cls):
                self.assertEqual(1, len(str(cls('a\nb\u2028c')).splitlines()))

    def test_invalid_input_carries_its_violations(self) -> None:
        for error in (InvalidInputError('Not so', VIOLATIONS), InvalidEntryError(VIOLATIONS)):
            with self.subTest(error=error):
                self.assertEqual(VIOLATIONS, error.violations)

    def test_invalid_json_gives_the_parsers_reason_for_the_whole_text(self) -> None:
        error = InvalidJSONError('unexpected end: line 1')
        self.assertEqual([Violation('', 'unexpected end: line 1')], error.violations)

    def test_an_invalid_parameter_is_the_place_that_is_wrong(self) -> None:
        error = InvalidParameterError('limit', 'must be small')
        self.assertEqual([Violation('limit', 'must be small')], error.violations)

    def test_what_failed_for_the_state_of_the_store_is_not_an_input_that_is_invalid(self) -> None:
        """Nor is it an entry that is not there: who catches those does not catch these."""
        for cls in (KeyReusedError, PreconditionFailedError):
            self.assertFalse(issubclass(cls, (KeyError, ValueError, StoreError)))

    def test_what_keeps_somebody_out_has_a_code(self) -> None:
        """As in RFC 6750, 3.1; where no credentials were sent there is none."""
        self.assertEqual(
            ['invalid_request', 'invalid_token', None, 'insufficient_scope'],
            [error.code for error in (
                BadCredentialsError('?'), UnauthenticatedError('?'),
                UnauthenticatedError('?', None), ForbiddenError('addressbook:read'))])

    def test_a_violation_has_a_path_and_a_message(self) -> None:
        """By these names it goes to the client."""
        self.assertEqual({'path': '/name', 'message': 'must be a string'},
                         VIOLATIONS[0]._asdict())


if __name__ == '__main__':
    unittest.main()
