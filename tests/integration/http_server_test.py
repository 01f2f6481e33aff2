"""The HTTP server's drain, step by step, in one event loop with the client's sockets."""

import asyncio
import contextlib
import functools
import socket
import struct
from unittest import mock

from addrservice.addressbook_db import InMemoryAddressBookDB
from addrservice.http_server.connection import HTTPToolsConnection
from tests.support import DEADLINE, HTTPTestCase

REQUEST = b'GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n'


class Gated(InMemoryAddressBookDB):
    """A store that finishes a write when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def _insert(
        self, nickname: str, document: bytes, name: str, origin: str | None = None
    ) -> int:
        self.begun.set()
        await self.gate.wait()
        return await super()._insert(nickname, document, name, origin)


class UnfinishedWriteTest(HTTPTestCase):
    """What becomes of a write that the store has not finished."""

    store: Gated

    def make_store(self) -> Gated:
        return Gated()

    async def begin(self) -> socket.socket:
        """A client whose POST has reached the store."""
        client = socket.create_connection(('127.0.0.1', self.port), DEADLINE)
        self.addCleanup(client.close)
        client.sendall(b'POST /addressbook HTTP/1.1\r\nHost: localhost\r\n'
                       b'Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{"name":"x"}')
        await asyncio.wait_for(self.store.begun.wait(), DEADLINE)
        return client

    async def test_a_drain_waits_for_it_even_if_its_client_is_gone(self) -> None:
        client = await self.begin()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))  # a reset
        client.close()
        drain = asyncio.create_task(self.server.drain(DEADLINE))
        while self.server.connections:
            await asyncio.sleep(0)
        self.assertFalse(drain.done())
        self.store.gate.set()
        self.assertEqual(0, await drain)
        self.assertEqual(1, len(await self.store.read_all_addresses()))

    async def test_at_the_deadline_it_is_ended_and_its_client_told(self) -> None:
        client = await self.begin()
        self.assertEqual(1, await self.server.drain(0))
        self.assertTrue(client.recv(1000).startswith(b'HTTP/1.1 503 '))
        self.assertEqual({}, await self.store.read_all_addresses())


class DrainTest(HTTPTestCase):
    """What becomes of each connection when the server stops."""

    async def answer(self, client: socket.socket) -> bytes:
        """All that comes until the server ends the connection."""
        reader, writer = await asyncio.open_connection(sock=client)
        try:
            return await asyncio.wait_for(reader.read(), DEADLINE)
        finally:
            writer.close()
            await writer.wait_closed()

    def connect(self) -> socket.socket:
        """A connection that the kernel has made and the server has not seen yet."""
        client = socket.create_connection(('127.0.0.1', self.port), DEADLINE)
        self.addCleanup(client.close)
        return client

    async def test_a_connection_that_waits_to_be_accepted_is_served(self) -> None:
        client = self.connect()
        client.sendall(REQUEST)
        self.assertEqual(0, await self.server.drain(DEADLINE))
        answer = await self.answer(client)
        self.assertTrue(answer.startswith(b'HTTP/1.1 200 OK'), answer)
        self.assertIn(b'Connection: close', answer)

    async def test_who_arrives_as_it_ends_does_not_keep_it_from_ending(self) -> None:
        clients = [self.connect() for _ in range(5)]
        self.assertEqual(0, await asyncio.wait_for(self.server.drain(0), DEADLINE))
        for client in clients:
            with contextlib.suppress(ConnectionError):
                self.assertEqual(b'', await self.answer(client))

    async def test_clients_that_keep_coming_do_not_keep_it_from_ending(self) -> None:
        first, second = self.connect(), self.connect()
        first.sendall(REQUEST)
        for listener in self.server._listeners:  # which event loops look at sooner or later
            self.server.loop.remove_reader(listener)
        with mock.patch('addrservice.http_server.abstract.BACKLOG', 1):
            self.assertEqual(0, await self.server.drain(DEADLINE))
        self.assertIn(b'200 OK', await self.answer(first))
        with self.assertRaises(ConnectionResetError):
            await self.answer(second)

    async def test_a_quiet_connection_is_ended_without_an_answer(self) -> None:
        client = self.connect()
        self.assertEqual(0, await self.server.drain(DEADLINE))
        self.assertEqual(b'', await self.answer(client))

    async def test_a_request_that_comes_while_draining_is_answered(self) -> None:
        client = self.connect()
        drain = asyncio.create_task(self.server.drain(DEADLINE))
        await asyncio.sleep(0)
        client.sendall(REQUEST)
        answer = await self.answer(client)
        self.assertTrue(answer.startswith(b'HTTP/1.1 200 OK'), answer)
        self.assertEqual(0, await drain)

    async def test_a_request_that_comes_in_the_turn_of_the_deadline_is_told_so(self) -> None:
        """Its handler has not begun then."""
        client = self.connect()
        while not self.server.connections:
            await asyncio.sleep(0)
        [connection] = self.server.connections
        assert isinstance(connection, HTTPToolsConnection)
        self.addCleanup(self.server.stop)
        come = functools.partial(connection.data_received, REQUEST)
        with mock.patch.object(self.server, 'stop', side_effect=come):  # the last before it
            self.assertEqual(1, await self.server.drain(0))
        answer = await self.answer(client)
        self.assertRegex(answer, b'^HTTP/1.1 (200|503) ')
        self.assertEqual(set(), self.server._running())

    async def test_a_connection_is_not_quiet_when_a_request_waits_in_its_socket(self) -> None:
        client = self.connect()
        client.sendall(REQUEST)
        await asyncio.to_thread(client.recv, 1000)
        client.sendall(REQUEST)
        with mock.patch('addrservice.http_server.abstract.QUIET', -1):  # seconds: quiet as of now
            self.server._close_quiet_connections()
            self.assertIn(b'200 OK', await asyncio.to_thread(client.recv, 1000))
            end = asyncio.create_task(self.answer(client))
            while not end.done():
                self.server._close_quiet_connections()
                await asyncio.sleep(0)
        self.assertEqual(b'', await end)

    async def test_a_connection_that_was_in_use_just_now_is_not_quiet(self) -> None:
        client = self.connect()
        client.sendall(REQUEST)
        await asyncio.to_thread(client.recv, 1000)
        with mock.patch('addrservice.http_server.abstract.QUIET', DEADLINE):
            self.server._close_quiet_connections()
        client.sendall(REQUEST)
        self.assertIn(b'200 OK', await asyncio.to_thread(client.recv, 1000))

    async def test_a_request_that_has_come_in_part_is_waited_for(self) -> None:
        client = self.connect()
        client.sendall(REQUEST[:10])
        drain = asyncio.create_task(self.server.drain(DEADLINE))
        nothing_in_sockets = mock.patch(
            'addrservice.http_server.abstract._is_ready', return_value=False)
        with mock.patch('addrservice.http_server.abstract.QUIET', -1), nothing_in_sockets:
            while not any(each.is_busy() for each in self.server.connections):
                await asyncio.sleep(0)
            self.server._close_quiet_connections()
        client.sendall(REQUEST[10:])
        self.assertIn(b'200 OK', await self.answer(client))
        self.assertEqual(0, await drain)

    async def test_no_new_connection_is_taken(self) -> None:
        await self.server.drain(DEADLINE)
        with self.assertRaises(ConnectionRefusedError):
            self.connect()
