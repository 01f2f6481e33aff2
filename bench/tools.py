"""The load generators wrk and h2load: those of the machine, else fetched from Debian or Ubuntu.

What is fetched is unpacked into bench/env, which takes no right of an administrator.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from bench import BenchError

PACKAGES: Final = {'wrk': 'wrk', 'h2load': 'nghttp2-client'}

_FOLDER: Final = Path(__file__).parent / 'env' / 'tools'


class ToolError(BenchError):
    """A program is missing and cannot be fetched; the message says what to install."""


class Tool(NamedTuple):
    """A program.

    :param libraries: folders of the libraries that it needs besides those of the system
    """

    path: str
    libraries: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """What it has to run in."""
        if not self.libraries:
            return dict(os.environ)
        return {**os.environ, 'LD_LIBRARY_PATH': ':'.join(self.libraries)}


def find(name: str, folder: Path = _FOLDER) -> Tool:
    """A load generator, fetched if need be.

    :param folder: where it is unpacked
    :raises ToolError: with what to install
    """
    path = shutil.which(name)
    if path is not None:
        return Tool(path)
    unpacked = folder / PACKAGES[name]
    if not unpacked.exists():
        _fetch(PACKAGES[name], unpacked)
    libraries = {str(file.parent) for file in unpacked.rglob('*.so*')}
    return Tool(str(unpacked / 'usr' / 'bin' / name), tuple(sorted(libraries)))


def _fetch(package: str, target: Path) -> None:
    """Unpacks a package and the libraries that it needs."""
    if not shutil.which('apt-get') or not shutil.which('dpkg-deb'):
        raise ToolError(f'install {package} (with {" and ".join(PACKAGES)} on PATH)')
    unfinished = target.with_name(f'{package}.unfinished')
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _call(unfinished, 'apt-get', 'download', package, *_libraries(package))
        for file in sorted(unfinished.glob('*.deb')):
            _call(unfinished, 'dpkg-deb', '-x', file.name, '.')
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ['no reason given'])[-1]
        raise ToolError(f'install {package}, which could not be fetched: {reason}') from error
    unfinished.rename(target)


def _libraries(package: str) -> list[str]:
    """The packages of libraries that a package needs, and that these need, where apt knows them."""
    listed = _call(Path('/'), 'apt-cache', 'depends', '--recurse', '--no-recommends',
                   '--no-suggests', '--no-conflicts', '--no-breaks', '--no-replaces',
                   '--no-enhances', package)
    names = {line for line in listed.splitlines() if line.startswith('lib')}
    return sorted(names - {'libc6', 'libgcc-s1', 'libcrypt1'})  # those of the system fit its loader


def _call(folder: Path, *command: str) -> str:
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True).stdout
