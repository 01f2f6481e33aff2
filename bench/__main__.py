"""The benchmark: ``python3 run.py bench [--quick] [--only TRIAL ...]``.

Runs this service and its peers in turns, on the same work, and says what they do: in tables on
standard output, and in results.json, results.md and plots in a folder, after each trial. Wants a
machine with two CPUs that has nothing else to do.
"""

import argparse
import importlib
import os
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import BenchError, machine, plots, report, trials
from bench.harness import Bench, Result
from tests.postgresql import ENVIRONMENT

HERE: Final = Path(__file__).parent
FULL_RESULTS: Final = HERE / 'results'
QUICK_RESULTS: Final = HERE / 'env' / 'results'


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; ends the program, with status 2 if they are wrong."""
    parser = argparse.ArgumentParser(
        prog='run.py bench', description='Measures this service and its peers, in turns.')
    parser.add_argument('--quick', action='store_true',
                        help='everything is short; the figures are rough')
    parser.add_argument('--only', nargs='+', choices=trials.NAMES, default=trials.NAMES,
                        metavar='TRIAL', help=f'some of: {", ".join(trials.NAMES)}')
    parser.add_argument('--results', type=Path,
                        help='folder to write to (default: bench/results, and bench/env/results '
                             'with --quick)')
    return parser.parse_args(arguments)


def say(line: str) -> None:
    """One line to the user, apart from the results."""
    print(f'bench: {line}', file=sys.stderr, flush=True)


def measure(names: Sequence[str], quick: bool, folder: Path) -> list[str]:
    """Runs the trials, and shows and writes what each has found before the next one begins.

    :return: the names of those that have failed
    """
    failed = []
    with Bench(quick) as bench:
        described = machine.describe(bench.wrk, bench.h2load, bench.folder)
        show('\n'.join(f'{name}: {version}' for name, version in described.items()))
        show(report.EXPLANATION)
        for name in names:
            say(f'{name} ...')
            began = time.monotonic()
            found = attempt(bench, name)
            show(f'{name}: {report.describe(found)}')
            write(folder, report.document(described, {name: found}))
            say(f'{name} took {time.monotonic() - began:.0f} s')
            failed += [name] if report.has_failed(found) else []
    return failed


def attempt(bench: Bench, name: str) -> report.Document:
    """What a trial has found, or why it has failed: not even a bug in one costs the others."""
    try:
        result: Result = importlib.import_module(f'bench.trials.{name}').run(bench)
        return report.trial(result)
    except BenchError as error:
        return report.failure(str(error))
    except Exception as error:
        traceback.print_exc()
        return report.failure(f'{type(error).__name__}: {error}')


def show(text: str) -> None:
    """A paragraph of the results."""
    print(f'{text}\n', flush=True)


def write(folder: Path, told: report.Document) -> None:
    """Writes the results of some trials; those that are there of others stay."""
    folder.mkdir(parents=True, exist_ok=True)
    all_of_them = report.merge(folder / 'results.json', told)
    report.write_json(folder / 'results.json', all_of_them)
    (folder / 'results.md').write_text(report.markdown(all_of_them), encoding='utf-8')
    plots.draw(told, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 if a trial failed, 2 if there could be none, 130 after Ctrl-C."""
    options = parse(arguments)
    os.environ |= ENVIRONMENT
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the servers, too
    folder = options.results or (QUICK_RESULTS if options.quick else FULL_RESULTS)
    try:
        failed = measure(options.only, options.quick, folder)
    except BenchError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say('interrupted')
        return 130
    say(f'written to {folder}')
    if failed:
        say(f'failed: {", ".join(failed)}')
    return int(bool(failed))


if __name__ == '__main__':
    sys.exit(main())
