"""Who works how much for a request over PostgreSQL, beside what asyncpg alone can insert."""

from typing import Final

from bench import programs, usage
from bench.harness import CONNECTIONS, Bench, Result
from bench.rounds import Sample, take_turns
from bench.servers import SAME_WORK, SERVICE, Setup

PEER: Final = 'aiohttp_peer'
ALONE: Final = 'asyncpg alone, POST'
_POOL: Final = 10  # connections to the database, as the service and its peers have

# Of whom, of which kind, and how many processes, by title.
ROWS: Final = {
    f'{SERVICE}, GET one': (SERVICE, 'get', 1),
    f'{SERVICE}, POST': (SERVICE, 'post', 1),
    f'{SERVICE}, POST, 2 processes': (SERVICE, 'post', 2),
    f'{SAME_WORK}, POST': (SAME_WORK, 'post', 1),
    f'{SAME_WORK}, POST, 2 processes': (SAME_WORK, 'post', 2),
    f'{PEER}, POST': (PEER, 'post', 1),
}


def run(bench: Bench) -> Result:
    """Rates, and the CPU time that they took on all sides."""
    def measure(title: str) -> Sample:
        return _measure_asyncpg(bench) if title == ALONE else _measure(bench, *ROWS[title])

    same, peers = f'{SAME_WORK}, POST', f'{PEER}, POST'
    return Result(
        f'Operations per second over PostgreSQL; usual entry, {CONNECTIONS} clients, {_POOL} '
        'connections to the database in all',
        take_turns([*ROWS, ALONE], bench.rounds(), measure),
        [*((row, ALONE) for row, (_, kind, _) in ROWS.items() if kind == 'post'), (same, peers)],
        ['"us" is the CPU time of one operation on each side, "CPUs" what all of them took in a '
         'second. One process has the first CPU, PostgreSQL and the load generator share the '
         'second, and two processes have what they leave of it, too. Who takes nearly all of a CPU '
         'has no room for more.',
         f'asyncpg alone has the CPU of the server for itself. It inserts the same rows, each by a '
         f'statement that is committed, over as many connections, {CONNECTIONS} at once, on the '
         'same event loop; it speaks no HTTP, validates nothing and logs nothing.'])


def _measure(bench: Bench, name: str, kind: str, processes: int) -> Sample:
    setup = Setup('postgresql', processes, pool=_POOL // processes)
    with bench.filled(name, setup) as server:
        stored, served = _database_seconds(bench), server.cpu_seconds()
        measured = bench.throughput(server, kind)
        served, stored = server.cpu_seconds() - served, _database_seconds(bench) - stored
    return sample(measured.rate, served / measured.answers, stored / measured.answers,
                  measured.cpu_each)


def _measure_asyncpg(bench: Bench) -> Sample:
    stored = _database_seconds(bench)
    told = programs.told('bench.peers.asyncpg_alone', '--dsn', bench.new_dsn(), '--pool', _POOL,
                         '--clients', CONNECTIONS, '--seconds', bench.seconds)
    stored = _database_seconds(bench) - stored
    count = told['operations']
    return sample(told['operations_per_second'], told['cpu_seconds'] / count, stored / count, 0)


def _database_seconds(bench: Bench) -> float:
    return usage.cpu_seconds(bench.postgresql.processes())


def sample(rate: float, served: float, stored: float, generated: float) -> Sample:
    """What there is to tell.

    :param rate: operations per second
    :param served: seconds of CPU time for each, of the server; and of the other two
    """
    return {'per second': rate, 'us: server': 1e6 * served, 'us: database': 1e6 * stored,
            'us: generator': 1e6 * generated, 'CPUs: server': rate * served,
            'CPUs: database, generator': rate * (stored + generated)}
