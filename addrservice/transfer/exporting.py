"""Export: the lines of all entries, in order of id."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from addrservice.addressbook_db import AbstractAddressBookDB
from addrservice.transfer.lines import to_line
from addrservice.transfer.retrying import persistently

PAGE_SIZE: Final = 500  # entries read at once

Lines = AsyncGenerator[list[bytes], None]


async def stored_lines(db: AbstractAddressBookDB) -> Lines:
    """The lines of what a store has, some at a time.

    An entry that stays while they are read is among them just once, whatever is written meanwhile.

    :raises StoreError: it cannot be read, and has not been for a while
    """
    after: str | None = None
    while page := await persistently(partial(db.read_page, after, PAGE_SIZE)):
        yield [to_line(*entry) for entry in page]
        after = page[-1].nickname
