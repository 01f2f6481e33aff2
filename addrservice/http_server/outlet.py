"""What goes out of a connection, no faster than its client reads."""

import asyncio
from abc import abstractmethod

from tornado.iostream import StreamClosedError


class Outlet(asyncio.Protocol):
    """Writes, and has those wait who would write more than the client reads.

    :ivar is_full: whether they have to
    :ivar is_ending: whether nothing can be written any more
    """

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_full = False
        self.is_ending = False
        self._loop = loop
        self._room = loop.create_future()  # for all who need not wait
        self._room.set_result(None)
        self._room_to_come: 'asyncio.Future[None] | None' = None

    @abstractmethod
    def room_has_come(self) -> None:
        """Called when it is not full any more."""

    def write_out(self, data: bytes) -> 'asyncio.Future[None]':
        """Sends data; the future is done when there is room for more."""
        if self.is_ending:
            return _lost(self._loop.create_future())
        self._transport.write(data)
        if not self.is_full:
            return self._room
        if self._room_to_come is None or self._room_to_come.done():  # nobody waits any more
            self._room_to_come = self._loop.create_future()
        return self._room_to_come

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        if self._room_to_come is not None and not self._room_to_come.done():
            self._room_to_come.set_result(None)
        self._room_to_come = None
        self.room_has_come()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_ending = True
        if self._room_to_come is not None and not self._room_to_come.done():
            _lost(self._room_to_come)


def _lost(future: 'asyncio.Future[None]') -> 'asyncio.Future[None]':
    future.set_exception(StreamClosedError())
    future.exception()  # so that nobody has to ask
    return future
