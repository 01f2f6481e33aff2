"""Export from a running service, over HTTP: the way out of a store in memory."""

import asyncio
import http.client
import re
import socket
import ssl
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult

import orjson

from addrservice.errors import StoreError, StoreMisconfiguredError, StoreUnavailableError
from addrservice.transfer.exporting import Lines
from addrservice.transfer.lines import to_line
from addrservice.transfer.retrying import BusyError, persistently

TIMEOUT: Final = 10  # seconds that the service has to take a connection, or to send something
FIRST_PAGE: Final = '/addressbook?limit=1000'

# Seconds that the service may ask for, at the most (Retry-After, RFC 9110, 10.2.3).
MAX_PAUSE: Final = 60

# Answers of a service, or of a proxy, that has to be asked again.
PASSING: Final = frozenset({
    HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT})

_SECONDS: Final = re.compile('[0-9]{1,9}')
_NEXT: Final = re.compile(r'<(?:https?://[^/>]*)?(/addressbook\?[^>]*)>; *rel="?next"?')


class _Answer(NamedTuple):
    status: int
    reason: str
    headers: http.client.HTTPMessage  # its names are not case-sensitive
    body: bytes


class AddressBookClient:
    """Reads the pages of an address book.

    :param url: ``http://HOST:PORT``, or with ``https``
    :param token: for services that ask who is there (RFC 6750)
    """

    def __init__(self, url: SplitResult, token: str | None = None) -> None:
        self._url = url.geturl()
        self._headers = {'Accept': 'application/json', 'Accept-Encoding': 'identity'}
        if token is not None:
            self._headers['Authorization'] = f'Bearer {token}'
        address = str(url.hostname), url.port
        if url.scheme == 'https':
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                *address, timeout=TIMEOUT, context=ssl.create_default_context())
        else:
            self._connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)

    async def lines(self) -> Lines:
        """The lines of all entries, some at a time. Their versions are not to be had so.

        :raises StoreError: the service does not give them
        """
        target: str | None = FIRST_PAGE
        while target is not None:
            page, target = await persistently(partial(self._page, target))
            yield [to_line(nickname, orjson.dumps(entry)) for nickname, entry in page.items()]

    def close(self) -> None:
        """Ends the connection, and so the thread that waits for it, where one was given up."""
        if isinstance(self._connection.sock, socket.socket):
            with suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    async def _page(self, target: str) -> tuple[dict[str, Any], str | None]:
        """A page, and the target of the next one."""
        try:
            answer = await asyncio.to_thread(self._get, target)
        except (OSError, http.client.HTTPException) as error:
            raise self._why_lost(error) from None
        if answer.status != HTTPStatus.OK:
            raise self._why_refused(answer)
        link = _NEXT.search(answer.headers.get('Link', ''))
        return self._book(answer.body), link and link[1]

    def _get(self, target: str) -> _Answer:
        try:
            self._connection.request('GET', target, headers=self._headers)
            response = self._connection.getresponse()
            return _Answer(
                response.status, response.reason, response.headers, response.read())
        except BaseException:
            self._connection.close()  # the next request makes a new one
            raise

    def _why_lost(self, error: OSError | http.client.HTTPException) -> StoreError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return StoreMisconfiguredError(f'{self._url}: {error.verify_message}')
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        return StoreUnavailableError(f'{self._url}: {reason}')

    def _why_refused(self, answer: _Answer) -> StoreError:
        message = f'{self._url}: {answer.status} {answer.reason}'
        if answer.status not in PASSING:
            return StoreMisconfiguredError(message)
        pause = _SECONDS.fullmatch(answer.headers.get('Retry-After', ''))
        if pause is None:
            return StoreUnavailableError(message)
        return BusyError(message, min(int(pause[0]), MAX_PAUSE))

    def _book(self, body: bytes) -> dict[str, Any]:
        with suppress(orjson.JSONDecodeError):
            book = orjson.loads(body)
            if isinstance(book, dict):
                return book
        raise StoreError(f'{self._url}: what is there is not an address book')
