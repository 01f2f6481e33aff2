"""What a request goes through in the service, one function at a time, and what others would do.

    python -m bench.functions time [--first 0] [--seconds 0.3]    # nanoseconds of a call, as JSON
    python -m bench.functions count    # for valgrind, which is told where a count begins and ends

All run in an event loop, as they do in the service, and without the garbage collector.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import statistics
import time
import timeit
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import repeat
from typing import Final

import uuid_utils
from jsonschema import Draft7Validator
from tornado.httputil import (
    HTTPHeaders, HTTPServerRequest, RequestStartLine, ResponseStartLine, parse_request_start_line,
)

from addrservice import ENTRY_SCHEMA, logs, request_span, tracing
from addrservice.answer_headers import AnswerHeaders
from addrservice.collectors.prometheus import PrometheusCollector
from addrservice.http_server.answering import answer_head
from addrservice.http_server.messages import MessageParser
from addrservice.tracing import AbstractTraceCollector, Span, trace
from addrservice.validation import parse_json, serialise_entry
from bench.entries import SIZES, encoded

Call = Callable[[], object]
Case = Callable[[ExitStack], Call]  # what the call needs is ended with the stack

JSONSCHEMA: Final = ', json and jsonschema'
PYDANTIC: Final = ', pydantic'
STANDARD: Final = ', standard library'
TORNADO: Final = ', Tornado'

MARK: Final = 'getloadavg'  # a function of the C library, and of os, that nothing else calls
MARKS: Final = 3  # for each

_LEAST: Final = 0.002  # seconds that are worth timing
_COUNTED: Final = 0.2  # seconds under valgrind that are worth counting
_MOST: Final = 300  # calls that are counted

_ID: Final = '018bcfe56b81757085e1164a8394aace'
_TRACE: Final = '4bf92f3577b34da6a3ce929d0e0e4736'
_ROUTE: Final = '/addressbook/{id}'
_FIELDS: Final = {
    'Host': 'addressbook.example.org', 'User-Agent': 'python-requests/2.32.5',
    'Accept-Encoding': 'gzip, deflate', 'Accept': 'application/json', 'Connection': 'keep-alive',
    'X-Request-Id': _ID,
}


def cases() -> Mapping[str, Case]:
    """All of them, by name. What others do has the name of ours with theirs behind it."""
    return {
        'a call of nothing': lambda _: lambda: None,
        **_entry_cases(),
        'parse_json, usual entry': partial(_parse, encoded('usual')),
        'serialise_entry, usual entry': partial(_serialise, encoded('usual')),
        'id': lambda _: lambda: uuid_utils.uuid7().hex,
        f'id{STANDARD}': lambda _: lambda: uuid.uuid4().hex,
        'log line': _log_line,
        f'log line{STANDARD}': _plain_log_line,
        'traced call': partial(_traced, 0),
        'traced call, 1 collector': partial(_traced, 1),
        'traced call, 3 collectors': partial(_traced, 3),
        'span of a request': lambda stack: _request(_Deaf(), stack),
        'span of a request, metrics': lambda stack: _request(PrometheusCollector(), stack),
        'head of an answer': _head,
        'GET parsed': partial(_parsed, _message('GET')),
        f'GET parsed{TORNADO}': partial(_parsed_by_tornado, _message('GET')),
        'POST parsed': partial(_parsed, _message('POST', encoded('usual'))),
        f'POST parsed{TORNADO}': partial(_parsed_by_tornado, _message('POST', encoded('usual'))),
    }


def _entry_cases() -> Mapping[str, Case]:
    """From the bytes of a request to what a store is given."""
    found: dict[str, Case] = {}
    for size in SIZES:
        body = encoded(size)
        found[f'{size} entry'] = partial(_entry, body)
        found[f'{size} entry{JSONSCHEMA}'] = partial(_entry_by_jsonschema, body)
        found[f'{size} entry{PYDANTIC}'] = partial(_entry_by_pydantic, body)
    return found


def _entry(body: bytes, _: ExitStack) -> Call:
    return lambda: serialise_entry(parse_json(body))


def _entry_by_jsonschema(body: bytes, _: ExitStack) -> Call:
    validate = Draft7Validator(ENTRY_SCHEMA).validate

    def call() -> bytes:
        entry = json.loads(body)
        validate(entry)
        return json.dumps(entry).encode()

    return call


def _entry_by_pydantic(body: bytes, _: ExitStack) -> Call:
    from bench.peers.fastapi_pydantic import Entry  # which needs FastAPI, the others do not
    return lambda: Entry.model_validate_json(body).document()


def _parse(body: bytes, _: ExitStack) -> Call:
    return lambda: parse_json(body)


def _serialise(body: bytes, _: ExitStack) -> Call:
    entry = parse_json(body)
    return lambda: serialise_entry(entry)


def _logger(handler: logging.Handler, stack: ExitStack) -> logging.Logger:
    """With the request's id on its lines, as the service has it."""
    logs.request_id.set(_ID)
    handler.addFilter(logs.RequestFilter())
    stack.callback(handler.close)
    logger = logging.Logger('tornado.access', logging.INFO)
    logger.addHandler(handler)
    return logger


def _log_line(stack: ExitStack) -> Call:
    handler = logs.BatchHandler(stack.enter_context(open(os.devnull, 'w', encoding='utf-8')))
    handler.setFormatter(logs.JSONFormatter())
    logger = _logger(handler, stack)
    return lambda: logs.log_request(logger, 200, {
        'request_id': _ID, 'method': 'GET', 'path': f'/addressbook/{_ID}', 'status': 200,
        'milliseconds': 0.5, 'remote': '127.0.0.1', 'trace_id': _TRACE})


