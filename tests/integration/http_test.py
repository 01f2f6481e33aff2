"""The HTTP contract, over real sockets.

``ProbeTest``, ``BookTest``, ``EntryTest``, ``RefusalTest`` and ``PagesTest`` hold for every
backend: inherit them, override ``make_settings``. The rest is about HTTP alone, or needs a store
that misbehaves, and runs on the one in memory.
"""

import asyncio
import contextlib
import gzip
import json
import logging
import socket
import time
import unittest
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final, NamedTuple

from tornado.httpclient import HTTPResponse
from tornado.httputil import HTTPHeaders, parse_response_start_line

from addrservice import LOGGER_NAME
from addrservice.addressbook_db import (
    PAGE_SIZE, AbstractAddressBookDB, InMemoryAddressBookDB, StoredEntry,
)
from addrservice.app import make_application
from addrservice.base_handler import MAX_DISCARDED
from addrservice.config import Settings
from addrservice.errors import NicknameTakenError, StoreUnavailableError
from addrservice.http_server import MAX_OVERFLOW
from addrservice.logs import KeyValueFormatter, RequestFilter
from addrservice.service import AddressBookService
from tests.support import DEADLINE, JSON, HTTPTestCase, address, make_settings

UNKNOWN_ID: Final = '0' * 32
SMALL: Final = b'{"name": "Ada"}'
SECRET: Final = 'Pimpernel'  # what must not turn up
LIMIT: Final = 2000  # bytes of a body, where a test needs a limit that is soon reached

# Paths of each kind with what is allowed there; {} is the id of an entry.
ROUTES: Final = {
    '/healthz': {'GET', 'HEAD'},
    '/readiness': {'GET', 'HEAD'},
    '/addressbook': {'GET', 'HEAD', 'POST'},
    '/addressbook/{}': {'GET', 'HEAD', 'PUT', 'DELETE'},
}


class Answer(NamedTuple):
    """What came back over a raw connection."""

    status: int
    reason: str
    headers: HTTPHeaders
    body: bytes


class Connection:
    """A client that writes what it likes and reads the answers one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(DEADLINE):
            await self._writer.drain()

    async def answer(self, *, has_body: bool = True) -> Answer:
        """The next answer; without its body where the request was a HEAD."""
        async with asyncio.timeout(DEADLINE):
            head = (await self._reader.readuntil(b'\r\n\r\n')).decode('latin-1')
            line, _, fields = head.partition('\r\n')
            start, headers = parse_response_start_line(line), HTTPHeaders.parse(fields)
            body = b''
            if has_body and start.code >= 200 and start.code not in (204, 304):
                body = await self._body(headers)
            return Answer(start.code, start.reason, headers, body)

    async def _body(self, headers: HTTPHeaders) -> bytes:
        if headers.get('Transfer-Encoding') == 'chunked':
            return b''.join([chunk async for chunk in self._chunks()])
        if 'Content-Length' in headers:
            return await self._reader.readexactly(int(headers['Content-Length']))
        return await self._reader.read()

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        size = None
        while size != 0:
            size = int(await self._reader.readuntil(b'\r\n'), 16)
            yield (await self._reader.readexactly(size + 2))[:-2]

    async def exchange(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    async def at_end(self) -> bool:
        """Whether the server has closed the connection, and has sent nothing before that."""
        async with asyncio.timeout(DEADLINE):
            try:
                return await self._reader.read(1) == b''
            except ConnectionResetError:
                return True

    def reset(self) -> None:
        """Ends the connection as a client does that crashes."""
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Lines(logging.Handler):
    """Keeps what was logged, as records and as the lines that the configuration would make."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.addFilter(RequestFilter())
        self.setFormatter(KeyValueFormatter('%(levelname)s %(name)s %(message)s'))
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == 'asyncio' and record.levelno < logging.ERROR:
            return  # in tests it reports slow callbacks
        self.records.append(record)
        self.lines.append(self.format(record))

    def requests(self) -> list[dict[str, Any]]:
        """What the lines of requests say."""
        return [vars(record) for record in self.records if record.name == 'tornado.access']


class WireTestCase(HTTPTestCase):
    """Raw connections, logs, and what most tests here ask of an answer."""

    async def connect(self, receive_buffer: int | None = None) -> Connection:
        """A new connection, with a small receive buffer for a client that reads slowly."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ('127.0.0.1', self.port))
        connection = Connection(*await asyncio.open_connection(sock=sock))
        self.addAsyncCleanup(connection.close)
        return connection

    async def exchange(self, data: bytes) -> Answer:
        """The answer to bytes on a connection of their own."""
        return await (await self.connect()).exchange(data)

    @contextlib.contextmanager
    def logged(self) -> Iterator[Lines]:
        """Everything that is logged meanwhile, from DEBUG up."""
        lines = Lines()
        root = logging.getLogger()
        levels = {logger: logger.level for logger in map(
            logging.getLogger, (None, LOGGER_NAME, 'tornado', 'tornado.access',
                                'tornado.application', 'tornado.general', 'asyncio'))}
        root.addHandler(lines)
        try:
            for logger in levels:
                logger.setLevel(logging.DEBUG)
            yield lines
        finally:
            root.removeHandler(lines)
            for logger, level in levels.items():
                logger.setLevel(level)

    async def until(self, condition: Callable[[], object]) -> None:
        """Gives the server its turn until something is so."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.001)

    def assert_error(
        self, answer: HTTPResponse | Answer, status: int, message: str | None = None
    ) -> dict[str, Any]:
        """Checks an error in JSON and gives its body."""
        code = answer.code if isinstance(answer, HTTPResponse) else answer.status
        self.assertEqual(status, code, answer.body)
        self.assertEqual('application/json', answer.headers['Content-Type'])
        body: dict[str, Any] = json.loads(answer.body)
        self.assertLessEqual({'method', 'uri', 'code', 'message', 'requestId'}, body.keys())
        self.assertEqual(status, body['code'])
        self.assertEqual(answer.headers['X-Request-ID'], body['requestId'])
        if message is not None:
            self.assertEqual(message, body['message'])
        return body

    def assert_empty(self, answer: HTTPResponse | Answer) -> None:
        """Checks that an answer has no body and declares none."""
        self.assertEqual(b'', answer.body)
        for name in ('Content-Type', 'Content-Length', 'Transfer-Encoding', 'Content-Encoding'):
            self.assertNotIn(name, answer.headers)


def request(method: str, path: str, body: bytes | None = None, /, **headers: str) -> bytes:
    """A request as bytes; keywords are headers, with hyphens for underscores."""
    fields = {'Host': 'test', **{name.replace('_', '-'): headers[name] for name in headers}}
    if body is not None:
        fields = {'Content-Type': 'application/json', 'Content-Length': str(len(body)), **fields}
    lines = [f'{method} {path} HTTP/1.1', *(f'{name}: {fields[name]}' for name in fields)]
    return '\r\n'.join([*lines, '', '']).encode('latin-1') + (body or b'')


def chunked(body: bytes, size: int) -> bytes:
    """A body in chunks, the last one with it."""
    pieces = [body[start:start + size] for start in range(0, len(body), size)]
    return b''.join(b'%x\r\n%s\r\n' % (len(piece), piece) for piece in [*pieces, b''])


CHUNKED: Final = {'Transfer_Encoding': 'chunked', 'Content_Type': 'application/json'}


def padded(size: int) -> bytes:
    """A good entry of just so many bytes."""
    return SMALL + b' ' * (size - len(SMALL))


