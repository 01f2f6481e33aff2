"""A connection whose requests httptools reads, in the place of Tornado's."""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Final, cast

from tornado.httputil import (
    HTTPConnection, HTTPHeaders, HTTPInputError, HTTPOutputError, RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import StreamClosedError
from tornado.log import app_log, gen_log

from addrservice.answers import CLIENT_CLOSED_REQUEST, NO_BODY
from addrservice.http_server.abstract import (
    BAD_REQUEST, HEAD_TOO_LARGE, AbstractConnection, AbstractHTTPServer, Origin, is_readable,
    is_writable,
)
from addrservice.http_server.messages import PIECE, HeadTooLargeError, Message, MessageParser
from addrservice.http_server.targets import origin_form
from addrservice.routing import RequestDelegate

CONTINUE: Final = b'HTTP/1.1 100 Continue\r\n\r\n'


class HTTPToolsConnection(AbstractConnection, asyncio.Protocol, HTTPConnection):
    """One connection: its requests one after the other, and their answers.

    :param context: where it comes from
    :param excess: whether it is one too many
    :ivar arrival: what makes the connection, such as by shaking hands, until it is made
    """

    _transport: asyncio.Transport
    _delegate: RequestDelegate

    def __init__(self, server: AbstractHTTPServer, context: Origin, excess: bool) -> None:
        self.context = context
        self.quiet_since: float | None = time.monotonic()
        self.arrival: 'asyncio.Task[None] | None' = None
        self._server = server
        self._loop = server.loop
        self._application = server.application(excess)
        self._patience = server.patience(excess)
        self._parser = MessageParser(server.limits.max_header_size)
        self._backlog: deque[bytes] = deque()
        self._malformed: HTTPInputError | None = None
        self._requests = 0
        self._is_last = excess or server.draining
        self._message: Message | None = None
        self._is_whole = False  # the request, and handed over
        self._is_endless = False  # its body, which comes in chunks
        self._answered = True
        self._keep_alive = True
        self._chunked = False
        self._owed: int | None = None  # bytes of the answer's body that were announced
        self._paused = False
        self._sent: 'asyncio.Future[None]' = self._loop.create_future()  # for what is so at once
        self._sent.set_result(None)
        self._unsent: 'asyncio.Future[None] | None' = None
        self._is_closing = False
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no such class
        self.arrival = None
        self._wait(self._patience)

    def data_received(self, data: bytes) -> None:
        if self._is_whole or self._backlog or len(data) > PIECE:
            self._backlog.extend(data[at:at + PIECE] for at in range(0, len(data), PIECE))
            self._read_on()
        elif not self._is_closing:
            self._read(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._is_closing = True
        self._backlog.clear()
        self._malformed = None  # whose traceback knows this connection
        self._wait(None)
        if self._timer is not None:
            self._timer.cancel()
        if self._unsent is not None and not self._unsent.done():
            self._unsent.set_exception(StreamClosedError())
            self._unsent.exception()  # so that nobody has to ask
        self._lose(CLIENT_CLOSED_REQUEST)
        self._parser.close()
        if self._requests:
            del self._delegate  # which knows this connection
        self._server.connections.discard(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._unsent is not None and not self._unsent.done():
            self._unsent.set_result(None)
        self._unsent = None
        if self._is_whole and self._answered and not self._is_closing:
            self._next()

    # Requests.

    def _read_on(self) -> None:
        """Reads what waits, up to the end of a request: they are answered one by one."""
        self._go_on()
        while self._backlog and not self._is_whole and not self._is_closing:
            self._read(self._backlog.popleft())
        if self._is_closing:
            self._backlog.clear()
        elif self._backlog:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _read(self, data: bytes) -> None:
        try:
            if self._is_endless:
                self._count(len(data))
            self._parser.feed(data)
        except HTTPInputError as error:
            self._malformed = error
        self._go_on()

    def _go_on(self) -> None:
        """Hands over what has come of a request; of one that is malformed, up to there."""
        if self._is_closing:
            return
        try:
            if self._message is None and self._parser.messages:
                self._begin(self._parser.messages.pop(0))
            if self._message is not None and not self._is_closing:
                self._hand_over(self._message)
            if self._malformed is not None and not self._is_whole:
                raise self._malformed
        except HTTPInputError as error:
            self._refuse(error)
        except Exception:
            app_log.error('uncaught exception', exc_info=True)
            self._lose(HTTPStatus.INTERNAL_SERVER_ERROR)
            self.abort()

    def _begin(self, message: Message) -> None:
        self._message = message
        self.quiet_since = self._deadline = None
        self._requests += 1
        if self._requests == self._server.max_requests:
            self._is_last = True
        self._keep_alive = message.keep_alive
        self._answered = False
        self._max_body_size = self._server.max_body_size
        self._delegate = self._application.start_request(self, self)
        self._delegate.headers_received(origin_form(message.start_line), message.headers)
        if not message.complete:
            self._expect_body(message)

    def _expect_body(self, message: Message) -> None:
        length = message.headers.get('Content-Length')
        self._is_endless = length is None
        self._received = 0
        self._count(int(length or 0))
        self._wait(self._server.limits.body_timeout)
        if not self._answered and message.headers.get('Expect') == '100-continue':
            self._write(CONTINUE)

    def _count(self, size: int) -> None:
        """Counts bytes of a body, as they are on the wire.

        :raises HTTPInputError: there are too many
        """
        self._received += size
        if self._received > self._max_body_size:
            raise HTTPInputError('the body is too large')

    def _hand_over(self, message: Message) -> None:
        if message.chunks:
            body = b''.join(message.chunks)
            message.chunks.clear()
            self._delegate.data_received(body)
        if message.complete and not self._is_whole:
            self._deadline = None
            self._delegate.finish()
            self._is_whole = True
            self._is_endless = False

    def _refuse(self, error: HTTPInputError) -> None:
        """Ends a connection whose client does not keep to HTTP."""
        gen_log.info('malformed HTTP message from %s: %s', self.context, error)
        if self._message is None or not self._answered:
            too_large = isinstance(error, HeadTooLargeError)
            self._write(HEAD_TOO_LARGE if too_large else BAD_REQUEST)
        self._lose(HTTPStatus.BAD_REQUEST)
        self._end()

    def _lose(self, status: int) -> None:
        """Gives up a request that has not become whole."""
        if self._message is not None and not self._is_whole:
            self._message = None
            self._delegate.fail(status)

    def _next(self) -> None:
        """Makes ready for the next request, which may be there already."""
        self._message = None
        self._is_whole = False
        self.quiet_since = time.monotonic()
        self._wait(self._patience)
        if self._parser.messages or self._backlog or self._malformed:
            self._loop.call_soon(self._read_on)

    def _end(self) -> None:
        """Ends the connection when all is sent."""
        self._is_closing = True
        self.quiet_since = time.monotonic()
        self._transport.close()
        self._wait(self._patience)

    # Patience.

    def _wait(self, seconds: float | None) -> None:
        """Sets the time until which something has to come, or that there is none.

        A timer that rings too early is set again then: most deadlines are moved, not met.
        """
        if seconds is None:
            self._deadline = None
            return
        self._deadline = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        left = self._deadline - self._loop.time()
        if left > 0:
            self._wait(left)
        else:
            self._lose(HTTPStatus.REQUEST_TIMEOUT)
            self.abort()

    # Answers: what HTTPConnection has.

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> 'asyncio.Future[None]':
        assert self._message is not None and isinstance(start_line, ResponseStartLine)
        method, _, version = self._message.start_line
        self._keep_alive = self._keep_alive and self._is_whole and not self._is_last
        self._chunked = False
        code = start_line.code
        if method == 'HEAD' or code == 304:
            self._owed = 0
        elif 'Content-Length' in headers:
            self._owed = int(headers['Content-Length'])
        else:
            self._owed = None
            self._chunked = version == 'HTTP/1.1' and code != 204
        if self._chunked:
            headers['Transfer-Encoding'] = 'chunked'
        if version == 'HTTP/1.0':
            self._keep_alive &= 'Content-Length' in headers or code in NO_BODY
            if self._keep_alive:
                headers['Connection'] = 'Keep-Alive'
        elif not self._keep_alive:
            headers['Connection'] = 'close'
        head = _head(start_line, headers)
        return self._write(head + self._framed(chunk) if chunk else head)

    def write(self, chunk: bytes) -> 'asyncio.Future[None]':
        return self._write(self._framed(chunk))

    def finish(self) -> None:
        self._answered = True
        if self._is_closing:
            return
        if self._owed:
            self.close()
            raise HTTPOutputError(f'{self._owed} bytes less than Content-Length says')
        if self._chunked:
            self._write(b'0\r\n\r\n')
        if not self._keep_alive:
            self._end()
        elif not self._paused:  # else when there is room for its answer
            self._next()

    def _framed(self, chunk: bytes) -> bytes:
        if self._owed is not None:
            self._owed -= len(chunk)
            if self._owed < 0:
                self.close()
                raise HTTPOutputError('more bytes than Content-Length says')
        return b'%x\r\n%b\r\n' % (len(chunk), chunk) if self._chunked and chunk else chunk

    def _write(self, data: bytes) -> 'asyncio.Future[None]':
        """Sends data; the future is done when there is room for more."""
        if self._transport.is_closing():
            return self._failed()
        self._transport.write(data)
        if not self._paused:
            return self._sent
        if self._unsent is None or self._unsent.done():  # as when nobody waits for it any more
            self._unsent = self._loop.create_future()
        return self._unsent

    def _failed(self) -> 'asyncio.Future[None]':
        future: 'asyncio.Future[None]' = self._loop.create_future()
        future.set_exception(StreamClosedError())
        future.exception()  # so that nobody has to ask
        return future

    # What handlers ask of a connection of Tornado's besides.

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Nobody here wants to know."""

    def set_max_body_size(self, size: int) -> None:
        """Sets the limit, in bytes, for the body of this request."""
        self._max_body_size = size

    def close(self) -> None:
        """Ends the connection when all is sent; at once where the client does not read it."""
        if self._paused:
            self.abort()
        else:
            self._end()

    # What the server asks of it.

    def end_with_answer(self) -> None:
        self._is_last = True

    def has_input(self) -> bool:
        if self.arrival is not None:
            return True
        sock = self._transport.get_extra_info('socket')
        if self._is_closing:
            return self._has_output(sock)
        return self._parser.in_message or bool(self._backlog) or is_readable(sock)

    def _has_output(self, sock: socket.socket) -> bool:
        """Whether an answer has not gone out. With TLS only the socket can tell, and it may have
        got room just now: so it has to have had it for some time, as of when it was quiet.
        """
        has_output = self._transport.get_write_buffer_size() > 0 or not is_writable(sock)
        if has_output:
            self.quiet_since = time.monotonic()
        return has_output

    def abort(self) -> None:
        self._is_closing = True
        if self.arrival is not None:
            self.arrival.cancel()
        else:
            self._transport.abort()


@lru_cache(100)
def _status_line(code: int, reason: str) -> str:
    return f'HTTP/1.1 {code} {reason}'


def _head(start_line: ResponseStartLine, headers: HTTPHeaders) -> bytes:
    """The head of an answer.

    :raises ValueError: a line would end within a field, or is not in Latin-1
    """
    lines = [f'{name}: {value}' for name, value in headers.get_all()]
    text = '\r\n'.join([_status_line(start_line.code, start_line.reason), *lines, '\r\n'])
    ends = len(lines) + 2
    if text.count('\n') != ends or text.count('\r') != ends:
        raise ValueError(f'a line ends within a header field: {lines}')
    return text.encode('latin1')
