"""The plots that the README shows, as SVG.

They have a background of their own, so that they can be read on a light page and on a dark one,
and nothing in them changes from run to run but the figures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from bench.harness import BARE, BARE_UVLOOP, BUSY_UVLOOP
from bench.report import Document, has_failed, number
from bench.servers import SERVICE

_STYLE: Final[Mapping[str, Any]] = {
    'svg.hashsalt': 'addressbook',  # the ids in the file are then the same each time
    'font.size': 9,
    'axes.titlesize': 10,
    'axes.titleweight': 'bold',
    'axes.spines.top': False,
    'axes.spines.right': False,
}
_OURS: Final = '#1a6fb5'
_PEER: Final = '#9db2c4'
_FLOOR: Final = '#d9a441'
_LINES: Final = ('#1a6fb5', '#c2452d', '#2f8f5b', '#7a5fb0', '#d9a441', '#555555')


def draw(told: Document, folder: Path) -> None:
    """Writes a plot for each of the trials that have one and were run."""
    matplotlib.use('svg')
    with matplotlib.rc_context(dict(_STYLE)):
        for name, (plot, measures) in _PLOTS.items():
            trial = told['trials'].get(name)
            if trial is not None and not has_failed(trial):
                figure = plot(trial, measures)
                figure.suptitle(trial['title'], fontsize=9)
                figure.savefig(folder / f'{name}.svg', metadata={'Date': None})
                pyplot.close(figure)


def bars(trial: Document, measures: Sequence[str]) -> Figure:
    """Each measure side by side: a bar for each of what was measured, as long as its median."""
    rows = trial['figures']
    figure, all_axes = pyplot.subplots(
        1, len(measures), figsize=(9.5, 0.8 + 0.32 * len(rows)), sharey=True, squeeze=False,
        layout='constrained')
    for axes, measure in zip(all_axes[0], measures, strict=True):
        _draw_bars(axes, measure, {name: row[measure] for name, row in rows.items()
                                   if measure in row})
    all_axes[0][0].invert_yaxis()
    return figure


def _draw_bars(axes: Axes, measure: str, figures: Mapping[str, Document]) -> None:
    medians = [figure['median'] for figure in figures.values()]
    halves = [figure['median'] * (figure['spread'] or 0) / 2 for figure in figures.values()]
    drawn = axes.barh([*map(plain, figures)], medians, color=[*map(_colour, figures)],
                      xerr=halves, ecolor='#333333', capsize=2)
    axes.bar_label(drawn, [*map(number, medians)], padding=4)
    axes.margins(x=0.18)
    axes.set_title(measure, loc='left')
    axes.xaxis.set_visible(False)
    axes.spines['bottom'].set_visible(False)


def percentiles(trial: Document, measures: Sequence[str]) -> Figure:
    """A line for each of what was measured, over the percentiles."""
    figure, axes = pyplot.subplots(figsize=(9.5, 3.6), layout='constrained')
    shares = [measure.removesuffix(' ms') for measure in measures]
    for place, (name, row) in enumerate(trial['figures'].items()):
        axes.plot(shares, [row[measure]['median'] for measure in measures], marker='o',
                  color=_LINES[place % len(_LINES)], label=plain(name))
    axes.set_yscale('log')
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.yaxis.set_minor_formatter(lambda value, _: '')
    axes.set_ylabel('milliseconds')
    axes.grid(axis='y', color='#dddddd')
    axes.legend(frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def growth(trial: Document, measures: Sequence[str]) -> Figure:
    """Each measure side by side: a line over the number of entries, with its spread."""
    figure, all_axes = pyplot.subplots(
        1, len(measures), figsize=(9.5, 2.8), squeeze=False, layout='constrained')
    for axes, measure in zip(all_axes[0], measures, strict=True):
        _draw_growth(axes, measure, {entries(name): row[measure]
                                     for name, row in trial['figures'].items()})
    return figure


def _draw_growth(axes: Axes, measure: str, figures: Mapping[int, Document]) -> None:
    medians = [figure['median'] for figure in figures.values()]
    halves = [figure['median'] * (figure['spread'] or 0) / 2 for figure in figures.values()]
    axes.errorbar([*figures], medians, halves, marker='o', color=_OURS, ecolor='#333333', capsize=2)
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))  # 10k, 1M
    axes.set_ylim(0, 1.2 * max(medians))  # from 0 on, else noise would look like growth
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.set_xlabel('entries')
    axes.set_title(measure, loc='left')
    axes.grid(axis='y', color='#dddddd')


def entries(name: str) -> int:
    """The number of entries that a book of that name has: ``1,000`` is 1000."""
    return int(name.replace(',', ''))


def plain(name: str) -> str:
    """The name of a module for people: ``fastapi_pydantic`` is ``fastapi pydantic``."""
    return name.replace('_peer', '').replace('_', ' ')


def _colour(name: str) -> str:
    if name.startswith(SERVICE):
        return _OURS
    return _FLOOR if name in (BARE, BARE_UVLOOP, BUSY_UVLOOP) else _PEER


# The trials with a plot: how it is drawn, and of which measures.
_PLOTS: Final = {
    'throughput': (bars, ['GET one', 'POST']),
    'latency': (percentiles, ['p50 ms', 'p90 ms', 'p99 ms', 'p99.9 ms']),
    'memory': (bars, ['idle MB', 'KB per idle connection', 'bytes per entry']),
    'scale': (growth, ['GET one/s', 'page of 100/s', 'GET one ms', 'page of 100 ms']),
}
