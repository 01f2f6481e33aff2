"""Logging: the request a line belongs to, lines nobody can forge, many lines in one write."""

import asyncio
import contextlib
import gc
import io
import json
import logging
import logging.config
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import weakref
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final
from unittest import mock

import yaml

from addrservice.config import LOCAL_CONFIG
from addrservice.logs import (
    BatchHandler, JSONFormatter, KeyValueFormatter, RequestFilter, log_request, request_id,
    trace_id,
)
from tests.support import DEADLINE, ROOT, config_document

REQUEST: Final[dict[str, Any]] = {
    'request_id': 'abc', 'method': 'GET', 'path': '/addressbook', 'status': 200,
    'milliseconds': 1.23, 'remote': '127.0.0.1',
}


def log(logger: logging.Logger, **changes: Any) -> None:
    """Logs a request that has ended."""
    known = {**REQUEST, **changes}
    log_request(logger, known['status'], known)


# Configures logging from the JSON on its standard input, logs, and prints what root has.
CONFIGURED: Final = '''
import json, logging.config, sys
from addrservice.logs import request_id

logging.config.dictConfig(json.load(sys.stdin))
request_id.set('abc')
for name in ('addrservice', 'tornado.access', 'tornado.general', 'tornado.application'):
    logging.getLogger(name).info('from %s', name)
logging.getLogger('addrservice').debug('details from here')
print(len(logging.getLogger().handlers), logging.getLogger().level)
'''

# Logs lines with a number and a name to its standard error, with an event loop, and ends in a way.
LOGGING: Final = '''
import asyncio, logging, os, sys
from addrservice.logs import BatchHandler

async def main(name, count, end):
    for number in range(int(count)):
        logger.info('%s %s %s', name, number, 'x' * (number * 37 % 500))
        if number % 50 == 0:
            await asyncio.sleep(0)
    if end == 'raise':
        raise LookupError('lost')
    if end == '_exit':
        logging.shutdown()
        os._exit(3)
    sys.exit(end == 'exit' and 3)

logger = logging.Logger('test')
logger.addHandler(BatchHandler(delay=60))
asyncio.run(main(*sys.argv[1:]))
'''


def local_logging() -> dict[str, Any]:
    """The logging section of the local configuration."""
    document: dict[str, Any] = yaml.safe_load(LOCAL_CONFIG.read_text(encoding='utf-8'))
    section: dict[str, Any] = document['logging']
    return section


def local_formatter(name: str) -> logging.Formatter:
    """A formatter of the local configuration, made as ``dictConfig`` makes it."""
    section = local_logging()
    configurator = logging.config.DictConfigurator(section)
    made: logging.Formatter = configurator.configure_formatter(section['formatters'][name])
    return made


class LogsTestCase(unittest.TestCase):
    """A test with a logger that nobody else has."""

    def setUp(self) -> None:
        self.logger = logging.Logger('test', logging.DEBUG)

    def listen(self, formatter: logging.Formatter) -> io.StringIO:
        """Where the logger's lines go from now on."""
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        self.logger.addHandler(handler)
        return stream

    def fail_and_log(self) -> None:
        """Logs an exception with its traceback, and one extra value."""
        try:
            raise LookupError('lost')
        except LookupError:
            self.logger.exception('failed', extra={'tries': 3})


