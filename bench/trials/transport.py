"""The two ways of the service to speak HTTP."""

from typing import Final

from bench.harness import Bench, Result
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE, Setup

PARSERS: Final = ('tornado', 'httptools')
TITLE: Final = 'Requests per second by http-parser; usual entry, memory, 32 connections'


def run(bench: Bench) -> Result:
    """GET one and POST with each ``http-parser``."""
    def measure(parser: str) -> Sample:
        with bench.filled(SERVICE, Setup(settings={'http-parser': parser})) as server:
            return {'GET one': bench.throughput(server, 'get').rate,
                    'POST': bench.throughput(server, 'post').rate}

    return Result(TITLE, take_turns(PARSERS, bench.rounds(), measure), [PARSERS[::-1]])
