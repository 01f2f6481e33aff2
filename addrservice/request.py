"""A request as handlers see it."""

import time
from functools import lru_cache
from typing import Final

from tornado.escape import parse_qs_bytes
from tornado.httputil import (
    HTTPConnection, HTTPHeaders, HTTPInputError, HTTPServerRequest, RequestStartLine,
)

# What a query may have: reading it takes time for each.
MAX_PARAMETERS: Final = 1000


class Request(HTTPServerRequest):
    """Tornado's request, without what nobody here asks for: forms, files, cookies.

    :param connection: has a ``context`` that knows the ``remote_ip`` and the ``protocol``
    :raises HTTPInputError: there is no host or what cannot be one, or too many parameters
    """

    def __init__(
        self, connection: HTTPConnection, start_line: RequestStartLine, headers: HTTPHeaders
    ) -> None:
        self.method, self.uri, self.version = start_line
        self.headers = headers
        self.connection = connection
        context = connection.context  # type: ignore[attr-defined]  # as all of Tornado's have
        self.remote_ip = context.remote_ip
        self.protocol = context.protocol
        check_host(self.version, headers.get('Host'))
        self.path, _, self.query = start_line.path.partition('?')
        self.query_arguments = self.arguments = _arguments(self.query) if self.query else {}
        self._start_time = time.time()
        self._finish_time = None

    def _parse_body(self) -> None:
        """Reads no forms."""


@lru_cache(100)
def check_host(version: str, host: str | None) -> None:
    """Has Tornado check a host; most clients of a service send the same one.

    :raises HTTPInputError: it is none, or is missing where it has to be there
    """
    fields = {} if host is None else {'Host': host}
    HTTPServerRequest(
        start_line=RequestStartLine('GET', '/', version), headers=HTTPHeaders(fields))


def _arguments(query: str) -> dict[str, list[bytes]]:
    try:
        return parse_qs_bytes(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise HTTPInputError(f'invalid query string: {error}') from None
