"""The bodies of requests: within the limit, and JSON."""

import asyncio
import re
from typing import Any, Final

from tornado.httputil import HTTPInputError
from tornado.web import HTTPError

from addrservice.config import ServiceSettings
from addrservice.lean_handler import LeanRequestHandler
from addrservice.negotiation import JSON, MERGE_PATCH
from addrservice.validation import parse_json

# What is read and dropped of a body over the limit, in bytes, so that a client that is still
# sending gets to the answer; one that sends yet more is cut off.
MAX_DISCARDED: Final = 8 * 1024 * 1024

# Never two ways to take the same blank: a client could make the match last for ever.
_UTF_8: Final = re.compile(r'\s*(;\s*(charset\s*=\s*("utf-8"|utf-8)\s*)?)*', re.IGNORECASE)


class BodyRequestHandler(LeanRequestHandler):
    """Takes the body of a request.

    It arrives through ``data_received``, so that one over the limit is noticed and never held, and
    so that Tornado does not try to read forms in it.
    """

    def initialize_body(self, limits: ServiceSettings) -> None:
        """Gets ready for a body within the limits."""
        self.limits = limits
        self.body_size = 0
        self.is_whole = False
        self._coming: 'asyncio.Future[None] | None' = None
        self._body: list[bytes] = []

    def bound_body(self) -> None:
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

    def data_received(self, chunk: bytes) -> None:
        self.body_size += len(chunk)
        if self.body_size <= self.limits.max_body_size:
            self._body.append(chunk)
        elif self.body_size > self.limits.max_body_size + MAX_DISCARDED:
            error = self._too_large()
            self.send_error(413, exc_info=(HTTPError, error, None))
            raise HTTPInputError(str(error))  # makes the connection stop reading

    def body_has_come(self) -> None:
        """Takes note that there is no more to come."""
        self.is_whole = True
        if self._coming is not None and not self._coming.done():  # it may be cancelled
            self._coming.set_result(None)

    async def body(self) -> None:
        """Waits until the body has come."""
        if not self.is_whole:
            self._coming = asyncio.get_running_loop().create_future()
            await self._coming

    def json_body(self) -> Any:
        """The value of the request's body.

        :raises HTTPError: 413 for a body over the limit, 415 for one not declared as JSON
        :raises InvalidJSONError: it is not JSON
        """
        if self.body_size > self.limits.max_body_size:
            raise self._too_large()
        # A gzip coding that could be undone is gone from the headers by now.
        if self.request.headers.get('Content-Encoding', 'identity').lower() != 'identity':
            raise HTTPError(415, 'The body may be encoded with gzip, once, or not at all')
        declared, wanted = self.request.headers.get('Content-Type', ''), self.body_type()
        if declared != wanted and not _is_declared(declared.strip(), wanted):
            raise HTTPError(415, f'The body must be declared as Content-Type: {wanted}')
        return parse_json(b''.join(self._body))

    def body_type(self) -> str:
        return MERGE_PATCH if self.request.method == 'PATCH' else JSON

    def _too_large(self) -> HTTPError:
        return HTTPError(413, 'The body is larger than %d bytes', self.limits.max_body_size)


def _is_declared(media_type: str, wanted: str) -> bool:
    """Whether a media type is the wanted one, with no parameter but that it is in UTF-8."""
    end = len(wanted)
    return media_type[:end].lower() == wanted and bool(_UTF_8.fullmatch(media_type, end))
