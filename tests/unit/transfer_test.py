"""Export and import: the format, hostile files, what becomes of each line, the command line."""

import asyncio
import io
import json
import os
import re
import resource
import stat
import tempfile
import threading
import time
import tracemalloc
import unittest
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import closing, redirect_stderr
from pathlib import Path
from typing import Any, Final
from unittest import mock

from addrservice import transfer
from addrservice.addressbook_db import AbstractAddressBookDB, InMemoryAddressBookDB, StoredEntry
from addrservice.addressbook_db.abstract import now
from addrservice.errors import StoreUnavailableError
from addrservice.transfer import retrying, streams
from addrservice.transfer.exporting import stored_lines
from addrservice.transfer.importing import (
    BAD, IMPORTED, MAX_NAMED, PRESENT, import_batches, into_store, rehearsal,
)
from addrservice.transfer.lines import (
    MAX_LINE, MAX_VERSION, BadLineError, Line, from_line, read_line, to_line,
)
from addrservice.transfer.progress import Progress
from addrservice.transfer.retrying import BusyError, persistently
from addrservice.transfer.tally import Tally
from tests.addressbook_db_contract import (
    HOSTILE_TEXTS, NUMBERS, entry_at, entry_named, largest_entry,
)
from tests.addressbook_db_transfer_contract import LONG_AGO, TransferContract, many, stored
from tests.backends import sqlite_store
from tests.support import write_config

SECRET: Final = 'Jane Roe'
ID: Final = '0' * 32


class InMemoryTransferTest(TransferContract, unittest.IsolatedAsyncioTestCase):
    """The contract, in memory."""

    async def make_store(self) -> AbstractAddressBookDB:
        return InMemoryAddressBookDB()


class SQLiteTransferTest(TransferContract, unittest.IsolatedAsyncioTestCase):
    """The contract, in a SQLite file."""

    async def make_store(self) -> AbstractAddressBookDB:
        return sqlite_store(self)


def line_of(**fields: Any) -> bytes:
    """A line that is good, but for what a test puts into it."""
    return json.dumps({'id': ID, 'entry': {'name': 'x'}, **fields}).encode()


