"""Operations that come at the same time, done in one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from addrservice.errors import StoreUnavailableError
from addrservice.sql_connectors import Rows, Value, start_task

# Operations in one statement, at the most: more of them would save little more.
SIZE: Final = 32

Arguments = tuple[Value, ...]


class _Operation(NamedTuple):
    """What somebody waits for.

    :param statement: that does it alone
    :param rows: cancelled when nobody waits any more
    """

    statement: str
    arguments: Arguments
    rows: asyncio.Future[Rows]


class Batches:
    """Does operations of one kind together that are asked for at the same time.

    What comes when there is nothing else to do is done at once. After that, a batch takes all that
    comes in one turn of the event loop; while as many are under way as may be, what comes waits for
    the next. So nobody waits for company, and the more there is to do, the less each operation
    costs. Each has its own outcome, and may be cancelled.

    :param one: does an operation by its statement
    :param several: does some by one statement; gives the rows of each
    :param limit: batches under way at the same time
    """

    def __init__(
        self,
        one: Callable[..., Awaitable[Rows]],
        several: Callable[[Sequence[Arguments]], Awaitable[Sequence[Rows]]],
        limit: int,
    ) -> None:
        self._one = one
        self._several = several
        self._limit = limit
        self._free = limit  # of these, that may begin yet
        self._is_beginning = False  # one that has not taken its operations yet
        self._waiting: list[_Operation] = []
        self._under_way: dict[asyncio.Task[Any], Sequence[_Operation]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def do(self, statement: str, *arguments: Value) -> Rows:
        """Does an operation; gives its rows."""
        if self._free == self._limit and not self._waiting:
            with self._one_less():
                return await self._one(statement, *arguments)
        rows: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Operation(statement, arguments, rows))
        self._begin()
        try:
            return await rows
        except asyncio.CancelledError:
            self._end_unawaited()
            raise

    @contextmanager
    def _one_less(self) -> Iterator[None]:
        """One less may begin while this goes on."""
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1
            self._begin()

    def _begin(self) -> None:
        """Begins a batch, if there is something for it to do."""
        if self._waiting and self._free and not self._is_beginning:
            self._is_beginning = True
            start_task(self._do_waiting(), self._tasks)

    async def _do_waiting(self) -> None:
        self._is_beginning = False
        operations, self._waiting = self._waiting[:SIZE], self._waiting[SIZE:]
        with self._one_less():
            self._begin()  # for what is left
            await self._do_together(operations)

    async def _do_together(self, operations: Sequence[_Operation]) -> None:
        """Does those that somebody waits for; each alone where one may be to blame for a failure.
        """
        awaited = [each for each in operations if not each.rows.done()]
        if not awaited:
            return
        task = asyncio.current_task()
        assert task is not None
        self._under_way[task] = awaited
        try:
            answers = await self._rows(awaited)
        except asyncio.CancelledError:
            for operation in awaited:
                operation.rows.cancel()
            raise
        except Exception as error:  # whatever it is: it goes to those who wait
            if len(awaited) > 1 and not isinstance(error, StoreUnavailableError):
                for operation in awaited:
                    start_task(self._do_together([operation]), self._tasks)
            else:
                _fail(awaited, error)
        else:
            _answer(awaited, answers)
        finally:
            del self._under_way[task]

    async def _rows(self, operations: Sequence[_Operation]) -> Sequence[Rows]:
        if len(operations) > 1:
            return await self._several([operation.arguments for operation in operations])
        [operation] = operations
        return [await self._one(operation.statement, *operation.arguments)]

    def _end_unawaited(self) -> None:
        """Ends the batches of which nobody waits for any operation."""
        for task, operations in self._under_way.items():
            if all(operation.rows.done() for operation in operations):
                task.cancel()


def _answer(operations: Sequence[_Operation], answers: Sequence[Rows]) -> None:
    for operation, rows in zip(operations, answers):
        if not operation.rows.done():
            operation.rows.set_result(rows)


def _fail(operations: Sequence[_Operation], error: Exception) -> None:
    for operation in operations:
        if not operation.rows.done():
            operation.rows.set_exception(error)
