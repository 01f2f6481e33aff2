"""The steps of the Dockerfile without a container engine, each in an empty root of bubblewrap's.

In the place of the base image stands a Python of this machine, as /usr/local, and the libraries of
its system; there is no shell in it, nor any other program. ``python -m tests.container`` follows
all steps, for which it needs the network, and runs what comes out of them. The tests do the same,
but take the packages that this Python has for those that the lock file names.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from tests.dockerfile import Instruction, Stage, is_sent, read_dockerfile
from tests.support import ROOT, wait_until

DOCKERFILE: Final = ROOT / 'deploy' / 'Dockerfile'
DOCKERIGNORE: Final = ROOT / '.dockerignore'

# What a build may have of the machine, to reach the package index.
_NETWORK: Final = ('/etc/resolv.conf', '/etc/hosts', '/etc/nsswitch.conf', '/etc/ssl')
_VARIABLES: Final = ('PIP_INDEX_URL', 'PIP_CERT', 'HTTPS_PROXY', 'https_proxy')

# In the place of the engine's runtime, gives up all rights and becomes the user of the image.
_SETPRIV: Final = shutil.which('setpriv') or 'setpriv'


def is_possible() -> bool:
    """Whether this machine can do it: there is bubblewrap, and the rights to use it."""
    return os.geteuid() == 0 and None not in map(shutil.which, ('bwrap', 'setpriv', 'nsenter'))


class Python(NamedTuple):
    """A Python to build with.

    :param program: the file itself, of the interpreter that no virtual environment hides
    :param library: folder of its standard library
    :param shared: the library that it is linked with, or a file that is not there
    """

    program: Path
    library: Path
    shared: Path

    @classmethod
    def of(cls, interpreter: str) -> 'Python':
        """The one behind an interpreter."""
        question = ('import os, sys; from sysconfig import get_config_var as find; print('
                    'os.path.realpath(sys.executable), os.path.dirname(os.__file__), '
                    'os.path.join(find("LIBDIR"), find("INSTSONAME")), sep="\\n")')
        told = subprocess.run([interpreter, '-c', question], capture_output=True, text=True,
                              check=True).stdout.splitlines()
        return cls(*map(Path, told))

    def binds(self) -> list[str]:
        """The options of bubblewrap that make it the one Python of a base image."""
        return [*_bind(self.program, '/usr/local/bin/python'),
                *_bind(self.library, f'/usr/local/lib/{self.library.name}'),
                *_bind(self.shared, self.shared)]


class Image(NamedTuple):
    """What a Dockerfile has made.

    :param layers: folder with what its steps have put into the root
    :param packages: folder of installed packages that stands in for those of ./opt/venv
    """

    layers: Path
    stage: Stage
    python: Python
    packages: Path | None

    @property
    def command(self) -> list[str]:
        """What a container runs."""
        return self.stage.last('ENTRYPOINT').command + self.stage.last('CMD').command

    @property
    def environment(self) -> dict[str, str]:
        """All the variables that a container has."""
        return {name: value for instruction in self.stage.all('ENV')
                for name, value in instruction.assignments.items()}

    @property
    def user(self) -> tuple[str, str]:
        """The numbers of its user and group."""
        user, _, group = self.stage.last('USER').arguments.partition(':')
        return user, group


def build(folder: Path, python: Python, packages: Path | None = None) -> Image:
    """Follows the steps of the Dockerfile.

    :param folder: where the roots of the stages are made
    :param packages: what takes the place of the step that installs packages
    """
    stages = read_dockerfile(DOCKERFILE)
    for number, stage in enumerate(stages):
        layers = _layers(folder, stage.name or str(number))
        layers.mkdir(parents=True)
        for instruction in stage.instructions:
            if instruction.name == 'COPY':
                _copy(instruction, layers, folder)
            elif instruction.name == 'RUN':
                _run(instruction, layers, python, packages)
    return Image(layers, stages[-1], python, packages)


def _layers(folder: Path, stage: str) -> Path:
    return folder / f'stage-{stage}'


def _copy(instruction: Instruction, layers: Path, folder: Path) -> None:
    """COPY, of what the context has or of what an earlier stage has made."""
    *sources, target = instruction.words
    for source in sources:
        place = layers / target.lstrip('/')
        place.parent.mkdir(parents=True, exist_ok=True)
        if 'from' in instruction.flags:
            stage = _layers(folder, instruction.flags['from'])
            shutil.copytree(stage / source.lstrip('/'), place, symlinks=True)
        else:
            _copy_context(source, place)


def _copy_context(source: str, place: Path) -> None:
    if not is_sent(PurePosixPath(source), DOCKERIGNORE):
        raise FileNotFoundError(f'{source} is not in the context: see .dockerignore')
    if (ROOT / source).is_file():
        shutil.copy2(ROOT / source, place)
    else:
        shutil.copytree(ROOT / source, place, ignore=_unsent)


def _unsent(folder: str, names: list[str]) -> list[str]:
    """Those of a folder's files that are not in the context."""
    place = PurePosixPath(Path(folder).relative_to(ROOT))
    return [name for name in names if not is_sent(place / name, DOCKERIGNORE)]


