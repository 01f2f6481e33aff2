"""Export and import between real stores, and what comes in between: crashes, signals, outages."""

import asyncio
import fcntl
import functools
import http.server
import io
import json
import os
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import unittest
from collections.abc import Sequence
from contextlib import aclosing, closing, redirect_stderr
from pathlib import Path
from typing import Final, NamedTuple
from unittest import mock
from urllib.parse import urlsplit

import msgspec

from addrservice import transfer
from addrservice.addressbook_db import (
    AbstractAddressBookDB, StoredEntry, create_addressbook_db,
)
from addrservice.config import StoreSettings
from addrservice.errors import StoreError, StoreMisconfiguredError, StoreUnavailableError
from addrservice.transfer import retrying
from addrservice.transfer.lines import to_line
from addrservice.transfer.remote import AddressBookClient
from tests.addressbook_db_contract import entry_named
from tests.addressbook_db_transfer_contract import TransferContract, many
from tests.backends import postgresql, postgresql_store, sqlite
from tests.certificates import Authority
from tests.postgresql import free_port, shared_server
from tests.proxy import Proxy
from tests.support import (
    DEADLINE, ROOT, HTTPTestCase, ServerProcess, running_server, wait_until, write_config,
)

PROGRAM: Final = ('-m', 'addrservice')


def setUpModule() -> None:
    shared_server()  # now, for to start it would hold up an event loop


class PostgreSQLTransferTest(TransferContract, unittest.IsolatedAsyncioTestCase):
    """The contract, in PostgreSQL."""

    async def make_store(self) -> AbstractAddressBookDB:
        return postgresql_store(self)


async def everything(settings: StoreSettings) -> list[StoredEntry]:
    """All that a store has."""
    store = create_addressbook_db(settings)
    await store.start()
    try:
        return [entry async for page in store.pages(1000) for entry in page]
    finally:
        await store.stop()


class TransferTestCase(unittest.TestCase):
    """A test with a folder, and configurations in it."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def make_config(self, settings: StoreSettings) -> Path:
        """The configuration file for a store."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return write_config(folder, **{'addr-db': msgspec.to_builtins(settings)})

    def write(self, entries: Sequence[StoredEntry]) -> Path:
        """A file of entries."""
        file = self.folder / 'book.jsonl'
        file.write_bytes(b''.join(to_line(*entry) for entry in entries))
        return file

    def make_pipe(self) -> Path:
        """A pipe with a name."""
        path = self.folder / 'pipe'
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return path

    def run_command(self, *arguments: object) -> tuple[int, str]:
        """The exit status, and what is said."""
        command, *others = map(str, arguments)
        with redirect_stderr(io.StringIO()) as errors:
            status = transfer.main(command, others)
        return status, errors.getvalue()

    def count(self, config: Path) -> int:
        """How many entries a store has."""
        _, said = self.run_command('export', '-c', config, self.folder / 'counted')
        return int(said.split()[0])

    def start(self, *arguments: object) -> ServerProcess:
        """The command as a process of its own."""
        process = ServerProcess(*map(str, arguments), program=PROGRAM)
        self.addCleanup(process.kill)
        return process


class MovingTest(HTTPTestCase):
    """From memory to PostgreSQL to SQLite, by the commands as a user types them."""

    async def run_shell(self, command: str) -> str:
        """What it says on standard error; a failure of any part fails the test."""
        addrservice = f'{sys.executable} -m addrservice'
        process = await asyncio.create_subprocess_exec(
            'bash', '-o', 'pipefail', '-c', command.replace('addrservice', addrservice),
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env={**os.environ, 'PYTHONPATH': str(ROOT)})
        _, errors = await process.communicate()
        self.assertEqual(0, process.returncode, errors)
        return errors.decode()

    async def test_entries_move_from_store_to_store_and_stay_what_they_are(self) -> None:
        """From memory without their versions, which HTTP does not tell of all; then with them."""
        await self.store.create_entries(many(2100))
        first, second = postgresql(self), sqlite(self)
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        configs = []
        for settings in (first, second):
            place = Path(tempfile.mkdtemp(dir=folder))
            configs.append(write_config(place, **{'addr-db': msgspec.to_builtins(settings)}))
        said = await self.run_shell(f'addrservice export --url http://127.0.0.1:{self.port}'
                                    f' | addrservice import -c {configs[0]}')
        self.assertIn('2100 exported', said)
        self.assertIn('2100 imported, 0 there already, 0 bad', said)
        moved = await everything(first)
        self.assertEqual([entry[:2] for entry in many(2100)], [entry[:2] for entry in moved])
        await self.run_shell(f'addrservice export -c {configs[0]} {folder}/book; '
                             f'addrservice import -c {configs[1]} --strict < {folder}/book')
        self.assertEqual(moved, await everything(second))


