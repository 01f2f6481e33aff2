"""Exemplars: with a figure, the trace of a request that it counts (OpenMetrics 1.0.0).

They are kept beside the metrics, not in them, because the library drops them as soon as several
processes share their figures.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.samples import Exemplar, Sample

Newest = dict[str, tuple[str, float, float]]  # series -> trace id, value, Unix time

_SAMPLED: Final = 1  # a flag of W3C Trace Context, level 1, 3.2.2.5


def series_name(name: str, labels: Mapping[str, str]) -> str:
    """One name for a series, whatever the order of its labels."""
    return f'{name} {sorted(labels.items())}'


def is_kept(traceresponse: str | None) -> bool:
    """Whether a trace is likely to be found, as far as its collector tells.

    :param traceresponse: value of the header field (W3C Trace Context, level 2), which ends with
        two hex digits of flags
    """
    return traceresponse is not None and bool(int(traceresponse[-2:], 16) & _SAMPLED)


def newest(several: Iterable[Newest]) -> Newest:
    """The newest exemplar of each series."""
    found: Newest = {}
    for exemplars in several:
        for series, exemplar in exemplars.items():
            if series not in found or found[series][2] < exemplar[2]:
                found[series] = exemplar
    return found


def with_exemplars(samples: Iterable[Sample], exemplars: Newest) -> Iterator[Sample]:
    """The samples, each with its exemplar where it has one."""
    for sample in samples:
        found = exemplars.get(series_name(sample.name, sample.labels))
        if found is None:
            yield sample
        else:
            trace_id, value, time = found
            yield sample._replace(exemplar=Exemplar({'trace_id': trace_id}, value, time))


def dress(metric: Metric, exemplars: Newest) -> Metric:
    """Puts its exemplars on a metric; takes off what tells when a series began.

    Prometheus would keep that as series of their own, and several processes do not have it.
    """
    metric.samples = [sample for sample in with_exemplars(metric.samples, exemplars)
                      if not sample.name.endswith('_created')]
    return metric
