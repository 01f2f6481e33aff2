"""Operations that are done together, without a database."""

import asyncio
import unittest
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final
from unittest import mock

from addrservice.addressbook_db.batches import SIZE, Arguments, Batches
from addrservice.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from addrservice.sql_connectors import Rows
from tests.support import DEADLINE

STATEMENT: Final = 'SELECT $1'


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


class Clock:
    """One that has been set, and rings when the test says so.

    :ivar seconds: after which it should ring
    :ivar cancelled: whether it has been told not to
    """

    def __init__(self, seconds: float, callback: Callable[..., None], *arguments: object) -> None:
        self.seconds = seconds
        self.ring = partial(callback, *arguments)
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class BatchesTestCase(unittest.IsolatedAsyncioTestCase):
    """Batches over a connector whose statements a test answers.

    :cvar limit: of statements under way
    :cvar patience: that they have
    """

    limit = 2
    patience = 0.0

    async def asyncSetUp(self) -> None:
        self.sent: list[Statement] = []
        self.sending = asyncio.Condition()
        self.batches = Batches(self.one, self.several, self.limit, self.patience)

    async def asyncTearDown(self) -> None:
        """When all is done, nothing of it is kept."""
        async with asyncio.timeout(DEADLINE):
            while self.batches._under_way or self.batches._waiting:
                for statement in self.sent:
                    statement.answer()
                await turns()
        self.assertEqual((set(), {}), (self.batches._soon_done, self.batches._awaited))

    async def one(self, statement: str, argument: object) -> Rows:
        self.assertEqual(STATEMENT, statement)
        [rows] = await self.send([argument])
        return rows

    async def several(self, arguments: Sequence[Arguments]) -> list[Rows]:
        self.assertGreater(len(arguments), 1)
        return await self.send([argument for [argument] in arguments])

    async def send(self, asked: list[Any]) -> list[Rows]:
        statement = Statement(asked)
        async with self.sending:
            self.sent.append(statement)
            self.sending.notify_all()
        await statement.until_answered()
        return [rows_of(argument) for argument in asked]

    async def begin(self, *asked: int) -> list[asyncio.Task[Rows]]:
        """Operations that are asked for in one turn of the loop; returns when they had theirs."""
        tasks = [asyncio.create_task(self.batches.do(STATEMENT, each)) for each in asked]
        await turns()
        return tasks

    async def be_busy(self) -> list[asyncio.Task[Rows]]:
        """Has one operation under way, so that all that is asked for now goes into batches."""
        return await self.begin(0)

    async def until_sent(self, *asked: Sequence[int]) -> None:
        """Returns when so many statements have been sent, with these arguments."""
        async with asyncio.timeout(DEADLINE), self.sending:
            await self.sending.wait_for(lambda: len(self.sent) >= len(asked))
        self.assert_sent(*asked)

    def assert_sent(self, *asked: Sequence[int]) -> None:
        """Statements went to the connector with these arguments, and no others."""
        self.assertEqual([list(each) for each in asked], [each.asked for each in self.sent])

    async def assert_given(self, tasks: Sequence[asyncio.Task[Rows]], *asked: int) -> None:
        """These operations have got their rows, each its own."""
        await self.assert_ended(tasks, *map(rows_of, asked))

    async def assert_ended(
        self, tasks: Sequence[asyncio.Task[Rows]], *outcomes: Rows | Exception
    ) -> None:
        """These operations have got these rows, or errors in their place."""
        async with asyncio.timeout(DEADLINE):
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        self.assertEqual(list(outcomes), ended)


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
    """What is done in one statement, and when; without patience."""

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

    async def test_no_clock_is_set(self) -> None:
        """It would cost each of them time."""
        loop = asyncio.get_running_loop()
        with mock.patch.object(loop, 'call_later') as call_later:
            await self.be_busy()
            await self.begin(1, 2)
        call_later.assert_not_called()


