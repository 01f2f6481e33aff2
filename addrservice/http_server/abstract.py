"""What both servers do alike: who gets a connection, and how all of it ends."""

import asyncio
import resource
import select
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final

import orjson

from addrservice.base_handler import BaseRequestHandler
from addrservice.body_handler import MAX_DISCARDED
from addrservice.config import ServiceSettings
from addrservice.listening import BACKLOG
from addrservice.routing import RoutedApplication

# Connections for each of which a further new one is taken in at once.
SHARE: Final = 8

# Connections beyond the cap that are told so; yet further ones are closed at once.
MAX_OVERFLOW: Final = 64

# File descriptors kept for everything that is no connection: logs, sockets, the store.
RESERVED_FILES: Final = 64

# Seconds that a keep-alive connection may be quiet in a drain before it is ended: a client at work
# sends its next request sooner, and learns from the answer that it is the last.
QUIET: Final = 0.25

# Seconds that a request which is cut off gets to say so.
LAST_WORDS: Final = 1


def refusal(status: str, message: str) -> bytes:
    """A whole answer to what cannot be read as a request; its connection ends with it.

    :param status: code and reason phrase
    """
    body = orjson.dumps({
        'method': None, 'uri': None, 'code': int(status.split()[0]), 'message': message})
    return (
        b'HTTP/1.1 %b\r\nContent-Type: application/json\r\nConnection: close\r\n'
        b'X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n'
        b'Content-Length: %d\r\n\r\n%b' % (status.encode(), len(body), body)
    )


BAD_REQUEST: Final = refusal(
    '400 Bad Request',
    'This is not a request in HTTP/1.1, or its body is not framed or encoded as it says, or it '
    'has more than 1000 parameters')
HEAD_TOO_LARGE: Final = refusal(
    '431 Request Header Fields Too Large', 'The header fields are larger than is allowed')


class Origin:
    """Where a connection comes from, as requests ask for it.

    :ivar remote_ip: the address of the client, ``0.0.0.0`` where it has none
    :ivar protocol: ``http`` or ``https``
    """

    __slots__ = ('remote_ip', 'protocol')

    def __init__(self, address: Any, protocol: str) -> None:
        self.remote_ip: str = address[0] if isinstance(address, tuple) else '0.0.0.0'
        self.protocol = protocol

    def __str__(self) -> str:
        return self.remote_ip


class AbstractConnection(ABC):
    """A connection, as the end of a server sees it.

    :ivar quiet_since: when it became ready for its next request, as ``time.monotonic`` has it;
        None while there is one
    """

    quiet_since: float | None

    @abstractmethod
    def end_with_answer(self) -> None:
        """Has the next answer be the last, and say so."""

    @abstractmethod
    def is_busy(self) -> bool:
        """Whether a request has begun to come, or an answer has not gone out."""

    @abstractmethod
    def let_go(self) -> None:
        """Ends the connection, which is not busy; at once where it is about to end already."""

    @abstractmethod
    def abort(self) -> None:
        """Ends the connection at once."""


