"""The connections to PostgreSQL, which operations use in turn."""

import asyncio
import unittest
from typing import Any, Final
from unittest import mock

from addrservice.errors import NothingDoneError, StoreUnavailableError
from addrservice.sql_connectors.postgresql_pool import Pool
from tests.support import DEADLINE
from tests.unit.postgresql_connector_test import let_all_run, never, new_connection

MODULE: Final = 'addrservice.sql_connectors.postgresql_pool'
SIZE: Final = 3


class PoolTestCase(unittest.IsolatedAsyncioTestCase):
    """A pool that makes a new connection each time it has to; ``made`` has them in order."""

    async def asyncSetUp(self) -> None:
        self.made: list[Any] = []
        self.connect = mock.AsyncMock(side_effect=self.make)
        self.pool = Pool(self.connect, SIZE)

    def make(self) -> Any:
        self.made.append(new_connection())
        return self.made[-1]

    async def acquire(self) -> Any:
        """A connection, which is there in time."""
        async with asyncio.timeout(DEADLINE):
            return await self.pool.acquire()

    async def take_all(self) -> list[Any]:
        """All connections that there may be, none of which is waited for."""
        return [await self.acquire() for _ in range(SIZE)]

    async def wait_in_line(self, count: int = 1) -> 'list[asyncio.Task[Any]]':
        """So many operations that wait for a connection."""
        tasks = [asyncio.create_task(self.acquire()) for _ in range(count)]
        await let_all_run()
        self.assertFalse(any(task.done() for task in tasks))
        return tasks


class TurnsTest(PoolTestCase):
    """Who gets which connection, and when."""

    async def test_connections_are_made_when_they_are_needed(self) -> None:
        self.connect.assert_not_awaited()
        first, second = await self.acquire(), await self.acquire()
        self.assertEqual([first, second], self.made)
        self.assertIsNot(first, second)

    async def test_one_that_was_given_back_is_used_again_the_last_one_first(self) -> None:
        taken = await self.take_all()
        for connection in taken:
            self.pool.release(connection)
        self.assertEqual(taken[::-1], await self.take_all())
        self.assertEqual(SIZE, len(self.made))

    async def test_those_in_use_are_counted(self) -> None:
        taken = await self.take_all()
        self.assertEqual(SIZE, self.pool.in_use)
        self.pool.release(taken[0])
        self.assertEqual(SIZE - 1, self.pool.in_use)

    async def test_who_finds_none_waits_in_turn(self) -> None:
        taken = await self.take_all()
        first, second = await self.wait_in_line(2)
        self.pool.release(taken[0])
        await let_all_run()
        self.assertEqual((True, False), (first.done(), second.done()))
        self.pool.release(taken[1])
        self.assertEqual(taken[:2], [await first, await second])
        self.assertEqual(SIZE, self.pool.in_use)

    async def test_nobody_is_overtaken_by_one_who_comes_just_then(self) -> None:
        taken = await self.take_all()
        [first] = await self.wait_in_line()
        self.pool.release(taken[0])
        second = asyncio.create_task(self.acquire())
        await let_all_run()
        self.assertEqual((True, False), (first.done(), second.done()))
        second.cancel()

    async def test_who_gives_up_the_wait_takes_no_turn(self) -> None:
        taken = await self.take_all()
        first, second = await self.wait_in_line(2)
        first.cancel()
        await let_all_run()
        self.pool.release(taken[0])
        self.assertIs(taken[0], await second)
        self.assertTrue(first.cancelled())

    async def test_who_gives_up_the_wait_just_when_it_ends_leaves_the_turn_to_the_next(
        self
    ) -> None:
        taken = await self.take_all()
        first, second = await self.wait_in_line(2)
        self.pool.release(taken[0])
        first.cancel()
        self.assertIs(taken[0], await second)
        self.assertTrue(first.cancelled())

    async def test_where_nobody_waits_any_more_it_is_free(self) -> None:
        taken = await self.take_all()
        [waiting] = await self.wait_in_line()
        waiting.cancel()
        await let_all_run()
        self.pool.release(taken[0])
        self.assertEqual(SIZE - 1, self.pool.in_use)
        self.assertIs(taken[0], await self.acquire())


