"""More than the service can do: what is refused, what is not, and that it ends with its cause."""

import asyncio
import socket
import sqlite3
import time
import unittest

import msgspec

from addrservice.addressbook_db import InMemoryAddressBookDB, StoredEntry
from addrservice.config import SQLITE_DSN, Settings, SQLSettings
from tests.backends import postgresql, sqlite
from tests.postgresql import shared_server
from tests.proxy import Proxy
from tests.support import DEADLINE, make_settings
from tests.wire import SMALL, UNKNOWN_ID, Answer, Connection, WireTestCase, post_head, request

AT_ONCE = 0.5  # seconds: far less than anything that is waited for
ENTRY = f'/addressbook/{UNKNOWN_ID}'


class Held(InMemoryAddressBookDB):
    """A store that reads an entry when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.readers = 0

    async def read_entry(self, nickname: str) -> StoredEntry:
        self.readers += 1
        try:
            await self.gate.wait()
        finally:
            self.readers -= 1
        return await super().read_entry(nickname)


class OverloadTestCase(WireTestCase):
    """Requests that are held, and such as come in vain."""

    async def begin(self, data: bytes) -> Connection:
        """A connection that waits for an answer."""
        connection = await self.connect()
        await connection.send(data)
        return connection

    async def refused(self, data: bytes) -> Answer:
        """The answer to a request that is refused at once."""
        begin = time.monotonic()
        with self.logged() as logged:
            answer = await self.exchange(data)
        self.assertLess(time.monotonic() - begin, AT_ONCE)
        self.assertEqual([503], [line['status'] for line in logged.requests()])
        self.assert_error(answer, 503)
        self.assertEqual('1', answer.headers['Retry-After'])
        return answer


class InFlightTest(OverloadTestCase):
    """Two requests at once, and a store that holds them."""

    store: Held

    def make_settings(self) -> Settings:
        return make_settings(max_in_flight=2, body_timeout=0.5)

    def make_store(self) -> Held:
        return Held()

    async def hold(self) -> list[Connection]:
        """As many as may be in flight."""
        held = [await self.begin(request('GET', ENTRY)) for _ in range(2)]
        await self.until(lambda: self.store.readers == 2)
        self.addAsyncCleanup(self.let_go)
        return held

    async def let_go(self) -> None:
        """Lets the store go on, and waits until all that was in flight is done."""
        self.store.gate.set()
        await self.until(lambda: not self.in_flight())

    def in_flight(self) -> int:
        return self.server.requests_in_flight()

    async def test_the_third_is_refused_at_once(self) -> None:
        await self.hold()
        for method, path in (('GET', ENTRY), ('DELETE', ENTRY), ('GET', '/addressbook'),
                             ('GET', '/openapi.json')):
            answer = await self.refused(request(method, path))
            self.assertIn(b'There are too many requests at once', answer.body)
        self.assertEqual(2, self.store.readers)

    async def test_a_refused_request_leaves_its_connection_as_it_was_and_nothing_is_done(
        self
    ) -> None:
        await self.hold()
        connection = await self.connect()
        with self.logged():
            for _ in range(2):
                answer = await connection.exchange(request('POST', '/addressbook', body=SMALL))
                self.assert_error(answer, 503)
        await self.let_go()
        self.assertEqual(
            b'{}', (await connection.exchange(request('GET', '/addressbook'))).body)

    async def test_probes_are_answered_all_the_same(self) -> None:
        await self.hold()
        for path in ('/healthz', '/readiness'):
            self.assertEqual(200, (await self.exchange(request('GET', path))).status)

    async def test_what_costs_nothing_is_answered_as_ever(self) -> None:
        await self.hold()
        for data, status in ((request('OPTIONS', '/addressbook'), 204),
                             (request('PUT', '/addressbook'), 405),
                             (request('GET', '/nowhere'), 404)):
            self.assertEqual(status, (await self.exchange(data)).status)

    async def test_once_the_store_goes_on_all_are_served(self) -> None:
        held = await self.hold()
        await self.refused(request('GET', ENTRY))
        self.store.gate.set()
        for connection in held:
            self.assert_error(await connection.answer(), 404)
        self.assert_error(await self.exchange(request('GET', ENTRY)), 404)

    async def test_a_request_whose_client_is_gone_counts_until_its_work_is_done(self) -> None:
        for connection in await self.hold():
            connection.reset()
        await self.until_disconnected()
        await self.refused(request('GET', ENTRY))
        await self.let_go()
        self.assertEqual(404, (await self.exchange(request('GET', ENTRY))).status)

    async def test_no_way_for_a_request_to_end_leaves_a_trace_in_the_count(self) -> None:
        self.store.gate.set()
        for data in (
            request('HEAD', ENTRY), request('GET', '/nowhere'), request('PUT', '/addressbook'),
            request('BREW', '/addressbook'), request('POST', '/addressbook', body=b'{'),
            request('GET', '/addressbook?limit=x'), request('GET', ENTRY, 'Accept: text/html'),
            request('GET', '/addressbook/%ff'), post_head('Content-Length: 99999999'),
            post_head('Expect: 100-continue', 'Content-Length: 99999'),
            post_head('Content-Length: 10'), b'GET /addressbook HTTP/1.0\r\n\r\n',
            request('OPTIONS', '/addressbook'), request('GET', '/docs'), b'nonsense\r\n\r\n',
        ):
            with self.subTest(data):
                for _ in range(3):
                    await (await self.begin(data)).close()
                await self.until_disconnected()
                await self.until(lambda: not self.in_flight())
        self.store.gate.clear()
        await self.hold()

    async def test_a_body_that_does_not_come_counts_until_it_is_given_up(self) -> None:
        slow = [await self.begin(post_head('Content-Length: 10')) for _ in range(2)]
        await self.until(lambda: self.in_flight() == 2)
        await self.refused(request('GET', '/addressbook'))
        for connection in slow:
            self.assertTrue(await connection.at_end())
        self.assertEqual(200, (await self.exchange(request('GET', '/addressbook'))).status)


class NewClientsTest(WireTestCase):
    """Clients that come while many are there already."""

    async def test_they_do_not_wait_for_as_many_turns_as_there_are_of_them(self) -> None:
        """A turn of the event loop is long where many are busy."""
        for _ in range(80):
            await self.connect()
        await self.until(lambda: len(self.server.connections) == 80)
        for _ in range(20):
            new = socket.create_connection(('127.0.0.1', self.port), DEADLINE)
            self.addCleanup(new.close)
        turns = 0
        while len(self.server.connections) < 100:
            await asyncio.sleep(0)
            turns += 1
        self.assertLess(turns, 10)


class WaitForPostgreSQLTest(OverloadTestCase):
    """One connection to PostgreSQL, which has fallen silent, and one place to wait for it."""

    def make_settings(self) -> Settings:
        self.proxy = Proxy(shared_server().port)
        self.enterContext(self.proxy)
        store = postgresql(self, self.proxy.port, pool_size=1, max_waiting=1, deadline=5)
        return msgspec.structs.replace(make_settings(), addr_db=store)

    async def test_who_would_have_to_wait_behind_others_is_refused_at_once(self) -> None:
        path = await self.post({'name': 'Ada'})
        self.proxy.stall()
        waiting = [await self.begin(request('GET', path)) for _ in range(2)]
        await self.until(lambda: self.service.gauges()['store_connections_in_use']() == 1)
        await self.refused(request('GET', path))
        await self.refused(request('POST', '/addressbook', body=SMALL))
        self.assertEqual(200, (await self.exchange(request('GET', '/healthz'))).status)
        self.proxy.forward()
        for connection in waiting:
            self.assertEqual(200, (await connection.answer()).status)
        self.assertEqual(200, (await self.exchange(request('GET', path))).status)


class WaitForSQLiteTest(OverloadTestCase):
    """A SQLite file that somebody else writes to, and no place to wait for the one writer."""

    def make_settings(self) -> Settings:
        store = sqlite(self, pool_size=1, max_waiting=1, deadline=5)
        return msgspec.structs.replace(make_settings(), addr_db=store)

    def lock(self) -> sqlite3.Connection:
        """Somebody else who is about to write, until their connection is closed."""
        assert isinstance(self.settings.addr_db.sql, SQLSettings)
        found = SQLITE_DSN.fullmatch(self.settings.addr_db.sql.dsn)
        assert found is not None
        other = sqlite3.connect(found['path'], isolation_level=None)
        self.addCleanup(other.close)
        other.execute('BEGIN IMMEDIATE')
        return other

    async def test_who_would_have_to_wait_behind_others_is_refused_at_once(self) -> None:
        await self.post({'name': 'Ada'})
        other = self.lock()
        post = request('POST', '/addressbook', body=SMALL)
        waiting = [await self.begin(post) for _ in range(2)]
        await self.until(lambda: self.service.gauges()['store_connections_in_use']() == 1)
        await self.refused(post)
        self.assertEqual(200, (await self.exchange(request('GET', '/healthz'))).status)
        other.close()
        for connection in waiting:
            self.assertEqual(201, (await connection.answer()).status)
        self.assertEqual(201, (await self.exchange(post)).status)


if __name__ == '__main__':
    unittest.main()
