"""Who asks, and what every way to find that out keeps to."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

from addrservice.errors import BadCredentialsError, UnauthenticatedError

READ: Final = 'addressbook:read'
WRITE: Final = 'addressbook:write'
SCOPES: Final = (READ, WRITE)

MAX_TOKEN_SIZE: Final = 8 * 1024  # characters

INVALID_TOKEN: Final = 'The access token is not valid here, or not any more'

_TOKEN: Final = re.compile(r'[A-Za-z0-9._~+/-]+=*')  # token68 (RFC 9110, 11.2)


class Caller(NamedTuple):
    """Who asks.

    :param name: for the log and the rate limit; no control characters in it
    :param scopes: what the caller may do: ``READ``, ``WRITE``, and others that say nothing here
    """

    name: str
    scopes: frozenset[str]


class AbstractAuthenticator(ABC):
    """Finds out who asks.

    A class of somebody else's is named in the configuration, under ``auth``, ``custom``, by its
    dotted path; its settings come as keyword arguments, with underscores for hyphens, and it
    raises ``ValueError`` for bad ones. One that is made but not started holds nothing open: it was
    made to check the configuration. Whoever is refused is told to show a bearer token.

    :cvar security_scheme: how clients say who they are, for ``/openapi.json`` (OpenAPI 3.1,
        Security Scheme Object)
    """

    security_scheme: ClassVar[dict[str, Any]]

    async def start(self) -> None:
        """Opens what it needs. Called once, in the event loop, before any other method."""

    async def stop(self) -> None:
        """Closes what ``start`` opened. No method is called after it."""

    def reload(self) -> None:
        """Reads its files anew; called in the event loop, on SIGHUP.

        :raises ConfigError: one cannot be used; then what was in force stays in force
        """

    @abstractmethod
    async def authenticate(self, authorization: Sequence[str]) -> Caller:
        """Who sends a request.

        :param authorization: the values of all its ``Authorization`` fields
        :raises UnauthenticatedError: nobody knows
        :raises BadCredentialsError: it does not say so in a clear way
        :raises AuthenticatorUnavailableError: that cannot be found out, for now
        """


def bearer_token(authorization: Sequence[str]) -> str:
    """The token that a request carries (RFC 6750, 2.1).

    :param authorization: the values of all ``Authorization`` fields of a request
    :raises UnauthenticatedError: there is none, or it is longer than any that is known here
    :raises BadCredentialsError: there are several fields, or what follows ``Bearer`` is no token
    """
    if len(authorization) > 1:
        raise BadCredentialsError('There may be one Authorization field only')
    scheme, _, token = ''.join(authorization).strip(' ').partition(' ')
    if scheme.lower() != 'bearer':  # nor do fields without any scheme get an error code (3.1)
        raise UnauthenticatedError('An access token is needed, as Authorization: Bearer', None)
    token = token.lstrip(' ')
    if not _TOKEN.fullmatch(token):
        raise BadCredentialsError('After Bearer there has to be one access token')
    if len(token) > MAX_TOKEN_SIZE:
        raise UnauthenticatedError(INVALID_TOKEN)
    return token
