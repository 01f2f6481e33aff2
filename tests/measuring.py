"""What processes reach that the tests have started: it counts as what the tests reach themselves.

Each process writes a file; where several start from one command, ``coverage`` tells them apart.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

import coverage
from coverage.exceptions import DataError

ROOT: Final = Path(__file__).resolve().parent.parent


def command(data: Path) -> list[str]:
    """What Python has to run a program with, so that it is measured where the tests are.

    :param data: where to write what it reaches
    """
    if coverage.Coverage.current() is None:
        return []
    return ['-m', 'coverage', 'run', '--branch', '--parallel-mode',
            f'--source={ROOT / "addrservice"}', f'--rcfile={ROOT / "setup.cfg"}',
            f'--data-file={data}']


def add(data: Path) -> None:
    """Adds what the processes have reached that have ended, and wrote there."""
    measurement = coverage.Coverage.current()
    if measurement is not None:
        for file in data.parent.glob(f'{data.name}.*'):  # one a process
            reached = coverage.CoverageData(str(file))
            with suppress(DataError):  # it was killed while it wrote: as if it had been before
                reached.read()
                measurement.get_data().update(reached)
            reached.close()
