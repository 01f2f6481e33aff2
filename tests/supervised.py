"""What the tests of the supervisor share: it runs in their process, and has stand-ins as workers.

What a stand-in does is written in its configuration, as Python.
"""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import unittest
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from addrservice.config import ServiceSettings
from addrservice.errors import ConfigError
from addrservice.supervisor import supervise
from addrservice.listening import Listeners
from addrservice.workers import Configuration
from tests.support import DEADLINE

# Notes in a file what comes to it, a line each: what, and its process id.
STAND_IN: Final = '''
import json, os, signal, sys, time

told = json.loads(os.environ['ADDRSERVICE_WORKER'])

def say(what):
    os.write(told['status'], what)

def note(what):
    with open(sys.argv[1], 'a') as file:
        file.write(f'{what} {os.getpid()}\\n')

def serve(ready=True, leave=lambda: os._exit(0)):
    def on_signal(number, frame):
        note(signal.Signals(number).name)
        leave()
    note(f'start{told["slot"]}')
    if ready:
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, on_signal)
        signal.signal(signal.SIGUSR1, lambda number, frame: note('SIGUSR1'))
        say(b'R')
    while True:
        say(b'.')
        time.sleep(0.02)

exec(open(told['configuration']).read())
'''


async def until(condition: Callable[[], object]) -> None:
    """Waits for a condition in other processes, which cannot wake this one up."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)


class Log(logging.Logger):
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        super().__init__('addrservice')
        self.lines: list[str] = []

    def handle(self, record: logging.LogRecord) -> None:
        self.lines.append(f'{record.levelname} {record.getMessage()}')


class SupervisorTestCase(unittest.IsolatedAsyncioTestCase):
    """One supervisor, in this process."""

    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().set_debug(False)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.command = [sys.executable, '-ISc', STAND_IN, str(self.folder / 'notes')]
        self.text = 'serve()'
        self.settings = ServiceSettings(processes=2)
        self.loads = 0
        self.starts = 0
        self.log = Log()

    def load(self) -> Configuration:
        self.loads += 1
        if self.text == 'broken':
            raise ConfigError('config.yaml: broken')
        return Configuration(self.text.encode(), self.settings)

    def on_ready(self) -> None:
        self.starts += 1

    async def supervise(self) -> int:
        with socket.create_server(('127.0.0.1', 0)) as listener:
            self.address = listener.getsockname()
            return await supervise(self.command, Listeners([listener], []), self.load,
                                   self.on_ready, self.log)

    @contextlib.asynccontextmanager
    async def supervised(self) -> AsyncIterator['asyncio.Task[int]']:
        """All workers are ready; those that are left at the end are killed."""
        self.starts = 0
        task = asyncio.create_task(self.supervise())
        try:
            await until(lambda: self.starts or task.done())
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])

    def noted(self, what: str) -> list[int]:
        """The ids of the processes that have noted that, in the order of time."""
        file = self.folder / 'notes'
        text = file.read_text() if file.exists() else ''
        return [int(found) for found in re.findall(rf'^{what} (\d+)$', text, re.MULTILINE)]

    def logged(self, words: str) -> list[str]:
        """The lines of the log in which those words stand."""
        return [line for line in self.log.lines if re.search(words, line)]

    def send(self, number: int, process: int | None = None) -> None:
        os.kill(process or os.getpid(), number)

    async def reload(self) -> None:
        """Sends SIGHUP and waits until it has been followed."""
        before = len(self.logged('reloaded'))
        self.send(signal.SIGHUP)
        await until(lambda: len(self.logged('reloaded')) > before)
