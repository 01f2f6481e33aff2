"""Operations that are done together, without a database."""

import asyncio
import unittest
from collections.abc import Sequence
from typing import Any, Final

from addrservice.addressbook_db.batches import SIZE, Arguments, Batches
from addrservice.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from addrservice.sql_connectors import Rows
from tests.support import DEADLINE

STATEMENT: Final = 'SELECT $1'
LIMIT: Final = 2


def rows_of(argument: object) -> Rows:
    """What the statement gives for an argument."""
    return [(argument,)]


class Statement:
    """One that has been sent, and is answered when the test says so.

    :ivar asked: the arguments that it was sent with
    :ivar cancelled: whether it was given up
    """

    def __init__(self, asked: list[Any]) -> None:
        self.asked = asked
        self.cancelled = False
        self._error: asyncio.Future[BaseException | None] = (
            asyncio.get_running_loop().create_future())

    def answer(self, error: BaseException | None = None) -> None:
        """Gives its rows, or an error in place of them; does nothing where that was done."""
        if not self._error.done():
            self._error.set_result(error)

    async def until_answered(self) -> None:
        """Returns or raises what the test has said."""
        try:
            error = await self._error
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if error is not None:
            raise error


class BatchesTestCase(unittest.IsolatedAsyncioTestCase):
    """Batches over a connector whose statements a test answers."""

    async def asyncSetUp(self) -> None:
        self.sent: list[Statement] = []
        self.batches = Batches(self.one, self.several, LIMIT)

    async def asyncTearDown(self) -> None:
        """When all is done, nothing of it is kept."""
        while self.batches._free < LIMIT:
            for statement in self.sent:
                statement.answer()
            await turns()
        self.assertEqual({}, self.batches._under_way)

    async def one(self, statement: str, argument: object) -> Rows:
        self.assertEqual(STATEMENT, statement)
        [rows] = await self.send([argument])
        return rows

    async def several(self, arguments: Sequence[Arguments]) -> list[Rows]:
        self.assertGreater(len(arguments), 1)
        return await self.send([argument for [argument] in arguments])

    async def send(self, asked: list[Any]) -> list[Rows]:
        self.sent.append(Statement(asked))
        await self.sent[-1].until_answered()
        return [rows_of(argument) for argument in asked]

    async def begin(self, *asked: int) -> list[asyncio.Task[Rows]]:
        """Operations that are asked for in one turn of the loop; returns when they had theirs."""
        tasks = [asyncio.create_task(self.batches.do(STATEMENT, each)) for each in asked]
        await turns()
        return tasks

    async def be_busy(self) -> list[asyncio.Task[Rows]]:
        """Has one operation under way, so that all that is asked for now goes into batches."""
        return await self.begin(0)

    def assert_sent(self, *asked: Sequence[int]) -> None:
        """Statements went to the connector with these arguments, and no others."""
        self.assertEqual([list(each) for each in asked], [each.asked for each in self.sent])

    async def assert_given(self, tasks: Sequence[asyncio.Task[Rows]], *asked: int) -> None:
        """These operations have got their rows, each its own."""
        async with asyncio.timeout(DEADLINE):
            self.assertEqual([rows_of(each) for each in asked], await asyncio.gather(*tasks))


async def turns() -> None:
    """Gives all that can go on its turns."""
    for _ in range(10):
        await asyncio.sleep(0)


class IdleTest(BatchesTestCase):
    """What is asked for when there is nothing else to do."""

    async def test_it_is_done_by_its_own_statement_at_once(self) -> None:
        """Not even a task is started for it."""
        asking = asyncio.create_task(self.batches.do(STATEMENT, 1))
        await asyncio.sleep(0)
        self.assert_sent([1])
        self.assertEqual({asking, asyncio.current_task()}, asyncio.all_tasks())
        self.sent[0].answer()
        await self.assert_given([asking], 1)

    async def test_it_fails_by_itself(self) -> None:
        for trouble in (StoreError('what?'), StoreUnavailableError('gone')):
            [asking] = await self.begin(1)
            self.sent.pop().answer(trouble)
            with self.assertRaises(StoreError) as caught:
                await asking
            self.assertIs(trouble, caught.exception)

    async def test_who_gives_up_ends_the_statement(self) -> None:
        [asking] = await self.begin(1)
        asking.cancel()
        await asyncio.wait([asking], timeout=DEADLINE)
        self.assertTrue(self.sent[0].cancelled)

    async def test_what_waits_when_it_ends_goes_first(self) -> None:
        """What is asked for in that turn goes with it."""
        tasks = await self.be_busy() + await self.begin(1) + await self.begin(2, 3)
        for statement in self.sent:
            statement.answer()
        tasks += await self.begin(4)  # which asks when they have ended
        self.assert_sent([0], [1], [2, 3, 4])
        self.sent[2].answer()
        await self.assert_given(tasks, 0, 1, 2, 3, 4)


