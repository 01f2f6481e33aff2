"""Many lines in one write."""

import asyncio
import logging
import os
import select
import sys
import threading
from collections import deque
from contextvars import Context
from typing import TextIO

from addrservice.logs.records import EndedRequest, RequestRecord


class BatchHandler(logging.Handler):
    """Writes many lines at once, as long after the first of them as lines may wait.

    That is where an event loop runs, which keeps the time. Lines of other threads are written at
    once, and so are errors, each with all that came before it; order is kept. A write has whole
    records and no more than a pipe takes undivided, so that those of several processes do not mix;
    only a record that is longer might. A process that is killed (SIGKILL, SIGABRT) may lose what
    waits.

    A stream that takes nothing stops nobody, until there is too much to keep: then it is waited
    for, and if it still takes nothing, lines are lost. How many, the log tells as soon as it can.

    :cvar together: of that many requests the lines are made one after the other: the processor has
        what that takes at hand then, and does it in half the time
    :cvar batch: that many writes wait for no time
    :cvar room: that many writes are kept for a stream that takes nothing
    :cvar patience: seconds that it is waited for then, and at the end

    :param stream: what has a file descriptor; standard error unless told
    :param delay: seconds that a line may wait
    :param flush_level: the name of the level from which on a record does not wait
    """

    together = 16
    batch = 16
    room = 256
    patience = 1.0

    def __init__(
        self, stream: TextIO | None = None, delay: float = 0.1, flush_level: str = 'ERROR'
    ) -> None:
        super().__init__()
        self.stream = sys.stderr if stream is None else stream
        self.delay = delay
        self.flush_level = logging.getLevelNamesMapping()[flush_level]
        self._ended: deque[EndedRequest] = deque()  # whose lines are not made yet
        self._writes: deque[bytearray] = deque()
        self._clock: asyncio.AbstractEventLoop | None = None  # that is about to call
        self._clock_thread = 0  # in which that runs
        self._failing = False
        self._lost = self._lost_told = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the line, and writes all lines if it is time."""
        self._make_lines()
        self._keep_safely(record)
        self._go_on(record.levelno, record.thread)

    def take(self, ended: EndedRequest) -> None:
        """Does with a request what ``handle`` does with its record, which is not made yet."""
        _, level, thread, *_ = ended
        self._ended.append(ended)
        if len(self._ended) < self.together and self._is_timed_in(thread):
            return
        self.acquire()
        try:
            if len(self._ended) >= self.together:
                self._make_lines()
            self._go_on(level, thread)
        finally:
            self.release()

    def _go_on(self, level: int, thread: int | None) -> None:
        """Writes all lines if it is time, or sees to it that they will be."""
        if level >= self.flush_level or len(self._writes) > self.batch:
            self._write()
        waiting = self._ended or self._writes
        if waiting and not (self._is_timed_in(thread) or self._set_alarm()):
            self._write()
        if len(self._writes) > self.room:
            self._write(self.patience)
            self._give_up()

    def flush(self) -> None:
        """Writes all lines; waits for a stream that takes nothing, but not for ever."""
        self._write(self.patience)

    def close(self) -> None:
        """Writes all lines. A later one is still written."""
        self.flush()
        super().close()

    def _make_lines(self) -> None:
        """Makes the lines of requests that have ended; filters are not to see another one."""
        if self._ended:
            Context().run(self._keep_ended)

    def _keep_ended(self) -> None:
        while self._ended:
            self._keep_safely(RequestRecord(self._ended.popleft()), is_filtered=False)

    def _keep_safely(self, record: logging.LogRecord, is_filtered: bool = True) -> None:
        try:
            # From Python 3.12 on, another record may come out of a filter.
            passed: object = record if is_filtered else self.filter(record)
            if passed:
                self._keep(passed if isinstance(passed, logging.LogRecord) else record)
        except RecursionError:  # as in logging.StreamHandler: there is no room to handle it
            raise
        except Exception:
            self.handleError(record)

    def _keep(self, record: logging.LogRecord) -> None:
        line = (self.format(record) + '\n').encode('utf-8', 'backslashreplace')
        if self._writes and len(self._writes[-1]) + len(line) <= select.PIPE_BUF:
            self._writes[-1].extend(line)
        else:
            self._writes.append(bytearray(line))

    def _is_timed_in(self, thread: int | None) -> bool:
        """Whether the event loop of a thread will have the lines written."""
        clock = self._clock
        return clock is not None and self._clock_thread == thread and clock.is_running()

    def _set_alarm(self) -> bool:
        """Has the lines written in time; False if no event loop is there to do it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        self._clock, self._clock_thread = loop, threading.get_ident()
        loop.call_later(self.delay, self._on_alarm, context=Context())
        return True

    def _on_alarm(self) -> None:
        self._clock = None
        self._write()
        if self._writes:
            self._set_alarm()

    def _write(self, patience: float = 0.0) -> None:
        """Writes what the stream takes, and waits so many seconds for it to take more."""
        self.acquire()
        try:
            self._make_lines()
            while self._writes and self._takes_something(patience):
                self._write_one()
        except BlockingIOError:  # another process was faster
            pass
        except Exception:
            self._complain()
        finally:
            self.release()

    def _takes_something(self, patience: float) -> bool:
        poll = select.poll()
        poll.register(self.stream, select.POLLOUT)
        return bool(poll.poll(1000 * patience))

    def _write_one(self) -> None:
        lines = self._writes.popleft()  # first, for what runs meanwhile may log too
        try:
            del lines[:os.write(self.stream.fileno(), lines)]
        finally:
            if lines:
                self._writes.appendleft(lines)
        self._failing = False
        if self._lost_told < self._lost:
            self._lost_told = self._lost
            self._keep(_record('%d lines have been lost so far', self._lost))

    def _complain(self) -> None:
        """Does what logging does where it fails, once until the next success."""
        if not self._failing:
            self._failing = True
            self.handleError(_record('lines are kept that cannot be written'))

    def _give_up(self) -> None:
        """Drops all that could not be written; but not the first, which may have begun to be."""
        while len(self._writes) > 1:
            self._lost += self._writes.pop().count(b'\n')


def _record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, args, None)