class LineTest(unittest.TestCase):
    """The format."""

    def assert_bad(self, text: bytes, reason: str) -> None:
        with self.subTest(text=text[:80]):
            with self.assertRaisesRegex(BadLineError, reason) as caught:
                from_line(text)
            self.assertNotIn(SECRET, str(caught.exception))
            self.assertTrue(str(caught.exception).isprintable())
            self.assertLess(len(str(caught.exception)), 400)

    def test_a_line_has_the_id_the_version_the_origin_and_the_entry(self) -> None:
        entry = stored(ID, {'name': 'Zoë'}, 7, 'f' * 64)
        self.assertEqual(
            f'{{"id":"{ID}","version":7,"origin":"{"f" * 64}","entry":{{"name":"Zoë"}}}}\n',
            to_line(*entry).decode())
        self.assertEqual(f'{{"id":"{ID}","version":7,"entry":{{"name":"Zoë"}}}}\n',
                         to_line(*entry[:3]).decode())
        self.assertEqual(f'{{"id":"{ID}","entry":{{"name":"Zoë"}}}}\n',
                         to_line(*entry[:2]).decode())

    def test_whatever_can_be_stored_comes_back_from_its_line(self) -> None:
        """The largest entry too, if it is written as long as JSON allows for it."""
        for content in (*map(entry_named, filter(None, HOSTILE_TEXTS)), *map(entry_at, NUMBERS),
                        largest_entry(), json.loads(json.dumps(largest_entry()).replace(
                            json.dumps('\U0001f600')[1:-1], '\\u0001'))):
            for origin in (None, 'a' * 64):
                entry = stored(ID, content, MAX_VERSION, origin)
                line = to_line(*entry)
                self.assertEqual(1, line.count(b'\n'))
                self.assertEqual(entry, from_line(line))
                self.assertEqual(Line(3, entry), read_line(3, line))

    def test_without_a_version_an_entry_is_of_now(self) -> None:
        before = now()
        self.assertTrue(before <= from_line(line_of()).version <= now())

    def test_what_is_no_json_is_bad(self) -> None:
        for text in (b'', b'x', b'{', b'\xff\xfe', bytes(range(256)), b'\xef\xbb\xbf' + line_of(),
                     b'{"id": NaN}', b'{"id": 1e400}', b'[' * 100_000, line_of() + b'x',
                     line_of(id='\ud800'), f'["{SECRET}'.encode(), line_of() + line_of(),
                     line_of().decode().encode('utf-16')):
            self.assert_bad(text, '^[A-Za-z].*: column [0-9]+ .char [0-9]+.$')

    def test_what_is_no_object_is_bad(self) -> None:
        values: list[object] = [None, [], SECRET, 1, True]
        for value in values:
            self.assert_bad(json.dumps(value).encode(), '^must be an object$')

    def test_a_field_that_is_missing_is_named(self) -> None:
        self.assert_bad(b'{}', "^'id' is a required property; 'entry' is a required property$")
        self.assert_bad(b'{"entry":{"name":"x"}}', "^'id' is a required property$")
        self.assert_bad(f'{{"id":"{ID}"}}'.encode(), "^'entry' is a required property$")

    def test_a_field_that_nobody_knows_is_named(self) -> None:
        self.assert_bad(line_of(colour=SECRET), '^/colour is not a known property$')
        self.assert_bad(line_of(**{'\x1b[2J\n': 1}), r'^/\\x1b\[2J\\n is not a known property$')
        self.assert_bad(line_of(**{'x' * 500: 1}), '^/x{299} [.]{3}$')

    def test_an_id_is_as_the_service_makes_them(self) -> None:
        """With another one, the pages of the book would end there: no next link could have it."""
        for value in (None, 1, '', 'x', '0' * 31, '0' * 33, 'A' * 32, 'g' * 32, '٣' * 32,
                      ID + '\n', [ID], '../' + '0' * 29, SECRET):
            self.assert_bad(line_of(id=value), '^/id must be 32 hex digits in lower case$')

    def test_a_version_is_a_number_that_all_can_tell_from_its_neighbours(self) -> None:
        for value in (None, '1', 1.0, 0, -1, MAX_VERSION + 1, 2**64, True, [1]):
            self.assert_bad(line_of(version=value), '^/version must be a whole number from 1 to ')
        for value in (1, MAX_VERSION):
            self.assertEqual(value, from_line(line_of(version=value)).version)

    def test_an_origin_is_a_digest(self) -> None:
        for value in (None, 1, '', 'A' * 64, '0' * 63, '0' * 65, '0' * 64 + '\n'):
            self.assert_bad(line_of(origin=value), '^/origin must be 64 hex digits in lower case$')

    def test_an_entry_is_held_against_the_schema(self) -> None:
        self.assert_bad(line_of(entry={'name': ''}), '^/entry/name must not be empty$')
        self.assert_bad(line_of(entry=SECRET), '^/entry must be an object$')
        self.assert_bad(line_of(entry={'name': SECRET, 'emails': [{'kind': SECRET}]}),
                        '^/entry/emails/0/kind must be one of .*; /entry/emails/0 ')
        deep = b'{"name":' + b'[' * 500 + b']' * 500 + b'}'
        self.assert_bad(b'{"id":"%b","entry":%b}' % (ID.encode(), deep), '^/entry/name must be')

    def test_a_line_beyond_the_bound_is_bad(self) -> None:
        line = line_of()
        self.assertEqual(ID, from_line(line.ljust(MAX_LINE)).nickname)
        self.assert_bad(line.ljust(MAX_LINE + 1), f'^is longer than {MAX_LINE} bytes$')


