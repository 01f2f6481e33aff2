"""What may enter the store: JSON as RFC 8259 has it, an entry as the JSON Schema has it.

Two validators read the one schema. jsonschema-rs decides, in microseconds; jsonschema explains
what it refused, in a module of its own. Patterns in the schema are the only thing they could read
differently, so the schema is written for both, and a property test holds them together.
"""

from typing import Any, Final

import jsonschema_rs
import orjson

from addrservice import ENTRY_SCHEMA
from addrservice.errors import InvalidEntryError, InvalidJSONError, Violation
from addrservice.tracing import trace

Entry = dict[str, Any]

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
        from addrservice.explanation import explain
        violations = explain(entry)
    except (TypeError, ValueError, ArithmeticError) as error:  # not of JSON: a set, a Decimal
        raise InvalidEntryError([Violation('', f'is not JSON: {error}')]) from None
    raise InvalidEntryError(violations or [Violation('', 'is not JSON: NaN is no number')])
