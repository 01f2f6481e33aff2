"""The floor of a server in Python: a constant answer of the usual entry's size, on uvloop.

There is no framework and no parser: whatever ends like the head of a request is answered. What
waiting there is here is that of the machine and of the load generator.
"""

import asyncio
from typing import Final, cast

import uvloop

from bench.peers import serving
from bench.peers.bare_tornado import BODY

ENTRY: Final = (b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
                b'Content-Length: %d\r\n\r\n%b' % (len(BODY), BODY))
CREATED: Final = b'HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n'


class Constant(asyncio.Protocol):
    """Takes for granted that a head comes in one piece, as it does from a load generator."""

    _transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # which uvloop's does not inherit

    def data_received(self, data: bytes) -> None:
        answer = CREATED if b'POST /' in data else ENTRY  # behind the body of the one before
        self._transport.write(answer * data.count(b'\r\n\r\n'))


async def serve_forever(place: serving.Place, protocol: type[Constant] = Constant) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, sock=place.listener)
    place.announce()
    await server.serve_forever()


def serve(place: serving.Place) -> None:
    uvloop.run(serve_forever(place))


if __name__ == '__main__':
    serving.main(serve, stores=['memory'])
