"""The floor of SQLite: the sqlite3 module alone commits entries as fast as the disk lets it."""

import argparse
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from bench.entries import encoded
from bench.peers.stores import INSERT, named, new_row, open_sqlite

DOCUMENT: Final = encoded('usual')
NAME: Final = json.loads(DOCUMENT)['name']


def insert(path: str, seconds: float, batch: int) -> dict[str, float]:
    """Inserts for that long, so many entries a commit; gives how many it did."""
    with closing(open_sqlite(path)) as connection:
        began = time.perf_counter()
        count = sum(insert_until(connection, began + seconds, batch))
        elapsed = time.perf_counter() - began
    return {'operations': count, 'seconds': elapsed, 'operations_per_second': count / elapsed}


def insert_until(connection: sqlite3.Connection, end: float, batch: int) -> Iterator[int]:
    """Gives the number of entries with each commit before that time."""
    while time.perf_counter() < end:
        connection.execute('BEGIN')
        for _ in range(batch):
            connection.execute(INSERT, named(new_row(DOCUMENT, NAME))).fetchall()
        connection.execute('COMMIT')
        yield batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=5)
    parser.add_argument('--batch', type=int, default=1, help='entries that one commit holds')
    parser.add_argument('--folder', help='on the disk to try (default: the temporary one)')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = str(Path(folder, 'addresses.db'))
        print(json.dumps(insert(path, options.seconds, options.batch)))


if __name__ == '__main__':
    main()
