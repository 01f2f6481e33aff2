"""Requests as httptools (llhttp) reads them out of the bytes of a connection."""

import re
from functools import lru_cache
from typing import Final

import httptools
from tornado.httputil import (
    HTTPHeaders, HTTPInputError, RequestStartLine, parse_request_start_line,
)

from addrservice.answer_headers import canonical

# Bytes that are read at once. What comes behind them may be many requests, of which each takes
# some fifty times as much memory once it is read.
PIECE: Final = 4096

# Bytes of a header field besides its name and its value: a colon and the end of the line.
FIELD_OVERHEAD: Final = 3

_VERSIONS: Final = {'1.1': 'HTTP/1.1', '1.0': 'HTTP/1.0'}

# How a request begins, as far as it has come: with a token (RFC 9110, 5.6.2).
_METHOD: Final = re.compile(rb"[\r\n]*[!#$%&'*+.^_`|~0-9A-Za-z-]+( |\Z)")


class HeadTooLargeError(HTTPInputError):
    """The head of a request is larger than is allowed."""


class RequestHeaders(HTTPHeaders):
    """The header fields of a request. Names and values are sound: the parser has seen to that."""

    def __init__(self) -> None:
        # Tornado's own attributes: its way to fill them would check all of it again.
        self._as_list: dict[str, list[str]] = {}
        self._combined_cache: dict[str, str] = {}

    def append(self, name: bytes, value: bytes) -> None:
        """Adds a field as it came."""
        known, text = _decode_name(name), value.decode('latin1').rstrip(' \t')
        if known in self._as_list:
            self._as_list[known].append(text)
            self._combined_cache[known] += ',' + text
        else:
            self._as_list[known] = [text]
            self._combined_cache[known] = text

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
        self._unknown: _UnknownMethod | None = None
        self._in_head = False
        self._message: Message
        self._target = b''
        self._start = b''  # of a request, as long as its method has not come
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
        is_fresh = not self.in_message
        self._fed = len(data)
        if self._in_framing:
            self._framing_size += self._fed
        elif self.in_message:
            self._in_framing = True  # until some of its body comes
            self._framing_size = self._fed
        try:
            if self._unknown is None:
                self._parser.feed_data(data)
            else:
                self._unknown.feed_data(data)
        except httptools.HttpParserInvalidMethodError:
            self._read_unknown(self._start_of_message(data, is_fresh))
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            self.feed(data[upgrade.args[0]:])
        except httptools.HttpParserCallbackError as error:
            assert error.__context__ is not None
            raise error.__context__ from None
        except httptools.HttpParserError as error:
            raise HTTPInputError(str(error)) from None
        if self._in_framing:
            self._check_framing()
            self._start = self._start_of_message(data, is_fresh)

    def _check_framing(self) -> None:
        """Has an end even of what is not counted when it has come, as it never comes."""
        if self._framing_size > self._max_head_size + PIECE:
            if self._in_head:
                raise HeadTooLargeError('the head is too large')
            raise HTTPInputError('there is too much besides the body')

    def _start_of_message(self, data: bytes, is_fresh: bool) -> bytes:
        """All that has come of a request whose target has not; nothing where that is not known."""
        if self._target or self.messages or not (is_fresh or self._start):
            return b''
        return self._start + data

    def _read_unknown(self, start: bytes) -> None:
        self.on_message_begin()
        self._unknown = _UnknownMethod(self)
        self._unknown.feed_data(start)

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
        self._start = self._target = b''
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
        if self._framing_size > self._max_head_size:
            if len(self._target) + self._headers.size() > self._max_head_size:
                raise HeadTooLargeError('the head is too large')
        version = _VERSIONS.get(self._parser.get_http_version())
        if version is None:
            raise HTTPInputError('this is no version of HTTP/1')
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

    def on_unknown(self, message: Message) -> None:
        """Called with a request whose method is not one of the parser's."""
        self.messages.append(message)
        self.in_message = self._in_framing = False


class _UnknownMethod:
    """Reads a request with a method that the parser does not know, the last of a connection."""

    def __init__(self, parser: MessageParser) -> None:
        self._parser = parser
        self._head = b''

    def feed_data(self, data: bytes) -> None:
        """Reads on.

        :raises HTTPInputError: this is no request
        """
        self._head += data
        if not _METHOD.match(self._head):
            raise HTTPInputError('there is no such method')
        text, end, _ = self._head.decode('latin1').lstrip('\r\n').partition('\r\n\r\n')
        if end:
            line, _, fields = text.partition('\r\n')
            start_line = parse_request_start_line(line)
            message = Message(HTTPHeaders.parse(fields))
            message.start_line = start_line
            message.complete = True
            self._parser.on_unknown(message)


@lru_cache(1000)
def _decode_name(name: bytes) -> str:
    return canonical(name.decode('ascii'))
