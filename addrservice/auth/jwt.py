"""Access tokens of an authorization server: JWTs as RFC 9068 has them."""

import json
import logging
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import jwt
from jwt.exceptions import InvalidSubjectError
from jwt.utils import base64url_decode

from addrservice import LOGGER_NAME
from addrservice.auth.abstract import INVALID_TOKEN, AbstractAuthenticator, Caller, bearer_token
from addrservice.auth.jwks import ALGORITHMS
from addrservice.auth.key_set import KeySet, Pace
from addrservice.config import JWTSettings
from addrservice.errors import UnauthenticatedError

TYPES: Final = ('at+jwt', 'application/at+jwt')  # RFC 9068, 4
REQUIRED: Final = ('iss', 'exp', 'aud', 'sub', 'client_id', 'iat', 'jti')  # RFC 9068, 2.2
MAX_NAME_LENGTH: Final = 255  # OpenID Connect Core, 2: of ``sub``

# Three parts, none of them empty, without padding (RFC 7515, 2 and 3.1).
_COMPACT: Final = re.compile(r'([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+')


class JWTAuthenticator(AbstractAuthenticator):
    """Knows who shows an access token that the authorization server has signed.

    While its keys are at a URL that could not be read up to now, nobody can be known. Once they
    have been read they stay in force until others can be.

    :raises ValueError: the settings cannot be used; ``ConfigError`` if it is a file of keys
    """

    security_scheme: ClassVar[dict[str, Any]] = {
        'type': 'http',
        'scheme': 'bearer',
        'bearerFormat': 'JWT',
        'description': 'An access token (RFC 9068) of the authorization server.',
    }

    def __init__(self, settings: JWTSettings, pace: Pace = Pace()) -> None:
        if not settings.algorithms or not set(settings.algorithms) <= ALGORITHMS.keys():
            raise ValueError(f'jwt: algorithms may be {", ".join(ALGORITHMS)}')
        self._settings = settings
        self._logger = logging.getLogger(LOGGER_NAME)
        self._keys = KeySet(settings.jwks, settings.algorithms, pace, self._logger)
        self._decoder = _Decoder()

    async def start(self) -> None:
        await self._keys.start()

    async def stop(self) -> None:
        await self._keys.stop()

    def reload(self) -> None:
        self._keys.reload()

    async def authenticate(self, authorization: Sequence[str]) -> Caller:
        token = bearer_token(authorization)
        try:
            return _caller(await self._claims(token))
        except jwt.PyJWTError as error:
            # Its message may quote the token.
            self._logger.debug('an access token is refused: %s', type(error).__name__)
            raise UnauthenticatedError(INVALID_TOKEN) from None

    async def _claims(self, token: str) -> dict[str, Any]:
        """:raises PyJWTError: the token is not valid here"""
        algorithm, kid = _header(token, self._settings.algorithms)
        key = await self._keys.find(algorithm, kid)
        if key is None:
            raise jwt.InvalidKeyError
        return self._decoder.decode(
            token, key, algorithms=[algorithm], audience=self._settings.audience,
            issuer=self._settings.issuer, leeway=self._settings.leeway,
            options={'require': list(REQUIRED)})


class _Decoder(jwt.PyJWT):
    """PyJWT, but strict where it converts or overlooks."""

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        claims = _parse(decoded['payload'])
        for name in 'exp', 'iat', 'nbf':  # NumericDate: RFC 7519, 2
            if type(claims.get(name, 0)) not in (int, float):
                raise jwt.DecodeError
        return claims


def _header(token: str, algorithms: Sequence[str]) -> tuple[str, str | None]:
    """How a token says it is signed: the algorithm, and the id of the key.

    What else the header has does not count; keys that come with a token or that it points to
    (``jwk``, ``jku``, ``x5c``, ``x5u``) least of all.

    :raises PyJWTError: it is not an access token, or not signed in a way that is allowed
    """
    compact = _COMPACT.fullmatch(token)
    if compact is None:
        raise jwt.DecodeError
    header = _parse(_decode(compact[1]))
    if str(header.get('typ')).lower() not in TYPES or 'crit' in header:
        raise jwt.InvalidTokenError
    algorithm, kid = str(header.get('alg')), header.get('kid')
    if algorithm not in algorithms or not isinstance(kid, str | None):
        raise jwt.InvalidAlgorithmError
    return algorithm, kid


def _caller(claims: dict[str, Any]) -> Caller:
    """Who the claims are about.

    :raises PyJWTError: they are not such as an access token has
    """
    name, scope = claims['sub'], claims.get('scope', '')
    if not (name.isprintable() and 0 < len(name) <= MAX_NAME_LENGTH):
        raise InvalidSubjectError
    if not isinstance(scope, str) or not isinstance(claims['client_id'], str):
        raise jwt.DecodeError
    return Caller(name, frozenset(filter(None, scope.split(' '))))


def _decode(part: str) -> bytes:
    try:
        return base64url_decode(part)
    except ValueError:
        raise jwt.DecodeError from None


def _parse(text: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8, each name in it once (RFC 7515, 5.2; RFC 7519, 7.2)."""
    try:
        members = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise jwt.DecodeError from None
    if not isinstance(members, dict):
        raise jwt.DecodeError
    return members


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _refuse(constant: str) -> None:
    """NaN and the infinities, which are not JSON."""
    raise ValueError(constant)
