"""The service as several processes on one SQLite file: deaths, reloads, the end, systemd."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from addrservice.tracing import AbstractTraceCollector, Span
from tests.support import (
    DEADLINE, JSON, ServerProcess, address, wait_until, write_config,
)

ENTRY: Final = json.dumps(address('namo'))

PAUSE: Final = 0.005  # seconds between a client's requests: cores are needed to start workers, too

# Stands where systemd does: runs a program that has inherited a listening socket.
ACTIVATE: Final = '''
import os, socket, sys
if path := os.environ.pop('SOCKET', ''):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
else:
    listener = socket.create_server(('127.0.0.1', 0))
os.dup2(listener.detach(), 3)
os.set_inheritable(3, True)
os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}
os.execv(sys.argv[1], sys.argv[1:])
'''


class StuckCollector(AbstractTraceCollector):
    """Stops the event loop of a process that gets a request with a certain header field."""

    def enter(self, span: Span) -> None:
        if 'X-Stuck' in span.carrier:
            time.sleep(60)

    def exit(self, span: Span) -> None:
        pass


class Client(threading.Thread):
    """Reads and writes on one connection for as long as the service keeps it, then on another.

    ``failures`` has, for each request without its answer, the local port and what became of it.
    """

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(daemon=True)
        self.answers = 0
        self.failures: list[tuple[int, str]] = []
        self._server = server
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._done.is_set():
            with contextlib.closing(self._server.connect()) as connection:
                connection.connect()
                port = connection.sock.getsockname()[1]
                try:
                    self._use(connection)
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append((port, repr(error)))

    def _use(self, connection: http.client.HTTPConnection) -> None:
        closes = False
        while not closes and not self._done.wait(PAUSE):
            if self.answers % 10:
                connection.request('GET', '/addressbook?limit=1')
            else:
                connection.request('POST', '/addressbook', ENTRY, JSON)
            answer = connection.getresponse()
            answer.read()
            closes = answer.will_close
            if answer.status in (200, 201):
                self.answers += 1
            else:
                self.failures.append((connection.sock.getsockname()[1], str(answer.status)))

    def stop(self) -> None:
        self._done.set()
        self.join(DEADLINE)


class WorkersTestCase(unittest.TestCase):
    """The service with two workers."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def config(self, **sections: Any) -> Path:
        """A file that ``start`` has told the service to read."""
        store = {'sql': {'dsn': f'sqlite://{self.folder}/book.db', 'deadline': 5}}
        return write_config(self.folder, **{'addr-db': store, **sections})

    def start(self, wrapper: tuple[str, ...] = (), **sections: Any) -> ServerProcess:
        server = ServerProcess('--port', '0', '--processes', '2',
                               '--config', str(self.config(**sections)), wrapper=wrapper)
        self.addCleanup(server.kill)
        return server

    def serve(self, **options: Any) -> ServerProcess:
        server = self.start(**options)
        server.wait_for_port()
        return server

    def reload(self, server: ServerProcess, times: int = 1) -> None:
        """Sends SIGHUP and waits until the service has seen to it, for better or worse."""
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.errors_so_far().count('reloaded') == times, 2 * DEADLINE)

    @contextlib.contextmanager
    def clients(self, server: ServerProcess) -> Iterator[list[Client]]:
        """Eight clients at work."""
        clients = [Client(server) for _ in range(8)]
        try:
            wait_until(lambda: all(client.answers > 10 for client in clients))
            yield clients
        finally:
            for client in clients:
                client.stop()


