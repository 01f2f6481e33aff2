"""Bearer tokens from a file, which has not the tokens but their SHA-256.

A line of the file is one token; empty lines, and those that begin with ``#``, do not count::

    NAME  SHA256  SCOPE[,SCOPE]  [expires=YYYY-MM-DD]

NAME is who shows the token, for the log; no two lines have the same. SHA256 is the digest of the
token in 64 hex digits. A token expires as its day begins, in UTC. ``python -m addrservice token
new`` makes such lines. A token of 256 random bits needs no salt and no slow hash: nobody can try
them all.
"""

import hashlib
import hmac
import math
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from addrservice.auth.abstract import (
    INVALID_TOKEN, SCOPES, AbstractAuthenticator, Caller, bearer_token,
)
from addrservice.config import TokenSettings
from addrservice.errors import ConfigError, UnauthenticatedError

NAME: Final = re.compile(r'[A-Za-z0-9][A-Za-z0-9._@:/+-]{0,63}')

_LINE: Final = re.compile(
    rf'(?P<name>{NAME.pattern})\s+(?P<digest>[0-9A-Fa-f]{{64}})\s+(?P<scopes>\S+)'
    r'(\s+expires=(?P<expires>\S+))?')
_DATE: Final = re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2}')


class Token(NamedTuple):
    """A line of the file.

    :param digest: SHA-256 of the token
    :param expires: seconds since 1970
    """

    caller: Caller
    digest: bytes
    expires: float


class TokenAuthenticator(AbstractAuthenticator):
    """Knows the tokens of a file.

    :raises ConfigError: the file cannot be used
    """

    security_scheme: ClassVar[dict[str, Any]] = {
        'type': 'http',
        'scheme': 'bearer',
        'description': 'An access token that the operator of the service has given out.',
    }

    def __init__(self, settings: TokenSettings) -> None:
        self._path = Path(settings.file)
        self._tokens = read_tokens(self._path)

    def reload(self) -> None:
        self._tokens = read_tokens(self._path)

    async def authenticate(self, authorization: Sequence[str]) -> Caller:
        digest = hash_token(bearer_token(authorization))
        known = None
        for token in self._tokens:  # to the end, so that the time it takes tells nothing
            if hmac.compare_digest(token.digest, digest):
                known = token
        if known is None or known.expires <= time.time():
            raise UnauthenticatedError(INVALID_TOKEN)
        return known.caller


def hash_token(token: str) -> bytes:
    """The SHA-256 of a token, as the file has it."""
    return hashlib.sha256(token.encode('ascii')).digest()


def read_tokens(path: Path) -> list[Token]:
    """The tokens of a file.

    :raises ConfigError: in one line that names the file and the place, and quotes nothing of it
    """
    try:
        tokens = parse_tokens(path, path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from None
    except UnicodeDecodeError:
        raise ConfigError(f'{path}: not UTF-8') from None
    if not tokens:  # as it is while somebody is writing it
        raise ConfigError(f'{path}: there is no token in it')
    return tokens


def parse_tokens(path: Path, content: str) -> list[Token]:
    """The tokens of a file's content.

    :raises ConfigError: as ``read_tokens`` does
    """
    places: dict[str | bytes, int] = {}
    tokens = []
    for number, line in _lines(content):
        try:
            token = _parse(line)
            _note(places, token, number)
        except ValueError as error:
            raise ConfigError(f'{path}, line {number}: {error}') from None
        tokens.append(token)
    return tokens


def expiry(text: str) -> float:
    """When a token expires that is not valid from a day on, in seconds since 1970.

    :param text: ``YYYY-MM-DD``
    :raises ValueError: that is no day
    """
    if not _DATE.fullmatch(text):
        raise ValueError('a date is YYYY-MM-DD')
    day = date.fromisoformat(text)
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _lines(content: str) -> Iterator[tuple[int, str]]:
    """The lines that count, and their numbers."""
    for number, line in enumerate(content.split('\n'), 1):
        if line.strip() and not line.lstrip().startswith('#'):
            yield number, line.strip()


def _parse(line: str) -> Token:
    """:raises ValueError: and quotes nothing, for a token itself may stand where it should not"""
    parts = _LINE.fullmatch(line)
    if parts is None:
        raise ValueError('is not NAME SHA256 SCOPE[,SCOPE] [expires=YYYY-MM-DD]')
    scopes = frozenset(parts['scopes'].split(','))
    if not scopes.issubset(SCOPES):
        raise ValueError(f'the scopes are {" and ".join(SCOPES)}')
    expires = expiry(parts['expires']) if parts['expires'] else math.inf
    return Token(Caller(parts['name'], scopes), bytes.fromhex(parts['digest']), expires)


def _note(places: dict[str | bytes, int], token: Token, number: int) -> None:
    """Takes note of the line that has a name and a digest; ValueError if another one has."""
    for what, value in ('name', token.caller.name), ('token', token.digest):
        if value in places:
            raise ValueError(f'has the {what} of line {places[value]}')
        places[value] = number
