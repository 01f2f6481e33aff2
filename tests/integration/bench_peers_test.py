"""The peers of the benchmarks that need no more packages than the tests, and what checks them."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import unittest
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import jsonschema
import jsonschema_rs
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import HTTPError, RequestHandler

from addrservice import ENTRY_SCHEMA
from addrservice.addressbook_db import statements
from bench import rightness
from bench.entries import encoded
from bench.peers import arithmetic, bare_tornado, serving, stores, tornado_tutorial
from bench.peers.tornado_tutorial import BaseHandler, BookHandler, EntryHandler
from bench.servers import SERVICE, Server, Setup
from tests.postgresql import ENVIRONMENT, dsn_of, new_role, shared_server
from tests.support import DEADLINE, ROOT, ServerProcess, wait_until

DOCUMENT: Final = encoded('small')
VALIDATOR: Final = jsonschema_rs.Draft7Validator(ENTRY_SCHEMA, validate_formats=False)


def run_floor(name: str, *arguments: str) -> dict[str, float]:
    """What a floor without HTTP prints."""
    done = subprocess.run(
        [sys.executable, '-m', f'bench.peers.{name}', '--seconds', '0.2', *arguments],
        cwd=ROOT, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True,
        timeout=6 * DEADLINE, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


class RightTest(unittest.TestCase):
    """Servers that do the work that they are timed for."""

    def check(self, name: str) -> None:
        with (tempfile.TemporaryDirectory() as folder,
              Server(name, Setup(), Path(folder)) as server):
            self.assertEqual([], rightness.check(server.url, server.log))

    def test_the_service_is_right(self) -> None:
        """It is held to what its peers are held to."""
        self.check(SERVICE)

    def test_the_style_of_tutorials_is_right(self) -> None:
        self.check('tornado_tutorial')


class FloorTest(unittest.TestCase):
    def test_the_bare_handler_answers_a_constant_of_the_usual_size(self) -> None:
        with (tempfile.TemporaryDirectory() as folder,
              Server('bare_tornado', Setup(), Path(folder)) as server):
            status, body = server.ask('GET', '/addressbook/x')
            self.assertEqual((200, 'name'), (status, *json.loads(body)))
            self.assertAlmostEqual(len(encoded('usual')), len(body), delta=50)
            self.assertEqual((201, b''), server.ask('POST', '/addressbook', encoded('usual')))

    def test_the_bare_protocol_answers_the_same_constant(self) -> None:
        """Though the body of a request comes with the head of the next one."""
        with (tempfile.TemporaryDirectory() as folder,
              Server('bare_uvloop', Setup(), Path(folder)) as server):
            status, body = server.ask('GET', '/addressbook/x')
            self.assertEqual((200, bare_tornado.BODY), (status, body))
            server.fill([encoded('usual')] * 50)
            self.assertEqual(['/addressbook/x'] * 50, server.paths.read_text().split())

    def test_sqlite_alone_counts_what_it_commits(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            result = run_floor('sqlite_alone', '--folder', folder, '--batch', '7')
            self.assertEqual([], os.listdir(folder))
        self.assertGreater(result['operations'], 0)
        self.assertEqual(0, result['operations'] % 7)
        self.assertAlmostEqual(
            result['operations'] / result['seconds'], result['operations_per_second'])

    def test_arithmetic_is_done_by_all_processes(self) -> None:
        with patch.object(arithmetic, 'sum_until', _eight_in_a_second):
            self.assertEqual({'operations_per_second': 12, 'cpus': 1.5}, arithmetic.measure(3, 2))
        self.assertGreater(arithmetic.measure(2, 0.1)['operations_per_second'], 0)

    def test_asyncpg_alone_counts_what_it_commits(self) -> None:
        role = new_role()
        dsn = dsn_of(shared_server().port, role=role)
        result = run_floor('asyncpg_alone', '--dsn', dsn, '--clients', '3', '--pool', '2')
        rows = shared_server().sql(f'SELECT count(*) FROM {role}.addresses')
        self.assertGreater(result['operations'], 0)
        self.assertEqual(result['operations'], int(rows))
        self.assertGreater(result['seconds'], result['cpu_seconds'])
        self.assertGreater(result['cpu_seconds'], 0)


class StoresTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().set_debug(False)  # it would complain of slow callbacks

    @asynccontextmanager
    async def opened(self, address: str) -> AsyncIterator[stores.Store]:
        store = stores.make_store(address)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    async def test_each_store_keeps_entries_in_the_order_of_their_keys(self) -> None:
        dsn = dsn_of(shared_server().port, role=new_role())
        with (tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, ENVIRONMENT)):
            for address in ('memory', f'sqlite://{folder}/addresses.db', dsn):
                with self.subTest(address=address):
                    async with self.opened(address) as store:
                        await self._use(store)

    async def _use(self, store: stores.Store) -> None:
        self.assertEqual(b'{}', await store.book(None))
        first, second = [await store.create(DOCUMENT, 'Ada') for _ in range(2)]
        self.assertTrue(await store.replace(second, b'{"name":"Bea"}', 'Bea'))
        self.assertEqual(b'{"name":"Bea"}', await store.read(second))
        self.assertEqual([(first, DOCUMENT)], await store.entries(1))
        self.assertEqual([first, second], list(json.loads(await store.book(None))))
        self.assertTrue(await store.delete(first))
        self.assertIsNone(await store.read(first))
        self.assertEqual((False, False), (
            await store.delete(first), await store.replace(first, DOCUMENT, 'Ada')))

    def test_the_tables_and_what_changes_them_are_those_of_the_service(self) -> None:
        """Else the databases would not do the same work."""
        table, index, *_ = statements.SCHEMA[0]
        self.assertEqual(f'{table}; {index}'.split(), stores.TABLES.replace(';', ' ;').split())
        for name in ('INSERT', 'UPDATE', 'DELETE'):
            with self.subTest(statement=name):
                self.assertEqual(getattr(statements, name), getattr(stores, name))


class ProcessesTest(unittest.TestCase):
    def test_several_processes_serve_one_port_and_end_with_the_first(self) -> None:
        server = ServerProcess('--processes', '3', program=('-m', 'bench.peers.tornado_tutorial'))
        self.addCleanup(server.kill)
        server.wait_for_port()
        workers = server.workers()
        self.assertEqual(3, len(workers))
        connection = server.connect()
        connection.request('GET', '/addressbook')
        self.assertEqual(b'{}', connection.getresponse().read())
        connection.close()
        self.assertEqual(0, server.stop())
        wait_until(lambda: not any(Path(f'/proc/{worker}').exists() for worker in workers))


def _eight_in_a_second(_: float) -> tuple[int, float]:
    return 8, 1.0


def _replies_with(body: str | dict[str, Any]) -> Callable[..., Any]:
    def reply(handler: RequestHandler, *_: object) -> None:
        handler.write(body)
    return reply


def _does_nothing(handler: RequestHandler, *_: object) -> None:
    handler.set_status(204)


def _keeps_all(handler: BaseHandler) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(handler.request.body)
    except ValueError:
        raise HTTPError(400) from None
    return entry


def _identifies_all_alike(handler: BaseHandler) -> None:
    handler.request_id = handler.request.headers.get('X-Request-ID', 'unknown')
    handler.set_header('X-Request-ID', handler.request_id)


def _forgets_ids(handler: BaseHandler) -> None:
    handler.request_id = handler.request.headers.get('X-Request-ID', '')
    handler.set_header('X-Request-ID', 'mine')


def _keeps_refused(handler: EntryHandler, key: str) -> None:
    handler.book[key] = {'name': 'Kept'}
    handler.book[key] = handler.read_entry()
    handler.set_status(204)


def _lists_backwards(handler: BookHandler) -> None:
    limit = int(handler.get_query_argument('limit', '1000'))
    handler.write({key: handler.book[key] for key in sorted(handler.book, reverse=True)[:limit]})


def _lists_all(handler: BookHandler) -> None:
    handler.write({key: handler.book[key] for key in sorted(handler.book)})


def _logs_twice(handler: RequestHandler) -> None:
    for _ in range(2):
        LOG_REQUEST(handler)


def _logs_no_status(handler: RequestHandler) -> None:
    assert isinstance(handler, BaseHandler)
    logging.getLogger('access').info(
        'request_id=%s method=%s path=%s milliseconds=1 remote=127.0.0.1',
        handler.request_id, handler.request.method, handler.request.path)


def _logs_less_than_no_time(handler: RequestHandler) -> None:
    with patch.object(handler.request, 'request_time', lambda: -1.0):
        LOG_REQUEST(handler)


LOG_REQUEST: Final = tornado_tutorial.log_request

# What a server does wrong -> where its code is to be replaced, by what; and what is said of it.
DEFECTS: Final[dict[str, tuple[object, str, Callable[..., Any], str]]] = {
    'another entry': (EntryHandler, 'get', _replies_with({'name': 'A'}), '200 with the JSON'),
    'no JSON': (EntryHandler, 'get', _replies_with('?'), '200 with the JSON'),
    'a PUT that is lost': (EntryHandler, 'put', _does_nothing, '200 with the JSON'),
    'a DELETE that is lost': (EntryHandler, 'delete', _does_nothing, 'error 404 in JSON'),
    'no id': (BookHandler, 'post', _replies_with(''), '201 with an id'),
    'no validation': (BaseHandler, 'read_entry', _keeps_all, 'an unknown kind is not refused'),
    'a refused PUT that is kept': (EntryHandler, 'put', _keeps_refused, '/addressbook: 200'),
    'errors in HTML': (BaseHandler, 'write_error', RequestHandler.write_error, 'error 404'),
    'a wrong order': (BookHandler, 'get', _lists_backwards, 'order of their ids'),
    'too long a page': (BookHandler, 'get', _lists_all, 'beginning of the book'),
    'no book': (BookHandler, 'get', _replies_with('{}'), 'two JSON objects expected'),
    'an empty book': (BookHandler, 'get', _replies_with({}), 'not all that was created'),
    'one id for all': (BaseHandler, 'set_default_headers', _identifies_all_alike, 'was made for'),
    'ids of its own': (BaseHandler, 'set_default_headers', _forgets_ids, 'is not in the answer'),
    'no log': (tornado_tutorial, 'log_request', lambda _: None, '0 lines in the log'),
    'two lines': (tornado_tutorial, 'log_request', _logs_twice, '2 lines in the log'),
    'no time': (
        tornado_tutorial, 'log_request', _logs_less_than_no_time, 'no milliseconds in the line'),
    'no status': (tornado_tutorial, 'log_request', _logs_no_status, 'no status in the line'),
}


class WrongTest(unittest.IsolatedAsyncioTestCase):
    """Servers that do less than they should."""

    async def asyncSetUp(self) -> None:
        # In debug mode each callback notes where it comes from, which takes half of all time.
        asyncio.get_running_loop().set_debug(False)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log = Path(folder.name, 'log')
        handler = logging.FileHandler(self.log)
        handler.setFormatter(logging.Formatter(serving.LOG_FORMAT))
        self.addCleanup(handler.close)
        logger = logging.getLogger('access')
        for change in (patch.object(logger, 'handlers', [handler]),
                       patch.object(logger, 'propagate', False),
                       patch.object(logger, 'level', logging.INFO),
                       patch.object(rightness, 'LAG', 0.1),
                       patch.object(rightness, 'PAGE', 3),  # so many entries are soon there
                       patch.object(jsonschema, 'validate', _validate_faster)):
            change.start()
            self.addCleanup(change.stop)

    async def check(self, defect: AbstractContextManager[object]) -> Sequence[str]:
        """What is said of a server with a defect."""
        with defect:
            server = HTTPServer(tornado_tutorial.make_app())
            sockets = bind_sockets(0, '127.0.0.1')
            server.add_sockets(sockets)
            url = f'http://127.0.0.1:{sockets[0].getsockname()[1]}'
            try:
                return await asyncio.to_thread(rightness.check, url, self.log)
            finally:
                server.stop()
                await server.close_all_connections()

    async def test_each_defect_is_found(self) -> None:
        self.assertEqual([], await self.check(nullcontext()))
        for name, (owner, attribute, wrong, said) in DEFECTS.items():
            with self.subTest(defect=name):
                lines = await self.check(patch.object(owner, attribute, wrong))
                self.assertTrue(any(said in line for line in lines), lines)

    async def test_a_server_that_does_not_answer_is_found(self) -> None:
        sockets = bind_sockets(0, '127.0.0.1')
        port = sockets[0].getsockname()[1]
        sockets[0].close()
        self.log.touch()
        [line] = rightness.check(f'http://127.0.0.1:{port}', self.log)
        self.assertIn('no answer', line)


def _validate_faster(entry: object, _: object) -> None:
    if not VALIDATOR.is_valid(entry):
        raise jsonschema.ValidationError('')


if __name__ == '__main__':
    unittest.main()
