"""The command lines of export and import."""

import argparse
import asyncio
import os
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from addrservice.addressbook_db import AbstractAddressBookDB, create_addressbook_db
from addrservice.config import LOCAL_CONFIG, SQLSettings, load_settings
from addrservice.errors import AddressBookError, ConfigError, StartError
from addrservice.transfer.exporting import Lines, stored_lines
from addrservice.transfer.importing import (
    BAD, IMPORTED, PRESENT, import_batches, into_store, rehearsal,
)
from addrservice.transfer.progress import Progress
from addrservice.transfer.remote import AddressBookClient
from addrservice.transfer.streams import is_regular, opened, read_batches, spool, write, written
from addrservice.transfer.tally import Tally

EXPORTED: Final = 'exported'

# Seconds that one operation of the store may take here, where nobody waits for an answer.
DEADLINE: Final = 10

# What a shell sees of a program that wrote to a pipe without a reader: 128 + SIGPIPE.
BROKEN_PIPE: Final = 128 + signal.SIGPIPE

IN_MEMORY_ONLY: Final = ('what is in the memory of a running service can be exported from it only: '
                         '--url http://HOST:PORT')
GONE_AT_ONCE: Final = ('the store is in memory, where the entries would be gone as soon as this '
                       'command ends; --config names another configuration')

# RFC 6750, 2.1.
_TOKEN: Final = re.compile(r'[A-Za-z0-9._~+/-]+=*')


class InterruptedBySignal(Exception):
    """A signal has ended it.

    :param number: which one
    """

    def __init__(self, number: int) -> None:
        super().__init__(f'interrupted by {signal.Signals(number).name}')
        self.number = number


def main(command: str, arguments: Sequence[str]) -> int:
    """Exports or imports entries.

    :param command: ``export`` or ``import``
    :param arguments: what follows it on the command line
    :return: the exit status: 0, 1 where lines were bad, 2 where it could not be done, 128 and the
        number of the signal that ended it
    """
    options = _PARSERS[command]().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except (AddressBookError, OSError) as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:  # before there was anything to interrupt
        return 128 + signal.SIGINT


def _export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='addrservice export', description='Writes all entries, as JSON, one a line.')
    source = parser.add_mutually_exclusive_group()
    _add_config(source)
    source.add_argument('--url', type=_url, metavar='http://HOST:PORT',
                        help='export from this running service, without the versions of entries')
    parser.add_argument('--token-file', type=Path, metavar='TOKEN',
                        help='file with the bearer token that the service asks for')
    parser.add_argument('file', type=_path, nargs='?', metavar='FILE',
                        help='where to; it appears when it is whole (default: standard output)')
    parser.set_defaults(run=_run_export)
    return parser


def _import_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='addrservice import', description='Adds the entries that an export has written.')
    _add_config(parser)
    parser.add_argument('--strict', action='store_true',
                        help='change nothing if any line is bad')
    parser.add_argument('file', type=_path, nargs='?', metavar='FILE',
                        help='where from (default: standard input)')
    parser.set_defaults(run=_run_import)
    return parser


_PARSERS: Final = {'export': _export_parser, 'import': _import_parser}


def _add_config(parser: argparse._ActionsContainer) -> None:
    parser.add_argument('-c', '--config', type=Path, default=LOCAL_CONFIG,
                        help='configuration file, which names the store (default: %(default)s)')


def _path(text: str) -> Path | None:
    return None if text == '-' else Path(text)


