"""What may enter the store: JSON as RFC 8259 has it, an entry as the JSON Schema has it.

Two validators read the one schema. jsonschema-rs decides, in microseconds; jsonschema explains
what it refused. Patterns in the schema are the only thing they could read differently, so the
schema is written for both, and a property test holds them together.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import orjson
from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from addrservice import ENTRY_SCHEMA
from addrservice.errors import InvalidEntryError, InvalidJSONError, Violation
from addrservice.tracing import trace

Entry = dict[str, Any]

MAX_VIOLATIONS: Final = 10

_decide: Final = jsonschema_rs.Draft7Validator(ENTRY_SCHEMA, validate_formats=False).is_valid


def parse_json(text: bytes) -> Any:
    """The value that a JSON text in UTF-8 stands for (RFC 8259).

    :raises InvalidJSONError: with the reason and the place
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidJSONError(str(error)) from None


@trace()
def serialise_entry(entry: Entry) -> bytes:
    """The entry as compact JSON text in UTF-8, its keys in the order they came.

    :raises InvalidEntryError: it breaks the JSON Schema; ten wrong places are named at the most
    """
    try:
        if _decide(entry):
            return orjson.dumps(entry)
        violations = explain(entry)
    except (TypeError, ValueError, ArithmeticError) as error:  # not of JSON: a set, a Decimal
        raise InvalidEntryError([Violation('', f'is not JSON: {error}')]) from None
    raise InvalidEntryError(violations or [Violation('', 'is not JSON: NaN is no number')])


def explain(entry: object) -> Sequence[Violation]:
    """The first ten places in which a value breaks the schema; empty where it does not."""
    try:
        return list(islice(_violations(entry), MAX_VIOLATIONS))
    except RecursionError:
        return [Violation('', 'is nested too deeply')]


def _violations(entry: object) -> Iterator[Violation]:
    for error in _explainer().iter_errors(entry):
        path = json_pointer(error.absolute_path)
        if error.validator == 'additionalProperties':
            for name in error.instance:
                if name not in error.schema['properties']:
                    yield Violation(path + json_pointer([name]), 'is not a known property')
        else:
            yield Violation(path, _message(error))


@cache
def _explainer() -> Any:
    validator = extend(Draft7Validator, {'items': _items})  # type: ignore[no-untyped-call]
    return validator(ENTRY_SCHEMA)


def _items(validator: Any, items: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """The keyword, but not for a list that is too long: to look at thousands takes time."""
    if validator.is_type(instance, 'array') and len(instance) <= schema['maxItems']:
        yield from Draft7Validator.VALIDATORS['items'](validator, items, instance, schema)


def json_pointer(path: Iterable[str | int]) -> str:
    """The JSON Pointer (RFC 6901) to a place, as in ``/phoneNumbers/0/kind``."""
    return ''.join('/' + str(step).replace('~', '~0').replace('/', '~1') for step in path)


def _message(error: ValidationError) -> str:
    """What is wrong, in words that never repeat the value: it may be long, and it is personal."""
    return _MESSAGES[str(error.validator)](error, error.validator_value)


def _type_message(wanted: str | list[str]) -> str:
    names = [wanted] if isinstance(wanted, str) else wanted
    return f'must be {" or ".join(_TYPE_NAMES[name] for name in names)}'


_TYPE_NAMES: Final = {
    'array': 'an array',
    'number': 'a number',
    'object': 'an object',
    'string': 'a string',
}

_PATTERN_MESSAGES: Final = {
    ENTRY_SCHEMA['definitions']['emailAddress']['pattern']:
        'must be an email address such as name@example.org',
    ENTRY_SCHEMA['definitions']['text']['pattern']: 'must not contain the character U+0000',
}

# Keyword of the schema -> message, from the error and the keyword's value.
_MESSAGES: Final[dict[str, Callable[[ValidationError, Any], str]]] = {
    'enum': lambda _, choices: f'must be one of {", ".join(choices)}',
    'maximum': lambda _, bound: f'must be at most {bound}',
    'maxItems': lambda _, bound: f'must have at most {bound} items',
    'maxLength': lambda _, bound: f'must be at most {bound} characters long',
    'minimum': lambda _, bound: f'must be at least {bound}',
    'minLength': lambda _, bound: (
        'must not be empty' if bound == 1 else f'must be at least {bound} characters long'),
    'pattern': lambda _, pattern: _PATTERN_MESSAGES.get(pattern, f'does not match {pattern}'),
    'required': lambda error, _: error.message,  # names the property, repeats no value
    'type': lambda _, wanted: _type_message(wanted),
}
