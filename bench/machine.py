"""The machine and the versions that figures are of, and which CPU does what.

The server has the first CPU to itself; the load generator, the database and this program share the
last, so that none of them takes time from what is measured.
"""

import os
import platform
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from bench.tools import Tool
from tests import postgresql

# Whatever has a part in what is measured.
_PACKAGES: Final = (
    'tornado', 'orjson', 'jsonschema-rs', 'jsonschema', 'asyncpg', 'aiosqlite', 'httptools',
    'uvloop', 'uvicorn', 'fastapi', 'pydantic', 'starlette', 'litestar', 'msgspec',
    'aiohttp', 'prometheus-client', 'opentelemetry-sdk',
)


def cpus() -> list[int]:
    """Those that this program was given; [] where the system cannot bind processes to them."""
    return _CPUS


def _allowed() -> list[int]:
    if not hasattr(os, 'sched_getaffinity') or not shutil.which('taskset'):
        return []
    return sorted(os.sched_getaffinity(0))


_CPUS: Final = _allowed()  # before this program is bound to some of them


def keep_off_server() -> None:
    """Binds this program, and all that it starts, to the last CPU, where there are several."""
    if len(_CPUS) > 1:
        os.sched_setaffinity(0, {_CPUS[-1]})


def on_cpus(count: int, command: Sequence[str]) -> list[str]:
    """A command that runs bound to the first CPUs, if it can be."""
    if len(_CPUS) < 2:
        return list(command)
    return ['taskset', '-c', ','.join(map(str, _CPUS[:count])), *command]


def placement() -> str:
    """Where what runs, in a sentence."""
    if len(_CPUS) < 2:
        return 'nothing is bound to a CPU: server and load generator disturb each other'
    return f'server on CPU {_CPUS[0]}, load generator and database on CPU {_CPUS[-1]}'


def describe(wrk: Tool, h2load: Tool, folder: Path) -> dict[str, str]:
    """The machine and the versions, by name.

    :param folder: where the databases are
    """
    return {
        'processor': f'{_processor()}, {os.cpu_count()} CPUs',
        'placement': placement(),
        'system': f'{platform.system()} {platform.release()}',
        'Python': f'{platform.python_implementation()} {platform.python_version()}',
        'databases': f'on {_file_system(folder)}',
        'wrk': _version(wrk),
        'h2load': _version(h2load),
        'PostgreSQL': _version(Tool(str(postgresql.binaries() / 'postgres'))),
        'SQLite': sqlite3.sqlite_version,
        **_packages(),
    }


def _version(tool: Tool) -> str:
    """The first line of what it says of itself; wrk says so with a status that is not 0."""
    done = subprocess.run([tool.path, '--version'], env=tool.environment(), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return next(iter(done.stdout.splitlines()), '')


def _file_system(folder: Path) -> str:
    """The kind of the one that a folder is on, as df calls it; tmpfs is none on a disk."""
    done = subprocess.run(['df', '-PT', folder], stdout=subprocess.PIPE, text=True)
    columns = done.stdout.splitlines()[-1:]
    return columns[0].split()[1] if columns else 'an unknown file system'


def _processor() -> str:
    """Its model, where Linux tells it."""
    information = Path('/proc/cpuinfo')
    lines = information.read_text(encoding='utf-8').splitlines() if information.exists() else []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return models[0] if models else platform.machine()


def _packages() -> dict[str, str]:
    installed = {found.name.lower().replace('_', '-'): found.version
                 for found in metadata.distributions()}
    return {name: installed[name] for name in _PACKAGES if name in installed}
