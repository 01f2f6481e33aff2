"""How fast a book moves from PostgreSQL to SQLite, and whether it is the same book then.

Makes entries, imports them into a PostgreSQL of its own, exports them from there, imports them
into a SQLite file, and compares: each id, document, version and origin, and what searches find.
Each step is a command as an operator runs it; of each it prints the time, that of the processor,
the largest memory that it held, and what it said. Run in the root of the repository, by the Python
that has the requirements:

    env/bin/python -m bench.transfer [--entries 1000000]

The files are in the folder for temporary ones and take about 3 GB for a million entries.
"""

import argparse
import asyncio
import filecmp
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import uuid_utils
import yaml

from addrservice.addressbook_db import Place, StoredEntry, create_addressbook_db, place_of
from addrservice.addressbook_db.abstract import digest
from addrservice.config import SQLSettings, StoreSettings
from addrservice.transfer.lines import to_line
from addrservice.validation import serialise_entry
from tests.postgresql import ENVIRONMENT, PostgreSQL

FIRST_NAMES: Final = ('Ada', 'Émile', 'JÜRGEN', 'Straßer', 'नमो', 'Σωκράτης', 'O´Neil', 'İpek')
SEARCHED: Final = ('ada', 'ÉMILE', 'jürgen 1', 'STRASSER', 'नमो', 'σωκράτησ 99', 'o´neil', 'x')
STORED: Final = 1_700_000_000_000_000  # version of the first entry


def content(number: int, chance: random.Random) -> dict[str, Any]:
    """An entry of some 500 bytes."""
    return {
        'name': f'{chance.choice(FIRST_NAMES)} {number}',
        'addresses': [{
            'kind': 'home', 'streetNumber': chance.randrange(200), 'streetName': f'Street {number}',
            'city': chance.choice(('London', 'Zürich', 'दिल्ली')), 'country': 'Country',
            'pincode': chance.randrange(100_000)}] * chance.randrange(1, 3),
        'phoneNumbers': [{'kind': 'work', 'countryCode': '+44', 'number': str(number)}],
        'emails': [{'kind': kind, 'value': f'{number}@{kind}.example.org'}
                   for kind in ('home', 'work')],
    }


def make_lines(entries: int) -> Iterator[bytes]:
    """The lines of a book, in order of id; every tenth entry was made with a key."""
    chance = random.Random(entries)
    for number in range(entries):
        document = serialise_entry(content(number, chance))
        yield to_line(uuid_utils.uuid7().hex, document, STORED + chance.randrange(10**12),
                      digest(document) if number % 10 == 0 else None)


def run(name: str, *arguments: object) -> None:
    """Runs a command and prints what it took."""
    began, worked = time.monotonic(), _worked()
    process = subprocess.Popen(
        [sys.executable, '-m', 'addrservice', *map(str, arguments)], stderr=subprocess.PIPE,
        text=True)
    memory = _highest_memory(process)
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.read().strip()
    seconds, worked = time.monotonic() - began, _worked() - worked
    print(f'{name:30} {seconds:6.1f} s  CPU {worked:5.1f} s  {memory:3.0f} MB  {said}', flush=True)
    if process.returncode:
        raise SystemExit(process.returncode)


def _worked() -> float:
    """Seconds that the commands so far have worked, without those of the PostgreSQL server."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _highest_memory(process: subprocess.Popen[str]) -> float:
    """MB of the most that a process has held, when it has ended."""
    status = Path(f'/proc/{process.pid}/status')
    highest = 0
    while process.poll() is None:
        if match := re.search(r'VmHWM:\s+(\d+) kB', status.read_text(encoding='ascii')):
            highest = int(match[1])
        time.sleep(0.02)
    return highest / 1024


def configure(folder: Path, name: str, dsn: str) -> tuple[Path, StoreSettings]:
    """A configuration file, and the store in it."""
    path = folder / f'{name}.yaml'
    path.write_text(yaml.safe_dump({
        'addr-db': {'sql': {'dsn': dsn}}, 'logging': {'version': 1}}), encoding='utf-8')
    return path, StoreSettings(sql=SQLSettings(dsn, deadline=60))


async def count_found(first: StoreSettings, second: StoreSettings) -> int:
    """How many entries searches find in two stores, which have to find the same."""
    stores = [create_addressbook_db(first), create_addressbook_db(second)]
    found = 0
    for store in stores:
        await store.start()
    for prefix in SEARCHED:
        after: Place | None = None
        pages: list[list[StoredEntry]] = [[]]
        while pages[0] or after is None:
            pages = [await store.find_page(prefix, after, 1000) for store in stores]
            if pages[0] != pages[1]:
                raise SystemExit(f'a search for {prefix!r} finds something else')
            after = place_of(pages[0][-1]) if pages[0] else Place('', '')
            found += len(pages[0])
    for store in stores:
        await store.stop()
    return found


def expect_same(name: str, first: Path, second: Path) -> None:
    """Two exports are the same to the byte."""
    if not filecmp.cmp(first, second, shallow=False):
        raise SystemExit(f'{name}: not the same')
    print(f'{name}: the same, {first.stat().st_size} bytes', flush=True)


def measure(folder: Path, entries: int, postgresql: PostgreSQL) -> None:
    """All steps."""
    server, server_store = configure(folder, 'postgresql', postgresql.dsn)
    file, file_store = configure(folder, 'sqlite', f'sqlite://{folder}/book.db')
    strict, _ = configure(folder, 'strict', f'sqlite://{folder}/strict.db')
    made, first, second = (folder / f'{name}.jsonl' for name in ('made', 'first', 'second'))
    with made.open('wb') as lines:
        lines.writelines(make_lines(entries))
    run('import into PostgreSQL', 'import', '-c', server, made)
    run('export from PostgreSQL', 'export', '-c', server, first)
    expect_same('what was made and what was exported', made, first)
    run('import into SQLite', 'import', '-c', file, first)
    run('export from SQLite', 'export', '-c', file, second)
    expect_same('PostgreSQL and SQLite', first, second)
    print(f'searches: {asyncio.run(count_found(server_store, file_store))} entries, the same')
    run('import into SQLite again', 'import', '-c', file, first)
    run('import into PostgreSQL again', 'import', '-c', server, first)
    run('import into SQLite, strictly', 'import', '--strict', '-c', strict, first)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description='Moves a book from PostgreSQL to SQLite.')
    parser.add_argument('--entries', type=int, default=1_000_000)
    options = parser.parse_args()
    with (tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, ENVIRONMENT),
          PostgreSQL() as postgresql):
        measure(Path(folder), options.entries, postgresql)


if __name__ == '__main__':
    main()
