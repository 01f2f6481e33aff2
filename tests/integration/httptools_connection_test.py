"""Connections over httptools, where they are not like Tornado's inside."""

import asyncio
import gc
import json
import socket
import unittest
import weakref
from contextlib import suppress
from typing import Final
from unittest import mock

from addrservice.addressbook_db import PAGE_SIZE
from addrservice.base_handler import BaseRequestHandler
from addrservice.config import Settings
from addrservice.http_server.connection import HTTPToolsConnection
from addrservice.http_server.messages import PIECE
from addrservice.routing import Route
from tests.support import make_settings
from tests.wire import SMALL, Connection, WireTestCase, chunked, post_head, request

BURST: Final = 1000  # requests
ENTRY: Final = {'name': 'Ada', 'addresses': [{
    'kind': 'home', 'streetName': 'x' * 250, 'pincode': 1, 'country': 'y' * 250}] * 8}


class HTTPToolsTestCase(WireTestCase):
    """Looks into connections."""

    def open(self) -> HTTPToolsConnection:
        """The one connection that there is."""
        [connection] = self.server.connections
        assert isinstance(connection, HTTPToolsConnection)
        return connection

    async def answers_in_turn(self, client: Connection, number: int) -> None:
        """Checks that the answers come in the order in which was asked."""
        for place in range(number):
            answer = await client.answer()
            self.assertEqual(f'/addressbook/{place}', self.assert_error(answer, 404)['uri'])


