"""Who works how much for a request over PostgreSQL, beside what asyncpg alone can insert."""

from typing import Final

from bench import programs, usage
from bench.harness import CONNECTIONS, Bench, Result
from bench.rounds import Sample, take_turns
from bench.servers import SAME_WORK, SERVICE, Setup

PEER: Final = 'aiohttp_peer'
ALONE: Final = 'asyncpg alone, POST'
_POOL: Final = 10  # connections to the database, as the service and its peers have

# Of whom, and of which kind, by title.
ROWS: Final = {f'{SERVICE}, GET one': (SERVICE, 'get'), f'{SERVICE}, POST': (SERVICE, 'post'),
               f'{SAME_WORK}, POST': (SAME_WORK, 'post'), f'{PEER}, POST': (PEER, 'post')}


def run(bench: Bench) -> Result:
    """Rates, and the CPU time that they took on all sides."""
    def measure(title: str) -> Sample:
        return _measure_asyncpg(bench) if title == ALONE else _measure(bench, *ROWS[title])

    ours, same, peers = f'{SERVICE}, POST', f'{SAME_WORK}, POST', f'{PEER}, POST'
    return Result(
        f'Operations per second over PostgreSQL; usual entry, one process, {CONNECTIONS} clients, '
        f'{_POOL} connections to the database',
        take_turns([*ROWS, ALONE], bench.rounds(), measure),
        [(ours, ALONE), (same, ALONE), (peers, ALONE), (same, peers)],
        ['"us" is the CPU time of one operation on each side, "CPUs" what all of them took in a '
         'second: the server has one, PostgreSQL and the load generator share the other. Who takes '
         'nearly all of a CPU has no room for more.',
         f'asyncpg alone has the CPU of the server for itself. It inserts the same rows, each by a '
         f'statement that is committed, over as many connections, {CONNECTIONS} at once, on the '
         'same event loop; it speaks no HTTP, validates nothing and logs nothing.'])


def _measure(bench: Bench, name: str, kind: str) -> Sample:
    with bench.filled(name, Setup('postgresql')) as server:
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
