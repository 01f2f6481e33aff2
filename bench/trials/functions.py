"""What each function takes that a request goes through, in time and in instructions."""

import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench import programs
from bench.functions import MARK, MARKS
from bench.harness import Bench, Result
from bench.rounds import Sample

# Else each process would keep its dictionaries in another order.
_SAME_HASHES: Final[Mapping[str, str]] = {'PYTHONHASHSEED': '0'}
_PATIENCE: Final = 1800.0  # seconds, for what runs some fifty times slower
_SUMMARY: Final = re.compile(r'^summary: (\d+)$', re.MULTILINE)


def run(bench: Bench) -> Result:
    """Nanoseconds of a call in several processes; instructions, where valgrind is there."""
    rounds = [_time(first, 0.05 if bench.quick else 0.3) for first in range(bench.rounds())]
    counts = {} if bench.quick else count_instructions(bench.folder)
    samples = {name: [{**told[name], **counts.get(name, {})} for told in rounds]
               for name in rounds[0]}
    return Result('Nanoseconds of a call, and instructions where they were counted', samples,
                  pairs(samples), [*_notes(bool(counts))])


def _notes(counted: bool) -> Iterator[str]:
    yield ('"ns" is the median of many measurements in one process, "least ns" the best of them. '
           'What is behind a comma is what others use, or what is done besides; ratios are those '
           'of that to what is before the comma. Tornado only reads the head, the service the '
           'body too.')
    yield ('Instructions were counted once, by valgrind, which knows no AVX-512.' if counted else
           'Instructions were not counted: only a full run does that, where valgrind is.')


def pairs(names: Collection[str]) -> list[tuple[str, str]]:
    """What is compared: that with a comma in its name with that without."""
    return [(name, base) for name in names if (base := name.rpartition(', ')[0]) in names]


def _time(first: int, seconds: float) -> Mapping[str, Sample]:
    """In a new process, another one of them first."""
    told: Mapping[str, Sample] = programs.told(
        'bench.functions', 'time', '--first', first, '--seconds', seconds,
        variables=_SAME_HASHES)
    return told


def count_instructions(folder: Path) -> Mapping[str, Sample]:
    """Instructions of a call, by name; nothing where there is no valgrind, or it fails.

    :param folder: for what valgrind writes
    """
    valgrind = shutil.which('valgrind')
    if valgrind is None:
        return {}
    with TemporaryDirectory(dir=folder) as parts:
        try:
            calls: Mapping[str, int] = programs.told(
                'bench.functions', 'count', patience=_PATIENCE, variables=_SAME_HASHES, under=[
                    valgrind, '--quiet', '--tool=callgrind', f'--callgrind-out-file={parts}/part',
                    f'--dump-before={MARK}'])
        except programs.ProgramError as error:
            print(error, file=sys.stderr)
            return {}
        totals = [read_total(Path(parts, f'part.{number}'))
                  for number in range(1, len(calls) * MARKS + 1)]
    return {name: {'instructions': count} for name, count in per_call(calls, totals).items()}


def read_total(part: Path) -> int:
    """The instructions in what callgrind has written at a mark: those since the mark before."""
    found = _SUMMARY.search(part.read_text(encoding='utf-8'))
    assert found is not None
    return int(found[1])


def per_call(calls: Mapping[str, int], totals: Sequence[int]) -> dict[str, float]:
    """Instructions of one call, by name: without what there is before and after all of them.

    :param calls: how many there were, as ``bench.functions`` tells
    :param totals: instructions up to each mark
    """
    fewer, more = totals[1::MARKS], totals[2::MARKS]
    return {name: (more[place] - fewer[place]) / (2 * number)
            for place, (name, number) in enumerate(calls.items())}
