"""Traces of the service as a process, sent to a receiver that decodes the official protobuf."""

import http.client
import json
import os
import re
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final
from unittest.mock import patch
from urllib.parse import quote

from tests.otlp import ReceivedSpan, Receiver, closed_url
from tests.support import JSON, ServerProcess, address, running_server, wait_until

TRACE_ID: Final = '4bf92f3577b34da6a3ce929d0e0e4736'
SPAN_ID: Final = '00f067aa0ba902b7'
COLLECTOR: Final = 'addrservice.collectors.opentelemetry.OpenTelemetryCollector'


def store(folder: str) -> dict[str, Any]:
    """The section of the configuration for SQLite."""
    return {'addr-db': {'sql': {'dsn': f'sqlite://{folder}/book.db'}}}


@contextmanager
def tracing_server(endpoint: str, **settings: Any) -> Iterator[ServerProcess]:
    """The service on SQLite, with its traces going to an endpoint at once."""
    told = {'endpoint': endpoint, 'sampling': 1.0, **settings}
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith('OTEL_')}
    environment['OTEL_BSP_SCHEDULE_DELAY'] = '20'
    with (tempfile.TemporaryDirectory() as folder,
          patch.dict(os.environ, environment, clear=True),
          running_server(tracing={COLLECTOR: told}, **store(folder)) as server):
        yield server


