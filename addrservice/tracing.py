"""Tracing: ``@trace()`` marks what is worth watching, collectors watch it.

A span is one call of a marked function, from entry to exit. Every collector in force is told of
both. Collectors are named in the configuration by the dotted path of their class, so that anyone
can plug in their own. With none in force a marked call costs one comparison.
"""

import asyncio
import contextlib
import functools
import importlib
import inspect
import os
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from heapq import heappop, heappush
from logging import Logger
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson

_Function = TypeVar('_Function', bound=Callable[..., Any])


class Span:
    """One call of a traced function.

    :param name: the function's qualified name, or what ``trace`` was told
    :param parent: the span in which the call was made, if any

    ``start_ns`` and ``end_ns`` are nanoseconds of ``time.perf_counter_ns`` (``end_ns`` is 0 while
    the call runs), ``task`` is the asyncio task that made the call, ``error`` the exception that
    left it.
    """

    __slots__ = ('name', 'parent', 'task', 'error', 'start_ns', 'end_ns')

    def __init__(self, name: str, parent: 'Span | None') -> None:
        self.name = name
        self.parent = parent
        self.task = _current_task()
        self.error: BaseException | None = None
        self.start_ns = time.perf_counter_ns()
        self.end_ns = 0

    @property
    def duration_ns(self) -> int:
        """Nanoseconds from entry to exit."""
        return self.end_ns - self.start_ns


class AbstractTraceCollector(ABC):
    """Is told of every span. It may see everything and hurt nothing: what it raises is logged.

    Its constructor takes the settings from the configuration as keyword arguments, with
    underscores for hyphens; for a bad one it raises ``ValueError``.
    """

    @abstractmethod
    def enter(self, span: Span) -> None:
        """A call begins."""

    @abstractmethod
    def exit(self, span: Span) -> None:
        """A call has ended, by a return or by an exception."""

    def stop(self) -> str | None:
        """Tracing ends: writes out what is left and may give a report for the log."""
        return None


def create_collector(path: str, settings: Mapping[str, Any] | None) -> AbstractTraceCollector:
    """A collector from the dotted path of its class and its settings.

    :raises ValueError: there is no such class, it is no collector, or it refuses the settings
    """
    module, _, name = path.rpartition('.')
    if not module or module.startswith('.'):
        raise ValueError(f'{path}: is not the dotted path of a class')
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'{path}: {error}') from error
    if not (inspect.isclass(factory) and issubclass(factory, AbstractTraceCollector)):
        raise ValueError(f'{path}: is not an AbstractTraceCollector')
    keywords = {key.replace('-', '_'): value for key, value in (settings or {}).items()}
    try:
        return factory(**keywords)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{path}: {error}') from error


@contextlib.contextmanager
def collecting(collectors: Sequence[AbstractTraceCollector], logger: Logger) -> Iterator[None]:
    """Keeps collectors in force; at the end stops them and logs their reports."""
    global _tracer
    previous, _tracer = _tracer, _Tracer(collectors, logger) if collectors else None
    mine = _tracer
    try:
        yield
    finally:
        _tracer = previous
        if mine is not None:
            mine.stop()


def trace(name: str | None = None) -> Callable[[_Function], _Function]:
    """Marks a function, a coroutine function or an async generator function.

    The span of a coroutine covers the time it is awaited. That of an async generator lasts from
    its first item to its end and includes what its consumer does in between; only what runs
    inside the generator becomes its child.

    :param name: what the spans are called; the function's qualified name unless told
    """

    def decorate(function: _Function) -> _Function:
        if inspect.isasyncgenfunction(function):
            make_wrapper = _wrap_async_generator
        elif inspect.iscoroutinefunction(function):
            make_wrapper = _wrap_coroutine
        else:
            make_wrapper = _wrap_function
        wrapper = make_wrapper(name or function.__qualname__, function)
        return cast(_Function, functools.wraps(function)(wrapper))

    return decorate


class _Tracer:
    """Tells the collectors in force, and keeps what they raise from the traced call."""

    def __init__(self, collectors: Sequence[AbstractTraceCollector], logger: Logger) -> None:
        self._collectors = collectors
        self._logger = logger
        self._failures: Counter[int] = Counter()  # by id: not every collector can be hashed

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        span = self.enter(name)
        token = _current_span.set(span)
        try:
            yield
        except BaseException as error:
            span.error = error
            raise
        finally:
            _current_span.reset(token)
            self.exit(span)

    def enter(self, name: str) -> Span:
        span = Span(name, _current_span.get())
        for collector in self._collectors:
            try:
                collector.enter(span)
            except Exception:
                self._log_failure(collector)
        return span

    def exit(self, span: Span) -> None:
        span.end_ns = time.perf_counter_ns()
        for collector in self._collectors:
            try:
                collector.exit(span)
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


_tracer: _Tracer | None = None
_current_span: ContextVar[Span | None] = ContextVar('current_span', default=None)


