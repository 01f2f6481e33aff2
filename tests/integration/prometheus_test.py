"""What a real Prometheus sees of the service: just what was sent, whatever happens to workers."""

import contextlib
import http.client
import json
import os
import signal
import socket
import tempfile
import unittest
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.postgresql import free_port
from tests.prometheus import COLLECTOR, PATIENCE, Prometheus, promtool
from tests.support import DEADLINE, JSON, ServerProcess, address, running_server, wait_until

TRACE: Final = '4bf92f3577b34da6a3ce929d0e0e4736'
OPENMETRICS: Final = 'application/openmetrics-text; version=1.0.0'
REQUESTS: Final = 'sum by (method, route, status) (addrservice_http_requests_total' \
    '{route!="/metrics"})'
LABELS: Final = 'method', 'route', 'status'
MISSING: Final = '/addressbook/0123456789abcdef0123456789abcdef'

# What is sent, and how it counts.
SENT: Final[list[tuple[str, str, str | None, tuple[str, str, str]]]] = [
    *[('GET', MISSING, None, ('GET', '/addressbook/{id}', '404'))] * 3,
    *[('POST', '/addressbook', json.dumps(address('namo')), ('POST', '/addressbook', '201'))] * 4,
    ('POST', '/addressbook', '{', ('POST', '/addressbook', '400')),
    ('PUT', MISSING, '{}', ('PUT', '/addressbook/{id}', '400')),
    ('GET', '/addressbook?limit=1', None, ('GET', '/addressbook', '200')),
    ('GET', '/no/such/path', None, ('GET', 'unmatched', '404')),
    ('BREW', '/pot', None, ('_OTHER', 'unmatched', '404')),
    ('GET', '/healthz', None, ('GET', '/healthz', '200')),
]


class Service:
    """The service as a process, with metrics, and traces that only have an id."""

    def __init__(self, server: ServerProcess, metrics_port: int) -> None:
        self.server = server
        self.metrics_port = metrics_port
        self.expected: Counter[tuple[str, ...]] = Counter()

    def send(self, trace: str = '') -> None:
        """Sends all that there is to send, each on a connection of its own."""
        for method, path, body, counts in SENT:
            self.ask(self.server.port, method, path, body, {**JSON, 'X-Request-ID': trace})
            self.expected[counts] += 1

    def ask(
        self, port: int, method: str, path: str, body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[str, str]:
        """The media type and the text of an answer."""
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=DEADLINE)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.headers.get('Content-Type', ''), answer.read().decode()
        finally:
            connection.close()

    def scrape(self, accept: str = '') -> str:
        """The text of the metrics."""
        return self.ask(self.metrics_port, 'GET', '/metrics', None, {'Accept': accept})[1]

    @contextlib.contextmanager
    def unfinished_request(self) -> Iterator[None]:
        """A request whose body does not come."""
        with socket.create_connection(('127.0.0.1', self.server.port), DEADLINE) as connection:
            connection.sendall(b'POST /addressbook HTTP/1.1\r\nHost: a\r\n'
                               b'Content-Type: application/json\r\nContent-Length: 9\r\n\r\n')
            yield


@contextlib.contextmanager
def serving(port: int, *arguments: str, **sections: Any) -> Iterator[Service]:
    """The service, with its metrics on that port."""
    with running_server(
        *arguments, service={'metrics-port': port, 'body-timeout': 60},
        tracing={COLLECTOR: None, 'tests.prometheus.TraceIds': None}, **sections,
    ) as server:
        yield Service(server, port)


class ScrapedServiceTest(unittest.TestCase):
    port: int
    prometheus: Prometheus

    @classmethod
    def setUpClass(cls) -> None:
        cls.port = free_port()
        cls.prometheus = cls.enterClassContext(Prometheus(cls.port))

    def test_the_figures_of_workers_add_up_to_just_what_was_sent_also_when_they_were_killed(
        self
    ) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        store = {'sql': {'dsn': f'sqlite://{folder.name}/book.db', 'deadline': 5}}
        with serving(self.port, '--processes', '2', **{'addr-db': store}) as service:
            service.send(TRACE)
            self.wait_for_what_was_sent(service)
            self.check_refusals_and_operations()
            wait_until(lambda: self.prometheus.exemplars(REQUESTS) == {TRACE}, PATIENCE)
            self.kill_workers(service)
            service.send()
            self.wait_for_what_was_sent(service)
            for counter in 'addrservice_http_requests_total', 'process_cpu_seconds_total':
                resets = self.prometheus.query(f'sum(resets({counter}[1m]))')
                self.assertEqual({(): 0}, resets, counter)
            self.check_rules()

    def wait_for(self, expected: Mapping[Any, float], expression: str, *labels: str) -> None:
        """Waits until these are the values: no scrape sees all workers at one moment."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.prometheus.query(expression, *labels) == expected, PATIENCE)
        self.assertEqual(expected, self.prometheus.query(expression, *labels))

    def wait_for_what_was_sent(self, service: Service) -> None:
        self.wait_for(service.expected, REQUESTS, *LABELS)

    def check_refusals_and_operations(self) -> None:
        self.wait_for({('invalid_json',): 1, ('schema',): 1},
                      'addrservice_entries_refused_total > 0', 'reason')
        self.wait_for({('create', 'ok'): 4, ('list', 'ok'): 1, ('read', 'refused'): 3},
                      'addrservice_store_operation_duration_seconds_count{operation!="ping"}',
                      'operation', 'outcome')

    def kill_workers(self, service: Service) -> None:
        """Kills one after the other, one of them at work, and waits until others are there."""
        in_flight = 'addrservice_http_requests_in_flight'
        with service.unfinished_request():
            self.wait_for({(): 1}, in_flight)
            for killed, worker in enumerate(service.server.workers(), 1):
                os.kill(worker, signal.SIGKILL)
                self.wait_for_the_next(killed)
            self.wait_for({(): 0}, in_flight)

    def wait_for_the_next(self, killed: int) -> None:
        self.wait_for({(): killed}, 'addrservice_worker_crashes_total')
        self.wait_for({(): killed + 2}, 'addrservice_worker_starts_total')
        self.wait_for({(): 2}, 'addrservice_workers')

    def check_rules(self) -> None:
        """That all of them can be evaluated, and none has fired."""
        def others() -> list[dict[str, Any]]:
            groups = self.prometheus.ask('rules', {})['groups']
            return [rule for group in groups for rule in group['rules']
                    if (rule['health'], rule.get('state', 'inactive')) != ('ok', 'inactive')]

        wait_until(lambda: not others(), PATIENCE)

    def test_exemplars_are_in_what_a_single_process_answers_to_who_can_read_them(self) -> None:
        with serving(free_port()) as service:
            service.send(TRACE)
            # The library has no types here.
            families = text_string_to_metric_families(  # type: ignore[no-untyped-call]
                service.scrape(OPENMETRICS))
            samples = [sample for family in families for sample in family.samples]
            traced = {sample.name for sample in samples
                      if sample.exemplar and sample.exemplar.labels == {'trace_id': TRACE}}
            self.assertEqual({'addrservice_http_requests_total',
                              'addrservice_http_request_duration_seconds_bucket'}, traced)
            self.assertEqual('', promtool('check', 'metrics', text=service.scrape().encode()))