class StreamsTest(unittest.IsolatedAsyncioTestCase):
    """Files and pipes."""

    async def asyncSetUp(self) -> None:
        # Else asyncio notes who began each step, which takes longer than the steps.
        asyncio.get_running_loop().set_debug(False)

    async def batches(self, text: bytes) -> list[list[Line]]:
        """What is read of a file, and just so of a pipe."""
        self.sizes: list[int] = []
        with tempfile.TemporaryFile() as file:
            file.write(text)
            file.seek(0)
            batches = [b async for b in streams.read_batches(file.fileno(), self.sizes.append)]
        self.assertAlmostEqual(len(text), sum(self.sizes), delta=4)  # the mark, the last end
        reader, writer = os.pipe()
        thread = threading.Thread(target=self._fill, args=(writer, text))
        thread.start()
        again = [b async for b in streams.read_batches(reader, lambda _: None)]
        thread.join()
        os.close(reader)
        self.assertEqual(repr(again), repr(batches))
        return batches

    def _fill(self, writer: int, text: bytes) -> None:
        with os.fdopen(writer, 'wb') as pipe:
            pipe.write(text)

    async def numbers(self, text: bytes) -> dict[int, bool]:
        """The number of each line that is not blank, and whether it is good."""
        return {number: isinstance(entry, StoredEntry)
                for batch in await self.batches(text) for number, entry in batch}

    async def test_lines_end_as_they_do_anywhere(self) -> None:
        """And a text may begin with a mark that it is in UTF-8, as Windows has it."""
        line = line_of(version=1)
        for text in (line, line + b'\n', line + b'\r\n', b'\xef\xbb\xbf' + line,
                     b'\xef\xbb\xbf' + line + b'\r\n'):
            with self.subTest(text=text):
                self.assertEqual({1: True}, await self.numbers(text))
        self.assertEqual({2: False}, await self.numbers(b'\n\xef\xbb\xbf' + line))

    async def test_lines_with_nothing_on_them_count_but_say_nothing(self) -> None:
        line = line_of(version=1)
        for text in (b'', b'\n', b'\r\n \t\n\n'):
            self.assertEqual({}, await self.numbers(text))
        self.assertEqual({2: True, 5: False, 6: True},
                         await self.numbers(b'\n%b\n \r\n\t\nx\n%b\n\n' % (line, line)))

    async def test_it_is_the_same_however_it_comes(self) -> None:
        text = b'\xef\xbb\xbf\r\n' + b'\n'.join(to_line(*entry) for entry in many(20)) + b'x'
        whole = await self.batches(text)
        self.assertEqual(list(range(2, 42, 2)) + [41], [number for number, _ in whole[0]])
        for size in (1, 7, 4096):
            with mock.patch.object(streams, 'CHUNK', size):
                self.assertEqual(repr(whole), repr(await self.batches(text)))

    async def test_a_line_without_an_end_takes_bounded_memory(self) -> None:
        """It is bad, and those after it are not."""
        text = line_of(version=1) + b'\n' + b'"' * 30_000_000 + b'\n' + line_of(version=1)
        with tempfile.TemporaryFile() as file:
            file.write(text)
            file.seek(0)
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            [batch] = [b async for b in streams.read_batches(file.fileno(), lambda _: None)]
            self.assertLess(tracemalloc.get_traced_memory()[1], 4 * MAX_LINE)
        self.assertEqual([1, 2, 3], [line.number for line in batch])
        self.assertEqual([False, True, False],
                         [isinstance(line.entry, BadLineError) for line in batch])

    async def test_a_batch_is_a_thousand_lines_good_or_bad_or_some_megabytes(self) -> None:
        text = (line_of(version=1) + b'\nx\n') * 1001
        self.assertEqual([1000, 1000, 2], [len(batch) for batch in await self.batches(text)])
        text = (line_of(version=1) + b' ' * 1_000_000 + b'\n') * 10
        self.assertEqual([9, 1], [len(batch) for batch in await self.batches(text)])

    async def test_all_that_is_written_arrives(self) -> None:
        """Though a pipe takes but a little at a time, and only as fast as it is read."""
        data = os.urandom(300_000)
        reader, writer = os.pipe()
        arrived: list[bytes] = []
        with os.fdopen(reader, 'rb') as pipe:
            thread = threading.Thread(target=lambda: arrived.append(pipe.read()))
            thread.start()
            await streams.write(writer, data)
            os.close(writer)
            thread.join()
        self.assertEqual([data], arrived)

    async def test_a_pipe_that_nobody_reads_holds_nothing_up(self) -> None:
        """The event loop goes on, so that a signal is heard."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        with self.assertRaises(TimeoutError):
            async with asyncio.timeout(0.02):
                await streams.write(writer, bytes(1_000_000))
        with self.assertRaises(TimeoutError):
            async with asyncio.timeout(0.02):
                empty, unused = os.pipe()
                self.addCleanup(os.close, empty)
                self.addCleanup(os.close, unused)
                await anext(streams.read_chunks(empty))

    async def test_what_can_be_read_but_once_is_copied(self) -> None:
        reader, writer = os.pipe()
        self._fill(writer, b'some lines')
        with await streams.spool(reader) as copy:
            self.assertEqual(b'some lines', copy.read())
        os.close(reader)
        with self.assertRaises(OSError), tempfile.NamedTemporaryFile() as file, \
                open(file.name, 'wb') as unreadable:
            await streams.spool(unreadable.fileno())


class WrittenTest(unittest.TestCase):
    """The file of an export."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.folder / 'book.jsonl'

    def test_it_appears_when_it_is_whole_and_only_its_owner_may_read_it(self) -> None:
        self.path.write_bytes(b'old')
        with streams.written(self.path) as descriptor:
            os.write(descriptor, b'new')
            self.assertEqual(b'old', self.path.read_bytes())
        self.assertEqual(b'new', self.path.read_bytes())
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))
        self.assertEqual([self.path], list(self.folder.iterdir()))

    def test_where_the_end_is_not_reached_what_was_there_stays(self) -> None:
        self.path.write_bytes(b'old')
        for error in (KeyboardInterrupt, OSError):
            with self.assertRaises(error), streams.written(self.path) as descriptor:
                os.write(descriptor, b'new')
                raise error
        self.assertEqual(b'old', self.path.read_bytes())
        self.assertEqual([self.path], list(self.folder.iterdir()))

    def test_a_link_stays_one(self) -> None:
        link = self.folder / 'link'
        link.symlink_to(self.path)
        with streams.written(link) as descriptor:
            os.write(descriptor, b'new')
        self.assertEqual((True, b'new'), (link.is_symlink(), self.path.read_bytes()))

    def test_what_is_no_file_is_written_to_and_stays_what_it_is(self) -> None:
        os.mkfifo(self.path)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        with streams.written(self.path) as descriptor:
            os.write(descriptor, b'new')
        self.assertEqual(b'new', os.read(reader, 10))
        self.assertTrue(self.path.is_fifo())
        with self.assertRaises(IsADirectoryError), streams.written(self.folder):
            self.fail('a folder was opened')

    def test_without_a_name_it_goes_to_the_standard_one(self) -> None:
        with streams.written(None) as descriptor:
            self.assertEqual(1, descriptor)


