"""The server with Tornado's own connections."""

import asyncio
import socket
import ssl
import sys
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from tornado.http1connection import (
    HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection,
)
from tornado.httputil import (
    HTTPConnection, HTTPHeaders, HTTPMessageDelegate, HTTPServerConnectionDelegate,
    RequestStartLine, ResponseStartLine,
)
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError
from tornado.netutil import ssl_wrap_socket

from addrservice.answers import CLIENT_CLOSED_REQUEST
from addrservice.http_server.abstract import (
    BAD_REQUEST, AbstractConnection, AbstractHTTPServer, Origin, is_readable,
)
from addrservice.http_server.targets import origin_form
from addrservice.routing import RequestDelegate

# All that Tornado answers to what it cannot read as a request, and what goes out in its place.
TORNADO_BAD_REQUEST: Final = b'HTTP/1.1 400 Bad Request\r\n\r\n'


class TornadoServer(AbstractHTTPServer):
    """Serves with Tornado's connections."""

    def _serve(self, sock: socket.socket, origin: Origin, excess: bool) -> None:
        stream = IOStream(sock) if self.tls is None else _secure(sock, self.tls)
        _answer_bad_requests_as_json(stream)
        self.connections.add(TornadoConnection(self, stream, origin, excess))


class TornadoConnection(AbstractConnection, HTTPServerConnectionDelegate):
    """One of Tornado's connections.

    :param excess: whether it is one too many
    """

    def __init__(
        self, server: TornadoServer, stream: IOStream, origin: Origin, excess: bool
    ) -> None:
        self.quiet_since = time.monotonic()
        self.server = server
        self._stream = stream
        self._application = server.application(excess)
        self._requests = 0
        limits = server.limits
        self._parameters = HTTP1ConnectionParameters(
            no_keep_alive=excess or server.draining,
            max_header_size=limits.max_header_size,
            header_timeout=server.patience(excess),
            max_body_size=server.max_body_size,
            body_timeout=limits.body_timeout,
        )
        HTTP1ServerConnection(stream, self._parameters, origin).start_serving(self)

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Called when the connection is ready for its next request, before that has come."""
        assert isinstance(request_conn, HTTP1Connection)
        self.quiet_since = time.monotonic()
        self._requests += 1
        if self._requests == self.server.max_requests:
            self.end_with_answer()
        return _Request(self, request_conn, self._application.start_request(self, request_conn))

    def on_close(self, server_conn: object) -> None:
        self.server.connections.discard(self)

    def end_with_answer(self) -> None:
        self._parameters.no_keep_alive = True

    def is_busy(self) -> bool:
        if self._stream._read_buffer_size:  # Tornado tells it in no other way
            return True
        return self._stream.closed() or is_readable(self._stream.socket)

    def let_go(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._stream.close()


class _Request(HTTPMessageDelegate):
    """Takes note of a request, and of why it does not become whole."""

    def __init__(
        self,
        connection: TornadoConnection,
        request_conn: HTTP1Connection,
        delegate: RequestDelegate,
    ) -> None:
        self._connection = connection
        self._request_conn = request_conn
        self._delegate = delegate
        self._body_begins = 0.0

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        self._connection.quiet_since = None
        self._body_begins = time.monotonic()
        assert isinstance(start_line, RequestStartLine)
        self._delegate.headers_received(origin_form(start_line), headers)

    def data_received(self, chunk: bytes) -> None:
        self._delegate.data_received(chunk)

    def finish(self) -> None:
        self._delegate.finish()

    def on_connection_close(self) -> None:
        self._delegate.fail(self._why_closed())

    def _why_closed(self) -> int:
        # Tornado tells with the exception in flight when it was reading that failed; what it did
        # not like itself, it has dealt with before.
        error = sys.exception()
        if isinstance(error, StreamClosedError):
            endless = isinstance(error.real_error, UnsatisfiableReadError)  # a chunk's size
            return HTTPStatus.BAD_REQUEST if endless else CLIENT_CLOSED_REQUEST
        if time.monotonic() - self._body_begins >= self._connection.server.limits.body_timeout:
            return HTTPStatus.REQUEST_TIMEOUT
        return HTTPStatus.BAD_REQUEST


def _secure(sock: socket.socket, context: ssl.SSLContext) -> SSLIOStream:
    """A stream that speaks TLS on a socket, once hands are shaken.

    :raises OSError: the client is gone
    """
    stream = SSLIOStream(
        ssl_wrap_socket(sock, context, server_side=True, do_handshake_on_connect=False))
    _say_farewell(stream)
    return stream


def _say_farewell(stream: SSLIOStream) -> None:
    """Has a TLS connection end with ``close_notify`` (RFC 8446, 6.1), which Tornado leaves out."""
    close_fd = stream.close_fd

    def close() -> None:
        with suppress(OSError, ValueError):  # it wants to read the client's, or there is none
            stream.socket.unwrap()
        close_fd()

    stream.close_fd = close  # type: ignore[method-assign]  # Tornado offers no other place


def _answer_bad_requests_as_json(stream: IOStream) -> None:
    write = stream.write

    def write_json(data: bytes | memoryview) -> 'asyncio.Future[None]':
        return write(BAD_REQUEST if data == TORNADO_BAD_REQUEST else data)

    stream.write = write_json  # type: ignore[method-assign]  # Tornado offers no other place
