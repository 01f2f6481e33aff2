"""Tracing: what a span covers, collectors that fail, the profiler, the timeline."""

import asyncio
import gc
import inspect
import json
import logging
import os
import sys
import tempfile
import time
import unittest
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from types import AsyncGeneratorType
from typing import Any, Final

from addrservice import tracing
from addrservice.tracing import (
    AbstractTraceCollector, CumulativeFunctionTimeProfiler, Kind, Span, Timeline, begin_request,
    collecting, create_collector, end_request, is_on, trace,
)

LOGGER: Final = logging.Logger('test')  # nobody else has it
MS: Final = 1_000_000  # nanoseconds


class Recorder(AbstractTraceCollector):
    """Keeps what it is told, and the settings it was made with."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.entered: list[Span] = []
        self.exited: list[Span] = []
        self.tasks: dict[Span, asyncio.Task[Any] | None] = {}
        self.stops = 0
        self.report: str | None = None

    def enter(self, span: Span) -> None:
        self.entered.append(span)
        self.tasks[span] = span.task

    def exit(self, span: Span) -> None:
        self.exited.append(span)

    def stop(self) -> str | None:
        self.stops += 1
        return self.report

    def span(self, name: str) -> Span:
        """The one span of that name."""
        span, = [span for span in self.entered if span.name == name]
        return span

    def names(self) -> list[str]:
        """What was called, in order of entry."""
        return [span.name for span in self.entered]

    def ended(self) -> list[str]:
        """What has ended, in that order."""
        return [span.name for span in self.exited]

    def parent(self, name: str) -> str | None:
        """Inside what a span was."""
        parent = self.span(name).parent
        return None if parent is None else parent.name


@contextmanager
def recording() -> Iterator[Recorder]:
    """A recorder in force; whatever tracing logs meanwhile has to be expected."""
    recorder = Recorder()
    with collecting([recorder], LOGGER):
        yield recorder


def end(span: Span, nanoseconds: int) -> Span:
    """A span of that length, ended."""
    span.end_ns = span.start_ns + nanoseconds
    return span


@trace('add')
def add(a: int, b: int = 1) -> int:
    """Adds."""
    return a + b


@trace('fail')
def fail() -> None:
    raise LookupError('lost')


@trace('outer')
def outer() -> int:
    return add(1) + add(2)


@trace('wait for')
async def wait_for(event: asyncio.Event) -> int:
    """Waits."""
    await event.wait()
    return add(1)


@trace('fail later')
async def fail_later() -> None:
    await asyncio.sleep(0)
    fail()


@trace('numbers')
async def numbers(count: int) -> AsyncGenerator[int, None]:
    """Counts."""
    for number in range(count):
        yield add(number, 0)
        await asyncio.sleep(0)


@trace('fail after one')
async def fail_after_one() -> AsyncGenerator[int, None]:
    yield 1
    raise LookupError('lost')


@trace('meet')
async def meet(barrier: asyncio.Barrier) -> int:
    """Returns when all who are expected are in here."""
    await barrier.wait()
    return add(1)


@trace('undecorated in name')
def renamed() -> None:
    pass


class Owner:
    @trace()
    def method(self) -> 'Owner':
        return self


class FunctionTest(unittest.TestCase):
    def test_a_call_is_one_span(self) -> None:
        """Told to the collector at entry and at exit, the same object."""
        with recording() as recorder:
            before = time.perf_counter_ns()
            self.assertEqual(5, add(2, b=3))
            after = time.perf_counter_ns()
        span = recorder.span('add')
        self.assertEqual(recorder.entered, recorder.exited)
        self.assertTrue(before <= span.start_ns <= span.end_ns <= after)
        self.assertEqual(span.end_ns - span.start_ns, span.duration_ns)
        self.assertIsNone(span.error)
        self.assertIsNone(span.task)
        self.assertIsNone(span.parent)

    def test_a_span_is_still_open_while_the_call_runs(self) -> None:
        seen = []

        @trace()
        def look() -> None:
            seen.extend([recorder.entered[0].end_ns, len(recorder.exited)])

        with recording() as recorder:
            look()
        self.assertEqual([0, 0], seen)

    def test_an_error_is_recorded_and_raised_on(self) -> None:
        with recording() as recorder, self.assertRaises(LookupError) as caught:
            fail()
        self.assertIs(caught.exception, recorder.span('fail').error)
        self.assertEqual(['fail'], recorder.ended())

    def test_an_exit_of_the_interpreter_is_an_error_too(self) -> None:
        """Whatever leaves a call is recorded, also what is no Exception."""
        with recording() as recorder, self.assertRaises(SystemExit):
            trace('exit')(sys.exit)(0)
        self.assertIsInstance(recorder.span('exit').error, SystemExit)

    def test_a_call_inside_another_has_it_as_parent(self) -> None:
        """And what comes after has not."""
        with recording() as recorder:
            outer()
            renamed()
        top = recorder.span('outer')
        self.assertEqual([None, top, top, None], [span.parent for span in recorder.entered])
        self.assertEqual(['add', 'add', 'outer', 'undecorated in name'], recorder.ended())

    def test_a_failed_call_is_no_parent_of_the_next(self) -> None:
        with recording() as recorder:
            self.assertRaises(LookupError, fail)
            add(1)
        self.assertIsNone(recorder.span('add').parent)

    def test_a_span_is_called_as_the_function_unless_told(self) -> None:
        owner = Owner()
        with recording() as recorder:
            renamed()
            self.assertIs(owner, owner.method())
        self.assertEqual(['undecorated in name', 'Owner.method'], recorder.names())

    def test_a_traced_function_looks_like_itself(self) -> None:
        """Name, documentation, signature and kind, as functools.wraps keeps them."""
        for function, name, documentation, parameters in (
            (add, 'add', 'Adds.', ['a', 'b']),
            (wait_for, 'wait_for', 'Waits.', ['event']),
            (numbers, 'numbers', 'Counts.', ['count']),
            (Owner.method, 'method', None, ['self']),
        ):
            with self.subTest(name=name):
                self.assertEqual(name, function.__name__)
                self.assertEqual(documentation, function.__doc__)
                self.assertEqual(__name__, function.__module__)
                self.assertEqual(parameters, list(inspect.signature(function).parameters))
                self.assertTrue(inspect.isfunction(inspect.unwrap(function)))
        self.assertTrue(inspect.iscoroutinefunction(wait_for))

    def test_with_no_collector_a_call_is_a_plain_call(self) -> None:
        """The function gets what it was passed, its result and its errors come as they are."""
        with recording() as recorder, collecting([], LOGGER):
            self.assertEqual(5, add(2, b=3))
            self.assertRaises(LookupError, fail)
        self.assertEqual([], recorder.names())


class CoroutineTest(unittest.IsolatedAsyncioTestCase):
    async def test_a_span_covers_the_awaited_time_and_not_the_creation(self) -> None:
        with recording() as recorder:
            event = asyncio.Event()
            coroutine = wait_for(event)
            self.assertEqual([], recorder.names())
            created = time.perf_counter_ns()
            task = asyncio.create_task(coroutine)
            await asyncio.sleep(0)
            span = recorder.span('wait for')
            self.assertEqual((0, []), (span.end_ns, recorder.ended()))
            set_at = time.perf_counter_ns()
            event.set()
            self.assertEqual(2, await task)
        self.assertTrue(created <= span.start_ns <= set_at <= span.end_ns)
        self.assertIs(task, recorder.tasks[span])

    async def test_a_call_after_an_await_is_still_inside(self) -> None:
        """Each task has its own current span, however they take turns."""
        with recording() as recorder:
            barrier = asyncio.Barrier(2)
            await asyncio.gather(meet(barrier), meet(barrier))
        self.assertEqual(['meet', 'meet', 'add', 'add'], recorder.names())
        first, second, *inner = recorder.entered
        self.assertEqual({first, second}, {span.parent for span in inner})
        for span in inner:
            assert span.parent is not None
            self.assertIs(recorder.tasks[span.parent], recorder.tasks[span])

    async def test_a_task_started_inside_a_call_is_its_child(self) -> None:
        @trace('gather')
        async def gather() -> None:
            await asyncio.gather(meet(barrier), meet(barrier))

        with recording() as recorder:
            barrier = asyncio.Barrier(2)
            await gather()
        parents = {span.parent for span in recorder.entered if span.name == 'meet'}
        self.assertEqual({recorder.span('gather')}, parents)

    async def test_an_error_is_recorded_and_raised_on(self) -> None:
        with recording() as recorder, self.assertRaises(LookupError) as caught:
            await fail_later()
        self.assertIs(caught.exception, recorder.span('fail').error)
        self.assertIs(caught.exception, recorder.span('fail later').error)

    async def test_a_cancelled_call_ends_its_span(self) -> None:
        with recording() as recorder:
            task = asyncio.create_task(wait_for(asyncio.Event()))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        self.assertTrue(task.cancelled())
        self.assertIsInstance(recorder.exited[0].error, asyncio.CancelledError)

    async def test_with_no_collector_a_call_is_a_plain_call(self) -> None:
        event = asyncio.Event()
        event.set()
        with collecting([], LOGGER):
            self.assertEqual(2, await wait_for(event))
            with self.assertRaises(LookupError):
                await fail_later()


class AsyncGeneratorTest(unittest.IsolatedAsyncioTestCase):
    async def test_a_span_lasts_from_the_first_item_to_the_end(self) -> None:
        """Making the generator is not part of it, what the consumer does in between is."""
        with recording() as recorder:
            items = numbers(2)
            self.assertEqual([], recorder.names())
            self.assertEqual(0, await anext(items))
            self.assertEqual(1, await anext(items))
            consumed = time.perf_counter_ns()
            self.assertEqual(['add', 'add'], recorder.ended())
            self.assertEqual('stop', await anext(items, 'stop'))
        self.assertEqual(['numbers', 'add', 'add'], recorder.names())
        span = recorder.span('numbers')
        self.assertEqual(span, recorder.exited[-1])
        self.assertLessEqual(consumed, span.end_ns)
        self.assertIsNone(span.error)

    async def test_only_what_runs_inside_becomes_a_child(self) -> None:
        """What the consumer calls between two items belongs to the consumer."""
        @trace('consume')
        async def consume() -> None:
            async for _ in numbers(1):
                renamed()

        with recording() as recorder:
            await consume()
            outer()
        self.assertEqual('consume', recorder.parent('numbers'))
        self.assertEqual('consume', recorder.parent('undecorated in name'))
        self.assertEqual(recorder.span('numbers'), recorder.entered[2].parent)
        self.assertIsNone(recorder.parent('outer'))

    async def test_a_consumer_that_wants_no_more_is_no_error(self) -> None:
        """The span ends with the generator, after it has cleaned up."""
        log = []

        @trace('tidy')
        async def tidy() -> AsyncGenerator[int, None]:
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                log.append(recorder.ended())

        with recording() as recorder:
            async with aclosing(tidy()) as items:
                async for _ in items:
                    break
        self.assertEqual([[]], log)
        self.assertEqual(['tidy'], recorder.ended())
        self.assertIsNone(recorder.span('tidy').error)

    async def test_what_a_generator_calls_to_clean_up_is_inside(self) -> None:
        @trace('tidy')
        async def tidy() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                add(1)

        with recording() as recorder:
            async with aclosing(tidy()) as items:
                await anext(items)
        self.assertEqual('tidy', recorder.parent('add'))

    async def test_an_error_inside_is_recorded_and_raised_on(self) -> None:
        with recording() as recorder, self.assertRaises(LookupError) as caught:
            async for _ in fail_after_one():
                pass
        self.assertIs(caught.exception, recorder.span('fail after one').error)
        self.assertEqual(['fail after one'], recorder.ended())

    async def test_an_error_while_cleaning_up_is_recorded(self) -> None:
        """Also when the consumer had closed the generator early."""
        @trace('untidy')
        async def untidy() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                fail()

        with recording() as recorder, self.assertRaises(LookupError):
            async with aclosing(untidy()) as items:
                await anext(items)
        self.assertIsInstance(recorder.span('untidy').error, LookupError)

    async def test_an_error_does_not_become_the_current_span(self) -> None:
        with recording() as recorder:
            with self.assertRaises(LookupError):
                async for _ in fail_after_one():
                    pass
            add(1)
        self.assertIsNone(recorder.parent('add'))

    async def test_a_generator_that_is_never_asked_has_no_span(self) -> None:
        with recording() as recorder:
            await numbers(1).aclose()
        self.assertEqual([], recorder.names())

    async def test_with_no_collector_the_generator_is_the_plain_one(self) -> None:
        with collecting([], LOGGER):
            items = numbers(2)
            assert isinstance(items, AsyncGeneratorType)
            self.assertIs(inspect.unwrap(numbers).__code__, items.ag_code)
            self.assertEqual([0, 1], [item async for item in items])

    async def test_what_a_consumer_sends_or_throws_arrives(self) -> None:
        """A traced generator does what it does untraced, as a context manager for one."""
        log: list[object] = []

        @trace('echo')
        async def echo() -> AsyncGenerator[int, str]:
            try:
                log.append((yield 1))
                yield 2
            except LookupError as error:
                log.append(error)
                yield 3

        with recording() as recorder:
            async with aclosing(echo()) as items:
                self.assertEqual(1, await anext(items))
                self.assertEqual(2, await items.asend('sent'))
                lost = LookupError('lost')
                self.assertEqual(3, await items.athrow(lost))
        self.assertEqual(['sent', lost], log)
        self.assertIsNone(recorder.span('echo').error)

    async def test_a_traced_context_manager_sees_the_error_of_its_body(self) -> None:
        log = []

        @asynccontextmanager
        @trace('transaction')
        async def transaction() -> AsyncGenerator[None, None]:
            try:
                yield
            except LookupError:
                log.append('rolled back')
                raise

        with recording() as recorder, self.assertRaises(LookupError) as caught:
            async with transaction():
                raise LookupError('lost')
        self.assertEqual(['rolled back'], log)
        self.assertIs(caught.exception, recorder.span('transaction').error)


class Failing(Recorder):
    """Raises wherever it is called."""

    def enter(self, span: Span) -> None:
        raise RuntimeError('no entry')

    def exit(self, span: Span) -> None:
        raise RuntimeError('no exit')

    def stop(self) -> str | None:
        raise RuntimeError('no end')


@dataclass
class FailingData(AbstractTraceCollector):
    """Fails, and cannot be hashed, as is natural for a dataclass."""

    name: str = 'a'

    def enter(self, span: Span) -> None:
        raise RuntimeError('no entry')

    def exit(self, span: Span) -> None:
        """Nothing."""


class FailingCollectorTest(unittest.TestCase):
    def test_it_hurts_neither_the_call_nor_other_collectors(self) -> None:
        """Wherever it stands among them."""
        before, after = Recorder(), Recorder()
        with self.assertLogs(LOGGER), collecting([before, Failing(), after], LOGGER):
            self.assertEqual(5, outer())
            self.assertRaises(LookupError, fail)
        for other in (before, after):
            self.assertEqual(['outer', 'add', 'add', 'fail'], other.names())
            self.assertEqual(['add', 'add', 'outer', 'fail'], other.ended())
            self.assertIsInstance(other.span('fail').error, LookupError)
            self.assertEqual(1, other.stops)

    def test_its_first_failure_is_logged_with_a_traceback_and_the_rest_counted(self) -> None:
        with self.assertLogs(LOGGER) as caught, collecting([Failing()], LOGGER):
            add(1)
            add(2)
        first, total = caught.records
        self.assertEqual('Failing failed', first.getMessage())
        assert first.exc_info is not None
        self.assertEqual('no entry', str(first.exc_info[1]))
        self.assertEqual('Failing failed 5 times', total.getMessage())
        self.assertEqual([logging.ERROR] * 2, [first.levelno, total.levelno])

    def test_each_one_is_counted_on_its_own(self) -> None:
        with self.assertLogs(LOGGER) as caught, collecting([Failing(), Failing()], LOGGER):
            add(1)
        self.assertEqual(['Failing failed'] * 2 + ['Failing failed 3 times'] * 2,
                         [record.getMessage() for record in caught.records])

    def test_one_that_fails_to_start_or_to_choose_is_logged_and_told_of_the_request(self) -> None:
        class Broken(Recorder):
            def start(self) -> None:
                raise ValueError

            def follows(self, request: Span) -> frozenset[Kind]:
                raise ValueError

        broken = Broken()
        with self.assertLogs(LOGGER, 'ERROR') as logs, collecting([broken], LOGGER):
            copy_context().run(begin_request, 'GET /', {})
        self.assertEqual(['Broken failed', 'Broken failed 2 times'],
                         [record.getMessage() for record in logs.records])
        self.assertEqual(['GET /'], broken.names())

    def test_one_has_nothing_to_expose_and_watches_nothing_unless_it_says_so(self) -> None:
        recorder = Recorder()
        recorder.watch('connections', lambda: 1)
        self.assertIsNone(recorder.expose('*/*'))

    def test_one_that_fails_to_stop_is_logged(self) -> None:
        """Its only failure, with its traceback, and the others are stopped."""
        other = Recorder()
        with self.assertLogs(LOGGER) as caught, collecting([Failing(), other], LOGGER):
            pass
        self.assertEqual(['Failing failed', 'Failing failed 1 times'],
                         [record.getMessage() for record in caught.records])
        self.assertIn('no end', caught.records[0].exc_text or str(caught.records[0].exc_info))
        self.assertEqual(1, other.stops)

    def test_it_may_be_of_a_class_that_cannot_be_hashed(self) -> None:
        with self.assertLogs(LOGGER), collecting([FailingData()], LOGGER):
            self.assertEqual(2, add(1))

    def test_a_generator_goes_on(self) -> None:
        async def consume() -> list[int]:
            return [number async for number in numbers(2)]

        with self.assertLogs(LOGGER), collecting([Failing()], LOGGER):
            self.assertEqual([0, 1], asyncio.run(consume()))


class Selective(Recorder):
    """Wants to be told of some kinds of spans only."""

    def __init__(self, *kinds: Kind) -> None:
        super().__init__()
        self.kinds = frozenset(kinds)

    def follows(self, request: Span) -> frozenset[Kind]:
        return self.kinds


class Silent(Recorder):
    """Keeps nothing."""

    def enter(self, span: Span) -> None:
        pass

    def exit(self, span: Span) -> None:
        pass


@trace('read', 'store')
def read() -> None:
    with tracing.span('SELECT', 'client', {'db.system.name': 'sql'}):
        add(1, 2)


class RequestTest(unittest.TestCase):
    """The span of a request, and which of those inside are made."""

    def names_seen(self, *collectors: Recorder) -> list[list[str]]:
        """What each of them is told of, while a request reads."""
        def serve() -> None:
            request = begin_request('GET /', {'Traceparent': 'x'})
            assert request is not None
            read()
            end_request(request)

        with collecting(collectors, LOGGER):
            copy_context().run(serve)
        return [collector.names() for collector in collectors]

    def test_all_that_is_inside_is_told_of(self) -> None:
        recorder = Recorder()
        self.assertEqual([['GET /', 'read', 'SELECT', 'add']], self.names_seen(recorder))
        self.assertEqual(['add', 'SELECT', 'read', 'GET /'], recorder.ended())
        self.assertEqual(['server', 'store', 'client', 'internal'],
                         [seen.kind for seen in recorder.entered])
        self.assertEqual([None, 'GET /', 'read', 'SELECT'],
                         [recorder.parent(name) for name in recorder.names()])
        self.assertEqual({'Traceparent': 'x'}, recorder.span('GET /').carrier)
        self.assertEqual({'db.system.name': 'sql'}, recorder.span('SELECT').attributes)

    def test_what_nobody_wants_to_be_told_of_is_not_made(self) -> None:
        """A call below it becomes a child of the next one above."""
        for kinds, names in (((), ['GET /']), (('store',), ['GET /', 'read']),
                             (('client', 'internal'), ['GET /', 'SELECT', 'add'])):
            with self.subTest(kinds=kinds):
                recorder = Selective(*kinds)
                self.assertEqual([names], self.names_seen(recorder))
                self.assertEqual([None, *names[:-1]],
                                 [recorder.parent(name) for name in names])

    def test_each_is_told_of_what_it_wants_to_be_told_of(self) -> None:
        """The parent of one may be another's."""
        first, second = Selective('store'), Selective('internal')
        self.assertEqual([['GET /', 'read'], ['GET /', 'add']], self.names_seen(first, second))
        self.assertEqual(['read', 'GET /'], first.ended())
        self.assertEqual(['add', 'GET /'], second.ended())
        self.assertEqual('read', second.parent('add'))

    def test_a_request_leaves_nothing_for_the_garbage_collector(self) -> None:
        """It would stop the service for some milliseconds, again and again."""
        async def serve() -> None:
            request = begin_request('GET /', {})
            assert request is not None
            read()
            end_request(request)

        async def serve_all() -> None:
            await asyncio.gather(*(serve() for _ in range(10)))  # each in a task of its own

        with collecting([Silent()], LOGGER):
            asyncio.run(serve_all())
            gc.collect()
            gc.disable()
            self.addCleanup(gc.enable)
            asyncio.run(serve_all())
            self.assertEqual(0, gc.collect())

    def test_one_that_ends_when_no_collector_is_in_force_any_more_is_not_told_of(self) -> None:
        self.assertFalse(is_on())
        with recording() as recorder:
            request = copy_context().run(begin_request, 'GET /', {})
            self.assertTrue(is_on())
        end_request(request)  # too late: nobody listens any more
        self.assertEqual([], recorder.ended())


