"""How the service behaves while its database fails: clients at work, and what they must see.

``InLoopTestCase`` serves in the test's own loop, with a short deadline; ``ProcessTestCase`` has the
service as a process, with its defaults.
"""

import asyncio
import functools
import gc
import itertools
import json
import os
import time
import unittest
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple
from unittest import mock

import msgspec
from tornado.httpclient import HTTPResponse

from addrservice.config import Settings, SQLSettings, StoreSettings
from tests.postgresql import ENVIRONMENT, PASSWORD, PostgreSQL, dsn_of, new_role
from tests.support import DEADLINE, JSON, make_settings, running_server, wait_until
from tests.wire import Answer, Connection, WireTestCase, request

# The bounds, in seconds.
TOLERANCE: Final = 0.1  # from the deadline to the answer
READINESS: Final = 2.0  # from a repair to "ready"
PATIENCE: Final = 0.5  # that readiness waits for the database

PAUSE: Final = 0.005  # seconds between two requests of a client

Ask = Callable[..., Awaitable[Answer]]
Step = Callable[[], Awaitable[object]]


class Seen(NamedTuple):
    """An answer as its client saw it.

    :param began: seconds of the monotonic clock
    :param ended: the same
    :param seconds: how long it took, without what the machine is to blame for
    """

    client: int
    method: str
    path: str
    status: int
    retry_after: str | None
    began: float
    ended: float
    seconds: float

    @property
    def is_success(self) -> bool:
        return self.status < 300


def processor_wait(*pids: int | str) -> float:
    """Seconds for which the main threads of processes, up to now, had to wait for a processor.

    The kernel counts them (Linux, proc_pid_schedstat(5)); elsewhere nobody does.
    """
    nanoseconds = 0
    for pid in pids:
        with suppress(FileNotFoundError):
            nanoseconds += int(Path(f'/proc/{pid}/schedstat').read_text('ascii').split()[1])
    return nanoseconds / 1e9