class InterruptionTest(TransferTestCase):
    """Crashes and signals."""

    def half_way(self, config: Path, entries: Sequence[StoredEntry]) -> tuple[ServerProcess, int]:
        """An import that has kept a thousand entries, and has read some of the next thousand.

        The file that it reads from is given too, for where it were closed the import would go on.
        """
        pipe = self.make_pipe()
        process = self.start('import', '-c', config, pipe)
        writer = os.open(pipe, os.O_WRONLY)
        text = memoryview(b''.join(to_line(*entry) for entry in entries[:1500]))
        while text:
            text = text[os.write(writer, text):]
        wait_until(lambda: self.count(config) == 1000)
        return process, writer

    def test_a_killed_import_is_run_again_and_all_is_there(self) -> None:
        entries = many(2500)
        for settings in (sqlite(self), postgresql(self)):
            with self.subTest(dsn=settings.sql):
                config = self.make_config(settings)
                process, writer = self.half_way(config, entries)
                process.kill()
                os.close(writer)
                status, said = self.run_command('import', '-c', config, self.write(entries))
                self.assertEqual(0, status)
                self.assertRegex(said, '^1500 imported, 1000 there already, 0 bad ')
                self.assertEqual(entries, asyncio.run(everything(settings)))

    def test_a_signal_ends_an_import_and_what_was_kept_stays(self) -> None:
        settings = sqlite(self)
        process, writer = self.half_way(self.make_config(settings), many(1500))
        self.assertEqual(130, process.stop(signal.SIGINT))
        os.close(writer)
        self.assertRegex(process.stderr, '^addrservice: interrupted by SIGINT; '
                                         '1000 imported, 0 there already, 0 bad in .*\n$')
        self.assertEqual(many(1000), asyncio.run(everything(settings)))

    def test_a_signal_ends_an_export_and_leaves_no_file(self) -> None:
        settings = sqlite(self)
        config = self.make_config(settings)
        self.run_command('import', '-c', config, self.write(many(2000)))
        pipe = self.make_pipe()
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        process = self.start('export', '-c', config, pipe)
        wait_until(lambda: _has_something(reader))
        self.assertEqual(143, process.stop())
        os.close(reader)
        self.assertRegex(process.stderr, '^addrservice: interrupted by SIGTERM; [0-9]+ exported in')

    def test_a_second_signal_ends_it_at_once(self) -> None:
        """Though the database has fallen silent in the middle of a transaction."""
        proxy = self.enterContext(Proxy(shared_server().port))
        config = self.make_config(postgresql(self, port=proxy.port))
        process, writer = self.half_way(config, many(1500))
        proxy.stall()
        os.write(writer, b'x\n' * 500)
        wait_until(lambda: not _has_something(writer))  # it has read all and waits for the answer
        process.process.send_signal(signal.SIGINT)
        self.assertIn(process.stop(), (130, 143))
        self.assertEqual('', process.stderr)
        os.close(writer)

    def test_a_reader_that_has_seen_enough_ends_an_export_quietly(self) -> None:
        config = self.make_config(sqlite(self))
        self.run_command('import', '-c', config, self.write(many(2000)))
        pipe = self.make_pipe()
        process = self.start('export', '-c', config, pipe)
        with pipe.open('rb') as reader:
            self.assertEqual(to_line(*many(1)[0]), reader.readline())
        self.assertEqual(128 + signal.SIGPIPE, process.wait())
        self.assertEqual('', process.stderr)


def _has_something(descriptor: int) -> bool:
    """Whether there is something in a pipe that is yet to be read."""
    answer = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    return bool(struct.unpack('i', answer)[0])


