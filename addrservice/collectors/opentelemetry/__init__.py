"""Distributed traces by the official OpenTelemetry SDK, sent by OTLP over HTTP.

Whether a trace is kept is decided once, by the SDK's sampler, where a request begins. Of one that
is kept the SDK gets each span in one piece when it has ended: to tell its tracer of them bit by bit
takes longer than a request. A call inside any other costs a look into a dictionary.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_SCHEDULE_DELAY,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import (
    ReadableSpan, SpanLimits, SynchronousMultiSpanProcessor, TracerProvider,
)
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    Decision, ParentBasedTraceIdRatio, TraceIdRatioBased,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NoOpTracer, SpanContext, SpanKind, Status, StatusCode, TraceFlags, get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from addrservice import LOGGER_NAME, __version__
from addrservice.collectors.opentelemetry import settings
from addrservice.errors import (
    AccessError, InvalidInputError, KeyReusedError, NicknameTakenError, PreconditionFailedError,
    TooManyRequestsError, UnknownNicknameError,
)
from addrservice.tracing import INNER_KINDS, AbstractTraceCollector, Attribute, Kind, Span

if TYPE_CHECKING:
    from addrservice.collectors.opentelemetry.export import WayOut

STOP_DEADLINE: Final = 2.0  # seconds

# Spans that are sent at once, unless the environment says so: the SDK's 512 hold requests up for
# milliseconds, whatever pauses are made.
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

_NO_FAILURE: Final = Status(StatusCode.UNSET)
_FAILURE: Final = Status(StatusCode.ERROR)

_SCOPE: Final = InstrumentationScope(LOGGER_NAME, __version__)
_NOTHING_ABOVE: Final = Context()
_NOTHING_INSIDE: Final[frozenset[Kind]] = frozenset()


class _Open(NamedTuple):
    """A call that is still running, in a trace that is kept.

    :param context: its ids
    :param parent: those of the call in which it was made, maybe in another service
    :param offset: nanoseconds from ``time.perf_counter_ns`` to the epoch; one for all of a trace,
        so that its spans fit each other, and another one for the next, because clocks are set
    """

    context: SpanContext
    parent: SpanContext | None
    offset: int


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
        self._ids = RandomIdGenerator()
        self._limits = SpanLimits()
        # The SDK has no types for it.
        self._ended = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        self._provider = TracerProvider(
            sampler=None if rate is None else ParentBasedTraceIdRatio(rate),
            resource=_resource(settings.name_of_service(service_name)),
            active_span_processor=self._ended, shutdown_on_exit=False)
        # The sampler of the environment is asked each time.
        self._bound = TraceIdRatioBased.get_bound_for_rate(1.0 if rate is None else rate)
        self._propagator = TraceContextTextMapPropagator()
        self._open: dict[Span, _Open] = {}
        self._way_out: WayOut | None = None
        # OTEL_SDK_DISABLED
        if not isinstance(self._provider.get_tracer(LOGGER_NAME, __version__), NoOpTracer):
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
            context = SpanContext(
                above.context.trace_id, self._ids.generate_span_id(), False,
                above.context.trace_flags, above.context.trace_state)
            self._open[span] = _Open(context, above.context, above.offset)

    def _begin(self, span: Span) -> None:
        if self._way_out is None:
            return
        above, drawn = _NOTHING_ABOVE, self._ids.generate_trace_id()
        if span.carrier.get('traceparent') is not None:
            above = self._propagator.extract(span.carrier, above)
        elif drawn & TraceIdRatioBased.TRACE_ID_LIMIT >= self._bound:
            span.trace_id = f'{drawn:032x}'  # for the log; there is nothing to answer
            return
        parent = get_current_span(above).get_span_context()
        context = self._context(span, above, parent, drawn)
        _tell(span, context)
        if context.trace_flags.sampled:
            offset = time.time_ns() - time.perf_counter_ns()
            self._open[span] = _Open(context, parent if parent.is_valid else None, offset)

    def _context(
        self, span: Span, above: Context, parent: SpanContext, drawn: int
    ) -> SpanContext:
        """The ids of a request, and whether its trace is kept, as the SDK's tracer finds them.

        None of the samplers that the environment can name gives attributes.

        :param drawn: the id of the trace, unless a client has begun it
        """
        trace_id = parent.trace_id if parent.is_valid else drawn
        choice = self._provider.sampler.should_sample(
            above, trace_id, span.name, _KINDS[span.kind])
        flags = TraceFlags.DEFAULT
        if choice.decision is Decision.RECORD_AND_SAMPLE:
            flags |= TraceFlags.SAMPLED
        if not parent.is_valid or parent.trace_flags.random_trace_id:
            flags |= TraceFlags.RANDOM_TRACE_ID
        return SpanContext(trace_id, self._ids.generate_span_id(), False, TraceFlags(flags),
                           choice.trace_state)

    def follows(self, request: Span) -> frozenset[Kind]:
        """Everything, in a trace that is kept."""
        return INNER_KINDS if request in self._open else _NOTHING_INSIDE

    def exit(self, span: Span) -> None:
        """One that is kept goes to those that wait to be sent."""
        mine = self._open.pop(span, None)
        if mine is None:
            return
        attributes = dict(span.attributes)
        if (agent := span.carrier.get('User-Agent')) is not None:
            attributes['user_agent.original'] = agent
        error, failed = _outcome(span)
        if error is not None:
            attributes['error.type'] = error
        self._ended.on_end(ReadableSpan(
            span.name, mine.context, mine.parent, self._provider.resource,
            self._within_limits(attributes), kind=_KINDS[span.kind],
            status=_FAILURE if failed else _NO_FAILURE, instrumentation_scope=_SCOPE,
            start_time=span.start_ns + mine.offset, end_time=span.end_ns + mine.offset))

    def _within_limits(self, attributes: dict[str, Attribute]) -> Attributes:
        """What the limits of the environment (``OTEL_SPAN_ATTRIBUTE_...``) leave of them."""
        count, length = self._limits.max_span_attributes, self._limits.max_span_attribute_length
        if length is None and (count is None or len(attributes) <= count):
            return attributes
        return BoundedAttributes(count, attributes, max_value_len=length)

    def stop(self) -> str | None:
        """Sends what waits, for two seconds at the most, and says what became of all."""
        if self._way_out is None:
            return None
        ending = threading.Thread(
            target=self._way_out.close, args=[self._provider], daemon=True, name='end of traces')
        ending.start()
        ending.join(STOP_DEADLINE)
        return self._way_out.report()


def _tell(span: Span, context: SpanContext) -> None:
    """Tells a request its trace (W3C Trace Context Level 2 draft, "traceresponse")."""
    span.trace_id = f'{context.trace_id:032x}'
    span.traceresponse = (
        f'00-{span.trace_id}-{context.span_id:016x}-{context.trace_flags:02x}')


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


class _Sender(Resource):
    """Who sends; finds its hash, for which the exporter asks with each span, once."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


def _resource(told: Mapping[str, str]) -> Resource:
    """Who sends: by itself, by the environment, by the configuration, which wins."""
    return _Sender(Resource.create({
        'service.name': LOGGER_NAME,
        'service.version': __version__,
        'service.instance.id': str(uuid.uuid4()),
        'process.pid': os.getpid(),
        **OTELResourceDetector().detect().attributes,
        **told,
    }))


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
