"""Servers to measure, each as processes of its own: this service in production shape, and peers."""

import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import orjson
import yaml

from bench import BenchError, entries, machine, usage
from tests.postgresql import live_processes
from tests.support import JSON, ROOT

SERVICE: Final = 'this service'
# Without metrics and traces, which the peers do not have.
SAME_WORK: Final = f'{SERVICE}, same work'
_PATIENCE: Final = 30.0  # seconds
_PRODUCTION: Final = ROOT / 'configs' / 'addressbook-kubernetes.yaml'


class ServerError(BenchError):
    """A server does not do what it should."""


class Setup(NamedTuple):
    """How a server is to be started.

    :param store: ``memory``, ``sqlite:///PATH`` or ``postgresql://...``; what starts servers for
        trials takes ``sqlite`` and ``postgresql`` for a new one
    :param traces: where the service sends its traces
    :param settings: of the section ``service``, besides those of production
    :param pool: connections to PostgreSQL that each process of the service may have, where they are
        not as many as in production
    """

    store: str = 'memory'
    processes: int = 1
    traces: str = 'http://127.0.0.1:4318'
    settings: Mapping[str, Any] = {}
    pool: int | None = None


class Server:
    """A server that listens on ``port``, and ends when it is left.

    :param name: ``SERVICE``, ``SAME_WORK``, or that of a module in ``bench.peers``
    :param folder: for its configuration, its log, and a file with the ``paths`` of the entries that
        it was filled with
    """

    def __init__(self, name: str, setup: Setup, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / 'server.log'
        self.paths = folder / 'paths'
        self.began = time.monotonic()
        with self.log.open('wb') as log:
            self._process = subprocess.Popen(
                machine.on_cpus(setup.processes, _command(name, setup, folder)), cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                env=_environment())
        self.port = self._wait_for_port()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._kill()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f'http://127.0.0.1:{self.port}'

    def _wait_for_port(self) -> int:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
        line = self._process.stdout.readline() if ready else b''
        found = re.search(rb'\bport (\d+)', line)
        if found is None:
            self._kill()
            raise ServerError(f'{self.name} did not start: {self._end_of_log()}')
        return int(found[1])

    def _end_of_log(self) -> str:
        return self.log.read_text(encoding='utf-8', errors='replace')[-1000:].strip()

    def _kill(self) -> None:
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.communicate()

    def processes(self) -> list[int]:
        """Its process and those that it has started."""
        live = live_processes()
        found = [self._process.pid]
        for process in found:
            found += [child for child, (parent, _) in live.items() if parent == process]
        return found

    def memory(self) -> int:
        """Bytes of all of its processes; what they share counts once (PSS)."""
        return usage.memory(self.processes())

    def cpu_seconds(self) -> float:
        """The processor time that its processes have used."""
        return usage.cpu_seconds(self.processes())

    def wait_until_ready(self) -> float:
        """Seconds from its start until it answers a request, which is for an unknown entry.

        :raises ServerError: it does not, with the end of its log
        """
        while self._process.poll() is None and time.monotonic() < self.began + _PATIENCE:
            with suppress(OSError, HTTPException):
                self.ask('GET', f'/addressbook/{0:032}')
                return time.monotonic() - self.began
            time.sleep(0.001)
        raise ServerError(f'{self.name} does not answer: {self._end_of_log()}')

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        connection = self.connect()
        try:
            connection.request(method, path, body, JSON if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def connect(self) -> HTTPConnection:
        """A connection to it."""
        return HTTPConnection('127.0.0.1', self.port, timeout=_PATIENCE)

    def fill(self, bodies: Iterable[bytes]) -> None:
        """Creates entries, and notes their paths in place of those that were there."""
        self.paths.write_text('\n'.join(_create(self.connect(), bodies)), encoding='ascii')


def _create(connection: HTTPConnection, bodies: Iterable[bytes]) -> Iterator[str]:
    try:
        for body in bodies:
            connection.request('POST', '/addressbook', body, JSON)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                raise ServerError(f'an entry was answered with {answer.status}')
            yield answer.headers.get('Location', '/addressbook/x')  # the bare handler keeps none
    finally:
        connection.close()


def bodies(size: str, count: int) -> Iterator[bytes]:
    """So many different entries of a size."""
    chance = random.Random(count)
    return (orjson.dumps(entries.SIZES[size](chance)) for _ in range(count))


def _environment() -> dict[str, str]:
    """With which a server starts: what it compiles it may keep, as where it is installed."""
    return {name: value for name, value in os.environ.items()
            if name != 'PYTHONDONTWRITEBYTECODE'} | {'PYTHONPATH': str(ROOT)}


def _command(name: str, setup: Setup, folder: Path) -> list[str]:
    if name not in (SERVICE, SAME_WORK):
        return [sys.executable, '-m', f'bench.peers.{name}', '--port', '0', '--store', setup.store,
                '--processes', str(setup.processes)]
    config = folder / 'config.yaml'
    config.write_text(yaml.safe_dump(production(setup, observed=name == SERVICE)), encoding='utf-8')
    return [sys.executable, '-m', 'addrservice', '--port', '0', '--config', str(config)]


def production(setup: Setup, observed: bool = True) -> dict[str, Any]:
    """The configuration for Kubernetes, made to run here: everything that it has on is on.

    Only who asks is not asked for, as the peers do not ask either, and there is no load balancer
    to wait for.

    :param observed: whether there are metrics and traces
    """
    document: dict[str, Any] = yaml.safe_load(_PRODUCTION.read_text(encoding='utf-8'))
    del document['auth']
    document['service'] |= {
        'address': '127.0.0.1', 'metrics-port': 0, 'metrics-address': '127.0.0.1',
        'drain-delay': 0, 'processes': setup.processes, **setup.settings}
    pool = {'pool-size': setup.pool} if setup.pool else {}
    document['addr-db'] = (
        {'memory': None} if setup.store == 'memory' else {'sql': {'dsn': setup.store, **pool}})
    document['logging']['handlers']['console']['stream'] = 'ext://sys.stderr'
    if not observed:
        document['tracing'] = {}
        del document['service']['metrics-port']
    for collector, settings in document['tracing'].items():
        if collector.endswith('.OpenTelemetryCollector'):
            settings['endpoint'] = setup.traces
    return document
