"""Distributed traces by the official OpenTelemetry SDK, sent by OTLP over HTTP.

Whether a trace is kept is decided once, where a request begins. Only of one that is kept the SDK
is told; a call inside any other costs a look into a dictionary.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_SCHEDULE_DELAY,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, TraceIdRatioBased
from opentelemetry.trace import (
    NoOpTracer, SpanKind, StatusCode, set_span_in_context,
)
from opentelemetry.trace import Span as SDKSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from addrservice import LOGGER_NAME, __version__
from addrservice.collectors.opentelemetry import settings
from addrservice.errors import (
    AccessError, InvalidInputError, KeyReusedError, NicknameTakenError, PreconditionFailedError,
    TooManyRequestsError, UnknownNicknameError,
)
from addrservice.tracing import INNER_KINDS, AbstractTraceCollector, Kind, Span

if TYPE_CHECKING:
    from addrservice.collectors.opentelemetry.export import WayOut

STOP_DEADLINE: Final = 2.0  # seconds

# Spans that are sent at once, unless the environment says so: while the SDK's 512 are encoded, no
# request is answered for 20 ms.
BATCH: Final = 32

_KINDS: Final[Mapping[Kind, SpanKind]] = {
    'internal': SpanKind.INTERNAL,
    'server': SpanKind.SERVER,
    'store': SpanKind.INTERNAL,
    'client': SpanKind.CLIENT,
}

# Answers that a client has brought upon itself; nothing has failed.
_REFUSALS: Final = (
    AccessError, InvalidInputError, KeyReusedError, NicknameTakenError, PreconditionFailedError,
    TooManyRequestsError, UnknownNicknameError,
)

_NOTHING_ABOVE: Final = Context()
_NOTHING_INSIDE: Final[frozenset[Kind]] = frozenset()


class _Open(NamedTuple):
    """A call that is still running, in a trace that is kept.

    :param offset: nanoseconds from ``time.perf_counter_ns`` to the epoch; one for all of a trace,
        so that its spans fit each other, and another one for the next, because clocks are set
    """

    span: SDKSpan
    offset: int


class _Ids(RandomIdGenerator):
    """Random ids. The SDK gets the trace id for which it was decided to keep the trace.

    :ivar drawn: that id, if there is one
    """

    def __init__(self) -> None:
        self.drawn: int | None = None

    def generate_trace_id(self) -> int:
        drawn, self.drawn = self.drawn, None
        return super().generate_trace_id() if drawn is None else drawn


class OpenTelemetryCollector(AbstractTraceCollector):
    """Sends the traces that are kept, and takes part in those that clients have begun.

    Whatever is not told here is as the SDK's environment variables (``OTEL_...``) and its defaults
    have it; what is told here wins. The process's global tracer provider is left alone.

    :param endpoint: URL to send to; one without a path gets that of OTLP, ``/v1/traces``
    :param sampling: share of the traces begun here that is kept, from 0 to 1; of a trace that a
        client has begun the client has said whether it is kept
    :param service_name: what the service is called in the traces
    :param timeout: seconds in which an export has to be taken, tries included
    :param headers_file: file of ``Name: value`` lines to send along, such as a token
    """

    def __init__(
        self,
        endpoint: str | None = None,
        sampling: float | None = None,
        service_name: str | None = None,
        timeout: float | None = None,
        headers_file: str | None = None,
    ) -> None:
        rate = settings.share(sampling)
        destination = (settings.endpoint(endpoint), settings.seconds(timeout),
                       settings.headers(headers_file))
        queue = _queue_settings()
        self._ids = _Ids()
        self._provider = TracerProvider(
            sampler=None if rate is None else ParentBasedTraceIdRatio(rate),
            resource=_resource(settings.name_of_service(service_name)),
            id_generator=self._ids, shutdown_on_exit=False)
        # The sampler of the environment is asked each time.
        self._bound = TraceIdRatioBased.get_bound_for_rate(1.0 if rate is None else rate)
        self._tracer = self._provider.get_tracer(LOGGER_NAME, __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._open: dict[Span, _Open] = {}
        self._way_out: WayOut | None = None
        if not isinstance(self._tracer, NoOpTracer):  # OTEL_SDK_DISABLED
            # What sends takes as long to import as all else that is the SDK's, and as much memory.
            from addrservice.collectors.opentelemetry.export import WayOut
            self._way_out = WayOut(
                queue, logging.getLogger(f'{LOGGER_NAME}.opentelemetry'), *destination)

    def start(self) -> None:
        """Begins to send."""
        if self._way_out is not None:
            self._way_out.open(self._provider)

    def enter(self, span: Span) -> None:
        """A trace begins, or one that is kept goes on."""
        if span.kind == 'server' or span.parent is None:
            self._begin(span)
        elif (above := self._open.get(span.parent)) is not None:
            context = set_span_in_context(above.span, _NOTHING_ABOVE)
            made = self._tracer.start_span(
                span.name, context, _KINDS[span.kind], start_time=span.start_ns + above.offset)
            self._open[span] = _Open(made, above.offset)

    def _begin(self, span: Span) -> None:
        if self._way_out is None:
            return
        if span.carrier.get('traceparent') is None:
            drawn = self._ids.generate_trace_id()
            if drawn & TraceIdRatioBased.TRACE_ID_LIMIT >= self._bound:
                span.trace_id = f'{drawn:032x}'  # for the log; there is nothing to answer
                return
            self._ids.drawn = drawn
        offset = time.time_ns() - time.perf_counter_ns()
        made = self._tracer.start_span(
            span.name, self._propagator.extract(span.carrier, _NOTHING_ABOVE), _KINDS[span.kind],
            start_time=span.start_ns + offset)
        context = made.get_span_context()
        _tell(span, context.trace_id, context.span_id, context.trace_flags)
        if made.is_recording():
            self._open[span] = _Open(made, offset)

    def follows(self, request: Span) -> frozenset[Kind]:
        """Everything, in a trace that is kept."""
        return INNER_KINDS if request in self._open else _NOTHING_INSIDE

    def exit(self, span: Span) -> None:
        """One that is kept goes to those that wait to be sent."""
        mine = self._open.pop(span, None)
        if mine is None:
            return
        mine.span.update_name(span.name)
        mine.span.set_attributes(span.attributes)
        if (agent := span.carrier.get('User-Agent')) is not None:
            mine.span.set_attribute('user_agent.original', agent)
        error, failed = _outcome(span)
        if error is not None:
            mine.span.set_attribute('error.type', error)
        if failed:
            mine.span.set_status(StatusCode.ERROR)
        mine.span.end(span.end_ns + mine.offset)

    def stop(self) -> str | None:
        """Sends what waits, for two seconds at the most, and says what became of all."""
        if self._way_out is None:
            return None
        ending = threading.Thread(
            target=self._way_out.close, args=[self._provider], daemon=True, name='end of traces')
        ending.start()
        ending.join(STOP_DEADLINE)
        return self._way_out.report()


def _tell(span: Span, trace_id: int, span_id: int, flags: int) -> None:
    """Tells a request its trace (W3C Trace Context Level 2 draft, "traceresponse")."""
    span.trace_id = f'{trace_id:032x}'
    span.traceresponse = f'00-{span.trace_id}-{span_id:016x}-{flags:02x}'


def _outcome(span: Span) -> tuple[str | None, bool]:
    """The type of what left a call, never its message, and whether that is a failure.

    Of a request its status decides (OpenTelemetry, "Semantic conventions for HTTP spans").
    """
    status = span.attributes.get('http.response.status_code')
    error = None if span.error is None else _type_name(span.error)
    if span.kind != 'server' or status is None:
        return error, error is not None and not isinstance(span.error, _REFUSALS)
    if int(status) < 500:
        return None, False
    return error or str(status), True


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == 'builtins' else (
        f'{kind.__module__}.{kind.__qualname__}')


def _resource(told: Mapping[str, str]) -> Resource:
    """Who sends: by itself, by the environment, by the configuration, which wins."""
    return Resource.create({
        'service.name': LOGGER_NAME,
        'service.version': __version__,
        'service.instance.id': str(uuid.uuid4()),
        'process.pid': os.getpid(),
        **OTELResourceDetector().detect().attributes,
        **told,
    })


def _queue_settings() -> dict[str, int]:
    """How many wait, how many go at once, and how often (ms).

    :raises ValueError: the environment has bad ones
    """
    queue = settings.number_from_environment(OTEL_BSP_MAX_QUEUE_SIZE, 2048)
    batch = settings.number_from_environment(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, min(queue, BATCH))
    if batch > queue:
        raise ValueError(f'{OTEL_BSP_MAX_EXPORT_BATCH_SIZE} must be {queue} or less')
    return {
        'max_queue_size': queue,
        'max_export_batch_size': batch,
        'schedule_delay_millis': settings.number_from_environment(OTEL_BSP_SCHEDULE_DELAY, 5000),
    }