class NextTest(BatchesTestCase):
    """The batch that follows one that has ended."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        await self.be_busy()

    async def sent_when_answered(self, argument: int) -> list[list[int]]:
        """What had been sent when this operation was answered."""
        await self.batches.do(STATEMENT, argument)
        return [statement.asked for statement in self.sent]

    async def test_it_begins_before_those_of_the_one_before_are_answered(self) -> None:
        first = [asyncio.create_task(self.sent_when_answered(each)) for each in (1, 2)]
        await turns()
        self.sent[0].answer()
        await turns()
        await self.begin(3)
        await self.begin(4)
        self.assert_sent([0], [1, 2], [3])
        self.sent[1].answer()
        async with asyncio.timeout(DEADLINE):
            self.assertEqual([[[0], [1, 2], [3], [4]]] * 2, await asyncio.gather(*first))

    async def test_it_begins_before_the_others_are_done_alone(self) -> None:
        await self.begin(1, 2)
        await self.begin(3)
        self.sent[1].answer(StoreError('one of them'))
        await turns()
        self.assert_sent([0], [1, 2], [3], [1], [2])


class PatienceTest(BatchesTestCase):
    """What comes while a statement is under way, and waits for its end."""

    patience = DEADLINE

    async def test_it_goes_in_one_statement_with_all_that_came_meanwhile(self) -> None:
        tasks = await self.be_busy()
        for each in (1, 2, 3):
            tasks += await self.begin(each)
        self.assert_sent([0])
        self.sent[0].answer()
        await self.until_sent([0], [1, 2, 3])
        self.sent[1].answer()
        await self.assert_given(tasks, 0, 1, 2, 3)

    async def test_it_waits_for_a_batch_too(self) -> None:
        await self.be_busy()
        tasks = await self.begin(1, 2)
        self.sent[0].answer()
        await turns()
        tasks += await self.begin(3) + await self.begin(4)
        self.assert_sent([0], [1, 2])
        self.sent[1].answer()
        await self.until_sent([0], [1, 2], [3, 4])
        self.sent[2].answer()
        await self.assert_given(tasks, 1, 2, 3, 4)

    async def test_a_whole_batch_does_not_wait(self) -> None:
        """One operation less does."""
        asked = range(1, SIZE + 1)
        await self.be_busy()
        tasks = await self.begin(*asked[:-1])
        self.assert_sent([0])
        tasks += await self.begin(asked[-1])
        self.assert_sent([0], asked)
        self.sent[1].answer()
        await self.assert_given(tasks, *asked)

    async def test_what_a_whole_batch_leaves_waits_for_all_that_are_under_way(self) -> None:
        asked = range(1, SIZE + 3)
        await self.be_busy()
        await self.begin(*asked)
        self.sent[0].answer()
        await turns()
        self.assert_sent([0], asked[:SIZE])
        self.sent[1].answer()
        await self.until_sent([0], asked[:SIZE], asked[SIZE:])

    async def test_no_more_whole_batches_begin_than_may_be_under_way(self) -> None:
        asked = range(1, 2 * SIZE + 1)
        await self.be_busy()
        await self.begin(*asked)
        self.assert_sent([0], asked[:SIZE])
        self.sent[0].answer()
        await self.until_sent([0], asked[:SIZE], asked[SIZE:])

    async def test_whole_batches_begin_in_the_same_turn(self) -> None:
        self.batches = Batches(self.one, self.several, 3, self.patience)
        await self.be_busy()
        await self.begin(*range(1, 2 * SIZE + 2))
        self.assertEqual([1, SIZE, SIZE], [len(statement.asked) for statement in self.sent])

    async def test_a_statement_that_fails_lets_it_begin(self) -> None:
        for trouble in (StoreError('what?'), StoreUnavailableError('gone')):
            with self.subTest(trouble=trouble):
                self.sent.clear()
                [failing] = await self.be_busy()
                tasks = await self.begin(1, 2)
                self.sent[0].answer(trouble)
                await self.until_sent([0], [1, 2])
                self.assertIs(trouble, failing.exception())
                self.sent[1].answer()
                await self.assert_given(tasks, 1, 2)

    async def test_a_statement_that_is_given_up_lets_it_begin(self) -> None:
        """By who asked for it, and by all who did."""
        tasks = await self.be_busy()
        for asked in ((1, 2), (3, 4)):
            following = await self.begin(*asked)
            for task in tasks:
                task.cancel()
            await turns()
            tasks = following
        self.assert_sent([0], [1, 2], [3, 4])
        self.assertEqual([True, True, False], [each.cancelled for each in self.sent])

    async def test_those_that_are_done_alone_do_not_wait(self) -> None:
        """But are waited for."""
        await self.be_busy()
        tasks = await self.begin(1, 2)
        self.sent[0].answer()
        await turns()
        self.sent[1].answer(StoreError('one of them'))
        await self.until_sent([0], [1, 2], [1], [2])
        tasks += await self.begin(3)
        for statement in self.sent[2:]:
            self.assertEqual(4, len(self.sent))
            statement.answer()
            await turns()
        self.assert_sent([0], [1, 2], [1], [2], [3])
        self.sent[4].answer()
        await self.assert_given(tasks, 1, 2, 3)


class LostPatienceTest(BatchesTestCase):
    """What comes while a statement is under way that takes long, by the clock of the test."""

    patience = DEADLINE

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.clocks: list[Clock] = []
        loop = asyncio.get_running_loop()
        self.enterContext(mock.patch.object(loop, 'call_later', self.set_clock))
        await self.be_busy()

    def set_clock(self, *arguments: Any) -> Clock:
        self.clocks.append(Clock(*arguments))
        return self.clocks[-1]

    async def test_it_begins_beside_in_one_statement_when_the_patience_is_lost(self) -> None:
        tasks = await self.begin(1) + await self.begin(2)
        self.assert_sent([0])
        self.assertEqual(self.patience, self.clocks[0].seconds)
        self.clocks[0].ring()
        await turns()
        self.assert_sent([0], [1, 2])
        self.sent[1].answer()
        await self.assert_given(tasks, 1, 2)

    async def test_what_comes_after_that_does_not_wait(self) -> None:
        self.clocks[0].ring()
        tasks = await self.begin(1)
        self.assert_sent([0], [1])
        self.sent[1].answer()
        await self.assert_given(tasks, 1)

    async def test_it_waits_for_another_that_began_later(self) -> None:
        """As long as for any; the end of the one that takes long changes nothing."""
        self.clocks[0].ring()
        await self.begin(1)
        await self.begin(2)
        self.sent[0].answer()
        await turns()
        self.assert_sent([0], [1])
        self.clocks[1].ring()
        await turns()
        self.assert_sent([0], [1], [2])

    async def test_no_more_statements_begin_than_may_be_under_way(self) -> None:
        for each in range(self.limit):
            self.clocks[each].ring()
            await self.begin(each + 1)
        await self.begin(self.limit + 1)
        self.assert_sent([0], [1])
        self.sent[0].answer()
        await turns()
        self.assert_sent([0], [1], [2, 3])

    async def test_the_clock_of_a_statement_ends_with_it(self) -> None:
        """So that it wakes nobody up."""
        await self.begin(1)
        for each in range(2):
            self.assertFalse(self.clocks[each].cancelled)
            self.sent[each].answer()
            await turns()
            self.assertTrue(self.clocks[each].cancelled)


class ClockTest(BatchesTestCase):
    """Patience by the clock of the event loop."""

    patience = 0.01

    async def test_what_comes_waits_as_long_as_told(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await self.be_busy()
        await self.begin(1)
        await self.until_sent([0], [1])
        self.assertGreaterEqual(loop.time() - begun, self.patience - 0.001)


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
        await self.assert_ended(tasks, trouble, trouble)
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
                await self.assert_ended(tasks, rows_of(1), trouble, rows_of(3))

    async def test_one_who_gives_up_meanwhile_is_not_done_alone(self) -> None:
        """Neither who does so while all are done, nor who does when they have failed."""
        tasks = await self.begin(1, 2, 3)
        tasks[0].cancel()
        await turns()
        self.sent[0].answer(StoreError('one of them'))
        await asyncio.sleep(0)  # they have failed, and are about to be done alone
        tasks[1].cancel()
        await turns()
        self.assert_sent([1, 2, 3], [3])

    async def test_an_answer_that_lacks_some_leaves_nobody_waiting(self) -> None:
        """Those are done alone."""
        self.batches._several = mock.AsyncMock(return_value=[rows_of(1)])
        tasks = await self.begin(1, 2)
        self.assert_sent([2])
        self.sent[0].answer()
        await self.assert_given(tasks, 1, 2)

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
                await self.assert_ended([second], error or rows_of(2))

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

    async def test_those_who_come_after_as_many_as_go_together_are_in_the_next(self) -> None:
        await self.begin(1)
        for task in await self.begin(*range(2, SIZE + 2)):
            task.cancel()
        await self.begin(SIZE + 2)
        self.sent[1].answer()
        await turns()
        self.assert_sent([0], [1], [SIZE + 2])

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
