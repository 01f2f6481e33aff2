"""What clients and operators see while PostgreSQL fails: it is real, and so is what befalls it."""

import asyncio
import os
import socket
import tempfile
import time
import unittest
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Final
from unittest import mock

import asyncpg

from addrservice.addressbook_db import AbstractAddressBookDB, create_addressbook_db
from addrservice.config import SQLSettings, StoreSettings
from addrservice.errors import StoreUnavailableError
from tests.conduct import READINESS, InLoopTestCase
from tests.postgresql import (
    DATABASE, ENVIRONMENT, PASSWORD, SUPERUSER, SUPERUSER_PASSWORD, PostgreSQL, dsn_of, new_role,
)
from tests.proxy import Proxy
from tests.support import DEADLINE, JSON, ServerProcess, wait_until, write_config
from tests.wire import SECRET, SMALL

MAX_CONNECTIONS: Final = 20
PATIENT: Final = DEADLINE / 2  # seconds: a deadline that passes on no machine, however busy it is
OPERATIONS: Final = (
    ('GET', '/addressbook', None), ('POST', '/addressbook', SMALL), ('GET', '/addressbook/x', None),
    ('PUT', '/addressbook/x', SMALL), ('DELETE', '/addressbook/x', None),
)


class OnServer(unittest.TestCase):
    """On the server of this module, which each test leaves as it found it."""

    database: PostgreSQL

    async def restart(self) -> None:
        """Starts the server without a break in the service, which shares the test's loop."""
        self.database.launch()
        await asyncio.to_thread(self.database.wait_until_ready)


def setUpModule() -> None:
    OnServer.database = unittest.enterModuleContext(
        PostgreSQL(max_connections=str(MAX_CONNECTIONS), fsync='off'))


class InLoop(OnServer, InLoopTestCase):
    """Serves in the test's own loop."""

    async def superuser(self) -> asyncpg.Connection:
        """A connection of the superuser's, until the test ends."""
        connection = await asyncpg.connect(
            dsn_of(self.database.port, role=SUPERUSER), password=SUPERUSER_PASSWORD)
        self.addAsyncCleanup(connection.close)
        return connection

    @asynccontextmanager
    async def holding(self, statement: str) -> AsyncIterator[None]:
        """A transaction that keeps the locks which a statement takes."""
        connection = await self.superuser()
        async with connection.transaction():
            await connection.execute(statement)
            yield

    async def until_waiting(self, watcher: asyncpg.Connection, count: int) -> None:
        """Waits until so many statements of the service wait for a lock, as the server sees it."""
        async with asyncio.timeout(DEADLINE):
            while count != await watcher.fetchval(
                'SELECT count(*) FROM pg_stat_activity '
                "WHERE usename = $1 AND wait_event_type = 'Lock'", self.role
            ):
                pass


class OutageTest(InLoop):
    """The server falls silent, dies, or ends; and comes back."""

    async def test_a_frozen_server_is_missed_only_until_it_thaws(self) -> None:
        await self.outage(partial(asyncio.to_thread, self.database.freeze),
                          partial(asyncio.to_thread, self.database.thaw))

    async def test_a_killed_server_is_missed_only_until_it_is_back(self) -> None:
        await self.outage(partial(asyncio.to_thread, self.database.kill), self.restart)

    async def test_a_stopped_server_is_missed_only_until_it_is_back(self) -> None:
        await self.outage(partial(asyncio.to_thread, self.database.stop), self.restart)


class EndedConnectionsTest(InLoop):
    """The server goes on, and ends the connections that there are."""

    deadline = PATIENT

    async def test_connections_that_the_server_ends_are_replaced(self) -> None:
        async with self.clients.at_work():
            for _ in range(4):
                await self.clients.until_each(time.monotonic(), is_success=True)
                await self.end_connections()
            await self.clients.until_each(time.monotonic(), is_success=True)
        await self.assert_good_conduct()
        self.assertEqual({200}, {seen.status for seen in self.clients.seen if seen.method == 'GET'})
        self.assertEqual({200}, {seen.status for seen in self.clients.readiness})


