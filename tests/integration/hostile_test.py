"""Clients that mean no good, against the service as a process.

Whatever they send: no 5xx, no hang, no traceback, nothing of it in the log but what the line of a
request has, and the book is as good as before.
"""

import http.client
import json
import re
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import unittest
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.entries import full_entry, places, replaced
from tests.hostile import (
    BODY_LIMIT, HEADER_LIMIT, Case, Cases, as_put, encoded_bodies, entries, floods, framing, head,
    ids, post, start_lines,
)
from tests.support import DEADLINE, JSON, ServerProcess, config_document, running_server, wait_until
from tests.wire import SECRET, SMALL, UNKNOWN_ID

GROWTH: Final = 20_000_000  # bytes that the process may have gained in the end

# All that may be logged: what the process does, and for a request what cannot be forged.
LOG_LINE: Final = re.compile(
    r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING) '
    r'(addrservice \S+ \S+ (store opened|store closed|listening on [0-9.]+ port \d+|drain(ing|ed))|'
    r'tornado\.access \S+ \S+ request'
    r' request_id="\S+" method="[^" ]*" path="([^"\\ ?]|\\.)*" status="\d{3}"'
    r' milliseconds="[0-9.]+" remote="127.0.0.1")')


class HostileTestCase(unittest.TestCase):
    """A server for each class, which has to come through each test unharmed."""

    http_parser = 'httptools'
    limits: dict[str, float] = {'body-timeout': 1.0}
    server: ServerProcess
    log: Path

    @classmethod
    def setUpClass(cls) -> None:
        folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.log = folder / 'service.log'
        logging = config_document(folder)['logging']
        logging['handlers']['console']['level'] = 'ERROR'  # stderr is for what must not happen
        cls.server = cls.enterClassContext(
            running_server(service={**cls.limits, 'http-parser': cls.http_parser},
                           logging=logging, tracing={}))

    @classmethod
    def tearDownClass(cls) -> None:
        """Checks that it ends well, and had nothing to complain about."""
        status = cls.server.stop()
        lines = cls.log.read_text(encoding='utf-8').splitlines()
        odd = [line for line in lines if not LOG_LINE.fullmatch(line)]
        if status or cls.server.stderr or odd:
            raise AssertionError(f'status {status}; {cls.server.stderr}; in the log: {odd[:10]}')

    def tearDown(self) -> None:
        for entry in self.book().values():
            self.assertIn('name', entry)

    def request(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        """The answer to a request of a client that means well."""
        connection = self.server.connect()
        self.addCleanup(connection.close)
        connection.request(method, path, body, JSON)
        return connection.getresponse()

    def book(self) -> dict[str, Any]:
        """The book as it is now."""
        answer = self.request('GET', '/addressbook')
        self.assertEqual(200, answer.status)
        book: dict[str, Any] = json.loads(answer.read())
        return book

    def create(self) -> str:
        """The path of a new entry."""
        answer = self.request('POST', '/addressbook', json.dumps(full_entry()))
        self.assertEqual(201, answer.status)
        return answer.headers['Location']

    def connect(self) -> socket.socket:
        """A raw connection."""
        sock = socket.create_connection(('127.0.0.1', self.server.port), DEADLINE)
        self.addCleanup(sock.close)
        return sock

    def send(self, data: bytes) -> bytes:
        """All that the server answers until it ends the connection."""
        with self.connect() as sock:
            with suppress(ConnectionError):  # it need not take everything
                sock.sendall(data)
            return received(sock)

    def assert_cases(self, cases: Cases) -> None:
        for name, case in cases.items():
            try:
                answer = self.send(case.data)
            except TimeoutError:  # the next one would wait in vain too
                self.fail(f'no end within {DEADLINE} s: {name}')
            with self.subTest(name):
                self.assertIn(status_of(answer), case.right(self.http_parser), answer[:300])
                if case.data[:4] != b'HEAD':
                    self.assert_explained(answer)

    def assert_explained(self, answer: bytes) -> None:
        """Checks that a refusal, where there is an answer at all, tells its code in JSON."""
        status = status_of(answer)
        if status is not None and status >= 400:
            fields, _, body = answer.partition(b'\r\n\r\n')
            self.assertIn(b'\r\nContent-Type: application/json\r\n', fields)
            self.assertEqual(status, json.loads(body)['code'])


def received(sock: socket.socket) -> bytes:
    """What comes until the other side ends the connection; a timeout is an error."""
    chunks = []
    with suppress(ConnectionError):
        while chunk := sock.recv(65_536):
            chunks.append(chunk)
    return b''.join(chunks)


def status_of(answer: bytes) -> int | None:
    """The status of the first answer in some bytes, None where there is none."""
    return int(answer.split(b' ', 2)[1]) if answer else None


class EntryTest(HostileTestCase):
    """Entries that poison a store, or a parser."""

    def test_a_post_is_refused_or_comes_back_in_the_book(self) -> None:
        cases, before = entries(), len(self.book())
        self.assert_cases(cases)
        accepted = sum(case.statuses == (201,) for case in cases.values())
        self.assertEqual(accepted, len(self.book()) - before)

    def test_a_put_is_refused_or_replaces_the_entry(self) -> None:
        path, before = self.create(), self.book().keys()
        self.assert_cases({name: as_put(case, path) for name, case in entries().items()})
        self.assertEqual(before, self.book().keys())

    def test_a_flood_of_errors_gets_a_short_answer(self) -> None:
        for name, body in floods():
            with self.subTest(name):
                _, _, answer = self.send(post(body)).partition(b'\r\n\r\n')
                self.assertLessEqual(len(json.loads(answer)['errors']), 10)
                self.assertLess(len(answer), 2 * BODY_LIMIT)

    def test_a_refusal_never_repeats_a_value(self) -> None:
        for place in places(full_entry()):
            with self.subTest(place):
                entry = replaced(full_entry(), place, [SECRET])
                answer = self.send(post(json.dumps(entry).encode()))
                self.assertEqual(400, status_of(answer))
                self.assertNotIn(SECRET.encode(), answer)

    def test_an_encoding_that_lies_is_refused(self) -> None:
        self.assert_cases(encoded_bodies())


class ProtocolTest(HostileTestCase):
    """Bytes that are nearly HTTP."""

    def test_a_body_without_a_clear_end_is_refused(self) -> None:
        self.assert_cases(framing())

    def test_odd_start_lines_and_headers_are_refused(self) -> None:
        self.assert_cases(start_lines())

    def test_odd_ids_are_unknown(self) -> None:
        self.create()
        before = self.book()
        self.assert_cases(ids())
        self.assertEqual(before, self.book())

    def test_what_comes_in_an_id_never_gets_into_the_head_of_an_answer(self) -> None:
        for name in ('%0d%0aX-Evil:%20y', '%0aX-Evil:%20y', '%0d%0a%0d%0aX-Evil:%20y', 'X-Evil:y'):
            with self.subTest(name):
                answer = self.send(head(f'GET /addressbook/{name} HTTP/1.1'))
                fields, _, body = answer.partition(b'\r\n\r\n')
                self.assertNotIn(b'X-Evil', fields)
                self.assertEqual(404, json.loads(body)['code'])

    def test_garbage_behind_a_request_costs_nothing_but_its_connection(self) -> None:
        get = b'GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n'
        for garbage in (b'garbage\r\n\r\n', b'\0' * 100 + b'\r\n\r\n', b'\xff\xfe\r\n\r\n',
                        b'a' * (HEADER_LIMIT + 1), b'GET\r\n\r\n', b'\x16\x03\x01\r\n\r\n'):
            with self.subTest(garbage[:20]):
                answer = self.send(get * 3 + garbage)
                self.assertEqual(3, answer.count(b'"uptime"'))
                self.assertEqual(200, status_of(answer))

    def test_a_client_that_leaves_at_any_point_harms_nobody(self) -> None:
        requests = (post(SMALL), head('GET /addressbook HTTP/1.1'),
                    post(b'5\r\n{"nam\r\n', 'Transfer-Encoding: chunked', length=False))
        for data in requests:
            for end in range(0, len(data), 5):
                for linger in (0, 1):
                    with self.connect() as sock:
                        sock.sendall(data[:end])
                        if linger == 0:  # close() is a reset then
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                            struct.pack('ii', 1, 0))


