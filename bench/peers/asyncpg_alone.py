"""The floor of PostgreSQL: asyncpg alone inserts entries as fast as it commits them.

On uvloop, which is the event loop of the service, too.
"""

import argparse
import asyncio
import json
import time
from typing import Final

import asyncpg
import uvloop

from bench.entries import encoded
from bench.peers.stores import INSERT, TABLES, new_row

DOCUMENT: Final = encoded('usual')
NAME: Final = json.loads(DOCUMENT)['name']


async def leave_as_it_is(connection: asyncpg.Connection) -> None:
    """In place of asyncpg's reset, a round trip that the service does not make either."""


async def insert(dsn: str, clients: int, seconds: float, size: int) -> dict[str, float]:
    """Each client inserts and commits an entry at a time, over one pool; gives how many did."""
    async with asyncpg.create_pool(
        dsn, min_size=size, max_size=size, reset=leave_as_it_is
    ) as pool:
        await pool.execute(TABLES.format(key_type='TEXT COLLATE "C"'))
        began, worked = time.perf_counter(), time.process_time()
        counts = await asyncio.gather(*(
            insert_until(pool, began + seconds) for _ in range(clients)))
        elapsed = time.perf_counter() - began
        worked = time.process_time() - worked
    return {'operations': sum(counts), 'seconds': elapsed, 'cpu_seconds': worked,
            'operations_per_second': sum(counts) / elapsed}


async def insert_until(pool: asyncpg.Pool, end: float) -> int:
    """How many entries one client has inserted at that time."""
    count = 0
    while time.perf_counter() < end:
        count += 1
        await pool.fetch(INSERT, *new_row(DOCUMENT, NAME))
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--dsn', required=True)
    parser.add_argument('--clients', type=int, default=32)
    parser.add_argument('--seconds', type=float, default=5)
    parser.add_argument('--pool', type=int, default=10, help='connections to the database')
    options = parser.parse_args()
    print(json.dumps(uvloop.run(insert(
        options.dsn, options.clients, options.seconds, options.pool))))


if __name__ == '__main__':
    main()
