"""How lines look."""

import json
import logging
import re
import time
from json.encoder import encode_basestring_ascii
from typing import Any

import orjson

from addrservice.logs.records import extras


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
                 for key, value in extras(record).items()]
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
        line |= extras(record)
        return _dump(line)


def _dump(line: dict[str, Any]) -> str:
    try:
        return orjson.dumps(line).decode()
    except TypeError:  # no type of JSON, half a surrogate pair, a great integer, an odd key
        return json.dumps(line, default=str, separators=(',', ':'))