class RequestFilterTest(LogsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.filter = RequestFilter()
        token = request_id.set('abc')
        self.addCleanup(request_id.reset, token)

    def test_a_record_gets_the_id_of_the_request_in_progress(self) -> None:
        record = logging.makeLogRecord({})
        self.assertTrue(self.filter.filter(record))
        self.assertEqual('abc', vars(record)['request_id'])

    def test_a_record_gets_the_id_of_the_trace_in_progress(self) -> None:
        self.addCleanup(trace_id.reset, trace_id.set('def'))
        record = logging.makeLogRecord({})
        self.assertTrue(self.filter.filter(record))
        self.assertEqual('def', vars(record)['trace_id'])

    def test_a_record_outside_of_any_request_passes_as_it_is(self) -> None:
        request_id.set(None)
        record = logging.makeLogRecord({})
        self.assertTrue(self.filter.filter(record))
        self.assertNotIn('request_id', vars(record))

    def test_a_record_that_has_an_id_already_keeps_it(self) -> None:
        """As the line of a request has, which may be logged on behalf of another one."""
        record = logging.makeLogRecord({'request_id': 'mine'})
        self.assertTrue(self.filter.filter(record))
        self.assertEqual('mine', vars(record)['request_id'])


class KeyValueFormatterTest(LogsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stream = self.listen(KeyValueFormatter('%(levelname)s %(name)s %(message)s'))

    def test_extra_values_follow_the_message_as_pairs(self) -> None:
        self.logger.info('hello %s', 'you', extra={'path': '/a b', 'status': 200, 'who': None})
        self.assertEqual('INFO test hello you path="/a b" status="200" who="None"\n',
                         self.stream.getvalue())

    def test_a_record_without_extra_values_is_formatted_as_ever(self) -> None:
        """Nothing that a record has of its own is taken for one, on any version of Python."""
        formatter = KeyValueFormatter('%(asctime)s %(message)s')
        record = logging.makeLogRecord(
            {'msg': 'a', 'asctime': 'b', 'message': 'c', 'taskName': 'd', 'stack_info': None})
        self.assertRegex(formatter.format(record), r'^[\d:, -]+ a$')

    def test_quotes_line_breaks_and_control_characters_are_escaped(self) -> None:
        self.logger.info('hello', extra={'path': 'a" status="200\\\r\n\tINFO\x00\x1b[2J\x85\u2028'})
        self.assertEqual(
            r'INFO test hello path="a\" status=\"200\\\r\n\tINFO\u0000\u001b[2J\u0085\u2028"' '\n',
            self.stream.getvalue())

    def test_no_character_can_forge_a_line_or_a_pair(self) -> None:
        """Whatever a value has in it, here all of Unicode, it comes back from its quotes."""
        surrogates = range(0xd800, 0xe000)
        everything = ''.join(chr(code) for code in range(sys.maxunicode + 1)
                             if code not in surrogates) + '\ud800'
        self.logger.info('hello', extra={'path': everything, 'status': 200})
        line, = self.stream.getvalue().splitlines()
        self.assertTrue(line.isascii())
        value, end = json.JSONDecoder().raw_decode(line.removeprefix('INFO test hello path='))
        self.assertTrue(everything == value)  # assertEqual would print it all
        self.assertEqual(' status="200"', line.removeprefix('INFO test hello path=')[end:])

    def test_a_traceback_still_follows_the_line(self) -> None:
        self.fail_and_log()
        first, second, *_, last = self.stream.getvalue().splitlines()
        self.assertEqual('ERROR test failed tries="3"', first)
        self.assertEqual('Traceback (most recent call last):', second)
        self.assertEqual('LookupError: lost', last)


class LogRequestTest(LogsTestCase):
    def logged(self, **changes: Any) -> logging.LogRecord:
        """The one record of a request."""
        with self.assertLogs(self.logger, logging.DEBUG) as caught:
            log(self.logger, **changes)
        record, = caught.records
        return record

    def test_the_level_follows_the_status(self) -> None:
        """What the client did wrong is a warning, what the service did an error."""
        for status, level in (
            (101, 'INFO'), (200, 'INFO'), (304, 'INFO'), (399, 'INFO'),
            (400, 'WARNING'), (404, 'WARNING'), (499, 'WARNING'),
            (500, 'ERROR'), (503, 'ERROR'), (599, 'ERROR'),
        ):
            with self.subTest(status=status):
                self.assertEqual(level, self.logged(status=status).levelname)

    def test_the_line_says_who_asked_what_and_how_it_ended(self) -> None:
        record = self.logged()
        self.assertEqual('request', record.getMessage())
        self.assertEqual(REQUEST, {key: vars(record)[key] for key in REQUEST})

    def test_what_else_is_known_is_in_the_line_too(self) -> None:
        known = vars(self.logged(trace_id='t', caller='ada'))
        self.assertEqual(('t', 'ada'), (known['trace_id'], known['caller']))

    def test_what_is_below_the_level_is_no_record(self) -> None:
        self.logger.setLevel('WARNING')
        stream = self.listen(logging.Formatter())
        log(self.logger)
        self.assertEqual('', stream.getvalue())

    def test_a_record_has_all_that_logging_gives_one(self) -> None:
        """But the name of a task; and it says that it was made in the module that made it."""
        with self.assertLogs(self.logger) as caught:
            self.logger.log(logging.INFO, 'request', extra=REQUEST)
        expected, found = vars(caught.records[0]), vars(self.logged())
        self.assertEqual(list(expected), list(found))
        for name in ('name', 'msg', 'args', 'levelname', 'levelno', 'exc_info', 'exc_text',
                     'stack_info', 'thread', 'threadName', 'process', 'processName', 'status'):
            with self.subTest(name):
                self.assertEqual(expected[name], found[name])
        self.assertEqual(('records', 'records.py', 'RequestRecord'),
                         (found['module'], found['filename'], found['funcName']))

    def test_a_record_has_the_time_at_which_it_was_made(self) -> None:
        for now in (1764051237.25, 1764051238.5):  # what they have in common is kept
            with mock.patch('time.time', return_value=now):
                record = self.logged()
            self.assertEqual((now, now % 1 * 1000), (record.created, record.msecs))
            other = logging.makeLogRecord({})
            self.assertAlmostEqual(1000 * (other.created - record.created),
                                   other.relativeCreated - record.relativeCreated, delta=1)

    def test_a_record_names_the_thread_that_made_it(self) -> None:
        names = [self.logged().threadName]
        thread = threading.Thread(
            target=lambda: names.append(self.logged().threadName), name='other')
        thread.start()
        thread.join()
        self.assertEqual([threading.current_thread().name, 'other'], names)

    def test_a_request_is_one_line(self) -> None:
        stream = self.listen(local_formatter('brief'))
        log(self.logger, path='/a\nINFO forged')
        self.assertRegex(stream.getvalue(),
                         r'^[^\n]+ INFO test request request_id="abc" method="GET" '
                         r'path="/a\\nINFO forged" status="200" milliseconds="1.23" '
                         r'remote="127.0.0.1"\n\Z')


class JSONFormatterTest(LogsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stream = self.listen(local_formatter('json'))

    def logged(self) -> dict[str, Any]:
        """The one line that was logged."""
        line, end = self.stream.getvalue().split('\n')
        self.assertEqual('', end)
        value: dict[str, Any] = json.loads(line)
        return value

    def test_a_request_is_one_json_object_with_its_fields(self) -> None:
        log(self.logger)
        logged = self.logged()
        self.assertTrue(logged.pop('asctime'))
        self.assertEqual({**REQUEST, 'levelname': 'INFO', 'name': 'test',
                          'message': 'request'}, logged)

    def test_a_line_break_forges_no_line(self) -> None:
        log(self.logger, path='/a\n{"forged": true}\u2028"')
        self.assertEqual('/a\n{"forged": true}\u2028"', self.logged()['path'])

    def test_a_traceback_is_in_the_object(self) -> None:
        self.fail_and_log()
        logged = self.logged()
        self.assertIn('LookupError: lost', logged['exc_info'])
        self.assertEqual(3, logged['tries'])

    def test_a_stack_is_in_the_object(self) -> None:
        self.logger.info('here', stack_info=True)
        self.assertIn('test_a_stack_is_in_the_object', self.logged()['stack_info'])

    def test_the_format_tells_what_is_in_the_object_and_in_which_order(self) -> None:
        """What a record does not have is null."""
        record = logging.makeLogRecord({'msg': 'a', 'levelname': 'INFO', 'process': 7, 'more': 1})
        self.assertEqual(
            '{"process":7,"message":"a","request_id":null,"levelname":"INFO","more":1}',
            JSONFormatter('%(process)d %(message)s %(request_id)s %(levelname)s').format(record))

    def test_it_puts_the_message_and_the_time_on_the_record_as_logging_does(self) -> None:
        known = {'msg': 'a %s', 'args': ('b',), 'created': 1.5, 'msecs': 500.0}
        records = [logging.makeLogRecord(known) for _ in range(2)]
        logging.Formatter('%(asctime)s').format(records[0])
        JSONFormatter('%(asctime)s').format(records[1])
        self.assertEqual(*[(vars(each)['message'], vars(each)['asctime']) for each in records])

    def test_what_json_has_no_type_for_is_text(self) -> None:
        for value, expected in (
            (LookupError('lost'), 'lost'), (b'a', "b'a'"), (Path('/a'), '/a'),
            ('\ud800"', '\ud800"'), (1 << 80, 1 << 80), ({1: 2}, {'1': 2}),
        ):
            with self.subTest(value):
                formatter = JSONFormatter('%(message)s')
                line = formatter.format(logging.makeLogRecord({'msg': 'a', 'value': value}))
                self.assertEqual({'message': 'a', 'value': expected}, json.loads(line))


class TimeTest(unittest.TestCase):
    """The time in a line."""

    def test_it_is_the_same_as_in_lines_of_logging_itself(self) -> None:
        plain, ours = logging.Formatter(), KeyValueFormatter()
        for second in (0, 0, 1, 1764051237, 1764051237, 1764051238, 1764051237):
            for milliseconds in (0, 7, 999):
                record = logging.makeLogRecord(
                    {'created': second + milliseconds / 1000, 'msecs': milliseconds + 0.0})
                with self.subTest(record.created):
                    self.assertEqual(plain.formatTime(record), ours.formatTime(record))

    def test_a_format_of_its_own_is_followed(self) -> None:
        record = logging.makeLogRecord({'created': 1764051237.5})
        line = json.loads(JSONFormatter('%(asctime)s', '%Y').format(record))
        self.assertEqual({'asctime': '2025'}, line)


class BatchHandlerTestCase(unittest.IsolatedAsyncioTestCase):
    """A logger whose lines go to a pipe."""

    def setUp(self) -> None:
        self.logger = logging.Logger('test', logging.DEBUG)
        self.source, target = os.pipe()
        os.set_blocking(self.source, False)
        self.stream = os.fdopen(target, 'w')
        self.handler = BatchHandler(self.stream)
        self.handler.patience = 0.05
        self.logger.addHandler(self.handler)
        self.addCleanup(os.close, self.source)
        self.addCleanup(self.stream.close)
        self.addCleanup(self.handler.close)

    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().set_debug(False)  # it complains about what waits on purpose

    def read(self) -> str:
        """What has been written, up to the size of a pipe."""
        try:
            return os.read(self.source, 1 << 20).decode()
        except BlockingIOError:
            return ''

    async def next_lines(self, count: int) -> list[str]:
        """The lines that are written, as soon as they are so many."""
        text = ''
        async with asyncio.timeout(DEADLINE):
            while text.count('\n') < count:
                text += self.read()
                await asyncio.sleep(0.005)
        return text.splitlines()

    def fill_pipe(self) -> None:
        """Has the pipe take nothing more."""
        os.set_blocking(self.stream.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.stream.fileno(), b'x' * 4095 + b'\n')


class BatchHandlerTest(BatchHandlerTestCase):
    """When lines are written."""

    async def test_lines_of_one_moment_are_one_write(self) -> None:
        with mock.patch('os.write', wraps=os.write) as write:
            for number in range(9):
                self.logger.info('line %d', number)
            self.assertEqual('', self.read())
            lines = await self.next_lines(9)
        self.assertEqual([f'line {number}' for number in range(9)], lines)
        write.assert_called_once()

    async def test_lines_wait_as_long_as_told(self) -> None:
        for delay in (0.02, 0.3):
            self.handler.delay = delay
            begin = time.monotonic()
            self.logger.info('a')
            await self.next_lines(1)
            self.assertGreaterEqual(time.monotonic() - begin, delay - 0.001)

    async def test_an_error_is_written_at_once_with_what_came_before_it(self) -> None:
        self.logger.info('a')
        self.logger.warning('b')
        self.assertEqual('', self.read())
        self.logger.error('c')
        self.assertEqual('a\nb\nc\n', self.read())

    async def test_the_level_that_does_not_wait_is_configurable(self) -> None:
        handler = BatchHandler(self.stream, flush_level='WARNING')
        handler.handle(logging.makeLogRecord({'msg': 'a', 'levelno': logging.INFO}))
        self.assertEqual('', self.read())
        handler.handle(logging.makeLogRecord({'msg': 'b', 'levelno': logging.WARNING}))
        self.assertEqual('a\nb\n', self.read())

    async def test_what_is_too_much_for_one_moment_is_written_at_once(self) -> None:
        self.handler.batch = 2
        for number in range(25):
            self.logger.info('%d %s', number, 'x' * 400)
        self.assertGreater(self.read().count('\n'), 17)

    async def test_where_no_event_loop_runs_lines_are_written_at_once(self) -> None:
        """In order, after those that wait."""
        self.logger.info('a')
        await asyncio.to_thread(self.logger.info, 'b')
        self.assertEqual('a\nb\n', self.read())

    def test_a_line_waits_though_the_loop_of_one_before_it_has_ended(self) -> None:
        async def log_and_wait() -> None:
            self.logger.info('b')
            self.assertEqual(['a', 'b'], await self.next_lines(2))

        async def log() -> None:
            self.logger.info('a')

        asyncio.run(log())
        asyncio.run(log_and_wait())

    async def test_flush_and_close_write_what_waits(self) -> None:
        for act in (self.handler.flush, self.handler.close):
            self.logger.info('a')
            act()
            self.assertEqual('a\n', self.read())

    async def test_after_it_was_closed_lines_are_still_written(self) -> None:
        """As those of what ends after logging does."""
        self.handler.close()
        await asyncio.to_thread(self.logger.info, 'a')
        self.assertEqual('a\n', self.read())

    async def test_lines_of_many_threads_are_whole_and_in_order(self) -> None:
        def log(name: int) -> None:
            for number in range(50):
                self.logger.info('%d %d', name, number)

        threads = [asyncio.create_task(asyncio.to_thread(log, name)) for name in range(4)]
        log(4)
        await asyncio.gather(*threads)
        lines = [line.split() for line in await self.next_lines(250)]
        self.assertEqual(250, len(lines))
        for name in range(5):
            self.assertEqual(list(range(50)), [int(number) for of, number in lines
                                               if of == str(name)])

    async def test_nothing_of_a_request_is_kept_until_lines_are_written(self) -> None:
        class Kept:
            """What a context of a request has."""

        variable: ContextVar[Kept] = ContextVar('variable')

        async def log() -> weakref.ref[Kept]:
            kept = Kept()
            variable.set(kept)
            self.logger.info('a')
            return weakref.ref(kept)

        kept = await asyncio.create_task(log())
        await asyncio.sleep(0)  # the event loop lets go of it
        gc.collect()
        self.assertIsNone(kept())

    async def test_a_line_that_cannot_be_formatted_is_handled_as_logging_does(self) -> None:
        """And the next one is written."""
        with mock.patch('sys.stderr', io.StringIO()) as errors:
            self.logger.info('%d', 'a')
            self.logger.info('b')
        self.assertEqual(['b'], await self.next_lines(1))
        self.assertIn("Arguments: ('a',)", errors.getvalue())

    def test_where_the_stack_is_used_up_that_is_not_hidden(self) -> None:
        with mock.patch.object(self.handler, 'format', side_effect=RecursionError):
            self.assertRaises(RecursionError, self.logger.info, 'a')


class Noting(logging.Formatter):
    """Makes a line of the path of a request, or else of a message; notes what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def format(self, record: logging.LogRecord) -> str:
        line = str(vars(record).get('path', record.getMessage()))
        self.noted.append(line)
        return line


class Unprintable:
    """A path that no line can be made of."""

    def __str__(self) -> str:
        raise LookupError('unprintable')


class RequestLinesTest(BatchHandlerTestCase):
    """Lines of requests, many of which are formatted one after the other."""

    def setUp(self) -> None:
        super().setUp()
        self.formatter = Noting()
        self.handler.setFormatter(self.formatter)

    def log(self, *paths: object, status: int = 200) -> None:
        """Logs that many requests."""
        for path in paths:
            log(self.logger, path=path, status=status)

    def assert_formatted(self, *lines: str) -> None:
        """These, and no others yet."""
        self.assertEqual(list(lines), self.formatter.noted)

    async def test_none_is_formatted_until_sixteen_wait(self) -> None:
        """Which does not have them written yet."""
        paths = [f'/{number}' for number in range(17)]
        self.log(*paths[:15])
        self.assert_formatted()
        self.log(paths[15])
        self.assert_formatted(*paths[:16])
        self.log(paths[16])
        self.assert_formatted(*paths[:16])
        self.assertEqual('', self.read())
        self.assertEqual(paths, await self.next_lines(17))

    async def test_few_are_written_as_soon_as_other_lines_are(self) -> None:
        self.handler.delay = 0.02
        for paths in (['/a'], ['/b', '/c']):
            begin = time.monotonic()
            self.log(*paths)
            self.assertEqual(paths, await self.next_lines(len(paths)))
            self.assertGreaterEqual(time.monotonic() - begin, 0.02 - 0.001)

    async def test_they_keep_their_place_among_other_lines(self) -> None:
        """A line of another kind has all before it formatted."""
        self.log('/a', '/b')
        self.logger.info('c')
        self.assert_formatted('/a', '/b', 'c')
        self.logger.info('d')
        self.log('/e')
        self.assert_formatted('/a', '/b', 'c', 'd')
        self.logger.info('f')
        self.log('/g')
        self.assertEqual(['/a', '/b', 'c', 'd', '/e', 'f', '/g'], await self.next_lines(7))

    async def test_flush_and_close_write_them(self) -> None:
        for act in (self.handler.flush, self.handler.close):
            self.log('/a', '/b')
            act()
            self.assertEqual('/a\n/b\n', self.read())

    async def test_an_error_writes_them(self) -> None:
        """That of a request too."""
        self.log('/a', '/b')
        self.log('/c', status=500)
        self.assertEqual('/a\n/b\n/c\n', self.read())
        self.log('/d')
        self.logger.error('e')
        self.assertEqual('/d\ne\n', self.read())

    async def test_a_line_of_another_thread_writes_them(self) -> None:
        self.log('/a')
        await asyncio.to_thread(self.log, '/b')
        self.assertEqual('/a\n/b\n', self.read())

    def test_where_no_event_loop_runs_each_is_written_at_once(self) -> None:
        for path in ('/a', '/b'):
            self.log(path)
            self.assertEqual(f'{path}\n', self.read())

    async def test_one_that_cannot_be_formatted_takes_none_with_it(self) -> None:
        """Neither when the last of sixteen comes nor when they are written."""
        for count in (16, 3):
            with mock.patch('sys.stderr', io.StringIO()) as errors:
                self.log('/a', Unprintable(), *['/b'] * (count - 2))
                self.handler.flush()
            self.assertEqual('/a\n' + '/b\n' * (count - 2), self.read())
            self.assertEqual(1, errors.getvalue().count('LookupError: unprintable\n'))

    async def test_where_the_stack_is_used_up_that_is_not_hidden(self) -> None:
        """And those that have not been formatted yet are written."""
        self.log('/a', '/b')
        with mock.patch.object(self.handler, 'format', side_effect=RecursionError):
            self.assertRaises(RecursionError, self.logger.info, 'c')
        self.assertEqual(['/b'], await self.next_lines(1))

    async def test_they_pass_the_filters_of_the_handler_and_its_level(self) -> None:
        self.handler.addFilter(lambda record: vars(record)['path'] != '/b')
        self.log('/a', '/b', '/c')
        self.handler.setLevel('WARNING')
        self.log('/d')
        self.log('/e', status=404)
        self.assertEqual(['/a', '/c', '/e'], await self.next_lines(3))

    async def test_a_filter_that_fails_takes_none_with_it(self) -> None:
        def fail(record: logging.LogRecord) -> bool:
            if vars(record)['path'] == '/b':
                raise LookupError('no such path')
            return True

        self.handler.addFilter(fail)
        with mock.patch('sys.stderr', io.StringIO()) as errors:
            self.log('/a', '/b', '/c')
            self.handler.flush()
        self.assertEqual('/a\n/c\n', self.read())
        self.assertEqual(1, errors.getvalue().count('LookupError: no such path\n'))

    async def test_a_filter_does_not_see_the_request_in_which_they_are_made(self) -> None:
        self.handler.addFilter(RequestFilter())
        self.handler.setFormatter(JSONFormatter('%(message)s'))
        self.log('/a')
        token = trace_id.set('of another one')
        self.logger.info('b')
        trace_id.reset(token)
        first, second = map(json.loads, await self.next_lines(2))
        self.assertNotIn('trace_id', first)
        self.assertEqual('of another one', second['trace_id'])

    async def test_a_record_keeps_the_time_at_which_its_request_has_ended(self) -> None:
        self.handler.setFormatter(logging.Formatter('%(created)s'))
        with mock.patch('time.time', return_value=1764051237.25):
            self.log('/a')
        self.assertEqual(['1764051237.25'], await self.next_lines(1))

    async def test_a_record_names_the_thread_of_its_request(self) -> None:
        """Though a line of another thread has it made; those that follow name it, too."""
        self.logger.name = 'one of which no record was made yet'
        formatter = logging.Formatter('%(threadName)s %(thread)d %(message)s')
        self.handler.setFormatter(formatter)
        self.log('/a')
        await asyncio.to_thread(self.logger.info, 'of another thread')
        self.log('/b')
        self.handler.flush()
        mine = threading.current_thread()
        lines = self.read().splitlines()
        self.assertEqual(2 * [f'{mine.name} {mine.ident} request'], [lines[0], lines[2]])

    async def test_where_others_are_told_too_each_is_told_at_once(self) -> None:
        """Another handler, one of a logger above, or a filter of the logger itself."""
        class Seeing(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                seen.append(vars(record)['path'])

        seen: list[str] = []
        seeing = Seeing()
        self.logger.addHandler(seeing)
        self.log('/a')
        self.logger.removeHandler(seeing)
        self.logger.parent = logging.Logger('above')
        self.logger.parent.addHandler(seeing)
        self.log('/b')
        self.logger.propagate = False
        self.log('/c')
        self.logger.addFilter(lambda record: vars(record)['path'] != '/d')
        self.log('/d')
        self.assertEqual(['/a', '/b'], seen)
        self.assertEqual(['/a', '/b', '/c'], await self.next_lines(3))


class WholeLinesTest(BatchHandlerTestCase):
    """What is written at once."""

    def setUp(self) -> None:
        super().setUp()
        patched = mock.patch('addrservice.logs.batch_handler.os.write', side_effect=self.take)
        self.taken: list[bytes] = []
        self.most = 1 << 20
        patched.start()
        self.addCleanup(patched.stop)

    def take(self, descriptor: int, data: bytearray) -> int:
        """What a write does; it takes no more than ``most`` bytes."""
        self.assertEqual(self.stream.fileno(), descriptor)
        self.taken.append(bytes(data[:self.most]))
        return len(self.taken[-1])

    def log(self, messages: Sequence[str]) -> None:
        for message in messages:
            self.logger.info('%s', message)
        self.handler.flush()

    async def test_a_write_has_whole_records_and_no_more_than_a_pipe_takes_undivided(self) -> None:
        """Those of several lines too, as with a traceback."""
        messages = [f'<{number}\n{"é" * (number * 37 % 500)}>' for number in range(200)]
        self.log(messages)
        self.assertEqual('\n'.join([*messages, '']).encode(), b''.join(self.taken))
        self.assertLess(len(self.taken), 40)
        for write in self.taken:
            self.assertLessEqual(len(write), select.PIPE_BUF)
            self.assertRegex(write, rb'(?s)\A<.*>\n\Z')

    async def test_a_record_that_is_longer_is_a_write_of_its_own(self) -> None:
        long = 'x' * 2 * select.PIPE_BUF
        self.log(['a', long, 'b'])
        self.assertEqual([b'a\n', f'{long}\n'.encode(), b'b\n'], self.taken)

    async def test_a_write_that_takes_a_part_is_continued(self) -> None:
        self.most = 3
        self.log(['abcd', 'efgh'])
        self.assertEqual([b'abc', b'd\ne', b'fgh', b'\n'], self.taken)

    async def test_what_is_logged_within_a_write_is_written_once_too(self) -> None:
        """As by an object that is destroyed meanwhile."""
        def log_and_take(descriptor: int, data: bytearray) -> int:
            if not self.taken:
                self.taken.append(b'')
                self.logger.error('within')
            return self.take(descriptor, data)

        with mock.patch('addrservice.logs.batch_handler.os.write', side_effect=log_and_take):
            self.log(['a'])
        self.assertEqual([b'', b'a\n', b'within\n'], sorted(self.taken))

    async def test_half_a_surrogate_pair_is_escaped(self) -> None:
        self.log(['\ud800'])
        self.assertEqual([b'\\ud800\n'], self.taken)


class StuckStreamTest(BatchHandlerTestCase):
    """A stream that takes nothing, for a while or for ever."""

    async def test_nobody_waits_for_it_and_no_line_is_lost(self) -> None:
        """Its lines follow when it takes some again."""
        self.handler.patience = DEADLINE
        self.fill_pipe()
        begin = time.monotonic()
        for number in range(300):
            self.logger.error('line %d %s', number, 'x' * 1000)
        self.assertLess(time.monotonic() - begin, DEADLINE / 2)
        lines = await self.next_lines(300 + 16)
        self.assertEqual([f'line {number}' for number in range(300)],
                         [line.rstrip(' x') for line in lines if line.startswith('line')])

    async def test_lines_that_are_lost_are_counted_and_the_log_tells(self) -> None:
        self.handler.room = 3
        self.fill_pipe()
        for number in range(50):
            self.logger.info('line %d %s', number, 'x' * 1000)
        lines, lost = await self.next_lines_and_loss()
        self.assertEqual(50, lines + lost)
        self.fill_pipe()
        for number in range(50):
            self.logger.info('line %d %s', number, 'x' * 1000)
        more, in_all = await self.next_lines_and_loss()
        self.assertEqual(100, lines + more + in_all)

    async def next_lines_and_loss(self) -> tuple[int, int]:
        """How many lines come, up to one that tells how many were lost so far."""
        lines = ['']
        while 'lost' not in lines[-1]:
            lines += await self.next_lines(1)
        self.assertRegex(lines[-1], '^[0-9]+ lines have been lost so far$')
        return sum(line.startswith('line ') for line in lines), int(lines[-1].split()[0])

    async def test_where_there_is_too_much_to_keep_it_is_waited_for(self) -> None:
        """No line is lost if it takes some in time."""
        self.handler.room, self.handler.patience = 3, DEADLINE
        self.fill_pipe()
        reading = asyncio.create_task(asyncio.to_thread(asyncio.run, self.next_lines(50 + 16)))
        await asyncio.sleep(0)  # the thread has begun
        for number in range(50):
            self.logger.info('line %d %s', number, 'x' * 1000)
        lines = await reading
        self.assertEqual([f'line {number}' for number in range(50)],
                         [line.rstrip(' x') for line in lines if line.startswith('line')])

    async def test_at_the_end_it_is_waited_for_but_not_for_ever(self) -> None:
        self.fill_pipe()
        self.logger.info('a')
        for act in (self.handler.flush, self.handler.close):
            begin = time.monotonic()
            act()
            self.assertGreaterEqual(time.monotonic() - begin, self.handler.patience - 0.001)
        self.assertEqual('a', (await self.next_lines(17))[-1])

    async def test_another_process_may_be_faster(self) -> None:
        """The pipe had room when it was asked, and none when it was written to."""
        with mock.patch('sys.stderr', io.StringIO()) as errors, \
                mock.patch('os.write', side_effect=BlockingIOError) as write:
            self.logger.error('a')
            write.assert_called_once()
        self.assertEqual('', errors.getvalue())
        self.assertEqual(['a'], await self.next_lines(1))

    async def test_what_cannot_be_written_is_said_once_and_kept(self) -> None:
        """Where logging says what fails in it. So each time that it fails anew."""
        with mock.patch('sys.stderr', io.StringIO()) as errors:
            for number in range(2):
                with mock.patch('os.write', side_effect=OSError(28, 'No space left')):
                    for _ in range(3):
                        self.logger.error('line')
                self.logger.error('line')
                self.assertEqual('line\n' * 4, self.read())
                self.assertEqual(number + 1, errors.getvalue().count('No space left'))
        self.assertIn('lines are kept that cannot be written', errors.getvalue())

    async def test_a_reader_that_is_gone_stops_nobody(self) -> None:
        source, target = os.pipe()
        os.close(source)
        self.handler.room = 3
        with os.fdopen(target, 'w') as self.handler.stream, \
                mock.patch('sys.stderr', io.StringIO()) as errors:
            for _ in range(50):
                self.logger.error('x' * 1000)
            self.handler.close()
        self.assertEqual(1, errors.getvalue().count('BrokenPipeError'))

    async def test_without_standard_error_nothing_is_written_and_nothing_fails(self) -> None:
        with mock.patch('sys.stderr', None):
            handler = BatchHandler()
            for _ in range(3):
                handler.handle(logging.makeLogRecord({'msg': 'a', 'levelno': logging.ERROR}))
            handler.close()


class ProcessTest(unittest.TestCase):
    """Lines of processes that end, and of several."""

    def start(self, *arguments: str, stderr: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, '-B', '-c', LOGGING, *arguments], cwd=ROOT,
                                   stderr=stderr, stdin=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        return process

    def test_nothing_is_lost_however_a_process_ends(self) -> None:
        for end, status in (('return', 0), ('exit', 3), ('raise', 1), ('_exit', 3)):
            with self.subTest(end):
                process = self.start('a', '30', end, stderr=subprocess.PIPE)
                _, errors = process.communicate(timeout=DEADLINE)
                self.assertEqual(status, process.returncode, errors)
                lines = [line for line in errors.splitlines() if line.startswith(b'a ')]
                self.assertEqual(list(range(30)), [int(line.split()[1]) for line in lines])

    def test_lines_of_several_processes_on_one_pipe_do_not_mix(self) -> None:
        source, target = os.pipe()
        processes = [self.start(name, '1000', 'return', stderr=target) for name in 'abc']
        os.close(target)
        with os.fdopen(source, 'rb') as stream:
            self.assert_whole(stream.read().decode())
        self.assertEqual([0, 0, 0], [process.wait(DEADLINE) for process in processes])

    def test_lines_of_several_processes_in_one_file_do_not_mix(self) -> None:
        with tempfile.TemporaryFile('w+b') as file:
            processes = [self.start(name, '1000', 'return', stderr=file.fileno()) for name in 'abc']
            self.assertEqual([0, 0, 0], [process.wait(DEADLINE) for process in processes])
            file.seek(0)
            self.assert_whole(file.read().decode())

    def assert_whole(self, text: str) -> None:
        """All lines of each process are there, whole and in order."""
        lines = text.splitlines()
        for name in 'abc':
            self.assertEqual([f'{name} {number} ' + 'x' * (number * 37 % 500)
                              for number in range(1000)],
                             [line for line in lines if line.startswith(name)])
        self.assertEqual(3000, len(lines))


class LocalConfigurationTest(unittest.TestCase):
    def test_the_text_formatters_add_extra_values(self) -> None:
        for name in ('brief', 'detailed'):
            with self.subTest(formatter=name):
                self.assertIsInstance(local_formatter(name), KeyValueFormatter)

    def test_no_root_logger_is_configured(self) -> None:
        """Libraries that nobody asked stay as quiet as they are."""
        section = local_logging()
        self.assertNotIn('root', section)
        self.assertNotIn('', section['loggers'])
        self.assertNotIn('root', section['loggers'])

    def test_it_works_and_leaves_the_root_logger_alone(self) -> None:
        """Lines go to the file and, but for debugging ones, to the console, with the request.

        What tornado.general says below a warning quotes what clients sent, and goes nowhere.
        """
        with tempfile.TemporaryDirectory() as folder:
            document = config_document(Path(folder))
            done = subprocess.run(
                [sys.executable, '-B', '-W', 'error', '-c', CONFIGURED], cwd=ROOT, text=True,
                input=json.dumps(document['logging']), capture_output=True, timeout=60, check=True)
            file = Path(folder, 'service.log').read_text(encoding='utf-8')
        self.assertEqual(f'0 {logging.WARNING}\n', done.stdout)
        for lines, count in ((done.stderr.splitlines(), 3), (file.splitlines(), 4)):
            self.assertEqual(count, len(lines), lines)
            for line in lines:
                self.assertRegex(line, r' from \S+ request_id="abc"$')


if __name__ == '__main__':
    unittest.main()
