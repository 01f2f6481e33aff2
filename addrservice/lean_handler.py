"""Tornado's request handler, without what no handler here has.

That is templates, cookies, forms, arguments by name, and hooks for all of them: to look for them
takes as long as most of what is done with a request. All else is done as Tornado does it.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from tornado.httputil import ResponseStartLine
from tornado.log import app_log
from tornado.web import HTTPError, OutputTransform, RequestHandler

from addrservice.answers import NO_BODY


class LeanRequestHandler(RequestHandler):
    """Runs a method of a handler for a request, and sends what that has written.

    :ivar task: in which it runs; None until then, and where the head of the request was refused
    :ivar etag: of the answer's body, for Tornado's would be a hash of it; None where there is none,
        or where it is among the header fields already
    :ivar sent_size: bytes of the body that were sent, before they were compressed
    """

    # Tornado's, in the order in which they are told.
    SUPPORTED_METHODS = ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS')

    settings: dict[str, Any] = {}  # a property of RequestHandler's, and asked for often

    # What RequestHandler's constructor sets, which makes room for templates first.
    _headers_written = False
    _finished = False
    _transforms: list[OutputTransform] = []

    task: 'asyncio.Task[None] | None' = None
    etag: str | None = None
    sent_size = 0

    async def run(self, transforms: list[OutputTransform], *arguments: bytes) -> None:
        """Answers the request.

        :param transforms: what becomes of the answer's body
        :param arguments: of the method, as they stand in the path
        """
        self._transforms = transforms
        try:
            if self.request.method not in self.SUPPORTED_METHODS:
                raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
            self.path_args = [*map(self.decode_argument, arguments)]
            preparing = self.prepare()
            if preparing is not None:
                await preparing
            if self._finished:
                return
            answering = getattr(self, self.request.method.lower())(*self.path_args)
            if answering is not None:
                await answering
            if not self._finished:
                self.finish()
        except (Exception, asyncio.CancelledError) as error:
            is_cancelled = _is_cancelled(error)
            self._fail(error, is_cancelled)
            if is_cancelled:
                raise
            _forget_frames(error)
        finally:
            self.settings['running'].discard(self)

    def _fail(self, error: BaseException, is_cancelled: bool) -> None:
        try:
            if not is_cancelled:
                self._handle_request_exception(error)
            elif not self._finished:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception:
            app_log.error('an error could not be answered', exc_info=True)

    def flush(self, include_footers: bool = False) -> 'asyncio.Future[None]':
        """Sends what was written so far, behind the head of the answer if that was not sent yet."""
        body = b''.join(self._write_buffer)
        self.sent_size += len(body)
        if self._headers_written or self._transforms:
            return super().flush(include_footers)
        self._headers_written = True
        self._write_buffer = []
        assert self.request.connection is not None
        return self.request.connection.write_headers(
            ResponseStartLine('', self._status_code, self._reason), self._headers,
            b'' if self.request.method == 'HEAD' else body)

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> 'asyncio.Future[None]':
        """Ends the answer; the future is done when it was sent."""
        if self._finished:
            raise RuntimeError('finish() called twice')
        if chunk is not None:
            self.write(chunk)
        if not self._headers_written:
            self._complete_headers()
        sent = self.flush(include_footers=True)
        assert self.request.connection is not None
        self.request.connection.finish()
        self._log()
        self._finished = True
        return sent

    def _complete_headers(self) -> None:
        if self.etag is not None and self._status_code == 200:
            self.set_etag_header()
            if self.check_etag_header():
                self._write_buffer = []
                self.set_status(HTTPStatus.NOT_MODIFIED)
        if self._status_code in NO_BODY:
            self._write_buffer = []  # it would stand where the next answer begins
            self._clear_representation_headers()
        else:
            self._headers['Content-Length'] = str(sum(map(len, self._write_buffer)))

    def compute_etag(self) -> str | None:
        return self.etag

    def _log(self) -> None:
        self.settings['log_function'](self)


def _forget_frames(error: BaseException) -> None:
    """Else what knows an error and what that knows would be left for the garbage collector."""
    told: BaseException | None = error
    while told is not None and told.__traceback__ is not None:  # causes may form a ring
        told.__traceback__ = None
        told = told.__cause__ or told.__context__


def _is_cancelled(error: BaseException) -> bool:
    """Whether it is the request that is cancelled, not only what it has waited for."""
    task = asyncio.current_task()
    return (isinstance(error, asyncio.CancelledError) and task is not None
            and task.cancelling() > 0)
