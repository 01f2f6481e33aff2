"""A connection whose requests httptools reads, in the place of Tornado's."""

import asyncio
import socket
import time
from collections import deque
from contextlib import suppress
from http import HTTPStatus
from typing import Final, cast

from tornado.httputil import HTTPInputError
from tornado.log import app_log, gen_log

from addrservice.answers import CLIENT_CLOSED_REQUEST
from addrservice.http_server.abstract import (
    BAD_REQUEST, HEAD_TOO_LARGE, AbstractConnection, AbstractHTTPServer, Origin, is_readable,
    is_writable,
)
from addrservice.http_server.alarm import Alarm
from addrservice.http_server.answering import Answering
from addrservice.http_server.messages import PIECE, HeadTooLargeError, Message, MessageParser
from addrservice.http_server.targets import origin_form
from addrservice.routing import RequestDelegate

CONTINUE: Final = b'HTTP/1.1 100 Continue\r\n\r\n'

# Seconds that a client gets to end a connection, too, of which it has got all.
LINGER: Final = 1


class HTTPToolsConnection(AbstractConnection, Answering):
    """One connection: its requests one after the other, and their answers.

    It is idle until the head of a request has come. The request is whole when all of it was handed
    over, and answered when its handler has finished. When it is both, and there is room for another
    answer, the connection is idle again. In the end it still sends what was written, and drops what
    comes in.

    :param sock: has come, and is about to be the transport's
    :param context: where it comes from
    :param excess: whether it is one too many
    :ivar arrival: what makes the connection, such as by shaking hands, until it is made
    """

    _delegate: RequestDelegate

    def __init__(
        self, server: AbstractHTTPServer, sock: socket.socket, context: Origin, excess: bool
    ) -> None:
        super().__init__(server.loop)
        self.context = context
        self.quiet_since: float | None = time.monotonic()
        self.arrival: 'asyncio.Task[None] | None' = None
        self._server = server
        self._socket = sock
        self._application = server.application(excess)
        self._patience = server.patience(excess)
        self.is_last = excess or server.draining
        self._requests = 0
        self._backlog: deque[bytes] = deque()  # what has come behind a request that is not answered
        self._malformed: HTTPInputError | None = None  # what comes behind the messages so far
        self._has_all = False  # the client sends no more
        self._is_endless = False  # the body of the request, which comes in chunks

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no such class
        self.arrival = None
        self._parser = MessageParser(self._server.limits.max_header_size)
        self._alarm = Alarm(self._loop, self._lose_patience)
        self._alarm.set(self._patience)

    def data_received(self, data: bytes) -> None:
        if self.is_ending:
            return
        if self.is_whole or self._backlog or len(data) > PIECE:
            self._backlog.extend(data[at:at + PIECE] for at in range(0, len(data), PIECE))
            self._read_on()
        else:
            self._read(data)

    def eof_received(self) -> bool:
        """Stays for the answers to what has come whole; with TLS that is not to be had."""
        self._has_all = True
        is_busy = self.is_whole or self._has_more()
        if self.is_ending or not is_busy or not self._transport.can_write_eof():
            self.is_ending = True
        return not self.is_ending

    def room_has_come(self) -> None:
        if self.is_whole and self.is_answered and not self.is_ending:
            self.be_ready()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._backlog.clear()
        self._malformed = None  # whose traceback knows this connection
        self._lose(CLIENT_CLOSED_REQUEST)
        self._alarm.close()
        self._parser.close()
        if self._requests:
            del self._delegate  # which knows this connection
        self._server.connections.discard(self)

    # Requests.

    def _read_on(self) -> None:
        """Reads what waits, up to the end of a request: they are answered one by one."""
        if not self.is_ending:
            self._go_on()
        while self._backlog and not self.is_whole and not self.is_ending:
            self._read(self._backlog.popleft())
        if self.is_ending:
            return
        if self._backlog:
            self._transport.pause_reading()
        elif not self._has_all:
            self._transport.resume_reading()
        elif not self.is_whole:
            self._lose(CLIENT_CLOSED_REQUEST)
            self.end()

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
        try:
            if self.message is None and self._parser.messages:
                self._begin(self._parser.messages.pop(0))
            if self.message is not None and not self.is_ending:
                self._hand_over(self.message)
            if self._malformed is not None and not self.is_whole:
                raise self._malformed
        except HTTPInputError as error:
            self._refuse(error)
        except Exception:
            app_log.error('uncaught exception', exc_info=True)
            self._lose(HTTPStatus.INTERNAL_SERVER_ERROR)
            self.abort()

    def _begin(self, message: Message) -> None:
        self.message = message
        self.quiet_since = None
        self._requests += 1
        if self._requests == self._server.max_requests:
            self.is_last = True
        self.is_answered = False
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
        self._alarm.set(self._server.limits.body_timeout)
        if not self.is_answered and message.headers.get('Expect') == '100-continue':
            self.write_out(CONTINUE)

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
        if message.complete and not self.is_whole:
            self._alarm.clear()
            self._delegate.finish()
            self.is_whole = True
            self._is_endless = False

    def _refuse(self, error: HTTPInputError) -> None:
        """Ends a connection whose client does not keep to HTTP."""
        gen_log.info('malformed HTTP message from %s: %s', self.context, error)
        if self.message is None or not self.is_answered:
            too_large = isinstance(error, HeadTooLargeError)
            self.write_out(HEAD_TOO_LARGE if too_large else BAD_REQUEST)
        self._lose(HTTPStatus.BAD_REQUEST)
        self.end()

    def _lose(self, status: int) -> None:
        """Gives up a request that has not become whole."""
        if self.message is not None and not self.is_whole:
            self.message = None
            self._delegate.fail(status)

    def _lose_patience(self) -> None:
        self._lose(HTTPStatus.REQUEST_TIMEOUT)
        self.abort()

    def be_ready(self) -> None:
        """Makes ready for the next request, which may be there already."""
        self._alarm.set(self._patience)
        if self.is_full:
            return  # until there is room for its answer
        self.message = None
        self.is_whole = False
        self.quiet_since = time.monotonic()
        if self._has_more() or self._has_all:
            self._loop.call_soon(self._read_on)

    def _has_more(self) -> bool:
        """Whether something waits behind the request."""
        return bool(self._parser.messages or self._backlog or self._malformed)

    def set_max_body_size(self, size: int) -> None:
        """Sets the limit, in bytes, for the body of this request."""
        self._max_body_size = size

    # The end, and what the server asks of it.

    def end(self) -> None:
        """Ends the connection when all is sent."""
        if not self._has_all and self._transport.can_write_eof() and self._has_input():
            self._half_close()
        else:
            self._begin_to_end(self._patience)
            self._transport.close()

    def _half_close(self) -> None:
        """Ends what goes out, and drops what comes in, until that ends, too.

        Were anything left unread, the client would see a reset, perhaps before the last answer (RFC
        9112, 9.6).
        """
        has_output = self._transport.get_write_buffer_size() > 0
        with suppress(OSError):  # the client is gone
            if has_output:
                self._transport.write_eof()
            else:  # at once: what would come before uvloop's next turn would be lost
                self._socket.shutdown(socket.SHUT_WR)
        self._begin_to_end(self._patience if has_output else LINGER)
        self._transport.resume_reading()

    def _begin_to_end(self, patience: float) -> None:
        self.is_ending = True
        self.quiet_since = time.monotonic()
        self._backlog.clear()
        self._alarm.set(patience)

    def end_with_answer(self) -> None:
        self.is_last = True

    def is_busy(self) -> bool:
        if self.arrival is not None:
            return is_readable(self._socket)
        return self._has_output() or (not self.is_ending and self._has_input())

    def _has_input(self) -> bool:
        """Whether anything has come behind the last whole request."""
        return self._parser.in_message or self._has_more() or is_readable(self._socket)

    def _has_output(self) -> bool:
        """Whether an answer has not gone out. With TLS only the socket can tell, and it may have
        got room just now: so it has to have had it for some time, as of when it was quiet.
        """
        has_output = self._transport.get_write_buffer_size() > 0 or not is_writable(self._socket)
        if has_output:
            self.quiet_since = time.monotonic()
        return has_output

    def let_go(self) -> None:
        if self.arrival is not None or self.is_ending:
            self.abort()
        elif self._transport.can_write_eof():
            self._half_close()
        else:
            self.end()

    def abort(self) -> None:
        self.is_ending = True
        if self.arrival is not None:
            self.arrival.cancel()
        else:
            self._transport.abort()
