"""One client at a time, the usual number, and very many."""

from typing import Final

from bench.harness import RIVALS, Bench, Result, with_all
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE

COUNTS: Final = {'1 connection': 1, '32 connections': 32, '512 connections': 512}


def run(bench: Bench) -> Result:
    """GET one over so many connections, usual entry, in memory."""
    def measure(name: str) -> Sample:
        with bench.filled(name) as server:
            return {measure: bench.throughput(server, 'get', connections=count).rate
                    for measure, count in COUNTS.items()}

    return Result(
        'GET requests per second; usual entry, memory, one process',
        take_turns([SERVICE, *RIVALS], bench.rounds(3), measure), with_all(SERVICE, RIVALS))