class CollectingTest(unittest.TestCase):
    def test_what_was_in_force_is_so_again(self) -> None:
        """A collector, another one, none, and nothing before and after."""
        with recording() as first:
            add(1)
            with recording() as second:
                renamed()
            with collecting([], LOGGER):
                fail_quietly()
            outer()
        fail_quietly()
        self.assertEqual(['add', 'outer', 'add', 'add'], first.names())
        self.assertEqual(['undecorated in name'], second.names())

    def test_an_error_ends_it_as_well(self) -> None:
        recorder = Recorder()
        with self.assertRaises(KeyboardInterrupt), collecting([recorder], LOGGER):
            raise KeyboardInterrupt
        add(1)
        self.assertEqual(([], 1), (recorder.names(), recorder.stops))

    def test_a_collector_is_stopped_once_at_the_end(self) -> None:
        with recording() as recorder:
            self.assertEqual(0, recorder.stops)
        self.assertEqual(1, recorder.stops)

    def test_a_report_is_logged_under_the_name_of_the_class(self) -> None:
        with self.assertLogs(LOGGER) as caught, recording() as recorder:
            recorder.report = 'all well'
        record, = caught.records
        self.assertEqual((logging.INFO, 'Recorder\nall well'),
                         (record.levelno, record.getMessage()))

    def test_without_a_report_nothing_is_logged(self) -> None:
        with self.assertNoLogs(LOGGER), recording():
            add(1)

    def test_a_collector_need_not_define_stop(self) -> None:
        with self.assertNoLogs(LOGGER), collecting([Quiet()], LOGGER):
            add(1)

    def test_a_collector_that_stops_is_not_told_of_what_it_calls(self) -> None:
        class Busy(Recorder):
            def stop(self) -> str | None:
                return str(add(1))

        busy = Busy()
        with self.assertLogs(LOGGER), collecting([busy], LOGGER):
            pass
        self.assertEqual([], busy.names())


