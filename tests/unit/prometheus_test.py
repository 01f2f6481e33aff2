"""The Prometheus collector: what it counts, how it answers, how workers share their figures."""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final
from unittest import mock

from prometheus_client import values
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from addrservice.collectors.prometheus import PrometheusCollector, exposition
from addrservice.collectors.prometheus.collector import TOGETHER
from addrservice.collectors.prometheus.metrics import WATCHED
from addrservice.collectors.prometheus.pulse import Pulse
from addrservice.errors import (
    InvalidEntryError, InvalidJSONError, InvalidParameterError, KeyReusedError, NicknameTakenError,
    NothingDoneError, OutcomeUnknownError, PreconditionFailedError, StoreError,
    StoreMisconfiguredError, StoreOverloadedError, UnknownNicknameError, Violation,
)
from addrservice.tracing import Span
from tests.support import DEADLINE

OPENMETRICS: Final = 'application/openmetrics-text;version=1.0.0'
TRACE: Final = '0af7651916cd43dd8448eb211c80319c'
MS: Final = 1_000_000  # nanoseconds

# What Prometheus 2.42 and 3.1 send.
SCRAPERS: Final = (
    'application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,'
    'text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
    'application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,'
    'application/openmetrics-text;version=0.0.1;q=0.5,'
    'text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2',
)


def request(
    method: str = 'GET',
    route: str | None = '/addressbook/{id}',
    status: int = 200,
    milliseconds: float = 3,
    received: int = 0,
    sent: int = 0,
    error: BaseException | None = None,
) -> Span:
    """The span of a request, ended."""
    span = Span(f'{method} {route}', None, 'server')
    span.attributes.update({
        'http.request.method': method, 'http.response.status_code': status,
        'http.request.body.size': received, 'http.response.body.size': sent,
        'url.path': '/secret/path', **({'http.route': route} if route else {})})
    span.error = error
    span.end_ns = span.start_ns + int(milliseconds * MS)
    return span


def operation(name: str, error: BaseException | None = None) -> Span:
    """The span of an operation of the store, which took 40 ms."""
    span = Span(name, None, 'store')
    span.error = error
    span.end_ns = span.start_ns + 40 * MS
    return span


def traced(span: Span, flags: str | None) -> Span:
    """The same with the trace of another collector, which has answered those flags if any."""
    span.trace_id = TRACE
    span.traceresponse = None if flags is None else f'00-{TRACE}-b7ad6b7169203331-{flags}'
    return span


def pass_through(collector: PrometheusCollector, *spans: Span) -> None:
    for span in spans:
        collector.enter(span)
        collector.exit(span)


def scrape(collector: PrometheusCollector, accept: str = '') -> list[Sample]:
    """All samples of an answer, which has to be in the form that it says."""
    media_type, body = collector.expose(accept)
    parse = parse_openmetrics if media_type.startswith('application/openmetrics') else parse_text
    return [sample for family in parse(body.decode()) for sample in family.samples]


def value(collector: PrometheusCollector, name: str, **labels: str) -> float | None:
    """The one sample of that name and those labels; None if it is not there."""
    found = [sample.value for sample in scrape(collector)
             if sample.name == name and sample.labels == labels]
    assert len(found) < 2, f'{name}{labels} is there twice'
    return found[0] if found else None


def traces(collector: PrometheusCollector, name: str) -> dict[str, str]:
    """The traces that samples of that name have for exemplars, by bucket or status."""
    return {sample.labels.get('le', sample.labels.get('status', '')):
            sample.exemplar.labels['trace_id']
            for sample in scrape(collector, OPENMETRICS)
            if sample.name == name and sample.exemplar is not None}


