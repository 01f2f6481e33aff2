"""The HTTP server's drain, step by step, in one event loop with the client's sockets."""

import asyncio
import socket
from unittest import mock

from tests.support import DEADLINE, HTTPTestCase

REQUEST = b'GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n'


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

    async def test_a_connection_is_not_quiet_when_a_request_waits_in_its_socket(self) -> None:
        client = self.connect()
        client.sendall(REQUEST)
        await asyncio.to_thread(client.recv, 1000)
        client.sendall(REQUEST)
        with mock.patch('addrservice.http_server.QUIET', -1):  # seconds: quiet as of now
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
        with mock.patch('addrservice.http_server.QUIET', DEADLINE):
            self.server._close_quiet_connections()
        client.sendall(REQUEST)
        self.assertIn(b'200 OK', await asyncio.to_thread(client.recv, 1000))

    async def test_no_new_connection_is_taken(self) -> None:
        await self.server.drain(DEADLINE)
        with self.assertRaises(ConnectionRefusedError):
            self.connect()
