"""Traces: what a span says, which are kept, what becomes of them when nobody takes them."""

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import requests
from opentelemetry.exporter.otlp.proto.common._internal import trace_encoder
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as PB2Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, get_tracer_provider
from tornado.httputil import HTTPHeaders

from addrservice import __version__
from addrservice.collectors.opentelemetry import OpenTelemetryCollector, _Sender
from addrservice.collectors.opentelemetry.export import FEW, PAUSE, Account, CountingExporter
from addrservice.errors import StoreUnavailableError, UnknownNicknameError
from addrservice.tracing import AbstractTraceCollector, Kind, Span, create_collector
from tests.otlp import Receiver, closed_url, in_python
from tests.support import ROOT, wait_until

PATH: Final = 'addrservice.collectors.opentelemetry.OpenTelemetryCollector'
LOGGER: Final = 'addrservice.opentelemetry'
TRACE_ID: Final = '4bf92f3577b34da6a3ce929d0e0e4736'
SPAN_ID: Final = '00f067aa0ba902b7'
SAMPLED: Final = {'traceparent': f'00-{TRACE_ID}-{SPAN_ID}-01'}
UNSAMPLED: Final = {'traceparent': f'00-{TRACE_ID}-{SPAN_ID}-00'}


class TracesTestCase(unittest.TestCase):
    def setUp(self) -> None:
        ours = {name: value for name, value in os.environ.items()
                if not name.startswith('OTEL_') and not name.lower().endswith('_proxy')}
        environment = patch.dict(os.environ, ours, clear=True)
        environment.start()
        self.addCleanup(environment.stop)
        self.receiver = Receiver()
        self.addCleanup(self.receiver.close)

    def collector(self, **settings: Any) -> AbstractTraceCollector:
        """One that keeps all traces and sends them to the receiver, unless told otherwise."""
        told = {'endpoint': self.receiver.url, 'sampling': 1.0, 'timeout': 0.5, **settings}
        collector = create_collector(
            PATH, {name: value for name, value in told.items() if value is not None})
        collector.start()
        self.addCleanup(collector.stop)
        return collector

    def received(self) -> ScopeSpans:
        """All of the one export that has come, as protobuf has it."""
        body, = self.receiver.bodies
        group, = ExportTraceServiceRequest.FromString(body).resource_spans
        spans: ScopeSpans
        spans, = group.scope_spans
        return spans

    def request(
        self,
        collector: AbstractTraceCollector,
        carrier: Mapping[str, str] | None = None,
        status: int = 200,
        error: BaseException | None = None,
    ) -> Span:
        """One request, from its entry to its exit."""
        span = Span('GET /addressbook/{id}', None, 'server', HTTPHeaders(carrier or {}))
        collector.enter(span)
        span.attributes['http.response.status_code'] = status
        return leave(collector, span, error)


def enter(
    collector: AbstractTraceCollector, name: str, parent: Span | None, kind: Kind = 'internal'
) -> Span:
    span = Span(name, parent, kind)
    collector.enter(span)
    return span


def leave(
    collector: AbstractTraceCollector, span: Span, error: BaseException | None = None
) -> Span:
    span.error = error
    span.end_ns = time.perf_counter_ns()
    collector.exit(span)
    return span


