"""The errors of the address book service, one sentence per cause.

    AddressBookError
    ├── InvalidInputError (ValueError)    What was passed in cannot be taken, here is why.
    │   ├── InvalidJSONError              The text is not JSON as RFC 8259 has it.
    │   ├── InvalidEntryError             The entry breaks the JSON Schema.
    │   └── InvalidParameterError         A parameter of a request cannot be taken.
    ├── UnknownNicknameError (KeyError)   No entry has the nickname.
    ├── NicknameTakenError (KeyError)     An entry has the nickname already.
    ├── KeyReusedError                    The idempotency key was used for another entry.
    ├── PreconditionFailedError           The entry is not in the state that was asked for.
    ├── AccessError                       Who asks may not have what was asked for.
    │   ├── BadCredentialsError           The request says in no clear way who asks.
    │   ├── UnauthenticatedError          Nobody knows who asks.
    │   └── ForbiddenError                Whoever asks may not do this.
    ├── AuthenticatorUnavailableError     Who asks cannot be found out, for now.
    ├── OverloadedError                   The service has too much to do, for now.
    ├── TooManyRequestsError              Whoever asks has asked too often.
    ├── StoreError                        The store failed in a way that nobody foresaw.
    │   ├── StoreUnavailableError         The store is out of reach or overloaded, for now.
    │   │   ├── NothingDoneError          Nothing was done; it may be tried again at once.
    │   │   ├── OutcomeUnknownError       No answer came; it may have been done or not.
    │   │   └── StoreOverloadedError      Too many wait for the store already.
    │   └── StoreMisconfiguredError       The store turns the service away until an operator acts.
    └── StartError                        The service cannot start as it was told to.
        ├── ConfigError (ValueError)      The configuration file cannot be used.
        └── NewerSchemaError (StoreMisconfiguredError)  The store was made by a newer service.

The built-in parents are those a Python reader expects. Catch the classes of this tree: a bare
``KeyError`` or ``ValueError`` may be a bug.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Violation(NamedTuple):
    """One place in a request that is wrong.

    :param path: the place in the entry, as a JSON Pointer (RFC 6901), where the empty string is the
        whole of it; or the name of a parameter
    :param message: what is wrong there, in words that a person can act on
    """

    path: str
    message: str


def json_pointer(path: Iterable[str | int]) -> str:
    """The JSON Pointer (RFC 6901) to a place, as in ``/phoneNumbers/0/kind``."""
    return ''.join('/' + str(step).replace('~', '~0').replace('/', '~1') for step in path)


class AddressBookError(Exception):
    """Base of the tree.

    :param message: one line that a client or an operator can act on
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        """The message as it is, where ``KeyError`` would quote it."""
        return self.message


class InvalidInputError(AddressBookError, ValueError):
    """What was passed in cannot be taken, here is why.

    :param violations: the first places that are wrong, never empty
    """

    def __init__(self, message: str, violations: Sequence[Violation]) -> None:
        super().__init__(message)
        self.violations = violations


class InvalidJSONError(InvalidInputError):
    """The text is not JSON as RFC 8259 has it.

    :param reason: what the parser stumbled over, and where
    """

    def __init__(self, reason: str) -> None:
        super().__init__('Invalid JSON body', [Violation('', reason)])


class InvalidEntryError(InvalidInputError):
    """The entry breaks the JSON Schema."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__('JSON Schema validation failed', violations)


class InvalidParameterError(InvalidInputError):
    """A parameter of a request cannot be taken.

    :param name: of the parameter
    :param reason: what it must be
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f'The parameter {name!r} {reason}', [Violation(name, reason)])


class UnknownNicknameError(AddressBookError, KeyError):
    """No entry has the nickname."""

    def __init__(self, nickname: str) -> None:
        super().__init__(f'There is no entry {nickname!r}')


class NicknameTakenError(AddressBookError, KeyError):
    """An entry has the nickname already."""

    def __init__(self, nickname: str) -> None:
        super().__init__(f'There is an entry {nickname!r} already')


class KeyReusedError(AddressBookError):
    """The idempotency key was used for another entry."""

    def __init__(self) -> None:
        super().__init__('The Idempotency-Key was used for another entry')


class PreconditionFailedError(AddressBookError):
    """The entry is not in the state that was asked for."""

    def __init__(self, nickname: str) -> None:
        super().__init__(f'The entry {nickname!r} is not in the state that the request asks for')


class AccessError(AddressBookError):
    """Who asks may not have what was asked for.

    :param code: of the error (RFC 6750, 3.1); None where no credentials were sent
    """

    def __init__(self, message: str, code: str | None) -> None:
        super().__init__(message)
        self.code = code


class BadCredentialsError(AccessError):
    """The request says in no clear way who asks."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 'invalid_request')


class UnauthenticatedError(AccessError):
    """Nobody knows who asks."""

    def __init__(self, message: str, code: str | None = 'invalid_token') -> None:
        super().__init__(message, code)


class ForbiddenError(AccessError):
    """Whoever asks may not do this.

    :param scope: what it takes
    """

    def __init__(self, scope: str) -> None:
        super().__init__(f'The scope {scope} is needed', 'insufficient_scope')
        self.scope = scope


class AuthenticatorUnavailableError(AddressBookError):
    """Who asks cannot be found out, for now."""


class OverloadedError(AddressBookError):
    """The service has too much to do, for now."""


class TooManyRequestsError(AddressBookError):
    """Whoever asks has asked too often.

    :param seconds: after which it may be tried again
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f'Too many requests; try again in {seconds} s')
        self.seconds = seconds


class StoreError(AddressBookError):
    """The store failed in a way that nobody foresaw.

    The message of this and of the ones below is for operators: it may name hosts and users.
    """


class StoreUnavailableError(StoreError):
    """The store is out of reach or overloaded, for now."""


class NothingDoneError(StoreUnavailableError):
    """Nothing was done; it may be tried again at once."""


class OutcomeUnknownError(StoreUnavailableError):
    """No answer came; it may have been done or not."""


class StoreOverloadedError(StoreUnavailableError):
    """Too many wait for the store already."""


class StoreMisconfiguredError(StoreError):
    """The store turns the service away until an operator acts."""


class StartError(AddressBookError):
    """The service cannot start as it was told to."""


class ConfigError(StartError, ValueError):
    """The configuration file cannot be used."""


class NewerSchemaError(StartError, StoreMisconfiguredError):
    """The store was made by a newer service."""
