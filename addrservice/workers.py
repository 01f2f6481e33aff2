"""One of several processes, and the pipe on which it tells its supervisor how it is.

A worker is a fresh process, started as its supervisor was. The sockets to serve on, the text of
the configuration and its end of the pipe come to it as open files; where they are stands in one
environment variable.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from addrservice.config import ServiceSettings
from addrservice.listening import Listeners

_VARIABLE: Final = 'ADDRSERVICE_WORKER'

SLOT_VARIABLE: Final = 'ADDRSERVICE_WORKER_SLOT'  # stays: collectors name their files by it
_READY: Final = b'R'
_BEAT: Final = b'.'

# How finely silence is measured: of a pause of the supervisor's own (Ctrl-Z, a suspended machine),
# however long, one part counts, and nobody is taken for stuck because of it.
_PARTS: Final = 4

_START_DEADLINE: Final = 60.0  # seconds to the first sign of life: imports on a busy machine
_END_MARGIN: Final = 5.0  # seconds to stop what there is to stop, once drained
_LAST_WORDS: Final = 1.0  # seconds to print a stack, or to be gone once the pipe is closed
_REAPING: Final = 0.005  # seconds between two looks at whether a process has ended


class Configuration(NamedTuple):
    """What a worker serves with.

    :param text: of the file, as it was read
    :param service: its section on the service, where ``processes`` is how many there are to be
    """

    text: bytes
    service: ServiceSettings


class Launch(NamedTuple):
    """How a worker is started.

    :param command: the program and its arguments
    :param environment: all variables, but the one that tells it that it is a worker
    :param listeners: the sockets that it inherits
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    listeners: Listeners


def own_command() -> list[str]:
    """What starts another process as this one was started: interpreter, its flags, arguments."""
    return [sys.executable, *sys.orig_argv[1:]]


