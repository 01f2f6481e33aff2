"""What an exception becomes in HTTP: one table, and the header fields that go with a status."""

from http import HTTPStatus
from typing import Final

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from addrservice.errors import (
    AccessError, AddressBookError, AuthenticatorUnavailableError, BadCredentialsError,
    ForbiddenError, InvalidEntryError, InvalidJSONError, InvalidParameterError, KeyReusedError,
    NicknameTakenError, OverloadedError, PreconditionFailedError, StoreError,
    StoreMisconfiguredError, StoreUnavailableError, TooManyRequestsError, UnauthenticatedError,
    UnknownNicknameError,
)

RETRY_AFTER: Final = 1  # seconds

CLIENT_CLOSED_REQUEST: Final = 499  # nobody is there to see it but who reads the log; nginx's

REALM: Final = 'addressbook'

NO_BODY: Final = (204, 304)  # statuses of answers that never have one (RFC 9110, 15)

# Exception class -> status and, where it is not the standard one, reason phrase (RFC 9110, 15).
ERROR_TABLE: Final[dict[type[BaseException], tuple[int, str | None]]] = {
    InvalidJSONError: (400, 'Invalid JSON body'),
    InvalidEntryError: (400, 'JSON Schema validation failed'),
    InvalidParameterError: (400, None),
    BadCredentialsError: (400, None),
    UnauthenticatedError: (401, None),
    ForbiddenError: (403, None),
    UnknownNicknameError: (404, None),
    NicknameTakenError: (409, None),
    PreconditionFailedError: (412, None),
    KeyReusedError: (422, None),
    TooManyRequestsError: (429, None),
    OverloadedError: (503, None),
    AuthenticatorUnavailableError: (503, None),
    StoreUnavailableError: (503, None),
    StoreMisconfiguredError: (500, None),
    StreamClosedError: (CLIENT_CLOSED_REQUEST, None),
}

# What these say is for operators.
INTERNAL: Final = (StoreError, AuthenticatorUnavailableError)


def answer_to(error: BaseException | None) -> tuple[int, str | None] | None:
    """Status and reason phrase; None for a bug, and for an ``HTTPError``, which has its own."""
    return next((ERROR_TABLE[cls] for cls in type(error).__mro__ if cls in ERROR_TABLE), None)


def message_of(error: BaseException | None) -> str | None:
    """What an error tells the client; a bug and the troubles of the inside tell nothing."""
    if isinstance(error, HTTPError):
        return error.get_message()
    if isinstance(error, AddressBookError) and not isinstance(error, INTERNAL):
        return error.message
    return None


def error_headers(status: int, error: BaseException | None) -> dict[str, str]:
    """The header fields that say how to do better, as far as they do not depend on the path."""
    headers = {}
    if isinstance(error, AccessError):
        headers['WWW-Authenticate'] = _challenge(error)
    if isinstance(error, TooManyRequestsError):
        headers['Retry-After'] = str(error.seconds)
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers['Retry-After'] = str(RETRY_AFTER)
    return headers


def _challenge(error: AccessError) -> str:
    """What to show instead (RFC 6750, 3)."""
    parameters = {'realm': REALM}
    if error.code is not None:
        parameters |= {'error': error.code, 'error_description': error.message}
    if isinstance(error, ForbiddenError):
        parameters['scope'] = error.scope
    return 'Bearer ' + ', '.join(f'{name}="{value}"' for name, value in parameters.items())