class Terminal(io.StringIO):
    """Where a person looks."""

    def isatty(self) -> bool:
        return True


class ProgressTest(unittest.TestCase):
    """What a person sees."""

    def test_on_a_terminal_there_is_a_bar_below_what_is_told(self) -> None:
        threads = threading.active_count()
        with redirect_stderr(Terminal()) as terminal:
            with closing(Progress('B', 2_000_000)) as progress:
                progress.update(1_000_000)
                progress.tell('line 7: is bad')
            progress.tell('the end')
        seen = terminal.getvalue()
        self.assertRegex(seen, r'(?s)\r *0%.*\rline 7: is bad\n\r *50%.*\nthe end\n$')
        self.assertRegex(seen, '1.00M/2.00M .*B/s')
        self.assertEqual(threads, threading.active_count())

    def test_elsewhere_there_is_none(self) -> None:
        with redirect_stderr(io.StringIO()) as errors, closing(Progress(' entries')) as progress:
            progress.update(7)
            progress.tell('line 7: is bad')
        self.assertEqual('line 7: is bad\n', errors.getvalue())


class Forgetful(InMemoryAddressBookDB):
    """A store from which somebody removes what is there before it can be compared."""

    async def read_entries(self, nicknames: Collection[str]) -> list[StoredEntry]:
        return []


