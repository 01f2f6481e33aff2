"""What the trials work with: the load generators, servers that are checked and filled, rounds."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from bench import BenchError, load, machine, rightness, tools
from bench.entries import SIZES, encoded
from bench.rounds import Samples
from bench.servers import Server, Setup, bodies
from bench.traces import TraceSink
from tests.postgresql import PostgreSQL, dsn_of, new_role

BARE: Final = 'bare_tornado'
BARE_UVLOOP: Final = 'bare_uvloop'
BUSY_UVLOOP: Final = 'busy_uvloop'
_UNCHECKED: Final = (BARE, BARE_UVLOOP, BUSY_UVLOOP)  # answer constants
PEERS: Final = (
    'tornado_tutorial', 'fastapi_pydantic', 'litestar_peer', 'starlette_peer', 'aiohttp_peer')
RIVALS: Final = ('fastapi_pydantic', 'aiohttp_peer')  # where all of them would take too long
CONNECTIONS: Final = 32
STORED: Final = 100  # entries that a book has when nothing else is said


class Result(NamedTuple):
    """What a trial has found.

    :param title: what was measured, and in which unit where the measures do not say
    :param samples: all that was measured
    :param comparisons: what is compared with what, by the names in ``samples``
    :param notes: what a reader has to know
    """

    title: str
    samples: Samples
    comparisons: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


class WrongAnswerError(BenchError):
    """A server does not do the work that it is to be timed for."""


class Bench:
    """The tools of a trial, for as long as it is entered.

    :param quick: whether everything is to be short
    """

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        # More would not make figures steadier: two processes of the same code differ by more than
        # two turns of one process do.
        self.seconds = 1 if quick else 2
        self._right: set[tuple[str, str]] = set()
        self._stack = ExitStack()

    def __enter__(self) -> 'Bench':
        machine.keep_off_server()
        self.wrk, self.h2load = tools.find('wrk'), tools.find('h2load')
        self.folder = Path(self._stack.enter_context(TemporaryDirectory(prefix='bench-')))
        for size in SIZES:
            self.body(size).write_bytes(encoded(size))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rounds(self, full: int = 5) -> int:
        """How many there are, of so many if it may take its time."""
        return full // 2 or 1 if self.quick else full

    def body(self, size: str) -> Path:
        """The file with an entry of a size."""
        return self.folder / f'{size}.json'

    @cached_property
    def postgresql(self) -> PostgreSQL:
        """A server of its own, as durable as in production."""
        return self._stack.enter_context(PostgreSQL())

    @cached_property
    def _traces(self) -> TraceSink:
        return self._stack.enter_context(TraceSink())

    def new_dsn(self) -> str:
        """The address of an empty PostgreSQL store."""
        return dsn_of(self.postgresql.port, role=new_role(self.postgresql))

    @contextmanager
    def start(self, name: str, setup: Setup = Setup()) -> Iterator[Server]:
        """A server that has just been started; it is checked before, if that was not done yet.

        A store that is just ``sqlite`` or ``postgresql`` is a new one, and what the server writes
        is removed in the end.
        """
        kind = setup.store.partition(':')[0]
        if name not in _UNCHECKED and (name, kind) not in self._right:
            self._check(name, Setup(kind))
            self._right.add((name, kind))
        with self._serve(name, setup) as server:
            yield server

    def _check(self, name: str, setup: Setup) -> None:
        with self._serve(name, setup) as server:
            server.wait_until_ready()
            if wrong := rightness.check(server.url, server.log):
                raise WrongAnswerError(f'{name}: ' + '; '.join(wrong[:3]))

    @contextmanager
    def _serve(self, name: str, setup: Setup) -> Iterator[Server]:
        with TemporaryDirectory(dir=self.folder) as folder:
            address = self._address(setup.store, folder)
            setup = setup._replace(store=address, traces=self._traces.url)
            with Server(name, setup, Path(folder)) as server:
                yield server

    def _address(self, store: str, folder: str) -> str:
        if store == 'sqlite':
            return f'sqlite://{folder}/addressbook.db'
        return self.new_dsn() if store == 'postgresql' else store

    @contextmanager
    def filled(
        self, name: str, setup: Setup = Setup(), count: int = STORED
    ) -> Iterator[Server]:
        """A server with so many usual entries, which have warmed it up: it gets no faster."""
        with self.start(name, setup) as server:
            server.wait_until_ready()
            server.fill(bodies('usual', count))
            yield server

    def throughput(
        self, server: Server, kind: str, *, size: str = 'usual', connections: int = CONNECTIONS,
    ) -> load.Throughput:
        """What a filled server can do.

        :param kind: one of ``scripts/requests.lua``, or a path
        :raises LoadError: a request has failed
        """
        script = [] if kind.startswith('/') else [kind, self.body(size), server.paths]
        measured = load.run_wrk(
            self.wrk, server.url + (kind if not script else ''), self.seconds, connections,
            script)
        if measured.failed:
            raise load.LoadError(f'{server.name}: {measured.failed} times {kind} failed')
        return measured

    def latency(self, server: Server, rate: float) -> load.Latency:
        """How long requests for an entry take at a constant rate.

        :raises LoadError: a request has failed
        """
        path = server.paths.read_text(encoding='ascii').split()[0]
        measured = load.run_h2load(
            self.h2load, server.url + path, rate, 3 * self.seconds, server.folder / 'h2load.log')
        if measured.failed:
            raise load.LoadError(f'{server.name}: {measured.failed} requests failed')
        return measured


def with_all(name: str, others: Sequence[str]) -> list[tuple[str, str]]:
    """The comparisons of one with each of the others."""
    return [(name, other) for other in others]
