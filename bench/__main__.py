"""The benchmark: ``python3 run.py bench [--quick] [--only TRIAL ...]``.

Runs this service and its peers in turns, on the same work, and says what they do: in tables on
standard output, and in results.json, results.md and plots in a folder. Wants a machine with two
CPUs that has nothing else to do.
"""

import argparse
import importlib
import os
import resource
import sys
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


def measure(names: Sequence[str], quick: bool) -> report.Document:
    """What the trials have found, each of which is shown when it is there.

    A trial that fails says so and is left out.
    """
    results: dict[str, Result] = {}
    with Bench(quick) as bench:
        described = machine.describe(bench.wrk, bench.h2load, bench.folder)
        show('\n'.join(f'{name}: {version}' for name, version in described.items()))
        show(report.EXPLANATION)
        for name in names:
            say(f'{name} ...')
            try:
                results[name] = importlib.import_module(f'bench.trials.{name}').run(bench)
                show(f'{name}: {report.describe(report.trial(results[name]))}')
            except BenchError as error:
                say(f'{name} failed: {error}')
    return report.document(described, results)


def show(text: str) -> None:
    """A paragraph of the results."""
    print(f'{text}\n', flush=True)


def write(folder: Path, told: report.Document) -> None:
    """Writes the results; trials that were not run again stay."""
    folder.mkdir(parents=True, exist_ok=True)
    told = report.merge(folder / 'results.json', told)
    report.write_json(folder / 'results.json', told)
    (folder / 'results.md').write_text(report.markdown(told), encoding='utf-8')
    plots.draw(told, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 if a trial failed, 2 if there could be none, 130 after Ctrl-C."""
    options = parse(arguments)
    os.environ |= ENVIRONMENT
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the servers, too
    try:
        told = measure(options.only, options.quick)
    except BenchError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say('interrupted')
        return 130
    folder = options.results or (QUICK_RESULTS if options.quick else FULL_RESULTS)
    write(folder, told)
    say(f'written to {folder}')
    return int(told['trials'].keys() != set(options.only))


if __name__ == '__main__':
    sys.exit(main())
