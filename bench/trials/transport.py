"""The two ways of the service to speak HTTP."""

from typing import Final

from addrservice.config import ServiceSettings
from bench.harness import Bench, Result
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE, Setup

PARSERS: Final = ('tornado', 'httptools')
TITLE: Final = 'Requests per second by http-parser; usual entry, memory, 32 connections'


def run(bench: Bench) -> Result:
    """GET one and POST with each ``http-parser``, if there is such a setting."""
    def measure(parser: str) -> Sample:
        with bench.filled(SERVICE, Setup(settings={'http-parser': parser})) as server:
            return {'GET one': bench.throughput(server, 'get').rate,
                    'POST': bench.throughput(server, 'post').rate}

    if 'http_parser' not in ServiceSettings.__struct_fields__:
        return Result(TITLE, {}, notes=['This service has one way only.'])
    return Result(TITLE, take_turns(PARSERS, bench.rounds(), measure), [PARSERS[::-1]])
