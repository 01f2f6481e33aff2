"""The book as it is sent page by page: slow readers, and stores that fail half-way."""

import asyncio
import json
import socket
import unittest
from typing import Final

from addrservice.addressbook_db import PAGE_SIZE
from addrservice.config import Settings
from addrservice.errors import StoreUnavailableError
from tests.stores import Watched
from tests.support import JSON, make_settings, unsent
from tests.wire import SECRET, SMALL, Connection, Lines, WireTestCase, request

ENTRY: Final = {'name': 'Ada', 'addresses': [{
    'kind': 'home', 'streetName': 'x' * 250, 'pincode': 1, 'country': 'y' * 250,
}] * 8}


class StreamTestCase(WireTestCase):
    """A book of some pages, each larger than a connection holds for a client that does not read."""

    store: Watched
    number = 2 * PAGE_SIZE + PAGE_SIZE // 2

    def make_store(self) -> Watched:
        return Watched()

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.ids = [await self.store.create_address(ENTRY) for _ in range(self.number)]

    def unsent(self) -> int:
        """Bytes that the server holds for readers."""
        return sum(map(unsent, self.server.connections))

    async def open_listing(self) -> Connection:
        """A client that has asked for the book and reads nothing; its connection holds little."""
        for listener in self.server._listeners:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection = await self.connect(receive_buffer=4096)
        await connection.send(request('GET', '/addressbook', 'X-Request-ID: mine'))
        return connection


class StreamTest(StreamTestCase):
    """The answer that is made while it is sent, and what may happen meanwhile."""

    async def test_others_are_served_while_a_slow_reader_has_the_book_open(self) -> None:
        connection = await self.open_listing()
        await self.until(lambda: self.store.readers == 1)
        for path in ('/healthz', '/readiness', f'/addressbook/{self.ids[0]}'):
            self.assertEqual(200, (await self.fetch('GET', path)).code)
        self.assertEqual(201, (await self.fetch('POST', '/addressbook', SMALL, JSON)).code)
        self.assertEqual(1, self.store.readers)
        book = json.loads((await connection.answer()).body)
        self.assertLessEqual(set(self.ids), book.keys())
        self.assertEqual(0, self.store.readers)

    async def test_others_get_their_turn_after_each_page_for_a_fast_reader_too(self) -> None:
        """Neither the store nor the socket makes the handler wait here."""
        connection = await self.connect()
        await connection.send(request('GET', '/addressbook'))
        turns = set()
        while self.store.given < 3:
            await asyncio.sleep(0)
            turns.add(self.store.given)
        self.assertIn(2, turns)  # the first one is sent when the second is there
        self.assertEqual(200, (await connection.answer()).status)

    async def test_a_head_reads_one_page(self) -> None:
        self.assertEqual(200, (await self.fetch('HEAD', '/addressbook')).code)
        self.assertEqual((1, 0), (self.store.given, self.store.readers))

    async def test_the_pages_are_not_read_ahead_of_a_slow_reader(self) -> None:
        """What the server holds for a reader is a page, not the book."""
        await self.open_listing()
        await self.until(lambda: self.store.readers == 1)
        for _ in range(100):
            await asyncio.sleep(0.001)
        self.assertGreater(self.unsent(), 0)
        self.assertLess(self.unsent(), 1.1 * PAGE_SIZE * len(json.dumps(ENTRY)))

    async def test_a_client_that_goes_away_within_the_answer_is_logged_as_499(self) -> None:
        with self.logged() as logged:
            connection = await self.open_listing()
            await self.until(lambda: self.store.readers == 1)
            connection.reset()
            await self.until(lambda: self.store.readers == 0 and not self.server.connections)
        [record] = logged.records
        self.assertEqual((499, 'WARNING', 'mine'), tuple(
            vars(record)[key] for key in ('status', 'levelname', 'request_id')))

    async def assert_cut_off(self, failure: Exception) -> Lines:
        """Checks that an answer that failed half-way cannot be taken for a whole one."""
        self.store.fail(failure, after=2)
        with self.logged() as logged:
            connection = await self.connect()
            await connection.send(request('GET', '/addressbook', 'X-Request-ID: mine'))
            with self.assertRaises((asyncio.IncompleteReadError, ConnectionError)):
                await connection.answer()
            await self.until_disconnected()
            self.assertEqual(0, self.store.readers)
        self.assertEqual(200, (await self.fetch('GET', '/healthz')).code)
        return logged

    async def test_a_store_that_fails_before_anything_was_sent_gets_a_whole_error(self) -> None:
        for good in (0, 1):
            with self.subTest(good=good):
                self.store.fail(StoreUnavailableError('gone'), after=good)
                answer = await self.fetch('GET', '/addressbook')
                self.assert_error(answer, 503, 'Service Unavailable')
                self.assertEqual(0, self.store.readers)

    async def test_a_head_says_503_where_the_first_page_does(self) -> None:
        self.store.fail(StoreUnavailableError('gone'), after=0)
        self.assertEqual(503, (await self.fetch('HEAD', '/addressbook')).code)
        self.assertEqual(0, self.store.readers)

    async def test_a_store_that_fails_half_way_ends_the_connection_and_is_logged(self) -> None:
        logged = await self.assert_cut_off(StoreUnavailableError('gone'))
        [record] = logged.records
        self.assertEqual((503, 'ERROR', 'mine', 'gone'), tuple(
            vars(record)[key] for key in ('status', 'levelname', 'request_id', 'failure')))

    async def test_a_bug_half_way_ends_the_connection_and_is_logged(self) -> None:
        with self.assertLogs('tornado.application', 'ERROR') as caught:
            logged = await self.assert_cut_off(RuntimeError(SECRET))
        self.assertIn(f'RuntimeError: {SECRET}', caught.output[0])
        [line] = logged.requests()
        self.assertEqual((500, 'ERROR'), (line['status'], line['levelname']))