class CrowdTest(InLoop):
    """Others have taken all connections that the server allows."""

    async def take_all_others(self) -> list[asyncpg.Connection]:
        """Makes connections of another role until there is none left."""
        dsn = dsn_of(self.database.port, role=new_role(self.database))
        taken: list[asyncpg.Connection] = []
        with self.assertRaises(asyncpg.TooManyConnectionsError):
            while len(taken) < MAX_CONNECTIONS:
                taken.append(await asyncpg.connect(dsn))
                self.addAsyncCleanup(taken[-1].close)
        return taken

    async def test_the_connections_that_it_has_go_on(self) -> None:
        crowd = await self.take_all_others()
        async with self.clients.at_work():
            await self.clients.until_some(status=503)
            await self.clients.until_some(status=201)
            for connection in crowd:
                connection.terminate()
            left = time.monotonic()
            await self.clients.until_each(left, is_success=True)
        self.assert_recovered(left)
        await self.assert_good_conduct()


class LockTest(InLoop):
    """Another transaction holds what a statement needs, for longer than the deadline."""

    deadline = 1
    pool_size = 2

    async def asyncSetUp(self) -> None:
        # On a busy machine the end of a statement may be confirmed late.
        self.enterContext(mock.patch(
            'addrservice.sql_connectors.postgresql.CONFIRMATION', DEADLINE))
        await super().asyncSetUp()
        self.free = await self.post({'name': 'Free'})
        self.held = await self.post({'name': 'Held'})
        self.watcher = await self.superuser()
        self.lock = (f'SELECT FROM {self.role}.addresses WHERE nickname = '
                     f"'{self.held.removeprefix('/addressbook/')}' FOR UPDATE")

    async def replace_held(self) -> int:
        return (await self.ask('PUT', self.held, b'{"name": "Late"}')).code

    async def pids(self) -> list[int]:
        """The connections of the service, as the server sees them."""
        return [pid for [pid] in await self.watcher.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'addrservice' "
            'AND usename = $1 ORDER BY pid', self.role)]

    async def test_what_needs_no_lock_goes_on(self) -> None:
        async with self.holding(self.lock):
            replacing = asyncio.create_task(self.replace_held())
            await self.until_waiting(self.watcher, 1)
            while not replacing.done():
                self.assertEqual(200, (await self.ask('GET', self.free)).code)
                self.assertEqual(204, (await self.ask('PUT', self.free, SMALL)).code)
            self.assertEqual(503, await replacing)

    async def test_a_statement_past_its_deadline_is_ended_and_its_connection_kept(self) -> None:
        async with self.holding(self.lock):
            replacing = [asyncio.create_task(self.replace_held()) for _ in range(2)]
            await self.until_waiting(self.watcher, 2)
            pids = await self.pids()
            reading = [asyncio.create_task(self.ask('GET', self.free)) for _ in range(4)]
            self.assertEqual([503, 503], await asyncio.gather(*replacing))
            await self.until_waiting(self.watcher, 0)
            self.assertEqual(200, (await self.ask('GET', self.free)).code)
            await asyncio.gather(*reading)
        self.assertEqual({'name': 'Held'}, await self.read(self.held))
        self.assertEqual(204, await self.replace_held())
        self.assertEqual(pids, await self.pids())
        self.assertEqual(2, len(pids))


class ProxyTestCase(InLoop):
    """On the way to the server there is a proxy that can misbehave."""

    def dsn(self) -> str:
        return dsn_of(self.proxy.port, role=self.role)

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.enterContext(Proxy(self.database.port))


class NetworkTest(ProxyTestCase):
    """The way to the server is cut off."""

    async def test_a_silent_host_is_missed_only_until_it_answers(self) -> None:
        await self.outage(partial(asyncio.to_thread, self.proxy.stall),
                          partial(asyncio.to_thread, self.proxy.forward), refusals=3)

    async def test_a_host_that_has_lost_its_connections_in_a_silence_gets_new_ones(self) -> None:
        async def reboot() -> None:
            await asyncio.to_thread(self.proxy.refuse)
            await asyncio.to_thread(self.proxy.forward)

        await self.outage(partial(asyncio.to_thread, self.proxy.stall), reboot)

    async def test_a_host_that_refuses_is_missed_only_until_it_takes_connections(self) -> None:
        await self.outage(partial(asyncio.to_thread, self.proxy.refuse),
                          partial(asyncio.to_thread, self.proxy.forward))


