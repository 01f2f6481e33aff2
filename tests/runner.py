"""What ``run.py test`` runs: the tests of a folder, in as many processes as there are processors.

A process is given one module after the other, so that none is idle while there is work left. A
module stays whole, for its fixtures. Warnings are errors.
"""

import gc
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Final, NamedTuple, Self

from tests import measuring

ROOT: Final = Path(__file__).resolve().parent.parent
PATIENCE: Final = 10.0  # seconds in which an interrupted process has to end
MEMORY: Final = Path('/dev/shm')
ROOM: Final = 4 << 30  # bytes: the tests need less than one of those four gigabytes


class Outcome(NamedTuple):
    """What has come of the tests of a module.

    :param text: what unittest says of them
    :param skipped: tests, each with its reason
    """

    text: str
    passed: int = 0
    failed: int = 0
    skipped: Sequence[tuple[str, str]] = ()
    seconds: float = 0


class Result(unittest.TextTestResult):
    """Counts the tests that passed, and the errors that Python could only print.

    A destructor cannot raise: that a file was left open or a coroutine never awaited gets no
    further than sys.unraisablehook, even where warnings are errors.
    """

    passed = 0
    unraised = 0

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.passed += 1
        super().addSuccess(test)

    def count_unraised(self, seen: 'sys.UnraisableHookArgs') -> None:
        self.unraised += 1
        sys.__unraisablehook__(seen)

    def startTestRun(self) -> None:
        sys.unraisablehook = self.count_unraised

    def stopTestRun(self) -> None:
        gc.collect()
        sys.unraisablehook = sys.__unraisablehook__
        if self.unraised:
            self.stream.write(f'\n{self.unraised} failed outside of a test: '
                              'see "Exception ignored" above\n')

    def outcome(self, text: str, seconds: float) -> Outcome:
        """All in all."""
        return Outcome(
            text, self.passed + len(self.expectedFailures),
            len(self.failures) + len(self.errors) + len(self.unexpectedSuccesses) + self.unraised,
            [(case.id(), reason) for case, reason in self.skipped], seconds)


def run_module(module: Path, verbose: bool) -> Outcome:
    """Runs the tests of a module, in this process."""
    began = time.monotonic()
    with warnings.catch_warnings(action='error'):  # the runner's own filter misses the imports
        suite = unittest.TestLoader().discover(str(module.parent), module.name, str(ROOT))
    text = io.StringIO()
    result = unittest.TextTestRunner(
        text, verbosity=2 if verbose else 1, warnings='error',
        resultclass=Result,  # type: ignore[arg-type]  # typeshed makes the stream's type invariant
    ).run(suite)
    assert isinstance(result, Result)
    return result.outcome(text.getvalue(), time.monotonic() - began)


def work(connection: Connection) -> None:
    """Runs the modules that this process is given, until there are no more."""
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            connection.send(tuple(run_module(*connection.recv())))
            # What is left is here to stay: a full collection that looked at it again would stop
            # later tests for some tenths of a second, also those that measure time.
            gc.freeze()


