#!/usr/bin/env python3
"""Runs, tests and checks the address book service; on first use, sets up what that needs.

A command runs in the interpreter it was called with if that one has the pinned requirements,
else in ./env, which is made on first use and made again when the requirements change. The
benchmark has an environment of its own, ./bench/env, with the peers of the service.
ADDRSERVICE_SETUP=off (for containers) takes the interpreter as it is and sets nothing up.
"""
# Standard library only. Python 3.11 runs it, and 3.8 can still parse it to say what is wrong.
from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Iterator, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent
SERVICE_REQUIREMENTS = ROOT / 'deploy' / 'requirements.txt'
DEVELOPER_REQUIREMENTS = ROOT / 'requirements.txt'
BENCH_REQUIREMENTS = ROOT / 'bench' / 'requirements.txt'


# Commands of the service itself.
SERVICE_COMMANDS = {
    'serve': 'start the service',
    'export': 'write all entries as JSON Lines',
    'import': 'keep entries that export has written',
    'token': 'make an access token',
}


class Environment(NamedTuple):
    """A folder that requirements are installed in, and those, with all that they need, by hash."""

    folder: Path
    locked_requirements: Path

    def __str__(self) -> str:
        return f'./{self.folder.relative_to(ROOT)}'

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / 'bin' / 'python'

    @property
    def stamp(self) -> Path:
        """The file that marks it as complete."""
        return self.folder / '.stamp'

    def made_for(self) -> str:
        """What the stamp has to say: this version of Python and these requirements."""
        wanted = [str(sys.implementation.cache_tag), *requirement_lines(self.locked_requirements)]
        return hashlib.sha256('\n'.join(wanted).encode()).hexdigest()

    def is_ready(self) -> bool:
        """Whether it was made to the end, and for what is asked for now."""
        made = self.stamp.is_file() and os.access(self.python, os.X_OK)
        return made and self.stamp.read_text(errors='replace') == self.made_for()


ENV = Environment(ROOT / 'env', ROOT / 'requirements.lock')
BENCH_ENV = Environment(ROOT / 'bench' / 'env', ROOT / 'bench' / 'requirements.lock')


class SetupError(Exception):
    """The environment cannot be set up; the message says why, in one line."""


def say(line: str) -> None:
    """One line to the user, apart from what a command prints."""
    print(f'run.py: {line}', file=sys.stderr, flush=True)


def requirement_lines(path: Path) -> Iterator[str]:
    """What a requirements file asks for, a line each, with the files it includes by -r."""
    for text in path.read_text(encoding='utf-8').splitlines():
        line = text.partition('#')[0].strip()
        if line.startswith('-r '):
            yield from requirement_lines(path.parent / line[3:].strip())
        elif line:
            yield line


def normalised(name: str) -> str:
    """The name of a package as all of its spellings have it (PyPA, "Names and normalization")."""
    return re.sub('[-_.]+', '-', name).lower()


def installed_versions() -> dict[str, str]:
    """The packages that this interpreter has, by the names of the folders that describe them.

    importlib.metadata knows too, but importing it takes as long as all else that serve does here.
    """
    versions: dict[str, str] = {}
    for place in sys.path:
        with suppress(OSError):  # an archive, or a folder that is not there
            for entry in os.listdir(place):
                folder, kind = os.path.splitext(entry)
                if kind in ('.dist-info', '.egg-info'):
                    name, version = f'{folder}-'.split('-')[:2]
                    versions.setdefault(normalised(name), version)
    return versions


def has_installed(requirements: Path) -> bool:
    """Whether this interpreter has just what is asked for; False for all forms but name==version.
    """
    pins = [line.partition('==') for line in requirement_lines(requirements) if line[0] != '-']
    versions = installed_versions()
    return all(versions.get(normalised(name)) == version for name, _, version in pins)


def set_up_step(failure: str, lock: int, *command: str | Path) -> None:
    """Runs a command; if it fails, raises SetupError with the last error that it printed."""
    # The command holds the lock too, so that nobody starts beside it should run.py be killed.
    done = subprocess.run(command, pass_fds=[lock], stdin=subprocess.DEVNULL, errors='replace',
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith('error:')]
        reason = (errors or lines or [f'exit status {done.returncode}'])[-1]
        raise SetupError(f'{failure}: {reason.strip()}')


def make_env(env: Environment, lock: int) -> None:
    """Makes an environment from scratch; what marks it as complete is written last."""
    try:
        import ensurepip  # noqa: F401  only asked for: Debian's Python lacks it at first
        import venv  # noqa: F401  only asked for
    except ImportError as error:
        raise SetupError(f'cannot make {env}: {error} '
                         '(on Debian or Ubuntu: apt-get install python3-venv)') from error
    env.stamp.unlink(missing_ok=True)
    # -I: what PYTHONPATH offers today must not count as installed.
    set_up_step(f'cannot make {env}', lock,
                sys.executable, '-I', '-m', 'venv', '--clear', '--without-pip', env.folder)
    set_up_step(f'cannot put pip into {env}', lock,
                env.python, '-I', '-m', 'ensurepip', '--default-pip')
    locked = env.locked_requirements.relative_to(ROOT)
    set_up_step(f'cannot install {locked} (is the network reachable?)', lock,
                env.python, '-I', '-m', 'pip', 'install', '--disable-pip-version-check',
                '--no-input', '--retries=1', '--timeout=10', '-r', env.locked_requirements)
    env.stamp.write_text(env.made_for())