class DarkHostTest(InLoop):
    """The host takes connections and drops all that comes over them; later it serves."""

    connect_timeout = DEADLINE

    def dsn(self) -> str:
        return dsn_of(self.dark.getsockname()[1], role=self.role)

    def setUp(self) -> None:
        self.dark = self.enterContext(socket.create_server(('127.0.0.1', 0)))
        self.dark.setblocking(False)
        super().setUp()

    async def serve(self) -> None:
        """Has the port served; the connections that it has taken up to now stay as they are."""
        with suppress(BlockingIOError):
            while True:
                self.enterContext(self.dark.accept()[0])
        proxy = Proxy(self.database.port)
        proxy.port = self.dark.getsockname()[1]
        self.dark.close()
        self.enterContext(proxy)

    async def test_what_it_was_sent_before_does_not_delay_what_it_is_sent_now(self) -> None:
        async with self.clients.at_work():
            await self.clients.until_each(0, is_success=False)
            await self.serve()
            served = time.monotonic()
            await self.clients.until_some(status=204)
        self.assert_written(served)
        await self.assert_good_conduct()


class LostAnswerTest(ProxyTestCase):
    """The connection breaks before an answer has come, well before the deadline."""

    deadline = PATIENT

    async def test_a_write_without_an_answer_is_not_repeated(self) -> None:
        self.proxy.lose_answers()
        answer = await self.ask('POST', '/addressbook', SMALL)
        self.assertEqual((503, 1), (answer.code, self.proxy.lost_answers))
        self.proxy.forward()
        self.assertEqual([{'name': 'Ada'}], [*(await self.read('/addressbook')).values()])

    async def test_a_read_without_an_answer_is_repeated_once(self) -> None:
        self.proxy.lose_answers()
        self.assertEqual(503, (await self.ask('GET', '/addressbook')).code)
        self.assertEqual(2, self.proxy.lost_answers)

    async def test_a_read_that_is_cut_off_is_answered_all_the_same(self) -> None:
        path = await self.post({'name': 'Ada'})
        watcher = await self.superuser()
        async with self.holding(f'LOCK TABLE {self.role}.addresses'):
            reading = asyncio.create_task(self.ask('GET', path))
            await self.until_waiting(watcher, 1)
            self.proxy.cut()
        answer = await reading
        self.assertEqual((200, b'{"name":"Ada"}'), (answer.code, answer.body))


class StoreTest(InLoop):
    """Further stores beside the service, each with a role of its own."""

    def make_another(self, role: str) -> AbstractAddressBookDB:
        dsn = dsn_of(self.database.port, role=role)
        return create_addressbook_db(StoreSettings(sql=SQLSettings(dsn, DEADLINE, pool_size=2)))

    async def test_rights_to_the_entries_are_enough_where_there_are_tables(self) -> None:
        role = new_role(self.database)
        self.database.sql(
            f'ALTER ROLE {role} SET search_path = {self.role};'
            f'GRANT USAGE ON SCHEMA {self.role} TO {role};'
            f'GRANT SELECT, INSERT, UPDATE, DELETE ON {self.role}.addresses TO {role};'
            f'GRANT SELECT ON {self.role}.addresses_schema TO {role}')
        store = self.make_another(role)
        await store.start()
        nickname = await store.create_address({'name': 'Ada'})
        await store.update_address(nickname, {'name': 'Grace'})
        self.assertEqual({'name': 'Grace'}, await store.read_address(nickname))
        self.assertEqual({nickname: {'name': 'Grace'}}, await store.read_all_addresses())
        await store.delete_address(nickname)
        await store.ping()
        await store.stop()
        self.assertEqual([], self.database.logged_errors(role))

    async def test_the_password_may_be_in_a_passfile(self) -> None:
        role = new_role(self.database)
        with tempfile.NamedTemporaryFile('w', encoding='ascii') as passfile:
            passfile.write(f'127.0.0.1:{self.database.port}:*:{role}:{PASSWORD}\n')
            passfile.flush()
            with mock.patch.dict(os.environ, {'PGPASSFILE': passfile.name}):
                del os.environ['PGPASSWORD']
                store = self.make_another(role)
                await store.start()
                await store.ping()
                await store.stop()

    async def test_stores_that_start_at_once_share_one_set_of_tables(self) -> None:
        role = new_role(self.database)
        stores = [self.make_another(role) for _ in range(8)]
        await asyncio.gather(*[store.start() for store in stores])
        made = await asyncio.gather(*[store.create_address({'name': 'Ada'}) for store in stores])
        for store in stores:
            self.assertEqual(set(made), (await store.read_all_addresses()).keys())
        await asyncio.gather(*[store.stop() for store in stores])
        self.assertEqual([], self.database.logged_errors(role))

    async def test_a_stop_does_not_wait_for_a_server_that_is_silent(self) -> None:
        role = new_role(self.database)
        store = self.make_another(role)
        await store.start()
        await store.ping()
        tasks = asyncio.all_tasks()
        await asyncio.to_thread(self.database.freeze)
        reading = asyncio.create_task(store.read_all_addresses())
        await asyncio.sleep(0)  # so that it has begun
        with mock.patch('addrservice.sql_connectors.postgresql.FAREWELL', 0.2):
            async with asyncio.timeout(DEADLINE / 5):
                await store.stop()
                with self.assertRaises(StoreUnavailableError):
                    await reading
        self.assertEqual(tasks, asyncio.all_tasks())
        await asyncio.to_thread(self.database.thaw)
        await asyncio.to_thread(wait_until, lambda: self.database.connections(role) == 0)


