"""Spans, and the collectors that are told of them."""

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from logging import Logger
from types import TracebackType
from typing import Any, Final, Literal

from addrservice.plugins import create_plugin

Kind = Literal['internal', 'server', 'store', 'client']
Attribute = str | int | float

# Of all kinds but that of requests: what may be inside of one.
INNER_KINDS: Final[frozenset[Kind]] = frozenset({'internal', 'store', 'client'})

Followers = Mapping[Kind, Sequence['AbstractTraceCollector']]

_NOTHING: Final[Mapping[str, str]] = {}
_NOBODY: Final[Followers] = {}
_NO_KIND: Final[frozenset[Kind]] = frozenset()
_NO_SPAN: Final = contextlib.nullcontext()


class Span:
    """One call of a traced function, one request, one operation of the store or one statement.

    :param name: a function's qualified name, or what ``trace`` was told; method and route of a
        request; the operation; a statement's first word and its table
    :param kind: ``internal`` for a call, ``server`` for a request, ``store`` for an operation of
        the store, ``client`` for a statement
    :param parent: the span in which it was made, if any
    :param carrier: the header fields of a request, whatever their case

    ``start_ns`` and ``end_ns`` are nanoseconds of ``time.perf_counter_ns`` (``end_ns`` is 0 while
    the call runs), ``error`` the exception that left it, whose traceback is gone when the request
    was answered. ``attributes`` may grow until the exit; their names are those of OpenTelemetry's
    semantic conventions. The next two are for a collector to set when a request is entered:
    ``trace_id``, 32 hex digits, for log and metrics, and ``traceresponse``, for the answer.
    ``followers`` has the collectors that want to be told of the spans inside, by the kind of these.
    """

    __slots__ = ('name', 'kind', 'parent', '_task', 'error', 'start_ns', 'end_ns', 'attributes',
                 'carrier', 'trace_id', 'traceresponse', 'followers')

    def __init__(
        self,
        name: str,
        parent: 'Span | None',
        kind: Kind = 'internal',
        carrier: Mapping[str, str] = _NOTHING,
    ) -> None:
        self.name = name
        self.kind = kind
        self.parent = parent
        self._task: asyncio.Task[Any] | None = None
        self.error: BaseException | None = None
        self.attributes: dict[str, Attribute] = {}
        self.carrier = carrier
        self.trace_id: str | None = None
        self.traceresponse: str | None = None
        self.followers: Followers = parent.followers if parent else _NOBODY
        self.start_ns = time.perf_counter_ns()
        self.end_ns = 0

    @property
    def task(self) -> 'asyncio.Task[Any] | None':
        """The asyncio task that made the call; to be asked for in ``enter``.

        It is found only then: where the system is slow to tell the process id, which asyncio asks
        for, that takes longer than all the rest of a span.
        """
        if self._task is None:
            self._task = _current_task()
        return self._task

    @property
    def duration_ns(self) -> int:
        """Nanoseconds from entry to exit."""
        return self.end_ns - self.start_ns


