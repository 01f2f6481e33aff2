"""A deadline that is moved more often than it is met."""

import asyncio
from collections.abc import Callable


class Alarm:
    """Rings when its time has come.

    Its timer is not moved along with the deadline, but set again when it was too early.

    :param ring: what to do then
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Has it ring after that time, and not at the one that was set before."""
        self._deadline = deadline = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._look_at_clock)

    def clear(self) -> None:
        """Has it not ring until it is set again."""
        self._deadline = None

    def close(self) -> None:
        """Lets go of all that would ring."""
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
        del self._ring

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        left = self._deadline - self._loop.time()
        if left > 0:
            self.set(left)
        else:
            self._ring()
