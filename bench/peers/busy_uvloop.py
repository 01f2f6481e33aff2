"""A constant answer after some work, always the same: what that waits for is due to the machine.

Nothing is made for it, collected or written. So where a server at the same share of its highest
rate has a tail that this one has too, that comes from a CPU whose speed others have a part in.
"""

from typing import Final

import uvloop

from bench.peers import serving
from bench.peers.bare_uvloop import Constant, serve_forever

WORK: Final = 5000  # numbers to add up: some 70 microseconds, as much as a whole service takes


class Busy(Constant):
    """Adds some numbers up first."""

    def data_received(self, data: bytes) -> None:
        sum(range(WORK))
        super().data_received(data)


def serve(place: serving.Place) -> None:
    uvloop.run(serve_forever(place, Busy))


if __name__ == '__main__':
    serving.main(serve, stores=['memory'])