class CollectorTestCase(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.addCleanup(setattr, values, 'ValueClass', values.ValueClass)

    async def asyncSetUp(self) -> None:
        # In debug mode the event loop complains when it is busy.
        asyncio.get_running_loop().set_debug(False)

    def start(self) -> PrometheusCollector:
        """A collector at work, until the test ends."""
        collector = PrometheusCollector()
        collector.start()
        self.addCleanup(collector.stop)
        return collector


class RequestsTest(CollectorTestCase):
    async def test_requests_count_by_method_route_and_status(self) -> None:
        collector = self.start()
        pass_through(collector, request(), request(), request(status=404), request('PUT'))
        name, route = 'addrservice_http_requests_total', '/addressbook/{id}'
        self.assertEqual(2, value(collector, name, method='GET', route=route, status='200'))
        self.assertEqual(1, value(collector, name, method='GET', route=route, status='404'))
        self.assertEqual(1, value(collector, name, method='PUT', route=route, status='200'))

    async def test_a_path_without_a_route_is_unmatched_and_never_told(self) -> None:
        collector = self.start()
        pass_through(collector, request('_OTHER', None, 404))
        self.assertEqual(1, value(collector, 'addrservice_http_requests_total',
                                  method='_OTHER', route='unmatched', status='404'))
        self.assertNotIn(b'secret', collector.expose('')[1])

    async def test_durations_fall_into_buckets_whose_bounds_belong_to_them(self) -> None:
        collector = self.start()
        pass_through(collector, request(milliseconds=1), request(milliseconds=249),
                     request(milliseconds=250), request(milliseconds=20_000))
        name = 'addrservice_http_request_duration_seconds'
        labels = {'method': 'GET', 'route': '/addressbook/{id}'}
        found = {bound: value(collector, f'{name}_bucket', le=bound, **labels)
                 for bound in ('0.001', '0.1', '0.25', '10.0', '+Inf')}
        self.assertEqual({'0.001': 1, '0.1': 1, '0.25': 3, '10.0': 3, '+Inf': 4}, found)
        self.assertEqual(4, value(collector, f'{name}_count', **labels))
        self.assertAlmostEqual(20.5, value(collector, f'{name}_sum', **labels) or 0)

    async def test_the_bytes_of_bodies_add_up(self) -> None:
        collector = self.start()
        pass_through(collector, request('PUT', received=700, sent=3), request('PUT', received=1))
        labels = {'method': 'PUT', 'route': '/addressbook/{id}'}
        self.assertEqual(
            701, value(collector, 'addrservice_http_request_body_bytes_total', **labels))
        self.assertEqual(
            3, value(collector, 'addrservice_http_response_body_bytes_total', **labels))

    async def test_calls_and_statements_do_not_count(self) -> None:
        collector = self.start()
        before = {sample.name for sample in scrape(collector)}
        self.assertEqual({'store'}, collector.follows(request()))
        pass_through(collector, Span('f', None), Span('SELECT addresses', None, 'client'))
        self.assertEqual(before, {sample.name for sample in scrape(collector)})


class RefusalsTest(CollectorTestCase):
    async def refusals(self, *spans: Span) -> dict[str, float]:
        """The reasons that were counted."""
        collector = self.start()
        pass_through(collector, *spans)
        return {sample.labels['reason']: sample.value for sample in scrape(collector)
                if sample.name == 'addrservice_entries_refused_total' and sample.value}

    async def test_an_entry_is_refused_for_a_reason(self) -> None:
        where = [Violation('', 'why')]
        for method, status, error, reason in (
            ('POST', 400, InvalidJSONError('why'), 'invalid_json'),
            ('PUT', 400, InvalidEntryError(where), 'schema'),
            ('POST', 400, InvalidParameterError('Idempotency-Key', 'why'), 'invalid_parameter'),
            ('POST', 400, ValueError(), 'malformed'),
            ('POST', 401, None, 'unauthenticated'),
            ('POST', 403, None, 'forbidden'),
            ('PATCH', 404, UnknownNicknameError('x'), 'unknown'),
            ('POST', 406, None, 'not_acceptable'),
            ('POST', 408, None, 'incomplete'),
            ('POST', 409, NicknameTakenError('x'), 'taken'),
            ('PUT', 412, PreconditionFailedError('x'), 'precondition'),
            ('POST', 413, None, 'too_large'),
            ('POST', 415, None, 'media_type'),
            ('POST', 417, None, 'expectation'),
            ('POST', 422, KeyReusedError(), 'key_reused'),
            ('POST', 429, None, 'throttled'),
            ('POST', 418, None, 'other'),
        ):
            with self.subTest(reason):
                span = request(method, status=status, error=error)
                self.assertEqual({reason: 1}, await self.refusals(span))

    async def test_nothing_else_is_a_refusal(self) -> None:
        for what, span in (
            ('taken', request('POST', status=201)),
            ('the client went away', request('POST', status=499)),
            ('the service failed', request('POST', status=503)),
            ('no entry was sent', request('DELETE', status=412)),
            ('no such path', request('POST', None, 404)),
        ):
            with self.subTest(what):
                self.assertEqual({}, await self.refusals(span))

    async def test_each_reason_is_there_before_it_happens_for_else_its_increase_is_not_seen(
        self
    ) -> None:
        collector = self.start()
        self.assertEqual(
            0, value(collector, 'addrservice_entries_refused_total', reason='key_reused'))


class StoreTest(CollectorTestCase):
    async def test_operations_count_by_name_and_outcome_and_take_time(self) -> None:
        collector = self.start()
        for error, outcome in (
            (None, 'ok'),
            (UnknownNicknameError('x'), 'refused'),
            (NothingDoneError('x'), 'unavailable'),
            (StoreOverloadedError('x'), 'overloaded'),
            (OutcomeUnknownError('x'), 'outcome_unknown'),
            (StoreMisconfiguredError('x'), 'misconfigured'),
            (asyncio.CancelledError(), 'cancelled'),
            (StoreError('x'), 'error'),
            (ZeroDivisionError(), 'error'),
        ):
            with self.subTest(outcome):
                name = f'read {type(error).__name__}'
                pass_through(collector, operation(name, error), operation(name, error))
                labels = {'operation': name, 'outcome': outcome}
                metric = 'addrservice_store_operation_duration_seconds'
                self.assertEqual(2, value(collector, f'{metric}_count', **labels))
                self.assertAlmostEqual(.08, value(collector, f'{metric}_sum', **labels) or 0)

    async def test_values_to_watch_are_read_when_somebody_asks(self) -> None:
        collector = self.start()
        free = [3]
        collector.watch('store_connections_free', lambda: free[0])
        self.assertEqual(3, value(collector, 'addrservice_store_connections_free'))
        free[0] = 2
        self.assertEqual(2, value(collector, 'addrservice_store_connections_free'))

    async def test_what_nobody_offers_to_watch_is_no_metric_and_what_nobody_declared_neither(
        self
    ) -> None:
        collector = self.start()
        collector.watch('moon_phase', lambda: 1)
        text = collector.expose('')[1].decode()
        for name in (*WATCHED, 'moon_phase'):
            self.assertNotIn(name, text)


class ProcessTest(CollectorTestCase):
    async def test_the_process_tells_what_it_is_and_what_it_takes_up(self) -> None:
        collector = self.start()
        build, = [sample for sample in scrape(collector) if sample.name == 'addrservice_build_info']
        self.assertEqual((1, {'version', 'python', 'tornado'}), (build.value, set(build.labels)))
        self.assertEqual(1, value(collector, 'addrservice_workers'))
        self.assertEqual(1, value(collector, 'addrservice_worker_starts_total'))
        self.assertEqual(0, value(collector, 'addrservice_worker_crashes_total'))
        pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
        self.assertAlmostEqual(
            1, (value(collector, 'process_resident_memory_bytes') or 0) / pages / 4096, delta=.1)
        self.assertLess(2, value(collector, 'process_open_fds') or 0)
        self.assertLess(
            abs((value(collector, 'process_start_time_seconds') or 0) - time.time()), 3600)

    async def test_processor_time_only_grows(self) -> None:
        collector = self.start()
        before = value(collector, 'process_cpu_seconds_total') or 0
        sum(range(1_000_000))
        after = value(collector, 'process_cpu_seconds_total') or 0
        self.assertLess(0, after - before)
        self.assertAlmostEqual(time.process_time(), after, delta=.1)

    async def test_where_the_system_tells_nothing_there_are_no_figures_of_it(self) -> None:
        collector = self.start()
        with mock.patch.object(exposition, 'ProcessCollector') as system:
            system.return_value.collect.return_value = []
            self.assertIsNone(value(collector, 'process_resident_memory_bytes'))

    async def test_an_event_loop_that_was_busy_is_late_for_all_that_fell_due_meanwhile(
        self
    ) -> None:
        delays: list[float] = []
        told = asyncio.Event()
        given: list[None] = []
        pulse = Pulse(delays.append, lambda: given.append(None), told.set)
        pulse.start()
        time.sleep(.55)  # not asyncio's: the loop must be busy
        while not delays:
            await asyncio.sleep(0)
        late = sorted(delays)
        async with asyncio.timeout(DEADLINE):
            await told.wait()
        pulse.stop()
        self.assertEqual(5, len(late))
        for expected, delay in zip((.05, .15, .25, .35, .45), late, strict=True):
            self.assertAlmostEqual(expected, delay, delta=.04)
        self.assertLess(max(delays[5:]), .2)
        self.assertLessEqual(10, len(given))  # at each timer, and told at the tenth

    async def test_the_collector_feels_the_pulse_until_it_is_stopped(self) -> None:
        collector = PrometheusCollector()
        collector.start()
        name = 'addrservice_event_loop_delay_seconds_count'
        async with asyncio.timeout(DEADLINE):
            while not value(collector, name):
                await asyncio.sleep(.01)
        collector.stop()
        self.assertEqual(value(collector, name), await self.later(collector, name))

    async def later(self, collector: PrometheusCollector, name: str) -> float | None:
        """The value three beats later."""
        await asyncio.sleep(.3)
        return value(collector, name)


class AnswerTest(CollectorTestCase):
    async def test_a_scraper_gets_openmetrics_if_it_names_it_and_text_otherwise(self) -> None:
        collector = self.start()
        pass_through(collector, request())
        for accept, wanted in (
            *[(accept, True) for accept in SCRAPERS],
            ('application/openmetrics-text', True),
            ('Application/OpenMetrics-Text; version=1.0.0 ; charset=utf-8', True),
            ('', False),
            ('*/*', False),
            ('text/plain;version=0.0.4', False),
            ('application/openmetrics-text; version=0.0.1', False),
            ('application/openmetrics-text;version=2.0.0', False),
            ('application/openmetrics-text;version=x', False),
            ('application/openmetrics-text;q=0, text/plain', False),
        ):
            with self.subTest(accept):
                media_type, body = collector.expose(accept)
                self.assertEqual(
                    'application/openmetrics-text; version=1.0.0; charset=utf-8' if wanted else
                    'text/plain; version=0.0.4; charset=utf-8', media_type)
                self.assertEqual(wanted, body.endswith(b'# EOF\n'))

    async def test_no_series_tells_when_another_one_began(self) -> None:
        collector = self.start()
        pass_through(collector, request(), operation('read'))
        self.assertNotIn(b'_created', collector.expose('')[1] + collector.expose(OPENMETRICS)[1])

    async def test_the_newest_trace_that_was_kept_is_the_exemplar_of_its_bucket_and_count(
        self
    ) -> None:
        collector = self.start()
        pass_through(
            collector, request(milliseconds=3), traced(request(milliseconds=4), '01'),
            traced(request(milliseconds=2_000, status=503), '03'),
            traced(request(milliseconds=20, status=404), '00'),
            traced(request(milliseconds=20, status=404), None))
        self.assertEqual({'0.005': TRACE, '2.5': TRACE},
                         traces(collector, 'addrservice_http_request_duration_seconds_bucket'))
        self.assertEqual({'200': TRACE, '503': TRACE},
                         traces(collector, 'addrservice_http_requests_total'))
        self.assertNotIn(TRACE.encode(), collector.expose('')[1])

    async def test_a_trace_that_nobody_kept_is_no_exemplar(self) -> None:
        collector = self.start()
        pass_through(collector, traced(request(), '00'))
        self.assertEqual({}, traces(collector, 'addrservice_http_requests_total'))


class CountingTest(CollectorTestCase):
    """What has ended is counted some at a time, and whenever the figures are asked for."""

    def counted(self, collector: PrometheusCollector) -> float:
        return sum(sample.value for sample in scrape(collector)
                   if sample.name == 'addrservice_http_requests_total')

    async def test_what_has_ended_does_not_pile_up(self) -> None:
        collector = self.start()
        pass_through(collector, *(request() for _ in range(TOGETHER + 1)))
        self.assertEqual(1, len(collector._ended))
        self.assertEqual(TOGETHER + 1, self.counted(collector))

    async def test_what_cannot_be_counted_loses_nothing_else(self) -> None:
        collector = self.start()
        odd = Span('GET /', None, 'server')  # without attributes
        pass_through(collector, request(), odd, request())
        with self.assertRaises(KeyError):
            collector.expose('')
        self.assertEqual(2, self.counted(collector))

    async def test_nothing_is_lost_where_it_is_counted_while_more_ends(self) -> None:
        collector = self.start()
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        spans = [request() for _ in range(5_000)]
        with ThreadPoolExecutor(1) as pool:
            passing = pool.submit(pass_through, collector, *spans)
            while not passing.done():
                collector._give_on()
        self.assertEqual(len(spans), self.counted(collector))

    async def test_who_gives_on_waits_for_another_who_does_for_else_its_answer_would_lack_that(
        self
    ) -> None:
        collector = self.start()
        begun, may_end = threading.Event(), threading.Event()
        count = collector._requests.count

        def count_slowly(span: Span) -> None:
            begun.set()
            may_end.wait(DEADLINE)
            count(span)

        pass_through(collector, request())
        with (mock.patch.object(collector._requests, 'count', count_slowly),
              ThreadPoolExecutor(2) as pool):
            first = pool.submit(collector._give_on)
            begun.wait(DEADLINE)
            second = pool.submit(collector._give_on)
            self.assertEqual({first, second}, wait([first, second], .05).not_done)
            # The event loop does not: it leaves what has ended to them.
            pass_through(collector, *(request() for _ in range(TOGETHER)))
            may_end.set()
        self.assertEqual(TOGETHER + 1, self.counted(collector))


class WorkersTest(CollectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def worker(self, slot: int, in_flight: int = 0) -> PrometheusCollector:
        """A worker's collector at work. What it has not counted before the next, it must not.

        :param in_flight: requests that it works on
        """
        with mock.patch.dict(os.environ, {
            'PROMETHEUS_MULTIPROC_DIR': str(self.folder), 'ADDRSERVICE_WORKER_SLOT': str(slot),
        }):
            collector = PrometheusCollector()
            collector.watch('http_requests_in_flight', lambda: in_flight)
            pass_through(collector, request(), operation('read'))
            collector._give_on()  # so that all files are made
        # The library's own, and it has no types.
        self.addCleanup(values.ValueClass.close_all_files)
        collector.start()
        self.addCleanup(collector.stop)
        return collector

    def kill(self, slot: int) -> None:
        """Has the worker gone without a word, as far as others can see."""
        with subprocess.Popen(['true']) as process:
            pass
        (self.folder / f'pid_{slot}').write_text(str(process.pid), encoding='ascii')

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def requests(self, collector: PrometheusCollector) -> float | None:
        return value(collector, 'addrservice_http_requests_total',
                     method='GET', route='/addressbook/{id}', status='200')

    async def test_each_worker_answers_for_all(self) -> None:
        first = self.worker(0)
        pass_through(first, request(), request())
        first._give_on()
        second = self.worker(1)
        for worker in first, second:
            self.assertEqual(4, self.requests(worker))
            self.assertEqual(2, value(worker, 'addrservice_worker_starts_total'))
            self.assertEqual(4, value(worker, 'addrservice_http_request_duration_seconds_bucket',
                                      method='GET', route='/addressbook/{id}', le='0.005'))

    async def test_what_a_worker_counts_is_there_for_the_others_at_its_next_beat(self) -> None:
        first, second = self.worker(0), self.worker(1)
        self.assertEqual(2, self.requests(second))
        pass_through(first, request())
        async with asyncio.timeout(DEADLINE):
            while self.requests(second) != 3:
                await asyncio.sleep(.01)

    async def test_what_workers_are_doing_adds_up_when_they_have_told(self) -> None:
        first = self.worker(0, in_flight=1)
        first.watch('store_connections_free', lambda: 3)
        second = self.worker(1, in_flight=1)
        second.watch('store_connections_free', lambda: 4)
        first._tell()
        self.assertEqual(2, value(second, 'addrservice_http_requests_in_flight'))
        self.assertEqual(7, value(second, 'addrservice_store_connections_free'))

    async def test_a_worker_that_replaces_another_goes_on_counting_in_the_same_files(self) -> None:
        self.worker(0)
        files = self.files()
        for restarts in range(1, 4):
            self.kill(0)
            worker = self.worker(0)
            self.assertEqual(1 + restarts, self.requests(worker))
            self.assertEqual(restarts, value(worker, 'addrservice_worker_crashes_total'))
            self.assertEqual(1 + restarts, value(worker, 'addrservice_worker_starts_total'))
        self.assertEqual(files, self.files())

    async def test_what_a_dead_worker_did_is_over_but_what_it_counted_stays(self) -> None:
        first = self.worker(0, in_flight=1)
        first._tell()
        second = self.worker(1)
        self.assertEqual(1, value(second, 'addrservice_http_requests_in_flight'))
        self.kill(0)
        self.assertEqual(0, value(second, 'addrservice_http_requests_in_flight'))
        self.assertEqual(2, self.requests(second))
        self.worker(0)
        self.assertEqual(0, value(second, 'addrservice_http_requests_in_flight'))

    async def test_a_worker_that_has_drained_is_no_crash_and_no_worker(self) -> None:
        first = self.worker(0)
        second = self.worker(1)
        pids = len(list(self.folder.glob('pid_*')))
        first.stop()
        self.assertEqual((2, ['pid_1']), (pids, [path.name for path in self.folder.glob('pid_*')]))
        self.assertEqual(1, value(second, 'addrservice_workers'))
        self.assertEqual(0, value(self.worker(0), 'addrservice_worker_crashes_total'))

    async def test_a_crash_counts_once_whoever_comes_next(self) -> None:
        self.worker(0)
        self.kill(0)
        self.worker(1)
        last = self.worker(2)
        self.assertEqual(1, value(last, 'addrservice_worker_crashes_total'))

    async def test_a_crash_that_two_see_counts_for_the_one_that_clears_it_away(self) -> None:
        self.worker(0)
        self.kill(0)
        unlink = Path.unlink

        def unlink_behind_another(path: Path, *arguments: Any) -> None:
            unlink(path)
            unlink(path, *arguments)

        with mock.patch.object(Path, 'unlink', unlink_behind_another):
            worker = self.worker(1)
        self.assertEqual(0, value(worker, 'addrservice_worker_crashes_total'))

    async def test_exemplars_of_all_workers_are_told_the_newest_of_each(self) -> None:
        first = self.worker(0)
        pass_through(first, traced(request(), '01'), traced(request(status=503), '01'))
        second = self.worker(1)
        later = traced(request(), '01')
        later.trace_id = TRACE[::-1]
        pass_through(second, later)
        self.assertEqual({'200': TRACE[::-1]}, traces(second, 'addrservice_http_requests_total'))
        first._tell()
        self.assertEqual({'200': TRACE[::-1], '503': TRACE},
                         traces(second, 'addrservice_http_requests_total'))
        self.assertEqual({'0.005': TRACE[::-1]},
                         traces(second, 'addrservice_http_request_duration_seconds_bucket'))

    async def test_exemplars_are_written_when_there_are_new_ones(self) -> None:
        worker, file = self.worker(0), self.folder / 'exemplars_0.json'
        worker._tell()
        self.assertFalse(file.exists())
        for _ in range(2):
            pass_through(worker, traced(request(), '01'))
            worker._tell()
            self.assertTrue(file.exists())
            file.unlink()
            worker._tell()
            self.assertFalse(file.exists())

    async def test_figures_of_the_system_are_those_of_all_workers_or_the_worst(self) -> None:
        worker = self.worker(0)
        alone = value(worker, 'process_resident_memory_bytes') or 0
        self.worker(1)  # the same process, as far as the system can tell
        self.assertEqual(2, value(worker, 'addrservice_workers'))
        self.assertAlmostEqual(
            2, (value(worker, 'process_resident_memory_bytes') or 0) / alone, delta=.1)
        self.assertAlmostEqual(
            value(worker, 'process_open_fds') or 0, len(os.listdir('/proc/self/fd')), delta=2)

    async def test_a_file_that_is_just_being_made_or_removed_is_passed_over(self) -> None:
        worker = self.worker(0)
        (self.folder / 'counter_7.db').touch()
        (self.folder / 'histogram_7.db').symlink_to(self.folder / 'gone')
        (self.folder / 'pid_7').symlink_to(self.folder / 'gone')
        self.assertEqual(1, self.requests(worker))

    async def test_a_folder_that_cannot_be_used_is_refused_by_its_name(self) -> None:
        self.folder = self.folder / 'gone'
        with self.assertRaisesRegex(ValueError, 'PROMETHEUS_MULTIPROC_DIR: .*/gone'):
            self.worker(0)

    async def test_a_process_alone_keeps_its_figures_to_itself_whatever_the_operator_has_set(
        self
    ) -> None:
        self.worker(0)
        files = self.files()
        with mock.patch.dict(os.environ, {'PROMETHEUS_MULTIPROC_DIR': str(self.folder)}):
            collector = self.start()
            pass_through(collector, traced(request(), '01'))
            collector._tell()
            self.assertEqual(1, self.requests(collector))
        self.assertEqual(files, self.files())