class Clients:
    """Clients at work: each makes, reads, replaces and deletes entries; two more ask the probes.

    An entry has one writer, who leaves it alone after a write whose outcome is unknown. So what may
    be stored is always known: ``possible`` has the names under each path, None for no entry.
    ``lies`` are answers that say something else.

    :param port: of the service
    :param pid: of the service, where it is not this process
    """

    def __init__(self, port: int, pid: int | str = 'self', count: int = 8) -> None:
        self.seen: list[Seen] = []
        self.health: list[Seen] = []
        self.readiness: list[Seen] = []
        self.possible: dict[str, set[str | None]] = {}
        self.lies: list[str] = []
        self._port = port
        self._pids = {'self', pid}
        self._count = count
        self._ended = False

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Has them work meanwhile."""
        tasks = [asyncio.create_task(self._work(number)) for number in range(self._count)]
        tasks.append(asyncio.create_task(self._probe('/healthz', self.health)))
        tasks.append(asyncio.create_task(self._probe('/readiness', self.readiness)))
        try:
            yield
        finally:
            self._ended = True
            await asyncio.gather(*tasks)

    async def until_some(self, status: int) -> None:
        """Waits until there was such an answer."""
        async with asyncio.timeout(DEADLINE):
            while status not in {seen.status for seen in self.seen}:
                await asyncio.sleep(PAUSE)

    async def until_each(self, since: float, is_success: bool, times: int = 1) -> None:
        """Waits until each client got so many such answers since then, and readiness one."""
        def such(answers: list[Seen]) -> Counter[int]:
            return Counter(seen.client for seen in answers
                           if seen.began >= since and seen.is_success == is_success)

        async with asyncio.timeout(DEADLINE):
            while not such(self.readiness) or any(
                such(self.seen)[client] < times for client in range(self._count)
            ):
                await asyncio.sleep(PAUSE)

    async def read_all(self) -> None:
        """Compares the whole book with what they know."""
        async with self._connection() as connection:
            answer = await connection.exchange(request('GET', '/addressbook'))
        book = json.loads(answer.body)
        for path in self.possible:
            self._claims(path, book.get(path.removeprefix('/addressbook/'), {}).get('name'))

    async def _probe(self, path: str, answers: list[Seen]) -> None:
        async with self._connection() as connection:
            while not self._ended:
                await self._ask(connection, -1, answers, 'GET', path)

    async def _work(self, number: int) -> None:
        async with self._connection() as connection:
            ask = functools.partial(self._ask, connection, number, self.seen)
            for count in itertools.count():
                if self._ended:
                    break
                await self._live(ask, f'{number}.{count}', dies=count % 2 == 1)

    async def _live(self, ask: Ask, name: str, dies: bool) -> None:
        """The life of one entry, as long as every outcome is known."""
        made = await ask('POST', '/addressbook', name)
        if made.status != 201:
            return
        path = made.headers['Location']
        self.possible[path] = {name}
        await self._read(ask, path)
        if await self._write(ask, 'PUT', path, f'{name} again'):
            await self._read(ask, path)
            if dies:
                await self._write(ask, 'DELETE', path, None)

    async def _read(self, ask: Ask, path: str) -> None:
        answer = await ask('GET', path)
        if answer.status in (200, 404):
            self._claims(path, json.loads(answer.body).get('name'))

    async def _write(self, ask: Ask, method: str, path: str, name: str | None) -> bool:
        """Whether it is known what became of it."""
        self.possible[path].add(name)
        if (await ask(method, path, name)).status != 204:
            return False
        self.possible[path] = {name}
        return True

    def _claims(self, path: str, name: str | None) -> None:
        if name not in self.possible[path]:
            self.lies.append(f'{path}: {name}, not one of {self.possible[path]}')

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = Connection(*await asyncio.open_connection('127.0.0.1', self._port))
        try:
            yield connection
        finally:
            await connection.close()

    async def _ask(self, connection: Connection, client: int, answers: list[Seen], method: str,
                   path: str, name: str | None = None) -> Answer:
        body = None if name is None else json.dumps({'name': name}).encode()
        waited, began = processor_wait(*self._pids), time.monotonic()
        answer = await connection.exchange(request(method, path, body=body))
        ended, waited = time.monotonic(), processor_wait(*self._pids) - waited
        answers.append(Seen(client, method, path, answer.status, answer.headers.get('Retry-After'),
                            began, ended, ended - began - waited))
        await asyncio.sleep(PAUSE)
        return answer


class ConductTestCase(unittest.IsolatedAsyncioTestCase):
    """The service on an empty schema of a server that fails, and what is asked of it then.

    :cvar database: the server, with which a test may do anything that ``repair`` can mend
    :cvar deadline: of the service, in seconds
    :cvar pool_size: connections that it may have
    :cvar recovery: seconds from a repair to the first success
    """

    database: PostgreSQL
    deadline: ClassVar[float]
    pool_size: ClassVar[int]
    recovery: ClassVar[float] = 1.0
    clients: Clients

    def dsn(self) -> str:
        """Where the service looks for its database."""
        return dsn_of(self.database.port, role=self.role)

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.dict(os.environ, ENVIRONMENT))
        self.role = new_role(self.database)
        self.addCleanup(self.assert_disconnected)
        self.addCleanup(self.repair)

    async def asyncSetUp(self) -> None:
        # What the loop would check costs more time than the service takes.
        asyncio.get_running_loop().set_debug(False)
        await super().asyncSetUp()

    def repair(self) -> None:
        """Has the server run again, however the test left it."""
        self.database.thaw()
        try:
            self.database.sql('SELECT 1')
        except RuntimeError:
            self.database.start()

    def assert_disconnected(self) -> None:
        """Checks that the service, which has stopped, has no connection left on the server."""
        wait_until(lambda: self.database.connections(self.role) == 0)

    async def end_connections(self) -> None:
        """Ends the connections of the service, all at once, as an operator may."""
        await asyncio.to_thread(
            self.database.sql, 'SELECT pg_terminate_backend(pid) FROM pg_stat_activity '
            f"WHERE usename = '{self.role}'")

    async def outage(self, begin: Step, mend: Step, refusals: int = 1) -> None:
        """Has the clients work before, during and after an outage, and checks what they saw.

        :param refusals: how many of them each client sees before the outage is mended
        """
        async with self.clients.at_work():
            await self.clients.until_each(0, is_success=True)
            await begin()
            begun = time.monotonic()
            await self.clients.until_each(begun, is_success=False, times=refusals)
            mending = time.monotonic()
            await mend()
            mended = time.monotonic()
            await self.clients.until_each(mended, is_success=True)
        self.assert_unready(begun, mending)
        self.assert_recovered(mended)
        await self.assert_good_conduct()

    def assert_unready(self, begun: float, mending: float) -> None:
        """Checks that readiness was 503 from when the outage was noticed until the repair."""
        meanwhile = [answer for answer in self.clients.readiness
                     if begun <= answer.began and answer.ended < mending]
        noticed = next(answer.began for answer in meanwhile if not answer.is_success)
        self.assertEqual({503}, {answer.status for answer in meanwhile if answer.began >= noticed})

    def assert_recovered(self, mended: float) -> None:
        """Checks that the first write, and readiness, succeeded soon after the repair."""
        self.assert_written(mended)
        self.assertLessEqual(_first_success(self.clients.readiness, mended) - mended, READINESS)

    def assert_written(self, mended: float) -> None:
        """Checks that the first write succeeded soon after the repair."""
        writes = [answer for answer in self.clients.seen if answer.method != 'GET']
        self.assertLessEqual(_first_success(writes, mended) - mended, self.recovery)

    async def assert_good_conduct(self) -> None:
        """Checks all that the clients saw, and that what was acknowledged is there."""
        clients = self.clients
        self.assertLessEqual({seen.status for seen in clients.seen}, {200, 201, 204, 503})
        self.assertLessEqual({seen.status for seen in clients.readiness}, {200, 503})
        self.assertEqual({200}, {seen.status for seen in clients.health})
        self.assertNotIn((503, None), {(seen.status, seen.retry_after)
                                       for seen in [*clients.seen, *clients.readiness]})
        for bound, seen in (
            (self.deadline, clients.seen), (0, clients.health), (PATIENCE, clients.readiness),
        ):
            self.assertEqual([], [one for one in seen if one.seconds > bound + TOLERANCE])
        await clients.read_all()
        self.assertEqual([], clients.lies)
        self.assertLessEqual(self.database.connections(self.role), self.pool_size)

    def assert_good_log(self, text: str) -> None:
        """Checks that a log tells no secret, and nothing that only who wrote the code can read."""
        self.assertEqual([], [line for line in text.splitlines() if any(
            word in line for word in ('Traceback', 'never retrieved', PASSWORD))])


def _first_success(answers: list[Seen], since: float) -> float:
    return min(answer.ended for answer in answers if answer.is_success and answer.ended >= since)


def open_files() -> int:
    """How many files and sockets this process has open."""
    return len(list(Path('/dev/fd').iterdir()))


class InLoopTestCase(ConductTestCase, WireTestCase):
    """Serves in the test's own loop. When the service has stopped, nothing of it may be left."""

    deadline = 0.3
    connect_timeout: ClassVar[float] = 1
    pool_size = 4

    def make_settings(self) -> Settings:
        sql = SQLSettings(self.dsn(), self.deadline, self.connect_timeout, self.pool_size)
        return msgspec.structs.replace(make_settings(), addr_db=StoreSettings(sql=sql))

    async def asyncSetUp(self) -> None:
        # As the service does when it starts. Else a full collection looks at all that the tests
        # before have left in this process, and stops the loop for up to half a second.
        gc.freeze()
        self.addCleanup(gc.unfreeze)
        self.addAsyncCleanup(self.assert_nothing_is_left, open_files())
        # Else each test would take seconds more, for readiness asks once a second.
        self.enterContext(mock.patch('addrservice.addressbook_db.sql.PING_INTERVAL', 0.1))
        self.log = self.enterContext(self.logged())
        await super().asyncSetUp()
        self.clients = Clients(self.port)

    async def post(self, entry: object) -> str:
        """As it is, but patient: a busy machine may be too slow to make the tables in time."""
        async with asyncio.timeout(DEADLINE):
            while True:
                answer = await self.fetch('POST', '/addressbook', json.dumps(entry), JSON)
                if answer.code != 503:
                    self.assertEqual(201, answer.code, answer.body)
                    return answer.headers['Location']

    async def assert_nothing_is_left(self, files: int) -> None:
        """Checks the log, and that there is no task and no socket that was not there before."""
        self.assert_good_log('\n'.join(self.log.lines))
        await self.until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        await self.until(lambda: open_files() <= files)

    async def ask(self, method: str, path: str, body: bytes | None = None) -> HTTPResponse:
        """The answer to a request; it must be in time, and one that may be given in an outage."""
        waited, began = processor_wait('self'), time.monotonic()
        answer = await self.fetch(method, path, body, JSON)
        seconds = time.monotonic() - began - (processor_wait('self') - waited)
        self.assertLessEqual(seconds, self.deadline + TOLERANCE)
        if answer.code >= 500:
            self.assert_error(answer, 503)
            self.assertIn('Retry-After', answer.headers)
        return answer

    async def outage(self, begin: Step, mend: Step, refusals: int = 1) -> None:
        await super().outage(begin, mend, refusals)
        told = [record.getMessage() for record in self.log.records
                if record.name == 'addrservice' and record.levelname != 'DEBUG']
        self.assertEqual('the store can be used again', told[-1])
        self.assertEqual(sorted(set(told)), sorted(told), 'something was told twice')


class ProcessTestCase(ConductTestCase):
    """Has the service as a process, which must end in good order when the test has ended."""

    deadline = 1.0
    pool_size = 10

    def setUp(self) -> None:
        super().setUp()
        sections: dict[str, Any] = {'addr-db': {'sql': {'dsn': self.dsn()}}}
        self.process = self.enterContext(running_server(**sections))
        self.addCleanup(self.assert_ends_well)
        self.clients = Clients(self.process.port, self.process.process.pid)

    def assert_ends_well(self) -> None:
        """Stops the service and checks what it has written about the one outage that it saw."""
        self.assertEqual(0, self.process.stop())
        log = self.process.stderr
        self.assert_good_log(log)
        self.assertEqual([], [line for line in log.splitlines()
                              if ' ERROR ' in line and ' tornado.access ' not in line])
        self.assertEqual(1, log.count('the store cannot be used'))
        self.assertEqual(1, log.count('the store can be used again'))