class ProbeTest(WireTestCase):
    """/healthz and /readiness."""

    async def asyncSetUp(self) -> None:
        self.started = time.monotonic()
        await super().asyncSetUp()

    async def test_healthz_tells_the_uptime_in_milliseconds(self) -> None:
        answer = await self.fetch('GET', '/healthz')
        self.assertEqual(200, answer.code)
        self.assertEqual('application/json', answer.headers['Content-Type'])
        self.assertEqual({'uptime'}, json.loads(answer.body).keys())
        await asyncio.sleep(0.02)
        later = json.loads((await self.fetch('GET', '/healthz')).body)['uptime']
        self.assertIsInstance(later, int)
        self.assertGreaterEqual(later, 20)
        self.assertLessEqual(later, 1000 * (time.monotonic() - self.started))

    async def test_readiness_tells_that_it_is_ready(self) -> None:
        answer = await self.fetch('GET', '/readiness')
        self.assertEqual(200, answer.code)
        body = json.loads(answer.body)
        self.assertIs(True, body['ready'])
        self.assertIsInstance(body['uptime'], int)
        self.assertNotIn('Retry-After', answer.headers)

    async def test_a_draining_service_is_not_ready_but_alive_and_at_work(self) -> None:
        self.service.drain()
        answer = await self.fetch('GET', '/readiness')
        self.assertEqual(503, answer.code)
        self.assertIs(False, json.loads(answer.body)['ready'])
        self.assertRegex(answer.headers['Retry-After'], '^[0-9]+$')
        self.assertEqual(200, (await self.fetch('GET', '/healthz')).code)
        await self.post(address('namo'))


class BookTest(WireTestCase):
    """/addressbook."""

    async def test_an_empty_book_is_an_empty_object(self) -> None:
        answer = await self.fetch('GET', '/addressbook')
        self.assertEqual((200, b'{}'), (answer.code, answer.body))
        self.assertEqual('application/json', answer.headers['Content-Type'])

    async def test_a_post_answers_with_a_location_and_no_body(self) -> None:
        answer = await self.fetch('POST', '/addressbook', json.dumps(address('namo')), JSON)
        self.assertEqual((201, 'Created', b''), (answer.code, answer.reason, answer.body))
        self.assertRegex(answer.headers['Location'], '^/addressbook/[0-9a-f]{32}$')
        self.assertEqual('0', answer.headers['Content-Length'])
        self.assertNotIn('Content-Type', answer.headers)

    async def test_equal_entries_get_ids_of_their_own_which_sort_by_creation(self) -> None:
        locations = [await self.post(address('namo')) for _ in range(20)]
        self.assertEqual(20, len(set(locations)))
        self.assertEqual(sorted(locations), locations)

    async def test_the_book_has_all_entries_in_order_of_id(self) -> None:
        entries = [address('raga'), address('namo'), {'name': 'Ada'}]
        ids = [(await self.post(entry)).rpartition('/')[2] for entry in entries]
        book = json.loads((await self.fetch('GET', '/addressbook')).body)
        self.assertEqual(list(zip(ids, entries)), list(book.items()))

    async def test_a_deleted_entry_is_no_longer_in_the_book(self) -> None:
        gone, kept = await self.post({'name': 'Ada'}), await self.post({'name': 'Bob'})
        await self.fetch('DELETE', gone)
        book = json.loads((await self.fetch('GET', '/addressbook')).body)
        self.assertEqual({kept.rpartition('/')[2]: {'name': 'Bob'}}, book)

    async def test_text_beyond_ascii_comes_back_as_it_was(self) -> None:
        entry = {'name': 'नरेन्द्र मोदी \U0001f600 "\\/\b\t\u2028 é e\u0301'}
        location = await self.post(entry)
        self.assertEqual(entry, json.loads((await self.fetch('GET', location)).body))
        body = json.dumps(entry, ensure_ascii=False).encode()
        answer = await self.fetch('PUT', location, body, JSON)
        self.assertEqual(204, answer.code)
        self.assertEqual(entry, json.loads((await self.fetch('GET', location)).body))


