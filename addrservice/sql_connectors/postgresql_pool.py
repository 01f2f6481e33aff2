"""Connections to PostgreSQL, which operations use in turn.

asyncpg has a pool too. It wraps, resets and shields a connection each time one is taken and given
back, which takes about as long as a short statement. No statement here leaves anything behind, so
that is spared; whoever gives back a connection whose statement has not ended well sees to it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg

from addrservice.errors import NothingDoneError

# Seconds after which those connections are ended that nobody has needed meanwhile.
IDLE_TIME: Final = 300


class Pool:
    """Makes connections when they are needed, up to a number, and keeps them.

    An operation takes a place, for which it waits in turn, and with it a connection. The one that
    was given back last is the next to be taken, so that those that are not needed fall idle.

    :param connect: makes a connection; what it raises goes to who asked for one
    :param size: connections at once
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], size: int) -> None:
        self.size = size
        self._connect = connect
        self._places = size  # that nobody has
        self._free: list[asyncpg.Connection] = []  # no more than there are places
        self._unneeded = 0  # the fewest that were free since the last sweep
        self._open: set[asyncpg.Connection] = set()
        self._waiting: deque[asyncio.Future[asyncpg.Connection | None]] = deque()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._sweep = self._loop.call_later(IDLE_TIME, self._end_unneeded)

    @property
    def in_use(self) -> int:
        """How many places are taken."""
        return self.size - self._places

    async def acquire(self) -> asyncpg.Connection:
        """A connection, which has to be released.

        :raises StoreError: there is none to be had
        """
        self._refuse_if_closed()
        connection = await self._take_place()
        try:
            while connection is None or connection.is_closed():
                connection = self._pop_free() or await self._make()
        except BaseException:
            self.release(None)
            raise
        return connection

    def release(self, connection: asyncpg.Connection | None) -> None:
        """Gives a place back, with its connection unless that is gone, to who waits longest."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._places += 1
        if connection is not None:
            self._free.append(connection)

    def terminate_free(self) -> None:
        """Ends the connections that nobody uses."""
        while connection := self._pop_free():
            connection.terminate()

    async def close(self) -> None:
        """Ends all connections, those in use when they are given back; or if cancelled, at once."""
        self._is_closed = True
        self._sweep.cancel()
        try:
            await asyncio.gather(*(self._close_one() for _ in range(self.size)),
                                 return_exceptions=True)
        finally:
            for connection in self._open:
                connection.terminate()

    async def _close_one(self) -> None:
        if connection := await self._take_place():
            await connection.close()

    async def _take_place(self) -> asyncpg.Connection | None:
        """Waits for a place; gives the connection that comes with it, which may be closed."""
        if self._places:
            self._places -= 1
            return self._pop_free()
        waiter: asyncio.Future[asyncpg.Connection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # its turn came at the same moment
                self.release(waiter.result())
            raise

    def _pop_free(self) -> asyncpg.Connection | None:
        if not self._free:
            return None
        connection = self._free.pop()
        self._unneeded = min(self._unneeded, len(self._free))
        return connection

    async def _make(self) -> asyncpg.Connection:
        connection = await self._connect()
        if self._is_closed:
            connection.terminate()
        self._refuse_if_closed()
        self._open = {each for each in self._open if not each.is_closed()} | {connection}
        return connection

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise NothingDoneError('the connections are closed')

    def _end_unneeded(self) -> None:
        """Ends those that were free all the time since this was done last."""
        unneeded, self._free = self._free[:self._unneeded], self._free[self._unneeded:]
        for connection in unneeded:
            connection.terminate()
        self._unneeded = len(self._free)
        self._sweep = self._loop.call_later(IDLE_TIME, self._end_unneeded)
