"""What is told to systemd, over real sockets, and what is taken from it."""

import asyncio
import os
import socket
import tempfile
import time
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from addrservice import systemd
from addrservice.errors import StartError
from tests.support import DEADLINE


class Receiver:
    """Stands where systemd does: takes what is told.

    :param path: of its socket; an abstract one if it begins with ``@``
    """

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path.replace('@', '\0'))
        self.socket.settimeout(DEADLINE)

    def next(self) -> str:
        return self.socket.recv(1000).decode()


class NotifyTest(unittest.IsolatedAsyncioTestCase):
    """Messages to systemd."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(Path(folder.name, 'notify'))

    def receiver(self, path: str) -> Receiver:
        receiver = Receiver(path)
        self.addCleanup(receiver.socket.close)
        return receiver

    def test_a_state_reaches_the_socket_that_the_environment_names(self) -> None:
        for path in (self.path, f'@addrservice-test-{os.getpid()}'):
            with self.subTest(path), patch.dict(os.environ, NOTIFY_SOCKET=path):
                receiver = self.receiver(path)
                systemd.notify('READY=1\nSTATUS=serving')
                self.assertEqual('READY=1\nSTATUS=serving', receiver.next())

    def test_without_systemd_nothing_is_told(self) -> None:
        with patch.dict(os.environ):
            os.environ.pop('NOTIFY_SOCKET', None)
            systemd.notify('READY=1')

    def test_a_message_that_nobody_takes_is_dropped(self) -> None:
        with patch.dict(os.environ, NOTIFY_SOCKET=self.path):
            systemd.notify('READY=1')

    def test_a_reload_is_dated_in_microseconds_of_the_monotonic_clock(self) -> None:
        before = time.monotonic_ns() // 1000
        state, _, microseconds = systemd.reloading().partition('\nMONOTONIC_USEC=')
        self.assertEqual('RELOADING=1', state)
        self.assertLessEqual(before, int(microseconds))
        self.assertLessEqual(int(microseconds), time.monotonic_ns() // 1000)

    async def test_the_watchdog_hears_twice_as_often_as_it_asks_for(self) -> None:
        receiver = self.receiver(self.path)
        with patch.dict(os.environ, NOTIFY_SOCKET=self.path, WATCHDOG_USEC='100000'):
            watchdog = asyncio.create_task(systemd.watchdog())
            self.addCleanup(watchdog.cancel)
            heard = []
            for _ in range(5):
                self.assertEqual('WATCHDOG=1', await asyncio.to_thread(receiver.next))
                heard.append(time.monotonic())
        self.assertGreater(heard[-1] - heard[0], 0.15)
        self.assertLess(heard[-1] - heard[0], 0.39)

    async def test_without_a_watchdog_none_is_told(self) -> None:
        receiver = self.receiver(self.path)
        with patch.dict(os.environ, NOTIFY_SOCKET=self.path):
            os.environ.pop('WATCHDOG_USEC', None)
            watchdog = asyncio.create_task(systemd.watchdog())
            await asyncio.sleep(0)
            systemd.notify('READY=1')
        self.assertEqual('READY=1', receiver.next())
        self.assertFalse(watchdog.done())
        watchdog.cancel()

    def test_the_watchdog_of_another_process_is_not_ours(self) -> None:
        for owner, seconds in ((str(os.getpid()), 30.0), ('1', None)):
            with patch.dict(os.environ, WATCHDOG_USEC='30000000', WATCHDOG_PID=owner):
                self.assertEqual(seconds, systemd.watchdog_seconds())


class InheritedSocketsTest(unittest.TestCase):
    """Sockets from systemd: descriptors from a number on, where the tests have room for them."""

    def setUp(self) -> None:
        self.sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(3)]
        for listener in self.sockets:
            self.addCleanup(listener.close)
        self.names = [listener.getsockname() for listener in self.sockets]

    def inherit(
        self, descriptors: Sequence[int], names: str | None = None, owner: int | None = None
    ) -> dict[str, list[socket.socket]]:
        """The sockets found where systemd has handed over these descriptors; they are closed."""
        first = max(descriptors) + 1
        for number, descriptor in enumerate(descriptors, first):
            os.dup2(descriptor, number)
            self.addCleanup(os.closerange, number, number + 1)  # if it is still open
        variables = {'LISTEN_FDS': str(len(descriptors)), 'LISTEN_PID': str(owner or os.getpid())}
        if names is not None:
            variables['LISTEN_FDNAMES'] = names
        with patch.object(systemd, '_FIRST_DESCRIPTOR', first), patch.dict(os.environ, variables):
            found = systemd.inherited_sockets()
            self.assertEqual([], [name for name in os.environ if name.startswith('LISTEN_')])
        return found

    def assert_found(
        self, expected: dict[str, list[Any]], names: str | None, owner: int | None = None
    ) -> None:
        found = self.inherit([listener.fileno() for listener in self.sockets], names, owner)
        addresses = {name: [one.getsockname() for one in some] for name, some in found.items()}
        for one in sum(found.values(), []):
            self.assertEqual((False, False), (one.getblocking(), one.get_inheritable()))
            one.close()
        self.assertEqual(expected, addresses)

    def test_they_are_sorted_by_name_and_do_not_block_and_are_not_passed_on(self) -> None:
        one, two, three = self.names
        self.assert_found({'http': [one, three], 'metrics': [two]}, 'http:metrics:http')

    def test_those_of_any_other_name_or_none_are_for_http(self) -> None:
        one, two, three = self.names
        self.assert_found({'http': [one, three], 'metrics': [two]}, 'addrservice.socket:metrics')
        self.assert_found({'http': [one, two, three]}, None)

    def test_those_of_another_process_are_not_ours(self) -> None:
        self.assert_found({}, None, owner=1)

    def test_without_systemd_there_are_none(self) -> None:
        self.assertEqual({}, systemd.inherited_sockets())

    def test_what_does_not_listen_is_refused_in_a_line_that_names_it(self) -> None:
        with socket.socket() as idle, self.assertRaisesRegex(StartError, r'\d does not listen$'):
            self.inherit([idle.fileno()])

    def test_what_is_no_socket_is_refused_in_a_line_that_names_it(self) -> None:
        with tempfile.TemporaryFile() as file:
            with self.assertRaisesRegex(StartError, r'descriptor \d+: Socket operation on non'):
                self.inherit([file.fileno()])