class EntryTest(WireTestCase):
    """/addressbook/<id>."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.path = await self.post(address('namo'))

    async def etag(self) -> str:
        return (await self.fetch('GET', self.path)).headers['ETag']

    async def test_an_entry_comes_back_with_its_values_and_the_order_of_its_keys(self) -> None:
        answer = await self.fetch('GET', self.path)
        self.assertEqual(200, answer.code)
        self.assertEqual('application/json', answer.headers['Content-Type'])
        self.assertEqual(json.dumps(address('namo')), json.dumps(json.loads(answer.body)))
        turned = dict(reversed(address('namo').items()))
        answer = await self.fetch('GET', await self.post(turned))
        self.assertEqual(json.dumps(turned), json.dumps(json.loads(answer.body)))

    async def test_an_entry_has_a_strong_etag_that_lasts_until_it_is_put(self) -> None:
        first = await self.etag()
        self.assertRegex(first, '^"[!#-~]+"$')
        self.assertEqual(first, await self.etag())
        await self.fetch('PUT', self.path, json.dumps(address('raga')), JSON)
        second = await self.etag()
        self.assertNotEqual(first, second)
        await self.fetch('PUT', self.path, json.dumps(address('namo')), JSON)
        self.assertNotIn(await self.etag(), (first, second))

    async def test_a_matching_if_none_match_gets_304_without_a_body(self) -> None:
        etag = await self.etag()
        for value in (etag, f'W/{etag}', f'"x", {etag}', f'"x",W/{etag}, "y"', '*'):
            for method in ('GET', 'HEAD'):
                with self.subTest(value, method=method):
                    answer = await self.fetch(method, self.path, None, {'If-None-Match': value})
                    self.assertEqual(304, answer.code)
                    self.assert_empty(answer)
                    self.assertEqual(etag, answer.headers['ETag'])
                    self.assertEqual('Accept-Encoding', answer.headers['Vary'])

    async def test_another_if_none_match_gets_the_entry(self) -> None:
        old = await self.etag()
        await self.fetch('PUT', self.path, json.dumps(address('raga')), JSON)
        for value in (old, f'W/{old}', '"x", "y"', '""', old.strip('"'), 'nonsense'):
            with self.subTest(value):
                answer = await self.fetch('GET', self.path, None, {'If-None-Match': value})
                self.assertEqual(200, answer.code)
                self.assertEqual(address('raga'), json.loads(answer.body))

    async def test_a_put_replaces_the_whole_entry(self) -> None:
        answer = await self.fetch('PUT', self.path, json.dumps(address('raga')), JSON)
        self.assertEqual((204, 'No Content'), (answer.code, answer.reason))
        self.assert_empty(answer)
        read = await self.fetch('GET', self.path)
        self.assertEqual(json.dumps(address('raga')), json.dumps(json.loads(read.body)))

    async def test_a_delete_removes_the_entry_once(self) -> None:
        answer = await self.fetch('DELETE', self.path)
        self.assertEqual((204, 'No Content'), (answer.code, answer.reason))
        self.assert_empty(answer)
        for method in ('GET', 'DELETE'):
            self.assert_error(await self.fetch(method, self.path), 404)
        put = await self.fetch('PUT', self.path, json.dumps(address('raga')), JSON)
        self.assert_error(put, 404)
        self.assertEqual(b'{}', (await self.fetch('GET', '/addressbook')).body)

    async def test_head_answers_as_get_without_a_body(self) -> None:
        paths = ['/healthz', '/readiness', '/addressbook', self.path, '/nowhere',
                 f'/addressbook/{UNKNOWN_ID}']
        connection = await self.connect()
        for path in paths:
            with self.subTest(path):
                get = await connection.exchange(request('GET', path))
                await connection.send(request('HEAD', path))
                head = await connection.answer(has_body=False)
                self.assertEqual((get.status, get.reason), (head.status, head.reason))
                for name in ('Content-Type', 'ETag', 'Vary'):
                    self.assertEqual(get.headers.get(name), head.headers.get(name), name)
                if path == self.path:
                    self.assertEqual(get.headers['Content-Length'], head.headers['Content-Length'])

    async def test_a_trailing_slash_is_allowed_on_every_path(self) -> None:
        for path in ('/healthz/', '/readiness/', '/addressbook/', f'{self.path}/'):
            for method in ('GET', 'HEAD'):
                with self.subTest(path, method=method):
                    self.assertEqual(200, (await self.fetch(method, path)).code)
        answer = await self.fetch('POST', '/addressbook/', SMALL, JSON)
        self.assertEqual(201, answer.code)
        path = answer.headers['Location'] + '/'
        self.assertEqual(204, (await self.fetch('PUT', path, SMALL, JSON)).code)
        self.assertEqual(204, (await self.fetch('DELETE', path)).code)


class RefusalTest(WireTestCase):
    """What is refused, and how."""

    async def test_an_unknown_path_is_an_unknown_endpoint_whatever_the_method(self) -> None:
        paths = ('/', '/x', '/healthz/x', '/addressbooks', '/addressbook/a/b', '//addressbook',
                 '/addressbook//', '/ADDRESSBOOK')
        for path in paths:
            for method in ('GET', 'POST', 'OPTIONS', 'BREW'):
                with self.subTest(path, method=method):
                    answer = await self.exchange(request(method, path, b''))
                    body = self.assert_error(answer, 404, 'Unknown Endpoint')
                    self.assertEqual('Unknown Endpoint', answer.reason)
                    self.assertEqual((method, path), (body['method'], body['uri']))

    async def test_an_unknown_id_is_not_found(self) -> None:
        for method, body in (('GET', None), ('PUT', SMALL), ('DELETE', None)):
            for name in (UNKNOWN_ID, 'x', 'a%20b', '%E0%A4%A8'):
                with self.subTest(name, method=method):
                    answer = await self.fetch(method, f'/addressbook/{name}?q=1', body, JSON)
                    error = self.assert_error(answer, 404)
                    self.assertEqual('Not Found', answer.reason)
                    self.assertEqual(f'/addressbook/{name}?q=1', error['uri'])
                    self.assertNotIn('errors', error)

    async def test_another_method_gets_405_and_is_told_which_are_allowed(self) -> None:
        path = await self.post({'name': 'Ada'})
        methods = ('GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'BREW')
        for route, allowed in ROUTES.items():
            for method in set(methods) - allowed:
                with self.subTest(route, method=method):
                    target = route.format(path.rpartition('/')[2])
                    answer = await self.exchange(request(method, target, b'{}'))
                    self.assert_error(answer, 405)
                    self.assertEqual('Method Not Allowed', answer.reason)
                    self.assertEqual(allowed, set(answer.headers['Allow'].split(', ')))

    async def test_what_is_not_json_is_an_invalid_json_body(self) -> None:
        path = await self.post({'name': 'Ada'})
        bodies = (b'', b'{', b'{"name": "Ada"', b'name=Ada', b'{"name": NaN}', b"{'name': 'Ada'}",
                  b'{"name": "Ada",}', b'{"name": "\xff"}', b'\xef\xbb\xbf{"name": "Ada"}',
                  b'{"name": "Ada"} x', b'{"name": "\\ud800"}', '{"name": "Ada"}'.encode('utf-16'))
        for method, target in (('POST', '/addressbook'), ('PUT', path)):
            for body in bodies:
                with self.subTest(body, method=method):
                    answer = await self.fetch(method, target, body, JSON)
                    error = self.assert_error(answer, 400, 'Invalid JSON body')
                    self.assertEqual('Invalid JSON body', answer.reason)
                    [violation] = error['errors']
                    self.assertEqual('', violation['path'])
                    self.assertTrue(violation['message'])
        book = json.loads((await self.fetch('GET', '/addressbook')).body)
        self.assertEqual([{'name': 'Ada'}], list(book.values()))

    async def test_what_breaks_the_schema_is_told_place_by_place(self) -> None:
        path = await self.post({'name': 'Ada'})
        entry = {'name': '', 'addresses': [{'kind': 'moon'}], 'a/b~': 1}
        for method, target in (('POST', '/addressbook'), ('PUT', path)):
            with self.subTest(method):
                answer = await self.fetch(method, target, json.dumps(entry), JSON)
                error = self.assert_error(answer, 400, 'JSON Schema validation failed')
                self.assertEqual('JSON Schema validation failed', answer.reason)
                for violation in error['errors']:
                    self.assertEqual({'path', 'message'}, violation.keys())
                places = {violation['path'] for violation in error['errors']}
                self.assertEqual({'/name', '/addresses/0', '/addresses/0/kind', '/a~1b~0'}, places)
        book = json.loads((await self.fetch('GET', '/addressbook')).body)
        self.assertEqual([{'name': 'Ada'}], list(book.values()))

    async def test_ten_violations_are_told_at_the_most(self) -> None:
        for number, told in ((3, 3), (10, 10), (11, 10), (500, 10)):
            with self.subTest(number):
                entry = {'name': 'Ada', **{f'x{index}': 1 for index in range(number)}}
                answer = await self.fetch('POST', '/addressbook', json.dumps(entry), JSON)
                self.assertEqual(told, len(self.assert_error(answer, 400)['errors']))

    async def test_a_body_that_is_not_declared_as_json_in_utf_8_is_refused(self) -> None:
        path = await self.post({'name': 'Ada'})
        types = (None, '', 'text/plain', 'application/jsonp', 'text/json', 'json', '*/*',
                 'application/json, text/plain', 'application/json; charset=latin-1',
                 'application/json; charset=utf-16', 'application/x-www-form-urlencoded',
                 'multipart/form-data; boundary=x', 'multipart/form-data', 'application/xml')
        for method, target in (('POST', '/addressbook'), ('PUT', path)):
            for declared in types:
                with self.subTest(declared, method=method):
                    headers = {} if declared is None else {'Content-Type': declared}
                    answer = await self.fetch(method, target, SMALL, headers)
                    self.assert_error(answer, 415)
                    self.assertEqual('application/json', answer.headers['Accept'])

    async def test_json_in_utf_8_may_be_declared_in_several_ways(self) -> None:
        for declared in ('application/json', 'Application/JSON', 'application/json; charset=utf-8',
                         'application/json;charset=UTF-8', 'application/json; charset="utf-8"',
                         'application/json ; Charset=Utf-8', ' application/json '):
            with self.subTest(declared):
                headers = {'Content-Type': declared}
                answer = await self.fetch('POST', '/addressbook', SMALL, headers)
                self.assertEqual(201, answer.code, answer.body)


class PagesTest(WireTestCase):
    """The book when it is larger than one page of the store."""

    number = 2 * PAGE_SIZE + 30

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.entries = {
            await self.service.post_address({'name': f'Ada {number}'}): {'name': f'Ada {number}'}
            for number in range(self.number)
        }

    def assert_complete(self, text: bytes) -> None:
        self.assertEqual(list(self.entries.items()), list(json.loads(text).items()))

    async def test_a_large_book_comes_in_chunks_complete_and_in_order(self) -> None:
        connection = await self.connect()
        answer = await connection.exchange(request('GET', '/addressbook'))
        self.assertEqual('chunked', answer.headers['Transfer-Encoding'])
        self.assertNotIn('Content-Length', answer.headers)
        self.assertNotIn('Content-Encoding', answer.headers)
        self.assert_complete(answer.body)
        again = await connection.exchange(request('GET', '/addressbook/'))
        self.assertEqual(answer.body, again.body)

    async def test_a_large_book_is_compressed_for_those_who_accept_it(self) -> None:
        headers = {'Accept-Encoding': 'gzip'}
        answer = await self.fetch('GET', '/addressbook', None, headers)
        self.assertEqual('gzip', answer.headers['Content-Encoding'])
        self.assert_complete(gzip.decompress(answer.body))

    async def test_just_a_page_and_one_entry_more_are_complete_too(self) -> None:
        while len(self.entries) > PAGE_SIZE + 1:
            await self.service.delete_address(self.entries.popitem()[0])
        self.assert_complete((await self.fetch('GET', '/addressbook')).body)
        await self.service.delete_address(self.entries.popitem()[0])
        self.assert_complete((await self.fetch('GET', '/addressbook')).body)

    async def test_a_client_of_http_1_0_gets_it_up_to_the_end_of_the_connection(self) -> None:
        answer = await self.exchange(b'GET /addressbook HTTP/1.0\r\n\r\n')
        self.assertNotIn('Transfer-Encoding', answer.headers)
        self.assert_complete(answer.body)

    async def test_a_client_of_http_1_0_that_would_go_on_is_shown_the_end_too(self) -> None:
        """Nothing else can tell it where an answer ends that has no length and no chunks."""
        answer = await self.exchange(b'GET /addressbook HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
        self.assertNotEqual('keep-alive', answer.headers.get('Connection', '').lower())
        self.assert_complete(answer.body)

    async def test_a_head_of_it_has_no_body_and_keeps_the_connection(self) -> None:
        connection = await self.connect()
        await connection.send(request('HEAD', '/addressbook'))
        answer = await connection.answer(has_body=False)
        self.assertEqual(200, answer.status)
        self.assertNotIn('Content-Length', answer.headers)
        self.assertEqual(200, (await connection.exchange(request('GET', '/healthz'))).status)


class BodyTest(WireTestCase):
    """How bodies may come, and how large."""

    def make_settings(self) -> Settings:
        return make_settings(max_body_size=LIMIT)

    async def test_a_body_at_the_limit_is_accepted_however_it_comes(self) -> None:
        body = padded(LIMIT)
        packed = gzip.compress(body)
        bodies = {
            'declared': request('POST', '/addressbook', body),
            'chunked': request('POST', '/addressbook', **CHUNKED) + chunked(body, 77),
            'gzip': request('POST', '/addressbook', packed, Content_Encoding='gzip'),
            'gzip, in chunks': request('POST', '/addressbook', Content_Encoding='GZIP', **CHUNKED)
            + chunked(packed, 5),
        }
        connection = await self.connect()
        for name, data in bodies.items():
            with self.subTest(name):
                self.assertEqual(201, (await connection.exchange(data)).status)

    async def test_a_body_over_the_limit_gets_413_however_it_comes(self) -> None:
        """What follows on the connection is still understood."""
        for size in (LIMIT + 1, 20 * LIMIT, 70_000):
            body = padded(size)
            packed = gzip.compress(body)
            bodies = {
                'declared': request('POST', '/addressbook', body),
                'put': request('PUT', f'/addressbook/{UNKNOWN_ID}', body),
                'chunked': request('POST', '/addressbook', **CHUNKED) + chunked(body, 777),
                'gzip': request('POST', '/addressbook', packed, Content_Encoding='gzip'),
                'not json': request('POST', '/addressbook', body, Content_Type='text/plain'),
            }
            connection = await self.connect()
            for name, data in bodies.items():
                with self.subTest(name, size=size):
                    answer = await connection.exchange(data)
                    error = self.assert_error(answer, 413)
                    self.assertIn(str(LIMIT), error['message'])
        self.assertEqual(b'{}', (await self.fetch('GET', '/addressbook')).body)

    async def test_patience_with_a_body_over_the_limit_has_an_end(self) -> None:
        """A declared one, one in chunks, one that inflates: 413, or the connection is reset."""
        size = LIMIT + MAX_DISCARDED + 1_000_000
        packed = gzip.compress(padded(size))
        for name, data in {
            'gzip': request('POST', '/addressbook', packed, Content_Encoding='gzip'),
            'declared': request('POST', '/addressbook', None, **JSON_AS_KEYWORD,
                                Content_Length=str(10 ** 12)),
            'chunked': request('POST', '/addressbook', **CHUNKED) + b'ffffff\r\n',
        }.items():
            with self.subTest(name), self.logged() as logged:
                connection = await self.connect()
                await connection.send(data)
                if name != 'gzip':
                    with contextlib.suppress(ConnectionError):
                        await connection.send(bytes(size))
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    self.assert_error(await connection.answer(), 413)
                self.assertTrue(await connection.at_end())
                await self.until(lambda: not self.server._connections)
                [line] = logged.requests()
                self.assertEqual(413, line['status'])

    async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(self) -> None:
        connection = await self.connect()
        head = request('POST', '/addressbook', None, Expect='100-continue', **JSON_AS_KEYWORD,
                       Content_Length=str(len(SMALL)))
        self.assertEqual(100, (await connection.exchange(head)).status)
        self.assertEqual(201, (await connection.exchange(SMALL)).status)

    async def test_a_client_that_asks_before_it_sends_too_much_is_refused_at_once(self) -> None:
        connection = await self.connect()
        head = request('POST', '/addressbook', None, Expect='100-continue', **JSON_AS_KEYWORD,
                       Content_Length=str(LIMIT + 1))
        self.assert_error(await connection.exchange(head), 413)
        self.assertTrue(await connection.at_end())

    async def test_a_body_may_come_in_pieces_and_chunks(self) -> None:
        connection = await self.connect()
        await connection.send(request('POST', '/addressbook', **CHUNKED))
        for start in range(len(SMALL)):
            await connection.send(b'1\r\n%s\r\n' % SMALL[start:start + 1])
            await asyncio.sleep(0)
        location = (await connection.exchange(b'0\r\n\r\n')).headers['Location']
        self.assertEqual({'name': 'Ada'}, json.loads((await self.fetch('GET', location)).body))

    async def test_a_body_may_be_compressed_with_gzip(self) -> None:
        for coding in ('gzip', 'GZip'):
            with self.subTest(coding):
                headers = {**JSON, 'Content-Encoding': coding}
                packed = gzip.compress(SMALL)
                answer = await self.fetch('POST', '/addressbook', packed, headers)
                self.assertEqual(201, answer.code, answer.body)
                read = await self.fetch('GET', answer.headers['Location'])
                self.assertEqual({'name': 'Ada'}, json.loads(read.body))

    async def test_identity_is_no_encoding(self) -> None:
        headers = {**JSON, 'Content-Encoding': 'Identity'}
        self.assertEqual(201, (await self.fetch('POST', '/addressbook', SMALL, headers)).code)

    async def test_any_other_encoding_of_a_body_is_refused(self) -> None:
        packed = gzip.compress(SMALL)
        for coding, body in (('deflate', zlib.compress(SMALL)), ('gzip,gzip', packed),
                             ('x-gzip', packed), ('br', SMALL), ('gzip, identity', packed)):
            with self.subTest(coding):
                headers = {**JSON, 'Content-Encoding': coding}
                answer = await self.fetch('POST', '/addressbook', body, headers)
                self.assert_error(answer, 415)
                self.assertEqual('gzip', answer.headers['Accept-Encoding'])


JSON_AS_KEYWORD: Final = {'Content_Type': 'application/json'}


class CompressionTest(WireTestCase):
    """Compressed answers."""

    def large(self) -> dict[str, Any]:
        return {'name': 'Ada', 'addresses': address('namo')['addresses'] * 20}

    async def test_an_answer_is_compressed_only_for_those_who_accept_it(self) -> None:
        path = await self.post(self.large())
        cases = {
            'gzip': True, 'GZIP': True, 'gzip;q=0.5': True, 'gzip; q=1.0': True, '*': True,
            'deflate, gzip': True, 'br;q=1, *;q=0.1': True, 'identity;q=0.5, gzip;q=0.001': True,
            '': False, 'identity': False, 'br, deflate': False, 'gzip;q=0': False,
            'gzip; q=0.000': False, 'gzip;Q=0': False, '*;q=0': False, 'gzip;q=0, *': False,
            '*, gzip;q=0': False,
        }
        for target in (path, '/addressbook'):
            for accepted, compressed in cases.items():
                with self.subTest(accepted, target=target):
                    headers = {'Accept-Encoding': accepted}
                    answer = await self.fetch('GET', target, None, headers)
                    coding = answer.headers.get('Content-Encoding')
                    self.assertEqual('gzip' if compressed else None, coding)
                    body = gzip.decompress(answer.body) if compressed else answer.body
                    self.assertIn(b'Raisina Hill', body)
                    self.assertEqual('Accept-Encoding', answer.headers['Vary'])
                    self.assertEqual(str(len(answer.body)), answer.headers['Content-Length'])

    async def test_silence_about_encodings_gets_the_answer_as_it_is(self) -> None:
        path = await self.post(self.large())
        answer = await self.fetch('GET', path)
        self.assertNotIn('Content-Encoding', answer.headers)
        self.assertEqual('Accept-Encoding', answer.headers['Vary'])
        self.assertEqual(self.large(), json.loads(answer.body))

    async def test_what_is_small_or_empty_is_not_compressed(self) -> None:
        headers = {**JSON, 'Accept-Encoding': 'gzip'}
        answer = await self.fetch('POST', '/addressbook', SMALL, headers)
        self.assertNotIn('Content-Encoding', answer.headers)
        path = answer.headers['Location']
        self.assertNotIn('Content-Encoding', (await self.fetch('GET', path, None, headers)).headers)
        put = await self.fetch('PUT', path, json.dumps(self.large()), headers)
        self.assertEqual(204, put.code)
        self.assert_empty(put)


class RequestIDTest(WireTestCase):
    """X-Request-ID."""

    async def test_a_sane_request_id_is_kept_in_answers_and_errors(self) -> None:
        for sent in ('a', 'req-1', 'A.b_c:d/e+f=g@h', 'x' * 128):
            for path, status in (('/healthz', 200), ('/addressbook', 200), ('/nowhere', 404)):
                with self.subTest(sent, path=path):
                    answer = await self.fetch('GET', path, None, {'X-Request-ID': sent})
                    self.assertEqual((status, sent), (answer.code, answer.headers['X-Request-ID']))
                    if status == 404:
                        self.assert_error(answer, 404)

    async def test_every_kind_of_answer_carries_the_request_id(self) -> None:
        location = await self.post({'name': 'Ada'})
        headers = {**JSON, 'X-Request-ID': 'mine', 'If-None-Match': '*'}
        for method, path, body in (
            ('POST', '/addressbook', SMALL), ('POST', '/addressbook', b'{'),
            ('GET', location, None), ('PUT', location, SMALL), ('PUT', location, b'{}'),
            ('PATCH', location, SMALL), ('BREW', location, SMALL), ('HEAD', location, None),
            ('DELETE', location, None), ('GET', location, None), ('GET', '/addressbook/%FF', None),
        ):
            with self.subTest(f'{method} {path} {body!r}'):
                answer = await self.fetch(method, path, body, headers)
                self.assertEqual('mine', answer.headers['X-Request-ID'])
                if answer.code >= 400:
                    self.assert_error(answer, answer.code)

    async def test_an_odd_or_missing_request_id_is_replaced(self) -> None:
        seen = set()
        cases = (b'', b'X-Request-ID: \r\n', b'X-Request-ID: a b\r\n', b'X-Request-ID: a\tb\r\n',
                 b'X-Request-ID: a"b\r\n', b'X-Request-ID: \xe9\r\n', b'X-Request-ID: a{}\r\n',
                 b'X-Request-ID: ' + b'x' * 129 + b'\r\n',
                 b'X-Request-ID: a\r\nX-Request-ID: a\r\n')
        for field in cases:
            with self.subTest(field):
                head = b'GET /nowhere HTTP/1.1\r\nHost: x\r\n' + field + b'\r\n'
                answer = await self.exchange(head)
                self.assert_error(answer, 404)
                made = answer.headers['X-Request-ID']
                self.assertRegex(made, '^[0-9a-f]{32}$')
                seen.add(made)
        self.assertEqual(len(cases), len(seen))

    async def test_a_request_id_with_control_characters_is_never_repeated(self) -> None:
        for character in (b'\x00', b'\x01', b'\x0b', b'\x1b', b'\x7f'):
            with self.subTest(character), self.logged() as logged:
                head = b'GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Request-ID: evil' + character
                answer = await self.exchange(head + b'\r\n\r\n')
                self.assertIn(answer.status, (400, 404))
                self.assertNotIn('evil', str(answer.headers))
                self.assertNotIn(character.decode(), '\n'.join(logged.lines))

    async def test_every_line_logged_for_a_request_has_its_id_and_no_other(self) -> None:
        """The store complains once per request, all of them on one connection."""
        await use_store(self, Unreachable())
        connection = await self.connect()
        with self.logged() as logged:
            for sent in ('first', 'second', 'third'):
                await connection.exchange(request('GET', '/readiness', X_Request_ID=sent))
                await connection.exchange(request('GET', '/healthz', X_Request_ID=f'{sent}-b'))
        ids = [vars(record)['request_id'] for record in logged.records]
        self.assertEqual(['first', 'first', 'first-b', 'second', 'second', 'second-b',
                          'third', 'third', 'third-b'], ids)
        self.assertIn('out of reach', logged.lines[0])
        self.assertIn('request_id="first"', logged.lines[0])

    async def test_the_traceback_of_a_bug_has_the_request_id(self) -> None:
        await use_store(self, Buggy())
        with self.assertLogs('tornado.application', 'ERROR') as caught:
            caught_filter = RequestFilter()
            logging.getLogger('tornado.application').addFilter(caught_filter)
            try:
                await self.fetch('GET', '/addressbook/x', None, {'X-Request-ID': 'mine'})
            finally:
                logging.getLogger('tornado.application').removeFilter(caught_filter)
        [record] = caught.records
        self.assertEqual('mine', vars(record)['request_id'])


class RequestLogTest(WireTestCase):
    """One line per request."""

    def make_settings(self) -> Settings:
        return make_settings(body_timeout=0.2, max_body_size=LIMIT)

    async def test_a_request_is_one_line_with_its_particulars(self) -> None:
        with self.logged() as logged:
            headers = {'X-Request-ID': 'mine'}
            await self.fetch('GET', f'/addressbook/x?name={SECRET}', None, headers)
        [record] = logged.records
        line = vars(record)
        self.assertEqual(('tornado.access', 'WARNING', 'request'),
                         (record.name, record.levelname, record.getMessage()))
        self.assertEqual(('mine', 'GET', '/addressbook/x', 404, '127.0.0.1'), tuple(
            line[key] for key in ('request_id', 'method', 'path', 'status', 'remote')))
        self.assertIsInstance(line['milliseconds'], float)

    async def test_the_line_of_a_request_tells_the_milliseconds_that_it_took(self) -> None:
        await use_store(self, Sluggish())
        start = time.monotonic()
        with self.logged() as logged:
            await self.fetch('GET', '/readiness')
        [line] = logged.requests()
        self.assertGreaterEqual(line['milliseconds'], 1000 * Sluggish.delay)
        self.assertLessEqual(line['milliseconds'], 1000 * (time.monotonic() - start))

    async def test_the_level_follows_the_status(self) -> None:
        path = await self.post({'name': 'Ada'})
        self.service.drain()
        for method, target, body, status, level in (
            ('GET', '/healthz', None, 200, 'INFO'), ('POST', '/addressbook', SMALL, 201, 'INFO'),
            ('GET', path, None, 304, 'INFO'), ('PUT', path, SMALL, 204, 'INFO'),
            ('PUT', path, b'{', 400, 'WARNING'), ('GET', '/nowhere', None, 404, 'WARNING'),
            ('PATCH', path, SMALL, 405, 'WARNING'), ('BREW', path, SMALL, 405, 'WARNING'),
            ('PUT', path, padded(LIMIT + 1), 413, 'WARNING'), ('DELETE', path, None, 204, 'INFO'),
            ('GET', '/readiness', None, 503, 'ERROR'), ('GET', '/addressbook', None, 200, 'INFO'),
        ):
            with self.subTest(f'{method} {target} {status}'), self.logged() as logged:
                headers = {**JSON, 'If-None-Match': '*', 'X-Request-ID': 'mine'}
                await self.fetch(method, target, body, headers)
                [record] = logged.records
                line = vars(record)
                self.assertEqual((level, 'mine', status, method, target), (
                    record.levelname, *(line[key] for key in (
                        'request_id', 'status', 'method', 'path'))))

    async def assert_logged(self, logged: Lines, status: int) -> None:
        """Checks that there is one line, of a request that was given up."""
        await self.until(logged.requests)
        await self.until(lambda: not self.server._connections)
        [line] = logged.requests()
        self.assertEqual((status, 'WARNING', 'mine', '127.0.0.1'), tuple(
            line[key] for key in ('status', 'levelname', 'request_id', 'remote')))

    async def test_a_client_that_goes_away_within_its_body_is_logged_as_499(self) -> None:
        for name in ('reset', 'close'):
            with self.subTest(name), self.logged() as logged:
                connection = await self.connect()
                await connection.send(request('POST', '/addressbook', None, X_Request_ID='mine',
                                              Content_Length='100', **JSON_AS_KEYWORD) + b'{"na')
                await self.until(lambda: self.server._connections)
                if name == 'reset':
                    connection.reset()
                else:
                    await connection.close()
                await self.assert_logged(logged, 499)
        self.assertEqual(b'{}', (await self.fetch('GET', '/addressbook')).body)

    async def test_a_body_that_is_too_slow_is_cut_off_and_logged(self) -> None:
        with self.logged() as logged:
            connection = await self.connect()
            await connection.send(request('POST', '/addressbook', None, X_Request_ID='mine',
                                          Content_Length='100', **JSON_AS_KEYWORD) + b'{"na')
            self.assertTrue(await connection.at_end())
            await self.assert_logged(logged, 499)

    async def test_no_personal_data_is_logged_whatever_happens(self) -> None:
        entry = {**address('namo'), 'name': SECRET}
        bad = {'name': [SECRET], SECRET: 1, 'emails': [{'kind': SECRET, 'value': SECRET}]}
        with self.logged() as logged:
            path = await self.post(entry)
            for method, target, body, headers in (
                ('GET', path, None, JSON), ('GET', '/addressbook', None, JSON),
                ('PUT', path, json.dumps(entry), JSON), ('PUT', path, json.dumps(bad), JSON),
                ('POST', '/addressbook', json.dumps(bad), JSON),
                ('POST', '/addressbook', f'{{"name": "{SECRET}"', JSON),
                ('POST', '/addressbook', f'"{SECRET}"', JSON),
                ('POST', '/addressbook', json.dumps(entry), {'Content-Type': SECRET}),
                ('POST', '/addressbook', json.dumps(entry), {**JSON, 'Content-Encoding': SECRET}),
                ('POST', '/addressbook', json.dumps(entry), {**JSON, 'Content-Encoding': 'gzip'}),
                ('POST', '/addressbook', json.dumps(entry) + ' ' * LIMIT, JSON),
                ('PUT', f'{path}x?name={SECRET}', json.dumps(entry), JSON),
                ('GET', f'/healthz?{SECRET}', None, {'Authorization': SECRET}),
                ('PATCH', f'{path}?{SECRET}', json.dumps(entry), JSON),
                ('GET', f'/nowhere?{SECRET}', None, {'X-Request-ID': f'{SECRET} {SECRET}'}),
                ('DELETE', path, None, JSON), ('DELETE', path, None, JSON),
            ):
                await self.fetch(method, target, body, headers)
            connection = await self.connect()
            await connection.send(
                request('POST', '/addressbook', **CHUNKED) + f'9\r\n"{SECRET}'.encode())
            await connection.close()
            await self.until(lambda: not self.server._connections or len(logged.requests()) == 19)
        self.assertGreaterEqual(len(logged.requests()), 19)
        for record, line in zip(logged.records, logged.lines):
            self.assertNotIn(SECRET, line)
            self.assertNotIn(SECRET, str(vars(record)))


async def use_store(case: HTTPTestCase, store: AbstractAddressBookDB) -> None:
    """Has the server of a test serve another store."""
    case.service = AddressBookService(store, logging.getLogger(LOGGER_NAME))
    await case.service.start()
    case.addAsyncCleanup(case.service.stop)
    limits = case.make_settings().service
    case.server.request_callback = make_application(case.service, limits, case.show_tracebacks)


class Unreachable(InMemoryAddressBookDB):
    """A store that cannot be reached."""

    async def ping(self) -> None:
        raise StoreUnavailableError('the store does not answer')

    async def read_entry(self, nickname: str) -> StoredEntry:
        await self.ping()
        return await super().read_entry(nickname)

    async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
        await self.ping()
        return await super().read_page(after, limit)

    async def delete_address(self, nickname: str) -> None:
        await self.ping()

    async def _insert(self, nickname: str, document: bytes) -> None:
        await self.ping()

    async def _replace(self, nickname: str, document: bytes) -> None:
        await self.ping()


class Buggy(Unreachable):
    """A store with a bug that knows a secret."""

    async def ping(self) -> None:
        raise RuntimeError(SECRET)


class Slow(InMemoryAddressBookDB):
    """A store that takes for ever, and knows who waits for it."""

    waiting: asyncio.Task[Any] | None = None

    async def read_entry(self, nickname: str) -> StoredEntry:
        self.waiting = asyncio.current_task()
        return await asyncio.Future()


class Sluggish(InMemoryAddressBookDB):
    """A store that takes its time."""

    delay = 0.02  # seconds

    async def ping(self) -> None:
        await asyncio.sleep(self.delay)


class Taken(InMemoryAddressBookDB):
    """A store that has every nickname already."""

    async def _insert(self, nickname: str, document: bytes) -> None:
        raise NicknameTakenError(nickname)


OPERATIONS: Final = (
    ('GET', '/addressbook', None), ('POST', '/addressbook', SMALL), ('GET', '/addressbook/x', None),
    ('PUT', '/addressbook/x', SMALL), ('DELETE', '/addressbook/x', None),
)


class BrokenStoreTest(WireTestCase):
    """What clients are told when the store fails."""

    async def test_readiness_follows_the_store_and_healthz_does_not(self) -> None:
        await use_store(self, Unreachable())
        answer = await self.fetch('GET', '/readiness')
        self.assertEqual(503, answer.code)
        self.assertIs(False, json.loads(answer.body)['ready'])
        self.assertIsInstance(json.loads(answer.body)['uptime'], int)
        self.assertRegex(answer.headers['Retry-After'], '^[0-9]+$')
        self.assertEqual(200, (await self.fetch('GET', '/healthz')).code)

    async def test_a_store_out_of_reach_is_503_with_retry_after(self) -> None:
        await use_store(self, Unreachable())
        for method, path, body in OPERATIONS:
            with self.subTest(f'{method} {path}'):
                answer = await self.fetch(method, path, body, JSON)
                error = self.assert_error(answer, 503)
                self.assertEqual('Service Unavailable', answer.reason)
                self.assertRegex(answer.headers['Retry-After'], '^[1-9][0-9]*$')
                self.assertNotIn('errors', error)

    async def test_a_nickname_that_is_taken_is_a_conflict(self) -> None:
        await use_store(self, Taken())
        answer = await self.fetch('POST', '/addressbook', SMALL, JSON)
        self.assert_error(answer, 409)
        self.assertEqual('Conflict', answer.reason)
        self.assertNotIn('Location', answer.headers)

    async def test_a_bug_is_500_and_logged_and_says_nothing_of_the_inside(self) -> None:
        await use_store(self, Buggy())
        for method, path, body in OPERATIONS:
            with (self.subTest(f'{method} {path}'),
                  self.assertLogs('tornado.application', 'ERROR') as caught):
                answer = await self.fetch(method, path, body, JSON)
                error = self.assert_error(answer, 500, 'Internal Server Error')
                self.assertEqual({'method', 'uri', 'code', 'message', 'requestId'}, error.keys())
                self.assertNotIn(SECRET, f'{answer.body!r} {answer.reason} {answer.headers}')
                [line] = caught.output
                self.assertIn(f'RuntimeError: {SECRET}', line)
                self.assertIn('Traceback', line)

    async def test_a_request_whose_task_is_cancelled_is_answered(self) -> None:
        store = Slow()
        await use_store(self, store)
        connection = await self.connect()
        await connection.send(request('GET', '/addressbook/x'))
        await self.until(lambda: store.waiting)
        assert store.waiting is not None
        store.waiting.cancel()
        self.assert_error(await connection.answer(), 500)

    async def test_an_answer_is_not_taken_for_a_bug(self) -> None:
        """Nothing but the line of the request is logged for it."""
        await use_store(self, Unreachable())
        with self.logged() as logged:
            for method, path, body in OPERATIONS:
                await self.fetch(method, path, body, JSON)
            await self.fetch('PATCH', '/addressbook', SMALL, JSON)
            await self.fetch('POST', '/addressbook', b'{}', JSON)
        self.assertEqual({'tornado.access'}, {record.name for record in logged.records})

    async def test_no_error_tells_its_trace(self) -> None:
        for method, path, body in (('GET', '/addressbook/x', None), ('POST', '/addressbook', b'{'),
                                   ('PATCH', '/addressbook', SMALL), ('GET', '/nowhere', None)):
            with self.subTest(f'{method} {path}'):
                answer = await self.fetch(method, path, body, JSON)
                self.assertNotIn('trace', self.assert_error(answer, answer.code))


class DebugTest(WireTestCase):
    """Under ``--debug`` errors carry their traceback."""

    show_tracebacks = True

    async def test_a_refusal_tells_its_trace(self) -> None:
        for method, path, body, name in (
            ('GET', '/addressbook/x', None, 'UnknownNicknameError'),
            ('POST', '/addressbook', b'{', 'InvalidJSONError'),
            ('PATCH', '/addressbook', SMALL, 'HTTPError'),
        ):
            with self.subTest(f'{method} {path}'):
                answer = await self.fetch(method, path, body, JSON)
                error = self.assert_error(answer, answer.code)
                self.assertTrue(error['trace'].startswith('Traceback'))
                self.assertIn(name, error['trace'])

    async def test_a_bug_tells_its_trace(self) -> None:
        await use_store(self, Buggy())
        with self.assertLogs('tornado.application', 'ERROR'):
            answer = await self.fetch('GET', '/addressbook/x')
        self.assertIn(f'RuntimeError: {SECRET}', self.assert_error(answer, 500)['trace'])


class Watched(InMemoryAddressBookDB):
    """A store that knows how many are reading its pages, and can fail half-way.

    :param failure: what is raised in the place of a page
    :param good: how many pages come before it

    ``readers`` is how many are at its pages now, ``given`` how many pages they have got.
    """

    def __init__(self, failure: Exception | None = None, good: int = 0) -> None:
        super().__init__()
        self._failure = failure
        self._good = good
        self.readers = 0
        self.given = 0

    async def pages(self, size: int = PAGE_SIZE) -> AsyncGenerator[list[StoredEntry], None]:
        self.readers += 1
        try:
            async for page in super().pages(size):
                if self._failure is not None and self.given == self._good:
                    raise self._failure
                self.given += 1
                yield page
        finally:
            self.readers -= 1


class StreamTestCase(WireTestCase):
    """A book that is larger than a connection buffers, and clients that do not read it."""

    async def fill(self, store: Watched, text: int) -> None:
        """Serves two and a half pages of entries with so many addresses of ~1.3 KB each."""
        await use_store(self, store)
        place = {'kind': 'home', 'streetName': 'x' * 250, 'pincode': 1, 'country': 'y' * 250,
                 'city': 'z' * 250, 'state': 'a' * 250, 'locality': 'b' * 250}
        for _ in range(2 * PAGE_SIZE + PAGE_SIZE // 2):
            await store.create_address({'name': 'Ada', 'addresses': [place] * text})

    async def fill_one_page(self) -> None:
        """Serves a book that is handed to its connection at once, and is more than that holds."""
        store = Watched()
        await self.fill(store, 50)
        for nickname in list(store._entries)[PAGE_SIZE:]:
            await store.delete_address(nickname)

    def unsent(self) -> int:
        """Bytes that the server holds for readers."""
        return sum(len(connection.stream._write_buffer) for connection in self.server._connections)

    async def open_listing(self) -> Connection:
        """A client that has asked for the book, and has read nothing yet."""
        connection = await self.connect(receive_buffer=4096)
        await connection.send(request('GET', '/addressbook', X_Request_ID='mine'))
        return connection


class StreamTest(StreamTestCase):
    """The answer that is made while it is sent, and what may happen meanwhile."""

    async def test_others_are_served_while_a_slow_reader_has_the_book_open(self) -> None:
        store = Watched()
        await self.fill(store, 60)
        connection = await self.open_listing()
        await self.until(lambda: store.readers == 1)
        for path in ('/healthz', '/readiness', f'/addressbook/{next(iter(store._entries))}'):
            self.assertEqual(200, (await self.fetch('GET', path)).code)
        self.assertEqual(201, (await self.fetch('POST', '/addressbook', SMALL, JSON)).code)
        self.assertEqual(1, store.readers)
        book = json.loads((await connection.answer()).body)
        self.assertGreaterEqual(len(book), 2 * PAGE_SIZE + PAGE_SIZE // 2)
        self.assertEqual(0, store.readers)

    async def test_others_get_their_turn_after_each_page_for_a_fast_reader_too(self) -> None:
        """Neither the store nor the socket makes the handler wait here."""
        store = Watched()
        await self.fill(store, 1)
        connection = await self.connect()
        await connection.send(request('GET', '/addressbook'))
        turns = set()
        while store.given < 3:
            await asyncio.sleep(0)
            turns.add(store.given)
        self.assertIn(2, turns)  # the first one is sent when the second is there
        self.assertEqual(200, (await connection.answer()).status)

    async def test_a_head_does_not_read_the_pages(self) -> None:
        await self.fill(Watched(StoreUnavailableError('gone'), good=1), 1)
        self.assertEqual(200, (await self.fetch('HEAD', '/addressbook')).code)

    async def test_the_pages_are_not_read_ahead_of_a_slow_reader(self) -> None:
        """What the server holds for a reader is a page, not the book."""
        store = Watched()
        await self.fill(store, 60)
        await self.open_listing()
        await self.until(lambda: store.readers == 1)
        for _ in range(100):
            await asyncio.sleep(0.001)
        document = next(iter(store._entries.values())).document
        self.assertLess(self.unsent(), 1.1 * PAGE_SIZE * len(document))

    async def test_a_client_that_goes_away_within_the_answer_is_logged_as_499(self) -> None:
        store = Watched()
        await self.fill(store, 60)
        with self.logged() as logged:
            connection = await self.open_listing()
            await self.until(lambda: store.readers == 1)
            connection.reset()
            await self.until(lambda: store.readers == 0 and not self.server._connections)
        [record] = logged.records
        self.assertEqual((499, 'WARNING', 'mine'), tuple(
            vars(record)[key] for key in ('status', 'levelname', 'request_id')))

    async def assert_cut_off(self, failure: Exception) -> Lines:
        """Checks that an answer that failed half-way cannot be taken for a whole one."""
        store = Watched(failure, good=2)
        await self.fill(store, 1)
        with self.logged() as logged:
            connection = await self.connect()
            await connection.send(request('GET', '/addressbook', X_Request_ID='mine'))
            with self.assertRaises((asyncio.IncompleteReadError, ConnectionError)):
                await connection.answer()
            await self.until(lambda: not self.server._connections)
            self.assertEqual(0, store.readers)
        self.assertEqual(200, (await self.fetch('GET', '/healthz')).code)
        return logged

    async def test_a_store_that_fails_before_anything_was_sent_gets_a_whole_error(self) -> None:
        for good in (0, 1):
            with self.subTest(good=good):
                store = Watched(StoreUnavailableError('gone'), good)
                await self.fill(store, 1)
                answer = await self.fetch('GET', '/addressbook')
                self.assert_error(answer, 503, 'gone')
                self.assertEqual(0, store.readers)

    async def test_a_store_that_fails_half_way_ends_the_connection_and_is_logged(self) -> None:
        logged = await self.assert_cut_off(StoreUnavailableError('gone'))
        [record] = logged.records
        self.assertEqual((503, 'ERROR', 'mine'), tuple(
            vars(record)[key] for key in ('status', 'levelname', 'request_id')))

    async def test_a_bug_half_way_ends_the_connection_and_is_logged(self) -> None:
        with self.assertLogs('tornado.application', 'ERROR') as caught:
            logged = await self.assert_cut_off(RuntimeError(SECRET))
        self.assertIn(f'RuntimeError: {SECRET}', caught.output[0])
        [line] = logged.requests()
        self.assertEqual((500, 'ERROR'), (line['status'], line['levelname']))


class ImpatientTest(StreamTestCase):
    """A server with little patience, and clients that try it."""

    patience = 0.3

    def make_settings(self) -> Settings:
        return make_settings(idle_connection_timeout=self.patience)

    async def test_a_reader_that_does_not_read_the_book_is_cut_off(self) -> None:
        store = Watched()
        await self.fill(store, 60)
        with self.logged() as logged:
            connection = await self.open_listing()
            await self.until(lambda: store.readers == 1)
            await self.until(lambda: not self.server._connections and store.readers == 0)
        [line] = logged.requests()
        self.assertEqual((499, 'mine'), (line['status'], line['request_id']))
        with self.assertRaises((asyncio.IncompleteReadError, ConnectionError)):
            await connection.answer()

    async def test_a_reader_that_does_not_read_the_end_of_an_answer_is_cut_off(self) -> None:
        await self.fill_one_page()
        connection = await self.open_listing()
        await self.until(self.unsent)
        await self.until(lambda: not self.server._connections)
        with self.assertRaises((asyncio.IncompleteReadError, ConnectionError)):
            await connection.answer()

    async def test_a_connection_that_sends_nothing_is_closed(self) -> None:
        connection = await self.connect()
        self.assertTrue(await connection.at_end())


class LateReaderTest(StreamTestCase):
    """A server with some patience, and a client that needs it."""

    patience = 1.0

    def make_settings(self) -> Settings:
        return make_settings(idle_connection_timeout=self.patience)

    async def test_a_reader_that_was_late_but_in_time_keeps_its_connection(self) -> None:
        """The timer of an answer ends with it."""
        await self.fill_one_page()
        connection = await self.open_listing()
        await self.until(self.unsent)
        self.assertEqual(PAGE_SIZE, len(json.loads((await connection.answer()).body)))
        end = asyncio.get_running_loop().time() + 1.5 * self.patience
        while asyncio.get_running_loop().time() < end:
            answer = await connection.exchange(request('GET', '/healthz'))
            self.assertEqual(200, answer.status)


class ConnectionTest(WireTestCase):
    """Connections."""

    async def test_a_connection_serves_one_request_after_the_other(self) -> None:
        connection = await self.connect()
        post = await connection.exchange(request('POST', '/addressbook', SMALL))
        path = post.headers['Location']
        for data, status in (
            (request('GET', path), 200), (request('PUT', path, SMALL), 204),
            (request('POST', '/addressbook', b'{'), 400), (request('GET', '/nowhere'), 404),
            (request('PATCH', path, SMALL), 405), (request('DELETE', path), 204),
            (request('GET', path), 404), (request('GET', '/addressbook'), 200),
        ):
            answer = await connection.exchange(data)
            self.assertEqual(status, answer.status)
            self.assertNotIn('Connection', answer.headers)

    async def test_pipelined_requests_are_answered_in_order(self) -> None:
        connection = await self.connect()
        await connection.send(
            request('POST', '/addressbook', SMALL) + request('GET', '/addressbook')
            + request('POST', '/addressbook', b'{') + request('GET', '/nowhere')
            + request('GET', '/healthz', Connection='close'))
        answers = [await connection.answer() for _ in range(5)]
        self.assertEqual([201, 200, 400, 404, 200], [answer.status for answer in answers])
        self.assertEqual([{'name': 'Ada'}], list(json.loads(answers[1].body).values()))
        self.assertTrue(await connection.at_end())

    async def test_a_client_may_ask_for_the_end_of_the_connection(self) -> None:
        connection = await self.connect()
        answer = await connection.exchange(request('GET', '/healthz', Connection='close'))
        self.assertEqual('close', answer.headers['Connection'])
        self.assertTrue(await connection.at_end())

    async def test_http_1_0_is_served_and_closed_unless_it_asks_to_go_on(self) -> None:
        connection = await self.connect()
        keep = b'GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n'
        answer = await connection.exchange(keep)
        self.assertEqual('keep-alive', answer.headers['Connection'].lower())
        last = await connection.exchange(b'GET /addressbook HTTP/1.0\r\n\r\n')
        self.assertEqual((200, b'{}'), (last.status, last.body))
        self.assertTrue(await connection.at_end())

    async def test_answers_do_not_tell_what_serves_them(self) -> None:
        for path in ('/healthz', '/nowhere'):
            self.assertNotIn('Server', (await self.fetch('GET', path)).headers)


class ConnectionCapTest(WireTestCase):
    """What connections beyond the cap get."""

    def make_settings(self) -> Settings:
        return make_settings(max_connections=1)

    async def test_one_connection_too_many_gets_the_probes_and_503_for_the_rest(self) -> None:
        first = await self.connect()
        await first.exchange(request('GET', '/healthz'))
        for path, status in (('/addressbook', 503), ('/healthz', 200), ('/readiness', 200),
                             ('/addressbook/x', 503), ('/nowhere', 503)):
            with self.subTest(path):
                second = await self.connect()
                answer = await second.exchange(request('GET', path))
                self.assertEqual(status, answer.status)
                self.assertEqual('close', answer.headers['Connection'])
                if status == 503:
                    self.assert_error(answer, 503)
                    self.assertRegex(answer.headers['Retry-After'], '^[1-9][0-9]*$')
                self.assertTrue(await second.at_end())
        self.assertEqual(200, (await first.exchange(request('GET', '/addressbook'))).status)

    async def test_a_post_beyond_the_cap_is_refused_and_not_carried_out(self) -> None:
        first = await self.connect()
        await first.exchange(request('GET', '/healthz'))
        second = await self.exchange(request('POST', '/addressbook', SMALL))
        self.assert_error(second, 503)
        answer = await first.exchange(request('GET', '/addressbook'))
        self.assertEqual(b'{}', answer.body)

    async def test_a_connection_that_ends_makes_room_for_another(self) -> None:
        for _ in range(3):
            connection = await self.connect()
            answer = await connection.exchange(request('GET', '/addressbook'))
            self.assertEqual(200, answer.status)
            self.assertNotIn('Connection', answer.headers)
            self.assertEqual(503, (await self.exchange(request('GET', '/addressbook'))).status)
            await connection.close()
            await self.until(lambda: not self.server._connections)

    async def test_yet_more_connections_are_closed_at_once(self) -> None:
        kept = [await self.connect() for _ in range(1 + MAX_OVERFLOW)]
        await self.until(lambda: len(self.server._connections) == 1 + MAX_OVERFLOW)
        extra = [await self.connect() for _ in range(5)]
        for connection in extra:
            self.assertTrue(await connection.at_end())
        last = await kept[-1].exchange(request('GET', '/healthz'))
        self.assertEqual((200, 'close'), (last.status, last.headers['Connection']))


class OverflowDebugTest(WireTestCase):
    """A refusal beyond the cap is an error like all others."""

    show_tracebacks = True

    def make_settings(self) -> Settings:
        return make_settings(max_connections=1)

    async def test_a_refusal_beyond_the_cap_tells_its_trace_under_debug(self) -> None:
        first = await self.connect()
        await first.exchange(request('GET', '/healthz'))
        answer = await self.exchange(request('GET', '/addressbook'))
        self.assertIn('HTTPError', self.assert_error(answer, 503)['trace'])


if __name__ == '__main__':
    unittest.main()
