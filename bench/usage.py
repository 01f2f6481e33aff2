"""What processes take of the machine, as Linux tells it."""

import os
import re
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def memory(processes: Iterable[int]) -> int:
    """Bytes of all of them that have not ended; what they share counts once (PSS)."""
    return sum(map(_proportional_bytes, processes))


def cpu_seconds(processes: Iterable[int]) -> float:
    """The processor time of all of them, and of their children that have ended."""
    return sum(map(_cpu_seconds, processes))


def cpu_seconds_of_ended() -> float:
    """The same, of the children of this program that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _proportional_bytes(process: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        text = Path(f'/proc/{process}/smaps_rollup').read_text(encoding='ascii')
        found = re.search(r'^Pss: +(\d+) kB', text, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def _cpu_seconds(process: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        stat = Path(f'/proc/{process}/stat').read_text(encoding='ascii', errors='replace')
        return sum(map(int, stat.rpartition(')')[2].split()[11:15])) / os.sysconf('SC_CLK_TCK')
    return 0
