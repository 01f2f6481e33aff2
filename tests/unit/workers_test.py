"""A worker's link to its supervisor: real pipes and sockets. The other end: supervisor_test.py."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import unittest
from unittest.mock import patch

from addrservice.workers import WorkerLink, own_command


class WorkerLinkTest(unittest.TestCase):
    """What a worker finds in its environment, and what it tells."""

    def setUp(self) -> None:
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(self.listener.close)
        self.reading, self.writing = os.pipe()
        self.addCleanup(os.close, self.writing)
        self.link = self.take_over(b'service: {}')

    def take_over(self, configuration: bytes) -> WorkerLink:
        with tempfile.TemporaryFile() as file:
            file.write(configuration)
            file.seek(0)
            http = os.dup(self.listener.fileno())
            told = {'slot': 3, 'status': self.writing, 'configuration': os.dup(file.fileno()),
                    'http': [http], 'metrics': []}
        for descriptor in (self.writing, http):
            os.set_inheritable(descriptor, True)
        with patch.dict(os.environ, ADDRSERVICE_WORKER=json.dumps(told)):
            link = WorkerLink.from_environment()
            self.assertNotIn('ADDRSERVICE_WORKER', os.environ)
        assert link is not None
        self.addCleanup(link.listeners.close)
        return link

    def test_a_worker_finds_its_slot_its_sockets_and_its_configuration(self) -> None:
        http, = self.link.listeners.http
        self.assertEqual(self.listener.getsockname(), http.getsockname())
        self.assertEqual((3, [], b'service: {}'), (
            self.link.slot, self.link.listeners.metrics, self.link.configuration))

    def test_nothing_of_it_blocks_or_is_passed_on(self) -> None:
        http, = self.link.listeners.http
        for descriptor in (http.fileno(), self.writing):
            self.assertEqual((False, False), (
                os.get_blocking(descriptor), os.get_inheritable(descriptor)))

    def test_a_process_that_is_no_worker_has_no_link(self) -> None:
        self.assertIsNone(WorkerLink.from_environment())

    def test_it_tells_that_it_is_ready_and_that_its_loop_turns(self) -> None:
        self.link.beat()
        self.link.tell_ready()
        self.link.beat()
        self.assertEqual(b'.R.', os.read(self.reading, 100))
        os.close(self.reading)

    def test_it_learns_from_its_beat_that_the_supervisor_is_gone(self) -> None:
        os.close(self.reading)
        with self.assertRaises(BrokenPipeError):
            self.link.beat()

    def test_a_supervisor_that_does_not_listen_does_not_hold_it_up(self) -> None:
        self.addCleanup(os.close, self.reading)
        for _ in range(70_000):  # more than a pipe takes (pipe(7))
            self.link.beat()


class OwnCommandTest(unittest.TestCase):
    """How a process would start itself once more."""

    def test_it_has_the_interpreter_its_flags_and_the_arguments(self) -> None:
        command = [sys.executable, '-P', '-W', 'error', '-c',
                   'import json; from addrservice.workers import own_command; '
                   'print(json.dumps(own_command()))', '--port', '0']
        printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={
            **os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}).stdout
        self.assertEqual(command, json.loads(printed))
        self.assertEqual(sys.executable, own_command()[0])
