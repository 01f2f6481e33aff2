"""Clients that mean no good, against the service as a process.

Whatever they send: no 5xx, no hang, no traceback, no forged line in the log, and the book is as
good as before.
"""

import gzip
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
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support import DEADLINE, JSON, config_document, running_server, wait_until

BODY_TIMEOUT: Final = 0.5  # seconds
IDLE_TIMEOUT: Final = 2.0  # seconds
BODY_LIMIT: Final = 64 * 1024  # bytes; the default
HEADER_LIMIT: Final = 16 * 1024  # bytes; the default
GROWTH: Final = 20_000_000  # bytes that the process may have gained in the end

SMALL: Final = b'{"name": "Ada"}'
UNKNOWN_ID: Final = '0' * 32

# Below ERROR, and in the line of a request nothing but pairs that cannot be forged.
LOG_LINE: Final = re.compile(
    r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING) '
    r'((addrservice|tornado\.general) |'
    r'tornado\.access \S+ \S+ request'
    r' request_id="\S+" method="[^" ]*" path="([^"\\ ]|\\.)*" status="\d{3}"'
    r' milliseconds="[0-9.]+" remote="127.0.0.1"$)')

# Every place of the schema is here.
FULL: Final[dict[str, Any]] = {
    'name': 'Ada Lovelace',
    'addresses': [{
        'kind': 'home', 'buildingName': 'The Tower', 'unitNumber': 1, 'streetNumber': '12B',
        'streetName': 'St James', 'locality': 'Westminster', 'city': 'London', 'state': 'England',
        'pincode': 'SW1A 2AA', 'country': 'UK',
    }],
    'phoneNumbers': [{'kind': 'work', 'countryCode': 44, 'areaCode': '020', 'number': 1234}],
    'faxNumbers': [{'kind': 'work', 'countryCode': 44, 'areaCode': '020', 'number': 1235}],
    'emails': [{'kind': 'home', 'value': 'ada@example.org'}],
}
NUMBER_OR_TEXT: Final = {'unitNumber', 'streetNumber', 'pincode', 'countryCode', 'areaCode',
                         'number'}


class Case(NamedTuple):
    """Something to send, and what may come of it.

    :param data: all that is sent
    :param statuses: the statuses that are right; None is a connection closed without an answer
    """

    data: bytes
    statuses: tuple[int | None, ...]


Cases = dict[str, Case]


def head(line: str, *fields: str) -> bytes:
    """A request without a body that asks for the end of the connection."""
    return '\r\n'.join([line, 'Host: test', 'Connection: close', *fields, '', '']).encode('latin-1')


def post(body: bytes, *fields: str, length: bool = True) -> bytes:
    """A POST with a body."""
    lengths = [f'Content-Length: {len(body)}'] if length else []
    return head('POST /addressbook HTTP/1.1', 'Content-Type: application/json',
                *lengths, *fields) + body