class TogetherTest(BatchesTestCase):
    """What is done in one statement, and when."""

    async def test_those_that_come_in_one_turn_are_done_in_one_statement(self) -> None:
        tasks = await self.be_busy() + await self.begin(1, 2, 3)
        self.assert_sent([0], [1, 2, 3])
        for statement in self.sent:
            statement.answer()
        await self.assert_given(tasks, 0, 1, 2, 3)

    async def test_they_take_one_task(self) -> None:
        await self.be_busy()
        before = asyncio.all_tasks()
        asking = {asyncio.create_task(self.batches.do(STATEMENT, each)) for each in range(3)}
        await asyncio.sleep(0)
        self.assertEqual(1, len(asyncio.all_tasks() - before - asking))

    async def test_nobody_waits_for_what_is_under_way_as_long_as_another_may_be(self) -> None:
        await self.be_busy()
        tasks = await self.begin(1)
        self.assert_sent([0], [1])
        self.sent[1].answer()
        await self.assert_given(tasks, 1)

    async def test_what_comes_while_no_more_may_be_is_done_together_next(self) -> None:
        tasks = await self.be_busy()
        for each in (1, 2, 3):
            tasks += await self.begin(each)
        self.assert_sent([0], [1])
        for statement in self.sent:
            statement.answer()
        await turns()
        self.assert_sent([0], [1], [2, 3])
        self.sent[2].answer()
        await self.assert_given(tasks, 0, 1, 2, 3)

    async def test_what_is_too_much_for_one_is_done_by_another_at_the_same_time(self) -> None:
        asked = range(1, SIZE + 3)
        tasks = await self.be_busy() + await self.begin(*asked)
        self.assert_sent([0], asked[:SIZE])
        self.sent[0].answer()
        await turns()
        self.assert_sent([0], asked[:SIZE], asked[SIZE:])
        for statement in self.sent:
            statement.answer()
        await self.assert_given(tasks, 0, *asked)

    async def test_two_may_begin_in_the_same_turn(self) -> None:
        self.batches = Batches(self.one, self.several, 3)
        await self.be_busy()
        await self.begin(*range(1, SIZE + 3))
        self.assertEqual([1, SIZE, 2], [len(statement.asked) for statement in self.sent])


class TroubleTest(BatchesTestCase):
    """What becomes of those that are in one statement when it fails."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        await self.be_busy()
        self.busy = self.sent.pop()

    async def asyncTearDown(self) -> None:
        self.busy.answer()
        await super().asyncTearDown()

    async def test_a_store_out_of_reach_fails_them_all_and_is_not_asked_again(self) -> None:
        trouble = OutcomeUnknownError('cut off')
        tasks = await self.begin(1, 2)
        self.sent[0].answer(trouble)
        self.assertEqual([trouble] * 2, await asyncio.gather(*tasks, return_exceptions=True))
        self.assert_sent([1, 2])

    async def test_where_one_may_be_to_blame_each_is_done_alone(self) -> None:
        """All at the same time."""
        for trouble in (StoreError('no such character'), RuntimeError('a bug')):
            with self.subTest(trouble=trouble):
                self.sent.clear()
                tasks = await self.begin(1, 2, 3)
                self.sent[0].answer(StoreError('one of them'))
                await turns()
                self.assert_sent([1, 2, 3], [1], [2], [3])
                self.sent[2].answer(trouble)
                for statement in (self.sent[1], self.sent[3]):
                    statement.answer()
                self.assertEqual([rows_of(1), trouble, rows_of(3)],
                                 await asyncio.gather(*tasks, return_exceptions=True))

    async def test_a_connector_that_is_cancelled_leaves_nobody_waiting(self) -> None:
        tasks = await self.begin(1, 2)
        self.sent[0].answer(asyncio.CancelledError())
        await asyncio.wait(tasks, timeout=DEADLINE)
        self.assertEqual([True] * 2, [task.cancelled() for task in tasks])


class CancelledTest(BatchesTestCase):
    """Those who ask may give up at any time."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.busy = await self.be_busy()

    async def test_who_gives_up_takes_nothing_from_the_others(self) -> None:
        for error in (None, StoreUnavailableError('gone')):
            with self.subTest(error=error):
                first, second = await self.begin(1, 2)
                first.cancel()
                await turns()
                self.assertTrue(first.cancelled())
                self.sent.pop().answer(error)
                async with asyncio.timeout(DEADLINE):
                    self.assertEqual([error or rows_of(2)],
                                     await asyncio.gather(second, return_exceptions=True))

    async def test_a_statement_that_nobody_waits_for_any_more_is_given_up(self) -> None:
        """And lets another one begin; those under way are left alone."""
        tasks = await self.begin(1, 2)
        await self.begin(3)
        for task in tasks:
            self.assertFalse(self.sent[1].cancelled)
            task.cancel()
            await turns()
        self.assert_sent([0], [1, 2], [3])
        self.assertEqual([False, True, False], [each.cancelled for each in self.sent])
        self.sent[0].answer()
        await self.assert_given(self.busy, 0)

    async def test_who_has_given_up_before_the_statement_is_not_in_it(self) -> None:
        await self.begin(1)
        first, second = await self.begin(2, 3)
        first.cancel()
        await turns()
        self.sent[1].answer()
        await turns()
        self.assert_sent([0], [1], [3])
        self.assertFalse(second.done())

    async def test_where_all_have_given_up_before_there_is_none(self) -> None:
        await self.begin(1)
        for task in await self.begin(2, 3):
            task.cancel()
        self.sent[1].answer()
        await turns()
        self.assert_sent([0], [1])
        await self.begin(4)
        self.assert_sent([0], [1], [4])

    async def test_who_gives_up_when_each_is_done_alone_ends_its_own(self) -> None:
        """And the others do not wait for it."""
        tasks = await self.begin(1, 2, 3)
        self.sent[1].answer(StoreError('one of them'))
        await turns()
        self.assert_sent([0], [1, 2, 3], [1], [2], [3])
        self.sent[4].answer()
        await self.assert_given(tasks[2:], 3)
        tasks[0].cancel()
        await turns()
        self.assertEqual([False, False, True, False, False],
                         [each.cancelled for each in self.sent])
        self.sent[3].answer()
        await self.assert_given(tasks[1:2], 2)


if __name__ == '__main__':
    unittest.main()
