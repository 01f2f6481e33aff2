"""The service as a process: start, options, signals, drain. Real processes, signals, sockets."""

import contextlib
import http.client
import json
import signal
import socket
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from addrservice.http_server.abstract import QUIET
from tests.support import (
    DEADLINE, JSON, ROOT, ServerProcess, address, config_document, running_server, wait_until,
    write_config,
)

ENTRY = json.dumps(address('namo'))


def get(server: ServerProcess, path: str) -> tuple[int, Any]:
    """Status and decoded body of a GET on a connection of its own."""
    with contextlib.closing(server.connect()) as connection:
        connection.request('GET', path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


class StartTest(unittest.TestCase):
    """From the command line to the first answer."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start(self, *arguments: str, **options: Any) -> ServerProcess:
        server = ServerProcess(*arguments, **options)
        self.addCleanup(server.kill)
        return server

    def assert_refused(self, server: ServerProcess, *words: str) -> None:
        """It ended with status 2 and one line on stderr in which those words stand."""
        self.assertEqual(2, server.wait(), server.stderr)
        self.assertEqual(1, len(server.stderr.splitlines()), server.stderr)
        for word in words:
            self.assertIn(word, server.stderr)

    def test_the_start_line_has_the_name_from_the_config_and_the_port(self) -> None:
        config = write_config(self.folder, service={'name': 'Little Black Book'})
        server = self.start('--port', '0', '--config', str(config))
        port = server.wait_for_port()
        self.assertEqual(f'Starting Little Black Book on port {port} ...\n', server.start_line)
        self.assertEqual((200, {}), get(server, '/addressbook'))

    def test_it_starts_as_a_file_from_any_folder(self) -> None:
        config = write_config(self.folder)
        server = self.start('--debug', '-p', '0', '-c', config.name, cwd=self.folder,
                            program=(str(ROOT / 'addrservice' / 'server.py'),))
        server.wait_for_port()
        status, error = get(server, '/nowhere')
        self.assertEqual((404, 'Unknown Endpoint'), (status, error['message']))
        self.assertEqual(0, server.stop(), server.stderr)

    def test_it_listens_on_the_address_it_is_told(self) -> None:
        config = write_config(self.folder, service={'address': '203.0.113.1'})
        server = self.start('-p', '0', '-a', '127.0.0.2', '-c', str(config))
        port = server.wait_for_port()
        socket.create_connection(('127.0.0.2', port), DEADLINE).close()
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', port), DEADLINE)

    def test_where_others_can_reach_it_somebody_has_to_say_that_all_may_come_in(self) -> None:
        self.assert_refused(
            self.start('-p', '0', '-a', '0.0.0.0', '-c', str(write_config(self.folder))),
            '0.0.0.0', 'auth: none')
        config = write_config(self.folder, auth='none')
        self.start('-p', '0', '-a', '0.0.0.0', '-c', str(config)).wait_for_port()

    def test_a_store_in_memory_is_not_for_several_processes(self) -> None:
        config = write_config(self.folder, service={'processes': 3})
        self.assert_refused(self.start('-p', '0', '-c', str(config)), str(config), 'memory')
        config = write_config(self.folder)
        self.assert_refused(self.start('-p', '0', '-c', str(config), '-n', '2'), 'memory')
        self.start('-p', '0', '-c', str(config), '-n', '1').wait_for_port()

    def test_what_cannot_be_a_number_of_processes_is_refused(self) -> None:
        server = self.start('--processes', 'some')
        self.assertEqual(2, server.wait())
        self.assertIn("'some' is not a number of processes", server.stderr)

    def test_an_authenticator_that_cannot_be_made_is_refused_in_one_line(self) -> None:
        config = write_config(self.folder, auth={'custom': {'addrservice.auth.Nobody': None}})
        self.assert_refused(self.start('-c', str(config)), f'{config}: auth: ',
                            'addrservice.auth.Nobody')

    def test_a_certificate_that_cannot_be_read_is_refused_in_one_line(self) -> None:
        missing = str(self.folder / 'missing.pem')
        config = write_config(
            self.folder, service={'tls': {'certificate': missing, 'key': missing}})
        self.assert_refused(self.start('-c', str(config)), missing, 'No such file')

    def test_other_commands_refuse_in_one_line_too(self) -> None:
        config = str(write_config(self.folder))
        self.assert_refused(self.start('export', '-c', config), config, 'memory')
        nowhere = str(self.folder / 'missing' / 'tokens')
        self.assert_refused(
            self.start('token', 'new', 'ada', '--scope', 'addressbook:read', '--file', nowhere),
            nowhere)

    def test_a_port_in_use_is_refused_in_one_line(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as taken:
            port = str(taken.getsockname()[1])
            server = self.start('--port', port, '--config', str(write_config(self.folder)))
            self.assert_refused(server, f'127.0.0.1 port {port}', 'Address already in use')

    def test_a_missing_config_file_is_refused_in_one_line(self) -> None:
        missing = str(self.folder / 'missing.yaml')
        self.assert_refused(self.start('-c', missing), missing, 'No such file')

    def test_a_broken_config_file_is_refused_in_one_line(self) -> None:
        config = write_config(self.folder, service={'drain-delay': 'soon'})
        self.assert_refused(self.start('-c', str(config)), str(config), 'service.drain-delay')

    def test_a_log_file_that_cannot_be_opened_is_refused_in_one_line(self) -> None:
        document = config_document(self.folder / 'missing')
        config = write_config(self.folder, logging=document['logging'])
        self.assert_refused(self.start('-c', str(config)), str(config), 'logging',
                            'No such file or directory')

    def test_an_unknown_collector_is_refused_in_one_line(self) -> None:
        config = write_config(self.folder, tracing={'addrservice.tracing.Nobody': None})
        self.assert_refused(self.start('-c', str(config)), str(config), 'tracing',
                            'addrservice.tracing.Nobody')

    def test_an_address_that_is_none_is_refused_in_one_line(self) -> None:
        config = str(write_config(self.folder))
        for name in ('a..b', '203.0.113.1'):
            with self.subTest(name):
                self.assert_refused(self.start('-p', '0', '-c', config, '-a', name), name)

    def test_an_empty_address_is_not_taken_for_every_address(self) -> None:
        server = self.start('-p', '0', '--address=')
        self.assertEqual(2, server.wait())
        self.assertIn('an empty address would be every address', server.stderr)

    def test_a_port_that_is_none_is_refused(self) -> None:
        for port in ('65536', '-1', 'http', ''):
            with self.subTest(port=port):
                server = self.start(f'--port={port}')
                self.assertEqual(2, server.wait())
                self.assertIn('is not a port number', server.stderr)


class MetricsPortTest(unittest.TestCase):
    """A port for operators."""

    def test_the_probes_are_on_a_port_of_their_own_where_one_is_configured(self) -> None:
        """And the book is not; nor are metrics, where no collector has any."""
        with running_server(service={'metrics-port': 0}) as server:
            assert server.process.stdout is not None
            line = server.process.stdout.readline()
            self.assertRegex(line, r'^Starting Address Book metrics on port \d+ \.\.\.$')
            public, server.port = server.port, int(line.split()[-2])
            self.assertNotEqual(public, server.port)
            for path, status in (('/healthz', 200), ('/readiness', 200), ('/metrics', 404),
                                 ('/addressbook', 404), ('/docs', 404)):
                with self.subTest(path=path):
                    self.assertEqual(status, get(server, path)[0])

    def test_metrics_are_never_on_the_public_port(self) -> None:
        collector = {'addrservice.collectors.prometheus.PrometheusCollector': None}
        with running_server(tracing=collector) as server:
            status, error = get(server, '/metrics')
            self.assertEqual((404, 'Unknown Endpoint'), (status, error['message']))


class SignalTest(unittest.TestCase):
    """Signals that do not end it, or not as others do."""

    def test_a_hang_up_makes_it_read_files_anew_and_go_on(self) -> None:
        with running_server() as server:
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: 'tokens and certificates reloaded' in server.errors_so_far())
            self.assertEqual(200, get(server, '/addressbook')[0])

    def test_one_that_others_stand_in_for_ends_without_waiting_for_load_balancers(self) -> None:
        with running_server(service={'drain-delay': 3600}) as server:
            self.assertEqual(0, server.stop(signal.SIGUSR2), server.stderr)


class TransportTestCase(unittest.TestCase):
    """A test of what has to do with connections, whoever reads the requests."""

    http_parser = 'httptools'

    def running_server(
        self, service: dict[str, Any] | None = None, **options: Any
    ) -> contextlib.AbstractContextManager[ServerProcess]:
        """The service as a process, with such settings."""
        return running_server(
            service={**(service or {}), 'http-parser': self.http_parser}, **options)


class StopTest(TransportTestCase):
    """From the first signal to the exit status."""

    def test_each_signal_ends_it_with_status_0_and_frees_the_port(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number.name), self.running_server() as server:
                self.assertEqual(0, server.stop(number), server.stderr)
                with self.assertRaises(ConnectionRefusedError):
                    socket.create_connection(('127.0.0.1', server.port), DEADLINE)

    def test_what_the_collectors_gathered_is_logged_and_written_at_stop(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, 'timeline.json')
            collectors = {'addrservice.tracing.CumulativeFunctionTimeProfiler': None,
                          'addrservice.tracing.Timeline': {'file': str(file)}}
            with self.running_server(tracing=collectors) as server:
                get(server, '/addressbook')
                server.stop()
            names = {event['name'] for event in json.loads(file.read_bytes())['traceEvents']}
        self.assertIn('AddressBookService.pages', names)
        self.assertRegex(server.stderr, r'(?m)^ +1 .* AddressBookService.pages$')

    def test_the_garbage_collector_does_not_hold_it_up_for_long(self) -> None:
        with self.running_server(tracing={'tests.interpreter.InterpreterSettings': None}) as server:
            server.stop()
        self.assertIn('garbage is looked for after (10000, 50, 20), frozen: True', server.stderr)

    def test_it_is_not_ready_but_serves_while_load_balancers_take_notice(self) -> None:
        with self.running_server({'drain-delay': 60}) as server:
            with contextlib.closing(server.connect()) as connection:
                connection.request('GET', '/readiness')
                self.assertEqual(200, read(connection).status)
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda: get(server, '/readiness')[0] == 503)
                connection.request('POST', '/addressbook', ENTRY, JSON)
                answer = read(connection)
                self.assertEqual((201, 'close'), (answer.status, answer.headers['Connection']))
                self.assertEqual(200, get(server, '/healthz')[0])

    def test_a_second_signal_ends_it_at_once(self) -> None:
        with self.running_server({'drain-delay': 60}) as server:
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: get(server, '/readiness')[0] == 503)
            self.assertEqual(128 + signal.SIGINT, server.stop(signal.SIGINT))

    def test_a_request_in_flight_is_finished(self) -> None:
        with self.running_server() as server, half_a_request(server) as client:
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses_connections(server))
            client.sendall(ENTRY.encode()[10:])
            self.assertIn(b'HTTP/1.1 201 Created', client.recv(1000))
            self.assertEqual(0, server.wait(), server.stderr)
        self.assertNotIn('cut off', server.stderr)

    def test_a_request_that_does_not_end_is_cut_off_at_the_deadline(self) -> None:
        limits = {'shutdown-deadline': 0.2, 'body-timeout': 60}
        with self.running_server(limits) as server, half_a_request(server) as client:
            self.assertEqual(0, server.stop(), server.stderr)
            self.assertIn(b'HTTP/1.1 503 ', client.recv(1000))
        self.assertIn('1 requests were cut off at the deadline', server.stderr)

    def test_an_idle_keep_alive_connection_does_not_hold_it_up(self) -> None:
        with self.running_server({'shutdown-deadline': 60}) as server:
            with contextlib.closing(server.connect()) as connection:
                connection.request('GET', '/healthz')
                read(connection)
                self.assertEqual(0, server.stop(), server.stderr)

    def test_no_request_of_keep_alive_clients_is_lost(self) -> None:
        for _ in range(3):
            with self.running_server() as server:
                clients = [KeepAliveClient(server) for _ in range(8)]
                wait_until(lambda: sum(client.created for client in clients) > 200)
                self.assertEqual(0, server.stop(), server.stderr)
                for client in clients:
                    client.join(DEADLINE)
            self.assertEqual([], [client.failure for client in clients if client.failure])
            self.assertNotIn('ERROR', server.stderr)


class KeepAliveClient(threading.Thread):
    """Posts entries on one connection after the other until no more are taken.

    ``created`` counts the 201s; ``failure`` is what became of a request on a connection that had
    been made. A request that a busy machine had come late has not failed: a server may end a
    connection that is quiet, and does in a drain.
    """

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(daemon=True)
        self.created = 0
        self.failure: object = None
        self._was_late = False
        self._server = server
        self.start()

    def run(self) -> None:
        while self.failure is None:
            with contextlib.closing(self._server.connect()) as connection:
                self._heard_of = time.monotonic()
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return
                self._use(connection)

    def _use(self, connection: http.client.HTTPConnection) -> None:
        try:
            closes = False
            while not closes and self.failure is None:
                closes = self._post(connection)
        except Exception as error:
            self.failure = None if self._was_late else error

    def _post(self, connection: http.client.HTTPConnection) -> bool:
        """Whether the answer is the last on the connection."""
        quiet_since = self._heard_of  # no earlier
        self._heard_of = time.monotonic()
        connection.request('POST', '/addressbook', ENTRY, JSON)
        self._was_late = time.monotonic() - quiet_since > QUIET
        answer = read(connection)
        if answer.status == 201:
            self.created += 1
        else:
            self.failure = answer.status
        return answer.will_close


class LimitsTest(TransportTestCase):
    """What one client can take from the others."""

    def test_connections_stay_below_the_limit_on_open_files(self) -> None:
        """64 files are kept for other things and 64 for saying no: of 160 that leaves 32."""
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            config = write_config(Path(folder), service={'http-parser': self.http_parser})
            server = ServerProcess('--port', '0', '--config', str(config),
                                   wrapper=('sh', '-c', 'ulimit -n 160 && exec "$@"', 'sh'))
            stack.callback(server.kill)
            server.wait_for_port()
            statuses = []
            for _ in range(60):
                connection = stack.enter_context(contextlib.closing(server.connect()))
                connection.request('GET', '/addressbook')
                statuses.append(read(connection).status)
            self.assertEqual([200] * 32 + [503] * 28, statuses)
            self.assertEqual(0, server.stop(), server.stderr)
        self.assertNotIn('Traceback', server.stderr)

    def test_a_large_book_is_streamed_in_little_memory(self) -> None:
        """100,000 entries, read by a client that is slow enough for others to come between."""
        with self.running_server(program=(str(ROOT / 'tests' / 'filled_server.py'),)) as server:
            get(server, '/healthz')
            before = server.resident_bytes()
            with contextlib.closing(server.connect()) as connection:
                connection.request('GET', '/addressbook')
                answer = connection.getresponse()
                chunks = [answer.read(1000)]
                self.assertEqual(200, get(server, '/healthz')[0])
                grown = 0
                while chunk := answer.read(1 << 20):
                    chunks.append(chunk)
                    grown = max(grown, server.resident_bytes() - before)
            # Not with json: what it makes of them is much, and the garbage collector's to look at.
            book = msgspec.json.decode(b''.join(chunks), type=dict[str, msgspec.Raw])
            self.assertEqual(100_000, len(book))
            self.assertLess(grown, 20_000_000)


def read(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    """The answer, its body read, so that the connection can take the next request."""
    answer = connection.getresponse()
    answer.read()
    return answer


@contextlib.contextmanager
def half_a_request(server: ServerProcess) -> Iterator[socket.socket]:
    """A connection on which ten bytes of a POST's body have arrived."""
    with socket.create_connection(('127.0.0.1', server.port), DEADLINE) as client:
        client.sendall(
            b'POST /addressbook HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
            b'Expect: 100-continue\r\nContent-Length: %d\r\n\r\n' % len(ENTRY))
        assert b'100' in client.recv(1000)
        client.sendall(ENTRY.encode()[:10])
        yield client


def refuses_connections(server: ServerProcess) -> bool:
    try:
        socket.create_connection(('127.0.0.1', server.port), DEADLINE).close()
    except ConnectionRefusedError:
        return True
    return False