class DeathTest(WorkersTestCase):
    """Workers that are lost."""

    def test_a_killed_worker_costs_its_own_requests_alone_and_is_replaced(self) -> None:
        server = self.serve()
        with self.clients(server) as clients:
            for killed in range(2):
                victim = server.workers()[killed]
                known = failures(clients)
                served = ports_of_clients(victim)
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda: server.errors_so_far().count('is ready') == killed + 3)
                answers = [client.answers for client in clients]
                wait_until(lambda: all(
                    client.answers > before for client, before in zip(clients, answers)))
                self.assertEqual([], [
                    lost for lost in failures(clients)
                    if lost not in known and lost[0] not in served])
        self.assertEqual(0, server.stop(), server.stderr)

    def test_a_worker_that_is_stuck_leaves_its_stack_and_is_replaced(self) -> None:
        collector = f'tests.integration.workers_test.{StuckCollector.__qualname__}'
        server = self.serve(service={'stuck-deadline': 0.5}, tracing={collector: None})
        with socket.create_connection(('127.0.0.1', server.port), DEADLINE) as client:
            client.sendall(b'GET /addressbook HTTP/1.1\r\nHost: localhost\r\nX-Stuck: 1\r\n\r\n')
            self.assertEqual(b'', client.recv(1000))
        wait_until(lambda: server.errors_so_far().count('is ready') > 2)
        self.assertEqual(200, get(server, '/addressbook').status)
        self.assertEqual(0, server.stop())
        self.assertRegex(server.stderr, r'worker \d \(process \d+\) is stuck')
        self.assertRegex(server.stderr, r'File .*workers_test.py", line \d+ in enter')

    def test_workers_whose_supervisor_was_killed_drain_and_end(self) -> None:
        server = self.serve(service={'stuck-deadline': 1})
        workers = server.workers()
        server.process.kill()
        wait_until(lambda: not any(Path(f'/proc/{worker}').exists() for worker in workers))
        server.wait()
        self.assertEqual(2, server.stderr.count('the supervisor is gone'))
        self.assertEqual(2, server.stderr.count(' drained'))
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', server.port))


class ReloadTest(WorkersTestCase):
    """SIGHUP."""

    def test_no_request_of_keep_alive_clients_is_lost_and_the_new_config_is_in_force(self) -> None:
        server = self.serve()
        with self.clients(server) as clients:
            for times in (1, 2):
                origin = f'https://app{times}.example'
                self.config(service={'cors-origins': [origin]})
                self.reload(server, times)
                for _ in range(8):
                    allowed = get(server, '/addressbook?limit=1', {'Origin': origin}).headers
                    self.assertEqual(origin, allowed['Access-Control-Allow-Origin'])
        self.assertEqual([], failures(clients))
        self.assertEqual(0, server.stop())
        self.assertNotIn('ERROR', server.stderr)

    def test_a_broken_config_is_refused_in_one_line_and_the_old_workers_stay(self) -> None:
        server = self.serve()
        workers = server.workers()
        broken: list[dict[str, Any]] = [
            {'service': {'drain-delay': 'soon'}},
            {'addr-db': {'memory': None}},
            {'tracing': {'addrservice.tracing.Nobody': None}},
        ]
        for times, sections in enumerate(broken, 1):
            before = server.errors_so_far().count('ERROR')
            self.config(**sections)
            self.reload(server, times)
            self.assertEqual(before + 1, server.errors_so_far().count('ERROR'))
            self.assertEqual(workers, server.workers())
        self.assertEqual(200, get(server, '/addressbook').status)


class StartAndStopTest(WorkersTestCase):
    """From the command line to the exit status."""

    def test_what_cannot_be_used_is_refused_in_one_line(self) -> None:
        refused: list[tuple[dict[str, Any], str]] = [
            ({'addr-db': {'memory': None}}, 'several processes cannot share a store in memory'),
            ({'tracing': {'addrservice.tracing.Nobody': None}}, 'addrservice.tracing.Nobody'),
        ]
        for sections, words in refused:
            server = self.start(**sections)
            self.assertEqual((2, ''), (server.wait(), server.stdout))
            self.assertRegex(server.stderr, rf'\Aaddrservice: .*config.yaml: .*{words}.*\n\Z')

    def test_it_starts_once_and_a_request_in_flight_is_finished_before_it_ends(self) -> None:
        server = self.serve()
        with contextlib.closing(server.connect()) as connection:
            connection.putrequest('POST', '/addressbook')
            connection.putheader('Content-Type', 'application/json')
            connection.putheader('Content-Length', str(len(ENTRY)))
            connection.endheaders(ENTRY[:10].encode())
            wait_until(lambda: sum(len(ports_of_clients(worker)) for worker in server.workers()))
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: server.errors_so_far().count(' draining') == 2)
            connection.send(ENTRY[10:].encode())
            answer = connection.getresponse()
            self.assertEqual(201, answer.status)
        self.assertEqual((0, ''), (server.wait(), server.stdout))


