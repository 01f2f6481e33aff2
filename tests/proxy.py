"""A TCP proxy between a client and a server that can misbehave while it runs.

The server is PostgreSQL and the client the service, or the server is the service.

It has a thread and an event loop of its own: so it serves tests without an event loop too, those
of the service as a process, and it goes on while a test waits for something else.
"""

import asyncio
import itertools
import re
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self

from tests.postgresql import free_port
from tests.support import DEADLINE

# PostgreSQL's message that a statement was executed. It comes after the commit, except in an
# explicit transaction: there the one of COMMIT does.
EXECUTED: Final = rb'C\0\0\0.(?:SELECT|INSERT|UPDATE|DELETE|COMMIT)\b'


class _End(asyncio.Protocol):
    """The proxy's end of a connection: the client's, or the one to the server that goes with it.

    What comes in here goes out at the other end.
    """

    _transport: asyncio.Transport

    def __init__(self, proxy: 'Proxy', client: '_End | None' = None) -> None:
        self._proxy = proxy
        self._other = client
        self._held = b''  # what came and could not be passed on yet
        self._is_client = client is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._proxy._ends.add(self)
        if self._other is None:
            self.pass_on()
        elif self._other in self._proxy._ends:
            self._other._other = self
            self._other.pass_on()
        else:  # the client is gone already
            self.reset()

    def data_received(self, data: bytes) -> None:
        self._held += data
        self.pass_on()

    def pass_on(self) -> None:
        """Passes on what has come, as far as the proxy may and can."""
        if self._proxy._is_stalled:
            return
        if self._other is None:
            self._proxy._connect(self)
        elif not self._is_client and self._proxy._loses(self._held):
            self.reset()
        else:
            self._other._transport.write(self._held)
            self._held = b''

    def reset(self) -> None:
        """Ends the connection on both sides at once, as a crash or a firewall does."""
        for end in filter(None, [self, self._other]):
            if not end._transport.is_closing():
                no_farewell = struct.pack('ii', 1, 0)  # RST instead of FIN
                end._transport.get_extra_info('socket').setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, no_farewell)
            end._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._proxy._ends.discard(self)
        if self._other is not None:
            self._other._transport.close()


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and forwards to another port there, from enter to exit."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.lost_answers = 0  # how many ``lose_answers`` has cut off
        self._is_stalled = False
        self._ends: set[_End] = set()
        self._target = target
        self._lost: re.Pattern[bytes] | None = None
        self._every = 1
        self._count = itertools.count(1)
        self._connecting: dict[_End, asyncio.Task[None]] = {}
        self._listener: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.forward()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()

    def forward(self) -> None:
        """Forwards everything, from now on and what was held back; it starts with that."""
        self._run(self._forward())

    def stall(self) -> None:
        """Takes connections and forwards nothing, like a host that has fallen silent."""
        self._run(self._forward(is_stalled=True))

    def lose_answers(self, pattern: bytes = EXECUTED, every: int = 1) -> None:
        """Forwards, but an answer that matches is lost and its connection reset.

        :param every: 3 for only every third of those, counted over all connections
        """
        self._run(self._forward(lost=pattern, every=every))

    def refuse(self) -> None:
        """Takes no connections, and resets those that are open."""
        self._run(self._refuse())

    def cut(self) -> None:
        """Resets all connections that are open; new ones are taken as before."""
        self._run(self._cut())

    def connections(self) -> int:
        """How many connections clients have open."""
        return sum(end._is_client for end in self._ends.copy())

    def _loses(self, answer: bytes) -> bool:
        if self._lost is None or not self._lost.search(answer) or next(self._count) % self._every:
            return False
        self.lost_answers += 1
        return True

    def _connect(self, client: _End) -> None:
        if client not in self._connecting:
            self._connecting[client] = self._loop.create_task(self._connected(client))

    async def _connected(self, client: _End) -> None:
        try:
            await self._loop.create_connection(
                lambda: _End(self, client), '127.0.0.1', self._target)
        except OSError:
            client.reset()
        finally:
            del self._connecting[client]

    async def _forward(
        self, is_stalled: bool = False, lost: bytes | None = None, every: int = 1
    ) -> None:
        self._is_stalled = is_stalled
        self._lost = None if lost is None else re.compile(lost, re.DOTALL)
        self._every = every
        self._count = itertools.count(1)
        if self._listener is None:
            self._listener = await self._loop.create_server(
                lambda: _End(self), '127.0.0.1', self.port)
        for end in self._ends.copy():
            end.pass_on()

    async def _refuse(self) -> None:
        listener, self._listener = self._listener, None
        for listening in listener.sockets if listener is not None else ():
            self._loop.remove_reader(listening)  # asyncio loses what a closed server has accepted
        try:
            while begun := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(begun)  # connections that are being made
        finally:
            if listener is not None:
                listener.close()
        await self._cut()

    async def _cut(self) -> None:
        ends = self._ends.copy()
        for end in ends:
            end.reset()
        while ends & self._ends:
            await asyncio.sleep(0)

    def _run(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(DEADLINE)
