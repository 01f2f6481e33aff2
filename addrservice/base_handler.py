"""What all request handlers share: the request's id, its body within the limit, errors as JSON.

Whatever a handler raises becomes an answer in one place, ``BaseRequestHandler.send_error``, by one
table, ``ERROR_TABLE``.
"""

import asyncio
import re
import sys
import traceback
from functools import cached_property
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final

import orjson
import uuid_utils
from tornado.httputil import HTTPInputError, HTTPServerRequest
from tornado.iostream import StreamClosedError, UnsatisfiableReadError
from tornado.log import app_log
from tornado.web import (
    GZipContentEncoding, HTTPError, RequestHandler, stream_request_body,
)

from addrservice import logs
from addrservice.config import ServiceSettings
from addrservice.cors import cors_headers, preflight_headers
from addrservice.errors import (
    AddressBookError, InvalidEntryError, InvalidInputError, InvalidJSONError,
    InvalidParameterError, KeyReusedError, NicknameTakenError, PreconditionFailedError, StoreError,
    StoreMisconfiguredError, StoreUnavailableError, UnknownNicknameError,
)
from addrservice.negotiation import JSON, MERGE_PATCH, accepts_gzip, accepts_json
from addrservice.service import AddressBookService
from addrservice.validation import parse_json

# What is read and dropped of a body over the limit, in bytes, so that a client that is still
# sending gets to the answer; one that sends yet more is cut off.
MAX_DISCARDED: Final = 8 * 1024 * 1024

RETRY_AFTER: Final = 1  # seconds

CLIENT_CLOSED_REQUEST: Final = 499  # nobody is there to see it but who reads the log; nginx's

# Exception class -> status and, where it is not the standard one, reason phrase (RFC 9110, 15).
ERROR_TABLE: Final[dict[type[BaseException], tuple[int, str | None]]] = {
    InvalidJSONError: (400, 'Invalid JSON body'),
    InvalidEntryError: (400, 'JSON Schema validation failed'),
    InvalidParameterError: (400, None),
    UnknownNicknameError: (404, None),
    NicknameTakenError: (409, None),
    PreconditionFailedError: (412, None),
    KeyReusedError: (422, None),
    StoreUnavailableError: (503, None),
    StoreMisconfiguredError: (500, None),
    StreamClosedError: (CLIENT_CLOSED_REQUEST, None),
}

_SANE_REQUEST_ID: Final = re.compile(r'[A-Za-z0-9._:/+=@-]{1,128}')
# Never two ways to take the same blank: a client could make the match last for ever.
_UTF_8: Final = re.compile(r'\s*(;\s*(charset\s*=\s*("utf-8"|utf-8)\s*)?)*', re.IGNORECASE)


