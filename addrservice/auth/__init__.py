"""Who may: authenticators find out who sends a request, and what that caller may do.

``AbstractAuthenticator`` is the contract. What the configuration names under ``auth`` is made by
``create_authenticator``; its module, and what that needs, is imported only then.
"""

from typing import Literal

from addrservice.auth.abstract import (
    READ, SCOPES, WRITE, AbstractAuthenticator, Caller, bearer_token,
)
from addrservice.config import AuthSettings
from addrservice.plugins import create_plugin

__all__ = [
    'READ', 'SCOPES', 'WRITE', 'AbstractAuthenticator', 'Caller', 'bearer_token',
    'create_authenticator',
]


def create_authenticator(
    settings: AuthSettings | Literal['none'] | None
) -> AbstractAuthenticator | None:
    """What the configuration names under ``auth``, not yet started; None where nobody is asked.

    :raises ValueError: the settings, or a file that they name (``ConfigError``), cannot be used;
        in one line
    """
    if not isinstance(settings, AuthSettings):
        return None
    if settings.tokens is not None:
        from addrservice.auth.tokens import TokenAuthenticator
        return TokenAuthenticator(settings.tokens)
    if settings.jwt is not None:
        from addrservice.auth.jwt import JWTAuthenticator
        return JWTAuthenticator(settings.jwt)
    (path, values), = (settings.custom or {}).items()
    # mypy knows no way to tell that a base class is only compared with.
    # mypy knows no way to tell that a base class is only compared with.
    return create_plugin(path, values, AbstractAuthenticator)  # type: ignore[type-abstract]
