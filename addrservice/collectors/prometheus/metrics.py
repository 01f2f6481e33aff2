"""What there is to measure: every metric, its name, its labels and what it means.

Names and units follow "Metric and label naming" of the Prometheus manual. No label ever has a
value that a client makes up: a path is its route, a method that nobody knows is ``_OTHER``.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REQUESTS: Final = 'addrservice_http_requests_total'
REQUEST_DURATION: Final = 'addrservice_http_request_duration_seconds'

UNMATCHED: Final = 'unmatched'  # the route of a path that has none

# Upper bounds in seconds. The objective for latency needs 0.25 among them, the alert on a busy
# event loop 0.1: see deploy/prometheus/.
SECONDS: Final = (.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10)

# What the service offers to `watch`, and what it is.
WATCHED: Final = {
    'http_requests_in_flight': 'Requests that are worked on, but for those to the metrics port.',
    'store_connections_in_use': 'Connections to the database that serve an operation.',
    'store_connections_free': 'Connections to the database that an operation could take at once.',
}


class ProcessFigure(NamedTuple):
    """A figure of the operating system's.

    :param documentation: what it is
    :param combine: how those of several workers become one
    """

    documentation: str
    combine: Callable[[Iterable[float]], float]


PROCESS_FIGURES: Final = {
    'process_resident_memory_bytes': ProcessFigure('Memory in use, of all workers.', sum),
    'process_virtual_memory_bytes': ProcessFigure('Memory reserved, of all workers.', sum),
    'process_open_fds': ProcessFigure('Open files, of the worker that has the most.', max),
    'process_max_fds': ProcessFigure('How many files a worker may open.', min),
    'process_start_time_seconds': ProcessFigure('Unix time at which the oldest worker began.', min),
}

WORKERS: Final = 'addrservice_workers', 'Processes that serve requests.'
BUILD_INFO: Final = 'addrservice_build_info', 'What runs here; always 1.'


class Durations(Histogram):
    """A histogram in seconds that can be given many at once."""

    def add(self, durations: Sequence[int], seconds: float) -> None:
        """Counts durations.

        :param durations: how many, for each bucket
        :param seconds: of all of them
        """
        self._sum.inc(seconds)
        for bucket, number in zip(self._buckets, durations, strict=True):
            if number:
                bucket.inc(number)


class Metrics:
    """The metrics that count.

    :param registry: where they are listed
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._declare_requests(registry)
        self._declare_store(registry)
        self._declare_process(registry)

    def _declare_requests(self, registry: CollectorRegistry) -> None:
        by_route = 'method', 'route'
        self.requests = Counter(
            REQUESTS, 'Requests that have ended; 499: by their client.',
            (*by_route, 'status'), registry=registry)
        self.request_duration = Durations(
            REQUEST_DURATION, 'From the headers of a request to the end of its answer.',
            by_route, buckets=SECONDS, registry=registry)
        self.request_bytes = Counter(
            'addrservice_http_request_body_bytes_total', 'Bodies of requests, in bytes.',
            by_route, registry=registry)
        self.response_bytes = Counter(
            'addrservice_http_response_body_bytes_total', 'Bodies of answers, in bytes.',
            by_route, registry=registry)
        self.refusals = Counter(
            'addrservice_entries_refused_total',
            'Entries and changes that were sent and not taken.',
            ('reason',), registry=registry)

    def _declare_store(self, registry: CollectorRegistry) -> None:
        self.operation_duration = Durations(
            'addrservice_store_operation_duration_seconds',
            'Operations of the store, the wait for a connection included.',
            ('operation', 'outcome'), buckets=SECONDS, registry=registry)

    def _declare_process(self, registry: CollectorRegistry) -> None:
        self.event_loop_delay = Histogram(
            'addrservice_event_loop_delay_seconds',
            'How late the event loop is: what ten timers a second have to wait when they are due.',
            buckets=SECONDS, registry=registry)
        self.starts = Counter(
            'addrservice_worker_starts_total', 'Processes that began to serve requests.',
            registry=registry)
        self.crashes = Counter(
            'addrservice_worker_crashes_total', 'Processes that ended without a drain.',
            registry=registry)
        self.cpu_seconds = Counter(
            'process_cpu_seconds_total', 'Processor time that was used, of all workers.',
            registry=registry)

    def watched(self, name: str) -> Gauge | None:
        """The metric of a value that the service offers; None where it is not in ``WATCHED``."""
        if name not in WATCHED:
            return None
        return Gauge(f'addrservice_{name}', WATCHED[name], registry=self._registry,
                     multiprocess_mode='livesum')
