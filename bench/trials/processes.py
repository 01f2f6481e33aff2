"""One process, and two that share the work on two CPUs.

Where there are no more CPUs than these, the load generator takes its time from one of two
processes, but from none where there is one only. So besides the rates that are measured there are
those with whole CPUs: what each CPU that the processes really had has done, times their number.
"""

from typing import Final

from bench import machine, programs
from bench.harness import Bench, Result
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE, Setup

CONNECTIONS: Final = 64  # so many that each process gets its share of them
SUMS: Final = 'arithmetic'

# How many of which, by title. SQLite, because processes cannot share what is in the memory of one.
ROWS: Final = {f'{name}, {count}': (name, count)
               for name in (SERVICE, 'aiohttp_peer', SUMS) for count in (1, 2)}


def run(bench: Bench) -> Result:
    """GET one over SQLite, and the CPU time that it took on both sides."""
    def measure(title: str) -> Sample:
        name, count = ROWS[title]
        return _measure_sums(bench, count) if name == SUMS else _measure(bench, name, count)

    return Result(
        f'GET requests per second (of {SUMS}: sums), with 1 and 2 processes; usual entry, SQLite, '
        f'{CONNECTIONS} connections',
        take_turns([*ROWS], bench.rounds(), measure),
        [(f'{name}, 2', f'{name}, 1') for name in (SERVICE, 'aiohttp_peer', SUMS)],
        [_placement(), f'"{SUMS}" is done by processes that share nothing and without a load '
         'generator: its ratio is what the second CPU of this machine can give.'])


def _measure(bench: Bench, name: str, count: int) -> Sample:
    with bench.filled(name, Setup('sqlite', processes=count)) as server:
        worked = server.cpu_seconds()
        measured = bench.throughput(server, 'get', connections=CONNECTIONS)
        each = (server.cpu_seconds() - worked) / measured.answers
    return {**sample(count, measured.rate, each * measured.rate),
            'CPUs of the generator': measured.cpu_each * measured.rate}


def _measure_sums(bench: Bench, count: int) -> Sample:
    told = programs.told('bench.peers.arithmetic', '--seconds', bench.seconds,
                         '--processes', count, cpus=count)
    return sample(count, told['operations_per_second'], told['cpus'])


def sample(count: int, rate: float, cpus: float) -> Sample:
    """What so many processes do that have had so many CPUs."""
    return {'per second': rate, 'per second with whole CPUs': rate / cpus * count,
            'CPU us each': cpus / rate * 1e6, 'CPUs': cpus}


def _placement() -> str:
    if len(machine.cpus()) > 2:
        return 'The load generator has a CPU that none of the processes has.'
    return ('The load generator takes its time from the second of two processes, and from none '
            'where there is one. "With whole CPUs" is the rate for each CPU that the processes '
            'really had, times their number.')
