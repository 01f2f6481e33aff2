"""Books in PostgreSQL from a thousand entries to ten million: does it matter how many there are?"""

import asyncio
import shutil
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import asyncpg

from addrservice.addressbook_db.statements import SCHEMA
from addrservice.sql_connectors.postgresql import PostgreSQLConnector
from bench import usage
from bench.harness import CONNECTIONS, Bench, Result
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE, Server, ServerError, Setup
from tests.postgresql import SUPERUSER, SUPERUSER_PASSWORD, PostgreSQL, dsn_of, new_role

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
QUICK_SIZES: Final = SIZES[:3]
BOOKS: Final = (100_000, 1_000_000)  # that are read as a whole

PAGE: Final = 100
# Places that a load generator asks for, one after the other: as many in each book, so that what the
# database works on is no larger in a larger one.
PATHS: Final = 1_000
BYTES: Final = 1200  # on the disk for each entry, with its indexes: rather too many
INTERVAL: Final = 0.2  # seconds between two looks at the memory

# While it is filled no server would be as durable as in production; later it is only read.
SETTINGS: Final = {'autovacuum': 'off', 'wal_level': 'minimal', 'max_wal_senders': '0',
                   'max_wal_size': '4GB'}

# The id of entry n: as in a UUIDv7 (RFC 9562) 48 bits of time, a millisecond apart, and chance.
_HASH: Final = 'md5(n::text)'
NICKNAME: Final = (
    f"lpad(to_hex(1700000000000 + n), 12, '0') || '7' || substr({_HASH}, 1, 3) || '8' "
    f'|| substr({_HASH}, 4, 15)')

# The names of neighbours begin with different letters: a search has another order than the ids.
NAME: Final = "chr((65 + n % 26)::integer) || 'ora ' || n"
_DOCUMENT: Final = """
    format('{"name":"%1$s","addresses":[{"kind":"home","streetNumber":%2$s,'
           '"streetName":"Street %3$s","city":"London","state":"England","pincode":"%4$s",'
           '"country":"United Kingdom"}],'
           '"phoneNumbers":[{"kind":"work","countryCode":"+44","areaCode":"020","number":%5$s}],'
           '"faxNumbers":[{"kind":"work","countryCode":"+44","areaCode":"020","number":%5$s}],'
           '"emails":[{"kind":"home","value":"someone.%6$s@home.example.org"},'
           '{"kind":"work","value":"someone.%6$s@work.example.org"}]}',
           name, n % 200, n % 10000, 100000 + n % 900000, 10000000 + n, n)
"""
_FILL: Final = (
    'INSERT INTO addresses (nickname, document, name_key, version) '
    f'SELECT {NICKNAME}, {_DOCUMENT}, lower(name), 1700000000000000 + 1000 * n '
    f'FROM (SELECT n, {NAME} AS name FROM generate_series(1, $1::bigint) AS n) AS numbered')


class Book(NamedTuple):
    """A book that is in a schema of its own, with the name of the role that owns it."""

    role: str
    entries: int


def run(bench: Bench) -> Result:
    """GET one and a page of 100 at random places, and the whole book where that is large."""
    sizes = QUICK_SIZES if bench.quick else SIZES
    with PostgreSQL(**SETTINGS) as postgresql:
        fitting = those_that_fit(sizes, shutil.disk_usage(postgresql.folder).free)
        books = {f'{size:,}': make_book(postgresql, size) for size in fitting}
        samples = take_turns(
            [*books], bench.rounds(), lambda name: _measure(bench, postgresql, books[name]))
        buffers = postgresql.sql('SHOW shared_buffers')
    smallest, *larger = books
    whole = [f'{size:,}' for size in BOOKS if size in fitting]
    return Result(
        f'Books of so many entries of some 450 bytes in PostgreSQL; milliseconds of one client, '
        f'requests per second of {CONNECTIONS}',
        samples,
        [*((name, smallest) for name in larger), *zip(whole[1:], whole)],
        [*_notes(bench.rounds(), buffers), *_missing(sizes, fitting)])


def _notes(rounds: int, buffers: str) -> Iterator[str]:
    yield (f'All books are in one server, which has {buffers} of shared buffers, with {rounds} '
           f'rounds over all of them; requests are for {PATHS:,} random places, and all have been '
           'made before. A ratio of 1 within its ± says that size does not matter. "CPU" is that '
           'of the service and of PostgreSQL.')
    yield ('"MB" is the memory (PSS) of the service: before its whole book is read, and the most '
           f'of it while that is done, looked at every {INTERVAL:g} s.')


def _missing(sizes: Sequence[int], fitting: Sequence[int]) -> Iterator[str]:
    for size in sizes[len(fitting):]:
        yield f'For {size:,} entries there is no room on the disk.'