@stream_request_body
class BaseRequestHandler(RequestHandler):
    """What all handlers share: the request's id, its body within the limit, errors as JSON.

    The body arrives through ``data_received``, so that one over the limit is noticed and never
    held, and so that Tornado does not try to read forms in it.

    :cvar produces_json: whether that is what clients have to accept
    """

    produces_json = True

    # Tornado's, in the order in which they are told.
    SUPPORTED_METHODS = ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS')

    def initialize(self, service: AddressBookService, limits: ServiceSettings) -> None:
        self.service = service
        self.limits = limits
        self.etag: str | None = None
        self.failure: str | None = None
        self._body: list[bytes] = []
        self._body_size = 0

    @cached_property
    def request_id(self) -> str:
        """The client's ``X-Request-ID`` if it is a sane one, else a new one."""
        sent = self.request.headers.get('X-Request-ID', '')
        return sent if _SANE_REQUEST_ID.fullmatch(sent) else uuid_utils.uuid4().hex

    def set_default_headers(self) -> None:
        self.set_header('Content-Type', JSON)
        self.set_header('X-Request-ID', self.request_id)
        self.set_header('X-Content-Type-Options', 'nosniff')
        self.set_header('Cache-Control', 'no-store')
        self.clear_header('Server')
        self._set_headers(self._cors_headers())
        vary = ['Accept'] * self.produces_json + ['Origin'] * bool(self.settings['cors_origins'])
        if vary:
            self.set_header('Vary', ', '.join(vary))

    def _cors_headers(self) -> dict[str, str]:
        return cors_headers(self.settings['cors_origins'], self.request.headers.get('Origin'))

    def _set_headers(self, headers: dict[str, str]) -> None:
        for name, value in headers.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Takes note of the request, and of what it cannot have."""
        logs.request_id.set(self.request_id)
        self._take_note_of_task()
        self._bound_body()
        method, accept = str(self.request.method), self.request.headers.get('Accept', '')
        if (self.produces_json and method != 'OPTIONS' and not accepts_json(accept)
                and method in self.methods()):
            # In the place of the method, which is called when all of the request has come: an
            # answer before that would end the connection.
            setattr(self, method.lower(), self._refuse_accept)

    def _refuse_accept(self, *_: str) -> None:
        raise HTTPError(406, 'What is here is application/json, which Accept excludes')

    def _bound_body(self) -> None:
        """Looks out for a body that is over the limit by its own account."""
        headers = self.request.headers
        waits = headers.get('Expect', '').lower() == '100-continue'
        if waits:
            headers['Expect'] = '100-continue'  # the one spelling that Tornado knows
        declared = headers.get('Content-Length', '')
        if not declared.isdecimal() or len(declared) > 18:  # none, or one that is refused
            return
        if int(declared) > self.limits.max_body_size:
            if waits:
                raise self._too_large()
            connection = self.request.connection
            # Not in the interface of a connection, but every one of Tornado's has it.
            connection.set_max_body_size(int(declared))  # type: ignore[union-attr]

    def _take_note_of_task(self) -> None:
        """Has a drain wait for this request, even where its client is gone meanwhile."""
        task = asyncio.current_task()
        assert task is not None
        running: set[asyncio.Task[Any]] = self.settings['running']
        running.add(task)
        task.add_done_callback(running.discard)

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise HTTPError(400, 'The path is not in UTF-8') from None

    def options(self, *_: str) -> None:
        """Tells what can be done here, and browsers whether pages of other origins may."""
        methods = ', '.join(self.methods())
        self.set_status(HTTPStatus.NO_CONTENT)
        self.set_header('Allow', methods)
        if 'PATCH' in methods:
            self.set_header('Accept-Patch', MERGE_PATCH)
        if self._cors_headers() and 'Access-Control-Request-Method' in self.request.headers:
            self._set_headers(preflight_headers(methods))

    @classmethod
    def methods(cls) -> list[str]:
        """The methods that a handler knows."""
        return [method for method in cls.SUPPORTED_METHODS
                if getattr(cls, name := method.lower()) is not getattr(RequestHandler, name)]

    def data_received(self, chunk: bytes) -> None:
        self._body_size += len(chunk)
        if self._body_size <= self.limits.max_body_size:
            self._body.append(chunk)
        elif self._body_size > self.limits.max_body_size + MAX_DISCARDED:
            error = self._too_large()
            self.send_error(413, exc_info=(HTTPError, error, None))
            raise HTTPInputError(str(error))  # makes the connection stop reading

    def json_body(self) -> Any:
        """The value of the request's body.

        :raises HTTPError: 413 for a body over the limit, 415 for one not declared as JSON
        :raises InvalidJSONError: it is not JSON
        """
        if self._body_size > self.limits.max_body_size:
            raise self._too_large()
        # A gzip coding that could be undone is gone from the headers by now.
        if self.request.headers.get('Content-Encoding', 'identity').lower() != 'identity':
            raise HTTPError(415, 'The body may be encoded with gzip, once, or not at all')
        declared = self.request.headers.get('Content-Type', '').strip()
        wanted = self._body_type()
        if declared[:len(wanted)].lower() != wanted or not _UTF_8.fullmatch(declared, len(wanted)):
            raise HTTPError(415, f'The body must be declared as Content-Type: {wanted}')
        return parse_json(b''.join(self._body))

    def _body_type(self) -> str:
        return MERGE_PATCH if self.request.method == 'PATCH' else JSON

    def _too_large(self) -> HTTPError:
        return HTTPError(413, 'The body is larger than %d bytes', self.limits.max_body_size)

    def goes_gzipped(self, body: bytes) -> bool:
        """Whether a body is sent with gzip."""
        return (len(body) >= GZipContentEncoding.MIN_LENGTH
                and accepts_gzip(self.request.headers.get('Accept-Encoding', '')))

    def compute_etag(self) -> str | None:
        """The handler's own: a version is cheaper than Tornado's hash of the body."""
        return self.etag

    async def flush_page(self) -> None:
        """Sends what was written so far, and lets others have their turn.

        :raises StreamClosedError: the client is gone, or has not read it in time
        """
        if self.request.version == 'HTTP/1.0':
            self.request.headers.pop('Connection', None)  # it cannot be kept: see finish
        try:
            async with asyncio.timeout(self.limits.idle_connection_timeout):
                await self.flush()
        except TimeoutError:
            raise StreamClosedError from None
        await asyncio.sleep(0)

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> 'asyncio.Future[None]':
        """Ends the answer; a client that does not read it in time is cut off."""
        flushed_before = self._headers_written
        sent = super().finish(chunk)
        if not sent.done():
            timer = asyncio.get_running_loop().call_later(
                self.limits.idle_connection_timeout, _close, self.request)
            sent.add_done_callback(lambda _: timer.cancel())
        if flushed_before and self.request.version == 'HTTP/1.0':
            # Without a length and without chunks, the answer ends where the connection does.
            sent.add_done_callback(lambda _: _close(self.request))
        return sent

    def on_connection_close(self) -> None:
        """Logs a request whose body did not become whole, which nothing else does."""
        if not self._finished and not self.request._body_future.done():
            self.set_status(self._why_closed())
            self._log()
        super().on_connection_close()

    def _why_closed(self) -> int:
        # Tornado tells with the exception in flight when it was reading that failed; what it did
        # not like itself, it has dealt with before.
        error = sys.exception()
        if isinstance(error, StreamClosedError):
            endless = isinstance(error.real_error, UnsatisfiableReadError)  # a chunk's size
            return HTTPStatus.BAD_REQUEST if endless else CLIENT_CLOSED_REQUEST
        if self.request.request_time() >= self.limits.body_timeout:
            return HTTPStatus.REQUEST_TIMEOUT
        return HTTPStatus.BAD_REQUEST

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answers an exception as ``ERROR_TABLE`` has it."""
        reason = None
        task = asyncio.current_task()
        if 'exc_info' in kwargs:
            error = kwargs['exc_info'][1]
            status_code, reason = _answer_to(error) or (status_code, None)
            if isinstance(error, StoreError) and not self.service.has_told(error):
                self.failure = str(error)
        elif task is not None and task.cancelling():  # a drain at its deadline
            status_code = HTTPStatus.SERVICE_UNAVAILABLE
        if self._headers_written:
            self._cut_short(status_code)
        else:
            super().send_error(status_code, **kwargs, reason=reason)

    def _cut_short(self, status_code: int) -> None:
        """Ends an answer half-way: only a lost connection tells that what came is not whole."""
        self.set_status(status_code)
        _close(self.request)
        self.finish()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Writes the error as JSON; says what is wrong, and of a bug nothing."""
        exc_info = kwargs.get('exc_info', (None, None, None))
        self._set_error_headers(status_code)
        if not self.request._body_future.done():  # Tornado reads no further, but does not say so
            self.set_header('Connection', 'close')
        body = {
            'method': self.request.method,
            'uri': self.request.uri,
            'code': status_code,
            'message': _message(exc_info[1]) or self._reason,
            'requestId': self.request_id,
        }
        if isinstance(exc_info[1], InvalidInputError):
            body['errors'] = [violation._asdict() for violation in exc_info[1].violations]
        if self.settings['debug_errors'] and exc_info[0]:
            body['trace'] = ''.join(traceback.format_exception(*exc_info))
        self.finish(orjson.dumps(body))

    def _set_error_headers(self, status_code: int) -> None:
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header('Allow', ', '.join(self.methods()))
        elif status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            self.set_header('Accept', self._body_type())
            self.set_header('Accept-Encoding', 'gzip')
            if self._body_type() == MERGE_PATCH:
                self.set_header('Accept-Patch', MERGE_PATCH)  # RFC 5789, 2.2
        elif status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            self.set_header('Retry-After', RETRY_AFTER)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Logs bugs. What is an answer is in the request's line already."""
        if not isinstance(value, HTTPError) and _answer_to(value) is None:
            app_log.error('uncaught exception', exc_info=value)


def _answer_to(error: BaseException | None) -> tuple[int, str | None] | None:
    return next((ERROR_TABLE[cls] for cls in type(error).__mro__ if cls in ERROR_TABLE), None)


def _message(error: BaseException | None) -> str | None:
    """What an error tells the client; a bug and the store's troubles tell nothing."""
    if isinstance(error, HTTPError):
        return error.get_message()
    if isinstance(error, AddressBookError) and not isinstance(error, StoreError):
        return error.message
    return None


def _close(request: HTTPServerRequest) -> None:
    # Not in the interface of a connection, but every one of Tornado's has it.
    request.connection.close()  # type: ignore[union-attr]
