"""How long clients wait, at a constant rate of which the server does not choose the pace."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bench.harness import BARE_UVLOOP as FLOOR
from bench.harness import BUSY_UVLOOP, RIVALS, Bench, Result
from bench.load import CLIENTS, PERCENTILES
from bench.rounds import Sample, take_turns
from bench.servers import SAME_WORK, SERVICE, Server

SHARE: Final = 0.7  # of the highest throughput
QUIET: Final = f'{SERVICE}, large book'
STREAMING: Final = f'{SERVICE}, large book being read'


def run(bench: Bench) -> Result:
    """GET one at 70 % of what is possible; and the same while somebody reads a large book.

    The floor is asked at the last rate of the service: the load is then the same.
    """
    rates: dict[str, float] = {}

    def measure(name: str) -> Sample:
        with bench.filled(name) as server:
            if name != FLOOR:
                rates[name] = _highest(bench, server) * SHARE
            return _measure(bench, server, rates[SERVICE if name == FLOOR else name])

    samples = take_turns([SERVICE, SAME_WORK, *RIVALS, BUSY_UVLOOP, FLOOR], bench.rounds(), measure)
    entries = 10_000 if bench.quick else 100_000
    return Result(
        f'Milliseconds at 70 % of the highest throughput over the same {CLIENTS} connections; GET '
        'one, usual entry, memory',
        {**samples, **_measure_streaming(bench, entries)},
        [(SERVICE, BUSY_UVLOOP), (SAME_WORK, BUSY_UVLOOP), (STREAMING, QUIET)],
        [f'"{FLOOR}" answers a constant without any framework, at the rate of "{SERVICE}": what '
         'waiting there is in its row is that of the load generator. '
         f'"{BUSY_UVLOOP}" first adds up numbers, always the same, for as long as a service takes, '
         'and is asked at 70 % of its own: what waiting there is more is that of the machine.',
         f'The large book has {entries:,} entries; its reader has one connection and asks for it '
         'again and again. Both rows are at the same rate, 70 % of the throughput without the '
         'reader.'])


def _highest(bench: Bench, server: Server) -> float:
    """The highest throughput, over as many connections as are to be used: each costs something."""
    return bench.throughput(server, 'get', connections=CLIENTS).rate


def _measure(bench: Bench, server: Server, rate: float) -> Sample:
    measured = bench.latency(server, rate)
    waits = {f'p{share:g} ms': wait
             for share, wait in zip(PERCENTILES, measured.percentiles, strict=True)}
    return {'requests/s': measured.rate, **waits, 'p99 / p50': waits['p99 ms'] / waits['p50 ms']}


def _measure_streaming(bench: Bench, entries: int) -> dict[str, list[Sample]]:
    """Both in turns, on one server: to fill it takes longer than all the rest."""
    def measure(name: str) -> Sample:
        if name == QUIET:
            return _measure(bench, server, rate)
        with _reader(bench, server):
            return _measure(bench, server, rate)

    with bench.filled(SERVICE) as server:
        rate = _highest(bench, server) * SHARE
        left = entries
        while left > 0:
            left -= bench.throughput(server, 'post').answers
        return take_turns([QUIET, STREAMING], bench.rounds(), measure)


@contextmanager
def _reader(bench: Bench, server: Server) -> Iterator[None]:
    reader = subprocess.Popen(
        [bench.wrk.path, '-t1', '-c1', '-d600s', '--timeout=60s', f'{server.url}/addressbook'],
        env=bench.wrk.environment(), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        reader.terminate()
        reader.wait()