class AbstractTraceCollector(ABC):
    """Is told of every span. It may see everything and hurt nothing: what it raises is logged.

    Its constructor takes the settings from the configuration as keyword arguments, with
    underscores for hyphens; for a bad one it raises ``ValueError``.
    """

    def start(self) -> None:
        """Tracing begins. Called once, in the event loop of the service."""

    @abstractmethod
    def enter(self, span: Span) -> None:
        """A call begins."""

    def follows(self, request: Span) -> frozenset[Kind]:
        """The kinds of spans inside of a request that it wants to be told of; all, unless told.

        Asked once, when the request was entered. What it is told of may be inside of something
        that it is not told of.
        """
        return INNER_KINDS

    @abstractmethod
    def exit(self, span: Span) -> None:
        """A call has ended, by a return or by an exception."""

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Is offered a value that may be read at any time."""

    def expose(self, accept: str) -> tuple[str, bytes] | None:
        """What a scraper gets: its media type, and the text; None where there is nothing to tell.

        :param accept: the media types that it would take (RFC 9110, 12.5.1)
        """
        return None

    def stop(self) -> str | None:
        """Tracing ends: writes out what is left and may give a report for the log."""
        return None


def create_collector(path: str, settings: Mapping[str, Any] | None) -> AbstractTraceCollector:
    """A collector from the dotted path of its class and its settings.

    :raises ValueError: there is no such class, it is no collector, or it refuses the settings
    """
    # mypy knows no way to tell that a base class is only compared with.
    return create_plugin(path, settings, AbstractTraceCollector)  # type: ignore[type-abstract]


@contextlib.contextmanager
def collecting(collectors: Sequence[AbstractTraceCollector], logger: Logger) -> Iterator[None]:
    """Keeps collectors in force; at the end stops them and logs their reports."""
    global tracer
    previous, tracer = tracer, Tracer(collectors, logger) if collectors else None
    mine = tracer
    if mine is not None:
        mine.start()
    try:
        yield
    finally:
        tracer = previous
        if mine is not None:
            mine.stop()


class Tracer:
    """Tells the collectors in force, and keeps what they raise from the traced call."""

    def __init__(self, collectors: Sequence[AbstractTraceCollector], logger: Logger) -> None:
        self._collectors = collectors
        self._logger = logger
        self._failures: Counter[int] = Counter()  # by id: not every collector can be hashed
        self._everyone: Followers = dict.fromkeys(INNER_KINDS, collectors)
        self._choices: dict[tuple[frozenset[Kind], ...], Followers] = {}

    def enter(self, span: Span) -> Span:
        """Tells who follows that a call begins."""
        if span.parent is None:
            span.followers = self._everyone
        for collector in self._concerned(span):
            try:
                collector.enter(span)
            except Exception:
                self._log_failure(collector)
        return span

    def _concerned(self, span: Span) -> 'Sequence[AbstractTraceCollector]':
        return self._collectors if span.parent is None else span.followers.get(span.kind, ())

    def enter_request(self, request: Span) -> None:
        """Tells all that a request begins, and lets them choose what they follow inside of it."""
        wanted: list[frozenset[Kind]] = []
        for collector in self._collectors:
            kinds = _NO_KIND
            try:
                collector.enter(request)
                kinds = frozenset(collector.follows(request))
            except Exception:
                self._log_failure(collector)
            wanted.append(kinds)
        choice = tuple(wanted)
        followers = self._choices.get(choice)
        if followers is None:
            followers = self._choices[choice] = self._by_kind(wanted)
        request.followers = followers

    def _by_kind(self, wanted: Sequence[frozenset[Kind]]) -> Followers:
        told = [*zip(self._collectors, wanted, strict=True)]
        by_kind = {kind: [collector for collector, kinds in told if kind in kinds]
                   for kind in INNER_KINDS}
        return {kind: collectors for kind, collectors in by_kind.items() if collectors}

    def exit(self, span: Span) -> None:
        """Tells those who were told of its beginning that a call has ended."""
        span.end_ns = time.perf_counter_ns()
        for collector in self._concerned(span):
            try:
                collector.exit(span)
            except Exception:
                self._log_failure(collector)

    def start(self) -> None:
        for collector in self._collectors:
            try:
                collector.start()
            except Exception:
                self._log_failure(collector)

    def stop(self) -> None:
        for collector in self._collectors:
            try:
                report = collector.stop()
            except Exception:
                self._log_failure(collector)
            else:
                if report:
                    self._logger.info('%s\n%s', type(collector).__name__, report)
        for collector in self._collectors:
            if failures := self._failures[id(collector)]:
                self._logger.error('%s failed %d times', type(collector).__name__, failures)

    def _log_failure(self, collector: AbstractTraceCollector) -> None:
        self._failures[id(collector)] += 1
        if self._failures[id(collector)] == 1:  # the rest is counted: there may be two a call
            self._logger.exception('%s failed', type(collector).__name__)


tracer: Tracer | None = None
current_span: ContextVar[Span | None] = ContextVar('current_span', default=None)


class Traced:
    """A block of code as a span; what is called inside becomes its child."""

    __slots__ = ('_tracer', '_span', '_token')

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    def __enter__(self) -> Span:
        self._token = current_span.set(self._tracer.enter(self._span))
        return self._span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._span.error = error
        current_span.reset(self._token)
        self._tracer.exit(self._span)


def span(
    name: str, kind: Kind, attributes: Mapping[str, Attribute]
) -> contextlib.AbstractContextManager[object]:
    """A block of code as a span, where a decorator will not do."""
    if tracer is None or not is_followed_here(kind):
        return _NO_SPAN
    made = Span(name, current_span.get(), kind)
    made.attributes.update(attributes)
    return Traced(tracer, made)


def is_on() -> bool:
    """Whether any collector is in force."""
    return tracer is not None


def is_followed(parent: Span | None, kind: Kind) -> bool:
    """Whether any collector wants to be told of a span of that kind inside of another one."""
    return parent is None or kind in parent.followers


def is_followed_here(kind: Kind) -> bool:
    """The same of one that would begin here and now."""
    return tracer is not None and is_followed(current_span.get(), kind)


def begin_request(name: str, carrier: Mapping[str, str]) -> Span:
    """Enters the span of a request; what this task calls from now on becomes its child.

    Some collector has to be in force.

    :param carrier: the header fields of the request
    """
    assert tracer is not None
    made = Span(name, None, 'server', carrier)
    tracer.enter_request(made)
    current_span.set(made)
    return made


def end_request(span: Span) -> None:
    """Leaves the span of a request."""
    if current_span.get() is span:
        current_span.set(None)  # else the task, its context and the span hold each other
    if tracer is not None:
        tracer.exit(span)


def _current_task() -> 'asyncio.Task[Any] | None':
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop in this thread
        return None
