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

    What comes when nothing is under way is done at once. What comes later waits until that has
    ended, and is done in one statement with all that has come meanwhile: so the more there is to
    do, the less each operation costs. It does not wait long for what takes long, nor where there is
    enough for a whole batch: then that begins beside the others. Each operation has its own
    outcome, and may be cancelled.

    :param one: does an operation by its statement
    :param several: does some by one statement; gives the rows of each
    :param limit: no batch begins while so many statements are under way
    :param patience: seconds after which a statement takes long; without any, none is waited for
    """

    def __init__(
        self,
        one: Callable[..., Awaitable[Rows]],
        several: Callable[[Sequence[Arguments]], Awaitable[Sequence[Rows]]],
        limit: int,
        patience: float = 0,
    ) -> None:
        self._one = one
        self._several = several
        self._limit = limit
        self._patience = patience
        self._under_way = 0
        self._soon_done: set[object] = set()  # those under way that are worth waiting for
        self._is_beginning = False  # one that has not taken its operations yet
        self._waiting: list[_Operation] = []
        self._awaited: dict[asyncio.Task[Any], Sequence[_Operation]] = {}  # of those under way
        self._tasks: set[asyncio.Task[None]] = set()

    async def do(self, statement: str, *arguments: Value) -> Rows:
        """Does an operation; gives its rows."""
        if not self._under_way and not self._waiting:
            with self._one_more():
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
    def _one_more(self) -> Iterator[None]:
        """A statement is under way while this goes on."""
        mine = object()
        self._under_way += 1
        timer = None
        if self._patience:
            self._soon_done.add(mine)
            loop = asyncio.get_running_loop()
            timer = loop.call_later(self._patience, self._lose_patience, mine)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            self._under_way -= 1
            self._lose_patience(mine)

    def _lose_patience(self, statement: object) -> None:
        """Nothing waits for that statement from now on."""
        self._soon_done.discard(statement)
        self._begin()

    def _begin(self) -> None:
        """Begins a batch, if there is something for it to do."""
        has_reason = len(self._waiting) >= SIZE or (self._waiting and not self._soon_done)
        if has_reason and self._under_way < self._limit and not self._is_beginning:
            self._is_beginning = True
            start_task(self._do_waiting(), self._tasks)

    async def _do_waiting(self) -> None:
        self._is_beginning = False
        operations, self._waiting = self._waiting[:SIZE], self._waiting[SIZE:]
        await self._do_together(operations)

    async def _do_together(self, operations: Sequence[_Operation]) -> None:
        """Does those that somebody waits for; each alone where one may be to blame for a failure.
        """
        awaited = [each for each in operations if not each.rows.done()]
        if not awaited:
            self._begin()  # for what is left
            return
        task = asyncio.current_task()
        assert task is not None
        self._awaited[task] = awaited
        try:
            # The next batch begins before these are answered: the database need not wait for that.
            with self._one_more():
                self._begin()  # for what is left
                answers = await self._rows(awaited)
            _answer(awaited, answers)
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
        finally:
            del self._awaited[task]

    async def _rows(self, operations: Sequence[_Operation]) -> Sequence[Rows]:
        if len(operations) > 1:
            return await self._several([operation.arguments for operation in operations])
        [operation] = operations
        return [await self._one(operation.statement, *operation.arguments)]

    def _end_unawaited(self) -> None:
        """Ends the batches of which nobody waits for any operation."""
        for task, operations in self._awaited.items():
            if all(operation.rows.done() for operation in operations):
                task.cancel()


def _answer(operations: Sequence[_Operation], answers: Sequence[Rows]) -> None:
    for operation, rows in zip(operations, answers, strict=True):
        if not operation.rows.done():
            operation.rows.set_result(rows)


def _fail(operations: Sequence[_Operation], error: Exception) -> None:
    for operation in operations:
        if not operation.rows.done():
            operation.rows.set_exception(error)