class TroubleTest(PoolTestCase):
    """Connections that cannot be made, or come to an end."""

    async def test_who_cannot_connect_is_told_and_takes_nobodys_place(self) -> None:
        self.connect.side_effect = trouble = StoreUnavailableError('gone')
        for _ in range(SIZE + 1):
            with self.assertRaises(StoreUnavailableError) as caught:
                await self.acquire()
            self.assertIs(trouble, caught.exception)
        self.assertEqual(0, self.pool.in_use)

    async def test_who_gives_up_connecting_takes_nobodys_place_either(self) -> None:
        self.connect.side_effect = never
        connecting = [asyncio.create_task(self.acquire()) for _ in range(SIZE)]
        await let_all_run()
        [waiting] = await self.wait_in_line()
        self.connect.side_effect = self.make
        connecting[0].cancel()
        self.assertIs(await waiting, self.made[0])
        for task in connecting:
            task.cancel()
        await let_all_run()
        self.assertEqual(1, self.pool.in_use)

    async def test_one_that_was_closed_meanwhile_is_replaced_by_another_free_one(self) -> None:
        open_one, closed = await self.acquire(), await self.acquire()
        self.pool.release(open_one)
        self.pool.release(closed)
        closed.is_closed.return_value = True
        self.assertIs(open_one, await self.acquire())
        self.assertEqual(2, len(self.made))

    async def test_one_that_was_closed_meanwhile_is_replaced_by_a_new_one(self) -> None:
        closed = await self.acquire()
        closed.is_closed.return_value = True
        self.pool.release(closed)
        self.assertIs(await self.acquire(), self.made[1])

    async def test_who_is_handed_a_closed_one_makes_a_new_one(self) -> None:
        closed, *_ = await self.take_all()
        [waiting] = await self.wait_in_line()
        closed.is_closed.return_value = True
        self.pool.release(closed)
        self.assertIs(await waiting, self.made[SIZE])

    async def test_all_that_are_free_can_be_ended(self) -> None:
        used, *free = await self.take_all()
        for connection in free:
            self.pool.release(connection)
        self.pool.terminate_free()
        self.assertEqual([0, 1, 1], [each.terminate.call_count for each in (used, *free)])
        self.assertIs(await self.acquire(), self.made[SIZE])

    async def test_those_that_nobody_has_needed_for_a_while_are_ended(self) -> None:
        """And no others, though they have been free now and then."""
        self.enterContext(mock.patch(f'{MODULE}.IDLE_TIME', 0.02))
        pool = Pool(self.connect, SIZE)
        first, second, unneeded = [await pool.acquire() for _ in range(SIZE)]
        for connection in (unneeded, second, first):
            pool.release(connection)
        async with asyncio.timeout(DEADLINE):
            while not unneeded.is_closed():
                for connection in [await pool.acquire() for _ in range(2)]:
                    pool.release(connection)
                await asyncio.sleep(0)
        self.assertEqual((False, False), (first.is_closed(), second.is_closed()))
        async with asyncio.timeout(DEADLINE):
            while not (first.is_closed() and second.is_closed()):
                await asyncio.sleep(0)
        await pool.close()


class CloseTest(PoolTestCase):
    """How the connections come to their end."""

    async def close(self) -> 'asyncio.Task[None]':
        """The pool's end, which has begun."""
        closing = asyncio.create_task(self.pool.close())
        await let_all_run()
        return closing

    async def test_free_ones_are_closed_in_good_order(self) -> None:
        for connection in await self.take_all():
            self.pool.release(connection)
        await self.pool.close()
        for connection in self.made:
            connection.close.assert_awaited_once_with()

    async def test_those_in_use_are_waited_for(self) -> None:
        connection = await self.acquire()
        closing = await self.close()
        self.assertFalse(closing.done())
        connection.close.assert_not_awaited()
        self.pool.release(connection)
        await closing
        connection.close.assert_awaited_once_with()

    async def test_one_that_ends_badly_keeps_no_other_from_its_end(self) -> None:
        taken = await self.take_all()
        for connection in taken:
            self.pool.release(connection)
        taken[-1].close.side_effect = OSError('gone')
        await self.pool.close()
        self.assertEqual([True] * SIZE, [connection.is_closed() for connection in taken])

    async def test_who_waits_already_has_its_turn(self) -> None:
        taken = await self.take_all()
        [waiting] = await self.wait_in_line()
        closing = await self.close()
        for connection in taken:
            self.pool.release(connection)
        self.pool.release(await waiting)
        await closing

    async def test_a_cancelled_one_ends_all_at_once(self) -> None:
        connection = await self.acquire()
        closing = await self.close()
        closing.cancel()
        await asyncio.wait([closing], timeout=DEADLINE)
        connection.terminate.assert_called_once_with()

    async def test_there_are_none_after_it(self) -> None:
        await self.pool.close()
        with self.assertRaisesRegex(NothingDoneError, '^the connections are closed$'):
            await self.acquire()
        self.connect.assert_not_awaited()

    async def test_one_that_is_made_meanwhile_is_ended(self) -> None:
        answer = asyncio.Event()

        async def connect() -> Any:
            await answer.wait()
            return self.make()

        self.connect.side_effect = connect
        acquiring = asyncio.create_task(self.acquire())
        await let_all_run()
        closing = await self.close()
        answer.set()
        with self.assertRaises(NothingDoneError):
            await acquiring
        await closing
        self.made[0].terminate.assert_called_once_with()

    async def test_what_has_ended_long_ago_is_not_kept(self) -> None:
        for _ in range(5):
            connection = await self.acquire()
            connection.is_closed.return_value = True
            self.pool.release(connection)
        self.assertEqual({self.made[-1]}, self.pool._open)


if __name__ == '__main__':
    unittest.main()
