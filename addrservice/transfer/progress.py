"""What a person sees on the terminal while entries are moved."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress:
    """A bar below the lines that are told, where standard error is a terminal.

    :param unit: what is counted
    :param total: how many there are, if that is known
    """

    def __init__(self, unit: str, total: int | None = None) -> None:
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            from tqdm import tqdm
            tqdm.monitor_interval = 0  # no thread that looks after bars which are seldom updated
            self._bar = tqdm(unit=unit, total=total, unit_scale=True, dynamic_ncols=True)

    def update(self, number: int) -> None:
        """So many more are done."""
        if self._bar is not None:
            self._bar.update(number)

    def tell(self, line: str) -> None:
        """Prints a line."""
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
