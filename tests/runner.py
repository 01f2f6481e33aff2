"""What ``run.py test`` runs: all tests of a folder, in this process, with warnings as errors."""

import gc
import sys
import unittest
import warnings
from collections.abc import Callable
from pathlib import Path


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


def run(
    folder: Path, root: Path, verbose: bool, no_skips: bool, say: Callable[[str], None]
) -> int:
    """The exit status: 0 if all tests have passed, and there was one.

    :param root: the folder that the names of the tests begin at
    :param no_skips: whether one that is skipped has failed
    :param say: tells the user a line, apart from the count
    """
    suite = unittest.TestSuite()
    if folder.is_dir():
        with warnings.catch_warnings(action='error'):  # the runner's own filter misses the imports
            suite = unittest.defaultTestLoader.discover(str(folder), '*_test.py', str(root))
    if not suite.countTestCases():
        say(f'no test was found in {folder.relative_to(root)}')
        return 1
    result = unittest.TextTestRunner(
        verbosity=2 if verbose else 1,
        warnings='error',
        resultclass=Result,  # type: ignore[arg-type]  # typeshed makes the stream's type invariant
    ).run(suite)
    assert isinstance(result, Result)
    return _conclude(result, no_skips, say)


def _conclude(result: Result, no_skips: bool, say: Callable[[str], None]) -> int:
    """Prints how many passed and failed, as the last line; returns the exit status."""
    if result.unraised:
        say(f'{result.unraised} failed outside of a test: see "Exception ignored" above')
    passed = result.passed + len(result.expectedFailures)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    failed += result.unraised
    if no_skips:
        for case, reason in result.skipped:
            say(f'{case.id()} was skipped: {reason}')
        failed += len(result.skipped)
    skipped = f', {len(result.skipped)} skipped' if result.skipped else ''
    print(f'{passed} passed, {failed} failed{skipped}', flush=True)
    return 1 if failed else 0