class Worker:
    """A process that runs modules, one at a time.

    Entering it starts it; leaving it waits until it has ended, which is at once after an exception.

    :param scratch: where its temporary files go, and which code it reaches
    :ivar is_well: whether it can be given more; it cannot when it has died of the last one
    :raises ChildProcessError: when leaving it, if it fails where it should just end
    """

    module: Path
    is_well = True

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def __enter__(self) -> Self:
        self.connection, its_end = Pipe()
        with its_end:
            # In a process group of its own, so that Ctrl-C comes from here alone, and so once.
            self._process = subprocess.Popen(
                [sys.executable, *measuring.command(self._scratch / 'coverage'),
                 '-m', 'tests.runner', str(its_end.fileno())],
                cwd=ROOT, env={**os.environ, 'TMPDIR': str(self._scratch)},
                stdin=subprocess.DEVNULL, pass_fds=[its_end.fileno()], process_group=0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.connection.close()
        if kind is None:
            self._conclude()
        elif self._process.poll() is None:
            self._interrupt()

    def _conclude(self) -> None:
        if self._process.wait() and self.is_well:
            raise ChildProcessError(
                f'a process of the tests has ended with status {self._process.returncode}')

    def _interrupt(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def begin(self, module: Path, verbose: bool) -> None:
        """Gives it a module."""
        self.module = module
        with suppress(BrokenPipeError):  # then it has no outcome either
            self.connection.send((module, verbose))

    def outcome(self) -> Outcome:
        """Waits for what comes of the module: if the process dies of it, that."""
        try:
            return Outcome(*self.connection.recv())
        except (EOFError, ConnectionResetError):
            self.is_well = False
            return Outcome(f'its process has ended with status {self._process.wait()}\n', failed=1)


def outcomes(
    modules: Sequence[Path], verbose: bool, scratch: Path
) -> Iterator[tuple[Path, Outcome]]:
    """Runs all modules; what comes of each is there as soon as it is known."""
    waiting = list(reversed(modules))
    idle: list[Worker] = []
    busy: dict[Connection, Worker] = {}
    with ExitStack() as stack:
        while waiting or busy:
            while waiting and len(busy) < processors():
                worker = idle.pop() if idle else stack.enter_context(Worker(scratch))
                worker.begin(waiting.pop(), verbose)
                busy[worker.connection] = worker
            for connection in busy.keys() & wait(list(busy)):
                worker = busy.pop(connection)
                yield worker.module, worker.outcome()
                if worker.is_well:
                    idle.append(worker)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for all temporary files, in memory where there is room: a disk is waited for."""
    chosen = 'TMPDIR' in os.environ
    with tempfile.TemporaryDirectory(dir=MEMORY if not chosen and _has_room() else None) as name:
        os.chmod(name, 0o755)  # PostgreSQL runs as another user
        yield Path(name)


def _has_room() -> bool:
    try:
        memory = os.statvfs(MEMORY)
    except OSError:
        return False
    return memory.f_bavail * memory.f_frsize > ROOM and not memory.f_flag & os.ST_NOEXEC


def processors() -> int:
    """How many this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(folder: Path, verbose: bool, no_skips: bool, say: Callable[[str], None]) -> int:
    """Runs tests and tells how they went; returns the exit status.

    :param no_skips: whether one that is skipped has failed
    :param say: tells the user a line, apart from the count
    """
    found = {}
    with scratch_folder() as scratch:
        for module, outcome in outcomes(sorted(folder.rglob('*_test.py')), verbose, scratch):
            name = '.'.join(module.relative_to(ROOT).with_suffix('').parts)
            found[name] = outcome
            print(outcome.text if verbose else f'{name}: {outcome.passed} passed, '
                  f'{outcome.failed} failed, {outcome.seconds:.1f} s', file=sys.stderr, flush=True)
        measuring.add(scratch / 'coverage')
    if not any(outcome.passed or outcome.failed or outcome.skipped for outcome in found.values()):
        say(f'no test was found in {folder.relative_to(ROOT)}')
        return 1
    return conclude(found, no_skips, say)


def conclude(found: Mapping[str, Outcome], no_skips: bool, say: Callable[[str], None]) -> int:
    """Prints what has failed, and how many passed and failed, as the last line."""
    passed = sum(outcome.passed for outcome in found.values())
    failed = sum(outcome.failed for outcome in found.values())
    skipped = [test for outcome in found.values() for test in outcome.skipped]
    for name, outcome in found.items():
        if outcome.failed:
            print(f'\n{name}:\n{outcome.text}', file=sys.stderr, flush=True)
    if no_skips:
        for test, reason in skipped:
            say(f'{test} was skipped: {reason}')
        failed += len(skipped)
    print(f'{passed} passed, {failed} failed' + (f', {len(skipped)} skipped' if skipped else ''),
          flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    work(Connection(int(sys.argv[1])))
