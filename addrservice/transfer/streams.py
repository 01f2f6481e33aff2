"""Files, pipes and terminals, read and written without ever holding up the event loop."""

import asyncio
import os
import select
import stat
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from addrservice.transfer.lines import MAX_LINE, Line, read_line

CHUNK: Final = 256 * 1024  # bytes read at once

# What is held at once, and goes into one transaction.
BATCH_LINES: Final = 1000
BATCH_BYTES: Final = 8 * 1024 * 1024

# What some editors put before a text in UTF-8; a parser may ignore it (RFC 8259, 8.1).
BYTE_ORDER_MARK: Final = b'\xef\xbb\xbf'


async def read_batches(
    descriptor: int, on_progress: Callable[[int], object]
) -> AsyncGenerator[list[Line], None]:
    """The lines of a file, some at a time; those with nothing on them are left out.

    :param on_progress: is told how many bytes were read, batch by batch
    """
    batch: list[Line] = []
    number = size = 0
    async with aclosing(_read_lines(descriptor)) as texts:
        async for text in texts:
            number += 1
            size += len(text) + 1
            if text.strip():
                batch.append(read_line(number, text))
            if len(batch) == BATCH_LINES or size >= BATCH_BYTES:
                yield batch
                on_progress(size)
                batch, size = [], 0
    yield batch
    on_progress(size)


async def _read_lines(descriptor: int) -> AsyncGenerator[bytes, None]:
    """Line by line, of one that is too long just enough to see that."""
    rest = b''
    beginning = BYTE_ORDER_MARK
    async with aclosing(read_chunks(descriptor)) as chunks:
        async for chunk in chunks:
            *texts, rest = (rest + chunk).split(b'\n')
            rest = rest[:MAX_LINE + 1]
            for text in texts:
                yield text.removeprefix(beginning)
                beginning = b''
    if rest:
        yield rest.removeprefix(beginning)


async def read_chunks(descriptor: int) -> AsyncGenerator[bytes, None]:
    """What there is to read, as it comes."""
    loop = asyncio.get_running_loop()
    while True:
        await _ready(descriptor, loop.add_reader, loop.remove_reader)
        chunk = os.read(descriptor, CHUNK)
        if not chunk:
            return
        yield chunk


async def write(descriptor: int, data: bytes) -> None:
    """Writes all of it.

    :raises BrokenPipeError: nobody reads it any more
    """
    loop = asyncio.get_running_loop()
    # A pipe that is ready takes that much at once; more would wait for its reader.
    step = len(data) if is_regular(descriptor) else select.PIPE_BUF
    view = memoryview(data)
    while view:
        await _ready(descriptor, loop.add_writer, loop.remove_writer)
        view = view[os.write(descriptor, view[:step]):]


async def _ready(
    descriptor: int,
    add: Callable[[int, Callable[[], None]], None],
    remove: Callable[[int], bool],
) -> None:
    """Returns when a descriptor can be used; a regular file always can."""
    ready = asyncio.Event()
    with suppress(PermissionError):  # epoll takes no regular files
        add(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            remove(descriptor)


def is_regular(descriptor: int) -> bool:
    """Whether it is a file on a disk."""
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


@contextmanager
def opened(path: Path | None, standard: int, flags: int) -> Iterator[int]:
    """The descriptor of a file; a standard one without a path."""
    if path is None:
        yield standard
        return
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def written(path: Path | None) -> Iterator[int]:
    """A descriptor to write to; a file has its name, and its content on the disk, at the end only.

    Where that is not reached, what was there before stays. What is in the file is personal: only
    its owner may read it.
    """
    if path is None or path.exists() and not path.is_file():  # a device, or a pipe with a name
        with opened(path, 1, os.O_WRONLY) as descriptor:
            yield descriptor
        return
    path = Path(os.path.realpath(path))  # a link stays one
    path.parent.stat()  # else the error would name a file that nobody knows
    descriptor, name = tempfile.mkstemp(prefix='.export-', dir=path.parent)
    try:
        with closing(os.fdopen(descriptor)):
            yield descriptor
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    with opened(path.parent, -1, os.O_RDONLY) as folder:
        os.fsync(folder)


async def spool(descriptor: int) -> IO[bytes]:
    """A copy of what can be read but once, in a file without a name."""
    copy = tempfile.TemporaryFile()
    try:
        async with aclosing(read_chunks(descriptor)) as chunks:
            async for chunk in chunks:
                copy.write(chunk)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy
