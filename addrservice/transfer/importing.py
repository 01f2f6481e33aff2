"""Import: entries from lines into a store."""

import asyncio
import sqlite3
from collections.abc import (
    AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Iterator, Sequence,
)
from contextlib import aclosing, closing, contextmanager
from functools import partial
from typing import Any, Final

from addrservice.addressbook_db import AbstractAddressBookDB, StoredEntry
from addrservice.addressbook_db.abstract import digest
from addrservice.sql_connectors import hear
from addrservice.transfer.lines import BadLineError, Line
from addrservice.transfer.retrying import persistently
from addrservice.transfer.tally import Tally

# The fates of a line.
IMPORTED: Final = 'imported'
PRESENT: Final = 'there already'
BAD: Final = 'bad'

MAX_NAMED: Final = 100  # bad lines; the others are counted
FAREWELL: Final = 5  # seconds that a transaction has to end in when the import is to end

# Keeps entries, no two with the same nickname; gives the digests of the documents that have their
# nicknames already.
Keep = Callable[[Sequence[StoredEntry]], Awaitable[dict[str, str]]]


async def import_batches(
    batches: AsyncGenerator[list[Line], None],
    keep: Keep,
    tally: Tally,
    tell: Callable[[str], object],
) -> None:
    """Keeps what lines say; names those that say nothing, or of an entry that differs from theirs.

    What is there already stays, so an import that was interrupted can be run again.

    :param tell: is told of bad lines
    :raises StoreError: the store cannot be used, and has not been for a while; what was kept stays
    """
    async with aclosing(batches):
        async for batch in batches:
            await _to_the_end(_import_batch(batch, keep, tally, tell))


async def _import_batch(
    batch: list[Line], keep: Keep, tally: Tally, tell: Callable[[str], object]
) -> None:
    entries: dict[str, StoredEntry] = {}
    for _, entry in batch:
        if isinstance(entry, StoredEntry):
            entries.setdefault(entry.nickname, entry)
    taken = await keep(list(entries.values()))
    for number, entry in batch:
        fate = _fate(entry, entries, taken)
        if isinstance(fate, str):
            tally.add(fate)
        else:
            _count_bad(number, fate, tally, tell)


def _fate(
    entry: StoredEntry | BadLineError, entries: dict[str, StoredEntry], taken: dict[str, str]
) -> str | BadLineError:
    """What became of a line.

    :param entries: the first one of each nickname
    """
    if isinstance(entry, BadLineError):
        return entry
    first = entries[entry.nickname]
    if entry is first and entry.nickname not in taken:
        return IMPORTED
    there = taken.get(entry.nickname) or digest(first.document)
    if there == digest(entry.document):
        return PRESENT
    return BadLineError('/id is there with another content')


def _count_bad(
    number: int, reason: BadLineError, tally: Tally, tell: Callable[[str], object]
) -> None:
    tally.add(BAD)
    if tally[BAD] <= MAX_NAMED:
        tell(f'line {number}: {reason}')
    elif tally[BAD] == MAX_NAMED + 1:
        tell('further bad lines are counted, not named')


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Lets work end that is under way when the import is to end, so that it is counted."""
    task = asyncio.create_task(work)
    task.add_done_callback(hear)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=FAREWELL)
        task.cancel()
        raise


def into_store(db: AbstractAddressBookDB) -> Keep:
    """Keeps entries in a store."""
    async def keep(entries: Sequence[StoredEntry]) -> dict[str, str]:
        taken = await persistently(partial(db.create_entries, entries))
        if not taken:
            return {}
        # One that is removed before it is read was another one, as far as anybody can tell.
        return dict.fromkeys(taken, 'removed') | await _digests(db, taken)

    return keep


@contextmanager
def rehearsal(db: AbstractAddressBookDB) -> Iterator[Keep]:
    """Keeps no entry, but tells what is taken as if it did.

    What has to be known of the entries for it is in a file without a name.
    """
    with closing(sqlite3.connect('')) as seen:
        seen.execute('CREATE TABLE seen (nickname PRIMARY KEY, digest) WITHOUT ROWID')

        async def keep(entries: Sequence[StoredEntry]) -> dict[str, str]:
            taken = await _digests(db, [entry.nickname for entry in entries])
            for entry in entries:
                if entry.nickname not in taken:
                    taken |= _see(seen, entry)
            return taken

        yield keep


def _see(seen: sqlite3.Connection, entry: StoredEntry) -> dict[str, str]:
    """What was seen before with this nickname; if nothing, this will have been."""
    done = seen.execute('INSERT INTO seen VALUES (?, ?) ON CONFLICT DO NOTHING',
                        (entry.nickname, digest(entry.document)))
    if done.rowcount:
        return {}
    return dict(seen.execute('SELECT * FROM seen WHERE nickname = ?', (entry.nickname,)))


async def _digests(db: AbstractAddressBookDB, nicknames: Collection[str]) -> dict[str, str]:
    entries = await persistently(partial(db.read_entries, nicknames))
    return {entry.nickname: digest(entry.document) for entry in entries}
