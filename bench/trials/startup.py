"""From exec to the first answer."""

from typing import Final

from bench.harness import BARE, PEERS, Bench, Result, with_all
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE

OTHERS: Final = (BARE, *PEERS)


def run(bench: Bench) -> Result:
    """With files that the system has in its memory, as after a restart."""
    def measure(name: str) -> Sample:
        with bench.start(name) as server:
            return {'start to ready': server.wait_until_ready() * 1000}

    return Result(
        'Milliseconds; in-memory store',
        take_turns([SERVICE, *OTHERS], bench.rounds(), measure), with_all(SERVICE, OTHERS))
