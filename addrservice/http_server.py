"""The HTTP server: Tornado's, with a cap on connections, and a drain at the end."""

import asyncio
import copy
import functools
import re
import resource
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Any, Final

import orjson
from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection, HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream
from tornado.web import Application

from addrservice.body_handler import MAX_DISCARDED
from addrservice.config import ServiceSettings

# All that Tornado answers to what it cannot read as a request, and what goes out in its place.
TORNADO_BAD_REQUEST: Final = b'HTTP/1.1 400 Bad Request\r\n\r\n'
BAD_REQUEST_BODY: Final = orjson.dumps({
    'method': None,
    'uri': None,
    'code': 400,
    'message': 'This is not a request in HTTP/1.1, or its body is not framed or encoded as it '
               'says, or it has more than 1000 parameters',
})
BAD_REQUEST: Final = (
    b'HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n'
    b'X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n'
    b'Content-Length: %d\r\n\r\n%s' % (len(BAD_REQUEST_BODY), BAD_REQUEST_BODY)
)

_ORIGIN: Final = re.compile(r'\Ahttps?://[^/?]*/?', re.IGNORECASE)

# Connections that wait to be accepted: Tornado's 128 make a crowd of clients try again for seconds.
BACKLOG: Final = 4096

# Connections for each of which a further new one is taken in at once.
SHARE: Final = 8

# Connections beyond the cap that are told so; yet further ones are closed at once.
MAX_OVERFLOW: Final = 64

# File descriptors kept for everything that is no connection: logs, sockets, the store.
RESERVED_FILES: Final = 64

# Seconds that a keep-alive connection may be quiet in a drain before it is ended: a client at work
# sends its next request sooner, and learns from the answer that it is the last.
QUIET: Final = 0.25

# Seconds that a request which is cut off gets to say so.
LAST_WORDS: Final = 1