class ImpatientTestCase(StreamTestCase):
    """A server that waits so long for its readers, in seconds."""

    patience = 0.3

    def make_settings(self) -> Settings:
        return make_settings(idle_connection_timeout=self.patience)

    async def leave_one_page(self) -> None:
        """Makes a book of what is handed to a connection at once."""
        for nickname in self.ids[PAGE_SIZE:]:
            await self.store.delete_address(nickname)


class ImpatientTest(ImpatientTestCase):
    """A server with little patience, and clients that try it."""

    async def test_a_reader_that_does_not_read_the_book_is_cut_off(self) -> None:
        with self.logged() as logged:
            connection = await self.open_listing()
            await self.until(lambda: self.store.readers == 1)
            await self.until(lambda: not self.server.connections and self.store.readers == 0)
        [line] = logged.requests()
        self.assertEqual((499, 'mine'), (line['status'], line['request_id']))
        with self.assertRaises((asyncio.IncompleteReadError, ConnectionError)):
            await connection.answer()

    async def test_a_reader_that_does_not_read_the_end_of_an_answer_is_cut_off(self) -> None:
        await self.leave_one_page()
        connection = await self.open_listing()
        await self.until(self.unsent)
        await self.until_disconnected()
        with self.assertRaises((asyncio.IncompleteReadError, ConnectionError)):
            await connection.answer()

    async def test_a_connection_that_sends_nothing_is_closed(self) -> None:
        connection = await self.connect()
        self.assertTrue(await connection.at_end())


class LateReaderTest(ImpatientTestCase):
    """A server with some patience, and a client that needs it."""

    patience = 0.6

    async def test_a_reader_that_was_late_but_in_time_keeps_its_connection(self) -> None:
        """The timer of an answer ends with it."""
        await self.leave_one_page()
        connection = await self.open_listing()
        await self.until(self.unsent)
        self.assertEqual(PAGE_SIZE, len(json.loads((await connection.answer()).body)))
        end = asyncio.get_running_loop().time() + 1.5 * self.patience
        while asyncio.get_running_loop().time() < end:
            answer = await connection.exchange(request('GET', '/healthz'))
            self.assertEqual(200, answer.status)


if __name__ == '__main__':
    unittest.main()
