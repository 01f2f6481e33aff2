"""The parameters of a request: those of the query, and the idempotency key."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from addrservice.errors import InvalidParameterError

# Parameter of the query -> what it must match, and how that is told.
QUERY: Final = {
    'limit': (re.compile(r'[1-9][0-9]{0,2}|1000'), 'must be a whole number from 1 to 1000'),
    'name': (re.compile(r'[^\u0000]{1,256}'), 'must have 1 to 256 characters, none of them U+0000'),
    'after': (re.compile(r'[0-9a-f]{32}(:[^\u0000]{1,256})?'),
              'must be an id, or what a next link has'),
}

IDEMPOTENCY_KEY: Final = re.compile(r'"([ !#-\[\]-~]{1,255})"|([!#-\[\]-~]{1,255})')


class Query(NamedTuple):
    """Which entries are asked for.

    :param limit: how many at the most
    :param name: what their names begin with
    :param after: what they come after
    """

    limit: int | None
    name: str | None
    after: str | None


def read_query(query: Mapping[str, list[bytes]]) -> Query:
    """The parameters of a query, each of which is known, there once, and as it must be.

    :param query: the values of each, not yet decoded
    :raises InvalidParameterError: one of them is not
    """
    texts = {name: _read(name, values) for name, values in query.items()}
    limit = int(texts['limit']) if 'limit' in texts else None
    return Query(limit, texts.get('name'), texts.get('after'))


def _read(name: str, values: list[bytes]) -> str:
    if name not in QUERY:
        raise InvalidParameterError(name, 'is not known here')
    if len(values) > 1:
        raise InvalidParameterError(name, 'must be given only once')
    pattern, demand = QUERY[name]
    try:
        text = values[0].decode()
    except UnicodeDecodeError:
        raise InvalidParameterError(name, 'is not in UTF-8') from None
    if not pattern.fullmatch(text):
        raise InvalidParameterError(name, demand)
    return text


def read_idempotency_key(fields: Sequence[str]) -> str | None:
    """What tells a request that is sent again from a new one, if the client says so.

    :raises InvalidParameterError: it is not just one key, bare or in double quotes
    """
    if not fields:
        return None
    match = IDEMPOTENCY_KEY.fullmatch(fields[0])
    if match is None or len(fields) > 1:
        raise InvalidParameterError(
            'Idempotency-Key', 'must be 1 to 255 printable ASCII characters except " and \\, '
            'in quotes if there is a blank among them')
    return match[1] or match[2]