def _run(
    instruction: Instruction, layers: Path, python: Python, packages: Path | None
) -> None:
    """RUN, as root and with the network, as an engine does."""
    if packages is not None and 'pip' in instruction.command:
        return
    network = [word for path in _NETWORK for word in _bind(path, path)]
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    done = subprocess.run(
        ['bwrap', '--bind', str(layers), '/', *_system(python), *network, '--tmpfs', '/tmp',
         '--die-with-parent', *_set({'PATH': '/usr/local/bin', **variables}),
         *instruction.command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f'{instruction.arguments}: {done.stdout}')


def _system(python: Python) -> list[str]:
    """The options for what a base image has: the libraries of a system, and Python."""
    libraries = [word for path in ('/usr/lib', '/lib', '/lib64') for word in _bind(path, path)]
    return [*libraries, *python.binds(), '--proc', '/proc', '--dev', '/dev']


def _bind(source: Path | str, target: Path | str) -> list[str]:
    """The options to mount a file or a folder, if it is there; all may pass to it."""
    return ['--dir', str(Path(target).parent), '--ro-bind-try', str(source), str(target)]


def _set(variables: Mapping[str, str]) -> list[str]:
    return ['--clearenv', *(word for pair in variables.items() for word in ('--setenv', *pair))]


def start_in_bubblewrap(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    """Starts bubblewrap; gives it, and the process id of the command in it."""
    reading, writing = os.pipe()
    with open(reading, encoding='utf-8') as information:
        process = subprocess.Popen(
            ['bwrap', '--info-fd', str(writing), '--die-with-parent', *arguments],
            pass_fds=[writing], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        os.close(writing)
        return process, json.load(information)['child-pid']


class Container:
    """A running container, with a network of its own.

    :param mounts: what is mounted, file by path in the container
    """

    def __init__(self, image: Image, mounts: Mapping[str, Path]) -> None:
        self.image = image
        self._process, self.pid = start_in_bubblewrap(
            '--unshare-ipc', '--unshare-net', '--unshare-pid', '--unshare-uts', '--as-pid-1',
            *self._root(mounts), *self._become_user(image.command))

    def _root(self, mounts: Mapping[str, Path]) -> list[str]:
        image = self.image
        options = _system(image.python)
        for place in image.layers.iterdir():
            options += _bind(place, f'/{place.name}')
        if image.packages is not None:
            options += _bind(image.packages,
                             f'/opt/venv/lib/{image.python.library.name}/site-packages')
        for target, source in mounts.items():
            options += _bind(source, target)
        return [*options, *_bind(_SETPRIV, '/run/setpriv'), '--perms', '1777', '--tmpfs', '/tmp',
                '--remount-ro', '/', *_set(image.environment)]

    def _become_user(self, command: Sequence[str]) -> list[str]:
        user, group = self.image.user
        return ['--cap-add', 'CAP_SETUID', '--cap-add', 'CAP_SETGID', '--cap-add', 'CAP_SETPCAP',
                '/run/setpriv', f'--reuid={user}', f'--regid={group}', '--clear-groups',
                '--no-new-privs', '--inh-caps=-all', '--bounding-set=-all', *command]

    def run(self, command: Sequence[str]) -> int:
        """The exit status of a command that is run within it."""
        user, group = self.image.user
        return subprocess.run(
            ['nsenter', f'--target={self.pid}', '--mount', '--net', '--pid', '--root', '--wd',
             f'--setuid={user}', f'--setgid={group}', *command],
            env=self.image.environment, stderr=subprocess.DEVNULL).returncode

    def is_healthy(self) -> bool:
        """Whether its HEALTHCHECK says so."""
        return not self.run(self.image.stage.last('HEALTHCHECK').command)

    def stop(self, deadline: float = 30) -> tuple[int, str]:
        """Stops it as its STOPSIGNAL says; gives the exit status and what it has printed."""
        os.kill(self.pid, signal.Signals[self.image.stage.last('STOPSIGNAL').arguments])
        output, _ = self._process.communicate(timeout=deadline)
        return self._process.returncode, output

    def kill(self) -> str:
        """Makes sure that it is gone; gives what it has printed, unless `stop` has."""
        if self._process.returncode is not None:
            return ''
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(self.pid, signal.SIGKILL)
        return self._process.communicate()[0]


@contextmanager
def running(image: Image, mounts: Mapping[str, Path]) -> Iterator[Container]:
    """A container that its HEALTHCHECK finds healthy."""
    container = Container(image, mounts)
    try:
        wait_until(container.is_healthy)
        yield container
    except AssertionError as error:
        raise AssertionError(f'{error}: {container.kill()}') from error
    finally:
        container.kill()


def main() -> int:
    """Builds the image with the packages of the lock file, runs it, stops it."""
    parser = argparse.ArgumentParser(prog='tests.container', description=__doc__)
    parser.add_argument('--python', default=sys.executable, help='in the place of the base image')
    python = Python.of(parser.parse_args().python)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        tokens = folder / 'tokens'
        tokens.write_text(f'me {"0" * 64} addressbook:read\n', encoding='ascii')
        image = build(folder, python)
        started = time.monotonic()
        with running(image, {'/run/secrets/addressbook/tokens': tokens}) as container:
            print(f'healthy after {time.monotonic() - started:.1f} s, as user {image.user[0]}')
            status, _ = container.stop()
            print(f'exit status {status}')
    return status


if __name__ == '__main__':
    sys.exit(main())