def _wrap_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if _tracer is None:
            return function(*args, **kwargs)
        with _tracer.span(name):
            return function(*args, **kwargs)

    return wrapper


def _wrap_coroutine(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if _tracer is None:
            return await function(*args, **kwargs)
        with _tracer.span(name):
            return await function(*args, **kwargs)

    return wrapper


def _wrap_async_generator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        items = function(*args, **kwargs)
        return items if _tracer is None else _traced_items(_tracer, name, items)

    return wrapper


async def _traced_items(tracer: _Tracer, name: str, items: Any) -> AsyncGenerator[Any, Any]:
    span = tracer.enter(name)
    try:
        step = anext(items)
        while True:
            with _inside(span):
                try:
                    item = await step
                except StopAsyncIteration:
                    return
            try:
                step = items.asend((yield item))
            except GeneratorExit:
                with _inside(span):
                    await items.aclose()
                raise
            except BaseException as error:
                step = items.athrow(error)
    except GeneratorExit:  # the consumer wants no more, which is no error
        raise
    except BaseException as error:
        span.error = error
        raise
    finally:
        tracer.exit(span)


@contextlib.contextmanager
def _inside(span: Span) -> Iterator[None]:
    token = _current_span.set(span)
    try:
        yield
    finally:
        _current_span.reset(token)


def _current_task() -> 'asyncio.Task[Any] | None':
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop in this thread
        return None


class CumulativeFunctionTimeProfiler(AbstractTraceCollector):
    """Adds up, per function, its calls, their total time and its own time.

    Own time is the total without the traced calls made inside. Calls that run side by side each
    count in full, so where a function gathers several of them its own time is at least 0.
    """

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._total_ns: Counter[str] = Counter()
        self._own_ns: Counter[str] = Counter()
        self._inner_ns: defaultdict[Span, int] = defaultdict(int)

    def enter(self, span: Span) -> None:
        """Nothing: all is known at the exit."""

    def exit(self, span: Span) -> None:
        duration = span.duration_ns
        self._calls[span.name] += 1
        self._total_ns[span.name] += duration
        self._own_ns[span.name] += max(0, duration - self._inner_ns.pop(span, 0))
        if span.parent is not None and not span.parent.end_ns:
            self._inner_ns[span.parent] += duration

    def stop(self) -> str | None:
        """The table, longest total first; nothing when nothing was called."""
        if not self._calls:
            return None
        rows = [f'{"calls":>10} {"total ms":>12} {"own ms":>12} {"ms/call":>10}  function']
        for name, total in self._total_ns.most_common():
            calls = self._calls[name]
            rows.append(f'{calls:>10} {total / 1e6:>12.3f} {self._own_ns[name] / 1e6:>12.3f}'
                        f' {total / 1e6 / calls:>10.4f}  {name}')
        return '\n'.join(rows)


class Timeline(AbstractTraceCollector):
    """Keeps the newest spans and writes them as Trace Event JSON, for Perfetto or chrome://tracing.

    Spans of one asyncio task share a track; tasks that overlap have tracks of their own.
    Source of the format: "Trace Event Format", the Chromium project.

    :param file: where to write at stop
    :param max_events: how many spans to keep
    """

    def __init__(self, file: str, max_events: int = 100_000) -> None:
        if not isinstance(max_events, int) or not 1 <= max_events <= sys.maxsize:
            raise ValueError('max-events must be a number of 1 or more')
        self._file = Path(file)
        self._events: deque[dict[str, Any]] = deque(maxlen=max_events)
        self._seen = 0
        self._tracks = _Tracks()

    def enter(self, span: Span) -> None:
        self._tracks.enter(span.task)

    def exit(self, span: Span) -> None:
        self._seen += 1
        self._events.append({
            'name': span.name,
            'ph': 'X',  # a complete event; times in microseconds
            'ts': span.start_ns / 1000,
            'dur': span.duration_ns / 1000,
            'pid': os.getpid(),
            'tid': self._tracks.exit(span.task),
            'args': {} if span.error is None else {'error': type(span.error).__name__},
        })

    def stop(self) -> str | None:
        """Writes the file, unless nothing was seen; says how much of it is in the file."""
        if not self._seen:
            return None
        self._file.write_bytes(orjson.dumps({
            'traceEvents': list(self._events),
            'displayTimeUnit': 'ms',
        }))
        return f'{len(self._events)} of {self._seen} spans written to {self._file}'


class _Tracks:
    """Numbers for what runs at the same time: the lowest free one, given back at the end."""

    def __init__(self) -> None:
        self._open: dict[object, list[int]] = {}  # task -> [track, spans open]
        self._free: list[int] = []

    def enter(self, task: object) -> None:
        if task not in self._open:
            track = heappop(self._free) if self._free else len(self._open) + 1
            self._open[task] = [track, 0]
        self._open[task][1] += 1

    def exit(self, task: object) -> int:
        entry = self._open[task]
        entry[1] -= 1
        if entry[1] == 0:
            del self._open[task]
            heappush(self._free, entry[0])
        return entry[0]