def those_that_fit(sizes: Iterable[int], free: int) -> list[int]:
    """The sizes of books that have room, all of them together.

    :param sizes: in ascending order
    :param free: bytes on the disk
    """
    fitting: list[int] = []
    for size in sizes:
        if BYTES * (sum(fitting) + size) <= free:
            fitting.append(size)
    return fitting


def make_book(postgresql: PostgreSQL, entries: int) -> Book:
    """A new book, filled."""
    book = Book(new_role(postgresql), entries)
    asyncio.run(_fill(dsn_of(postgresql.port, role=SUPERUSER), book))
    return book


async def _fill(dsn: str, book: Book) -> None:
    connection = await asyncpg.connect(dsn, password=SUPERUSER_PASSWORD)
    try:
        await connection.execute(f'SET ROLE {book.role}')
        async with connection.transaction():  # what is new in one needs no log
            await _make_table(connection, book.entries)
        # So that nobody who reads has to write, nor the server while it is measured.
        await connection.execute('VACUUM (ANALYZE) addresses')
        await connection.execute('RESET ROLE')
        await connection.execute('CHECKPOINT')
    finally:
        await connection.close()


async def _make_table(connection: asyncpg.Connection, entries: int) -> None:
    """Makes the second index last, which takes less time than to keep it up."""
    table, *others = (text.format(key_type=PostgreSQLConnector.key_type) for text in SCHEMA[0])
    await connection.execute(table)
    await connection.execute(_FILL, entries)
    await connection.execute("SET LOCAL maintenance_work_mem = '512MB'")
    for statement in others:
        await connection.execute(statement)


def nicknames(postgresql: PostgreSQL, entries: int, count: int) -> list[str]:
    """So many ids at random, each with a page of entries behind it."""
    return postgresql.sql(
        f'SELECT {NICKNAME} FROM (SELECT 1 + floor(random() * {entries - PAGE})::bigint AS n '
        f'FROM generate_series(1, {count})) AS chosen').split()


def _measure(bench: Bench, postgresql: PostgreSQL, book: Book) -> Sample:
    ids = nicknames(postgresql, book.entries, PATHS)
    with bench.start(SERVICE, Setup(dsn_of(postgresql.port, role=book.role))) as server:
        server.wait_until_ready()
        one = [f'/addressbook/{nickname}' for nickname in ids]
        page = [f'/addressbook?limit={PAGE}&after={nickname}' for nickname in ids]
        return {**_measure_paths(bench, postgresql, server, 'GET one', one),
                **_measure_paths(bench, postgresql, server, f'page of {PAGE}', page),
                **(read_book(server) if book.entries in BOOKS else {})}


def _measure_paths(
    bench: Bench, postgresql: PostgreSQL, server: Server, what: str, paths: Sequence[str]
) -> Sample:
    server.paths.write_text('\n'.join(paths), encoding='ascii')
    bench.throughput(server, 'get')  # so that it is warm, and so is the database
    wait = median_wait(server, paths[-300 * bench.seconds:])
    worked = _cpu_seconds(server, postgresql)
    measured = bench.throughput(server, 'get')
    each = (_cpu_seconds(server, postgresql) - worked) / measured.answers
    return {f'{what} ms': wait,
            f'{what}/s': measured.rate, f'{what} CPU us': each * 1e6}


def _cpu_seconds(server: Server, postgresql: PostgreSQL) -> float:
    return server.cpu_seconds() + usage.cpu_seconds(postgresql.processes())


def median_wait(server: Server, paths: Iterable[str]) -> float:
    """Milliseconds that a client waits who asks for one after the other."""
    waits = []
    connection = server.connect()
    try:
        for path in paths:
            began = time.perf_counter()
            connection.request('GET', path)
            answer = connection.getresponse()
            answer.read()
            waits.append(time.perf_counter() - began)
            if answer.status != 200:
                raise ServerError(f'{path} was answered with {answer.status}')
    finally:
        connection.close()
    return 1000 * statistics.median(waits)


def read_book(server: Server) -> Sample:
    """How fast it comes as a whole, and what memory that takes."""
    connection = server.connect()
    before = highest = server.memory()
    buffer, size = bytearray(2**20), 0
    began = looked = time.monotonic()
    try:
        connection.request('GET', '/addressbook')
        answer = connection.getresponse()
        while count := answer.readinto(buffer):
            size += count
            if time.monotonic() > looked + INTERVAL:
                highest = max(highest, server.memory())
                looked = time.monotonic()
    finally:
        connection.close()
    return {'whole book MB/s': size / 1e6 / (time.monotonic() - began),
            'MB before it': before / 1e6, 'MB during it': highest / 1e6}