def fail_quietly() -> None:
    """A traced call that fails."""
    try:
        fail()
    except LookupError:
        pass


class Quiet(AbstractTraceCollector):
    """No more than has to be."""

    def enter(self, span: Span) -> None:
        """Nothing."""

    def exit(self, span: Span) -> None:
        """Nothing."""


class Half(AbstractTraceCollector):
    """Not yet finished."""

    def enter(self, span: Span) -> None:
        """Nothing."""


class Choosy(Quiet):
    """Refuses its settings."""

    def __init__(self, value: int) -> None:
        raise ValueError(f'{value} will not do')


class CreateCollectorTest(unittest.TestCase):
    def test_a_collector_is_found_by_its_dotted_path(self) -> None:
        self.assertIs(Recorder, type(create_collector(f'{__name__}.Recorder', {})))
        self.assertIs(Recorder, type(create_collector(f'{__name__}.Recorder', None)))

    def test_settings_become_keyword_arguments(self) -> None:
        """With underscores for hyphens; the values come as they are."""
        made = create_collector(f'{__name__}.Recorder', {'max-open-files': [1], 'b_c': None})
        assert isinstance(made, Recorder)
        self.assertEqual({'max_open_files': [1], 'b_c': None}, made.settings)

    def test_what_cannot_be_made_is_a_value_error_that_names_the_path(self) -> None:
        here = __name__
        timeline = 'addrservice.tracing.Timeline'
        cases: list[tuple[str, dict[str, Any] | None, str]] = [
            ('Timeline', None, ''),
            ('.', None, ''),
            ('.tracing.Timeline', None, ''),
            ('addrservice..Timeline', None, ''),
            ('addrservice.tracing.', None, ''),
            ('addrservice.nowhere.Timeline', None, 'addrservice.nowhere'),
            ('nowhere_at_all.Timeline', None, 'nowhere_at_all'),
            ('addrservice.tracing.Nothing', None, 'Nothing'),
            ('addrservice.tracing.trace', None, 'AbstractTraceCollector'),
            ('addrservice.tracing.Span', None, 'AbstractTraceCollector'),
            ('addrservice.tracing.AbstractTraceCollector', None, 'abstract'),
            (f'{here}.Half', None, 'abstract'),
            (f'{here}.Choosy', {'value': 3}, '3 will not do'),
            (f'{here}.Choosy', None, 'value'),
            ('addrservice.tracing.CumulativeFunctionTimeProfiler', {'unit': 'ms'}, 'unit'),
            (timeline, None, 'file'),
            (timeline, {'file': 5}, 'int'),
            (timeline, {'file': 'a', 'size': 3}, 'size'),
            (timeline, {'file': 'a', 'max-events': 0}, 'max-events'),
            (timeline, {'file': 'a', 'max-events': 1.5}, 'max-events'),
            (timeline, {'file': 'a', 'max-events': '9'}, 'max-events'),
            (timeline, {'file': 'a', 'max-events': None}, 'max-events'),
            (timeline, {'file': 'a', 'max-events': 10 ** 30}, ''),
        ]
        for path, settings, word in cases:
            with self.subTest(path=path, settings=settings):
                with self.assertRaises(ValueError) as caught:
                    create_collector(path, settings)
                text = str(caught.exception)
                self.assertTrue(text.startswith(f'{path}: '), text)
                self.assertIn(word, text.removeprefix(path))
                self.assertEqual(1, len(text.splitlines()), text)


class ProfilerTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.profiler = CumulativeFunctionTimeProfiler()

    def rows(self) -> dict[str, list[float]]:
        """The table: calls, total, own and time per call, in milliseconds, by function."""
        _, *lines = (self.profiler.stop() or '').splitlines()
        split = [line.split(maxsplit=4) for line in lines]
        return {name: list(map(float, values)) for *values, name in split}

    def call(self, name: str, parent: Span | None = None) -> Span:
        """A call that begins."""
        span = Span(name, parent)
        self.profiler.enter(span)
        return span

    def ends(self, span: Span, milliseconds: float) -> None:
        """The call has ended after so long."""
        self.profiler.exit(end(span, int(milliseconds * MS)))

    def test_own_time_is_the_total_without_the_calls_inside(self) -> None:
        top = self.call('top')
        middle = self.call('middle', top)
        self.ends(self.call('leaf', middle), 1)
        self.ends(self.call('leaf', middle), 2)
        self.ends(middle, 5)
        self.ends(top, 9)
        self.assertEqual({
            'top': [1, 9, 4, 9],
            'middle': [1, 5, 2, 5],
            'leaf': [2, 3, 3, 1.5],
        }, self.rows())

    def test_a_recursive_function_counts_each_call(self) -> None:
        first = self.call('f')
        second = self.call('f', first)
        self.ends(second, 2)
        self.ends(first, 5)
        self.assertEqual({'f': [2, 7, 5, 3.5]}, self.rows())

    def test_calls_side_by_side_count_in_full(self) -> None:
        """So a function that gathers them has no time of its own, and never less than none."""
        gather = self.call('gather')
        calls = [self.call('inner', gather) for _ in range(3)]
        for inner in calls:
            self.ends(inner, 4)
        self.ends(gather, 5)
        self.assertEqual({'inner': [3, 12, 12, 4], 'gather': [1, 5, 0, 5]}, self.rows())

    def test_a_call_that_outlives_its_parent_takes_nothing_from_it(self) -> None:
        """As a task does that was started and not awaited; nor does it leave anything behind."""
        parent = self.call('parent')
        child = self.call('child', parent)
        self.ends(parent, 2)
        self.ends(child, 5)
        self.assertEqual({'child': [1, 5, 5, 5], 'parent': [1, 2, 2, 2]}, self.rows())
        self.assertEqual({}, self.profiler._inner_ns)

    def test_nothing_is_kept_of_calls_that_have_ended(self) -> None:
        top = self.call('top')
        self.ends(self.call('leaf', top), 1)
        self.ends(top, 1)
        self.assertEqual({}, self.profiler._inner_ns)

    def test_without_calls_there_is_no_table(self) -> None:
        self.assertIsNone(self.profiler.stop())

    def test_the_table_has_a_heading_and_the_longest_total_first(self) -> None:
        for name, milliseconds in (('short', 1), ('long', 30), ('middle of three', 2.5)):
            self.ends(self.call(name), milliseconds)
        self.assertEqual([
            '     calls     total ms       own ms    ms/call  function',
            '         1       30.000       30.000    30.0000  long',
            '         1        2.500        2.500     2.5000  middle of three',
            '         1        1.000        1.000     1.0000  short',
        ], (self.profiler.stop() or '').splitlines())

    async def test_real_calls_are_counted_and_the_table_logged(self) -> None:
        """Nested ones and gathered ones; the parts are never more than the whole."""
        with self.assertLogs(LOGGER) as caught, collecting([self.profiler], LOGGER):
            outer()
            barrier = asyncio.Barrier(2)
            await asyncio.gather(meet(barrier), meet(barrier))
            self.assertEqual([0, 1], [number async for number in numbers(2)])
        rows = self.rows()
        self.assertEqual({'outer': 1, 'meet': 2, 'numbers': 1, 'add': 6},
                         {name: values[0] for name, values in rows.items()})
        for calls, total, own, each in rows.values():
            self.assertTrue(0 <= own <= total)
            self.assertAlmostEqual(total / calls, each, 2)
        self.assertIn('CumulativeFunctionTimeProfiler\n     calls', caught.output[0])


class TimelineTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / 'timeline.json'

    @contextmanager
    def drawing(self, **settings: Any) -> Iterator[None]:
        """A timeline in force."""
        with self.assertLogs(LOGGER) as caught:
            with collecting([Timeline(str(self.file), **settings)], LOGGER):
                yield
        self.logged = caught.records[0].getMessage()

    def events(self) -> list[dict[str, Any]]:
        """What was written."""
        document = json.loads(self.file.read_bytes())
        self.assertEqual({'traceEvents', 'displayTimeUnit'}, document.keys())
        self.assertEqual('ms', document['displayTimeUnit'])
        events: list[dict[str, Any]] = document['traceEvents']
        return events

    def tracks(self, name: str) -> list[int]:
        """The tracks of the calls of a function, in order of their end."""
        return [event['tid'] for event in self.events() if event['name'] == name]

    async def test_each_call_is_a_complete_event(self) -> None:
        """As the Trace Event Format has it: a name, phase X, times, a process and a track."""
        with self.drawing():
            outer()
            async for _ in numbers(1):
                pass
        events = self.events()
        self.assertEqual(['add', 'add', 'outer', 'add', 'numbers'],
                         [event['name'] for event in events])
        for event in events:
            self.assertEqual({'name', 'ph', 'ts', 'dur', 'pid', 'tid', 'args'}, event.keys())
            self.assertEqual(('X', os.getpid(), {}), (event['ph'], event['pid'], event['args']))
            self.assertIsInstance(event['ts'], float)
            self.assertGreaterEqual(event['dur'], 0)
            self.assertIs(int, type(event['tid']))

    def test_times_are_in_microseconds(self) -> None:
        timeline = Timeline(str(self.file))
        span = Span('call', None)
        timeline.enter(span)
        timeline.exit(end(span, 2_500))
        timeline.stop()
        event, = self.events()
        self.assertEqual((span.start_ns / 1000, 2.5), (event['ts'], event['dur']))

    def test_a_call_lies_within_the_one_around_it(self) -> None:
        with self.drawing():
            outer()
        first, second, around = self.events()
        self.assertLessEqual(around['ts'], first['ts'])
        self.assertLessEqual(first['ts'] + first['dur'], second['ts'])
        self.assertLessEqual(second['ts'] + second['dur'], around['ts'] + around['dur'] + 0.001)

    def test_the_newest_spans_are_kept(self) -> None:
        """As many as there may be; the report says how many there were."""
        with self.drawing(max_events=2):
            renamed()
            outer()
        self.assertEqual(['add', 'outer'], [event['name'] for event in self.events()])
        self.assertEqual(f'Timeline\n2 of 4 spans written to {self.file}', self.logged)

    def test_one_span_may_be_all(self) -> None:
        with self.drawing(max_events=1):
            outer()
        self.assertEqual(['outer'], [event['name'] for event in self.events()])

    def test_with_no_span_the_file_of_another_run_is_left_alone(self) -> None:
        self.file.write_text('earlier', encoding='utf-8')
        with self.assertNoLogs(LOGGER), collecting([Timeline(str(self.file))], LOGGER):
            pass
        self.assertEqual('earlier', self.file.read_text(encoding='utf-8'))

    def test_an_error_is_named(self) -> None:
        with self.drawing():
            fail_quietly()
        self.assertEqual({'error': 'LookupError'}, self.events()[0]['args'])

    def test_nested_calls_share_a_track(self) -> None:
        with self.drawing():
            outer()
        self.assertEqual({1}, {event['tid'] for event in self.events()})

    async def test_tasks_side_by_side_have_tracks_of_their_own(self) -> None:
        """What a task calls is on its own track."""
        with self.drawing():
            barrier = asyncio.Barrier(3)
            await asyncio.gather(*(meet(barrier) for _ in range(3)))
        self.assertEqual({1, 2, 3}, set(self.tracks('meet')))
        self.assertEqual(self.tracks('meet'), self.tracks('add'))

    async def test_tasks_one_after_another_share_a_track(self) -> None:
        with self.drawing():
            for _ in range(3):
                await asyncio.create_task(meet(asyncio.Barrier(1)))
        self.assertEqual([1, 1, 1], self.tracks('meet'))

    async def test_the_lowest_free_track_is_used_again(self) -> None:
        """One that is still in use is not."""
        with self.drawing():
            events = [asyncio.Event() for _ in range(3)]
            tasks = [asyncio.create_task(wait_for(event)) for event in events]
            await asyncio.sleep(0)
            for number in (0, 1):
                events[number].set()
                await tasks[number]
            await asyncio.create_task(meet(asyncio.Barrier(1)))
            barrier = asyncio.Barrier(3)
            await asyncio.gather(*(meet(barrier) for _ in range(3)))
            events[2].set()
            await tasks[2]
        self.assertEqual([1, 2, 3], self.tracks('wait for'))
        first, *others = self.tracks('meet')
        self.assertEqual((1, [1, 2, 4]), (first, sorted(others)))

    def test_a_file_that_cannot_be_written_is_logged(self) -> None:
        """The program ends as it would have."""
        timeline = Timeline(str(self.file / 'no' / 'folder'))
        with self.assertLogs(LOGGER) as caught, collecting([timeline], LOGGER):
            add(1)
        self.assertEqual(['Timeline failed', 'Timeline failed 1 times'],
                         [record.getMessage() for record in caught.records])


if __name__ == '__main__':
    unittest.main()
