"""The way of a request to its handler, and through it."""

import asyncio
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from tornado.httputil import (
    HTTPConnection, HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine,
)
from tornado.web import Application, HTTPError, OutputTransform

from addrservice.base_handler import BaseRequestHandler
from addrservice.compression import Inflater, NegotiatedGzip
from addrservice.negotiation import accepts_gzip
from addrservice.request import Request

# The fields that tell of a body.
_OF_BODIES: Final = frozenset({'Content-Encoding', 'Content-Length', 'Expect'})


class Route(NamedTuple):
    """Where a path leads.

    :param handler: the class, of which each request gets an instance
    :param arguments: for its ``initialize``
    """

    handler: type[BaseRequestHandler]
    arguments: Mapping[str, Any]


class RoutedApplication(Application):
    """Tornado's application, with routes that are found at once.

    :param routes: by path; a name in braces stands for one segment, and a slash may follow
    :param otherwise: of all other paths
    """

    def __init__(self, routes: Mapping[str, Route], otherwise: Route, **settings: Any) -> None:
        self.running: set[BaseRequestHandler] = set()
        super().__init__(**settings, running=self.running)
        self.routes = routes
        self._paths = {path: route for path, route in routes.items() if '{' not in path}
        self._patterns = [(_pattern(path), route) for path, route in routes.items()
                          if '{' in path]
        self._otherwise = otherwise

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop in which it serves."""
        return asyncio.get_running_loop()

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> 'RequestDelegate':
        return RequestDelegate(self, request_conn)

    def find_route(self, path: str) -> tuple[Route, list[bytes]]:
        """The route of a path, and what stands there in the place of a name in braces."""
        route = self._paths.get(path) or self._paths.get(path.removesuffix('/'))
        if route is not None:
            return route, []
        for pattern, route in self._patterns:
            if match := pattern.fullmatch(path):
                return route, [unquote_to_bytes(match[1])]
        return self._otherwise, []


class RequestDelegate(HTTPMessageDelegate):
    """One request: its handler is made and run when its head has come."""

    def __init__(self, application: RoutedApplication, connection: HTTPConnection) -> None:
        self._application = application
        self._connection = connection
        self.handler: BaseRequestHandler | None = None
        self._inflater: Inflater | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        assert isinstance(start_line, RequestStartLine)
        request = Request(self._connection, start_line, headers)
        route, arguments = self._application.find_route(request.path)
        self.handler = handler = route.handler(self._application, request, **route.arguments)
        if not _OF_BODIES.isdisjoint(headers):
            self._inflater = Inflater.of(headers)
            try:
                handler.bound_body()
            except HTTPError as error:
                handler.send_error(error.status_code, exc_info=(HTTPError, error, None))
                return
        accepted = headers.get('Accept-Encoding')
        transforms: list[OutputTransform] = []
        if accepted and accepts_gzip(accepted):
            transforms.append(NegotiatedGzip())
        self._application.running.add(handler)
        handler.task = self._application.loop.create_task(handler.run(transforms, *arguments))

    def data_received(self, chunk: bytes) -> None:
        assert self.handler is not None
        if self._inflater is None:
            self.handler.data_received(chunk)
        else:
            for part in self._inflater.inflate(chunk):
                self.handler.data_received(part)

    def finish(self) -> None:
        if self._inflater is not None:
            self._inflater.finish()
        assert self.handler is not None
        self.handler.body_has_come()

    def fail(self, status: int) -> None:
        """Takes note that the request will never be whole.

        :param status: what the log says of it
        """
        if self.handler is not None:
            self.handler.give_up(status)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r'\\{\w+\\}', '([^/]+)', re.escape(path)) + '/?')
