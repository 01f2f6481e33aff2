"""The service over TLS: who gets in, what becomes of those who do not, and the drain."""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import unittest
import warnings
from typing import Any, Final
from unittest import mock

from addrservice.addressbook_db import PAGE_SIZE
from addrservice.config import Settings, TLSSettings
from addrservice.tls import make_context
from tests.certificates import CLIENT, Authority, Pair, new_folder
from tests.support import DEADLINE, address, make_settings
from tests.wire import Connection, Lines, WireTestCase, request

HEALTH: Final = request('GET', '/healthz')


class TLSTestCase(WireTestCase):
    """The service with a certificate of an authority that clients trust."""

    asks_clients = False

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.authority = Authority(new_folder(self))
        self.pair = self.authority.issue('server')
        self.serve_with(self.authority if self.asks_clients else None)

    def serve_with(self, clients: Authority | None) -> None:
        """Has new connections ask for certificates of that authority."""
        self.server.tls = make_context(TLSSettings(
            str(self.pair.certificate), str(self.pair.key),
            client_ca=None if clients is None else str(clients.certificate)))

    def trust(self, pair: Pair | None = None) -> ssl.SSLContext:
        """What a client speaks that trusts the authority, and shows a certificate of its own."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        if pair is not None:
            context.load_cert_chain(*pair)
        return context

    async def secure(
        self, context: ssl.SSLContext | None = None, **options: Any
    ) -> tuple[Connection, ssl.SSLObject]:
        """A connection, and what is known of its encryption."""
        reader, writer = await asyncio.open_connection(
            '127.0.0.1', self.port, ssl=context or self.trust(), **options)
        connection = Connection(reader, writer)
        self.addAsyncCleanup(connection.close)
        return connection, writer.get_extra_info('ssl_object')

    async def health(self, context: ssl.SSLContext | None = None) -> int:
        """The status of a request on a connection of its own."""
        connection, _ = await self.secure(context)
        return (await connection.exchange(HEALTH)).status

    def assert_warned(self, logged: Lines, *reasons: str) -> None:
        """Checks that the log has just a line for each failed handshake."""
        warned = [record for record in logged.records if record.name != 'tornado.access']
        self.assertEqual(len(reasons), len(warned), logged.lines)
        for reason, record in zip(reasons, warned, strict=True):
            self.assertEqual('WARNING', record.levelname)
            self.assertIn(reason, record.getMessage())
            self.assertIsNone(record.exc_info)


class VersionTest(TLSTestCase):
    """What is spoken."""

    async def test_tls_1_2_and_1_3_are_spoken_and_keep_connections_alive(self) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.trust()
            context.maximum_version = version
            connection, encryption = await self.secure(context)
            for _ in range(3):
                self.assertEqual(200, (await connection.exchange(HEALTH)).status)
            self.assertEqual(version.name, str(encryption.version()).replace('.', '_'))
            self.assertIsNone(encryption.compression())

    async def test_tls_1_1_is_refused(self) -> None:
        """With asyncio's TLS the end of the connection comes before the reason is sent."""
        said: type[OSError] = ssl.SSLError
        if self.http_parser == 'httptools':
            said = ConnectionResetError
        context = self.trust()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers('DEFAULT@SECLEVEL=0')
        with self.logged() as logged:
            with self.assertRaises(said):
                await self.secure(context)
        self.assert_warned(logged, 'UNSUPPORTED_PROTOCOL')

    async def test_http_1_1_is_agreed_upon(self) -> None:
        for offered, agreed in ((['h2', 'http/1.1'], 'http/1.1'), (['h2'], None)):
            context = self.trust()
            context.set_alpn_protocols(offered)
            connection, encryption = await self.secure(context)
            self.assertEqual(agreed, encryption.selected_alpn_protocol())
            self.assertEqual(200, (await connection.exchange(HEALTH)).status)

    async def test_who_does_not_trust_the_authority_goes_away(self) -> None:
        with self.assertRaises(ssl.SSLCertVerificationError):
            await self.secure(ssl.create_default_context())
        await self.until_disconnected()