class SpansTest(TracesTestCase):
    def test_a_request_and_what_it_called_arrive_as_one_trace(self) -> None:
        collector = self.collector()
        before = time.time_ns()
        request = enter(collector, 'GET', None, 'server')
        call = enter(collector, 'AddressBookService.get_address', request)
        operation = enter(collector, 'read', call, 'store')
        statement = enter(collector, 'SELECT addresses', operation, 'client')
        statement.attributes['db.query.text'] = 'SELECT entry FROM addresses WHERE id = $1'
        for span in (statement, operation, call):
            leave(collector, span)
        request.name = 'GET /addressbook/{id}'
        request.attributes.update({'http.route': '/addressbook/{id}', 'http.request.body.size': 7})
        leave(collector, request)
        after = time.time_ns()

        self.assertEqual('4 spans exported, 0 dropped', collector.stop())
        spans = [self.receiver.span(name) for name in (
            'GET /addressbook/{id}', 'AddressBookService.get_address', 'read', 'SELECT addresses')]
        self.assertEqual(['server', 'internal', 'internal', 'client'],
                         [span.kind for span in spans])
        self.assertEqual(['', *(span.span_id for span in spans[:-1])],
                         [span.parent_id for span in spans])
        self.assertEqual({request.trace_id}, {span.trace_id for span in spans})
        self.assertEqual({'http.route': '/addressbook/{id}', 'http.request.body.size': 7},
                         spans[0].attributes)
        self.assertEqual({'db.query.text': 'SELECT entry FROM addresses WHERE id = $1'},
                         spans[3].attributes)
        moments = [before, *(span.start_ns for span in spans),
                   *(span.end_ns for span in reversed(spans)), after]
        self.assertEqual(sorted(moments), moments)
        self.assertEqual([span.duration_ns for span in (request, call, operation, statement)],
                         [span.end_ns - span.start_ns for span in spans])

    def test_a_request_is_told_its_trace(self) -> None:
        """For the log; where it is kept, for the client too (W3C Trace Context, level 2)."""
        kept, left = (self.request(self.collector(sampling=sampling)) for sampling in (1.0, 0.0))
        self.assertRegex(kept.traceresponse or '',
                         rf'\A00-{kept.trace_id}-[0-9a-f]{{16}}-03\Z')
        self.assertIsNone(left.traceresponse)
        for span in (kept, left):
            self.assertRegex(span.trace_id or '', r'\A[0-9a-f]{32}\Z')

    def test_the_share_that_is_kept_goes_by_the_trace_id(self) -> None:
        """So that services with the same share keep the same traces."""
        collector = self.collector(sampling=0.25)
        requests = [self.request(collector) for _ in range(200)]
        collector.stop()
        expected = {span.trace_id for span in requests
                    if int(str(span.trace_id)[16:], 16) < 2**64 / 4}
        self.assertEqual(expected, {span.trace_id for span in self.receiver.spans})
        self.assertEqual(expected, {span.trace_id for span in requests
                                    if str(span.traceresponse).endswith('-03')})
        self.assertTrue(22 <= len(expected) <= 100, len(expected))  # 50, by chance

    def test_what_starts_before_any_request_is_a_trace_of_its_own(self) -> None:
        collector = self.collector()
        leave(collector, enter(collector, 'AddressBookService.start', None))
        collector.stop()
        self.assertEqual('internal', self.receiver.span('AddressBookService.start').kind)

    def test_nothing_inside_a_trace_that_is_not_kept_is_sent(self) -> None:
        collector = self.collector(sampling=0)
        request = enter(collector, 'GET', None, 'server')
        leave(collector, enter(collector, 'read', request, 'store'))
        leave(collector, request)
        self.assertIsNone(collector.stop())
        self.assertEqual(0, self.receiver.requests)

    def test_it_wants_to_know_what_happens_inside_of_what_is_kept_alone(self) -> None:
        collector = self.collector()
        for carrier, kinds in ((SAMPLED, {'internal', 'store', 'client'}), (UNSAMPLED, set())):
            request = Span('GET', None, 'server', HTTPHeaders(carrier))
            collector.enter(request)
            self.assertEqual(kinds, collector.follows(request))

    def test_the_user_agent_of_a_request_is_an_attribute(self) -> None:
        collector = self.collector()
        self.request(collector, {'User-Agent': 'wrk'})
        collector.stop()
        self.assertEqual('wrk', self.receiver.spans[0].attributes['user_agent.original'])

    def test_a_call_that_begins_after_its_request_has_ended_is_left_out(self) -> None:
        collector = self.collector()
        request = self.request(collector)
        leave(collector, enter(collector, 'late', request))
        self.assertEqual('1 spans exported, 0 dropped', collector.stop())

    def test_an_attribute_that_is_set_after_the_end_is_left_out(self) -> None:
        collector = self.collector()
        span = self.request(collector)
        span.attributes['late'] = 1
        collector.stop()
        self.assertEqual({'http.response.status_code': 200}, self.receiver.spans[0].attributes)

    def test_a_span_that_waits_to_be_sent_keeps_nothing_of_its_request_alive(self) -> None:
        """A request holds its connection, an exception the frames that it went through."""
        collector = self.collector()
        error = StoreUnavailableError('no')
        request = Span('GET', None, 'server', HTTPHeaders(SAMPLED))
        collector.enter(request)
        leave(collector, enter(collector, 'read', request, 'store'), error)
        request.attributes['http.response.status_code'] = 503
        leave(collector, request, error)
        held: list[weakref.ref[Any]] = [weakref.ref(request.carrier), weakref.ref(error)]
        del request, error
        self.assertEqual([None, None], [reference() for reference in held])
        self.assertEqual('2 spans exported, 0 dropped', collector.stop())

    def test_the_scope_is_the_service_in_its_version(self) -> None:
        collector = self.collector()
        self.request(collector)
        collector.stop()
        scope = self.received().scope
        self.assertEqual(('addrservice', __version__), (scope.name, scope.version))

    def test_the_global_provider_is_left_alone(self) -> None:
        before = get_tracer_provider()
        self.request(self.collector())
        self.assertIs(before, get_tracer_provider())


