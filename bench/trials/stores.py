"""What each store costs, and what sqlite3 alone can do; ``postgresql`` has more on that one."""

from typing import Final

from bench import programs
from bench.harness import Bench, Result
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE, Setup

_MANY: Final = 'POST'
_ONE: Final = 'POST, 1 client'
_ALONE: Final = 'sqlite3 alone'


def run(bench: Bench) -> Result:
    """GET one and POST on the usual entry over each store, durable as in production."""
    def measure(name: str) -> Sample:
        return _measure_sqlite3(bench) if name == _ALONE else _measure(bench, name)

    return Result(
        'Requests per second of this service, commits per second of a driver alone; usual entry, '
        'one process, 32 clients',
        take_turns(['memory', 'sqlite', 'postgresql', _ALONE], bench.rounds(), measure),
        [('sqlite', 'memory'), ('postgresql', 'memory'), ('sqlite', _ALONE)],
        ['The sqlite3 module commits one entry at a time whoever waits, so "32 clients" says the '
         'same of it as one.'])


def _measure(bench: Bench, kind: str) -> Sample:
    with bench.filled(SERVICE, Setup(kind)) as server:
        get = bench.throughput(server, 'get').rate
        many = bench.throughput(server, 'post').rate
        one = bench.throughput(server, 'post', connections=1).rate
    return {'GET one': get, _MANY: many, _ONE: one, 'POST, 32 clients / 1': many / one}


def _measure_sqlite3(bench: Bench) -> Sample:
    told = programs.told('bench.peers.sqlite_alone', '--seconds', bench.seconds,
                         '--folder', bench.folder)
    return {_MANY: told['operations_per_second'], _ONE: told['operations_per_second']}
