"""Connections over httptools, where they are not like Tornado's inside."""

import asyncio
import gc
import json
import logging
import socket
import struct
import unittest
import weakref
from contextlib import suppress
from typing import Any, Final
from unittest import mock

from tornado.web import RequestHandler

from addrservice.addressbook_db import PAGE_SIZE
from addrservice.base_handler import BaseRequestHandler
from addrservice.config import Settings
from addrservice.http_server.abstract import is_readable, is_writable
from addrservice.http_server.connection import HTTPToolsConnection
from addrservice.http_server.messages import PIECE
from addrservice.routing import Route
from addrservice.tracing import CumulativeFunctionTimeProfiler, collecting
from tests.support import DEADLINE, make_settings, unsent
from tests.wire import CHUNKED, SMALL, Connection, WireTestCase, chunked, post_head, request

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

    def talk(self, first: bytes, receive_buffer: int | None = None) -> socket.socket:
        """A client that has sent something, and reads nothing unless it is told."""
        client = socket.socket()
        self.addCleanup(client.close)
        client.settimeout(DEADLINE)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(('127.0.0.1', self.port))
        client.sendall(first)
        return client

    def rest(self, client: socket.socket) -> bytes:
        """All that comes until the server ends the connection."""
        return b''.join(iter(lambda: client.recv(100_000), b''))

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
        await self.until(lambda: self.server.connections and self.open().is_full)
        for _ in range(100):
            await asyncio.sleep(0)
        self.assertLess(self.open()._requests, 10)
        for _ in range(50):
            self.assertEqual(PAGE_SIZE, len(json.loads((await client.answer()).body)))

    async def test_who_reads_late_gets_all_of_the_last_answer(self) -> None:
        client = await self.connect(receive_buffer=4096)
        await client.send(request('GET', '/addressbook', 'Connection: close') * 2)
        await self.until(lambda: self.server.connections and self.open().is_ending)
        self.assertTrue(self.open().is_busy())
        self.assertEqual(PAGE_SIZE, len(json.loads((await client.answer()).body)))
        self.assertTrue(await client.at_end())

    async def test_who_never_reads_the_last_answer_is_cut_off(self) -> None:
        client = await self.connect(receive_buffer=4096)
        await client.send(request('GET', '/addressbook', 'Connection: close'))
        await self.until(lambda: self.server.connections)
        await self.until_disconnected()

    async def test_who_is_to_read_what_is_left_is_not_quiet(self) -> None:
        client = self.talk(request('GET', '/addressbook'), receive_buffer=4096)
        await self.until(lambda: self.server.connections and self.open().is_full)
        while self.open().is_full:
            await asyncio.to_thread(client.recv, 1000)
        await self.until(lambda: self.open().quiet_since)
        self.assertGreater(unsent(self.open()), 0)
        self.assertTrue(self.open().is_busy())
        client.shutdown(socket.SHUT_WR)
        text = await asyncio.to_thread(self.rest, client)
        self.assertTrue(text.endswith(b'}'))


class HalfClosedTest(HTTPToolsTestCase):
    """Clients that send no more, and wait for their answers.

    Tornado's connections answer some of them.
    """

    async def all_of(self, data: bytes) -> bytes:
        """What is answered to bytes and the end of them."""
        client = await self.connect()
        await client.send(data)
        client.end()
        answer = await client.rest()
        await self.until_disconnected()
        return answer

    async def test_whole_requests_are_answered(self) -> None:
        for number in (1, 3, BURST):
            answer = await self.all_of(request('GET', '/healthz') * number)
            self.assertEqual(number, answer.count(b'HTTP/1.1 200 OK'))
        answer = await self.all_of(request('POST', '/addressbook', body=SMALL) * 3)
        self.assertEqual(3, answer.count(b'HTTP/1.1 201 Created'))

    async def test_answers_of_any_size_come_whole(self) -> None:
        for _ in range(5 * PAGE_SIZE):
            await self.store.create_address(ENTRY)
        answer = await self.all_of(request('GET', '/addressbook') * 2)
        self.assertEqual(2 * 5 * PAGE_SIZE, answer.count(b'"Ada"'))
        self.assertTrue(answer.endswith(b'}\r\n0\r\n\r\n'))

    async def test_what_is_not_whole_is_given_up(self) -> None:
        whole = request('GET', '/healthz')
        part = request('POST', '/addressbook', body=SMALL)[:-1]
        for number in (0, 1, 3, BURST):
            with self.subTest(number), self.logged() as lines:
                answer = await self.all_of(whole * number + part)
                self.assertEqual(number, answer.count(b'HTTP/1.1 '))
                self.assertEqual([200] * number + [499], [
                    line['status'] for line in lines.requests()])
                self.assertEqual(number, (await self.all_of(whole * number + part[:9])).count(
                    b'HTTP/1.1 '))

    async def test_what_is_malformed_is_told_so(self) -> None:
        answer = await self.all_of(request('GET', '/healthz') + b'\0\r\n')
        self.assertIn(b'HTTP/1.1 400 ', answer)