class MisconfigurationTest(InLoop):
    """The server turns the service away, until an operator acts."""

    deadline = PATIENT

    async def check(
        self, complaint: str, breaking: str, mending: str, database: str = SUPERUSER
    ) -> None:
        """Checks what clients and operators are told between two statements, and after them."""
        with self.assertLogs('addrservice', 'INFO') as caught:
            await self.end_connections()
            self.database.sql(breaking, database)
            try:
                await self.check_refusals()
            finally:
                self.database.sql(mending, database)
            await self.until_ready(True)
        self.assertEqual([f'ERROR:addrservice:the store cannot be used: {complaint}',
                          'INFO:addrservice:the store can be used again'], caught.output)
        self.assertEqual({}, await self.read('/addressbook'))

    async def check_refusals(self) -> None:
        await self.until_ready(False)
        for method, path, body in OPERATIONS:
            answer = await self.fetch(method, path, body, JSON)
            error = self.assert_error(answer, 500, 'Internal Server Error')
            self.assertEqual({'method', 'uri', 'code', 'message', 'requestId'}, error.keys())
        self.assertEqual(200, (await self.fetch('GET', '/healthz')).code)
        await self.until_refused_again()

    async def until_ready(self, ready: bool) -> None:
        end = time.monotonic() + READINESS
        while (await self.fetch('GET', '/readiness')).code != (200 if ready else 503):
            self.assertLess(time.monotonic(), end)

    async def until_refused_again(self) -> None:
        """Asks for readiness until the server has turned the service away three times more."""
        end = time.monotonic() + DEADLINE
        enough = len(self.database.logged_errors(self.role)) + 3
        while len(self.database.logged_errors(self.role)) < enough:
            self.assertEqual(503, (await self.fetch('GET', '/readiness')).code)
            self.assertLess(time.monotonic(), end)

    async def test_a_wrong_password_is_told_once_until_it_is_right(self) -> None:
        await self.check(f'password authentication failed for user "{self.role}"',
                         f"ALTER ROLE {self.role} PASSWORD 'another'",
                         f"ALTER ROLE {self.role} PASSWORD '{PASSWORD}'")

    async def test_a_missing_database_is_told_once_until_it_is_there(self) -> None:
        await self.check(f'database "{DATABASE}" does not exist',
                         f'ALTER DATABASE {DATABASE} RENAME TO elsewhere',
                         f'ALTER DATABASE elsewhere RENAME TO {DATABASE}')

    async def test_a_missing_table_is_told_once_until_it_is_there(self) -> None:
        await self.check('relation "addresses" does not exist',
                         f'ALTER TABLE {self.role}.addresses RENAME TO elsewhere',
                         f'ALTER TABLE {self.role}.elsewhere RENAME TO addresses', DATABASE)

    async def test_a_missing_right_is_told_once_until_it_is_granted(self) -> None:
        await self.check('permission denied for table addresses',
                         f'REVOKE ALL ON {self.role}.addresses FROM {self.role}',
                         f'GRANT ALL ON {self.role}.addresses TO {self.role}', DATABASE)


