"""Entries of 200 bytes, of 900 bytes and of 30 kilobytes."""

from bench.entries import SIZES
from bench.harness import RIVALS, STORED, Bench, Result, with_all
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE, bodies


def run(bench: Bench) -> Result:
    """GET one and POST of each size, in memory, 32 connections."""
    def measure(name: str) -> Sample:
        sample = {}
        with bench.filled(name) as server:
            for size in SIZES:
                server.fill(bodies(size, STORED))
                sample[f'GET {size}'] = bench.throughput(server, 'get', size=size).rate
                sample[f'POST {size}'] = bench.throughput(server, 'post', size=size).rate
        return sample

    return Result(
        'Requests per second; memory, one process, 32 connections',
        take_turns([SERVICE, *RIVALS], bench.rounds(3), measure), with_all(SERVICE, RIVALS))