class AddressBookHTTPServer(HTTPServer):
    """Serves an application within the limits of the configuration.

    :param application: answers the requests
    :param overflow: answers those on connections beyond the cap
    :param limits: sizes, timeouts and the cap
    :param tls: to speak HTTPS
    :ivar max_requests: on one connection, which ends then; no limit unless it is set
    """

    def initialize(  # type: ignore[override]  # Tornado's stand-in for a constructor
        self,
        application: Application,
        overflow: Application,
        limits: ServiceSettings,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().initialize(
            application,
            ssl_options=tls,
            decompress_request=True,
            max_header_size=limits.max_header_size,
            idle_connection_timeout=limits.idle_connection_timeout,
            body_timeout=limits.body_timeout,
            # The handlers hold the limit itself and answer 413; here is where patience ends.
            max_body_size=limits.max_body_size + 2 * MAX_DISCARDED,
        )
        self.max_connections = min(limits.max_connections, _spare_files())
        self._overflow = overflow
        self._running: list[set[asyncio.Task[Any]]] = [
            application.settings['running'], overflow.settings['running']]
        self._overflow_params = copy.copy(self.conn_params)
        self._overflow_params.no_keep_alive = True
        self._overflow_params.header_timeout = limits.body_timeout
        self.max_requests: int | None = None
        self._last_params = copy.copy(self.conn_params)
        self._last_params.no_keep_alive = True
        self._quiet_since: dict[HTTP1ServerConnection, float] = {}
        self._requests: Counter[HTTP1ServerConnection] = Counter()

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Listens on sockets.

        Takes in one connection a turn, and one more for each ``SHARE`` that it has, where Tornado
        takes in all that wait: processes that share a socket would not share the work.
        """
        for listener in sockets:
            self._sockets[listener.fileno()] = listener
            self._handlers[listener.fileno()] = functools.partial(
                IOLoop.current().remove_handler, listener)
            IOLoop.current().add_handler(listener, self._on_connection, IOLoop.READ)

    def _on_connection(self, listener: socket.socket, _: int) -> None:
        for _ in range(1 + len(self._connections) // SHARE):  # turns are long with many of them
            if not self._accept(listener):
                break

    def _accept(self, listener: socket.socket) -> bool:
        """Takes in a connection; False where none waits, or there is no file to open for it."""
        try:
            connection, address = listener.accept()
        except OSError:
            return False
        connection.setblocking(False)
        try:
            connection.getpeername()  # who is gone already would make TLS stumble
            self._handle_connection(connection, address)
        except OSError:  # ssl.SSLError is one
            connection.close()
        return True

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serves a new connection, unless there are too many even to say so."""
        _answer_bad_requests_as_json(stream)
        if isinstance(stream, SSLIOStream):
            _say_farewell(stream)
        excess = len(self._connections) - self.max_connections
        if excess < 0:
            super().handle_stream(stream, address)
        elif excess < MAX_OVERFLOW:
            regular, self.conn_params = self.conn_params, self._overflow_params
            super().handle_stream(stream, address)
            self.conn_params = regular
        else:
            stream.close()

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Called when a connection is ready for its next request, before that has come."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        self._quiet_since[server_conn] = time.monotonic()
        self._requests[server_conn] += 1
        if self._requests[server_conn] + 1 == self.max_requests:
            server_conn.params = self._last_params  # of the next: those of this one are read
        if server_conn.params is self._overflow_params:
            delegate = self._overflow.start_request(server_conn, request_conn)
        else:
            delegate = super().start_request(server_conn, request_conn)
        return _RequestBegins(delegate, self._quiet_since, server_conn)

    def on_close(self, server_conn: object) -> None:
        assert isinstance(server_conn, HTTP1ServerConnection)
        self._quiet_since.pop(server_conn, None)
        del self._requests[server_conn]
        super().on_close(server_conn)

    async def drain(self, deadline: float, delay: float = 0) -> int:
        """Stops listening and waits for the requests in flight; ends the quiet connections.

        From the first moment on each answer says ``Connection: close`` and ends its connection.
        A request is in flight until its handler has ended, even if its client is gone, and until
        its answer is sent. At the deadline those that are left are answered with 503.

        :param deadline: seconds to wait at the most, once it listens no more
        :param delay: seconds to go on listening, for load balancers to notice
        :return: how many requests were still in flight and had to be cut off
        """
        self.conn_params.no_keep_alive = True
        await asyncio.sleep(delay)
        self._accept_waiting()
        self.stop()
        end = time.monotonic() + deadline
        while (self._connections or any(self._running)) and time.monotonic() < end:
            self._close_quiet_connections()
            await asyncio.sleep(0.01)
        handlers = set().union(*self._running)
        unfinished = max(len(handlers), len(self._connections) - len(self._quiet_since))
        await self._cut_off(handlers)
        return unfinished

    async def _cut_off(self, handlers: set[asyncio.Task[Any]]) -> None:
        for task in handlers:
            task.cancel()
        if handlers:
            await asyncio.wait(handlers, timeout=LAST_WORDS)
        for server_conn in self._connections:  # all at once: one by one, the others would go on
            server_conn.stream.close()
        await self.close_all_connections()

    def _accept_waiting(self) -> None:
        """Takes in what the kernel has accepted already: closing the socket would reset it."""
        for listener in self._sockets.values():
            for _ in range(BACKLOG):
                if not self._accept(listener):
                    break

    def _close_quiet_connections(self) -> None:
        latest = time.monotonic() - QUIET
        for server_conn, since in self._quiet_since.items():
            stream = server_conn.stream
            if since < latest and not stream.closed() and not _has_input(stream):
                stream.close()


class _RequestBegins(HTTPMessageDelegate):
    """Notes that a connection has a request, and reads the target in either of its forms."""

    def __init__(
        self,
        delegate: HTTPMessageDelegate,
        quiet_since: dict[HTTP1ServerConnection, float],
        server_conn: HTTP1ServerConnection,
    ) -> None:
        self._delegate = delegate
        self._quiet_since = quiet_since
        self._server_conn = server_conn

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        del self._quiet_since[self._server_conn]
        assert isinstance(start_line, RequestStartLine)
        if not start_line.path.startswith('/'):  # the absolute form (RFC 9112, 3.2.2)
            start_line = start_line._replace(path=_ORIGIN.sub('/', start_line.path))
        return self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._delegate.data_received(chunk)

    def finish(self) -> None:
        self._delegate.finish()

    def on_connection_close(self) -> None:
        self._delegate.on_connection_close()


def _answer_bad_requests_as_json(stream: IOStream) -> None:
    write = stream.write

    def write_json(data: bytes | memoryview) -> 'asyncio.Future[None]':
        return write(BAD_REQUEST if data == TORNADO_BAD_REQUEST else data)

    stream.write = write_json  # type: ignore[method-assign]  # Tornado offers no other place


def _say_farewell(stream: SSLIOStream) -> None:
    """Has a TLS connection end with ``close_notify`` (RFC 8446, 6.1), which Tornado leaves out."""
    close_fd = stream.close_fd

    def close() -> None:
        with suppress(OSError, ValueError):  # it wants to read the client's, or there is none
            stream.socket.unwrap()
        close_fd()

    stream.close_fd = close  # type: ignore[method-assign]  # Tornado offers no other place


def _spare_files() -> int:
    """How many connections the limit on open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - RESERVED_FILES - MAX_OVERFLOW)


def _has_input(stream: IOStream) -> bool:
    """Whether a request has begun to come: in Tornado's buffer, or still in the socket."""
    if stream._read_buffer_size:  # Tornado tells it in no other way
        return True
    try:
        # Of the plain socket, for one with TLS takes no flags.
        return bool(socket.socket.recv(stream.socket, 1, socket.MSG_PEEK))
    except OSError:  # nothing to read, or nothing any more
        return False
