"""Patience with a store that is out of reach for a moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from addrservice.errors import StoreUnavailableError

T = TypeVar('T')

PATIENCE: Final = 15  # seconds
PAUSE: Final = 0.2  # seconds


class BusyError(StoreUnavailableError):
    """The store wants to be left alone for a while.

    :param seconds: after which it may be tried again
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


async def persistently(operation: Callable[[], Awaitable[T]]) -> T:
    """Tries an operation that can do no harm twice, until it succeeds or patience is at its end."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return await operation()
        except StoreUnavailableError as error:
            if time.monotonic() >= end:
                raise
            await asyncio.sleep(error.seconds if isinstance(error, BusyError) else PAUSE)