def set_up(env: Environment) -> None:
    """Makes an environment, or waits for the run.py that is making it."""
    say(f'Setting up {env} (on first use, and when the requirements change) ...')
    # A lock on the folder itself leaves no file behind, and goes when its last holder ends.
    lock = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not env.is_ready():
            make_env(env, lock)
    finally:
        os.close(lock)


def python_with(requirements: Path, env: Environment = ENV) -> str:
    """The interpreter with the requirements: this one, or an environment's, set up if need be."""
    if os.environ.get('ADDRSERVICE_SETUP') == 'off':
        return sys.executable
    ready = env.is_ready()
    if ready and Path(sys.prefix).resolve() == env.folder:
        return sys.executable
    if has_installed(requirements):
        return sys.executable
    if not ready:
        set_up(env)
    return str(env.python)


def become(python: str, module: str, args: list[str]) -> NoReturn:
    """Becomes `python -m module args`; process id and signals are then its own."""
    search_path = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    # A relative path in args counts from where the caller stands; -P keeps that off sys.path.
    os.execve(python, [python, '-P', '-m', module, *args],
              {**os.environ, 'PYTHONPATH': os.pathsep.join(search_path)})


def test(options: argparse.Namespace) -> int:
    """Runs tests/**/*_test.py, with warnings as errors."""
    from tests import runner  # not above: nothing else needs unittest, which takes long to import
    folder = 'tests' if options.suite == 'all' else f'tests/{options.suite}'
    return runner.run(ROOT / folder, options.verbose, options.no_skips, say)


def call(*module: str) -> int:
    """The exit status of `python -m module ...`."""
    return subprocess.call([sys.executable, '-m', *module])


def check(options: argparse.Namespace) -> int:
    """Runs a checker over all Python code."""
    code = ['addrservice', 'bench', 'run.py', 'tests']
    return call(options.checker, *[name for name in code if Path(name).exists()])


def coverage(options: argparse.Namespace) -> int:
    """Runs all tests and reports what they reach; a failed test counts before a gap."""
    call('coverage', 'erase')
    tests = call('coverage', 'run', 'run.py', 'test', *['--no-skips'] * options.no_skips)
    gaps = call('coverage', 'report')
    html = call('coverage', 'html') if options.html else 0
    return tests or gaps or html


def parse(args: list[str]) -> argparse.Namespace:
    """The command as `run`, and its options; ends the program, with status 2 if they are wrong."""
    parser = argparse.ArgumentParser(prog='run.py')
    commands = parser.add_subparsers(metavar='COMMAND [OPTION]', required=True)
    programs = {**SERVICE_COMMANDS, 'bench': 'measure the service and its peers'}
    for name, summary in programs.items():
        commands.add_parser(name, help=f'{summary}; all that follows is passed on')
    command = commands.add_parser('test', help='run the tests')
    command.set_defaults(run=test)
    command.add_argument('--suite', choices=['all', 'unit', 'integration'], default='all')
    command.add_argument('-v', '--verbose', action='store_true', help='name each test')
    command = commands.add_parser('lint', help='check the style with flake8')
    command.set_defaults(run=check, checker='flake8')
    command = commands.add_parser('typecheck', help='check the types with mypy')
    command.set_defaults(run=check, checker='mypy')
    command = commands.add_parser('coverage', help='run the tests and show what they do not reach')
    command.set_defaults(run=coverage)
    command.add_argument('--html', action='store_true', help='write the report to htmlcov/ too')
    for name in ('test', 'coverage'):
        commands.choices[name].add_argument(
            '--no-skips', action='store_true',
            help='fail where a test is skipped for want of a program, as PostgreSQL or nginx')
    return parser.parse_args(args)


def run(args: list[str]) -> int:
    """Runs the command that args name, in the interpreter that has what it needs."""
    name = args[0] if args else ''
    if name in SERVICE_COMMANDS:
        become(python_with(SERVICE_REQUIREMENTS), 'addrservice',
               args[1:] if name == 'serve' else args)
    if name == 'bench':
        become(python_with(BENCH_REQUIREMENTS, BENCH_ENV), 'bench', args[1:])
    options = parse(args)
    python = python_with(DEVELOPER_REQUIREMENTS)
    if python != sys.executable:
        os.execv(python, [python, os.path.abspath(__file__), *args])
    os.chdir(ROOT)
    return int(options.run(options))


def main() -> int:
    """The exit status: the command's, 2 if it could not be run at all, 130 after Ctrl-C."""
    if sys.version_info < (3, 11):
        say('Python 3.11 or newer is needed; this is ' + sys.version.split()[0])
        return 2
    try:
        return run(sys.argv[1:])
    except (SetupError, OSError) as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say('interrupted')
        return 130


if __name__ == '__main__':
    sys.exit(main())