class OutageTest(TransferTestCase):
    """A database that comes and goes."""

    def test_lost_answers_lose_no_entry_and_make_none_bad(self) -> None:
        proxy = self.enterContext(Proxy(shared_server().port))
        settings = postgresql(self, port=proxy.port)
        config = self.make_config(settings)
        self.count(config)  # now there are tables
        proxy.lose_answers(every=3)
        self.enterContext(mock.patch.object(retrying, 'PAUSE', 0.01))
        entries = many(4500)
        status, said = self.run_command('import', '-c', config, self.write(entries))
        self.assertGreater(proxy.lost_answers, 0)
        self.assertEqual(0, status, said)
        self.assertRegex(said, '^[0-9]+ imported, [0-9]+ there already, 0 bad ')
        again = self.folder / 'again.jsonl'
        self.assertEqual(0, self.run_command('export', '-c', config, again)[0])
        self.assertEqual(self.write(entries).read_bytes(), again.read_bytes())

    def test_a_database_that_stays_out_of_reach_is_given_up_in_one_line(self) -> None:
        config = self.make_config(postgresql(self, port=free_port()))
        file = self.write(many(1))
        with mock.patch.object(retrying, 'PATIENCE', 0.05):
            for said in (self.run_command('import', '-c', config, file),
                         self.run_command('import', '--strict', '-c', config, file),
                         self.run_command('export', '-c', config)):
                self.assertEqual(2, said[0])
                self.assertRegex(said[1], r'^addrservice: .*[Cc]onnect.*; 0 \w+.* in .*\n$')


class Answer(NamedTuple):
    """What a service answers."""

    status: int = 200
    body: bytes = b'{}'
    headers: tuple[tuple[str, str], ...] = ()
    cut: int = 0  # bytes that never come
    never: bool = False  # whether none comes, for as long as it is waited for


