"""The systemd units: by systemd's own checks, and held against the configuration and the code."""

import hashlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from configparser import ConfigParser
from contextlib import closing, suppress
from pathlib import Path
from typing import ClassVar

from addrservice.config import AuthSettings, Settings, SQLSettings, load_settings
from addrservice.listening import BACKLOG
from addrservice.sql_connectors.sqlite import database_path
from tests.container import is_possible, start_in_bubblewrap
from tests.postgresql import free_port
from tests.support import DEADLINE, ROOT, wait_until

FOLDER = ROOT / 'deploy' / 'systemd'
SERVICE = 'addressbook.service'
SOCKETS = 'addressbook.socket', 'addressbook-metrics.socket'

# Of ten, by `systemd-analyze security`: below it is what systemd itself calls OK.
EXPOSURE = 1.5


def read_unit(name: str) -> ConfigParser:
    """A unit; of a setting that is there twice, the last one."""
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way
    unit.read(FOLDER / name, encoding='utf-8')
    return unit


@unittest.skipUnless(shutil.which('systemd-analyze'), 'systemd-analyze is not installed')
class AnalysisTest(unittest.TestCase):
    """What systemd says of the units."""

    def test_it_has_nothing_to_say_against_them(self) -> None:
        python = read_unit(SERVICE)['Service']['ExecStart'].split()[0]
        with tempfile.TemporaryDirectory() as folder:
            for name in SERVICE, *SOCKETS:
                text = (FOLDER / name).read_text(encoding='utf-8')
                Path(folder, name).write_text(text.replace(python, sys.executable))
            checked = subprocess.run(
                ['systemd-analyze', 'verify', *(str(Path(folder, name))
                                                for name in (SERVICE, *SOCKETS))],
                capture_output=True, text=True)
        self.assertEqual((0, ''), (checked.returncode, checked.stdout + checked.stderr))

    def test_the_service_is_confined(self) -> None:
        checked = subprocess.run(
            ['systemd-analyze', 'security', '--offline=true', '--no-pager',
             f'--threshold={EXPOSURE * 10:.0f}', str(FOLDER / SERVICE)],
            capture_output=True, text=True)
        self.assertEqual(0, checked.returncode, checked.stdout[-200:] + checked.stderr)


@unittest.skipUnless(is_possible(), 'bubblewrap is not installed, or not for this user')
@unittest.skipUnless(shutil.which('systemd-socket-activate'), 'systemd is not installed')
class RunTest(unittest.TestCase):
    """The command of the unit, with the files where the unit has them, started by a socket."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        tokens = Path(folder.name, 'tokens')
        digest = hashlib.sha256(b'open-sesame').hexdigest()
        tokens.write_text(f'me {digest} addressbook:read\n', encoding='ascii')
        self.api, self.metrics = free_port(), free_port()
        python, *arguments = read_unit(SERVICE)['Service']['ExecStart'].split()
        self.process, self.pid = start_in_bubblewrap(
            '--dev-bind', '/', '/', '--tmpfs', '/run', '--tmpfs', '/var/lib', '--tmpfs', '/etc',
            '--ro-bind', str(tokens), f'/run/credentials/{SERVICE}/tokens',
            '--ro-bind', str(FOLDER / 'addressbook.yaml'), '/etc/addressbook/addressbook.yaml',
            '--dir', '/var/lib/addressbook', 'systemd-socket-activate', '--fdname=http:metrics',
            *(f'--listen=127.0.0.1:{port}' for port in (self.api, self.metrics)),
            f'--setenv=PYTHONPATH={ROOT}', sys.executable, *arguments)
        self.addCleanup(self.kill)

    def kill(self) -> None:
        """Makes sure that it is gone, and its workers, which notice."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(self.pid, signal.SIGKILL)
            self.process.communicate()

    def status(self, port: int, path: str, **headers: str) -> int:
        """The status of the answer to a GET."""
        with closing(http.client.HTTPConnection('127.0.0.1', port, timeout=DEADLINE)) as client:
            client.request('GET', path, headers=headers)
            return client.getresponse().status

    def is_listening(self) -> bool:
        """Whether there is a socket yet."""
        with socket.socket() as client:
            return client.connect_ex(('127.0.0.1', self.metrics)) == 0

    def test_it_serves_on_the_sockets_and_knows_the_callers_and_ends_in_peace(self) -> None:
        wait_until(self.is_listening)
        self.assertEqual(200, self.status(self.metrics, '/metrics'))
        self.assertEqual(401, self.status(self.api, '/addressbook'))
        token = 'Bearer open-sesame'
        self.assertEqual(200, self.status(self.api, '/addressbook', Authorization=token))
        os.kill(self.pid, signal.SIGTERM)
        output, _ = self.process.communicate(timeout=DEADLINE)
        self.assertEqual(0, self.process.returncode, output)


class FitTest(unittest.TestCase):
    """The units held against each other, the configuration and the code."""

    settings: ClassVar[Settings]

    @classmethod
    def setUpClass(cls) -> None:
        cls.settings = load_settings(FOLDER / 'addressbook.yaml')

    def setUp(self) -> None:
        self.service = read_unit(SERVICE)['Service']

    def test_the_service_gets_the_sockets_by_the_names_that_it_knows(self) -> None:
        self.assertEqual(list(SOCKETS), self.service['Sockets'].split())
        api, metrics = (read_unit(name)['Socket'] for name in SOCKETS)
        self.assertEqual(('http', 'metrics'),
                         (api['FileDescriptorName'], metrics['FileDescriptorName']))
        self.assertEqual({SERVICE}, {api['Service'], metrics['Service']})
        self.assertEqual((str(BACKLOG), '8080'), (api['Backlog'], api['ListenStream']))

    def test_the_metrics_are_where_the_configuration_has_them(self) -> None:
        service = self.settings.service
        self.assertEqual(f'{service.metrics_address}:{service.metrics_port}',
                         read_unit(SOCKETS[1])['Socket']['ListenStream'])

    def test_it_is_killed_only_after_it_had_the_time_to_drain(self) -> None:
        limits = self.settings.service
        self.assertGreater(int(self.service['TimeoutStopSec']),
                           limits.drain_delay + limits.shutdown_deadline + 5)
        self.assertEqual('mixed', self.service['KillMode'])

    def test_the_watchdog_is_more_patient_than_the_supervisor(self) -> None:
        self.assertGreater(int(self.service['WatchdogSec']), self.settings.service.stuck_deadline)

    def test_the_tokens_are_handed_over_and_the_entries_are_where_it_may_write(self) -> None:
        assert isinstance(self.settings.auth, AuthSettings) and self.settings.auth.tokens
        name, _, _ = self.service['LoadCredential'].partition(':')
        self.assertEqual(f'/run/credentials/{SERVICE}/{name}', self.settings.auth.tokens.file)
        assert isinstance(self.settings.addr_db.sql, SQLSettings)
        self.assertEqual(Path('/var/lib', self.service['StateDirectory']),
                         database_path(self.settings.addr_db.sql.dsn).parent)

    def test_a_refused_configuration_is_not_tried_again(self) -> None:
        refused = subprocess.run(
            [sys.executable, '-m', 'addrservice', '--config', '/nowhere'], cwd=ROOT,
            capture_output=True)
        self.assertEqual(int(self.service['RestartPreventExitStatus']), refused.returncode)
