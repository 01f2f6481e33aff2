"""Logging: the request that a line belongs to, how lines look, the one line per request.

Formatters and handlers are wired up in the configuration (``logging.config.dictConfig``).
"""

import asyncio
import json
import logging
import os
import re
import select
import sys
import threading
import time
from collections import deque
from contextvars import Context, ContextVar
from functools import lru_cache
from itertools import islice
from json.encoder import encode_basestring_ascii
from typing import Any, Final, TextIO

import orjson

request_id: ContextVar[str | None] = ContextVar('request_id', default=None)
trace_id: ContextVar[str | None] = ContextVar('trace_id', default=None)

# What every record has of its own, from its making on; then what formatters put on it.
_OWN_ATTRIBUTES: Final = tuple(vars(logging.makeLogRecord({})))
_STANDARD_ATTRIBUTES: Final = frozenset({*_OWN_ATTRIBUTES, 'asctime', 'message', 'taskName'})


class RequestFilter(logging.Filter):
    """Puts ``request_id`` and ``trace_id`` on each record that is logged on behalf of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        known = vars(record)
        if 'request_id' not in known and (current := request_id.get()) is not None:
            known['request_id'] = current
        if 'trace_id' not in known and (current := trace_id.get()) is not None:
            known['trace_id'] = current
        return True


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    """What came with ``extra=`` or from a filter; it stands after what a record is made with."""
    added = islice(vars(record).items(), len(_OWN_ATTRIBUTES), None)
    return {name: value for name, value in added if name not in _STANDARD_ATTRIBUTES}


class _Formatter(logging.Formatter):
    """Formats the time once a second, all but the milliseconds."""

    _second: tuple[int, str] = (-1, '')

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        if datefmt:
            return super().formatTime(record, datefmt)
        second, text = self._second
        if second != int(record.created):
            second = int(record.created)
            text = time.strftime(self.default_time_format, self.converter(second))
            self._second = second, text  # at once, for other threads
        return '%s,%03d' % (text, record.msecs)


class KeyValueFormatter(_Formatter):
    """Adds what came with ``extra=`` to the line, as ``key="value"`` pairs.

    Values are escaped as in JSON, so that nobody can forge a pair or a line.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        pairs = [f' {key}={encode_basestring_ascii(str(value))}'
                 for key, value in _extras(record).items()]
        return super().formatMessage(record) + ''.join(pairs)


class JSONFormatter(_Formatter):
    """One JSON object a line: what the format names, a traceback, and what came with ``extra=``.

    What JSON has no type for is in it as text.
    """

    def __init__(
        self,
        fmt: str = '%(asctime)s %(levelname)s %(name)s %(message)s',
        datefmt: str | None = None,
    ) -> None:
        super().__init__(fmt, datefmt)
        self._names = re.findall(r'%\((\w+)\)', fmt)

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record, self.datefmt)
        known = vars(record)
        line: dict[str, Any] = {name: known.get(name) for name in self._names}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line['exc_info'] = record.exc_text
        if record.stack_info:
            line['stack_info'] = self.formatStack(record.stack_info)
        line |= _extras(record)
        return _dump(line)


def _dump(line: dict[str, Any]) -> str:
    try:
        return orjson.dumps(line).decode()
    except TypeError:  # no type of JSON, half a surrogate pair, a great integer, an odd key
        return json.dumps(line, default=str, separators=(',', ':'))


class BatchHandler(logging.Handler):
    """Writes many lines at once, as long after the first of them as lines may wait.

    That is where an event loop runs, which keeps the time. Lines of other threads are written at
    once, and so are errors, each with all that came before it; order is kept. A write has whole
    records and no more than a pipe takes undivided, so that those of several processes do not mix;
    only a record that is longer might. A process that is killed (SIGKILL, SIGABRT) may lose what
    waits.

    A stream that takes nothing stops nobody, until there is too much to keep: then it is waited
    for, and if it still takes nothing, lines are lost. How many, the log tells as soon as it can.

    :cvar together: that many lines of requests are formatted one after the other: the processor
        has what that takes at hand then, and does it in half the time
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
        self._records: deque[logging.LogRecord] = deque()  # of requests, that are not lines yet
        self._writes: deque[bytearray] = deque()
        self._clock: asyncio.AbstractEventLoop | None = None  # that is about to call
        self._clock_thread = 0  # in which that runs
        self._failing = False
        self._lost = self._lost_told = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the line, and writes all lines if it is time."""
        self._records.append(record)
        if not isinstance(record, _RequestRecord) or len(self._records) >= self.together:
            self._format_records()
        if record.levelno >= self.flush_level or len(self._writes) > self.batch:
            self._write()
        waiting = self._records or self._writes
        if waiting and not (self._is_timed_in(record.thread) or self._set_alarm()):
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

    def _format_records(self) -> None:
        while self._records:
            record = self._records.popleft()
            try:
                self._keep(record)
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
            self._format_records()
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


def log_request(
    logger: logging.Logger,
    *,
    request_id: str,
    method: str | None,
    path: str,
    status: int,
    milliseconds: float,
    remote: str | None,
    trace_id: str | None = None,
    caller: str | None = None,
    failure: str | None = None,
) -> None:
    """Logs the line of a request that has ended; the level follows its status.

    The path comes without the query: what people search for is personal.

    :param caller: the name of who asked
    :param failure: what kept the service from doing its work
    """
    level = _level(status)
    if not logger.isEnabledFor(level):
        return
    known: dict[str, object] = {
        'request_id': request_id,
        'method': method,
        'path': path,
        'status': status,
        'milliseconds': round(milliseconds, 2),
        'remote': remote,
    }
    if trace_id is not None:
        known['trace_id'] = trace_id
    if caller is not None:
        known['caller'] = caller
    if failure is not None:
        known['failure'] = failure
    logger.handle(_RequestRecord(logger.name, level, known))


def _level(status: int) -> int:
    if status < 400:
        return logging.INFO
    return logging.WARNING if status < 500 else logging.ERROR


class _RequestRecord(logging.LogRecord):
    """As ``Logger.log`` makes it, but of what all of them have in common, in a third of the time.

    :param known: what it has besides
    """

    def __init__(self, logger: str, level: int, known: dict[str, object]) -> None:
        common = _common_attributes(logger, level, threading.get_ident())
        now = time.time()
        mine = self.__dict__ = common.copy()
        mine['created'] = now
        mine['msecs'] = now % 1 * 1000 // 1
        mine['relativeCreated'] = common['relativeCreated'] + (now - common['created']) * 1000
        mine.update(known)


@lru_cache
def _common_attributes(logger: str, level: int, thread: int) -> dict[str, Any]:
    """What the records of requests have in common; the name of a task is none of it."""
    record = logging.LogRecord(
        logger, level, __file__, log_request.__code__.co_firstlineno, 'request', (), None,
        log_request.__name__)
    return {name: None if name == 'taskName' else value for name, value in vars(record).items()}


# To ask for the process id each time would take a third as long as all the rest of a record.
os.register_at_fork(after_in_child=_common_attributes.cache_clear)