class MutualTest(TLSTestCase):
    """Clients have to show a certificate of the authority."""

    asks_clients = True

    async def test_who_has_one_gets_in(self) -> None:
        self.assertEqual(200, await self.health(self.trust(self.authority.issue('ann', CLIENT))))

    async def test_nobody_else_does(self) -> None:
        stranger = Authority(new_folder(self), 'stranger').issue('eve', CLIENT)
        for pair, reason in ((None, 'PEER_DID_NOT_RETURN_A_CERTIFICATE'),
                             (stranger, 'CERTIFICATE_VERIFY_FAILED'),
                             (self.authority.issue('another server'), 'unsuitable')):
            with self.subTest(reason), self.logged() as logged:
                with self.assertRaises((OSError, asyncio.IncompleteReadError)):
                    await self.health(self.trust(pair))
                await self.until_disconnected()
                self.assert_warned(logged, reason)
                self.assertEqual([], logged.requests())

    async def test_an_authority_that_is_withdrawn_is_not_believed_any_more(self) -> None:
        ann = self.trust(self.authority.issue('ann', CLIENT))
        connection, _ = await self.secure(ann)
        await connection.exchange(HEALTH)
        other = Authority(new_folder(self), 'other')
        self.serve_with(other)
        with self.logged():
            with self.assertRaises((OSError, asyncio.IncompleteReadError)):
                await self.health(ann)
        self.assertEqual(200, await self.health(self.trust(other.issue('bob', CLIENT))))
        self.assertEqual(200, (await connection.exchange(HEALTH)).status)


class HandshakeTest(TLSTestCase):
    """Clients that do not come as far as a request."""

    def make_settings(self) -> Settings:
        return make_settings(idle_connection_timeout=0.5)

    def raw(self) -> socket.socket:
        client = socket.create_connection(('127.0.0.1', self.port), DEADLINE)
        self.addCleanup(client.close)
        client.setblocking(False)
        return client

    async def until_ended(self, client: socket.socket) -> None:
        """Waits for the end of the connection."""
        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(ConnectionResetError):
                while await asyncio.get_running_loop().sock_recv(client, 1000):
                    pass

    async def test_plain_http_gets_no_answer(self) -> None:
        client = self.raw()
        client.send(HEALTH)
        with self.logged() as logged:
            await self.until_ended(client)
        self.assert_warned(logged, 'HTTP_REQUEST')

    async def test_nonsense_gets_no_answer(self) -> None:
        client = self.raw()
        client.send(b'\x00' * 100)
        with self.logged() as logged:
            await self.until_ended(client)
        self.assert_warned(logged, 'WRONG_VERSION_NUMBER')

    async def test_a_handshake_that_never_ends_is_ended_and_keeps_nobody_waiting(self) -> None:
        silent, halting = self.raw(), self.raw()
        halting.send(b'\x16\x03\x01\x02\x00\x01')  # the first bytes of a ClientHello
        with self.logged() as logged:
            await self.until(lambda: len(self.server.connections) == 2)
            self.assertEqual(200, await self.health())
            for client in (silent, halting):
                await self.until_ended(client)
        self.assert_warned(logged)

    async def test_who_is_gone_before_the_handshake_leaves_nothing_behind(self) -> None:
        for sent in (b'', b'x', HEALTH):
            with (self.subTest(sent), self.logged() as logged,
                  warnings.catch_warnings(record=True) as warned):
                warnings.simplefilter('always')
                client = self.raw()
                client.send(sent)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                client.close()
                self.assertEqual(200, await self.health())
                self.assert_warned(logged)
                self.assertEqual([], warned)  # such as of a socket that was not closed
        await self.until_disconnected()

    async def test_who_is_gone_in_the_handshake_leaves_nothing_behind(self) -> None:
        with self.logged() as logged:
            client = self.raw()
            client.send(b'\x16\x03\x01\x02\x00\x01')
            await self.until(lambda: len(self.server.connections) == 1)
            client.close()
            await self.until_disconnected()
        self.assert_warned(logged)

    async def test_a_handshake_that_is_not_over_at_the_end_is_ended(self) -> None:
        client = self.raw()
        await self.until(lambda: len(self.server.connections) == 1)
        with self.logged() as logged:
            self.assertEqual(0, await self.server.drain(0))
            await self.until_ended(client)
        self.assert_warned(logged)


