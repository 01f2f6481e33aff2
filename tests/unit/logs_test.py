"""Logging: the request a line belongs to, lines nobody can forge, the line of a request."""

import io
import json
import logging
import logging.config
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, Final

import yaml

from addrservice.config import LOCAL_CONFIG
from addrservice.logs import KeyValueFormatter, RequestFilter, log_request, request_id
from tests.support import ROOT, config_document

REQUEST: Final[dict[str, Any]] = {
    'request_id': 'abc', 'method': 'GET', 'path': '/addressbook', 'status': 200,
    'milliseconds': 1.23456, 'remote': '127.0.0.1',
}

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
            log_request(self.logger, **{**REQUEST, **changes})
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
        """Times in milliseconds, to a hundredth."""
        record = self.logged()
        self.assertEqual('request', record.getMessage())
        self.assertEqual({**REQUEST, 'milliseconds': 1.23},
                         {key: vars(record)[key] for key in REQUEST})

    def test_a_request_is_one_line(self) -> None:
        stream = self.listen(local_formatter('brief'))
        log_request(self.logger, **{**REQUEST, 'path': '/a\nINFO forged'})
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
        log_request(self.logger, **REQUEST)
        logged = self.logged()
        self.assertTrue(logged.pop('asctime'))
        self.assertEqual({**REQUEST, 'milliseconds': 1.23, 'levelname': 'INFO', 'name': 'test',
                          'message': 'request'}, logged)

    def test_a_line_break_forges_no_line(self) -> None:
        log_request(self.logger, **{**REQUEST, 'path': '/a\n{"forged": true}\u2028"'})
        self.assertEqual('/a\n{"forged": true}\u2028"', self.logged()['path'])

    def test_a_traceback_is_in_the_object(self) -> None:
        self.fail_and_log()
        logged = self.logged()
        self.assertIn('LookupError: lost', logged['exc_info'])
        self.assertEqual(3, logged['tries'])


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