class BurstTest(HTTPToolsTestCase):
    """Many requests that do not wait for each other's answers."""

    burst = [request('GET', f'/addressbook/{place}') for place in range(BURST)]

    async def test_requests_in_one_segment_are_answered_in_turn_and_not_read_ahead(self) -> None:
        client = await self.connect()
        await client.send(b''.join(self.burst))
        await self.until(lambda: self.server.connections and self.open()._backlog)
        read, paused = 0, 0
        while self.open()._backlog:
            read = max(read, len(self.open()._parser.messages))
            paused += not self.open()._transport.is_reading()
            await asyncio.sleep(0)
        self.assertLess(read, PIECE // len(self.burst[0]) + 1)
        self.assertGreater(paused, 0)
        await self.answers_in_turn(client, BURST)
        self.assertTrue(self.open()._transport.is_reading())

    async def test_requests_in_several_segments_are_answered_in_turn(self) -> None:
        data = b''.join(self.burst)
        for size in (len(data) // 7, 1000):
            client = await self.connect()
            for at in range(0, len(data), size):
                await client.send(data[at:at + size])
            await self.answers_in_turn(client, BURST)

    async def test_bodies_of_any_size_come_between(self) -> None:
        client = await self.connect()
        sizes = (1, PIECE, 3 * PIECE, 60_000)
        bodies = [json.dumps({'name': 'Ada', 'x' * size: 1}).encode() for size in sizes]
        await client.send(b''.join(
            post_head('Transfer-Encoding: chunked') + chunked(body, 1000)
            + request('POST', '/addressbook', body=body) + self.burst[0] for body in bodies))
        for status in (400, 400, 404) * len(bodies):
            self.assertEqual(status, (await client.answer()).status)

    async def test_a_body_over_the_limit_does_not_take_the_next_request_along(self) -> None:
        client = await self.connect()
        await client.send(request('POST', '/addressbook', body=bytes(100_000)) + self.burst[0])
        self.assert_error(await client.answer(), 413)
        await self.answers_in_turn(client, 1)


class UpgradeTest(HTTPToolsTestCase):
    """What nobody here speaks is ignored."""

    async def test_a_request_for_an_upgrade_is_served_and_so_is_what_follows(self) -> None:
        fields = 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AA'
        client = await self.connect()
        inner = request('DELETE', '/addressbook/x')
        await client.send(
            request('GET', '/healthz', *fields)
            + request('POST', '/addressbook', *fields, body=SMALL)
            + request('POST', '/addressbook', *fields, body=inner)
            + request('CONNECT', 'test:80', body=inner) + request('GET', '/addressbook'))
        statuses = [(await client.answer()).status for _ in range(4)]
        self.assertEqual([200, 201, 400, 404], statuses)
        self.assertEqual(1, len(json.loads((await client.answer()).body)))


class UnreadTest(HTTPToolsTestCase):
    """Clients that do not read."""

    def make_settings(self) -> Settings:
        return make_settings(idle_connection_timeout=2.0)

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        for _ in range(PAGE_SIZE):
            await self.store.create_address(ENTRY)
        for listener in self.server._listeners:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    async def test_no_request_is_begun_before_the_last_answer_is_on_its_way(self) -> None:
        client = await self.connect(receive_buffer=4096)
        await client.send(request('GET', '/addressbook') * 50)
        await self.until(lambda: self.server.connections and self.open()._paused)
        for _ in range(100):
            await asyncio.sleep(0)
        self.assertLess(self.open()._requests, 10)
        for _ in range(50):
            self.assertEqual(PAGE_SIZE, len(json.loads((await client.answer()).body)))

    async def test_who_reads_late_gets_all_of_the_last_answer(self) -> None:
        client = await self.connect(receive_buffer=4096)
        await client.send(request('GET', '/addressbook', 'Connection: close') * 2)
        await self.until(lambda: self.server.connections and self.open()._is_closing)
        self.assertTrue(self.open().has_input())
        self.assertEqual(PAGE_SIZE, len(json.loads((await client.answer()).body)))
        self.assertTrue(await client.at_end())

    async def test_who_never_reads_the_last_answer_is_cut_off(self) -> None:
        client = await self.connect(receive_buffer=4096)
        await client.send(request('GET', '/addressbook', 'Connection: close'))
        await self.until(lambda: self.server.connections)
        await self.until_disconnected()


class OddHandlerTest(HTTPToolsTestCase):
    """What becomes of a connection where there is a bug inside."""

    def route(self, handler: type[BaseRequestHandler]) -> None:
        arguments = {'service': self.service, 'limits': self.settings.service}
        self.application._paths['/odd'] = Route(handler, arguments)

    async def test_a_bug_before_the_handler_is_logged_once_and_ends_the_connection(self) -> None:
        client = await self.connect()
        with mock.patch.object(self.application, 'find_route', side_effect=RuntimeError('x')):
            with self.assertLogs('tornado.application', 'ERROR') as logged:
                await client.send(request('GET', '/healthz') * 2)
                self.assertTrue(await client.at_end())
        self.assertEqual(1, len(logged.output))
        self.assertEqual(200, (await self.exchange(request('GET', '/healthz'))).status)
        self.assertFalse(self.application.running)

    async def test_a_bug_that_takes_a_body_is_logged_as_500(self) -> None:
        with self.logged() as lines, self.assertLogs('tornado.application', 'ERROR'):
            with mock.patch.object(BaseRequestHandler, 'data_received', side_effect=RuntimeError):
                client = await self.connect()
                await client.send(request('POST', '/addressbook', body=SMALL))
                self.assertTrue(await client.at_end())
            await self.until_disconnected()
        self.assertEqual([500], [line['status'] for line in lines.requests()])
        self.assertFalse(self.application.running)

    async def test_a_length_that_is_wrong_ends_the_connection(self) -> None:
        for length in (1, 10):
            class Wrong(BaseRequestHandler):
                async def get(self) -> None:
                    self.set_header('Content-Length', str(length))
                    self.write(b'1234')
                    await self.flush()

            with self.subTest(length):
                self.route(Wrong)
                client = await self.connect()
                with self.assertLogs('tornado.application', 'ERROR') as logged:
                    await client.send(request('GET', '/odd') * 2)
                    await self.until(lambda: logged.output)
                    await self.until_disconnected()

    async def test_a_handler_that_gave_up_waiting_does_not_harm_the_next_one_to_wait(self) -> None:
        class Impatient(BaseRequestHandler):
            async def get(self) -> None:
                for _ in range(3):
                    self.write(bytes(8_000_000))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.01):
                            await self.flush()

        self.route(Impatient)
        client = await self.connect(receive_buffer=4096)
        await client.send(request('GET', '/odd'))
        await self.until(lambda: self.server.connections and self.open()._answered
                         and self.open()._paused)
        self.assertEqual(24_000_000, len((await client.answer()).body))
        self.assertEqual(200, (await client.exchange(request('GET', '/healthz'))).status)

    async def test_a_field_that_a_line_would_end_in_is_a_bug(self) -> None:
        class Splitting(BaseRequestHandler):
            def get(self) -> None:
                self._headers['X'] = 'a\r\nb'

        self.route(Splitting)
        client = await self.connect()
        with self.assertLogs('tornado.application', 'ERROR'):
            await client.send(request('GET', '/odd'))
            self.assertTrue(await client.at_end())

    async def test_what_comes_behind_the_end_is_not_read(self) -> None:
        """As it does with TLS, where the end takes a while."""
        client = await self.connect()
        await client.exchange(request('GET', '/healthz'))
        connection = self.open()
        connection.close()
        for data in (b'GET', request('GET', '/healthz') * 1000):
            connection.data_received(data)
            self.assertFalse(connection._parser.in_message or connection._backlog)

    async def test_a_pause_in_which_nobody_waits_does_no_harm(self) -> None:
        """uvloop may find out that a client does not read when all is written."""
        client = await self.connect()
        await client.exchange(request('GET', '/healthz'))
        self.open().pause_writing()
        self.open().resume_writing()
        self.assertEqual(200, (await client.exchange(request('GET', '/healthz'))).status)


class LimitTest(HTTPToolsTestCase):
    """The patience of the server, beyond that of the handlers."""

    async def test_chunks_count_as_they_are_on_the_wire(self) -> None:
        self.server.max_body_size = 1000
        for body in (b'1;' + b'x' * 2000 + b'\r\na\r\n', b'1\r\na\r\n' * 400):
            client = await self.connect()
            await client.send(post_head('Transfer-Encoding: chunked') + b'1\r\n \r\n')
            await self.until(lambda: self.application.running)
            await client.send(body)
            self.assert_malformed(await client.answer())
            await self.until_disconnected()

    async def test_a_length_beyond_patience_is_refused(self) -> None:
        self.server.max_body_size = 1000
        self.assert_malformed(await self.exchange(post_head('Content-Length: 1001')))

    async def test_a_head_in_tiny_pieces_has_the_same_limit(self) -> None:
        for size, status in ((16_000, 200), (17_000, 431)):
            client = await self.connect()
            data = request('GET', '/healthz', f'X: {"x" * size}')
            for at in range(0, len(data), 500):
                await client.send(data[at:at + 500])
                await asyncio.sleep(0)
            self.assertEqual(status, (await client.answer()).status)


class GoneTest(HTTPToolsTestCase):
    """Connections that came and went."""

    async def test_nothing_of_a_connection_is_left_to_the_garbage_collector(self) -> None:
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for data in (b'', b'GET /', request('GET', '/healthz'), request('GET', '/healthz') * 3,
                     post_head('Content-Length: 9') + b'x', b'BREW / HTTP/1.1\r\nHost: a\r\n\r\n',
                     b'\0\r\n\r\n', request('GET', '/addressbook', 'Connection: close'),
                     post_head('Transfer-Encoding: chunked') + b'9\r\nx'):
            with self.subTest(data):
                client = await self.connect()
                await self.until(lambda: self.server.connections)
                gone = weakref.ref(self.open())
                await client.send(data)
                for _ in range(20):
                    await asyncio.sleep(0)
                await client.close()
                await self.until_disconnected()
                await self.until(lambda: gone() is None)
        self.assertFalse(self.application.running)


if __name__ == '__main__':
    unittest.main()