class StreamTest(TLSTestCase):
    """What is larger than any buffer."""

    async def test_a_listing_of_many_pages_comes_whole(self) -> None:
        entry = address('namo')
        names = {await self.store.create_address(entry) for _ in range(5 * PAGE_SIZE)}
        connection, _ = await self.secure()
        answer = await connection.exchange(request('GET', '/addressbook'))
        self.assertEqual(dict.fromkeys(sorted(names), entry), json.loads(answer.body))
        self.assertEqual(200, (await connection.exchange(HEALTH)).status)

    async def test_an_answer_that_ends_with_its_connection_is_told_from_one_that_is_cut(
        self
    ) -> None:
        """Even where it has no length, as in HTTP/1.0."""
        for _ in range(PAGE_SIZE + 1):
            await self.store.create_address({'name': 'Ada'})

        def read() -> bytes:
            with socket.create_connection(('127.0.0.1', self.port), DEADLINE) as plain:
                with self.trust().wrap_socket(
                    plain, server_hostname='127.0.0.1', suppress_ragged_eofs=False
                ) as client:
                    client.sendall(b'GET /addressbook HTTP/1.0\r\n\r\n')
                    return b''.join(iter(lambda: client.recv(100_000), b''))

        head, _, body = (await asyncio.to_thread(read)).partition(b'\r\n\r\n')
        self.assertNotIn(b'Content-Length', head)
        self.assertEqual(PAGE_SIZE + 1, len(json.loads(body)))

    async def test_a_body_that_is_too_large_is_answered(self) -> None:
        connection, _ = await self.secure()
        body = b'"' + b'x' * 1_000_000 + b'"'
        self.assert_error(
            await connection.exchange(request('POST', '/addressbook', body=body)), 413)


class DrainTest(TLSTestCase):
    """The end of the service."""

    async def test_no_request_is_lost(self) -> None:
        counts = [0] * 5

        async def work(number: int) -> None:
            """Asks until told that it was the last time."""
            connection, _ = await self.secure()
            goes_on = True
            while goes_on:
                answer = await connection.exchange(HEALTH)
                self.assertEqual(200, answer.status)
                counts[number] += 1
                goes_on = answer.headers.get('Connection') != 'close'

        clients = [asyncio.create_task(work(number)) for number in range(5)]
        await self.until(lambda: all(counts))
        self.assertEqual(0, await self.server.drain(DEADLINE))
        await asyncio.gather(*clients)

    async def test_a_quiet_connection_is_ended(self) -> None:
        connection, _ = await self.secure()
        await connection.exchange(HEALTH)
        with mock.patch('addrservice.http_server.abstract.QUIET', 0):
            await self.server.drain(DEADLINE)
        self.assertTrue(await connection.at_end())

    async def test_who_does_not_begin_a_handshake_does_not_hold_it_up(self) -> None:
        client = socket.create_connection(('127.0.0.1', self.port), DEADLINE)
        self.addCleanup(client.close)
        await self.until(lambda: self.server.connections)
        self.assertEqual(0, await asyncio.wait_for(self.server.drain(DEADLINE), DEADLINE / 2))
        self.assertEqual(b'', await asyncio.to_thread(client.recv, 1))

    async def test_a_client_that_does_not_take_leave_does_not_hold_it_up(self) -> None:
        def ask() -> ssl.SSLSocket:
            plain = socket.create_connection(('127.0.0.1', self.port), DEADLINE)
            client = self.trust().wrap_socket(plain, server_hostname='127.0.0.1')
            client.sendall(request('GET', '/healthz', 'Connection: close'))
            client.recv(1000)
            return client

        client = await asyncio.to_thread(ask)
        self.addCleanup(client.close)
        self.assertEqual(0, await asyncio.wait_for(self.server.drain(DEADLINE), DEADLINE / 2))

    async def test_a_request_that_is_still_in_the_socket_is_waited_for(self) -> None:
        connection, _ = await self.secure()
        await connection.exchange(HEALTH)
        await connection.send(HEALTH)
        with mock.patch('addrservice.http_server.abstract.QUIET', -1):
            self.server._close_quiet_connections()  # before the event loop has read it
        self.assertEqual(200, (await connection.answer()).status)


if __name__ == '__main__':
    unittest.main()
