"""All kinds of requests, not only the two that everybody measures."""

from typing import Final

from bench.harness import RIVALS, Bench, Result, with_all
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE

BOOK: Final = 1000  # entries
# Those that change nothing first, so that the book has its size.
KINDS: Final = {
    'page of 100': '/addressbook?limit=100',
    'GET one': 'get',
    'PUT': 'put',
    'POST, then DELETE': 'delete',
    'POST': 'post',
    '90 % reads': 'mix',
}


def run(bench: Bench) -> Result:
    """Each kind of request on a book of usual entries, in memory, 32 connections."""
    def measure(name: str) -> Sample:
        with bench.filled(name, count=BOOK) as server:
            book = bench.throughput(server, '/addressbook', connections=4)
            return {'whole book MB/s': book.bytes_rate / 1e6,
                    **{what: bench.throughput(server, kind).rate for what, kind in KINDS.items()}}

    return Result(
        f'Requests per second; book of {BOOK:,} usual entries, memory, one process, '
        '32 connections (4 for the whole book)',
        take_turns([SERVICE, *RIVALS], bench.rounds(3), measure), with_all(SERVICE, RIVALS))