class ImportTest(unittest.IsolatedAsyncioTestCase):
    """What becomes of each line; in a rehearsal for ``--strict`` just as in earnest."""

    def setUp(self) -> None:
        self.store: InMemoryAddressBookDB = InMemoryAddressBookDB()
        self.told: list[str] = []

    async def run_import(self, *batches: Sequence[bytes], strict: bool = False) -> list[int]:
        """How many lines were imported, there already and bad."""
        async def read() -> AsyncGenerator[list[Line], None]:
            number = 0
            for batch in batches:
                yield [read_line(number + index, text) for index, text in enumerate(batch, 1)]
                number += len(batch)

        tally = Tally(IMPORTED, PRESENT, BAD)
        self.told = []
        if strict:
            with rehearsal(self.store) as keep:
                await import_batches(read(), keep, tally, self.told.append)
        else:
            await import_batches(read(), into_store(self.store), tally, self.told.append)
        return [tally[IMPORTED], tally[PRESENT], tally[BAD]]

    async def assert_fates(
        self, imported: int, present: int, bad: dict[int, str], *batches: Sequence[bytes]
    ) -> None:
        before = await self.store.read_all_addresses()
        for strict in (True, False):
            with self.subTest(strict=strict):
                self.assertEqual(before, await self.store.read_all_addresses())
                self.assertEqual([imported, present, len(bad)],
                                 await self.run_import(*batches, strict=strict))
                self.assertEqual([f'line {number}: {why}' for number, why in bad.items()],
                                 self.told)

    async def test_good_lines_are_kept_and_bad_ones_are_named_in_their_order(self) -> None:
        entries = many(3)
        lines = [to_line(*entry) for entry in entries]
        await self.assert_fates(
            3, 0, {2: '/entry/name must not be empty', 5: 'must be an object'},
            [lines[0], line_of(entry={'name': ''}), lines[1]], [lines[2], b'[]'])
        self.assertEqual(entries, await self.store.read_page(None, 10))

    async def test_what_is_there_already_is_counted_so_and_stays(self) -> None:
        """Whatever its version: to run an import again is to go on with it."""
        entries = many(3)
        await self.store.create_entries(entries[:2])
        lines = [to_line(*entry._replace(version=9)) for entry in entries]
        await self.assert_fates(1, 2, {}, lines)
        self.assertEqual([LONG_AGO, LONG_AGO + 1, 9],
                         [entry.version for entry in await self.store.read_page(None, 10)])

    async def test_another_entry_with_that_id_is_bad_and_the_one_that_is_there_stays(self) -> None:
        await self.store.create_entries(many(1))
        await self.assert_fates(0, 0, {1: '/id is there with another content'}, [line_of()])
        self.assertEqual(many(1), await self.store.read_page(None, 10))

    async def test_the_same_id_twice_is_as_one_that_is_there(self) -> None:
        """In one batch as in two."""
        once, other = line_of(), line_of(entry={'name': 'y'})
        why = '/id is there with another content'
        for batches in ([[once, other, once, other]], [[once], [other], [once], [other]],
                        [[once, other], [once, other]]):
            self.store = InMemoryAddressBookDB()
            await self.assert_fates(1, 1, {2: why, 4: why}, *batches)
            self.assertEqual({ID: {'name': 'x'}}, await self.store.read_all_addresses())

    async def test_so_many_bad_lines_are_named_and_the_others_counted(self) -> None:
        await self.run_import([b'x'] * (MAX_NAMED + 5))
        self.assertEqual(MAX_NAMED + 1, len(self.told))
        self.assertRegex(self.told[-2], f'^line {MAX_NAMED}: ')
        self.assertEqual('further bad lines are counted, not named', self.told[-1])

    async def test_one_that_is_removed_before_it_is_compared_is_not_taken_for_imported(
        self
    ) -> None:
        self.store = Forgetful()
        await self.store.create_entries(many(1))
        self.assertEqual([0, 0, 1], await self.run_import([to_line(*many(1)[0])]))

    async def test_what_is_under_way_when_it_is_to_end_is_counted(self) -> None:
        tally = Tally(IMPORTED, PRESENT, BAD)
        begun, allowed = asyncio.Event(), asyncio.Event()

        async def keep(entries: Sequence[StoredEntry]) -> dict[str, str]:
            begun.set()
            await allowed.wait()
            return {}

        async def read() -> AsyncGenerator[list[Line], None]:
            yield [read_line(1, line_of())]

        task = asyncio.create_task(import_batches(read(), keep, tally, self.told.append))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        allowed.set()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.assertEqual(1, tally[IMPORTED])


class Shaky(InMemoryAddressBookDB):
    """A store that is out of reach now and then; it may have done what it was asked for."""

    asked = 0

    async def create_entries(self, entries: Sequence[StoredEntry]) -> set[str]:
        taken = await super().create_entries(entries)
        self._fail_at_first()
        return taken

    async def read_entries(self, nicknames: Collection[str]) -> list[StoredEntry]:
        self._fail_at_first()
        return await super().read_entries(nicknames)

    async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
        self._fail_at_first()
        return await super().read_page(after, limit)

    def _fail_at_first(self) -> None:
        self.asked += 1
        if self.asked % 2:
            raise StoreUnavailableError('not now')


