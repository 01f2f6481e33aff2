"""The address book over HTTP: the handlers and the routes.

A handler parses, calls the service once and answers; what it raises is answered by the base
handler.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

import orjson
from tornado.log import access_log
from tornado.web import HTTPError, RequestHandler

from addrservice import LOGGER_NAME, logs
from addrservice.addressbook_db import PAGE_SIZE, StoredEntry
from addrservice.base_handler import BaseRequestHandler
from addrservice.config import ServiceSettings, Settings
from addrservice.docs import DocsRequestHandler
from addrservice.errors import PreconditionFailedError
from addrservice.gate import Gate
from addrservice.openapi import describe
from addrservice.operators import (
    HealthRequestHandler, MetricsRequestHandler, ReadinessRequestHandler,
)
from addrservice.parameters import Query, read_idempotency_key, read_query
from addrservice.preconditions import Preconditions, entity_tag, last_modified
from addrservice.routing import Route, RoutedApplication
from addrservice.service import AddressBookService, Condition
from addrservice.tracing import AbstractTraceCollector

# What is in an address book is personal: nobody but the client may keep it, and the client has to
# ask whether it is still so.
PERSONAL: Final = 'private, no-cache'

# Entries of a whole book that are sent before others have their turn: it takes 2 ms to compress
# four times as many.
AT_ONCE: Final = 64


class AddressBookRequestHandler(BaseRequestHandler):
    """The book: all of it, a page, what a search finds."""

    is_guarded = True

    async def get(self) -> None:
        await self._answer(self._write_all)

    async def head(self) -> None:
        await self._answer(self._write_head)

    async def _answer(self, without_limit: Callable[[Query], Awaitable[None]]) -> None:
        query = read_query(self.request.query_arguments)
        self.set_header('Cache-Control', PERSONAL)
        if query.limit is None:
            await without_limit(query)
        else:
            await self._write_page(query, query.limit)

    async def _write_all(self, query: Query) -> None:
        separator = b'{'
        async with aclosing(self.service.pages(query.name, query.after)) as pages:
            async for page in pages:
                # Of the first one nothing is sent before the store has got to the next.
                size = PAGE_SIZE if separator == b'{' else AT_ONCE
                for begin in range(0, len(page), size):
                    if separator != b'{':
                        await self.flush_page()
                    self.write(separator + _members(page[begin:begin + size]))
                    separator = b','
        self.write(b'{}' if separator == b'{' else b'}')

    async def _write_head(self, query: Query) -> None:
        """Fails where a GET would, and reads no more than one page for it."""
        async with aclosing(self.service.pages(query.name, query.after)) as pages:
            page: list[StoredEntry] = await anext(pages, [])
        if len(page) < PAGE_SIZE:
            self.write(b'{%s}' % _members(page))  # that is all
        else:
            await self.flush_page()  # now, for a body that is not made has no length to tell

    async def _write_page(self, query: Query, limit: int) -> None:
        page = await self.service.page(limit, query.name, query.after)
        if page.after is not None:  # RFC 8288
            following = query._replace(after=page.after)._asdict()
            chosen = {name: value for name, value in following.items() if value is not None}
            self.set_header('Link', f'</addressbook?{urlencode(chosen)}>; rel="next"')
        self.write(b'{%s}' % _members(page.entries))

    async def post(self) -> None:
        key = read_idempotency_key(self.request.headers.get_list('Idempotency-Key'))
        if key is not None and self.caller is not None:  # each has keys of their own
            key = f'{self.caller.name}\n{key}'
        entry = await self.service.post_entry(self.json_body(), key)
        self.set_status(HTTPStatus.CREATED)
        # These need no look by set_header: what is in them is the service's own.
        self._headers['Location'] = f'/addressbook/{entry.nickname}'
        if entry.origin is None or entry.is_original:  # else the client has never seen it
            self._headers['Etag'] = entity_tag(entry.version)
        self.clear_header('Content-Type')


class AddressBookEntryRequestHandler(BaseRequestHandler):
    """One entry."""

    is_guarded = True

    async def get(self, nickname: str) -> None:
        entry = await self.service.get_entry(nickname)
        preconditions = Preconditions.of(self.request.headers)
        if preconditions is not None and not preconditions.allow_reading(entry.version):
            raise PreconditionFailedError(nickname)
        self._headers.update({  # as in post
            'Cache-Control': PERSONAL,
            'Last-Modified': last_modified(entry.version),
            'Etag': entity_tag(entry.version, self.goes_gzipped(entry.document)),
        })
        if preconditions is not None and preconditions.find_unmodified(entry.version):
            self.set_status(HTTPStatus.NOT_MODIFIED)
        else:
            self.write(entry.document)

    head = get

    async def put(self, nickname: str) -> None:
        version = await self.service.put_address(nickname, self.json_body(), self._condition())
        self._finish_change(version)

    async def patch(self, nickname: str) -> None:
        version = await self.service.patch_address(nickname, self.json_body(), self._condition())
        self._finish_change(version)

    async def delete(self, nickname: str) -> None:
        await self.service.delete_address(nickname, self._condition())
        self.set_status(HTTPStatus.NO_CONTENT)

    def _finish_change(self, version: int) -> None:
        self.set_header('ETag', entity_tag(version))
        self.set_status(HTTPStatus.NO_CONTENT)

    def _condition(self) -> Condition | None:
        """What the entry that is there must meet, if the request says so."""
        preconditions = Preconditions.of(self.request.headers)
        if preconditions is None or not preconditions.concern_writing():
            return None
        return lambda entry: preconditions.allow_writing(entry.version)


class OpenAPIRequestHandler(BaseRequestHandler):
    """What all of this is, for machines."""

    def get(self) -> None:
        description: bytes = self.settings['description']
        self.set_header('Cache-Control', 'no-cache')
        self.etag = entity_tag(self.settings['description_digest'], self.goes_gzipped(description))
        self.write(description)

    head = get


class UnknownEndpointRequestHandler(BaseRequestHandler):
    """Any other path. No method is implemented, so each of them ends in ``send_error``."""

    def options(self, *_: str) -> None:
        raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        RequestHandler.send_error(self, HTTPStatus.NOT_FOUND, reason='Unknown Endpoint')


class TooManyConnectionsRequestHandler(BaseRequestHandler):
    """Any request on a connection beyond the cap."""

    def prepare(self) -> None:
        if not self._finished:
            self.begin()
        raise HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, 'There are too many connections')


PROBES: Final[dict[str, type[BaseRequestHandler]]] = {
    '/healthz': HealthRequestHandler,
    '/readiness': ReadinessRequestHandler,
}

# What /openapi.json describes.
API: Final[dict[str, type[BaseRequestHandler]]] = {
    **PROBES,
    '/addressbook': AddressBookRequestHandler,
    '/addressbook/{id}': AddressBookEntryRequestHandler,
    '/openapi.json': OpenAPIRequestHandler,
}

PAGES: Final[dict[str, type[BaseRequestHandler]]] = {
    '/docs': DocsRequestHandler,
    '/docs/{asset}': DocsRequestHandler,
}


def make_addrservice_app(
    settings: Settings, debug: bool, gate: Gate | None = None
) -> tuple[AddressBookService, RoutedApplication]:
    """The service and the web application in front of it; neither is started.

    :param debug: whether errors carry their traceback
    :param gate: who is let in; unless told, everybody within the limits
    :raises StartError: there can be no such store
    """
    service = AddressBookService.from_config(settings, logging.getLogger(LOGGER_NAME))
    return service, make_application(service, settings.service, debug, gate)


def make_application(
    service: AddressBookService,
    limits: ServiceSettings,
    debug: bool,
    gate: Gate | None = None,
) -> RoutedApplication:
    """The routes in front of a service.

    :param gate: who is let in; unless told, everybody within the limits
    """
    gate = gate or Gate(limits, None)
    scheme = gate.authenticator.security_scheme if gate.authenticator else None
    description = orjson.dumps(describe(
        {path: handler.methods() for path, handler in API.items()},
        [path for path, handler in API.items() if handler.is_guarded],
        scheme, limits.rate_limit is not None))
    return _make_application(
        {**API, **PAGES}, UnknownEndpointRequestHandler, service, limits, debug, gate,
        description=description, description_digest=hashlib.sha256(description).hexdigest())


def make_overflow_application(
    service: AddressBookService, limits: ServiceSettings, debug: bool
) -> RoutedApplication:
    """What connections beyond the cap get: the probes, and 503 for the rest."""
    return _make_application(
        PROBES, TooManyConnectionsRequestHandler, service, limits, debug, Gate(limits, None))


def make_operator_application(
    service: AddressBookService,
    limits: ServiceSettings,
    debug: bool,
    collectors: Sequence[AbstractTraceCollector],
) -> RoutedApplication:
    """What the metrics port has: the probes, and what collectors tell a scraper."""
    return _make_application(
        {**PROBES, '/metrics': MetricsRequestHandler}, UnknownEndpointRequestHandler, service,
        limits, debug, Gate(limits, None), collectors=collectors)


def _make_application(
    routes: dict[str, type[BaseRequestHandler]],
    otherwise: type[BaseRequestHandler],
    service: AddressBookService,
    limits: ServiceSettings,
    debug: bool,
    gate: Gate,
    **settings: Any,
) -> RoutedApplication:
    arguments = {'service': service, 'limits': limits}
    return RoutedApplication(
        {path: Route(handler, {**arguments, 'route': path}) for path, handler in routes.items()},
        Route(otherwise, arguments),
        log_function=log_request,
        debug_errors=debug,
        cors_origins=limits.cors_origins,
        gate=gate,
        **settings)


def log_request(handler: RequestHandler) -> None:
    """Logs the line of a request that has ended.

    The path comes without the query: what people search for is personal.
    """
    assert isinstance(handler, BaseRequestHandler)
    request, status, span = handler.request, handler.get_status(), handler.span
    known: dict[str, object] = {
        'request_id': handler.request_id,
        'method': request.method,
        'path': request.path,
        'status': status,
        'milliseconds': round(1000 * request.request_time(), 2),
        'remote': request.remote_ip,
    }
    if span is not None and span.trace_id is not None:
        known['trace_id'] = span.trace_id
    if handler.caller is not None:
        known['caller'] = handler.caller.name
    if handler.failure is not None:
        known['failure'] = handler.failure
    logs.log_request(access_log, status, known)
    handler.end_span()


def _members(entries: list[StoredEntry]) -> bytes:
    return b','.join(orjson.dumps(entry.nickname) + b':' + entry.document for entry in entries)
