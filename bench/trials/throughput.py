"""How many requests per second this service and its peers answer, on the same work."""

from typing import Final

from bench.harness import BARE, PEERS, Bench, Result, with_all
from bench.rounds import Sample, take_turns
from bench.servers import SAME_WORK, SERVICE

OTHERS: Final = (BARE, *PEERS)


def run(bench: Bench) -> Result:
    """GET one and POST on the usual entry, in memory, one process, 32 connections."""
    def measure(name: str) -> Sample:
        with bench.filled(name) as server:
            return {'GET one': bench.throughput(server, 'get').rate,
                    'POST': bench.throughput(server, 'post').rate}

    return Result(
        'Requests per second; usual entry, memory, one process, 32 connections',
        take_turns([SERVICE, SAME_WORK, *OTHERS], bench.rounds(), measure),
        [*with_all(SERVICE, OTHERS), *with_all(SAME_WORK, PEERS)])
