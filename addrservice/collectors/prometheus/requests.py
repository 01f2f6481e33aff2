"""Counts requests: each one passes here, so what can be is done once for all of the same kind."""

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from prometheus_client.utils import floatToGoString

from addrservice.collectors.prometheus.exemplars import Newest, is_kept, series_name
from addrservice.collectors.prometheus.metrics import (
    REQUEST_DURATION, REQUESTS, SECONDS, UNMATCHED, Metrics,
)
from addrservice.collectors.prometheus.outcomes import REASONS, refusal
from addrservice.tracing import Span

_SCRAPE: Final = ' /metrics'  # how the name of its span ends
_BOUNDS: Final = [*map(floatToGoString, [*SECONDS, float('inf')])]  # as the samples have them

_Key = tuple[str, str | None, int]  # method, route, status


class _Series(NamedTuple):
    """The series of one method, route and status: their methods, and names for exemplars."""

    method: str
    route: str
    status: int
    ended: Callable[[], None]
    took: Callable[[float], None]
    received: Callable[[float], None]
    sent: Callable[[float], None]
    requests_name: str
    bucket_names: list[str]


class RequestCounter:
    """Counts what the spans of requests tell.

    :ivar in_flight: requests that are worked on
    """

    def __init__(self, metrics: Metrics) -> None:
        self.in_flight = 0
        self._metrics = metrics
        self._series: dict[_Key, _Series] = {}
        self._exemplars: Newest = {}
        # All of them from the beginning: Prometheus sees no increase in what was not there.
        self._refusals = {reason: metrics.refusals.labels(reason) for reason in REASONS}

    def exemplars(self) -> Newest:
        """For each series the newest request whose trace is known."""
        return dict(self._exemplars)  # a copy, for it may grow while a scraper is answered

    def begin(self, span: Span) -> None:
        """Counts a request that has come; a scrape, which would always find itself, does not."""
        if not span.name.endswith(_SCRAPE):
            self.in_flight += 1

    def end(self, span: Span) -> None:
        """Counts a request that has ended."""
        if not span.name.endswith(_SCRAPE):
            self.in_flight -= 1
        attributes: dict[str, Any] = span.attributes
        key = (attributes['http.request.method'], attributes.get('http.route'),
               attributes['http.response.status_code'])
        series = self._series.get(key) or self._new_series(key)
        seconds = span.duration_ns / 1e9
        series.ended()
        series.took(seconds)
        self._count_bytes(series, attributes)
        if series.status >= 400:
            self._count_refusal(series, span.error)
        if span.trace_id is not None and is_kept(span.traceresponse):
            exemplar = span.trace_id, seconds, time.time()
            self._exemplars[series.bucket_names[bisect_left(SECONDS, seconds)]] = exemplar
            self._exemplars[series.requests_name] = exemplar[0], 1, exemplar[2]

    def _count_bytes(self, series: _Series, attributes: dict[str, Any]) -> None:
        received, sent = attributes['http.request.body.size'], attributes['http.response.body.size']
        if received:
            series.received(received)
        if sent:
            series.sent(sent)

    def _count_refusal(self, series: _Series, error: BaseException | None) -> None:
        reason = refusal(series.method, series.status, error)
        if reason is not None and series.route != UNMATCHED:
            self._refusals[reason].inc()

    def _new_series(self, key: _Key) -> _Series:
        method, route, status = key
        by_route = method, route or UNMATCHED
        labels = dict(zip(('method', 'route'), by_route, strict=True))
        metrics = self._metrics
        series = self._series[key] = _Series(
            *by_route, status,
            metrics.requests.labels(*by_route, status).inc,
            metrics.request_duration.labels(*by_route).observe,
            metrics.request_bytes.labels(*by_route).inc,
            metrics.response_bytes.labels(*by_route).inc,
            series_name(REQUESTS, {**labels, 'status': str(status)}),
            [series_name(f'{REQUEST_DURATION}_bucket', {**labels, 'le': bound})
             for bound in _BOUNDS])
        return series