class Client:
    """Asks a server."""

    def __init__(self, server: ServerProcess) -> None:
        self._connection = server.connect()

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        traceparent: str = f'00-{TRACE_ID}-{SPAN_ID}-01',
    ) -> http.client.HTTPResponse:
        """The answer, read to its end."""
        headers = {**JSON, 'traceparent': traceparent}
        self._connection.request(
            method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer

    def close(self) -> None:
        self._connection.close()


def by_name(spans: list[ReceivedSpan], *names: str) -> list[ReceivedSpan]:
    """The spans of these names, each of which must be there once."""
    found = []
    for name in names:
        span, = [span for span in spans if span.name == name]
        found.append(span)
    return found


class TracesTest(unittest.TestCase):
    """One server for what does not change how it is set up."""

    receiver: Receiver
    server: ServerProcess

    @classmethod
    def setUpClass(cls) -> None:
        cls.receiver = cls.enterClassContext(Receiver())
        cls.server = cls.enterClassContext(tracing_server(cls.receiver.url))

    def setUp(self) -> None:
        self.client = self.enterContext(closing(Client(self.server)))

    def trace(self, method: str, path: str, trace_id: str, **more: Any) -> list[ReceivedSpan]:
        """What arrives of a request."""
        self.client.ask(method, path, traceparent=f'00-{trace_id}-{SPAN_ID}-01', **more)

        def spans() -> list[ReceivedSpan]:
            return [span for span in self.receiver.spans if span.trace_id == trace_id]

        wait_until(lambda: any(span.kind == 'server' for span in spans()))
        return spans()

    def test_a_request_arrives_with_all_that_it_did(self) -> None:
        spans = self.trace('POST', '/addressbook', '1' * 32, body=address('namo'))
        request, call, operation, statement = by_name(
            spans, 'POST /addressbook', 'AddressBookService.post_entry', 'create',
            'INSERT addresses')
        self.assertEqual(['server', 'internal', 'internal', 'client'],
                         [span.kind for span in (request, call, operation, statement)])
        self.assertEqual([SPAN_ID, request.span_id, call.span_id, operation.span_id],
                         [span.parent_id for span in (request, call, operation, statement)])
        for outer, inner in ((request, call), (call, operation), (operation, statement)):
            self.assertLessEqual(outer.start_ns, inner.start_ns)
            self.assertLessEqual(inner.end_ns, outer.end_ns)

    def test_attributes_are_those_of_the_semantic_conventions(self) -> None:
        request, statement = by_name(
            self.trace('GET', '/addressbook/nobody?x=1', '2' * 32),
            'GET /addressbook/{id}', 'SELECT addresses')
        self.assertLessEqual({
            'http.request.method': 'GET',
            'http.route': '/addressbook/{id}',
            'http.response.status_code': 404,
            'url.scheme': 'http',
            'url.path': '/addressbook/nobody',
            'client.address': '127.0.0.1',
            'network.protocol.version': '1.1',
        }.items(), request.attributes.items())
        self.assertFalse(request.is_failure)
        self.assertEqual({'db.system.name', 'db.query.text', 'db.operation.name',
                          'db.collection.name'}, set(statement.attributes))
        self.assertRegex(statement.attributes['db.query.text'], r'WHERE nickname = \$1')

    def test_no_value_of_an_entry_leaves_the_service(self) -> None:
        """Whether it is created, searched for, changed, refused or not found."""
        entry = address('raga')
        created = self.client.ask('POST', '/addressbook', entry).headers['Location']
        self.assertEqual(400, self.client.ask(
            'POST', '/addressbook', {**entry, 'name': [entry['name']]}).status)
        self.assertEqual(204, self.client.ask('PUT', created, {**entry, 'emails': []}).status)
        self.assertEqual(200, self.client.ask(
            'GET', f'/addressbook?name={quote(entry["name"])}').status)
        self.assertEqual(204, self.client.ask('DELETE', created).status)
        self.trace('GET', created, '3' * 32)
        sent = b''.join(self.receiver.bodies)
        self.assertIn(b'DELETE addresses', sent)
        for text in (entry['name'], 'Sansad', 'New Delhi', '110001', '23034000', 'office@'):
            with self.subTest(text=text):
                self.assertNotIn(text.encode(), sent)
                self.assertNotIn(quote(text).encode(), sent)

    def test_the_trace_is_in_the_answer_and_in_the_log(self) -> None:
        """Whether it is kept or not."""
        for trace_id, flags in (('8' * 32, '01'), ('9' * 32, '00')):
            with self.subTest(flags=flags):
                answer = self.client.ask('GET', '/addressbook/nobody', None,
                                         f'00-{trace_id}-{SPAN_ID}-{flags}')
                self.assertRegex(answer.headers['traceresponse'],
                                 rf'\A00-{trace_id}-[0-9a-f]{{16}}-{flags}\Z')
                line = f'path="/addressbook/nobody" .* trace_id="{trace_id}"'
                wait_until(lambda: re.search(line, self.server.errors_so_far()))

    def test_a_trace_that_the_client_does_not_keep_is_not_sent(self) -> None:
        unsampled = '5' * 32
        answer = self.client.ask('GET', '/addressbook/nobody', None,
                                 f'00-{unsampled}-{SPAN_ID}-00')
        self.assertRegex(answer.headers['traceresponse'], rf'\A00-{unsampled}-.*-00\Z')
        self.trace('GET', '/addressbook/nobody', '6' * 32)  # what came before is through by now
        self.assertNotIn(unsampled, {span.trace_id for span in self.receiver.spans})


class EndpointTest(unittest.TestCase):
    """Requests go on and the process ends, whatever the endpoint does."""

    def serve(self, endpoint: str, trouble: Receiver | None = None, **settings: Any) -> str:
        """Has a server answer while its traces go nowhere; gives its log."""
        with tracing_server(endpoint, **settings) as server:
            with closing(Client(server)) as client:
                if trouble is not None:
                    wait_until(lambda: trouble.requests)
                statuses = {client.ask('GET', '/addressbook/nobody').status for _ in range(100)}
            self.assertEqual({404}, statuses)
            self.assertEqual(0, server.stop())
        self.assertNotIn(' opentelemetry', server.stderr)  # a logger of the SDK
        return server.stderr

    def test_an_endpoint_that_hangs(self) -> None:
        """Nor does the end of the process wait for the exporter's own timeout."""
        with Receiver() as receiver:
            receiver.hang()
            log = self.serve(receiver.url, receiver, timeout=600)
        self.assertRegex(log, r'\n0 spans exported, [1-9]\d* dropped')

    def test_an_endpoint_that_refuses(self) -> None:
        with Receiver() as receiver:
            receiver.status = 503
            log = self.serve(receiver.url, receiver, timeout=0.1)
        self.assertEqual(1, len(re.findall('spans lost: .*; the last: status 503', log)))
        self.assertRegex(log, r'\n0 spans exported, [1-9]\d* dropped')

    def test_an_endpoint_where_nobody_listens(self) -> None:
        with closed_url() as url:
            log = self.serve(url, timeout=0.1)
        self.assertEqual(1, len(re.findall('spans lost: .*; the last: Connection refused', log)))


if __name__ == '__main__':
    unittest.main()
