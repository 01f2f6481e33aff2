"""HTTP as bytes: requests, raw connections, and test cases that use them and watch the logs."""

import asyncio
import contextlib
import gzip
import json
import logging
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from tornado.httpclient import HTTPResponse
from tornado.httputil import HTTPHeaders, parse_response_start_line

from addrservice import LOGGER_NAME
from addrservice.logs import KeyValueFormatter, RequestFilter
from tests.support import DEADLINE, HTTPTestCase

SMALL: Final = b'{"name": "Ada"}'
UNKNOWN_ID: Final = '0' * 32
SECRET: Final = 'Pimpernel'  # what must not turn up

EVERYTHING: Final = dict.fromkeys(
    (None, LOGGER_NAME, 'tornado', 'tornado.access', 'tornado.application', 'tornado.general',
     'asyncio'), 'DEBUG')


def head(line: str, *fields: str) -> bytes:
    """A start line and header fields, up to the empty line."""
    return '\r\n'.join([line, 'Host: test', *fields, '', '']).encode('latin-1')


def request(method: str, path: str, *fields: str, body: bytes | None = None) -> bytes:
    """A whole request, its body declared as JSON."""
    line = f'{method} {path} HTTP/1.1'
    if body is None:
        return head(line, *fields)
    declared = 'Content-Type: application/json', f'Content-Length: {len(body)}'
    return head(line, *declared, *fields) + body


def post_head(*fields: str) -> bytes:
    """The head of a POST; the fields tell how the body comes."""
    return request('POST', '/addressbook', 'Content-Type: application/json', *fields)


def chunked(body: bytes, size: int) -> bytes:
    """A body in chunks, the last one with it."""
    pieces = [body[start:start + size] for start in range(0, len(body), size)]
    return b''.join(b'%x\r\n%s\r\n' % (len(piece), piece) for piece in [*pieces, b''])


def padded(size: int) -> bytes:
    """A good entry of just so many bytes."""
    return SMALL + b' ' * (size - len(SMALL))


CHUNKED: Final = post_head('X-Request-ID: mine', 'Transfer-Encoding: chunked')

# Bytes that are no request.
_MALFORMED_HEADS: Final = {
    'no start line': f'{SECRET}\r\n\r\n'.encode(),
    'no version': head(f'GET /{SECRET}'),
    'another version': head('GET /healthz HTTP/2.0', SECRET),
    'another protocol': head(f'GET /healthz {SECRET}'),
    'a field without a colon': head('GET /healthz HTTP/1.1', SECRET),
    'a field with a blank in its name': head('GET /healthz HTTP/1.1', f'{SECRET} x: y'),
    'no host': f'GET /healthz?{SECRET} HTTP/1.1\r\n\r\n'.encode(),
    'two hosts': head('GET /healthz HTTP/1.1', f'Host: {SECRET}'),
    'a bad host': f'GET /healthz HTTP/1.1\r\nHost: {SECRET} x\r\n\r\n'.encode(),
}

# Requests, the id of each is ``mine``, that do not say how their body is framed.
UNFRAMED: Final = {
    'a length that is no number': post_head('X-Request-ID: mine', f'Content-Length: {SECRET}'),
    'a length below zero': post_head('X-Request-ID: mine', 'Content-Length: -1'),
    'a length of 20 digits': post_head('X-Request-ID: mine', f'Content-Length: {"9" * 20}'),
    'two lengths': post_head('X-Request-ID: mine', 'Content-Length: 1', 'Content-Length: 2'),
    'a length and chunks': post_head('X-Request-ID: mine', 'Content-Length: 3',
                                     'Transfer-Encoding: chunked') + chunked(SMALL, 9),
    'another transfer encoding': post_head('X-Request-ID: mine', f'Transfer-Encoding: {SECRET}'),
    'chunked twice': post_head('X-Request-ID: mine', 'Transfer-Encoding: chunked, chunked'),
}

# Requests, the id of each is ``mine``, whose body is not framed or encoded as they say.
MALFORMED_BODIES: Final = {
    **UNFRAMED,
    'a chunk size that is no number': CHUNKED + f'{SECRET}\r\n'.encode(),
    'a chunk longer than its size': CHUNKED + f'3\r\n{SECRET}\r\n0\r\n\r\n'.encode(),
    'a trailer': CHUNKED + f'0\r\nX: {SECRET}\r\n\r\n'.encode(),
    'no gzip': request('POST', '/addressbook', 'X-Request-ID: mine', 'Content-Encoding: gzip',
                       body=SECRET.encode()),
    'gzip cut short': request('PUT', '/addressbook/x', 'X-Request-ID: mine',
                              'Content-Encoding: gzip', body=gzip.compress(SMALL)[:-9]),
}

MALFORMED: Final = {**_MALFORMED_HEADS, **MALFORMED_BODIES}


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
            text = (await self._reader.readuntil(b'\r\n\r\n')).decode('latin-1')
            line, _, fields = text.partition('\r\n')
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

    async def exchange(self, data: bytes, *, has_body: bool = True) -> Answer:
        await self.send(data)
        return await self.answer(has_body=has_body)

    async def at_end(self) -> bool:
        """Whether the server has closed the connection, and has sent nothing before that."""
        async with asyncio.timeout(DEADLINE):
            try:
                return await self._reader.read(1) == b''
            except ConnectionResetError:
                return True

    def end(self) -> None:
        """Sends no more."""
        self._writer.write_eof()

    async def rest(self) -> bytes:
        """All that comes until the server ends the connection."""
        async with asyncio.timeout(DEADLINE):
            return await self._reader.read()

    def reset(self) -> None:
        """Ends the connection as no client does that waits for an answer."""
        self._writer.get_extra_info('socket').setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
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
    """Raw connections, logs, and what most tests ask of an answer."""

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
        """The answer to bytes on a connection of their own, which the client ends then."""
        connection = await self.connect()
        answer = await connection.exchange(data)
        await connection.close()
        return answer

    async def read(self, path: str) -> Any:
        """The value that a path has."""
        answer = await self.fetch('GET', path)
        self.assertEqual(200, answer.code, answer.body)
        return json.loads(answer.body)

    async def until(self, condition: Callable[[], object]) -> None:
        """Gives the server its turn until something is so."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.001)

    async def until_disconnected(self) -> None:
        """Waits until the server has no connection any more."""
        await self.until(lambda: not self.server.connections)

    @contextlib.contextmanager
    def logged(self, levels: Mapping[str | None, str] = EVERYTHING) -> Iterator[Lines]:
        """What is logged meanwhile, by loggers of those levels."""
        lines = Lines()
        root = logging.getLogger()
        before = {logger: logger.level for logger in map(logging.getLogger, levels)}
        root.addHandler(lines)
        try:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            yield lines
        finally:
            root.removeHandler(lines)
            for logger, number in before.items():
                logger.setLevel(number)

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

    def assert_malformed(self, answer: Answer) -> None:
        """Checks what is said to bytes that are no request, or no whole one."""
        self.assertEqual((400, 'Bad Request'), (answer.status, answer.reason))
        self.assertEqual('application/json', answer.headers['Content-Type'])
        self.assertEqual('close', answer.headers['Connection'])
        self.assertEqual(str(len(answer.body)), answer.headers['Content-Length'])
        error = json.loads(answer.body)
        self.assertEqual((None, None, 400), (error['method'], error['uri'], error['code']))
        self.assertIn('not a request in HTTP/1.1', error['message'])