class SystemdTest(WorkersTestCase):
    """What it is told by systemd, and tells it."""

    @unittest.skipUnless(shutil.which('systemd-socket-activate'), 'systemd is not installed')
    def test_it_is_started_by_the_first_connection_to_a_socket_of_systemd(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as free:
            port = free.getsockname()[1]
        server = self.start(wrapper=(
            'systemd-socket-activate', f'--listen=127.0.0.1:{port}', '-E', 'PYTHONPATH'))
        wait_until(lambda: 'Listening on' in server.errors_so_far())
        with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port)) as first:
            first.request('GET', '/addressbook')
            self.assertEqual(200, first.getresponse().status)
        self.assertEqual(port, server.wait_for_port())
        self.assertEqual(0, server.stop(), server.stderr)

    def test_it_serves_on_a_socket_that_it_has_inherited_and_tells_how_it_is(self) -> None:
        path = str(self.folder / 'notify')
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(path)
            systemd.settimeout(DEADLINE)
            with patch.dict(os.environ, NOTIFY_SOCKET=path, WATCHDOG_USEC='200000'):
                server = self.start(wrapper=(sys.executable, '-c', ACTIVATE))
            hear(systemd, 'READY=1')
            server.wait_for_port()
            self.assertEqual(200, get(server, '/addressbook').status)
            hear(systemd, 'WATCHDOG=1')
            server.process.send_signal(signal.SIGTERM)
            hear(systemd, 'STOPPING=1')
        self.assertEqual(0, server.wait(), server.stderr)

    def test_a_socket_may_be_one_of_this_machine_alone(self) -> None:
        path = str(self.folder / 'http')
        with patch.dict(os.environ, SOCKET=path):
            server = self.start(wrapper=(sys.executable, '-c', ACTIVATE))
        assert server.process.stdout is not None
        self.assertEqual(f'Starting Address Book on {path} ...\n',
                         server.process.stdout.readline())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b'GET /addressbook HTTP/1.0\r\n\r\n')
            self.assertIn(b'200 OK', client.recv(1000))
        self.assertEqual(0, server.stop(), server.stderr)
        self.assertIn(f'listening on {path}', server.stderr)


def hear(systemd: socket.socket, state: str) -> None:
    """Waits until systemd is told of that state."""
    while not systemd.recv(1000).decode().startswith(state):
        pass


def get(server: ServerProcess, path: str, headers: dict[str, str] = {}
        ) -> http.client.HTTPResponse:
    """The answer to a GET on a connection of its own."""
    with contextlib.closing(server.connect()) as connection:
        connection.request('GET', path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer


def failures(clients: list[Client]) -> list[tuple[int, str]]:
    """The ports of the connections on which a request was lost, and what became of it."""
    return [lost for client in clients for lost in client.failures]


def ports_of_clients(process: int) -> set[int]:
    """The clients' ports of the connections that a process has (proc(5))."""
    sockets = set()
    for descriptor in Path(f'/proc/{process}/fd').iterdir():
        with contextlib.suppress(FileNotFoundError):
            sockets |= set(re.findall(r'socket:\[(\d+)\]', os.readlink(descriptor)))
    ports = set()
    for line in Path('/proc/net/tcp').read_text(encoding='ascii').splitlines()[1:]:
        _, _, remote, state, *rest = line.split()
        if rest[5] in sockets and state == '01':  # established
            ports.add(int(remote.partition(':')[2], 16))
    return ports
