"""What all request handlers share: the request's id, the gate, errors as JSON.

Whatever a handler raises becomes an answer in one place, ``BaseRequestHandler.send_error``.
"""

import asyncio
import re
import time
import traceback
from collections.abc import Awaitable, Mapping
from functools import cache
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final

import orjson
import uuid_utils
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.log import app_log
from tornado.web import Application, GZipContentEncoding, HTTPError, RequestHandler

from addrservice import logs, request_span, tracing
from addrservice.answer_headers import AnswerHeaders, canonical
from addrservice.answers import INTERNAL, answer_to, error_headers, message_of
from addrservice.auth.abstract import Caller
from addrservice.body_handler import BodyRequestHandler
from addrservice.config import ServiceSettings
from addrservice.cors import cors_headers, preflight_headers
from addrservice.errors import InvalidInputError, OverloadedError, StoreError
from addrservice.gate import Admission, Gate
from addrservice.negotiation import JSON, MERGE_PATCH, accepts_gzip, accepts_json
from addrservice.preconditions import http_date
from addrservice.service import AddressBookService
from addrservice.tracing import Span

_SANE_REQUEST_ID: Final = re.compile(r'[A-Za-z0-9._:/+=@-]{1,128}')


class BaseRequestHandler(BodyRequestHandler):
    """What all handlers share: the request's id, the gate, errors as JSON.

    :cvar produces_json: whether that is what clients have to accept
    :cvar is_vital: whether it is answered even where there is too much to do
    :cvar is_guarded: whether not everybody may have it
    """

    produces_json = True
    is_vital = False
    is_guarded = False

    # Looked at before initialize is called.
    span: Span | None = None
    admission: Admission = Admission()

    def __init__(
        self, application: Application, request: HTTPServerRequest, **arguments: Any
    ) -> None:
        # Not RequestHandler's: see LeanRequestHandler.
        self.application = application
        self.settings = application.settings
        self.request = request
        sent = request.headers.get('X-Request-ID', '')
        self.request_id = sent if _SANE_REQUEST_ID.fullmatch(sent) else uuid_utils.uuid4().hex
        self.clear()
        self.initialize(**arguments)

    def initialize(
        self, service: AddressBookService, limits: ServiceSettings, route: str | None = None
    ) -> None:
        self.initialize_body(limits)
        self.service = service
        self.route = route
        self.failure: str | None = None
        self._gate: Gate = self.settings['gate']
        if self._gate.trusts_proxies:
            self._take_note_of_origin()

    def clear(self) -> None:
        """Begins an answer from the beginning, with the header fields that each one has."""
        origins = self.settings['cors_origins']
        self._headers = AnswerHeaders({
            'Content-Type': JSON,
            'Date': http_date(int(time.time())),
            'X-Request-Id': self.request_id,
            'X-Content-Type-Options': 'nosniff',
            'Cache-Control': 'no-store',
            'Vary': _vary(self.produces_json, bool(origins)),
        })
        self._write_buffer = []
        self._status_code = HTTPStatus.OK
        self._reason = 'OK'
        if origins:
            self._set_headers(self._cors_headers())
        if self.admission.headers:
            self._set_headers(self.admission.headers)
        if self.span is not None and self.span.traceresponse:
            self.set_header('traceresponse', self.span.traceresponse)
        self.set_default_headers()

    def set_header(self, name: str, value: Any) -> None:
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            value = self._convert_header_value(value)
        self._headers[canonical(name)] = value

    def clear_header(self, name: str) -> None:
        self._headers.pop(canonical(name), None)

    def _cors_headers(self) -> dict[str, str]:
        return cors_headers(self.settings['cors_origins'], self.request.headers.get('Origin'))

    def _set_headers(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            self.set_header(name, value)

    def prepare(self) -> Awaitable[None] | None:
        """Takes note of the request, refuses what it cannot have, and waits for its body."""
        if self._finished:  # its client was gone before it began
            return None
        self.begin()
        return self._admit() if self.is_whole else self._admit_when_whole()

    def begin(self) -> None:
        """Takes note of the request."""
        logs.request_id.set(self.request_id)
        if tracing.is_on():
            self._begin_span()

    async def _admit_when_whole(self) -> None:
        """Waits for the body in any case: an answer before it would end the connection."""
        try:
            admission = self._admit()
            if admission is not None:
                await admission
        except Exception:
            await self.body()
            raise
        await self.body()

    def _admit(self) -> Awaitable[None] | None:
        """Refuses what the request cannot have.

        :return: what is to be waited for
        """
        method = str(self.request.method)
        if method == 'OPTIONS' or method not in self.methods():
            return None
        if not self.is_vital and len(self.settings['running']) > self.limits.max_in_flight:
            raise OverloadedError('There are too many requests at once')
        if self.is_guarded and not self._gate.is_open:
            return self._pass_gate(method)
        self._check_accept()
        return None

    def _take_note_of_origin(self) -> None:
        request, fields = self.request, self.request.headers
        request.remote_ip, request.protocol = self._gate.origin(
            str(request.remote_ip), request.protocol,
            fields.get_list('X-Forwarded-For'), fields.get_list('X-Forwarded-Proto'))

    def _begin_span(self) -> None:
        self.span = request_span.begin(self.request, self.route)
        logs.trace_id.set(self.span.trace_id)
        if self.span.traceresponse:
            self.set_header('traceresponse', self.span.traceresponse)

    def end_span(self) -> None:
        """Tells the collectors what became of the request."""
        if self.span is None:
            if not tracing.is_on():
                return
            self._begin_span()  # as of a method that nobody knows, for which nothing is prepared
        assert self.span is not None
        request_span.end(
            self.span, self.request, request_id=self.request_id, route=self.route,
            status=self.get_status(), sizes=(self.body_size, self._sent_size()),
            caller=self.caller and self.caller.name)

    def _sent_size(self) -> int:
        """Bytes of the answer's body; of one that was streamed, before its compression."""
        if self.request.method == 'HEAD':
            return 0
        return int(self._headers.get('Content-Length', self.sent_size))

    async def _pass_gate(self, method: str) -> None:
        authorization = self.request.headers.get_list('Authorization')
        self.admission = await self._gate.admit(
            authorization, method, str(self.request.remote_ip))
        self._set_headers(self.admission.headers)
        if self.admission.refusal is not None:
            raise self.admission.refusal
        self._check_accept()

    @property
    def caller(self) -> Caller | None:
        """Who asks, where that is known."""
        return self.admission.caller

    def _check_accept(self) -> None:
        accepted = self.request.headers.get('Accept')
        if accepted and self.produces_json and not accepts_json(accepted):
            raise HTTPError(406, 'What is here is application/json, which Accept excludes')

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
    @cache
    def methods(cls) -> list[str]:
        """The methods that a handler knows."""
        return [method for method in cls.SUPPORTED_METHODS
                if getattr(cls, name := method.lower()) is not getattr(RequestHandler, name)]

    def goes_gzipped(self, body: bytes) -> bool:
        """Whether a body is sent with gzip."""
        return (len(body) >= GZipContentEncoding.MIN_LENGTH
                and accepts_gzip(self.request.headers.get('Accept-Encoding', '')))

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
        is_streamed = self._headers_written
        sent = super().finish(chunk)
        if not sent.done():
            timer = asyncio.get_running_loop().call_later(
                self.limits.idle_connection_timeout, _close, self.request)
            sent.add_done_callback(lambda _: timer.cancel())
        if is_streamed and self.request.version == 'HTTP/1.0':
            # Without a length and without chunks, the answer ends where the connection does.
            sent.add_done_callback(lambda _: _close(self.request))
        return sent

    def give_up(self, status: int) -> None:
        """Logs a request that did not become whole, which nothing else does."""
        if not self._finished:
            self._finished = True
            self.set_status(status)
            self._log()
        self.body_has_come()  # so that nobody waits for it

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answers an exception as ``ERROR_TABLE`` has it."""
        reason = None
        if 'exc_info' in kwargs:
            error = kwargs['exc_info'][1]
            status_code, reason = answer_to(error) or (status_code, None)
            self._take_note_of_error(error)
        if self._headers_written:
            self._cut_short(status_code)
        else:
            super().send_error(status_code, **kwargs, reason=reason)

    def _take_note_of_error(self, error: BaseException) -> None:
        if self.span is not None:
            self.span.error = error
        told = isinstance(error, StoreError) and self.service.has_told(error)
        if isinstance(error, INTERNAL) and not told:
            self.failure = str(error)

    def _cut_short(self, status_code: int) -> None:
        """Ends an answer half-way: only a lost connection tells that what came is not whole."""
        self.set_status(status_code)
        _close(self.request)
        self.finish()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Writes the error as JSON; says what is wrong, and of a bug nothing."""
        exc_info = kwargs.get('exc_info', (None, None, None))
        self._set_error_headers(status_code, exc_info[1])
        if not self.is_whole:  # nobody reads on
            self.set_header('Connection', 'close')
        body = {
            'method': self.request.method,
            'uri': self.request.uri,
            'code': status_code,
            'message': message_of(exc_info[1]) or self._reason,
            'requestId': self.request_id,
        }
        if isinstance(exc_info[1], InvalidInputError):
            body['errors'] = [violation._asdict() for violation in exc_info[1].violations]
        if self.settings['debug_errors'] and exc_info[0]:
            body['trace'] = ''.join(traceback.format_exception(*exc_info))
        self.finish(orjson.dumps(body))

    def _set_error_headers(self, status_code: int, error: BaseException | None = None) -> None:
        self._set_headers(error_headers(status_code, error))
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header('Allow', ', '.join(self.methods()))
        elif status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            self.set_header('Accept', self.body_type())
            self.set_header('Accept-Encoding', 'gzip')
            if self.body_type() == MERGE_PATCH:
                self.set_header('Accept-Patch', MERGE_PATCH)  # RFC 5789, 2.2

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Logs bugs. What is an answer is in the request's line already."""
        if not isinstance(value, HTTPError) and answer_to(value) is None:
            app_log.error('uncaught exception', exc_info=value)


@cache
def _vary(produces_json: bool, has_origins: bool) -> str:
    names = ['Accept'] * produces_json + ['Origin'] * has_origins + ['Accept-Encoding']
    return ', '.join(names)


def _close(request: HTTPServerRequest) -> None:
    # Not in the interface of a connection, but every one of Tornado's has it.
    request.connection.close()  # type: ignore[union-attr]