class NeverEndingTest(HostileTestCase):
    """Requests that never become whole, to a server with little patience."""

    limits = {'body-timeout': 0.3, 'idle-connection-timeout': 0.5}

    def test_a_head_that_never_ends_is_cut_off(self) -> None:
        with self.connect() as silent, self.connect() as slow:
            slow.sendall(b'GET /healthz HTTP/1.1\r\nX: ')
            self.assertEqual(b'', received(silent))
            self.assertEqual(b'', received(slow))

    def test_a_body_that_never_ends_is_cut_off(self) -> None:
        for start in (post(b'', 'Content-Length: 100', length=False) + b'{',
                      post(b'ff\r\n{', 'Transfer-Encoding: chunked', length=False)):
            with self.subTest(start[-20:]), self.connect() as sock:
                sock.sendall(start)
                ended = False
                while not ended:  # a byte now and then does not win it more time
                    ended = bool(select.select([sock], [], [], 0.03)[0])
                    with suppress(ConnectionError):
                        sock.send(b' ')
                self.assertIn(status_of(received(sock)), (None, 408))


class LargeBodyTest(HostileTestCase):
    """Bodies over the limit, from clients who want to know why they are refused."""

    sizes = {'100 KB': 100_000, '1 MB': 1_000_000, '8 MB': 8_000_000}

    def test_http_client_is_told(self) -> None:
        for name, size in self.sizes.items():
            for method, path in (('POST', '/addressbook'), ('PUT', f'/addressbook/{UNKNOWN_ID}')):
                with self.subTest(name, method=method):
                    self.assert_told(self.request(method, path, bytes(size)))

    def test_http_client_is_told_about_chunks(self) -> None:
        for name, size in self.sizes.items():
            with self.subTest(name):
                chunks = (bytes(10_000) for _ in range(size // 10_000))
                self.assert_told(self.request('POST', '/addressbook', chunks))

    def assert_told(self, answer: http.client.HTTPResponse) -> None:
        self.assertEqual(413, answer.status)
        self.assertIn(str(BODY_LIMIT), json.loads(answer.read())['message'])

    @unittest.skipUnless(shutil.which('curl'), 'curl is not installed')
    def test_curl_is_told(self) -> None:
        kinds = {
            'as it likes': ['--data-binary', '@-'],
            'without asking': ['--data-binary', '@-', '-H', 'Expect:'],
            'after asking': ['--data-binary', '@-', '-H', 'Expect: 100-continue'],
            'in chunks': ['-T', '-', '-X', 'POST'],
            'in chunks, without asking': ['-T', '-', '-X', 'POST', '-H', 'Expect:'],
        }
        for size_name, size in self.sizes.items():
            for kind, options in kinds.items():
                with self.subTest(kind, size=size_name):
                    done = subprocess.run(
                        ['curl', '-q', '-sS', '--max-time', str(DEADLINE), '--noproxy', '*',
                         '-w', '\n%{http_code}', '-H', 'Content-Type: application/json', *options,
                         f'http://127.0.0.1:{self.server.port}/addressbook'],
                        input=bytes(size), capture_output=True, check=False)
                    body, _, status = done.stdout.rpartition(b'\n')
                    self.assertEqual((0, b'413'), (done.returncode, status), done.stderr)
                    self.assertIn(str(BODY_LIMIT), json.loads(body)['message'])

    def test_a_body_of_50_mb_is_refused_or_cut_off(self) -> None:
        body = bytes(50_000_000)
        for name, data in {
            'declared': post(body),
            'in one chunk': post(b'2faf080\r\n' + body, 'Transfer-Encoding: chunked', length=False),
            'in many': post(b'10000\r\n%s\r\n' % bytes(65_536) * 700, 'Transfer-Encoding: chunked',
                            length=False),
        }.items():
            with self.subTest(name):
                self.assertIn(status_of(self.send(data)), (413, 400, None))


class MemoryTest(HostileTestCase):
    """What is left in the process after all of it."""

    def everything(self, path: str) -> None:
        body = post(bytes(8_000_000))
        cases = {**entries(), **encoded_bodies(), **framing(), **start_lines(), **ids(),
                 '8 MB': Case(body, (413,)), '50 MB': Case(post(bytes(50_000_000)), (413, None))}
        for name, case in cases.items():
            if case.statuses == (201,):
                case = as_put(case, path)
            self.send(case.data)
            with self.connect() as sock, suppress(ConnectionError):
                sock.sendall(case.data[:-1])

    def test_the_process_is_no_larger_than_before(self) -> None:
        path = self.create()
        self.everything(path)
        before = self.server.resident_bytes()
        for _ in range(2):
            self.everything(path)
        self.book()
        wait_until(lambda: self.server.resident_bytes() < before + GROWTH)


if __name__ == '__main__':
    unittest.main()