class OutcomeTest(TracesTestCase):
    def test_a_request_has_failed_when_its_status_is_5xx(self) -> None:
        collector = self.collector()
        unavailable = StoreUnavailableError('no, Namo, not now')
        for status, error, expected in (
            (200, None, (None, False)),
            (404, UnknownNicknameError('who is Namo?'), (None, False)),
            (499, ConnectionError(), (None, False)),
            (503, unavailable, ('addrservice.errors.StoreUnavailableError', True)),
            (503, None, ('503', True)),
            (500, ZeroDivisionError('Namo'), ('ZeroDivisionError', True)),
        ):
            with self.subTest(status=status, error=error):
                self.request(collector, None, status, error)
        collector.stop()
        self.assertEqual(
            [(None, False)] * 3 + [
                ('addrservice.errors.StoreUnavailableError', True), ('503', True),
                ('ZeroDivisionError', True)],
            [(span.attributes.get('error.type'), span.is_failure)
             for span in self.receiver.spans])
        self.assertNotIn(b'Namo', b''.join(self.receiver.bodies))

    def test_an_inner_call_has_failed_unless_it_only_refused(self) -> None:
        collector = self.collector()
        for error in (None, UnknownNicknameError('who?'), StoreUnavailableError('no'), OSError()):
            leave(collector, enter(collector, 'read', None, 'store'), error)
        collector.stop()
        self.assertEqual(
            [(None, False), ('addrservice.errors.UnknownNicknameError', False),
             ('addrservice.errors.StoreUnavailableError', True), ('OSError', True)],
            [(span.attributes.get('error.type'), span.is_failure)
             for span in self.receiver.spans])
        self.assertEqual({(0, '')}, {(span.events, span.status_message)
                                     for span in self.receiver.spans})


