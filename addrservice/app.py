"""The address book over HTTP: the handlers and the routes.

A handler parses, calls the service once and answers; what it raises is answered by the base
handler.
"""

import logging
import re
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final

import orjson
from tornado.httputil import HTTPServerRequest
from tornado.log import access_log
from tornado.web import Application, GZipContentEncoding, HTTPError, RequestHandler

from addrservice import LOGGER_NAME, logs
from addrservice.addressbook_db import StoredEntry
from addrservice.base_handler import BaseRequestHandler
from addrservice.config import ServiceSettings, Settings
from addrservice.service import AddressBookService

_WEIGHT_ZERO: Final = re.compile(r'\s*q\s*=\s*0(\.0*)?\s*')


class HealthRequestHandler(BaseRequestHandler):
    """Whether the process lives; never asks the store."""

    def get(self) -> None:
        self.write(orjson.dumps({'uptime': self.service.uptime_millis()}))

    head = get


class ReadinessRequestHandler(BaseRequestHandler):
    """Whether requests should be sent here."""

    async def get(self) -> None:
        status = await self.service.status()
        if not status.ready:
            self._set_error_headers(HTTPStatus.SERVICE_UNAVAILABLE)
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
        self.write(orjson.dumps(status._asdict()))

    head = get


class AddressBookRequestHandler(BaseRequestHandler):
    """The whole book."""

    async def get(self) -> None:
        separator = b'{'
        async with aclosing(self.service.pages()) as pages:
            async for page in pages:
                if separator != b'{':
                    await self.flush_page()
                self.write(separator + b','.join(map(_member, page)))
                separator = b','
        self.write(b'{}' if separator == b'{' else b'}')

    async def head(self) -> None:
        async with aclosing(self.service.pages()) as pages:
            await anext(pages, None)  # fails where a GET would
        await self.flush_page()  # now, for a body that is not made has no length to tell

    async def post(self) -> None:
        nickname = await self.service.post_address(self.json_body())
        self.set_status(HTTPStatus.CREATED)
        self.set_header('Location', f'/addressbook/{nickname}')
        self.clear_header('Content-Type')


class AddressBookEntryRequestHandler(BaseRequestHandler):
    """One entry."""

    async def get(self, nickname: str) -> None:
        entry = await self.service.get_entry(nickname)
        self.etag = f'"{entry.version}"'
        self.write(entry.document)

    head = get

    async def put(self, nickname: str) -> None:
        await self.service.put_address(nickname, self.json_body())
        self.set_status(HTTPStatus.NO_CONTENT)

    async def delete(self, nickname: str) -> None:
        await self.service.delete_address(nickname)
        self.set_status(HTTPStatus.NO_CONTENT)


class UnknownEndpointRequestHandler(BaseRequestHandler):
    """Any other path. No method is implemented, so each of them ends in ``send_error``."""

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        RequestHandler.send_error(self, HTTPStatus.NOT_FOUND, reason='Unknown Endpoint')


class TooManyConnectionsRequestHandler(BaseRequestHandler):
    """Any request on a connection beyond the cap."""

    def prepare(self) -> None:
        super().prepare()
        raise HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, 'There are too many connections')


class NegotiatedGzip(GZipContentEncoding):
    """Tornado's gzip encoding, for clients that accept it (RFC 9110, 12.5.3)."""

    def __init__(self, request: HTTPServerRequest) -> None:
        super().__init__(request)
        self._gzipping = accepts_gzip(request.headers.get('Accept-Encoding', ''))


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an ``Accept-Encoding`` allows gzip: ``gzip;q=0`` and silence do not."""
    accepted = {}
    for item in accept_encoding.lower().split(','):
        coding, _, weight = item.partition(';')
        accepted[coding.strip()] = not _WEIGHT_ZERO.fullmatch(weight)
    return accepted.get('gzip', accepted.get('*', False))


def make_addrservice_app(settings: Settings, debug: bool) -> tuple[AddressBookService, Application]:
    """The service and the web application in front of it; neither is started.

    :param debug: whether errors carry their traceback
    """
    service = AddressBookService.from_config(settings, logging.getLogger(LOGGER_NAME))
    return service, make_application(service, settings.service, debug)


def make_application(
    service: AddressBookService, limits: ServiceSettings, debug: bool
) -> Application:
    """The routes in front of a service."""
    arguments = {'service': service, 'limits': limits}
    return Application(
        [
            *_probes(arguments),
            (r'/addressbook/?', AddressBookRequestHandler, arguments),
            (r'/addressbook/(?P<nickname>[^/]+)/?', AddressBookEntryRequestHandler, arguments),
        ],
        default_handler_class=UnknownEndpointRequestHandler,
        **_application_settings(arguments, debug),
    )


def make_overflow_application(
    service: AddressBookService, limits: ServiceSettings, debug: bool
) -> Application:
    """What connections beyond the cap get: the probes, and 503 for the rest."""
    arguments = {'service': service, 'limits': limits}
    return Application(
        _probes(arguments),
        default_handler_class=TooManyConnectionsRequestHandler,
        **_application_settings(arguments, debug),
    )


def _probes(arguments: dict[str, Any]) -> list[Any]:
    return [
        (r'/healthz/?', HealthRequestHandler, arguments),
        (r'/readiness/?', ReadinessRequestHandler, arguments),
    ]


def _application_settings(arguments: dict[str, Any], debug: bool) -> dict[str, Any]:
    return {
        'default_handler_args': arguments,
        'transforms': [NegotiatedGzip],  # compress_response, but reading the weights
        'log_function': log_request,
        'debug_errors': debug,
        'running': set(),  # the tasks of the requests in flight
    }


def log_request(handler: RequestHandler) -> None:
    """Logs the line of a request that has ended."""
    assert isinstance(handler, BaseRequestHandler)
    logs.log_request(
        access_log,
        request_id=handler.request_id,
        method=handler.request.method,
        path=handler.request.path,
        status=handler.get_status(),
        milliseconds=1000 * handler.request.request_time(),
        remote=handler.request.remote_ip,
        failure=handler.failure,
    )


def _member(entry: StoredEntry) -> bytes:
    return orjson.dumps(entry.nickname) + b':' + entry.document
