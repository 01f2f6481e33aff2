"""What was done, counted."""

import time


class Tally:
    """How many entries had which fate, and in what time.

    :param fates: each of them as the summary names it
    """

    def __init__(self, *fates: str) -> None:
        self._counts = dict.fromkeys(fates, 0)
        self._started = time.monotonic()

    def __getitem__(self, fate: str) -> int:
        return self._counts[fate]

    def add(self, fate: str, number: int = 1) -> None:
        """Counts so many more."""
        self._counts[fate] += number

    def __str__(self) -> str:
        """The summary."""
        seconds = time.monotonic() - self._started
        counts = ', '.join(f'{number} {fate}' for fate, number in self._counts.items())
        rate = sum(self._counts.values()) / seconds
        return f'{counts} in {seconds:.1f} s ({rate:.0f} per second)'
