"""A JWK Set (RFC 7517), in a file or behind a URL: reading it, and the keys in it."""

import http.client
import ssl
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm

MAX_SIZE: Final = 1024 * 1024  # bytes of a JWK Set
MAX_REASON_LENGTH: Final = 200  # characters
LOOPBACK: Final = ('localhost', '127.0.0.1', '::1')

# What may sign a token here, and the type and curve of the keys that it takes (RFC 7518, 3.1 and
# 6; RFC 8037). Nothing symmetric: whoever could check a token could make one.
ALGORITHMS: Final[dict[str, tuple[str, str | None]]] = {
    **dict.fromkeys(('RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'), ('RSA', None)),
    'ES256': ('EC', 'P-256'),
    'ES384': ('EC', 'P-384'),
    'ES512': ('EC', 'P-521'),
    'EdDSA': ('OKP', 'Ed25519'),
}

# The members of a public key. A private one that somebody has put there goes no further.
_PUBLIC: Final = ('kty', 'kid', 'crv', 'x', 'y', 'n', 'e')


class KeysError(Exception):
    """The keys cannot be read; the message says why in one line."""


def parse_keys(document: bytes, algorithms: Sequence[str]) -> list[jwt.PyJWK]:
    """The keys of a JWK Set that can be used, one for each algorithm that a key fits.

    Others are left out (RFC 7517, 5): of other types, for other uses, too short.

    :param algorithms: of ``ALGORITHMS``, those that may sign
    :raises KeysError: there is none, or it is no JWK Set
    """
    if len(document) > MAX_SIZE:
        raise KeysError(f'more than {MAX_SIZE} bytes')
    try:
        members = orjson.loads(document)
    except orjson.JSONDecodeError:
        raise KeysError('not JSON') from None
    if not isinstance(members, dict) or not isinstance(members.get('keys'), list):
        raise KeysError('not a JWK Set')
    keys = [key for member in members['keys'] if isinstance(member, dict)
            for algorithm in algorithms if (key := _make_key(member, algorithm)) is not None]
    if not keys:
        raise KeysError(f'no key for {" or ".join(algorithms)} in it')
    return keys


def _make_key(member: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    if not _is_meant_for(member, algorithm):
        return None
    try:
        key = jwt.PyJWK({name: member[name] for name in _PUBLIC if name in member}, algorithm)
    except (jwt.PyJWTError, UnsupportedAlgorithm, KeyError, TypeError, ValueError):
        return None  # members are missing, or are not what they have to be
    return None if key.Algorithm.check_key_length(key.key) else key


def _is_meant_for(member: dict[str, Any], algorithm: str) -> bool:
    """Whether a key is of the type that an algorithm takes, and does not say that it is not."""
    kind, curve = ALGORITHMS[algorithm]
    operations = member.get('key_ops', ['verify'])
    return (
        member.get('kty') == kind
        and (curve is None or member.get('crv') == curve)
        and isinstance(member.get('kid'), str | None)
        and member.get('alg', algorithm) == algorithm
        and member.get('use', 'sig') == 'sig'
        and isinstance(operations, list) and 'verify' in operations)


def is_url(location: str) -> bool:
    """Whether keys are behind a URL, else they are in a file."""
    return '://' in location


def make_reader(location: str, timeout: float) -> tuple[str, Callable[[], bytes]]:
    """What a place is called in the log, and what reads it or raises ``KeysError``.

    :param location: a path, or a URL in https, or in http on this machine
    :param timeout: seconds that a server may be silent
    :raises ValueError: it is another URL; it is not repeated, for there may be a secret in it
    """
    if not is_url(location):
        return location, partial(_read_file, Path(location))
    parts = _split(location)
    secure = parts.scheme == 'https' and parts.hostname
    if not secure and not (parts.scheme == 'http' and parts.hostname in LOOPBACK):
        raise ValueError('jwks: a URL has to be in https, or in http on this machine')
    if '@' in parts.netloc:
        raise ValueError('jwks: a URL must have no user and no password in it')
    name = parts._replace(query='', fragment='').geturl()
    return name, partial(_read_url, parts.geturl(), timeout)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # it is asked for the ValueError
    except ValueError:
        raise ValueError('jwks: the URL is not one') from None
    return parts


def _read_file(path: Path) -> bytes:
    try:
        with path.open('rb') as file:
            return file.read(MAX_SIZE + 1)
    except OSError as error:
        raise KeysError(str(error.strerror)) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Goes nowhere but where the configuration says: https could become http."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _read_url(url: str, timeout: float) -> bytes:
    # No proxy that the environment names is between this machine and itself.
    proxies = urllib.request.ProxyHandler(None if url.startswith('https:') else {})
    opener = urllib.request.build_opener(proxies, _NoRedirect)
    request = urllib.request.Request(url, headers={'Accept': 'application/jwk-set+json, */*'})
    try:
        with opener.open(request, timeout=timeout) as response:
            body: IO[bytes] = response
            return body.read(MAX_SIZE + 1)
    except HTTPError as error:
        error.close()
        raise KeysError(f'answered with status {error.code}') from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise KeysError(_reason(error)) from None


def _reason(error: Exception) -> str:
    """Why a server could not be read, in one line whatever it has sent."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f'certificate: {cause.verify_message}'
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return repr(cause)[:MAX_REASON_LENGTH]