class PatienceTest(unittest.IsolatedAsyncioTestCase):
    """A store that is out of reach for a moment."""

    def setUp(self) -> None:
        self.enterContext(mock.patch.object(retrying, 'PAUSE', 0.001))

    async def test_it_is_asked_again(self) -> None:
        """Nothing is lost, nothing is there twice, nothing is called bad."""
        store, tally = Shaky(), Tally(IMPORTED, PRESENT, BAD)

        async def read() -> AsyncGenerator[list[Line], None]:
            yield [Line(1, entry) for entry in many(700)]

        await import_batches(read(), into_store(store), tally, self.fail)
        self.assertEqual((700, 0), (tally[IMPORTED] + tally[PRESENT], tally[BAD]))
        lines = [line async for page in stored_lines(store) for line in page]
        self.assertEqual([to_line(*entry) for entry in many(700)], lines)

    async def assert_gives_up(self, error: StoreUnavailableError, seconds: float) -> None:
        async def fail() -> None:
            raise error

        began = time.monotonic()
        with self.assertRaises(StoreUnavailableError), \
                mock.patch.object(retrying, 'PATIENCE', 0.02):
            await persistently(fail)
        self.assertGreaterEqual(time.monotonic() - began, seconds)

    async def test_in_the_end_it_is_given_up(self) -> None:
        await self.assert_gives_up(StoreUnavailableError('gone'), 0.02)

    async def test_it_is_left_alone_for_as_long_as_it_wants(self) -> None:
        """And asked once more then, even where patience would be at its end."""
        await self.assert_gives_up(BusyError('busy', 0.05), 0.05)


