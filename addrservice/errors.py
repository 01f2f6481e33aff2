"""The errors of the address book service, one sentence per cause.

    AddressBookError
    ├── InvalidInputError (ValueError)    What was passed in cannot be taken, here is why.
    │   ├── InvalidJSONError              The text is not JSON as RFC 8259 has it.
    │   └── InvalidEntryError             The entry breaks the JSON Schema.
    ├── UnknownNicknameError (KeyError)   No entry has the nickname.
    ├── NicknameTakenError (KeyError)     An entry has the nickname already.
    ├── StoreError                        The store failed in a way that nobody foresaw.
    │   ├── StoreUnavailableError         The store is out of reach or overloaded, for now.
    │   │   ├── NothingDoneError          Nothing was done; it may be tried again at once.
    │   │   └── OutcomeUnknownError       No answer came; it may have been done or not.
    │   └── StoreMisconfiguredError       The store turns the service away until an operator acts.
    └── StartError                        The service cannot start as it was told to.
        ├── ConfigError (ValueError)      The configuration file cannot be used.
        └── NewerSchemaError (StoreMisconfiguredError)  The store was made by a newer service.

The built-in parents are those a Python reader expects. Catch the classes of this tree: a bare
``KeyError`` or ``ValueError`` may be a bug.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Violation(NamedTuple):
    """One place in an entry that is wrong.

    :param path: the place, as a JSON Pointer (RFC 6901); the empty string is the whole entry
    :param message: what is wrong there, in words that a person can act on
    """

    path: str
    message: str


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


class UnknownNicknameError(AddressBookError, KeyError):
    """No entry has the nickname."""

    def __init__(self, nickname: str) -> None:
        super().__init__(f'There is no entry {nickname!r}')


class NicknameTakenError(AddressBookError, KeyError):
    """An entry has the nickname already."""

    def __init__(self, nickname: str) -> None:
        super().__init__(f'There is an entry {nickname!r} already')


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


class StoreMisconfiguredError(StoreError):
    """The store turns the service away until an operator acts."""


class StartError(AddressBookError):
    """The service cannot start as it was told to."""


class ConfigError(StartError, ValueError):
    """The configuration file cannot be used."""


class NewerSchemaError(StartError, StoreMisconfiguredError):
    """The store was made by a newer service."""
