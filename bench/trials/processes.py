"""One process, and two that share the work on two CPUs."""

from typing import Final

from bench import machine
from bench.harness import Bench, Result
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE, Setup

CONNECTIONS: Final = 64  # so many that each process gets its share of them

# SQLite, because processes cannot share what is in the memory of one.
NAMES: Final = {(name, count): f'{name}, {count}'
                for name in (SERVICE, 'aiohttp_peer') for count in (1, 2)}


def run(bench: Bench) -> Result:
    """GET one over SQLite, and the CPU time that it took on both sides."""
    def measure(title: str) -> Sample:
        [(name, count)] = [key for key, value in NAMES.items() if value == title]
        with bench.filled(name, Setup('sqlite', processes=count)) as server:
            worked = server.cpu_seconds()
            measured = bench.throughput(server, 'get', connections=CONNECTIONS)
            each = (server.cpu_seconds() - worked) / measured.answers
        return {'GET one': measured.rate, 'server CPU us each': each * 1e6,
                'CPUs of the server': each * measured.rate,
                'CPUs of the load generator': measured.cpu}

    samples = take_turns(list(NAMES.values()), bench.rounds(), measure)
    return Result(
        'GET requests per second, with 1 and 2 processes; usual entry, SQLite, '
        f'{CONNECTIONS} connections',
        samples, [(NAMES[name, 2], NAMES[name, 1]) for name in (SERVICE, 'aiohttp_peer')],
        [_sharing(samples)])


def _sharing(samples: dict[str, list[Sample]]) -> str:
    spent = max(sample['CPUs of the load generator']
                for sample in samples[NAMES[SERVICE, 2]])
    if len(machine.cpus()) > 2:
        return 'The load generator has a CPU that none of the two processes has.'
    return (f'With two processes the load generator shares a CPU with one of them, of which it '
            f'takes up to {spent:.0%}. Where a request costs two processes the CPU time that it '
            'costs one, they would do twice as much if they had both CPUs to themselves.')