class WorkerLink:
    """A worker's own end.

    :param slot: a number that no other process of this service has while this one lives
    :param listeners: to serve on
    :param configuration: the text of the file to serve with, whatever is in the file by now
    :param status: the descriptor of the pipe
    """

    def __init__(
        self, slot: int, listeners: Listeners, configuration: bytes, status: int
    ) -> None:
        self.slot = slot
        self.listeners = listeners
        self.configuration = configuration
        self._status = status

    @classmethod
    def from_environment(cls) -> 'WorkerLink | None':
        """The link of this process, which takes it over; None if it is no worker."""
        variable = os.environ.pop(_VARIABLE, None)
        if variable is None:
            return None
        told = json.loads(variable)
        os.set_inheritable(told['status'], False)
        os.set_blocking(told['status'], False)
        listeners = Listeners(_sockets(told['http']), _sockets(told['metrics']))
        with open(told['configuration'], 'rb') as file:
            return cls(told['slot'], listeners, file.read(), told['status'])

    def tell_ready(self) -> None:
        """Tells that requests are taken from now on.

        :raises BrokenPipeError: the supervisor is gone
        """
        self._tell(_READY)

    def beat(self) -> None:
        """Tells that the event loop turns.

        :raises BrokenPipeError: the supervisor is gone
        """
        self._tell(_BEAT)

    def _tell(self, what: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # full of beats: the supervisor is stopped
            os.write(self._status, what)


def _sockets(descriptors: Sequence[int]) -> list[socket.socket]:
    listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for listener in listeners:
        listener.set_inheritable(False)
        listener.setblocking(False)
    return listeners


class Worker:
    """The supervisor's end: one process, from its start to its end.

    ``settled`` is set when it is ready or has ended, ``ended`` when it has ended; ``fate`` is how.

    :param slot: its number
    :param configuration: what it serves with
    :param logger: told what becomes of it
    :param cpu: to which all of its threads are bound; those that hand work to each other take twice
        as long for it where they are on several
    """

    def __init__(
        self,
        slot: int,
        configuration: Configuration,
        logger: logging.Logger,
        cpu: int | None = None,
    ) -> None:
        self.slot = slot
        self.cpu = cpu
        self.name = f'worker {slot}'
        self.leaving = False
        self.killed = False
        self.fate = ''
        self.settled = asyncio.Event()
        self.ended = asyncio.Event()
        self._configuration = configuration
        self._logger = logger
        self._ready_at: float | None = None

    @property
    def ready(self) -> bool:
        """Whether it was ever ready."""
        return self._ready_at is not None

    @property
    def age(self) -> float:
        """Seconds since it was ready; 0 before."""
        return 0 if self._ready_at is None else time.monotonic() - self._ready_at

    def start(self, launch: Launch) -> bool:
        """Whether the process could be started; else this has ended already."""
        try:
            self._start(launch)
        except OSError as error:
            self.fate = f'it cannot be started: {error}'
            self._end()
            return False
        self.name = f'worker {self.slot} (process {self._process.pid})'
        return True

    def _start(self, launch: Launch) -> None:
        reading, writing = os.pipe()
        self._pipe = open(reading, 'rb', buffering=0)
        try:
            self._process = self._popen(launch, writing)
            if self.cpu is not None:
                with contextlib.suppress(OSError):  # it is not ours any more
                    os.sched_setaffinity(self._process.pid, {self.cpu})
        except OSError:
            self._pipe.close()
            raise
        finally:
            os.close(writing)

    def _end(self) -> None:
        self.ended.set()
        self.settled.set()

    def _popen(self, launch: Launch, status: int) -> 'subprocess.Popen[bytes]':
        with tempfile.TemporaryFile() as file:
            file.write(self._configuration.text)
            file.seek(0)
            http, metrics = [
                [listener.fileno() for listener in some] for some in launch.listeners]
            told = {'slot': self.slot, 'status': status, 'configuration': file.fileno(),
                    'http': http, 'metrics': metrics}
            return subprocess.Popen(
                launch.command,
                env={**launch.environment, _VARIABLE: json.dumps(told),
                     SLOT_VARIABLE: str(self.slot)},
                stdin=subprocess.DEVNULL,
                pass_fds=[status, file.fileno(), *http, *metrics],
                process_group=0)  # Ctrl-C is for the supervisor, which tells its workers then

    async def watch(self) -> None:
        """Stays with the process until it has ended, and ends it by force if it is stuck.

        It is killed if this is cancelled.
        """
        try:
            await self._hear()
            await self._bury()
        finally:
            self._process.kill()
            self.fate = _fate(self._process.wait())
            self._end()

    async def _hear(self) -> None:
        """Listens until the process has ended, or has been silent for too long."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._pipe)
        try:
            await self._follow(reader)
        except TimeoutError:
            self._logger.error('%s is stuck', self.name)
            self.signal(signal.SIGABRT)
        finally:
            transport.close()

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        deadline = self._configuration.service.stuck_deadline
        words = await self._next_words(reader, max(deadline, _START_DEADLINE))
        while words:
            if _READY in words:
                self._ready_at = time.monotonic()
                self.settled.set()
                self._logger.info('%s is ready', self.name)
            words = await self._next_words(reader, deadline)

    async def _next_words(self, reader: asyncio.StreamReader, deadline: float) -> bytes:
        """What it says next; nothing when it has ended.

        :raises TimeoutError: it has said nothing for longer than the deadline
        """
        silence = 0
        while True:
            try:
                async with asyncio.timeout(deadline / _PARTS):
                    return await reader.read(1000)
            except TimeoutError:
                silence += 1
                if silence >= _PARTS and not self.leaving:
                    raise

    async def _bury(self) -> None:
        """Waits for the end of a process that has closed its pipe or was told to end at once."""
        end = time.monotonic() + _LAST_WORDS
        while self._process.poll() is None:
            if time.monotonic() > end:
                self.signal(signal.SIGKILL)
            await asyncio.sleep(_REAPING)

    def signal(self, number: int) -> None:
        """Sends a signal, if it has not ended."""
        if not self.ended.is_set():
            self._process.send_signal(number)

    async def leave(self, number: int) -> None:
        """Tells it to end, waits until it has, and ends it by force if that takes too long.

        :param number: of the signal; one that was told before is not told again
        """
        limits = self._configuration.service
        if not self.leaving:
            self.leaving = True
            self.signal(number)
        try:
            async with asyncio.timeout(
                    limits.drain_delay + limits.shutdown_deadline + _END_MARGIN):
                await self.ended.wait()
        except TimeoutError:
            self._logger.error('%s does not end: it is killed', self.name)
            self.killed = True
            self.signal(signal.SIGKILL)
            await self.ended.wait()
        self._logger.info('%s has ended: %s', self.name, self.fate)


def _fate(status: int) -> str:
    """How a process has ended, from what ``Popen.returncode`` tells."""
    if status >= 0:
        return f'status {status}'
    return f'signal {-status} ({signal.strsignal(-status)})'
