"""Threads that do jobs, without the database: who does what, and how it gets back."""

import asyncio
import subprocess
import sys
import threading
import unittest
from collections.abc import Sequence
from typing import Final
from unittest import mock

from addrservice.errors import NothingDoneError
from addrservice.sql_connectors import Rows
from addrservice.sql_connectors.sqlite_threads import Job, Reader, Threads
from tests.support import DEADLINE, ROOT, wait_until

# A program whose thread never comes to an end.
HANGER: Final = '''
import asyncio, threading
from unittest import mock
from addrservice.sql_connectors.sqlite_threads import Threads

worker = mock.Mock()
worker.do.side_effect = lambda jobs: threading.Event().wait()

async def hang():
    threads = Threads(1, 1, lambda: worker)
    asyncio.create_task(threads.run())
    await asyncio.sleep(0)
    await threads.close(0.01)

asyncio.run(hang())
'''


class Hand(Reader):
    """Does what it is given when it is let, and keeps in mind what that was."""

    def __init__(self) -> None:
        self.done: list[Sequence[Job]] = []
        self.closed = False
        self.trouble: Exception | None = None
        self._turns = threading.Semaphore(0)

    def let(self, times: int) -> None:
        """Lets it take so many turns."""
        self._turns.release(times)

    def do(self, jobs: Sequence[Job]) -> None:
        self.done.append(jobs)
        self._turns.acquire(timeout=DEADLINE)
        if self.trouble is not None:
            raise self.trouble

    def close(self) -> None:
        self.closed = True


class ThreadsTest(unittest.IsolatedAsyncioTestCase):
    """Jobs that a hand does, or several."""

    async def asyncSetUp(self) -> None:
        self.hands: list[Hand] = []
        self.complaints = self.enterContext(mock.patch('threading.excepthook'))
        self.addCleanup(self.end)

    def end(self) -> None:
        """Lets all hands come to an end, none of them by an error."""
        for hand in self.hands:
            hand.let(100)
        wait_until(lambda: not any(thread.name == 'sqlite' for thread in threading.enumerate()))
        self.complaints.assert_not_called()

    def threads(self, size: int = 1, group: int = 1) -> Threads:
        """Threads that are closed in the end."""
        threads = Threads(size, group, self.new_hand)
        self.addAsyncCleanup(threads.close, 0)
        return threads

    def new_hand(self) -> Hand:
        self.hands.append(Hand())
        return self.hands[-1]

    async def begin(self, threads: Threads, jobs: int = 1) -> list[asyncio.Task[Rows]]:
        """Puts jobs into the line; has the first one taken, if none was."""
        running = [asyncio.create_task(threads.run()) for _ in range(jobs)]
        await asyncio.sleep(0)
        wait_until(lambda: any(hand.done for hand in self.hands))
        return running

    async def test_jobs_that_wait_are_taken_together_up_to_a_bound(self) -> None:
        threads = self.threads(group=3)
        running = await self.begin(threads)
        running += await self.begin(threads, 7)
        [hand] = self.hands
        hand.let(4)
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*running)
        self.assertEqual([1, 3, 3, 1], [len(jobs) for jobs in hand.done])

    async def test_the_loop_is_woken_once_however_much_is_done_meanwhile(self) -> None:
        threads = self.threads()
        loop = asyncio.get_running_loop()
        with mock.patch.object(
            loop, 'call_soon_threadsafe', wraps=loop.call_soon_threadsafe
        ) as wake:
            running = await self.begin(threads, 5)
            [hand] = self.hands
            hand.let(4)
            wait_until(lambda: len(hand.done) == 5)
            self.assertEqual(1, wake.call_count)
            async with asyncio.timeout(DEADLINE):
                await asyncio.gather(*running[:4])
                hand.let(1)
                await running[4]
            self.assertEqual(2, wake.call_count)

    async def test_a_job_that_nobody_waits_for_any_more_keeps_its_thread(self) -> None:
        """So another one is made for the next job, and then no more."""
        threads = self.threads(size=2)
        [first] = await self.begin(threads)
        first.cancel()
        await asyncio.wait([first])
        self.assertEqual(1, threads.in_use)
        [second, third] = await self.begin(threads, 2)
        wait_until(lambda: len(self.hands) == 2)
        self.assertEqual(2, threads.in_use)
        self.hands[1].let(2)
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(second, third)
        self.assertEqual((1, 1), (threads.in_use, len(self.hands[0].done)))

    async def test_a_thread_ends_when_all_is_done_that_was_there_before(self) -> None:
        for group in (1, 2, 5):
            with self.subTest(group=group):
                self.hands.clear()
                threads = self.threads(group=group)
                running = await self.begin(threads, 4)
                closing = asyncio.create_task(threads.close(DEADLINE))
                await asyncio.sleep(0)
                self.hands[0].let(4)
                await closing
                self.assertEqual((True, True), (
                    self.hands[0].closed, all(each.done() for each in running)))

    async def test_all_threads_end(self) -> None:
        threads = self.threads(size=3)
        running = await self.begin(threads, 3)
        wait_until(lambda: len(self.hands) == 3)
        for hand in self.hands:
            hand.let(3)
        await threads.close(DEADLINE)
        self.assertEqual([True] * 3, [hand.closed for hand in self.hands])
        await asyncio.gather(*running)

    async def test_where_there_is_no_thread_there_is_nothing_to_wait_for(self) -> None:
        await self.threads().close(DEADLINE)
        self.assertEqual([], self.hands)

    async def test_what_comes_after_the_end_is_refused(self) -> None:
        threads = self.threads()
        running = await self.begin(threads)
        self.hands[0].let(1)
        await threads.close(DEADLINE)
        with self.assertRaisesRegex(NothingDoneError, '^the connections are closed$'):
            async with asyncio.timeout(DEADLINE):
                await threads.run()
        await asyncio.gather(*running)

    async def test_a_hand_that_fails_tells_those_who_wait_and_goes_on(self) -> None:
        threads = self.threads(group=2)
        first = await self.begin(threads)
        running = await self.begin(threads, 2)
        [hand] = self.hands
        hand.trouble = RuntimeError('a bug')
        hand.let(2)
        async with asyncio.timeout(DEADLINE):
            self.assertEqual([hand.trouble] * 3,
                             await asyncio.gather(*first, *running, return_exceptions=True))
            hand.trouble = None
            hand.let(1)
            self.assertEqual((), await threads.run())

    def test_a_loop_that_is_gone_is_told_nothing(self) -> None:
        """The thread ends all the same, and nobody is told of it."""
        async def leave() -> None:
            threads = Threads(1, 1, self.new_hand)
            [running] = await self.begin(threads)
            await threads.close(0)
            running.cancel()

        thread = threading.Thread(target=asyncio.run, args=(leave(),))
        thread.start()
        thread.join(DEADLINE)
        self.assertFalse(thread.is_alive())

    def test_a_thread_that_hangs_does_not_keep_the_process(self) -> None:
        done = subprocess.run([sys.executable, '-c', HANGER], cwd=ROOT, timeout=DEADLINE,
                              capture_output=True, text=True)
        self.assertEqual((0, '', ''), (done.returncode, done.stdout, done.stderr))


if __name__ == '__main__':
    unittest.main()
