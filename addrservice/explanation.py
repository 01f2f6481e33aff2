"""What is wrong with an entry that was refused, place by place, in words that a person can act on.

It is imported when the first one is refused: jsonschema takes long to import, and a service whose
clients know what they do never needs it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, Final

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from addrservice import ENTRY_SCHEMA
from addrservice.errors import Violation, json_pointer

MAX_VIOLATIONS: Final = 10


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