class EndTest(HTTPToolsTestCase):
    """The ends of connections whose clients go on sending."""

    async def assert_never_reset(self, client: socket.socket) -> bytes:
        """Checks that all that a client sends is taken, and gives what it was told before."""
        answer = await asyncio.to_thread(self.rest, client)
        for _ in range(3):
            await asyncio.to_thread(client.sendall, request('POST', '/addressbook', body=SMALL))
        client.shutdown(socket.SHUT_WR)
        await self.until_disconnected()
        self.assertEqual({}, await self.store.read_all_addresses())
        return answer

    async def test_who_is_refused_may_send_what_it_likes(self) -> None:
        for data in (b'\0\r\n\r\n' + bytes(100_000), CHUNKED + b'x' * 100_000,
                     request('GET', '/healthz', 'Connection: close') * BURST):
            with self.subTest(data[:20]):
                answer = await self.assert_never_reset(self.talk(data))
                self.assertIn(b'Connection: close', answer)

    async def test_who_is_let_go_sees_an_end_and_no_reset(self) -> None:
        client = self.talk(request('GET', '/healthz'))
        await asyncio.to_thread(client.recv, 1000)
        await self.until(lambda: not self.open().is_busy())
        self.open().let_go()
        self.assertEqual(b'', await self.assert_never_reset(client))

    async def test_who_does_not_end_it_in_return_is_cut_off(self) -> None:
        with mock.patch('addrservice.http_server.connection.LINGER', 0.1):
            client = self.talk(b'\0\r\n\r\n')
            await asyncio.to_thread(self.rest, client)
            await self.until_disconnected()

    async def test_who_is_let_go_twice_is_cut_off(self) -> None:
        client = self.talk(b'')
        await self.until(lambda: self.server.connections and not self.open().is_busy())
        for _ in range(2):
            self.open().let_go()
        await self.until_disconnected()
        self.assertEqual(b'', await asyncio.to_thread(self.rest, client))

    async def test_a_client_that_resets_the_connection_as_it_ends_does_no_harm(self) -> None:
        client = self.talk(request('GET', '/healthz'))
        await asyncio.to_thread(client.recv, 1000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        client.close()
        self.open().let_go()
        await self.until_disconnected()

    async def test_a_connection_whose_socket_is_closed_already_is_not_busy(self) -> None:
        """As it may be with TLS, some turns before the connection is told so."""
        sock = socket.socket()
        sock.close()
        self.assertFalse(is_readable(sock) or is_writable(sock))


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
        await self.until(lambda: self.server.connections and self.open().is_answered
                         and self.open().is_full)
        self.assertEqual(24_000_000, len((await client.answer()).body))
        self.assertEqual(200, (await client.exchange(request('GET', '/healthz'))).status)

    async def test_no_request_is_begun_on_a_connection_that_has_ended(self) -> None:
        class Last(BaseRequestHandler):
            def get(self) -> None:
                self.finish()
                connection.abort()

        self.route(Last)
        client = await self.connect()
        await self.until(lambda: self.server.connections)
        connection = self.open()
        with self.logged() as lines:
            await client.send(request('GET', '/odd') * 2)
            await self.until_disconnected()
        self.assertEqual(1, len(lines.requests()))

    async def test_who_does_not_read_an_answer_that_nobody_waits_for_is_cut_off(self) -> None:
        class Careless(BaseRequestHandler):
            def get(self) -> None:
                self.write(bytes(8_000_000))

            def finish(self, chunk: Any = None) -> 'asyncio.Future[None]':
                return RequestHandler.finish(self, chunk)

        self.route(Careless)
        client = await self.connect(receive_buffer=4096)
        await self.until(lambda: self.server.connections)
        self.open()._patience = 0.2
        await client.send(request('GET', '/odd'))
        await self.until_disconnected()

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
        await self.check_that_all_goes()

    async def test_nothing_is_left_to_it_where_spans_know_errors(self) -> None:
        with collecting([CumulativeFunctionTimeProfiler()], logging.getLogger('test')):
            await self.check_that_all_goes()

    async def check_that_all_goes(self) -> None:
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for data in (b'', b'GET /', request('GET', '/healthz'), request('GET', '/healthz') * 3,
                     post_head('Content-Length: 9') + b'x', b'BREW / HTTP/1.1\r\nHost: a\r\n\r\n',
                     b'\0\r\n\r\n', request('GET', '/addressbook', 'Connection: close'),
                     post_head('Transfer-Encoding: chunked') + b'9\r\nx',
                     request('GET', '/addressbook/unknown'),
                     request('GET', '/addressbook', 'Accept: text/plain'),
                     request('POST', '/addressbook', body=b'{')):
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
