"""Threads that do the work on a SQLite file, and how it is handed to them and back.

``sqlite3`` waits for locks and for the disk, so it must not be called in the event loop. What takes
long about a write is its commit: so those that have come while the last one went on are committed
together, which a library that hands over one call at a time cannot do.
"""

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

from addrservice.errors import NothingDoneError, StoreUnavailableError
from addrservice.sql_connectors import Rows, Value

# Milliseconds for which SQLite is left to ask for the lock of writers, again and again. The longer
# that goes on, the more rarely it asks, in the end ten times a second: while others write without a
# pause, it would hardly ever find the lock free.
ASKING: Final = 3


class Statement(NamedTuple):
    """A statement and its arguments, by their names."""

    text: str
    arguments: Mapping[str, Value]


class Job:
    """Statements that somebody waits for, and what came of them.

    :ivar answer: the rows that the last one gave; cancelled when nobody waits any more
    :ivar error: what to raise instead, once it is known
    """

    __slots__ = ('answer', 'error', '_statements', '_rows')

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.answer: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self.error: Exception | None = None
        self._statements = statements
        self._rows: Rows = ()

    def run(self, connection: sqlite3.Connection) -> None:
        """Runs the statements, unless nobody waits any more."""
        if not self.answer.cancelled():
            for text, arguments in self._statements:
                self._rows = connection.execute(text, arguments).fetchall()

    def finish(self) -> None:
        """Gives the answer, in the event loop."""
        if self.answer.cancelled():
            return
        if self.error is None:
            self.answer.set_result(self._rows)
        else:
            self.answer.set_exception(self.error)


class Reader:
    """Does jobs that change nothing, in one thread, on a connection that it makes when it must.

    :param connect: makes a connection
    :param explain: the error to raise where they wait, for one that was raised here
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        explain: Callable[[Exception], Exception],
    ) -> None:
        self._connect = connect
        self._explain = explain
        self._connection: sqlite3.Connection | None = None

    def do(self, jobs: Sequence[Job]) -> None:
        """Does jobs together; where one of them is to blame for a failure, each one alone."""
        try:
            self._connection = self._connection or self._open()
            self._run(self._connection, jobs)
        except Exception as error:  # whatever it is, the thread goes on
            self.close()  # which undoes what was not committed; the next job gets a new one
            self._fail(jobs, error)

    def close(self) -> None:
        """Closes the connection, if there is one."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        # A locked file or a full disk fails them all, and would do so for each one again.
        if len(jobs) > 1 and not isinstance(self._explain(error), StoreUnavailableError):
            for job in jobs:
                self.do([job])
        else:
            for job in jobs:
                job.error = self._explain(error)

    def _open(self) -> sqlite3.Connection:
        return self._connect()

    def _run(self, connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.run(connection)


class Writer(Reader):
    """Commits jobs together, which takes the disk as long as one of them.

    :param patience: seconds to wait for the lock of whoever else writes
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        explain: Callable[[Exception], Exception],
        patience: float,
    ) -> None:
        super().__init__(connect, explain)
        self._patience = patience

    def _open(self) -> sqlite3.Connection:
        connection = super()._open()
        connection.execute(f'PRAGMA busy_timeout = {ASKING}')
        return connection

    def _run(self, connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
        if all(job.answer.cancelled() for job in jobs):
            return  # else it might wait for the lock in vain
        self._begin(connection)
        super()._run(connection, jobs)
        connection.execute('COMMIT')

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Waits for the lock."""
        end = time.monotonic() + self._patience
        while True:
            try:
                connection.execute('BEGIN IMMEDIATE')
                return
            except sqlite3.OperationalError as error:
                is_locked = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_locked or time.monotonic() > end:
                    raise


class Threads:
    """Some threads, made when they are needed, and the line of jobs before them.

    The interpreter does not wait for them at its end: the disk may hang, and a thread with it.

    :param size: threads, at the most
    :param group: jobs that a thread takes at once, at the most; it takes what is there
    :param worker: makes what does the jobs of one thread
    """

    def __init__(self, size: int, group: int, worker: Callable[[], Reader]) -> None:
        self.size = size
        self._group = group
        self._worker = worker
        self._line: SimpleQueue[Job | None] = SimpleQueue()  # None ends all threads
        self._ends: list[asyncio.Future[None]] = []  # of each thread
        self._unfinished = 0
        self._done: deque[Job] = deque()
        self._loop_knows = False  # that there are some done
        self._is_closed = False

    @property
    def in_use(self) -> int:
        """How many threads have something to do."""
        return min(self._unfinished, self.size)

    async def run(self, *statements: Statement) -> Rows:
        """Has statements run, all or none of them, and gives the rows of the last one.

        :raises NothingDoneError: the threads are to end
        """
        if self._is_closed:  # no thread would ever look at them
            raise NothingDoneError('the connections are closed')
        job = Job(statements)
        if len(self._ends) < min(self._unfinished + 1, self.size):
            self._start_thread()
        self._unfinished += 1
        self._line.put(job)
        return await job.answer

    async def close(self, seconds: float) -> None:
        """Ends the threads once they have done all that is in the line; waits only so long."""
        self._is_closed = True
        self._line.put(None)
        if self._ends:
            await asyncio.wait(self._ends, timeout=seconds)

    def _start_thread(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.create_future()
        threading.Thread(target=self._work, args=(loop, end), name='sqlite', daemon=True).start()
        self._ends.append(end)

    def _finish(self) -> None:
        """Gives all answers that there are."""
        self._loop_knows = False  # before it looks: what is done from now on tells it again
        while self._done:
            self._unfinished -= 1
            self._done.popleft().finish()

    def _work(self, loop: asyncio.AbstractEventLoop, end: 'asyncio.Future[None]') -> None:
        """What a thread does."""
        worker = self._worker()
        with suppress(RuntimeError):  # the loop is closed: it did not wait any longer
            while jobs := self._take():
                _do(worker, jobs)
                self._done.extend(jobs)
                if not self._loop_knows:
                    self._loop_knows = True
                    loop.call_soon_threadsafe(self._finish)
            worker.close()
            loop.call_soon_threadsafe(end.set_result, None)

    def _take(self) -> list[Job]:
        """Waits for a job, and takes those behind it too; none when it is time to end."""
        jobs: list[Job] = []
        with suppress(Empty):
            while len(jobs) < self._group:
                job = self._line.get(block=not jobs)
                if job is None:
                    self._line.put(None)  # for this thread's next look, and for the others
                    break
                jobs.append(job)
        return jobs


def _do(worker: Reader, jobs: Sequence[Job]) -> None:
    """Has jobs done; whatever goes wrong, the thread goes on, and those who wait are told."""
    try:
        worker.do(jobs)
    except Exception as error:
        for job in jobs:
            job.error = error