class AbstractHTTPServer(ABC):
    """Serves an application within the limits of the configuration.

    :ivar tls: what connections that are yet to come speak HTTPS with; None for HTTP
    :ivar max_requests: on one connection, which ends then; no limit unless it is set
    :ivar connections: those that are open
    :ivar draining: whether it is about to end
    """

    def __init__(
        self,
        application: RoutedApplication,
        overflow: RoutedApplication,
        limits: ServiceSettings,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.tls = tls
        self.max_requests: int | None = None
        self._application = application
        self._overflow = overflow
        self.limits = limits
        self.max_connections = min(limits.max_connections, _spare_files())
        # The handlers hold the limit itself and answer 413; here is where patience ends.
        self.max_body_size = limits.max_body_size + 2 * MAX_DISCARDED
        self.connections: set[AbstractConnection] = set()
        self._listeners: list[socket.socket] = []
        self.loop = asyncio.get_running_loop()
        self.draining = False

    @abstractmethod
    def _serve(self, sock: socket.socket, origin: Origin, excess: bool) -> None:
        """Serves a new connection.

        :param excess: whether it is one too many, and only to be told so
        :raises OSError: it is gone already
        """

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Listens on sockets.

        Takes in one connection a turn, and one more for each ``SHARE`` that it has: were it all
        that wait, processes that share a socket would not share the work.
        """
        for listener in sockets:
            listener.setblocking(False)
            self._listeners.append(listener)
            self.loop.add_reader(listener, self._on_connection, listener)

    def _on_connection(self, listener: socket.socket) -> None:
        for _ in range(1 + len(self.connections) // SHARE):  # turns are long with many of them
            if not self._accept(listener):
                break

    def _accept(self, listener: socket.socket) -> bool:
        """Takes in a connection; False where none waits, or there is no file to open for it."""
        try:
            connection, address = listener.accept()
        except OSError:
            return False
        connection.setblocking(False)
        excess = len(self.connections) - self.max_connections
        try:
            connection.getpeername()  # who is gone already would make TLS stumble
            if excess < MAX_OVERFLOW:
                self._serve(connection, self._origin(address), excess >= 0)
            else:  # too many even to say so
                connection.close()
        except OSError:  # ssl.SSLError is one
            connection.close()
        return True

    def _origin(self, address: Any) -> Origin:
        return Origin(address, 'https' if self.tls else 'http')

    def application(self, excess: bool) -> RoutedApplication:
        """What answers the requests on a connection."""
        return self._overflow if excess else self._application

    def patience(self, excess: bool) -> float:
        """Seconds that a connection may take for the head of a request."""
        return self.limits.body_timeout if excess else self.limits.idle_connection_timeout

    def requests_in_flight(self) -> int:
        """How many requests are worked on."""
        return len(self._application.running) + len(self._overflow.running)

    def stop(self) -> None:
        """Listens no more."""
        while self._listeners:
            listener = self._listeners.pop()
            self.loop.remove_reader(listener)
            listener.close()

    async def drain(self, deadline: float, delay: float = 0) -> int:
        """Stops listening and waits for the requests in flight; ends the quiet connections.

        From the first moment on each answer says ``Connection: close`` and ends its connection.
        A request is in flight until its handler has ended, even if its client is gone, and until
        its answer is sent. At the deadline those that are left are answered with 503.

        :param deadline: seconds to wait at the most, once it listens no more
        :param delay: seconds to go on listening, for load balancers to notice
        :return: how many requests were still in flight and had to be cut off
        """
        self.draining = True
        for connection in self.connections:
            connection.end_with_answer()
        await asyncio.sleep(delay)
        await self._let_go_of_listeners()
        self._accept_waiting()
        self.stop()
        end = time.monotonic() + deadline
        while (self.connections or self._running()) and time.monotonic() < end:
            self._close_quiet_connections()
            await asyncio.sleep(0.01)
        running = self._running()
        busy = [each for each in self.connections if each.quiet_since is None]
        await self._cut_off(running)
        return max(len(running), len(busy))

    def _running(self) -> set[BaseRequestHandler]:
        return self._application.running | self._overflow.running

    async def _cut_off(self, running: Iterable[BaseRequestHandler]) -> None:
        tasks = [request.task for request in running if request.task is not None]
        await asyncio.sleep(0)  # each has to have begun: cancelled before, it would answer nothing
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS)
        await self.close_all_connections()

    async def close_all_connections(self) -> None:
        """Ends all connections at once."""
        await asyncio.sleep(0)  # what makes a new one has to have begun, to be ended in order
        for connection in list(self.connections):
            connection.abort()
        while self.connections:
            await asyncio.sleep(0)

    async def _let_go_of_listeners(self) -> None:
        """Has the event loop watch them no more, which takes its time, and waits for some turns.

        Who comes between the last look at a listener and its end is cut off, and many come just
        after they were told that their connection ends.
        """
        for listener in self._listeners:
            self.loop.remove_reader(listener)
        for _ in range(2):
            await asyncio.sleep(0)

    def _accept_waiting(self) -> None:
        """Takes in what the kernel has accepted already: closing the socket would reset it."""
        for listener in self._listeners:
            for _ in range(BACKLOG):
                if not self._accept(listener):
                    break

    def _close_quiet_connections(self) -> None:
        latest = time.monotonic() - QUIET
        for connection in list(self.connections):
            since = connection.quiet_since
            if since is not None and since < latest and not connection.is_busy():
                connection.let_go()


def is_readable(sock: socket.socket) -> bool:
    """Whether something has come that nobody has read yet."""
    return _is_ready(sock, select.POLLIN)


def is_writable(sock: socket.socket) -> bool:
    """Whether there is room for something to send."""
    return _is_ready(sock, select.POLLOUT)


def _is_ready(sock: socket.socket, event: int) -> bool:
    file = sock.fileno()
    if file < 0:  # closed
        return False
    poll = select.poll()
    poll.register(file, event)
    return bool(poll.poll(0))


def _spare_files() -> int:
    """How many connections the limit on open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - RESERVED_FILES - MAX_OVERFLOW)
