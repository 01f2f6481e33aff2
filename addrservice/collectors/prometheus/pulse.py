"""The pulse: how late the event loop is, and an opportunity for what has to be done regularly."""

import asyncio
from collections.abc import Callable
from typing import Final

INTERVAL: Final = 0.1  # seconds between two timers
BEATS: Final = 10  # timers between two tellings


class Pulse:
    """Timers in the running event loop, one after the other, at even times.

    What falls due while the loop is busy is counted as if it had been waiting, each timer with its
    own delay. So the share of the timers that were late is the share of requests that were, and
    one long pause is not one late timer among many.

    :param observe: is given the seconds of each timer's delay
    :param give_on: is called at each timer
    :param tell: is called about once a second
    """

    def __init__(
        self,
        observe: Callable[[float], None],
        give_on: Callable[[], None],
        tell: Callable[[], None],
    ) -> None:
        self._observe = observe
        self._give_on = give_on
        self._tell = tell
        self._beats = 0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + INTERVAL
        self._timer = self._loop.call_at(self._due, self._beat)

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        while self._due <= now:
            self._observe(now - self._due)
            self._due += INTERVAL
        self._timer = self._loop.call_at(self._due, self._beat)
        self._give_on()
        self._beats += 1
        if self._beats % BEATS == 0:
            self._tell()