class CommandTest(unittest.TestCase):
    """The command line, on SQLite files."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.config = self.make_config('one')
        self.file = self.folder / 'book.jsonl'

    def make_config(self, name: str) -> Path:
        """The configuration of a store of its own."""
        folder = self.folder / name
        folder.mkdir()
        return write_config(folder, **{'addr-db': {'sql': {'dsn': f'sqlite://{folder}/db'}}})

    def run_command(self, command: str, *arguments: object) -> tuple[int, list[str]]:
        """The exit status, and what it says."""
        with redirect_stderr(io.StringIO()) as errors:
            status = transfer.main(command, [str(argument) for argument in arguments])
        return status, errors.getvalue().splitlines()

    def assert_command(self, status: int, said: str, command: str, *arguments: object) -> None:
        """The status, and all that it says, as a pattern."""
        got, lines = self.run_command(command, *arguments)
        self.assertRegex('\n'.join(lines), f'^{said}$')
        self.assertEqual(status, got)

    def write(self, *lines: bytes) -> None:
        self.file.write_bytes(b''.join(lines))

    def test_what_was_exported_is_imported_as_it_was(self) -> None:
        lines = [to_line(*entry) for entry in many(1234)]
        self.write(*lines)
        summary = r' in [0-9]+[.][0-9] s \([0-9]+ per second\)'
        self.assert_command(0, '1234 imported, 0 there already, 0 bad' + summary,
                            'import', '-c', self.config, self.file)
        again = self.folder / 'again'
        self.assert_command(0, '1234 exported' + summary, 'export', '-c', self.config, again)
        self.assertEqual(b''.join(lines), again.read_bytes())
        self.assert_command(0, '0 imported, 1234 there already, 0 bad' + summary,
                            'import', '--config', self.config, self.file)

    def test_bad_lines_are_named_and_the_rest_is_kept(self) -> None:
        self.write(to_line(*many(1)[0]), b'\n', line_of(entry={'name': ''}), b'\n')
        self.assert_command(
            1, 'line 3: /entry/name must not be empty\n1 imported, 0 there already, 1 bad in .*',
            'import', '-c', self.config, self.file)

    def test_strictly_nothing_is_changed_if_any_line_is_bad(self) -> None:
        self.write(*(to_line(*entry) for entry in many(1)))
        self.run_command('import', '-c', self.config, self.file)
        self.write(*(to_line(*entry) for entry in many(3)), b'x')
        self.assert_command(
            1, 'line 4: .*\n0 imported, 1 there already, 1 bad in .*',
            'import', '-c', self.config, '--strict', self.file)
        self.assert_command(0, '1 exported in .*',
                            'export', '-c', self.config, self.folder / 'again')
        self.write(*(to_line(*entry) for entry in many(3)))
        self.assert_command(
            0, '2 imported, 1 there already, 0 bad in .*',
            'import', '-c', self.config, '--strict', self.file)

    def test_strictly_from_a_pipe_too(self) -> None:
        os.mkfifo(self.file)
        writing = threading.Thread(target=self.write, args=[to_line(*e) for e in many(3)])
        writing.start()
        self.assert_command(0, '3 imported, .*', 'import', '-c', self.config, '--strict', self.file)
        writing.join()

    def test_a_store_in_memory_is_refused_in_one_line(self) -> None:
        config = write_config(self.folder)
        self.assert_command(2, f'addrservice: {config}: .* --url http://HOST:PORT',
                            'export', '-c', config, self.file)
        self.assert_command(2, f'addrservice: {config}: the store is in memory, .*',
                            'import', '-c', config, self.file)
        self.assertFalse(self.file.exists())

    def test_what_cannot_be_done_is_told_in_one_line(self) -> None:
        nowhere = self.folder / 'none' / 'x'
        missing = f'addrservice: {re.escape(str(nowhere))}: No such file or directory'
        self.assert_command(2, missing, 'export', '-c', nowhere)
        self.assert_command(2, missing + '; 0 imported, .*', 'import', '-c', self.config, nowhere)
        self.assert_command(2, 'addrservice: .*/none: No such file or directory; 0 exported .*',
                            'export', '-c', self.config, nowhere)
        self.assert_command(2, f'addrservice: {self.folder}: Is a directory; .*',
                            'export', '-c', self.config, self.folder)
        self.assert_command(2, 'addrservice: --token-file is of use with --url only',
                            'export', '-c', self.config, '--token-file', nowhere)
        (self.folder / 'one' / 'db').write_bytes(b'no database' * 100)
        self.write(line_of())
        self.assert_command(2, 'addrservice: .*: file is not a database; 0 imported, .*',
                            'import', '-c', self.config, self.file)

    def test_a_full_disk_leaves_no_file_behind(self) -> None:
        self.write(*(to_line(*entry) for entry in many(2000)))
        self.run_command('import', '-c', self.config, self.file)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            result = self.run_command('export', '-c', self.config, self.folder / 'book')
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertEqual(2, result[0])
        self.assertRegex(result[1][0], '^addrservice: File too large; [0-9]+ exported in ')
        self.assertEqual({'one', 'book.jsonl'}, {path.name for path in self.folder.iterdir()})

    def test_a_token_that_cannot_be_one_is_refused_and_not_repeated(self) -> None:
        for token in (b'', SECRET.encode(), b'a\nb', b'\xff', b'=a'):
            self.file.write_bytes(token)
            self.assert_command(2, f'addrservice: {self.file}: is not a bearer token',
                                'export', '--url', 'http://127.0.0.1:1', '--token-file', self.file)

    def test_a_url_is_that_of_a_service(self) -> None:
        for url in ('', 'x', '127.0.0.1:8080', 'ftp://a', 'http://', 'http://a:x', 'http://a:0',
                    'http://a:70000', 'http://u@a', 'http://a/b', 'http://a?b', 'http://a#b',
                    'http://[', 'http://a//'):
            with self.subTest(url=url), self.assertRaises(SystemExit) as ended:
                self.run_command('export', '--url', url)
            self.assertEqual(2, ended.exception.code)

    def test_two_sources_are_one_too_many(self) -> None:
        with self.assertRaises(SystemExit) as ended:
            self.run_command('export', '-c', self.config, '--url', 'http://127.0.0.1:1')
        self.assertEqual(2, ended.exception.code)

    def test_ctrl_c_before_it_has_begun_ends_it_too(self) -> None:
        with mock.patch('addrservice.transfer.command.load_settings',
                        side_effect=KeyboardInterrupt):
            self.assert_command(130, '', 'export', '-c', self.config)


if __name__ == '__main__':
    unittest.main()
