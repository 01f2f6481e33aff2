"""A real nginx before the service, a child process that ends with the tests."""

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from tests.postgresql import free_port
from tests.support import DEADLINE, wait_until

PROGRAM: Final = '/usr/sbin/nginx'

# Becomes nginx, which the kernel asks to end when the tests are gone, even by kill -9. Its workers
# notice that themselves.
_LAUNCHER: Final = '''
import ctypes, os, sys
if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
'''

CONFIG: Final = '''
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
}}
'''


class Nginx:
    """From enter to exit, nginx with what ``http`` of its configuration has.

    :param http: that section, where ``{port}`` is the first of its ports and ``{folder}`` a folder
        of its own
    """

    def __init__(self, http: str) -> None:
        self.port = free_port()
        self._http = http

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        folder.chmod(0o755)  # its workers are not root
        config = folder / 'nginx.conf'
        http = self._http.replace('{port}', str(self.port)).replace('{folder}', str(folder))
        config.write_text(CONFIG.format(folder=folder, http=http), encoding='ascii')
        self._errors = folder / 'error.log'
        with open(folder / 'stderr', 'wb') as stderr:
            self._child = subprocess.Popen(
                [sys.executable, '-c', _LAUNCHER, str(os.getpid()), PROGRAM, '-p', str(folder),
                 '-e', str(self._errors), '-c', str(config)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
        wait_until(self._listens)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        self._child.wait(DEADLINE)
        self._folder.cleanup()

    def errors(self) -> str:
        """What it has complained about."""
        return self._errors.read_text(encoding='utf-8')

    def _listens(self) -> bool:
        if self._child.poll() is not None:
            said = Path(self._folder.name, 'stderr').read_text(encoding='utf-8')
            raise AssertionError(f'nginx has not started: {said}')
        with suppress(OSError):
            socket.create_connection(('127.0.0.1', self.port), DEADLINE).close()
            return True
        return False
