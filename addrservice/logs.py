"""Logging: the request that a line belongs to, the formatter, the one line per request.

Formatters and handlers are wired up in the configuration (``logging.config.dictConfig``).
"""

import logging
from contextvars import ContextVar
from json.encoder import encode_basestring_ascii
from typing import Final

request_id: ContextVar[str | None] = ContextVar('request_id', default=None)
trace_id: ContextVar[str | None] = ContextVar('trace_id', default=None)

# What every record has of its own; everything else on it came with ``extra=`` or from a filter.
_STANDARD_ATTRIBUTES: Final = frozenset(
    vars(logging.makeLogRecord({})).keys() | {'asctime', 'message', 'taskName'}
)


class RequestFilter(logging.Filter):
    """Puts ``request_id`` and ``trace_id`` on each record that is logged on behalf of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        known = vars(record)
        for variable in (request_id, trace_id):
            current = variable.get()
            if current is not None and variable.name not in known:
                known[variable.name] = current
        return True


class KeyValueFormatter(logging.Formatter):
    """Adds what came with ``extra=`` to the line, as ``key="value"`` pairs.

    Values are escaped as in JSON, so that nobody can forge a pair or a line.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        pairs = [f' {key}={encode_basestring_ascii(str(value))}'
                 for key, value in vars(record).items()
                 if key not in _STANDARD_ATTRIBUTES]
        return super().formatMessage(record) + ''.join(pairs)


def log_request(
    logger: logging.Logger,
    *,
    request_id: str,
    method: str | None,
    path: str,
    status: int,
    milliseconds: float,
    remote: str | None,
    **more: str | None,
) -> None:
    """Logs the line of a request that has ended; the level follows its status.

    The path comes without the query: what people search for is personal.

    :param more: what is not None of: ``trace_id``; ``caller``, the name of who asked; ``failure``,
        what kept the service from doing its work
    """
    if status < 400:
        level = logging.INFO
    elif status < 500:
        level = logging.WARNING
    else:
        level = logging.ERROR
    extra: dict[str, object] = {
        'request_id': request_id,
        'method': method,
        'path': path,
        'status': status,
        'milliseconds': round(milliseconds, 2),
        'remote': remote,
    }
    extra |= {name: value for name, value in more.items() if value is not None}
    logger.log(level, 'request', extra=extra)