def _url(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        if (url.scheme in ('http', 'https') and url.hostname and url.port != 0
                and '@' not in url.netloc and url[2:] in (('', '', ''), ('/', '', ''))):
            return url._replace(path='')
    except ValueError:  # a port or an address that cannot be one
        pass
    raise argparse.ArgumentTypeError(f'{text!r} is not http://HOST:PORT or https://HOST:PORT')


def _run_export(options: argparse.Namespace) -> int:
    lines = _lines(options)
    tally = Tally(EXPORTED)

    def work() -> None:
        with closing(Progress(' entries')) as progress, written(options.file) as descriptor:
            asyncio.run(_until_signal(_write_all(lines, descriptor, tally, progress)))

    return _carried_out(work, tally)


def _lines(options: argparse.Namespace) -> Lines:
    """The lines of the source that the options name."""
    if options.url is not None:
        return _remote_lines(AddressBookClient(options.url, _token(options.token_file)))
    if options.token_file is not None:
        raise ConfigError('--token-file is of use with --url only')
    return _stored_lines(_store(options.config, IN_MEMORY_ONLY))


async def _stored_lines(db: AbstractAddressBookDB) -> Lines:
    async with _started(db), aclosing(stored_lines(db)) as pages:
        async for page in pages:
            yield page


async def _remote_lines(client: AddressBookClient) -> Lines:
    with closing(client):
        async with aclosing(client.lines()) as pages:
            async for page in pages:
                yield page


async def _write_all(lines: Lines, descriptor: int, tally: Tally, progress: Progress) -> None:
    async with aclosing(lines):
        async for page in lines:
            await write(descriptor, b''.join(page))
            tally.add(EXPORTED, len(page))
            progress.update(len(page))


def _run_import(options: argparse.Namespace) -> int:
    db = _store(options.config, GONE_AT_ONCE)
    tally = Tally(IMPORTED, PRESENT, BAD)

    def work() -> None:
        with opened(options.file, 0, os.O_RDONLY) as descriptor:
            size = os.fstat(descriptor).st_size if is_regular(descriptor) else None
            passes = 2 if options.strict else 1
            with closing(Progress('B', size and size * passes)) as progress:
                asyncio.run(_until_signal(
                    _import_all(db, descriptor, options.strict, tally, progress)))

    return _carried_out(work, tally) or int(tally[BAD] > 0)


async def _import_all(
    db: AbstractAddressBookDB, descriptor: int, strict: bool, tally: Tally, progress: Progress
) -> None:
    async with _started(db):
        if not strict:
            await _import(db, descriptor, tally, progress)
        elif is_regular(descriptor):
            await _import_strictly(db, descriptor, tally, progress)
        else:
            with await spool(descriptor) as copy:
                await _import_strictly(db, copy.fileno(), tally, progress)


async def _import(
    db: AbstractAddressBookDB, descriptor: int, tally: Tally, progress: Progress
) -> None:
    batches = read_batches(descriptor, progress.update)
    await import_batches(batches, into_store(db), tally, progress.tell)


async def _import_strictly(
    db: AbstractAddressBookDB, descriptor: int, tally: Tally, progress: Progress
) -> None:
    """Imports what is without fault, as far as can be told before."""
    beginning = os.lseek(descriptor, 0, os.SEEK_CUR)
    checked = Tally(IMPORTED, PRESENT, BAD)
    with rehearsal(db) as keep:
        batches = read_batches(descriptor, progress.update)
        await import_batches(batches, keep, checked, progress.tell)
    if checked[BAD]:
        tally.add(PRESENT, checked[PRESENT])
        tally.add(BAD, checked[BAD])
    else:
        os.lseek(descriptor, beginning, os.SEEK_SET)
        await _import(db, descriptor, tally, progress)


def _store(config: Path, refusal: str) -> AbstractAddressBookDB:
    """The store that a configuration names, not yet started.

    :raises StartError: it is in memory, or there is none
    """
    settings = load_settings(config).addr_db
    if not isinstance(settings.sql, SQLSettings):
        raise StartError(f'{config}: {refusal}')
    patient = msgspec.structs.replace(settings.sql, deadline=max(DEADLINE, settings.sql.deadline))
    return create_addressbook_db(msgspec.structs.replace(settings, sql=patient))


@asynccontextmanager
async def _started(db: AbstractAddressBookDB) -> AsyncGenerator[None, None]:
    await db.start()
    try:
        yield
    finally:
        await db.stop()


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    token = path.read_bytes().strip().decode('latin-1')
    if not _TOKEN.fullmatch(token):
        raise ConfigError(f'{path}: is not a bearer token')
    return token


def _carried_out(work: Callable[[], None], tally: Tally) -> int:
    """Does the work, says how that went, and gives the exit status."""
    try:
        work()
    except BrokenPipeError:
        return BROKEN_PIPE
    except (InterruptedBySignal, AddressBookError, OSError, sqlite3.Error) as error:
        _complain(error, f'; {tally}')
        return 128 + error.number if isinstance(error, InterruptedBySignal) else 2
    print(tally, file=sys.stderr)
    return 0


def _complain(error: Exception, addition: str = '') -> None:
    if isinstance(error, OSError) and error.strerror:
        reason = f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    else:
        reason = str(error)
    print(f'addrservice: {reason}{addition}', file=sys.stderr)


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Does work until SIGINT or SIGTERM; the second one ends the process at once.

    :raises InterruptedBySignal: it was not done to the end
    """
    task = asyncio.create_task(work)
    received: list[int] = []

    def on_signal(number: int) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    try:
        await task
    except asyncio.CancelledError:
        raise InterruptedBySignal(received[0]) from None
