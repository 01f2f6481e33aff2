"""The collector: counts what the spans tell, and answers the scraper."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from prometheus_client import Gauge

from addrservice.collectors.prometheus.exemplars import newest
from addrservice.collectors.prometheus.exposition import describe, encode
from addrservice.collectors.prometheus.figures import find_figures
from addrservice.collectors.prometheus.metrics import Metrics
from addrservice.collectors.prometheus.outcomes import outcome
from addrservice.collectors.prometheus.pulse import Pulse
from addrservice.collectors.prometheus.requests import RequestCounter
from addrservice.collectors.prometheus.tallies import Tallies, Tally
from addrservice.tracing import AbstractTraceCollector, Kind, Span

# Spans that are counted one after the other, while the processor has at hand what that takes.
TOGETHER: Final = 32

_FOLLOWED: Final[frozenset[Kind]] = frozenset({'store'})
_COUNTED: Final[frozenset[Kind]] = _FOLLOWED | {'server'}


class PrometheusCollector(AbstractTraceCollector):
    """Metrics for Prometheus, of this process or of all workers of its supervisor.

    Requests and operations of the store count; calls of functions and statements do not, and cost
    next to nothing. A worker has its files from the beginning; what has not been started is no
    worker yet.
    """

    def __init__(self) -> None:
        self._figures = find_figures()
        self._figures.use()
        self._metrics = Metrics(self._figures.registry)
        self._requests = RequestCounter(self._metrics)
        self._operations: Tallies[tuple[str, str]] = Tallies(self._take_operations)
        self._ended: deque[Span] = deque()  # that are not counted yet
        self._counting = threading.Lock()  # for a scrape in a thread does it, too
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        self._pulse = Pulse(
            self._metrics.event_loop_delay.observe, self._give_on, self._tell)
        self._lock = threading.Lock()
        self._cpu_seconds = 0.0

    def start(self) -> None:
        self._metrics.crashes.inc(self._figures.begin())
        self._metrics.starts.inc()
        self._pulse.start()

    def enter(self, span: Span) -> None:
        """Nothing: all is known at the exit."""

    def follows(self, request: Span) -> frozenset[Kind]:
        """Operations of the store."""
        return _FOLLOWED

    def exit(self, span: Span) -> None:
        if span.kind in _COUNTED:
            self._ended.append(span)
        if len(self._ended) >= TOGETHER and self._counting.acquire(blocking=False):
            try:
                self._count()
            finally:
                self._counting.release()

    def _count(self) -> None:
        while self._ended:
            span = self._ended.popleft()
            if span.kind == 'server':
                self._requests.count(span)
            else:
                self._operations.add((span.name, outcome(span.error)), span.duration_ns / 1e9)

    def _take_operations(self, key: tuple[str, str], tally: Tally) -> None:
        self._metrics.operation_duration.labels(*key).add(tally.durations, tally.seconds)

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Takes a value in, if the metrics know it."""
        gauge = self._metrics.watched(name)
        if gauge is not None:
            self._watched.append((gauge, read))

    def expose(self, accept: str) -> tuple[str, bytes]:
        """The figures of all workers: as OpenMetrics to who takes that, with exemplars; as text."""
        self._measure()
        exemplars = newest([self._requests.exemplars(), *self._figures.exemplars()])
        metrics = [*self._figures.collect(), *describe(self._figures.pids())]
        return encode(metrics, exemplars, accept)

    def stop(self) -> None:
        self._pulse.stop()
        self._tell()
        self._figures.end()

    def _tell(self) -> None:
        """Shows the other workers what this one is doing."""
        self._measure()
        self._figures.share_exemplars(self._requests.exemplars())

    def _give_on(self) -> None:
        """Counts in the metrics all that has ended; returns when others who do so have done it."""
        with self._counting:
            self._count()
            self._requests.give_on()
            self._operations.give_on()

    def _measure(self) -> None:
        """Takes what does not count by itself; the loop and a scrape in a thread both do."""
        self._give_on()
        for gauge, read in self._watched:
            gauge.set(read())
        with self._lock:
            used = time.process_time()
            self._metrics.cpu_seconds.inc(used - self._cpu_seconds)
            self._cpu_seconds = used
