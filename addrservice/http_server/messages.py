"""Requests as httptools (llhttp) reads them out of the bytes of a connection."""

import re
from typing import Final

import httptools
from tornado.httputil import HTTPHeaders, HTTPInputError, RequestStartLine

from addrservice.answer_headers import canonical

# Bytes that are read at once. What comes behind them may be many requests, of which each takes
# some fifty times as much memory once it is read.
PIECE: Final = 4096

# Bytes of a header field besides its name and its value: a colon and the end of the line.
FIELD_OVERHEAD: Final = 3

# Names of header fields that are kept, and bytes of the longest one.
MAX_NAMES: Final = 1000
LONGEST_NAME: Final = 64

_VERSIONS: Final = {'1.1': 'HTTP/1.1', '1.0': 'HTTP/1.0'}

# How a request begins, as far as it has come: with a token (RFC 9110, 5.6.2).
_METHOD: Final = re.compile(rb"[\r\n]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)( |\Z)")

# A request line, of which all but the protocol is known to be sound: llhttp takes RTSP and ICE too.
_HTTP: Final = re.compile(rb'[\r\n]*[^ ]+ +[^ ]+ +HTTP/')


class HeadTooLargeError(HTTPInputError):
    """The head of a request is larger than is allowed."""


class RequestHeaders(HTTPHeaders):
    """The header fields of a request. Names and values are sound: the parser has seen to that.

    :ivar is_joined: whether each field has come once
    """

    is_joined = True

    def __init__(self) -> None:
        # Tornado's own attributes: its way to fill them would check all of it again.
        self._as_list: dict[str, list[str]] = {}
        self._combined_cache: dict[str, str] = {}

    def append(self, name: bytes, value: bytes) -> None:
        """Adds a field as it came."""
        known, text = _NAMES[name], value.decode('latin1').rstrip(' \t')
        if known in self._as_list:
            self._as_list[known].append(text)
            self.is_joined = False
        else:
            self._as_list[known] = [text]
            self._combined_cache[known] = text

    def join(self) -> None:
        """Joins the values of fields that came more than once, now that all have come."""
        for name, values in self._as_list.items():
            self._combined_cache[name] = ','.join(values)

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return self._combined_cache.get(canonical(name), default)

    def size(self) -> int:
        """Bytes that the fields have taken, but for blanks around their values."""
        return sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in self.get_all())


class Message:
    """A request, as far as it has come.

    :ivar chunks: what has come of the body and was not taken yet
    :ivar complete: whether all of it has come
    :ivar keep_alive: whether the client would send another one after it
    """

    __slots__ = ('start_line', 'headers', 'chunks', 'complete', 'keep_alive')

    start_line: RequestStartLine

    def __init__(self, headers: HTTPHeaders) -> None:
        self.headers = headers
        self.chunks: list[bytes] = []
        self.complete = False
        self.keep_alive = False


