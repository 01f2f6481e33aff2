"""How a request or an operation ended, as one word out of few."""

import asyncio
from typing import Final

from addrservice.errors import (
    AddressBookError, InvalidEntryError, InvalidJSONError, InvalidParameterError,
    OutcomeUnknownError, StoreError, StoreMisconfiguredError, StoreOverloadedError,
    StoreUnavailableError,
)

# The nearest class of an error counts. A store that refuses is at work: it is the request that
# does not fit.
OUTCOMES: Final[dict[type[BaseException], str]] = {
    AddressBookError: 'refused',
    StoreError: 'error',
    StoreUnavailableError: 'unavailable',
    StoreOverloadedError: 'overloaded',
    OutcomeUnknownError: 'outcome_unknown',
    StoreMisconfiguredError: 'misconfigured',
    asyncio.CancelledError: 'cancelled',
    BaseException: 'error',
}

# The error says more than its status where one status has several.
REASONS_BY_ERROR: Final[dict[type[BaseException], str]] = {
    InvalidJSONError: 'invalid_json',
    InvalidEntryError: 'schema',
    InvalidParameterError: 'invalid_parameter',
}
REASONS_BY_STATUS: Final = {
    400: 'malformed',
    401: 'unauthenticated',
    403: 'forbidden',
    404: 'unknown',
    406: 'not_acceptable',
    408: 'incomplete',
    409: 'taken',
    412: 'precondition',
    413: 'too_large',
    415: 'media_type',
    417: 'expectation',
    422: 'key_reused',
    429: 'throttled',
}
OTHER_REASON: Final = 'other'
REASONS: Final = frozenset({*REASONS_BY_ERROR.values(), *REASONS_BY_STATUS.values(), OTHER_REASON})

_CARRY_AN_ENTRY: Final = frozenset({'POST', 'PUT', 'PATCH'})
_CLIENT_CLOSED_REQUEST: Final = 499


def outcome(error: BaseException | None) -> str:
    """How an operation of the store ended."""
    if error is None:
        return 'ok'
    return next(OUTCOMES[cls] for cls in type(error).__mro__ if cls in OUTCOMES)


def refusal(method: str, status: int, error: BaseException | None) -> str | None:
    """Why what a request brought was not taken; None if it was, or for no fault of its own."""
    if not 400 <= status < _CLIENT_CLOSED_REQUEST or method not in _CARRY_AN_ENTRY:
        return None
    reason = REASONS_BY_ERROR.get(type(error)) if error is not None else None
    return reason or REASONS_BY_STATUS.get(status, OTHER_REASON)
