"""What ``SQLAddressBookDB`` needs of a SQL database, whichever it is.

A connector runs one statement and turns what its driver raises into the error tree. Each driver
has a module of its own, which is imported where the configuration names its database.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

T = TypeVar('T')
Value = str | int | None
Row = Iterable[Any]
Rows = Sequence[Row]


class Connections(NamedTuple):
    """What the connections to the database are doing.

    :param in_use: serve an operation
    :param free: may still be taken, whether they are open or not
    """

    in_use: int
    free: int


class SQLConnector(ABC):
    """Connections to one database. Arguments stand as ``$1``, ``$2`` ... in a statement.

    Every method but ``start`` and ``stop`` raises ``StoreError`` or one of its subclasses when the
    database or its driver fails. An operation may be cancelled at any time; what was cancelled may
    have been done nevertheless.

    :cvar system: what the database is called in OpenTelemetry's semantic conventions
    :cvar is_remote: whether a statement is a way there and back, which several had better share
    :cvar key_type: the SQL type of a text that sorts by code points
    :cvar find_table: a statement that gives a row if there is a table named ``$1``
    :cvar items: a table of the items of the JSON array ``$1``, each in the column ``value``
    :cvar member: the text or number at a place, ``{}``, of the JSON array ``value``
    :cvar join: adds to each of these items the one row of a table, ``{0}``, for which there is an
        equality, ``{1}``; finds it by its key, however small the table was when this was planned
    """

    system: ClassVar[str]
    is_remote: ClassVar[bool]
    key_type: ClassVar[str]
    find_table: ClassVar[str]
    items: ClassVar[str]
    member: ClassVar[str]
    join: ClassVar[str]

    @abstractmethod
    async def start(self) -> None:
        """Makes ready to connect; connections are made when they are needed.

        :raises StartError: this database can never be used
        """

    @abstractmethod
    async def stop(self) -> None:
        """Closes all connections, in bounded time."""

    @abstractmethod
    def connections(self) -> Connections:
        """How many connections there are. May be called from any thread."""

    @abstractmethod
    async def read(self, statement: str, *arguments: Value) -> Rows:
        """The rows that a statement gives which changes nothing."""

    @abstractmethod
    async def write(self, statement: str, *arguments: Value) -> Rows:
        """Runs a statement and commits; gives the rows that it returns.

        :raises OutcomeUnknownError: no answer came; it may have been committed
        """

    @abstractmethod
    async def run_exclusively(self, statements: Sequence[str]) -> None:
        """Runs statements in one transaction, with no other of this kind at the same time."""

    async def check(self, statement: str) -> None:
        """Returns when the database can be used, as far as a statement can tell."""
        await self.write(statement)


def start_task(work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[T]]) -> asyncio.Task[T]:
    """Starts a task, which is among the tasks while it runs, and may fail unheard."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(hear)
    return task


def hear(task: asyncio.Task[Any]) -> None:
    """Takes note of how a task has ended: where nobody does, asyncio logs its error."""
    if not task.cancelled():
        task.exception()
