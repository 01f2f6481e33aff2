"""Rounds: what is compared takes turns, so that what else the machine does changes for all of it.

The order is another one in each round, and each turn has processes of its own: of two that run the
same code, one is up to a tenth faster for as long as it lives. Ratios are those of one round.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

# The spread above which a ratio is not to be believed, and says so.
TOO_WIDE: Final = 0.15

Sample = Mapping[str, float]  # what one turn has measured, by the name of the measure
Samples = Mapping[str, Sequence[Sample]]  # by what was measured, a sample for each round


class Figure(NamedTuple):
    """Several measurements of the same.

    :param spread: the middle half of them is so wide, as a share of the median; None for a single
        one
    """

    median: float
    spread: float | None


def take_turns(
    names: Sequence[str], rounds: int, measure: Callable[[str], Sample]
) -> dict[str, list[Sample]]:
    """The samples of all, by their name, in the order of the rounds."""
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            samples[name].append(measure(name))
    return samples


def summarise(values: Sequence[float]) -> Figure:
    """The median and the spread."""
    median = statistics.median(values)
    if len(values) < 2:
        return Figure(median, None)
    lower, _, upper = statistics.quantiles(values, n=4, method='inclusive')
    return Figure(median, (upper - lower) / abs(median) if median else 0)


def figures(samples: Sequence[Sample]) -> dict[str, Figure]:
    """Each measure of one, summarised."""
    return {measure: summarise([sample[measure] for sample in samples])
            for measure in samples[0]}


def ratios(samples: Sequence[Sample], others: Sequence[Sample]) -> dict[str, Figure]:
    """The ratios of one to another within each round, summarised, where both have the measure."""
    pairs = list(zip(samples, others, strict=True))
    return {measure: summarise([one[measure] / other[measure] for one, other in pairs])
            for measure in samples[0]
            if all(other.get(measure) for other in others)}