def json_bodies() -> dict[str, tuple[bytes, bool]]:
    """Bodies that break some JSON parser or database, and whether they are good entries."""
    def text(value: bytes) -> bytes:
        return b'{"name": "' + value + b'"}'

    def number(value: str) -> bytes:
        return (b'{"name": "Ada", "phoneNumbers": [{"kind": "home", "countryCode": 1, "number": '
                + value.encode() + b'}]}')

    return {
        'NaN': (number('NaN'), False), 'Infinity': (number('Infinity'), False),
        '-Infinity': (number('-Infinity'), False), '1e400': (number('1e400'), False),
        '1e131000 as text': (number('"1e131000"'), True), '1e131000': (number('1e131000'), False),
        'a long exponent': (number('1e' + '9' * 4000), False), '1e-400': (number('1e-400'), True),
        'integer of 5,000 digits': (number('9' * 5000), False), '2**64': (number('2**64'), False),
        '2**64 in full': (number(str(2**64)), False), '2**53': (number(str(2**53)), False),
        '2**53 - 1': (number(str(2**53 - 1)), True), '-2**53': (number(str(-2**53)), False),
        'leading zero': (number('012'), False), 'hexadecimal': (number('0x12'), False),
        'lone surrogate': (text(b'\\ud800'), False),
        'surrogate pair': (text(b'\\ud83d\\ude00'), True),
        'pair the wrong way': (text(b'\\ude00\\ud83d'), False),
        'escaped NUL': (text(b'\\u0000'), False),
        'NUL': (text(b'\0'), False), 'NUL in a key': (b'{"name": "Ada", "\\u0000": 1}', False),
        'surrogate in a key': (b'{"name": "Ada", "\\ud800": 1}', False),
        'surrogate in bytes': (text(b'\xed\xa0\x80'), False),
        'overlong': (text(b'\xc0\xaf'), False),
        'latin-1': (text(b'\xe9'), False), 'BOM': (b'\xef\xbb\xbf' + SMALL, False),
        'UTF-16': (SMALL.decode().encode('utf-16'), False),
        'UTF-32': (SMALL.decode().encode('utf-32-le'), False),
        'control character': (text(b'a\nb'), False), 'comment': (SMALL + b'// Ada', False),
        'noncharacter': (text('\uffff'.encode()), True),
        'separators': (text('\u2028'.encode()), True),
        'key twice': (b'{"name": 1, "name": "Ada"}', True), 'two values': (SMALL * 2, False),
        '65,536 brackets': (b'[' * BODY_LIMIT, False), '100,000 brackets': (b'[' * 100_000, False),
        'brackets that close': (b'[' * 999 + b']' * 999, False),
        '1,000 brackets in a name': (b'{"name": ' + b'[' * 1000 + b']' * 1000 + b'}', False),
        '1,000 objects in a name': (b'{"name":' * 1000 + b'1' + b'}' * 1000, False),
        '8,000 objects': (b'{"name":' * 8000, False),
        'empty': (b'', False), 'array': (b'[]', False), 'string': (b'"x"', False),
        'null': (b'null', False), 'true': (b'true', False), 'number': (b'0', False),
        'object': (b'{}', False), 'blank': (b' \n', False), 'form': (b'name=Ada', False),
        '__proto__': (b'{"name": "Ada", "__proto__": {}}', False),
        'SQL': (text(b"'; DROP TABLE addressbook; --"), True), 'format': (text(b'%s%n{0}'), True),
        'log lines': (text(b'\\r\\n2026-01-01 ERROR forged'), True),
    }


def floods() -> Iterator[tuple[str, bytes]]:
    """Bodies of 64 KiB that have as many errors as fit."""
    def filled(start: bytes, item: bytes, end: bytes) -> bytes:
        count = (BODY_LIMIT - len(start) - len(end)) // (len(item) + 1)
        return start + b','.join([item] * count) + end

    for items in (b'1', b'{}', b'[]', b'null', b'{"kind":"moon"}', b'""'):
        yield f'items {items!r}', filled(b'{"emails":[', items, b']}')
    yield 'all lists', (b'{"name":"Ada","addresses":' + filled(b'[', b'1', b']')[:20_000] + b'1],'
                        b'"emails":[' + b'{},' * 10_000 + b'{}]}')
    names = (b'"%x":0' % number for number in range(7000))
    yield 'unknown properties', b'{' + b','.join(names) + b'}'
    yield 'one long unknown property', b'{"' + b'x' * 65_000 + b'":0}'
    yield 'a long name', b'{"name":"' + b'x' * 65_000 + b'"}'
    yield 'a long email', (b'{"name":"Ada","emails":[{"kind":"home","value":"' + b'a.' * 30_000
                           + b'"}]}')
    yield 'tildes and slashes', b'{"' + b'~/' * 30_000 + b'":0}'


