"""What a benchmark says: tables for people, and the same in JSON for programs."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.harness import Result
from bench.rounds import TOO_WIDE, Figure, figures, ratios

Document = dict[str, Any]

EXPLANATION: Final = (
    'Medians of several rounds, ± half the width of the middle half of the rounds. Ratios are '
    f'taken within each round. Where the middle half is wider than {TOO_WIDE:.0%}, a figure is '
    'unsteady and a ratio proves nothing; both are marked. '
    'Without a ±, there was one round only.')


def document(machine: Mapping[str, str], trials: Mapping[str, Document]) -> Document:
    """All of it, in the types of JSON.

    :param trials: what ``trial`` and ``failure`` have given, by name
    """
    return {'machine': dict(machine), 'trials': dict(trials)}


def trial(result: Result) -> Document:
    """What a trial has found."""
    return {
        'title': result.title,
        'notes': list(result.notes),
        'figures': {name: _in_json(figures(samples)) for name, samples in result.samples.items()},
        'ratios': [{'of': one, 'to': other, 'figures': _in_json(_ratios(result, one, other))}
                   for one, other in result.comparisons],
        'samples': {name: [{measure: rounded(value) for measure, value in sample.items()}
                           for sample in samples]
                    for name, samples in result.samples.items()},
    }


def failure(reason: str) -> Document:
    """What is told of a trial that has found nothing."""
    return {'failed': reason}


def has_failed(found: Document) -> bool:
    """Whether there is a reason instead of figures."""
    return 'failed' in found


def _ratios(result: Result, one: str, other: str) -> dict[str, Figure]:
    return ratios(result.samples[one], result.samples[other])


def _in_json(named: Mapping[str, Figure]) -> Document:
    return {measure: {'median': rounded(figure.median),
                      'spread': None if figure.spread is None else rounded(figure.spread)}
            for measure, figure in named.items()}


def rounded(value: float) -> float:
    """To four digits that count, which is more than these measurements are good for."""
    return float(f'{value:.4g}')


def merge(path: Path, new: Document) -> Document:
    """The document with the trials of an earlier one that were not run again.

    Those of another machine, or of other versions, are dropped.
    """
    if path.exists():
        old = json.loads(path.read_text(encoding='utf-8'))
        if old['machine'] == new['machine']:
            return {**new, 'trials': {**old['trials'], **new['trials']}}
    return new


def write_json(path: Path, told: Document) -> None:
    """Writes the document."""
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def markdown(told: Document) -> str:
    """The document as tables."""
    parts = ['# Results', EXPLANATION, _table(['', ''], told['machine'].items()),
             *(f'## {name}\n\n{describe(found)}' for name, found in told['trials'].items())]
    return '\n\n'.join(part.rstrip() for part in parts) + '\n'


def describe(found: Document) -> str:
    """The tables of one trial, with its title and notes; or why there are none."""
    if has_failed(found):
        return f'Failed: {found["failed"]}'
    parts = [found['title'] + '.']
    if found['figures']:
        parts.append(_figures_table(found['figures'], value))
    if found['ratios']:
        named = {f'{ratio["of"]} / {ratio["to"]}': ratio['figures'] for ratio in found['ratios']}
        parts.append(_figures_table(named, ratio_text))
    return '\n\n'.join([*parts, *found['notes']])


def _figures_table(
    rows: Mapping[str, Mapping[str, Document]], text: Callable[[Document], str]
) -> str:
    measures = list(dict.fromkeys(measure for row in rows.values() for measure in row))
    return _table(['', *measures], (
        [name, *(text(row[measure]) if measure in row else '' for measure in measures)]
        for name, row in rows.items()))


def value(figure: Document) -> str:
    """A measurement and its spread, and that it is unsteady where that is too wide."""
    return number(figure['median']) + _spread_text(figure['spread'], 'unsteady')


def ratio_text(figure: Document) -> str:
    """A ratio and its spread, and that it proves nothing where that is too wide."""
    return f'{figure["median"]:.2f}' + _spread_text(figure['spread'], 'proves nothing')


def _spread_text(spread: float | None, too_wide: str) -> str:
    if spread is None:
        return ''
    return f' ±{spread / 2:.0%}' + (f', {too_wide}' if spread > TOO_WIDE else '')


def number(value: float) -> str:
    """For people: three digits that count, thousands apart."""
    return f'{float(f"{value:.3g}"):,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, aligned, so that it is a table for a terminal too."""
    cells = [head, *rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join(_lines(cells, widths))


def _lines(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    for place, row in enumerate(cells):
        first, *others = row
        padded = [first.ljust(widths[0]),
                  *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        yield f'| {" | ".join(padded)} |'
        if place == 0:
            rules = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
            yield f'| {" | ".join(rules)} |'
