"""Programs that say something and end: load generators, floors, what counts instructions."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench import BenchError, machine
from tests.support import ROOT

PATIENCE: Final = 300.0  # seconds; the longest of them, but for valgrind, takes a tenth of it
_TOLD: Final = 1000  # characters of what one that has failed has printed


class ProgramError(BenchError):
    """A program has failed, or has not ended; the message has the last of what it printed."""


def output(
    command: Sequence[str], environment: Mapping[str, str], patience: float = PATIENCE
) -> str:
    """What a program prints on standard output.

    :param patience: seconds until it is ended
    :raises ProgramError: it has failed
    """
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=dict(environment), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors='replace', timeout=patience)
    except subprocess.TimeoutExpired:
        raise ProgramError(f'{command[0]} has not ended after {patience:g} s') from None
    if done.returncode:
        told = (done.stdout + done.stderr).strip()[-_TOLD:]
        raise ProgramError(f'{" ".join(command)} ended with {done.returncode}: {told}')
    return done.stdout


def told(
    module: str, *arguments: object, under: Sequence[str] = (),
    variables: Mapping[str, str] = {}, cpus: int = 1, patience: float = PATIENCE,
) -> Any:
    """What a module says in JSON in the last line that it prints, bound as servers are.

    :param under: the command that is to run Python
    :param variables: of its environment
    :raises ProgramError: it has failed
    """
    command = [*under, sys.executable, '-m', module, *map(str, arguments)]
    lines = output(machine.on_cpus(cpus, command),
                   {**os.environ, 'PYTHONPATH': str(ROOT), **variables}, patience).splitlines()
    return json.loads(lines[-1])
