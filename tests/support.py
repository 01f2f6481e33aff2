"""What several tests share: configurations, an application on a socket, a service as a process."""

import asyncio
import http.client
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import yaml
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.netutil import bind_sockets

from addrservice import LOGGER_NAME
from addrservice.addressbook_db import AbstractAddressBookDB, create_addressbook_db
from addrservice.app import make_application, make_overflow_application
from addrservice.auth import create_authenticator
from addrservice.config import LOCAL_CONFIG, Settings
from addrservice.gate import Gate
from addrservice.http_server import make_server
from addrservice.http_server.abstract import AbstractConnection
from addrservice.http_server.connection import HTTPToolsConnection
from addrservice.http_server.tornado_server import TornadoConnection
from addrservice.routing import RoutedApplication
from addrservice.service import AddressBookService
from tests import measuring

ROOT: Final = Path(__file__).resolve().parent.parent
ADDRESSES: Final = ROOT / 'tests' / 'data' / 'addresses'
JSON: Final = {'Content-Type': 'application/json'}
DEADLINE: Final = 10.0  # seconds that a test waits for what should come at once


def address(name: str) -> dict[str, Any]:
    """An entry of the test data: ``namo`` or ``raga``."""
    entry: dict[str, Any] = json.loads((ADDRESSES / f'{name}.json').read_text(encoding='utf-8'))
    return entry


def make_settings(**service: Any) -> Settings:
    """Settings on the in-memory store; keywords go to ``service``, with hyphens for underscores."""
    return msgspec.convert({
        'service': {key.replace('_', '-'): value for key, value in service.items()},
        'addr-db': {'memory': None},
        'logging': {'version': 1},
    }, Settings)


def with_parser(settings: Settings, http_parser: Literal['httptools', 'tornado']) -> Settings:
    """Settings with something that reads the requests."""
    service = msgspec.structs.replace(settings.service, http_parser=http_parser)
    return msgspec.structs.replace(settings, service=service)