class ScriptedService:
    """Answers as it is told to, one request after the other.

    ``requests`` are the path and the header fields of each.

    :param pair: of the certificate, where it speaks TLS
    """

    def __init__(self, *answers: Answer, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        service, script = self, iter(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'
            wbufsize = -1  # one packet an answer

            def do_GET(self) -> None:
                service.requests.append((self.path, dict(self.headers)))
                answer = next(script)
                if answer.never:
                    self.close_connection = self.rfile.read(1) == b''
                    return
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.send_header('Content-Length', str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[:len(answer.body) - answer.cut])
                self.close_connection = answer.cut > 0

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        scheme = 'http' if context is None else 'https'
        self.url = f'{scheme}://127.0.0.1:{self._server.server_port}'

    def __enter__(self) -> 'ScriptedService':
        self._thread = threading.Thread(
            target=functools.partial(self._server.serve_forever, poll_interval=0.01))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def book(*ids: str) -> bytes:
    """A page of a book."""
    return json.dumps({name: entry_named(name) for name in ids}).encode()


def lines(*ids: str) -> list[bytes]:
    """The lines of it."""
    return [to_line(name, json.dumps(entry_named(name), separators=(',', ':')).encode())
            for name in ids]


class AddressBookClientTest(unittest.IsolatedAsyncioTestCase):
    """Reading a book over HTTP."""

    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().set_debug(False)
        self.enterContext(mock.patch.object(retrying, 'PAUSE', 0.001))

    async def read(self, url: str, token: str | None = None) -> list[bytes]:
        """All lines."""
        with closing(AddressBookClient(urlsplit(url), token)) as client:
            async with aclosing(client.lines()) as pages:
                return [line async for page in pages for line in page]

    async def read_answers(self, *answers: Answer) -> list[bytes]:
        """All lines that these answers give; each of them is asked for."""
        with ScriptedService(*answers) as self.service:
            read = await self.read(self.service.url)
            self.assertEqual(len(answers), len(self.service.requests))
            return read

    async def test_it_goes_from_page_to_page_as_the_links_have_it(self) -> None:
        """Though a proxy writes them in another way."""
        links = ('</addressbook?limit=1000&after=a>; rel="next"',
                 '<http://elsewhere:1/addressbook?after=b>;rel=next',
                 '</addressbook?after=x>; rel="prev", </addressbook?after=c>; rel="next"')
        read = await self.read_answers(*(
            Answer(body=book(name), headers=(('link' if name == 'b' else 'Link', link),))
            for name, link in zip('abc', links)), Answer(body=book('d')))
        self.assertEqual(lines(*'abcd'), read)
        self.assertEqual(
            ['/addressbook?limit=1000', '/addressbook?limit=1000&after=a',
             '/addressbook?after=b', '/addressbook?after=c'],
            [path for path, _ in self.service.requests])

    async def test_an_answer_that_may_pass_is_asked_for_again(self) -> None:
        busy = (('Retry-After', '0'),)
        for answers in ([Answer(503), Answer(429, headers=busy), Answer(502)],
                        [Answer(503, headers=(('Retry-After', 'Tue, 01 Jan'),))],
                        [Answer(503, headers=(('Retry-After', '9' * 5000),))],
                        [Answer(body=book('a', 'b'), cut=9)]):
            with self.subTest(answers=answers):
                self.assertEqual(lines('a'), await self.read_answers(
                    *answers, Answer(body=book('a'))))

    async def test_a_service_that_falls_silent_is_asked_again(self) -> None:
        with mock.patch('addrservice.transfer.remote.TIMEOUT', 0.1):
            self.assertEqual(lines('a'), await self.read_answers(
                Answer(never=True), Answer(body=book('a'))))

    async def test_a_service_that_is_left_alone_for_as_long_as_it_wants(self) -> None:
        with mock.patch('addrservice.transfer.remote.MAX_PAUSE', 0.01):
            answers = [Answer(429, headers=(('Retry-After', '3600'),)), Answer(body=book('a'))]
            self.assertEqual(lines('a'), await self.read_answers(*answers))

    async def assert_given_up(self, error: type[StoreError], why: str, *answers: Answer) -> None:
        with self.subTest(answers=answers), self.assertRaisesRegex(error, why), \
                mock.patch.object(retrying, 'PATIENCE', 0):
            await self.read_answers(*answers)

    async def test_an_answer_that_stays_so_is_given_up(self) -> None:
        for status in (301, 400, 401, 403, 404, 500):
            await self.assert_given_up(
                StoreMisconfiguredError, f'^http://127.*:[0-9]+: {status} [A-Z]', Answer(status))
        for body in (b'', b'<html>', b'[]', b'null'):
            await self.assert_given_up(StoreError, 'is not an address book$', Answer(body=body))
        await self.assert_given_up(
            StoreUnavailableError, ': 503 Service Unavailable$', Answer(503))

    async def test_a_service_that_is_not_there_is_given_up(self) -> None:
        with self.assertRaisesRegex(StoreUnavailableError, ': Connection refused$'), \
                mock.patch.object(retrying, 'PATIENCE', 0):
            await self.read(f'http://127.0.0.1:{free_port()}')

    async def test_a_token_is_shown_and_nothing_is_without_one(self) -> None:
        await self.read_answers(Answer())
        self.assertNotIn('Authorization', self.service.requests[0][1])
        with ScriptedService(Answer()) as service:
            await self.read(service.url, 'abc')
        self.assertEqual('Bearer abc', service.requests[0][1]['Authorization'])

    async def test_over_tls_the_certificate_has_to_be_known(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        authority = Authority(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue('service'))
        with ScriptedService(Answer(body=book('a')), context=context) as service:
            with self.assertRaisesRegex(StoreMisconfiguredError, 'unable to get local issuer'):
                await self.read(service.url)
            with mock.patch.dict(os.environ, SSL_CERT_FILE=str(authority.certificate)):
                self.assertEqual(lines('a'), await self.read(service.url))

    async def test_to_end_it_is_not_to_wait_for_the_service(self) -> None:
        proxy = self.enterContext(Proxy(free_port()))
        proxy.stall()
        task = asyncio.create_task(self.read(f'http://127.0.0.1:{proxy.port}'))
        async with asyncio.timeout(DEADLINE / 2):
            while not proxy.connections():
                await asyncio.sleep(0.001)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            await asyncio.get_running_loop().shutdown_default_executor()


class FromAServiceTest(TransferTestCase):
    """The command line, from a running service."""

    def test_what_a_service_has_in_memory_is_exported(self) -> None:
        with running_server() as server, closing(server.connect()) as connection:
            connection.request('POST', '/addressbook', json.dumps(entry_named('x')),
                               {'Content-Type': 'application/json'})
            with connection.getresponse() as answer:
                name = answer.headers['Location'].rpartition('/')[2]
            file = self.folder / 'book.jsonl'
            token = self.folder / 'token'
            token.write_text('abc\n', encoding='ascii')
            for arguments in ([], ['--token-file', str(token)]):
                status, said = self.run_command(
                    'export', '--url', f'http://127.0.0.1:{server.port}/', file, *arguments)
                self.assertEqual(0, status, said)
                self.assertRegex(said, '^1 exported in')
                self.assertEqual(
                    to_line(name, json.dumps(entry_named('x'), separators=(',', ':')).encode()),
                    file.read_bytes())


if __name__ == '__main__':
    unittest.main()
