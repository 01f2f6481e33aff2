"""The one line per request."""

import logging
import threading
import time

from addrservice.logs.batch_handler import BatchHandler
from addrservice.logs.records import RequestRecord


def log_request(logger: logging.Logger, status: int, known: dict[str, object]) -> None:
    """Logs the line of a request that has ended; the level follows its status.

    :param known: what is in the line, and is not changed any more
    """
    level = _level(status)
    if not logger.isEnabledFor(level):
        return
    ended = logger.name, level, threading.get_ident(), time.time(), known
    handler = _only_handler(logger)
    if handler is not None and handler.level <= level < handler.flush_level:
        handler.take(ended)
    else:
        logger.handle(RequestRecord(ended))


def _only_handler(logger: logging.Logger) -> BatchHandler | None:
    """The handler that gets all that a logger is given, if it is one that can make records."""
    goes_on = logger.propagate and logger.parent is not None
    if goes_on or logger.filters or len(logger.handlers) != 1:
        return None
    [handler] = logger.handlers
    return handler if isinstance(handler, BatchHandler) else None


def _level(status: int) -> int:
    if status < 400:
        return logging.INFO
    return logging.WARNING if status < 500 else logging.ERROR
