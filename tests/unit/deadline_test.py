"""The limit to the time of operations."""

import asyncio
import unittest

from addrservice.addressbook_db.deadline import Deadline
from addrservice.errors import OutcomeUnknownError
from tests.support import DEADLINE


class DeadlineTest(unittest.IsolatedAsyncioTestCase):
    async def spend(self, deadline: Deadline, seconds: float = DEADLINE) -> str:
        """Does something that takes so long, within a deadline."""
        with deadline.bound():
            await asyncio.sleep(seconds)
        return 'in time'

    async def test_what_keeps_it_is_left_alone(self) -> None:
        self.assertEqual('in time', await self.spend(Deadline(DEADLINE), 0))

    async def test_what_does_not_keep_it_is_given_up(self) -> None:
        with self.assertRaisesRegex(OutcomeUnknownError, '^no answer in time$') as caught:
            await self.spend(Deadline(0.01))
        self.assertTrue(caught.exception.__suppress_context__)

    async def test_what_was_given_up_is_no_longer_cancelled(self) -> None:
        with self.assertRaises(OutcomeUnknownError):
            await self.spend(Deadline(0.01))
        task = asyncio.current_task()
        assert task is not None
        self.assertEqual(0, task.cancelling())
        await asyncio.sleep(0)

    async def test_each_has_the_whole_time_from_its_own_beginning(self) -> None:
        """Also what begins while the timer of another is running."""
        deadline, loop = Deadline(0.1), asyncio.get_running_loop()
        given_up = []

        async def begin_late(delay: float) -> None:
            await asyncio.sleep(delay)
            begun = loop.time()
            with self.assertRaises(OutcomeUnknownError):
                await self.spend(deadline)
            given_up.append(delay)
            self.assertGreaterEqual(loop.time() - begun, 0.1 - 0.002)  # uvloop counts milliseconds

        await asyncio.gather(*map(begin_late, (0.05, 0, 0.02)))
        self.assertEqual([0, 0.02, 0.05], given_up)

    async def test_after_some_have_ended_in_time_others_are_given_up_all_the_same(self) -> None:
        deadline = Deadline(0.05)
        self.assertEqual('in time', await self.spend(deadline, 0.03))
        with self.assertRaises(OutcomeUnknownError):
            await self.spend(deadline)
        self.assertEqual('in time', await self.spend(deadline, 0))

    async def test_an_idle_one_has_no_timer_after_its_time(self) -> None:
        deadline = Deadline(0.01)
        await self.spend(deadline, 0)
        self.assertIsNotNone(deadline._timer)
        async with asyncio.timeout(DEADLINE):
            while deadline._timer is not None:
                await asyncio.sleep(0)

    async def test_an_error_comes_out_as_it_is(self) -> None:
        with self.assertRaises(KeyError):
            with Deadline(DEADLINE).bound():
                raise KeyError

    async def test_who_is_cancelled_by_another_is_cancelled(self) -> None:
        task = asyncio.create_task(self.spend(Deadline(DEADLINE)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)
        self.assertTrue(task.cancelled())

    async def test_who_is_cancelled_at_the_same_moment_is_cancelled(self) -> None:
        """Nobody takes that back."""
        async def be_cancelled() -> None:
            with deadline.bound():
                await asyncio.sleep(DEADLINE)

        deadline = Deadline(DEADLINE)
        task = asyncio.create_task(be_cancelled())
        await asyncio.sleep(0)
        [bound] = deadline._running
        bound.give_up()
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)
        self.assertTrue(task.cancelled())

    async def test_an_error_that_comes_of_being_given_up_is_what_is_told(self) -> None:
        with self.assertRaises(KeyError):
            with Deadline(0.01).bound():
                try:
                    await asyncio.sleep(DEADLINE)
                except asyncio.CancelledError:
                    raise KeyError from None

    async def test_one_may_be_inside_of_another(self) -> None:
        """It is the outer one that is told where that is due first."""
        deadline = Deadline(0.01)
        with self.assertRaises(OutcomeUnknownError):
            with deadline.bound():
                self.assertEqual('in time', await self.spend(deadline, 0))
                await self.spend(Deadline(DEADLINE))


if __name__ == '__main__':
    unittest.main()
