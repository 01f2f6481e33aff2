"""Logging: the request that a line belongs to, how lines look, the one line per request.

Formatters and handlers are wired up in the configuration (``logging.config.dictConfig``).
"""

from addrservice.logs.batch_handler import BatchHandler
from addrservice.logs.formatters import JSONFormatter, KeyValueFormatter
from addrservice.logs.records import RequestFilter, request_id, trace_id
from addrservice.logs.requests import log_request

__all__ = [
    'BatchHandler', 'JSONFormatter', 'KeyValueFormatter', 'RequestFilter', 'log_request',
    'request_id', 'trace_id',
]