class ContinuedTest(TracesTestCase):
    """W3C Trace Context, 3.2 and 3.3."""

    def test_a_trace_of_the_client_goes_on(self) -> None:
        collector = self.collector(sampling=0)
        span = self.request(collector, {**SAMPLED, 'tracestate': 'congo=t61,rojo=00f0'})
        collector.stop()
        received, = self.receiver.spans
        self.assertEqual((TRACE_ID, SPAN_ID, 'congo=t61,rojo=00f0'),
                         (received.trace_id, received.parent_id, received.trace_state))
        self.assertEqual(f'00-{TRACE_ID}-{received.span_id}-01', span.traceresponse)

    def test_what_the_client_has_begun_goes_on_in_all_that_is_inside(self) -> None:
        """Of the request alone the parent is in another service (OTLP, ``SpanFlags``)."""
        collector = self.collector()
        request = Span('GET', None, 'server', HTTPHeaders({**SAMPLED, 'tracestate': 'congo=t61'}))
        collector.enter(request)
        operation = enter(collector, 'read', request, 'store')
        statement = enter(collector, 'SELECT', operation, 'client')
        for span in (statement, operation, request):
            leave(collector, span)
        collector.stop()
        self.assertEqual(
            [('SELECT', TRACE_ID, 'congo=t61', 0x100), ('read', TRACE_ID, 'congo=t61', 0x100),
             ('GET', TRACE_ID, 'congo=t61', 0x300)],
            [(sent.name, sent.trace_id.hex(), sent.trace_state, sent.flags)
             for sent in self.received().spans])

    def test_whether_the_id_of_a_trace_is_random_the_client_says(self) -> None:
        """W3C Trace Context, level 2, "random-trace-id"; other flags are not passed on."""
        collector = self.collector()
        for flags, answered in (('00', '00'), ('01', '01'), ('02', '02'), ('ff', '03')):
            with self.subTest(flags=flags):
                span = self.request(
                    collector, {'traceparent': f'00-{TRACE_ID}-{SPAN_ID}-{flags}'})
                self.assertEqual(answered, str(span.traceresponse)[-2:])

    def test_a_client_that_does_not_keep_its_trace_is_followed(self) -> None:
        collector = self.collector(sampling=1)
        span = self.request(collector, UNSAMPLED)
        self.assertEqual(TRACE_ID, span.trace_id)
        self.assertRegex(span.traceresponse or '', r'-00\Z')
        self.assertIsNone(collector.stop())

    def test_what_a_future_version_adds_is_overlooked(self) -> None:
        span = self.request(self.collector(), {'Traceparent': f'cc-{TRACE_ID}-{SPAN_ID}-01-more'})
        self.assertEqual(TRACE_ID, span.trace_id)

    def test_a_malformed_traceparent_begins_a_new_trace(self) -> None:
        collector = self.collector()
        with self.assertNoLogs():
            for traceparent in (
                '', 'x', f'00-{TRACE_ID}-{SPAN_ID}', f'00-{TRACE_ID}-{SPAN_ID}-01-more',
                f'ff-{TRACE_ID}-{SPAN_ID}-01', f'00-{"0" * 32}-{SPAN_ID}-01',
                f'00-{TRACE_ID}-{"0" * 16}-01', f'00-{TRACE_ID.upper()}-{SPAN_ID}-01',
                f'00-{TRACE_ID[:-1]}-{SPAN_ID}-01', f'00-{TRACE_ID}-{SPAN_ID}-1',
                f'{SAMPLED["traceparent"]},{SAMPLED["traceparent"]}', 'x' * 8000,
            ):
                with self.subTest(traceparent=traceparent[:80]):
                    span = self.request(collector, {'traceparent': traceparent})
                    self.assertRegex(span.trace_id or '', r'\A[0-9a-f]{32}\Z')
                    self.assertNotEqual(TRACE_ID, span.trace_id)

    def test_a_malformed_tracestate_is_dropped_without_a_word(self) -> None:
        """The SDK would log it, and so anybody could fill the log."""
        collector = self.collector()
        with self.assertNoLogs():
            for tracestate in ('no pair', 'a=1,a=2', 'x=' + 'y' * 600, '=,=,='):
                self.request(collector, {**SAMPLED, 'tracestate': tracestate})
        collector.stop()
        self.assertEqual([(TRACE_ID, '')] * 4,
                         [(span.trace_id, span.trace_state) for span in self.receiver.spans])