class MessageParser:
    """Reads requests, one after the other.

    :param max_head_size: bytes of target and header fields together
    :ivar messages: the requests whose head has come and that were not taken yet
    :ivar in_message: whether one has begun to come and is not complete
    """

    def __init__(self, max_head_size: int) -> None:
        self.messages: list[Message] = []
        self.in_message = False
        self._max_head_size = max_head_size
        self._parser = httptools.HttpRequestParser(self)
        self._in_head = False
        self._message: Message
        self._target = b''
        self._head = b''  # as far as it has come; nothing where it began behind something else
        self._in_framing = False  # neither in a body nor between requests
        self._framing_size = 0
        self._fed = 0  # bytes, at once

    def close(self) -> None:
        """Reads no more. The parser and this one refer to each other until then."""
        del self._parser

    def feed(self, data: bytes) -> None:
        """Reads on.

        :param data: not more than a ``PIECE``
        :raises HTTPInputError: this is not HTTP/1.1; what came before is among the messages
        """
        self._fed = len(data)
        if not self.in_message:
            self._head = data
        elif self._in_framing:
            self._framing_size += self._fed
            if self._head:
                self._head += data
        else:
            self._in_framing = True  # until some of its body comes
            self._framing_size = self._fed
        rest = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            rest = data[upgrade.args[0]:]
        except httptools.HttpParserCallbackError as error:
            assert error.__context__ is not None
            raise error.__context__ from None
        except httptools.HttpParserError as error:
            rest = self._rename(error)
        if rest is not None:
            self.feed(rest)  # not while an error is handled: it would become another one's context
        elif self._in_framing:
            self._check_framing()

    def _check_framing(self) -> None:
        """Has an end even of what is not counted when it has come, as it never comes.

        What was counted may begin with up to a piece of something else.
        """
        if self._framing_size > self._max_head_size + PIECE:
            if self._in_head:
                raise HeadTooLargeError('the head is too large')
            raise HTTPInputError('there is too much besides the body')

    def _rename(self, error: httptools.HttpParserError) -> bytes | None:
        """Has a request read again whose method the parser does not know, or not for HTTP.

        The name of another one stands in its place: all besides is read alike. Where it was not the
        method that is wrong, it will be so again.

        :return: what is to be read; None while not all of the name has come
        :raises HTTPInputError: this does not begin with a method, or it is not known where it began
        """
        begin = _METHOD.match(self._head)
        if begin is None:
            raise HTTPInputError(str(error)) from None
        if not begin[2]:
            return None
        head, self._head = self._head, b''
        self._parser = _Renamed(self, begin[1])
        return b'PUT' + head[begin.end(1):]

    def _ignore_upgrade(self) -> None:
        """Goes on after a request for an upgrade, to what nobody here speaks.

        The parser takes it for one without a body. So another one reads that, behind a head that
        says nothing but how long it is.
        """
        message, self._parser = self._message, httptools.HttpRequestParser(self)
        fields = [f'{name}: {message.headers[name]}\r\n'
                  for name in ('Content-Length', 'Transfer-Encoding') if name in message.headers]
        self._parser.feed_data(f'POST / HTTP/1.1\r\n{"".join(fields)}\r\n'.encode('latin1'))
        message.complete = self.messages.pop().complete
        self._message = message

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._target = b''
        self._headers = RequestHeaders()
        self._in_head = self._in_framing = self.in_message = True
        self._framing_size = self._fed

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            raise HTTPInputError('there are fields behind the body')
        self._headers.append(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = self._in_framing = False
        if not self._headers.is_joined:
            self._headers.join()
        if self._framing_size > self._max_head_size:
            if len(self._target) + self._headers.size() > self._max_head_size:
                raise HeadTooLargeError('the head is too large')
        version = _VERSIONS.get(self._parser.get_http_version())
        if version is None or (self._head and not _HTTP.match(self._head)):
            raise HTTPInputError('this is no version of HTTP/1')
        self._head = b''
        self._message = message = Message(self._headers)
        message.start_line = RequestStartLine(
            self._parser.get_method().decode(), self._target.decode('latin1'), version)
        message.keep_alive = self._parser.should_keep_alive()
        coding = self._headers.get('Transfer-Encoding')
        if coding is not None and (coding.lower() != 'chunked' or version == 'HTTP/1.0'):
            raise HTTPInputError('there is a transfer coding besides chunked, or in HTTP/1.0')
        self.messages.append(message)

    def on_body(self, part: bytes) -> None:
        self._in_framing = False
        self._message.chunks.append(part)

    def on_message_complete(self) -> None:
        self._message.complete = True
        self.in_message = self._in_framing = False


class _Renamed(httptools.HttpRequestParser):
    """Reads a request that comes under another method's name, and what follows it."""

    def __init__(self, parser: MessageParser, method: bytes) -> None:
        super().__init__(parser)
        self._method: bytes | None = method

    def get_method(self) -> bytes:
        method, self._method = self._method, None
        return method or super().get_method()


class _Names(dict[bytes, str]):
    """Names of header fields as they came, and as Tornado writes them."""

    def __missing__(self, name: bytes) -> str:
        known = canonical.__wrapped__(name.decode('ascii'))
        if len(name) <= LONGEST_NAME:
            if len(self) == MAX_NAMES:
                self.clear()  # a client that makes names up keeps nobody else's out
            self[name] = known
        return known


_NAMES: Final = _Names()
