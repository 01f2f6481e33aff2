"""Answers, as bytes."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from functools import lru_cache

from tornado.httputil import (
    HTTPConnection, HTTPHeaders, HTTPOutputError, RequestStartLine, ResponseStartLine,
)

from addrservice.answers import NO_BODY
from addrservice.http_server.messages import Message
from addrservice.http_server.outlet import Outlet


class Answering(Outlet, HTTPConnection):
    """The side of a connection that handlers see: writes the answer to a request.

    :ivar message: the request; None while there is none
    :ivar is_whole: whether all of it has come and was handed over
    :ivar is_answered: whether its handler has finished
    :ivar is_last: whether no other one may follow
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.message: Message | None = None
        self.is_whole = False
        self.is_answered = True
        self.is_last = False
        self._keep_alive = True  # as far as request and answer allow it
        self._chunked = False
        self._owed: int | None = None  # bytes of the body that were announced

    @abstractmethod
    def be_ready(self) -> None:
        """Called after an answer behind which another request may come."""

    @abstractmethod
    def end(self) -> None:
        """Ends the connection when all is sent."""

    @abstractmethod
    def abort(self) -> None:
        """Ends the connection at once."""

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> 'asyncio.Future[None]':
        assert self.message is not None and isinstance(start_line, ResponseStartLine)
        method, _, version = self.message.start_line
        self._keep_alive = self.message.keep_alive and self.is_whole and not self.is_last
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
        data = answer_head(start_line, headers)
        return self.write_out(data + self._framed(chunk) if chunk else data)

    def write(self, chunk: bytes) -> 'asyncio.Future[None]':
        return self.write_out(self._framed(chunk))

    def finish(self) -> None:
        self.is_answered = True
        if self.is_ending:
            return
        if self._owed:
            self.close()
            raise HTTPOutputError(f'{self._owed} bytes less than Content-Length says')
        if self._chunked:
            self.write_out(b'0\r\n\r\n')
        if self._keep_alive:
            self.be_ready()
        else:
            self.end()

    def _framed(self, chunk: bytes) -> bytes:
        if self._owed is not None:
            self._owed -= len(chunk)
            if self._owed < 0:
                self.close()
                raise HTTPOutputError('more bytes than Content-Length says')
        return b'%x\r\n%b\r\n' % (len(chunk), chunk) if self._chunked and chunk else chunk

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Nobody here wants to know."""

    def close(self) -> None:
        """Ends the connection when all is sent; at once where the client does not read it."""
        if self.is_full:
            self.abort()
        elif not self.is_ending:
            self.end()


def answer_head(start_line: ResponseStartLine, headers: HTTPHeaders) -> bytes:
    """The head of an answer.

    :raises ValueError: a line would end within a field, or is not in Latin-1
    """
    lines = [f'{name}: {value}' for name, value in headers.get_all()]
    text = '\r\n'.join([_status_line(start_line.code, start_line.reason), *lines, '\r\n'])
    ends = len(lines) + 2
    if text.count('\n') != ends or text.count('\r') != ends:
        raise ValueError(f'a line ends within a header field: {lines}')
    return text.encode('latin1')


@lru_cache(100)
def _status_line(code: int, reason: str) -> str:
    return f'HTTP/1.1 {code} {reason}'