class SettingsTest(TracesTestCase):
    def test_the_resource_says_who_sends(self) -> None:
        collector = self.collector()
        self.request(collector)
        collector.stop()
        resource = self.receiver.spans[0].resource
        self.assertEqual(('addrservice', __version__, os.getpid()), (
            resource['service.name'], resource['service.version'], resource['process.pid']))
        self.assertRegex(resource['service.instance.id'], r'\A[0-9a-f-]{36}\Z')
        self.assertEqual(['/v1/traces'], self.receiver.paths)

    def test_the_environment_tells_what_the_configuration_does_not(self) -> None:
        os.environ.update({
            'OTEL_EXPORTER_OTLP_ENDPOINT': self.receiver.url,
            'OTEL_EXPORTER_OTLP_HEADERS': 'x-key=of-the-environment',
            'OTEL_RESOURCE_ATTRIBUTES': 'service.instance.id=one,deployment.environment.name=test',
            'OTEL_SERVICE_NAME': 'Of the environment',
            'OTEL_TRACES_SAMPLER': 'always_on',
        })
        collector = self.collector(endpoint=None, sampling=None)
        self.request(collector, UNSAMPLED)
        for _ in range(9):
            self.request(collector)
        self.assertEqual('10 spans exported, 0 dropped', collector.stop())
        resource = self.receiver.spans[0].resource
        self.assertEqual(['Of the environment', 'one', 'test'], [
            resource[name] for name in (
                'service.name', 'service.instance.id', 'deployment.environment.name')])
        self.assertEqual(('of-the-environment', ['/v1/traces']),
                         (self.receiver.headers['x-key'], self.receiver.paths))

    def test_the_sampler_of_the_environment_decides(self) -> None:
        """Of a trace that began here, of one that the client keeps, of one that it does not."""
        for sampler, share, expected in (
            ('always_off', '', [False, False, False]),
            ('parentbased_always_on', '', [True, True, False]),
            ('parentbased_always_off', '', [False, True, False]),
            ('traceidratio', '1', [True, True, True]),
            ('parentbased_traceidratio', '0', [False, True, False]),
        ):
            with self.subTest(sampler=sampler):
                os.environ.update({'OTEL_TRACES_SAMPLER': sampler,
                                   'OTEL_TRACES_SAMPLER_ARG': share})
                collector = self.collector(sampling=None)
                spans = [self.request(collector, carrier)
                         for carrier in ({}, SAMPLED, UNSAMPLED)]
                self.assertEqual(expected, [str(span.traceresponse)[-1] in '13'
                                            for span in spans])
                self.assertEqual(
                    f'{sum(expected)} spans exported, 0 dropped' if any(expected) else None,
                    collector.stop())

    def test_the_environment_limits_attributes(self) -> None:
        """The oldest go first, and are counted; texts are cut."""
        self.enterContext(patch.object(  # each that goes or is cut would be in the log
            logging.getLogger('opentelemetry.attributes'), 'disabled', True))
        for limits, expected, dropped in (
            ({'OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT': '3'},
             {'http.response.status_code': 500, 'user_agent.original': 'wrk',
              'error.type': 'ZeroDivisionError'}, 0),
            ({'OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT': '2'},
             {'user_agent.original': 'wrk', 'error.type': 'ZeroDivisionError'}, 1),
            ({'OTEL_ATTRIBUTE_COUNT_LIMIT': '0'}, {}, 3),
            ({'OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT': '2'},
             {'http.response.status_code': 500, 'user_agent.original': 'wr',
              'error.type': 'Ze'}, 0),
        ):
            with self.subTest(limits=limits), patch.dict(os.environ, limits):
                collector = self.collector()
                self.request(collector, {'User-Agent': 'wrk'}, 500, ZeroDivisionError())
                collector.stop()
                span, = self.received().spans
                self.assertEqual((expected, dropped), (
                    in_python(span.attributes), span.dropped_attributes_count))
                self.receiver.bodies.clear()

    def test_the_configuration_wins(self) -> None:
        file = tempfile.NamedTemporaryFile('w', suffix='.headers')
        self.addCleanup(file.close)
        file.write('X-Key: of the file\n\nAuthorization: Bearer abc \n')
        file.flush()
        os.environ.update({
            'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9',
            'OTEL_EXPORTER_OTLP_HEADERS': 'x-key=of-the-environment',
            'OTEL_SERVICE_NAME': 'Of the environment',
            'OTEL_TRACES_SAMPLER': 'always_off',
        })
        collector = self.collector(endpoint=f'{self.receiver.url}/here', headers_file=file.name,
                                   service_name='Of the configuration')
        self.request(collector)
        collector.stop()
        self.assertEqual('Of the configuration', self.receiver.spans[0].resource['service.name'])
        self.assertEqual(('of the file', 'Bearer abc', ['/here']), (
            self.receiver.headers['x-key'], self.receiver.headers['authorization'],
            self.receiver.paths))

    def test_a_netrc_does_not_replace_the_authorization(self) -> None:
        """As the HTTP library would have it."""
        with tempfile.TemporaryDirectory() as folder:
            netrc, headers = Path(folder, 'netrc'), Path(folder, 'headers')
            netrc.write_text('machine 127.0.0.1 login a password b', encoding='utf-8')
            headers.write_text('Authorization: Bearer abc', encoding='utf-8')
            os.environ['NETRC'] = str(netrc)
            collector = self.collector(headers_file=str(headers))
            self.request(collector)
            collector.stop()
        self.assertEqual('Bearer abc', self.receiver.headers['authorization'])

    def test_the_sdk_can_be_disabled(self) -> None:
        os.environ['OTEL_SDK_DISABLED'] = 'true'
        threads = threading.active_count()
        collector = self.collector()
        self.assertEqual(threads, threading.active_count())
        span = self.request(collector, SAMPLED)
        leave(collector, enter(collector, 'read', span, 'store'))
        self.assertEqual((None, None), (span.trace_id, span.traceresponse))
        self.assertIsNone(collector.stop())

    def test_a_disabled_sdk_imports_nothing_that_sends(self) -> None:
        """As in the container image, until somebody says where to send."""
        code = ('import sys; from addrservice.tracing import create_collector\n'
                f'create_collector({PATH!r}, {{}}).start()\n'
                'print(*{"requests", "google.protobuf"} & sys.modules.keys())')
        for disabled, imported in (('true', set()), ('false', {'requests', 'google.protobuf'})):
            with self.subTest(disabled=disabled):
                done = subprocess.run(
                    [sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True,
                    timeout=60, check=True, env={**os.environ, 'OTEL_SDK_DISABLED': disabled})
                self.assertEqual(imported, set(done.stdout.split()))

    def test_bad_settings_are_refused_and_secrets_not_repeated(self) -> None:
        with tempfile.NamedTemporaryFile('w') as file:
            file.write('secret: 1\nsecret without a colon\n')
            file.flush()
            for settings, reason in (
                ({'endpoint': 'collector:4318'}, 'endpoint must be a URL such as'),
                ({'endpoint': 'http://'}, 'endpoint must be a URL such as'),
                ({'endpoint': 'http://a:99999'}, 'endpoint must be a URL such as'),
                ({'endpoint': 7}, 'endpoint must be a URL such as'),
                ({'endpoint': 'http://a:secret@b'}, 'endpoint must have no password'),
                ({'sampling': 1.1}, 'sampling must be a number from 0 to 1'),
                ({'sampling': True}, 'sampling must be a number from 0 to 1'),
                ({'sampling': '1'}, 'sampling must be a number from 0 to 1'),
                ({'timeout': 0}, 'timeout must be a number of seconds'),
                ({'timeout': float('nan')}, 'timeout must be a number of seconds'),
                ({'service-name': ''}, 'service-name must be a text'),
                ({'service-name': 7}, 'service-name must be a text'),
                ({'headers-file': '/nowhere'}, 'headers-file: /nowhere: No such file'),
                ({'headers-file': 7}, 'headers-file: 7: cannot be read'),
                ({'headers-file': file.name}, 'a line is not "Name: value"'),
            ):
                with self.subTest(settings=settings):
                    with self.assertRaisesRegex(ValueError, reason) as caught:
                        create_collector(PATH, settings)
                    self.assertNotIn('secret', str(caught.exception))

    def test_a_bad_environment_is_refused(self) -> None:
        for name, value in (
            ('OTEL_EXPORTER_OTLP_ENDPOINT', 'localhost:4318'),
            ('OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'http://a:secret@b'),
            ('OTEL_BSP_MAX_QUEUE_SIZE', '0'),
            ('OTEL_BSP_SCHEDULE_DELAY', 'soon'),
            ('OTEL_BSP_MAX_EXPORT_BATCH_SIZE', '2049'),
            ('OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT', '-1'),
        ):
            with self.subTest(name=name), patch.dict(os.environ, {name: value}):
                with self.assertRaisesRegex(ValueError, name):
                    OpenTelemetryCollector()


class WayOutTest(TracesTestCase):
    """How spans are sent: it is to cost requests as little as can be."""

    def setUp(self) -> None:
        super().setUp()
        os.environ['OTEL_BSP_SCHEDULE_DELAY'] = '10'

    def test_a_connection_is_kept_for_the_next_export(self) -> None:
        collector = self.collector()
        for count in (1, 2, 3):
            self.request(collector)
            self.receiver.wait_for(count)
        self.assertEqual((3, 1), (self.receiver.requests, self.receiver.connections))

    def test_one_whose_answer_has_a_body_is_not_kept(self) -> None:
        """That is not read, for it may have no end."""
        self.receiver.body = b'taken'
        collector = self.collector()
        for count in (1, 2):
            self.request(collector)
            self.receiver.wait_for(count)
        collector.stop()
        self.assertEqual((2, 2), (self.receiver.requests, self.receiver.connections))

    def test_each_export_has_its_own_spans_and_no_others(self) -> None:
        for compression in ('none', 'gzip'):
            os.environ['OTEL_EXPORTER_OTLP_COMPRESSION'] = compression
            collector = self.collector()
            del self.receiver.spans[:]
            for count, name in enumerate(('a', 'b' * 1000, 'c'), 1):
                leave(collector, enter(collector, name, None))
                self.receiver.wait_for(count)
            with self.subTest(compression=compression):
                self.assertEqual(['a', 'b' * 1000, 'c'],
                                 [span.name for span in self.receiver.spans])
                self.assertEqual(compression,
                                 self.receiver.headers.get('Content-Encoding', 'none'))

    def exported(self, waiting: int, limit: int = 2048) -> list[str]:
        """What happens, step by step, when two spans are sent while so many wait."""
        account = Account(limit, logging.getLogger(LOGGER))
        for _ in range(waiting):
            account.admit()
        exporter = CountingExporter(account, f'{self.receiver.url}/v1/traces', None, None)
        self.addCleanup(exporter.shutdown)
        steps: list[str] = []

        def rest(seconds: float) -> None:
            steps.append(f'rest {seconds}')

        def encode(span: ReadableSpan) -> PB2Span:
            steps.append(span.name)
            return PB2Span()

        def send(*_: Any, **told: Any) -> requests.Response:
            steps.append('send')
            response = requests.Response()
            response.status_code = 200
            return response

        with (patch('time.sleep', rest), patch.object(requests.Session, 'send', send),
              patch.object(trace_encoder, '_encode_span', encode)):
            exporter.export([ReadableSpan(name, SpanContext(1, 1, False)) for name in 'ab'])
        return steps

    def test_it_rests_between_one_piece_of_its_work_and_the_next(self) -> None:
        """So that no request waits for all of it."""
        rest = f'rest {PAUSE}'
        self.assertEqual([rest, 'a', rest, 'b', rest, rest, 'send'], self.exported(FEW))

    def test_it_does_not_rest_where_many_wait(self) -> None:
        for waiting, limit in ((FEW + 1, 2048), (2, 5)):
            with self.subTest(limit=limit):
                self.assertEqual(['a', 'b', 'send'], self.exported(waiting, limit))

    def test_what_an_export_failed_with_leaves_nothing_waiting(self) -> None:
        collector = self.collector()
        with patch.object(OTLPSpanExporter, 'export', side_effect=LookupError):
            self.request(collector)
            with self.assertLogs():
                self.assertEqual('0 spans exported, 1 dropped', collector.stop())

    def test_the_resource_of_all_spans_is_as_the_sdk_has_it(self) -> None:
        """But for its hash, which is found once."""
        resource = Resource({'service.name': 'x'}, 'https://example.org/schema')
        sender = _Sender(resource)
        self.assertEqual((resource, hash(resource)), (sender, hash(sender)))
        with patch.object(Resource, '__hash__', side_effect=AssertionError):
            hash(sender)


class LossTest(TracesTestCase):
    """Whatever becomes of the exports, nobody waits for them and nothing piles up."""

    def lost(self, **settings: Any) -> str:
        """What the log says when one span is lost; it is all that any logger says."""
        collector = self.collector(**settings)
        self.request(collector)
        with self.assertLogs() as logs:
            self.assertEqual('0 spans exported, 1 dropped', collector.stop())
        record, = logs.records
        self.assertEqual(LOGGER, record.name)
        return record.getMessage()

    def test_an_endpoint_that_refuses(self) -> None:
        for status in (400, 503):
            with self.subTest(status=status):
                self.receiver.status = status
                self.assertEqual(f'spans lost: 1; the last: status {status}', self.lost())

    def test_an_endpoint_that_redirects_is_not_followed(self) -> None:
        """The SDK alone would take the redirect for a success."""
        self.receiver.status = 307
        with Receiver() as other:
            self.receiver.location = f'{other.url}/v1/traces'
            self.assertEqual('spans lost: 1; the last: status 307', self.lost())
            self.assertEqual(0, other.requests)

    def test_an_endpoint_where_nobody_listens(self) -> None:
        with closed_url() as url:
            self.assertEqual('spans lost: 1; the last: Connection refused',
                             self.lost(endpoint=f'{url}/secret'))

    def test_an_endpoint_that_hangs(self) -> None:
        self.receiver.hang()
        self.addCleanup(self.receiver.go_on)
        self.assertEqual('spans lost: 1; the last: TimeoutError', self.lost(timeout=0.1))

    def test_an_answer_without_an_end_is_not_waited_for(self) -> None:
        self.receiver.is_endless = True
        self.addCleanup(setattr, self.receiver, 'is_endless', False)
        collector = self.collector()
        self.request(collector)
        self.assertEqual('1 spans exported, 0 dropped', collector.stop())

    def test_what_does_not_fit_the_queue_is_dropped_counted_and_told_once(self) -> None:
        """The SDK alone would drop another one in its place, and log each."""
        os.environ['OTEL_BSP_MAX_QUEUE_SIZE'] = '5'
        self.receiver.hang()
        collector = self.collector(timeout=10)
        with self.assertLogs() as logs:
            for _ in range(5):
                self.request(collector)
            wait_until(lambda: self.receiver.requests)  # all five are on their way
            for _ in range(100):
                self.request(collector)
        self.assertEqual([f'WARNING:{LOGGER}:spans lost: 1; the last: 5 wait already'],
                         logs.output)
        self.receiver.go_on()
        self.assertEqual('5 spans exported, 100 dropped', collector.stop())
        self.assertEqual(5, len(self.receiver.spans))

    def test_sending_goes_on_when_the_endpoint_is_back(self) -> None:
        os.environ['OTEL_BSP_SCHEDULE_DELAY'] = '10'
        self.receiver.status = 400
        collector = self.collector()
        with self.assertLogs(LOGGER):
            self.request(collector)
            wait_until(lambda: self.receiver.requests)
            self.receiver.status = 200
            self.request(collector)
            self.receiver.wait_for(1)
        self.assertEqual('1 spans exported, 1 dropped', collector.stop())

    def test_losses_are_told_once_a_minute(self) -> None:
        now = 0.0
        account = Account(1, logging.getLogger(LOGGER), lambda: now)
        with self.assertLogs(LOGGER) as logs:
            for now in (0.0, 1.0, 59.0, 60.0, 61.0, 120.0):
                account.admit()
                account.settle(1, 'it is late')
        self.assertEqual([1, 3, 2], [int(line.split(': ')[1][:1]) for line in logs.output])

    def test_what_still_waits_at_the_end_is_lost(self) -> None:
        account = Account(9, logging.getLogger(LOGGER))
        for _ in range(5):
            account.admit()
        account.settle(2, None)
        self.assertEqual('2 spans exported, 3 dropped', account.report())

    def test_stopping_without_having_started_is_harmless(self) -> None:
        self.assertIsNone(OpenTelemetryCollector().stop())


if __name__ == '__main__':
    unittest.main()
