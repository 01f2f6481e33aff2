"""A service that knows two servers, and follows the primary from one to the other."""

import asyncio
import unittest
from functools import partial

from tests.conduct import Clients, ConductTestCase, InLoopTestCase, ProcessTestCase
from tests.postgresql import PostgreSQL, Standby, dsn_of
from tests.proxy import Proxy
from tests.support import wait_until


class OnFirst(ConductTestCase):
    """On the server of this module, which is the primary when a test begins."""

    first: PostgreSQL

    def setUp(self) -> None:
        self.database = self.first
        super().setUp()


def setUpModule() -> None:
    OnFirst.first = unittest.enterModuleContext(PostgreSQL())


class FailoverTestCase(OnFirst):
    """Two servers. The second is in step with the first, and is promoted when that one fails.

    :cvar wanted: the server that the service wants, as ``target_session_attrs`` has it
    """

    recovery = 2.0
    wanted = 'primary'

    def dsn(self) -> str:
        return dsn_of(self.first.port, self.second.port, role=self.role,
                      target_session_attrs=self.wanted)

    def setUp(self) -> None:
        self.second = self.enterContext(Standby(self.first))
        super().setUp()

    async def promote(self) -> None:
        await asyncio.to_thread(self.second.promote)
        self.database = self.second

    def repair(self) -> None:
        """Has the first server run again, and without a standby."""
        self.database = self.first
        super().repair()
        self.first.sql('ALTER SYSTEM RESET ALL; SELECT pg_reload_conf()')

    def assert_disconnected(self) -> None:
        for server in self.first, self.second:
            wait_until(lambda: server.connections(self.role) == 0)


class SilentPrimaryTest(FailoverTestCase, ProcessTestCase):
    """The primary falls silent, so that nobody says that it is no more."""

    async def test_what_was_acknowledged_is_on_the_other(self) -> None:
        await self.fill_pool()
        await self.outage(partial(asyncio.to_thread, self.first.freeze), self.promote)

    async def fill_pool(self) -> None:
        """Leaves the service with more connections than its one client needs from now on."""
        async with self.clients.at_work():
            await self.clients.until_each(0, is_success=True)
        self.assertGreater(self.first.connections(self.role), 2)
        self.clients = Clients(self.process.port, self.process.process.pid, count=1)


class DeadPrimaryTest(FailoverTestCase, InLoopTestCase):
    """The primary dies."""

    async def test_what_was_acknowledged_is_on_the_other(self) -> None:
        await self.outage(partial(asyncio.to_thread, self.first.kill), self.promote)


class DemotedPrimaryTest(FailoverTestCase, InLoopTestCase):
    """The primary is made read-only and goes on to answer."""

    wanted = 'read-write'

    async def demote(self) -> None:
        await asyncio.to_thread(
            self.first.sql, 'ALTER SYSTEM SET default_transaction_read_only = on;'
            'SELECT pg_reload_conf()')

    async def test_what_was_acknowledged_is_on_the_other(self) -> None:
        await self.outage(self.demote, self.promote)


class SilentHostTest(OnFirst, InLoopTestCase):
    """The first of the hosts takes connections and says nothing, for a while."""

    deadline = 1.0

    def setUp(self) -> None:
        super().setUp()
        self.silent = self.enterContext(Proxy(self.first.port))
        self.silent.stall()

    def dsn(self) -> str:
        return dsn_of(self.silent.port, self.first.port, role=self.role)

    async def test_every_request_is_served_and_a_late_connection_is_not_kept(self) -> None:
        async with self.clients.at_work():
            await self.clients.until_each(0, is_success=True, times=5)
        self.silent.forward()
        await self.until(lambda: self.silent.connections() == 0)
        await self.assert_good_conduct()
        answers = [*self.clients.seen, *self.clients.readiness]
        self.assertNotIn(503, {seen.status for seen in answers})


if __name__ == '__main__':
    unittest.main()