def _plain_log_line(stack: ExitStack) -> Call:
    handler = logging.StreamHandler(
        stack.enter_context(open(os.devnull, 'w', encoding='utf-8')))
    handler.setFormatter(logging.Formatter(
        '%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s'))
    logger = _logger(handler, stack)
    return lambda: logger.info(
        '%s %s %d %.2fms (%s) %s', 'GET', f'/addressbook/{_ID}', 200, 0.5, '127.0.0.1', _TRACE)


class _Deaf(AbstractTraceCollector):
    """Costs no more than to be told."""

    def enter(self, span: Span) -> None:
        pass

    def exit(self, span: Span) -> None:
        pass


@trace()
def _do_nothing() -> None:
    pass


def _traced(count: int, stack: ExitStack) -> Call:
    collectors = [_Deaf() for _ in range(count)]
    stack.enter_context(tracing.collecting(collectors, logging.getLogger(__name__)))
    return _do_nothing


def _request(collector: AbstractTraceCollector, stack: ExitStack) -> Call:
    stack.enter_context(tracing.collecting([collector], logging.getLogger(__name__)))
    request = HTTPServerRequest(
        headers=HTTPHeaders(_FIELDS),
        start_line=RequestStartLine('GET', f'/addressbook/{_ID}', 'HTTP/1.1'))

    def call() -> None:
        span = request_span.begin(request, _ROUTE)
        assert span is not None
        request_span.end(span, request, request_id=_ID, route=_ROUTE, status=200, sizes=(0, 900),
                         caller=None)

    return call


def _head(_: ExitStack) -> Call:
    line, fields = ResponseStartLine('HTTP/1.1', 200, 'OK'), AnswerHeaders({
        'Server': 'addrservice', 'Content-Type': 'application/json; charset=UTF-8',
        'Date': 'Mon, 30 Nov 2026 11:00:00 GMT', 'X-Content-Type-Options': 'nosniff',
        'Cache-Control': 'private, no-cache', 'Last-Modified': 'Mon, 30 Nov 2026 11:00:00 GMT',
        'Etag': '"6441ee4ff9f3b"', 'X-Request-Id': _ID, 'Content-Length': '900'})
    return lambda: answer_head(line, fields)


def _message(method: str, body: bytes = b'') -> bytes:
    """A request as clients send it."""
    fields = {**_FIELDS, **({'Content-Type': 'application/json', 'Content-Length': str(len(body))}
                            if body else {})}
    lines = ''.join(f'{name}: {value}\r\n' for name, value in fields.items())
    return f'{method} /addressbook/{_ID} HTTP/1.1\r\n{lines}\r\n'.encode() + body


def _parsed(message: bytes, stack: ExitStack) -> Call:
    parser = MessageParser(65_536)
    stack.callback(parser.close)

    def call() -> None:
        parser.feed(message)
        parser.messages.clear()

    return call


def _parsed_by_tornado(message: bytes, _: ExitStack) -> Call:
    """With the functions that Tornado's connection calls, of which none touches the body."""
    head = message.partition(b'\r\n\r\n')[0]

    def call() -> object:
        line, _, fields = head.decode('latin1').partition('\r\n')
        return parse_request_start_line(line), HTTPHeaders.parse(fields)

    return call


def time_call(call: Call, seconds: float) -> dict[str, float]:
    """Nanoseconds of a call: the median and the least of many measurements."""
    timer, number = timeit.Timer(call), 1
    while timer.timeit(number) < _LEAST:
        number *= 2
    taken, end = [timer.timeit(number)], time.perf_counter() + seconds
    while time.perf_counter() < end:
        taken.append(timer.timeit(number))
    return {'ns': statistics.median(taken) / number * 1e9, 'least ns': min(taken) / number * 1e9}


async def time_all(first: int, seconds: float) -> dict[str, dict[str, float]]:
    """Nanoseconds of each, by name.

    :param first: the number of the one to begin with
    """
    named = [*cases().items()]
    found = {}
    for name, case in named[first:] + named[:first]:
        with ExitStack() as stack:
            found[name] = time_call(case(stack), seconds)
    return {name: found[name] for name, _ in named}


async def count_all() -> dict[str, int]:
    """Calls each of them often between marks; gives how often, by name.

    That often between the first two marks, three times as often between the last two.
    """
    gc.disable()
    found = {}
    for name, case in cases().items():
        with ExitStack() as stack:
            found[name] = _count(case(stack))
    return found


def _count(call: Call) -> int:
    number = _calls_to_count(call)
    os.getloadavg()
    _repeat(call, number)
    os.getloadavg()
    _repeat(call, 3 * number)
    os.getloadavg()
    return number


def _calls_to_count(call: Call) -> int:
    """Those that are worth it; and makes as many, until nothing happens for the first time."""
    began = time.perf_counter()
    for number in range(1, _MOST + 1):
        call()
        if time.perf_counter() - began > _COUNTED:
            break
    return number


def _repeat(call: Call, number: int) -> None:
    for _ in repeat(None, number):
        call()


def main() -> None:
    """Prints what the command line names."""
    parser = argparse.ArgumentParser(description='Measures functions of the service.')
    parser.add_argument('what', choices=['time', 'count'])
    parser.add_argument('--first', type=int, default=0, help='the one to begin with')
    parser.add_argument('--seconds', type=float, default=0.3, help='for each')
    options = parser.parse_args()
    print(json.dumps(asyncio.run(time_all(options.first, options.seconds)
                                 if options.what == 'time' else count_all())))


if __name__ == '__main__':
    main()
