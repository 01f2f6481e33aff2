"""The answer to a scraper."""

import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache, partial
from importlib.metadata import version
from typing import Final, NamedTuple

from prometheus_client import Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector

from addrservice import __version__
from addrservice.collectors.prometheus.exemplars import Newest, dress
from addrservice.collectors.prometheus.metrics import BUILD_INFO, PROCESS_FIGURES, WORKERS

_OPENMETRICS: Final = 'application/openmetrics-text'


class _Answer(NamedTuple):
    """What the library's encoders take."""

    metrics: list[Metric]

    def collect(self) -> list[Metric]:
        return self.metrics


def encode(metrics: Iterable[Metric], exemplars: Newest, accept: str) -> tuple[str, bytes]:
    """The media type and the text of an answer.

    :param exemplars: by series; only OpenMetrics can tell them
    :param accept: what the scraper takes
    """
    answer = _Answer([dress(metric, exemplars) for metric in metrics])
    # Not the library's choose_encoder: it raises TypeError for some versions, promises others.
    if accepts_openmetrics(accept):
        # The library has no types here.
        text: bytes = openmetrics.generate_latest(answer)  # type: ignore[no-untyped-call]
        return openmetrics.CONTENT_TYPE_LATEST, text
    return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(answer)


def accepts_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics 1.0.0 is named in what a scraper takes, in that version or in any."""
    for item in accept.lower().replace(' ', '').split(','):
        name, *parameters = item.split(';')
        versions = [text for text in parameters if text.startswith('version=')]
        if name == _OPENMETRICS and versions in ([], ['version=1.0.0']):
            return 'q=0' not in parameters
    return False


def describe(pids: list[int]) -> Iterator[Metric]:
    """What needs no counting: what runs here, in how many processes, and what they take up."""
    build = GaugeMetricFamily(*BUILD_INFO, labels=('version', 'python', 'tornado'))
    build.add_metric(_versions(), 1)
    yield build
    yield GaugeMetricFamily(*WORKERS, value=len(pids))
    yield from _processes(pids)


@cache  # it reads files
def _versions() -> tuple[str, ...]:
    return __version__, platform.python_version(), version('tornado')


def _processes(pids: list[int]) -> Iterator[Metric]:
    """The figures of the operating system's, where it gives them (Linux)."""
    found = defaultdict(list)
    for pid in pids:
        for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            found[metric.name].append(metric.samples[0].value)
    for name, figure in PROCESS_FIGURES.items():
        if name in found:
            yield GaugeMetricFamily(name, figure.documentation, figure.combine(found[name]))
