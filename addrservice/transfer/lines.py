"""The format: JSON Lines in UTF-8 (https://jsonlines.org), one entry a line.

    {"id": "0193...", "version": 1732492800000000, "origin": "9f86...", "entry": {"name": ...}}

``id`` is 32 hex digits, as everywhere in the API. ``version`` is what the entry's ``ETag`` and
``Last-Modified`` are made of; without one, an entry is of the time it is imported. ``origin`` is
there where the entry was made with an ``Idempotency-Key``: 64 hex digits by which the service knows
a repeated request.
"""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

from addrservice.addressbook_db import StoredEntry
from addrservice.addressbook_db.abstract import now
from addrservice.errors import InvalidEntryError, InvalidJSONError, Violation, json_pointer
from addrservice.validation import parse_json, serialise_entry

# Bytes of a line. The largest entry that there can be takes 2.5 MB of it.
MAX_LINE: Final = 4 * 1024 * 1024

# What every JSON parser can tell from the numbers next to it; in microseconds, the year 2255.
MAX_VERSION: Final = 2**53 - 1

# Characters of a reason: it may quote what somebody called a property.
MAX_REASON: Final = 300

_ID: Final = re.compile('[0-9a-f]{32}')
_ORIGIN: Final = re.compile('[0-9a-f]{64}')
_REQUIRED: Final = ('id', 'entry')
_KNOWN: Final = frozenset({'id', 'version', 'origin', 'entry'})


class BadLineError(ValueError):
    """A line is not an entry; the message says why, and never repeats a value."""


class Line(NamedTuple):
    """A line that was read.

    :param number: 1 is the first one
    :param entry: what it says, or why it says nothing
    """

    number: int
    entry: StoredEntry | BadLineError


def to_line(
    nickname: str, document: bytes, version: int | None = None, origin: str | None = None
) -> bytes:
    """The line of an entry, with its end."""
    return b'{"id":%b%b%b,"entry":%b}\n' % (
        orjson.dumps(nickname),
        b'' if version is None else b',"version":%d' % version,
        b'' if origin is None else b',"origin":' + orjson.dumps(origin),
        document)


def read_line(number: int, text: bytes) -> Line:
    """What a line says."""
    try:
        return Line(number, from_line(text))
    except BadLineError as error:
        return Line(number, error)


def from_line(text: bytes) -> StoredEntry:
    """The entry of a line.

    :raises BadLineError: there is none
    """
    if len(text) > MAX_LINE:
        raise BadLineError(f'is longer than {MAX_LINE} bytes')
    try:
        record = parse_json(text)
    except InvalidJSONError as error:
        # It counts lines, and here there is but one.
        raise BadLineError(_told(error.violations).replace(': line 1 column', ': column')) from None
    violations = list(_violations(record))
    if violations:
        raise BadLineError(_told(violations))
    return StoredEntry(record['id'], _document(record['entry']), record.get('version') or now(),
                       record.get('origin'))


def _violations(record: Any) -> Iterable[Violation]:
    """What is wrong with a line but for the entry in it."""
    if not isinstance(record, dict):
        yield Violation('', 'must be an object')
        return
    for name in _REQUIRED:
        if name not in record:
            yield Violation('', f'{name!r} is a required property')
    for name in record.keys() - _KNOWN:
        yield Violation(json_pointer([name]), 'is not a known property')
    if not _matches(_ID, record.get('id', '0' * 32)):
        yield Violation('/id', 'must be 32 hex digits in lower case')
    if not _is_version(record.get('version', 1)):
        yield Violation('/version', f'must be a whole number from 1 to {MAX_VERSION}')
    if not _matches(_ORIGIN, record.get('origin', '0' * 64)):
        yield Violation('/origin', 'must be 64 hex digits in lower case')


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_version(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_VERSION


def _document(entry: Any) -> bytes:
    try:
        return serialise_entry(entry)
    except InvalidEntryError as error:
        raise BadLineError(_told(
            Violation('/entry' + path, message) for path, message in error.violations)) from None


def _told(violations: Iterable[Violation]) -> str:
    """Why, in one line that no terminal takes for commands."""
    text = '; '.join(f'{path} {message}'.strip() for path, message in violations)
    printable = ''.join(character if character.isprintable() else ascii(character)[1:-1]
                        for character in text[:MAX_REASON])
    return printable + ' ...' * (len(text) > MAX_REASON)
