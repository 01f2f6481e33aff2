"""What each store costs, beside what its driver alone can do."""

from collections.abc import Callable, Mapping
from typing import Final

from bench import programs
from bench.harness import Bench, Result
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE, Setup

_MANY: Final = 'POST'
_ONE: Final = 'POST, 1 client'
_POOL: Final = 10  # connections to PostgreSQL, as the service has by default


def run(bench: Bench) -> Result:
    """GET one and POST on the usual entry over each store, durable as in production."""
    def measure(name: str) -> Sample:
        floor = floors.get(name)
        return floor() if floor else _measure_service(bench, name)

    floors: Mapping[str, Callable[[], Sample]] = {
        'asyncpg alone': lambda: _asyncpg(bench), 'sqlite3 alone': lambda: _sqlite3(bench)}
    samples = take_turns(['memory', 'sqlite', 'postgresql', *floors], bench.rounds(), measure)
    return Result(
        'Requests per second of this service, commits per second of a driver alone; usual entry, '
        'one process, 32 clients', samples,
        [('sqlite', 'memory'), ('postgresql', 'memory'), ('sqlite', 'sqlite3 alone'),
         ('postgresql', 'asyncpg alone')],
        ['PostgreSQL shares its CPU with the load generator. The sqlite3 module commits one entry '
         'at a time whoever waits, so "32 clients" says the same of it as one.'])


def _measure_service(bench: Bench, kind: str) -> Sample:
    with bench.filled(SERVICE, Setup(kind)) as server:
        get = bench.throughput(server, 'get').rate
        many = bench.throughput(server, 'post').rate
        one = bench.throughput(server, 'post', connections=1).rate
    return {'GET one': get, _MANY: many, _ONE: one, 'POST, 32 clients / 1': many / one}


def _asyncpg(bench: Bench) -> Sample:
    dsn = bench.new_dsn()
    return {measure: _operations(bench, 'asyncpg_alone', '--dsn', dsn, '--clients', clients,
                                 '--pool', _POOL)
            for measure, clients in ((_MANY, 32), (_ONE, 1))}


def _sqlite3(bench: Bench) -> Sample:
    rate = _operations(bench, 'sqlite_alone', '--folder', bench.folder)
    return {_MANY: rate, _ONE: rate}


def _operations(bench: Bench, module: str, *arguments: object) -> float:
    told = programs.told(f'bench.peers.{module}', '--seconds', bench.seconds, *arguments)
    return float(told['operations_per_second'])