def wait_until(condition: Callable[[], object], deadline: float = DEADLINE) -> None:
    """Waits for a condition in another process or thread, which cannot wake this one up."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f'still not so after {deadline} s')
        select.select([], [], [], 0.005)


class HTTPTestCase(unittest.IsolatedAsyncioTestCase):
    """A test with the service on a real socket in its own event loop.

    An error in Tornado's logs that the test did not expect with ``assertLogs`` fails it.

    :cvar http_parser: what reads the requests
    """

    http_parser: Literal['httptools', 'tornado'] = 'httptools'
    show_tracebacks = False

    def make_settings(self) -> Settings:
        """The settings to serve with."""
        return make_settings()

    def make_store(self) -> AbstractAddressBookDB:
        """The store to serve, not yet started: the one that the settings name."""
        return create_addressbook_db(self.settings.addr_db)

    async def asyncSetUp(self) -> None:
        # In debug mode each callback notes where it comes from, which takes half of all time.
        asyncio.get_running_loop().set_debug(False)
        self._watch_logs()
        self.settings = with_parser(self.make_settings(), self.http_parser)
        self.store = self.make_store()
        self.service = AddressBookService(self.store, logging.getLogger(LOGGER_NAME))
        await self.service.start()
        self.addAsyncCleanup(self.service.stop)
        self.gate = Gate(self.settings.service, create_authenticator(self.settings.auth))
        await self.gate.start()
        self.addAsyncCleanup(self.gate.stop)
        self._serve()
        self.client = AsyncHTTPClient(force_instance=True)
        self.addCleanup(self.client.close)

    def make_application(self) -> RoutedApplication:
        """What is served."""
        return make_application(
            self.service, self.settings.service, self.show_tracebacks, self.gate)

    def _serve(self) -> None:
        overflow = make_overflow_application(
            self.service, self.settings.service, self.show_tracebacks)
        self.application = self.make_application()
        self.server = make_server(self.application, overflow, self.settings.service)
        sockets = bind_sockets(0, '127.0.0.1')
        self.port = sockets[0].getsockname()[1]
        self.server.add_sockets(sockets)
        self.addAsyncCleanup(self.server.close_all_connections)
        self.addCleanup(self.server.stop)

    def _watch_logs(self) -> None:
        handler = _ErrorKeeper()
        for name in ('addrservice', 'tornado', 'asyncio'):
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            self.addCleanup(logger.removeHandler, handler)
        self.addCleanup(lambda: self.assertEqual([], handler.errors))

    async def fetch(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HTTPResponse:
        """The answer to a request, whatever its status."""
        return await self.client.fetch(
            f'http://127.0.0.1:{self.port}{path}', method=method, body=body, headers=headers,
            raise_error=False, allow_nonstandard_methods=True, decompress_response=False,
            follow_redirects=False)

    async def post(self, entry: object) -> str:
        """Creates an entry and gives its path."""
        answer = await self.fetch('POST', '/addressbook', json.dumps(entry), JSON)
        self.assertEqual(201, answer.code, answer.body)
        return answer.headers['Location']


def unsent(connection: AbstractConnection) -> int:
    """Bytes that a server holds for the reader of a connection."""
    if isinstance(connection, HTTPToolsConnection):
        return connection._transport.get_write_buffer_size()
    assert isinstance(connection, TornadoConnection)
    return len(connection._stream._write_buffer)


class _ErrorKeeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != 'tornado.access':  # the line of a 5xx answer, which the test sees
            self.errors.append(self.format(record))


def config_document(folder: Path, **sections: Any) -> dict[str, Any]:
    """The local configuration with its log file in a folder, and sections replaced or added."""
    document: dict[str, Any] = yaml.safe_load(LOCAL_CONFIG.read_text(encoding='utf-8'))
    document['logging']['handlers']['file']['filename'] = str(folder / 'service.log')
    return {**document, **sections}


def write_config(folder: Path, **sections: Any) -> Path:
    """``config_document`` as a file in that folder."""
    path = folder / 'config.yaml'
    path.write_text(yaml.safe_dump(config_document(folder, **sections)), encoding='utf-8')
    return path


class ServerProcess:
    """The service as a process of its own, on a free port.

    :param arguments: its command line
    :param program: what Python runs; ``-m addrservice`` unless told
    :param wrapper: a command that runs the one that follows it

    What it covers is added to the measurement of the tests, where one runs. ``stdout``, without
    the start line, and ``stderr`` are whole once it has ended.
    """

    def __init__(
        self,
        *arguments: str,
        program: Sequence[str] = ('-m', 'addrservice'),
        wrapper: Sequence[str] = (),
        cwd: Path = ROOT,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._measured = Path(self._folder.name, 'coverage')
        self._errors = Path(self._folder.name, 'stderr')  # a pipe that nobody reads would fill up
        with self._errors.open('wb') as errors:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, *measuring.command(self._measured),
                 *program, *arguments],
                cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                text=True, env={**os.environ, 'PYTHONPATH': str(ROOT), 'TMPDIR': self._folder.name})
        self.stdout = ''
        self.stderr = ''

    def wait_for_port(self) -> int:
        """The port that the start line names."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 3 * DEADLINE)
        self.start_line = self.process.stdout.readline() if ready else ''
        words = self.start_line.split()
        if 'port' not in words:
            raise AssertionError(f'no start line: {self.start_line!r} {self.kill().stderr}')
        self.port = int(words[words.index('port') + 1])
        return self.port

    def wait(self) -> int:
        """The exit status."""
        self.stdout, _ = self.process.communicate(timeout=DEADLINE)
        self.stderr = self.errors_so_far()
        measuring.add(self._measured)
        self._folder.cleanup()
        return self.process.returncode

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits for the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> 'ServerProcess':
        """Makes sure that it is gone, and its workers with it, however the test went."""
        if self.process.returncode is None:
            workers = self.workers()
            self.process.kill()
            for worker in workers:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            self.wait()
        return self

    def workers(self) -> list[int]:
        """The ids of the processes that it has started, from the oldest to the youngest."""
        process = self.process.pid
        children = Path(f'/proc/{process}/task/{process}/children').read_text(encoding='ascii')
        return [int(child) for child in children.split()]

    def errors_so_far(self) -> str:
        """What it and its workers have written on standard error."""
        return self._errors.read_text(encoding='utf-8')

    def connect(self) -> http.client.HTTPConnection:
        """A connection to it."""
        return http.client.HTTPConnection('127.0.0.1', self.port, timeout=DEADLINE)

    def resident_bytes(self) -> int:
        """The memory it occupies."""
        pages = Path(f'/proc/{self.process.pid}/statm').read_text(encoding='ascii').split()[1]
        return int(pages) * os.sysconf('SC_PAGE_SIZE')


@contextmanager
def running_server(
    *arguments: str, program: Sequence[str] = ('-m', 'addrservice'), **sections: Any
) -> Iterator[ServerProcess]:
    """The service as a process on a free port, with sections of its configuration replaced."""
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), **sections)
        server = ServerProcess('--port', '0', '--config', str(config), *arguments, program=program)
        try:
            server.wait_for_port()
            yield server
        finally:
            server.kill()
