"""Counts requests: each one passes here, so as little as can be is done about it."""

import time
from functools import cache
from typing import Any, Final

from prometheus_client.utils import floatToGoString

from addrservice.collectors.prometheus.exemplars import Newest, is_kept, newest, series_name
from addrservice.collectors.prometheus.metrics import (
    REQUEST_DURATION, REQUESTS, SECONDS, UNMATCHED, Metrics,
)
from addrservice.collectors.prometheus.outcomes import REASONS, refusal
from addrservice.collectors.prometheus.tallies import Tallies, Tally
from addrservice.tracing import Span

_BOUNDS: Final = [*map(floatToGoString, [*SECONDS, float('inf')])]  # as the samples have them

_Key = tuple[str, str, int]  # method, route, status


class RequestCounter:
    """Counts what the spans of requests tell."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tallies: Tallies[_Key] = Tallies(self._take)
        self._exemplars: dict[tuple[_Key, int], tuple[str, float, float]] = {}  # int: the bucket
        # All of them from the beginning: Prometheus sees no increase in what was not there.
        self._refusals = {reason: metrics.refusals.labels(reason) for reason in REASONS}
        self.give_on = self._tallies.give_on

    def count(self, span: Span) -> None:
        """Counts a request that has ended."""
        attributes: dict[str, Any] = span.attributes
        key = (attributes['http.request.method'], attributes.get('http.route', UNMATCHED),
               attributes['http.response.status_code'])
        seconds = span.duration_ns / 1e9
        bucket = self._tallies.add(key, seconds, attributes['http.request.body.size'],
                                   attributes['http.response.body.size'])
        if span.trace_id is not None and is_kept(span.traceresponse):
            ended = time.time() - (time.perf_counter_ns() - span.end_ns) / 1e9
            self._exemplars[key, bucket] = span.trace_id, seconds, ended
        if key[2] >= 400:
            self._count_refusal(key, span.error)

    def _count_refusal(self, key: _Key, error: BaseException | None) -> None:
        method, route, status = key
        reason = refusal(method, status, error)
        if reason is not None and route != UNMATCHED:
            self._refusals[reason].inc()

    def _take(self, key: _Key, tally: Tally) -> None:
        by_route, metrics = key[:2], self._metrics
        metrics.requests.labels(*key).inc(sum(tally.durations))
        metrics.request_duration.labels(*by_route).add(tally.durations, tally.seconds)
        metrics.request_bytes.labels(*by_route).inc(tally.received)
        metrics.response_bytes.labels(*by_route).inc(tally.sent)

    def exemplars(self) -> Newest:
        """For each series the newest request whose trace is known."""
        found = self._exemplars.copy()  # for it may grow meanwhile
        return newest(
            exemplars for (key, bucket), (trace_id, seconds, ended) in found.items()
            for exemplars in (
                {_bucket_name(key, bucket): (trace_id, seconds, ended)},
                {_requests_name(key): (trace_id, 1.0, ended)}))


@cache
def _bucket_name(key: _Key, bucket: int) -> str:
    method, route, _ = key
    return series_name(f'{REQUEST_DURATION}_bucket', {
        'method': method, 'route': route, 'le': _BOUNDS[bucket]})


@cache
def _requests_name(key: _Key) -> str:
    method, route, status = key
    return series_name(REQUESTS, {'method': method, 'route': route, 'status': str(status)})