class LateServerTest(ProxyTestCase):
    """The service has started before its server could be reached."""

    deadline = PATIENT

    def setUp(self) -> None:
        super().setUp()
        self.proxy.refuse()

    async def test_tables_of_a_newer_service_are_told_once_and_not_touched(self) -> None:
        self.database.sql(f'SET ROLE {self.role};'
                          f'CREATE TABLE {self.role}.addresses_schema AS SELECT 4 AS version')
        self.proxy.forward()
        self.addCleanup(self.proxy.refuse)  # as it was, so that no socket is left
        with (mock.patch('addrservice.addressbook_db.sql.PING_INTERVAL', 0),
              self.assertLogs('addrservice', 'INFO') as caught):
            for _ in range(3):
                self.assertEqual(503, (await self.fetch('GET', '/readiness')).code)
                self.assert_error(await self.fetch('GET', '/addressbook'), 500)
        [line] = caught.output
        self.assertRegex(line, '^ERROR:.*the tables are of version 4.*up to version 3$')
        self.assertEqual('', self.database.sql(f"SELECT to_regclass('{self.role}.addresses')"))


def get(process: ServerProcess, path: str) -> int:
    """The status of a GET on a connection of its own."""
    with closing(process.connect()) as connection:
        connection.request('GET', path)
        return connection.getresponse().status


def post(process: ServerProcess) -> int:
    """The status of a POST on a connection of its own."""
    with closing(process.connect()) as connection:
        connection.request('POST', '/addressbook', SMALL, JSON)
        return connection.getresponse().status


class StartTest(OnServer):
    """The service as a process that starts when not all is as it should be."""

    def setUp(self) -> None:
        self.enterContext(mock.patch.dict(os.environ, ENVIRONMENT))
        self.role = new_role(self.database)
        folder = self.enterContext(tempfile.TemporaryDirectory())
        sql = {'dsn': dsn_of(self.database.port, role=self.role)}
        self.config = write_config(Path(folder), **{'addr-db': {'sql': sql}})

    def start(self) -> ServerProcess:
        process = ServerProcess('--port', '0', '--config', str(self.config))
        self.addCleanup(process.kill)
        return process

    def test_it_starts_while_the_server_is_down_and_is_ready_when_that_is_up(self) -> None:
        self.database.stop()
        try:
            process = self.start()
            process.wait_for_port()
            self.assertEqual(200, get(process, '/healthz'))
            self.assertEqual(503, get(process, '/readiness'))
            self.assertEqual((503, 503), (get(process, '/addressbook'), post(process)))
        finally:
            self.database.start()
        wait_until(lambda: get(process, '/readiness') == 200, READINESS)
        self.assertEqual(201, post(process))
        self.assertEqual(0, process.stop())
        self.assertNotIn('Traceback', process.stderr)

    def test_a_wrong_password_is_told_in_one_line_without_it(self) -> None:
        with mock.patch.dict(os.environ, {'PGPASSWORD': SECRET}):
            process = self.start()
            process.wait_for_port()
            self.assertEqual(503, get(process, '/readiness'))
            self.assertEqual((500, 500), (get(process, '/addressbook'), post(process)))
            self.assertEqual(0, process.stop())
        lines = [line for line in process.stderr.splitlines() if 'path=' not in line]
        told = [line for line in lines if 'ERROR' in line or 'WARNING' in line]
        self.assertEqual(1, len(told), process.stderr)
        self.assertRegex(told[0], f'password authentication failed for user "{self.role}"$')
        self.assertNotIn('Traceback', process.stderr)
        self.assertNotIn(SECRET, process.stderr)

    def test_tables_of_a_newer_service_are_refused_in_one_line(self) -> None:
        self.database.sql(f'SET ROLE {self.role};'
                          f'CREATE TABLE {self.role}.addresses_schema AS SELECT 4 AS version')
        process = self.start()
        self.assertEqual((2, ''), (process.wait(), process.stdout))
        self.assertRegex(process.stderr, r'\A.*the tables are of version 4.*up to version 3\n\Z')

    def test_several_may_start_at_once(self) -> None:
        processes = [self.start() for _ in range(3)]
        for process in processes:
            process.wait_for_port()
            self.assertEqual((200, 201), (get(process, '/readiness'), post(process)))
        for process in processes:
            self.assertEqual(0, process.stop())
        self.assertEqual('3', self.database.sql(f'SELECT count(*) FROM {self.role}.addresses'))
        self.assertEqual([], self.database.logged_errors(self.role))


if __name__ == '__main__':
    unittest.main()