def wrong_entries(entry: Any = FULL) -> Iterator[tuple[str, Any]]:
    """Entries that are wrong in one place each, with a name that says where."""
    for path, value in places(entry):
        for wrong in wrong_values(path, value):
            yield f'/{"/".join(map(str, path))} {json.dumps(wrong)[:20]}', put(entry, path, wrong)
    for path, value in places(entry):
        if isinstance(value, dict):
            yield f'{path} with another', put(entry, path, {**value, 'other': 1})
            for name in {'name', 'kind', 'country', 'number', 'value', 'streetName'} & value.keys():
                less = {key: value[key] for key in value if key != name}
                yield f'{path} without {name}', put(entry, path, less)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Every place in an entry, with what is there."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def wrong_values(path: tuple[str | int, ...], value: Any) -> Iterator[Any]:
    """Values that may not be in the place of one."""
    yield from (None, True)
    if not isinstance(value, dict):
        yield {}
    if isinstance(value, list):
        yield [value[0]] * 101
    else:
        yield []
    if isinstance(value, dict | list):
        yield from ('x', 7)
    else:
        yield from ('x' * 257, 'a\0b')
        if path[-1] in NUMBER_OR_TEXT:
            yield from (2**53, -1e300)
        else:
            yield 7


def put(entry: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of an entry with something else in one place."""
    if not path:
        return value
    copy = entry.copy()
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy


def encoded_bodies() -> Cases:
    """Encodings that lie, break off or never end."""
    packed = gzip.compress(SMALL)
    junk = {
        'broken': b'this is no gzip', 'truncated': packed[:-12], 'without its trailer': packed[:-8],
        'with half a trailer': packed[:-2], 'with a wrong checksum': packed[:-8] + b'12345678',
        'with junk behind': packed + b'junk', 'header alone': packed[:10],
        'zlib': zlib.compress(SMALL),
    }
    return {
        **{f'gzip, {name}': Case(post(body, 'Content-Encoding: gzip'), (400,))
           for name, body in junk.items()},
        'nothing': Case(post(b'', 'Content-Encoding: gzip'), (400,)),
        'twice compressed': Case(post(gzip.compress(packed), 'Content-Encoding: gzip'), (400,)),
        'many members': Case(post(gzip.compress(b' ') * 500 + packed, 'Content-Encoding: gzip'),
                             (201,)),
        'empty members': Case(post(gzip.compress(b'') * 3000 + packed, 'Content-Encoding: gzip'),
                              (201,)),
        'bomb of 1 MB': Case(post(gzip.compress(bytes(10**6)), 'Content-Encoding: gzip'), (413,)),
        'bomb of 60 MB': Case(post(gzip.compress(bytes(6 * 10**7)), 'Content-Encoding: gzip'),
                              (413,)),
        **{coding: Case(post(packed, f'Content-Encoding: {coding}'), (415,))
           for coding in ('deflate', 'br', 'x-gzip', 'gzip,gzip', 'gzip, gzip', 'compress', 'zstd',
                          'identity, gzip', 'x', '\xff')},
        'twice': Case(post(packed, 'Content-Encoding: gzip', 'Content-Encoding: gzip'), (415,)),
    }


def framing() -> Cases:
    """Requests whose body has no clear end."""
    tail = (400, None)
    ending = b'\r\n0\r\n\r\n'

    def sized(*lengths: str) -> bytes:
        return post(SMALL, *(f'Content-Length: {length}' for length in lengths), length=False)

    def chunks(body: bytes) -> bytes:
        return post(body, 'Transfer-Encoding: chunked', length=False)

    good = b'%x\r\n%s\r\n' % (len(SMALL), SMALL)
    return {
        **{f'length {length[:30]}': Case(sized(length), (400,)) for length in (
            '-1', '+15', 'abc', '1e1', '0x0f', '15 15', '15;', '', '\xb2', '9' * 19, '9' * 40,
            '9' * 5000, '15, 16')},
        'lengths that differ': Case(sized('15', '16'), (400,)),
        'lengths that agree': Case(sized('15', '15'), (201,)),
        'no length': Case(head('POST /addressbook HTTP/1.1', 'Content-Type: application/json'),
                          (400,)),
        'length and chunks': Case(post(good + b'0\r\n\r\n', 'Transfer-Encoding: chunked'), (400,)),
        **{f'transfer encoding {coding}': Case(
            post(good + b'0\r\n\r\n', f'Transfer-Encoding: {coding}', length=False), (400,))
           for coding in ('gzip', 'identity', 'chunked, chunked', 'gzip, chunked', 'xchunked',
                          ',chunked', 'chunked;x')},
        **{f'chunk size {size[:20]!r}': Case(chunks(size + b'\r\n' + SMALL + ending), tail)
           for size in (b'zz', b'-1', b'+f', b'0xf', b' f', b'f ', b'', b'f' * 20, b'f' * 70,
                        b'\xff', b'f;' + b'x' * 100, b'f\n')},
        'chunk too short': Case(chunks(b'10\r\n' + SMALL + b'\r\n0\r\n\r\n'), tail),
        'chunk too long': Case(chunks(b'3\r\n' + SMALL + b'\r\n0\r\n\r\n'), tail),
        'trailers': Case(chunks(good + b'0\r\nX: y\r\n\r\n'), (400, 201)),
        'thousands of tiny chunks': Case(chunks(b'1\r\n \r\n' * 20_000 + good + b'0\r\n\r\n'),
                                         (201,)),
        'chunks over the limit': Case(chunks(b'10000\r\n' + b' ' * 65_536 + b'\r\n' + good
                                             + b'0\r\n\r\n'), (413,)),
    }


def start_lines() -> Cases:
    """Start lines and headers that are odd, huge or forged."""
    get = 'GET /healthz HTTP/1.1'
    return {
        **{line[:40]: Case(head(line), (400, None)) for line in (
            '', 'GET', 'GET /healthz', 'GET /healthz HTTP/2.0', 'GET /healthz HTTP/0.9',
            'GET /healthz HTTQ/1.1', 'GET /healthz HTTP/1.1 x', 'GET /health z HTTP/1.1',
            ' /healthz HTTP/1.1', 'GET  HTTP/1.1', 'GET /\0 HTTP/1.1', 'G\0T / HTTP/1.1',
            'G(T / HTTP/1.1', 'PRI * HTTP/2.0', 'GET /healthz HTTP/1.1\rX: y', '\x16\x03\x01\x02',
            'GET /' + 'a' * HEADER_LIMIT + ' HTTP/1.1')},
        **{line: Case(head(line), (404,)) for line in (
            'OPTIONS * HTTP/1.1', 'CONNECT test:80 HTTP/1.1', 'GET http: HTTP/1.1',
            'GET http://[ HTTP/1.1', 'GET ? HTTP/1.1', 'GET # HTTP/1.1', 'GET x HTTP/1.1',
            'GET //evil/addressbook HTTP/1.1', 'GET /../etc/passwd HTTP/1.1')},
        'absolute URI': Case(head('GET http://test/healthz HTTP/1.1'), (200, 404)),
        'odd query': Case(head('GET /healthz?%ff=%00&&=;%zz HTTP/1.1'), (200,)),
        'lower case method': Case(head('get /healthz HTTP/1.1'), (405,)),
        'long method': Case(head('G' * 5000 + ' /healthz HTTP/1.1'), (405, 400)),
        'bare LF': Case(head(get).replace(b'\r', b''), (200, 400)),
        'empty lines first': Case(b'\r\n' + head(get), (200,)),
        'no host': Case(b'GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n', (400,)),
        'two hosts': Case(head(get, 'Host: other'), (400,)),
        **{f'host {name!r}': Case(head(get).replace(b'test', name), (400,))
           for name in (b'a b', b'a/b', b'\xff', b'a@b')},
        **{f'field {field[:30]!r}': Case(head(get, field), (400, None)) for field in (
            'no colon', 'a b: c', ': c', 'X: a\0b', 'X: a\rY: b', 'X\0: a', 'X: \x7f', 'X : a',
            'X: ' + 'a' * HEADER_LIMIT)},
        '10,000 headers': Case(head(get, *['a: b'] * 10_000), (400, 431, None)),
        'as many headers as fit': Case(head(get, *['a:b'] * 3000), (200,)),
        'huge headers': Case(head(get, *[f'X-{n}: {"a" * 1000}' for n in range(1000)]),
                             (400, 431, None)),
        'forwarded': Case(head(get, 'X-Forwarded-For: \xff,,,', 'X-Real-Ip: ::1::',
                               'X-Forwarded-Proto: gopher'), (200,)),
        'odd negotiation': Case(head(get, 'Accept-Encoding: gzip;q=;q=0,*;;,,\xff;q=9e9',
                                     'If-None-Match: "', 'Range: bytes=-', 'Cookie: =;=;;'),
                                (200,)),
        'upgrade': Case(head(get, 'Upgrade: websocket', 'Sec-WebSocket-Key: x'), (200,)),
        'expectations': Case(post(SMALL, 'Expect: 200-ok'), (201, 417)),
        'a body nobody asked for': Case(head(get, 'Content-Length: 3') + b'abc', (200,)),
        'media type': Case(head('POST /addressbook HTTP/1.1', 'Content-Length: 0',
                                'Content-Type: ' + 'application/json;' * 500), (415,)),
        'multipart': Case(head('POST /addressbook HTTP/1.1', 'Content-Length: 4',
                               'Content-Type: multipart/form-data; boundary=') + b'----', (415,)),
    }


def ids() -> Cases:
    """Ids of odd characters, for each method; a start line cannot hold a blank or a NUL."""
    names = (
        '%00', '%2F', 'a%2Fb', '%2e%2e', '..', '.', '%2E%2E%2F%2E%2E%2Fetc%2Fpasswd',
        '%0d%0aX:%20y', '%F0%9F%98%80', '%u0041', '%', '%zz', '%4', '%%%', 'a;b', '*',
        "'%20OR%201=1%20--", '{}', '%7B0%7D', '%25s%25n', '\xe9', '\xff', '%E2%80%A8',
        UNKNOWN_ID.upper(), '-1', '"status="200', '\\"', 'a' * 5000, '%41' * 1000,
        UNKNOWN_ID + '%20', '~' * 100,
    )
    bad_text = ('%FF', '%C0%AF', '%ED%A0%80', '%80' * 100)
    cases = {}
    for method, body in (('GET', b''), ('HEAD', b''), ('PUT', SMALL), ('DELETE', b'')):
        fields = ['Content-Type: application/json', f'Content-Length: {len(body)}'] if body else []
        for name in (*names, *bad_text):
            cases[f'{method} {name[:40]}'] = Case(
                head(f'{method} /addressbook/{name} HTTP/1.1', *fields) + body,
                (400, 404) if name in bad_text else (404,))
    return cases


def entries() -> Cases:
    """All the bodies above as POST and PUT."""
    cases = {}
    for name, (body, good) in json_bodies().items():
        status = 201 if good else 400 if len(body) <= BODY_LIMIT else 413
        cases[name] = Case(post(body), (status,))
    for name, body in floods():
        cases[name] = Case(post(body), (400,))
    for name, entry in wrong_entries():
        cases[name] = Case(post(json.dumps(entry).encode()), (400,))
    return cases


def as_put(case: Case, path: str) -> Case:
    """The same as a PUT of an entry that is there."""
    line = f'PUT {path} HTTP/1.1\r\n'.encode()
    return Case(line + case.data.partition(b'\r\n')[2],
                tuple(204 if status == 201 else status for status in case.statuses))


class HostileTestCase(unittest.TestCase):
    """A server of its own for each test, which has to have come through it unharmed."""

    def setUp(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        logging = config_document(folder)['logging']
        logging['handlers']['console']['level'] = 'ERROR'  # nobody reads stderr before the end
        self.log = folder / 'service.log'
        self.server = self.enterContext(running_server(
            service={'body-timeout': BODY_TIMEOUT, 'idle-connection-timeout': IDLE_TIMEOUT},
            logging=logging, tracing={}))
        self.addCleanup(self.assert_unharmed)

    def assert_unharmed(self) -> None:
        """Checks that it still answers, ends well, and has nothing to complain about."""
        for body in self.book().values():
            self.assertIn('name', body)
        self.assertEqual(0, self.server.stop())
        self.assertEqual('', self.server.stderr)
        for line in self.log.read_text(encoding='utf-8').splitlines():
            self.assertRegex(line, LOG_LINE)

    def book(self) -> dict[str, Any]:
        """The book as it is now."""
        connection = self.server.connect()
        self.addCleanup(connection.close)
        connection.request('GET', '/addressbook')
        answer = connection.getresponse()
        self.assertEqual(200, answer.status)
        book: dict[str, Any] = json.loads(answer.read())
        return book

    def create(self) -> str:
        """The path of a new entry."""
        connection = self.server.connect()
        self.addCleanup(connection.close)
        connection.request('POST', '/addressbook', json.dumps(FULL), JSON)
        answer = connection.getresponse()
        answer.read()
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
                self.assertIn(status_of(answer), case.statuses, answer[:300])


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
        cases = entries()
        self.assert_cases(cases)
        accepted = sum(case.statuses == (201,) for case in cases.values())
        self.assertEqual(accepted, len(self.book()))

    def test_a_put_is_refused_or_replaces_the_entry(self) -> None:
        path = self.create()
        self.assert_cases({name: as_put(case, path) for name, case in entries().items()})
        self.assertEqual(1, len(self.book()))

    def test_a_flood_of_errors_gets_a_short_answer(self) -> None:
        for name, body in floods():
            with self.subTest(name):
                _, _, answer = self.send(post(body)).partition(b'\r\n\r\n')
                self.assertLessEqual(len(json.loads(answer)['errors']), 10)
                self.assertLess(len(answer), 2 * BODY_LIMIT)

    def test_a_refusal_never_repeats_a_value(self) -> None:
        for path, _ in places(FULL):
            if path:
                with self.subTest(path):
                    entry = put(FULL, path, ['Pimpernel'])
                    answer = self.send(post(json.dumps(entry).encode()))
                    self.assertEqual(400, status_of(answer))
                    self.assertNotIn(b'Pimpernel', answer)

    def test_an_encoding_that_lies_is_refused(self) -> None:
        self.assert_cases(encoded_bodies())


class ProtocolTest(HostileTestCase):
    """Bytes that are nearly HTTP."""

    def test_a_body_without_a_clear_end_is_refused(self) -> None:
        self.assert_cases(framing())

    def test_odd_start_lines_and_headers_are_refused(self) -> None:
        self.assert_cases(start_lines())

    def test_odd_ids_are_unknown(self) -> None:
        path = self.create()
        self.assert_cases(ids())
        self.assertEqual({path.rpartition('/')[2]: FULL}, self.book())

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
                    ended = bool(select.select([sock], [], [], BODY_TIMEOUT / 10)[0])
                    with suppress(ConnectionError):
                        sock.send(b' ')
                self.assertIn(status_of(received(sock)), (None, 408))

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


class LargeBodyTest(HostileTestCase):
    """Bodies over the limit, from clients who want to know why they are refused."""

    sizes = {'100 KB': 100_000, '1 MB': 1_000_000, '8 MB': 8_000_000}

    def test_http_client_is_told(self) -> None:
        for name, size in self.sizes.items():
            for method, path in (('POST', '/addressbook'), ('PUT', f'/addressbook/{UNKNOWN_ID}')):
                with self.subTest(name, method=method):
                    connection = self.server.connect()
                    self.addCleanup(connection.close)
                    connection.request(method, path, bytes(size), JSON)
                    self.assert_told(connection.getresponse())

    def test_http_client_is_told_about_chunks(self) -> None:
        for name, size in self.sizes.items():
            with self.subTest(name):
                connection = self.server.connect()
                self.addCleanup(connection.close)
                chunks = (bytes(10_000) for _ in range(size // 10_000))
                connection.request('POST', '/addressbook', chunks, JSON, encode_chunked=True)
                self.assert_told(connection.getresponse())

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
