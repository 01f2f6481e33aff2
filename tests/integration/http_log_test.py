"""Request ids, and what is logged: one line per request, and nothing that a client sent."""

import json
import logging
import signal
import tempfile
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from unittest import mock

import yaml
from tornado.httputil import HTTPHeaders, RequestStartLine

from addrservice import LOGGER_NAME
from addrservice.config import Settings
from addrservice.logs import RequestFilter
from addrservice.tracing import collecting
from tests.http_contract import PATCH_JSON
from tests.stores import Buggy, Locked, Sluggish, Unreachable
from tests.support import (
    JSON, ROOT, ServerProcess, address, config_document, make_settings, running_server, wait_until,
)
from tests.wire import (
    CHUNKED, MALFORMED, MALFORMED_BODIES, SECRET, SMALL, UNFRAMED, Connection, Lines, WireTestCase,
    padded, post_head, request,
)

LIMIT: Final = 2000  # bytes of a body


class RequestIDTest(WireTestCase):
    """X-Request-ID."""

    async def test_a_sane_request_id_is_kept_in_answers_and_errors(self) -> None:
        for sent in ('a', 'req-1', 'A.b_c:d/e+f=g@h', 'x' * 128):
            for path, status in (('/healthz', 200), ('/addressbook', 200), ('/nowhere', 404)):
                with self.subTest(sent, path=path):
                    answer = await self.fetch('GET', path, None, {'X-Request-ID': sent})
                    self.assertEqual((status, sent), (answer.code, answer.headers['X-Request-ID']))
                    if status == 404:
                        self.assert_error(answer, 404)

    async def test_every_kind_of_answer_carries_the_request_id(self) -> None:
        location = await self.post({'name': 'Ada'})
        for method, path, body in (
            ('POST', '/addressbook', SMALL), ('POST', '/addressbook', b'{'),
            ('GET', location, None), ('PUT', location, SMALL), ('PUT', location, b'{}'),
            ('PATCH', location, SMALL), ('BREW', location, SMALL), ('HEAD', location, None),
            ('OPTIONS', location, None), ('GET', '/addressbook?limit=0', None),
            ('DELETE', location, None), ('GET', location, None), ('GET', '/addressbook/%FF', None),
        ):
            with self.subTest(f'{method} {path} {body!r}'):
                condition = {'If-None-Match': '*'} if method == 'GET' else {}
                headers = {**JSON, **condition, 'X-Request-ID': 'mine'}
                answer = await self.fetch(method, path, body, headers)
                self.assertEqual('mine', answer.headers['X-Request-ID'])
                if answer.code >= 400:
                    self.assert_error(answer, answer.code)

    async def test_an_odd_or_missing_request_id_is_replaced(self) -> None:
        seen = set()
        cases = (b'', b'X-Request-ID: \r\n', b'X-Request-ID: a b\r\n', b'X-Request-ID: a\tb\r\n',
                 b'X-Request-ID: a"b\r\n', b'X-Request-ID: \xe9\r\n', b'X-Request-ID: a{}\r\n',
                 b'X-Request-ID: ' + b'x' * 129 + b'\r\n',
                 b'X-Request-ID: a\r\nX-Request-ID: a\r\n')
        for field in cases:
            with self.subTest(field):
                head = b'GET /nowhere HTTP/1.1\r\nHost: x\r\n' + field + b'\r\n'
                answer = await self.exchange(head)
                self.assert_error(answer, 404)
                made = answer.headers['X-Request-ID']
                self.assertRegex(made, '^[0-9a-f]{32}$')
                seen.add(made)
        self.assertEqual(len(cases), len(seen))

    async def test_a_request_id_with_control_characters_is_never_repeated(self) -> None:
        for character in (b'\x00', b'\x01', b'\x0b', b'\x1b', b'\x7f'):
            with self.subTest(character), self.logged() as logged:
                head = b'GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Request-ID: evil' + character
                answer = await self.exchange(head + b'\r\n\r\n')
                self.assertIn(answer.status, (400, 404))
                self.assertNotIn('evil', str(answer.headers))
                self.assertNotIn(character.decode(), '\n'.join(logged.lines))


class UnreachableStoreTest(WireTestCase):
    """Requests about which the service has something to say."""

    def make_store(self) -> Unreachable:
        return Unreachable()

    async def test_every_line_logged_for_a_request_has_its_id_and_no_other(self) -> None:
        """What the store says is logged for the first request; all are on one connection."""
        connection = await self.connect()
        with self.logged() as logged:
            for sent in ('first', 'second', 'third'):
                await connection.exchange(request('GET', '/readiness', f'X-Request-ID: {sent}'))
                await connection.exchange(request('GET', '/healthz', f'X-Request-ID: {sent}-b'))
        ids = [vars(record)['request_id'] for record in logged.records]
        self.assertEqual(
            ['first', 'first', 'first-b', 'second', 'second-b', 'third', 'third-b'], ids)
        self.assertIn('the store cannot be used', logged.lines[0])
        self.assertIn('request_id="first"', logged.lines[0])


class LockedStoreTest(WireTestCase):
    """Requests that the store turns away."""

    def make_store(self) -> Locked:
        return Locked()

    async def test_the_cause_is_in_the_line_of_the_request_and_nowhere_else(self) -> None:
        """Not told to the client, and no traceback."""
        with self.logged() as logged:
            answer = await self.fetch('GET', '/addressbook/x')
        self.assert_error(answer, 500, 'Internal Server Error')
        self.assertNotIn(SECRET, answer.body.decode())
        [record] = logged.records
        self.assertEqual(f'{SECRET} may not', vars(record)['failure'])

    async def test_a_cause_that_the_service_has_told_is_not_told_again(self) -> None:
        with self.logged() as logged, self.assertLogs(LOGGER_NAME, 'ERROR') as told:
            for path in ('/readiness', '/addressbook/x', '/readiness', '/addressbook'):
                await self.fetch('GET', path)
        self.assertEqual(1, len(told.records), told.output)
        self.assertEqual(4, len(logged.records))
        self.assertNotIn(SECRET, '\n'.join(logged.lines))


class BuggyStoreTest(WireTestCase):
    """Requests that meet a bug."""

    def make_store(self) -> Buggy:
        return Buggy()

    async def test_the_traceback_of_a_bug_has_the_request_id(self) -> None:
        logger, request_filter = logging.getLogger('tornado.application'), RequestFilter()
        logger.addFilter(request_filter)
        self.addCleanup(logger.removeFilter, request_filter)
        with self.assertLogs(logger, 'ERROR') as caught:
            await self.fetch('GET', '/addressbook/x', None, {'X-Request-ID': 'mine'})
        [record] = caught.records
        self.assertEqual('mine', vars(record)['request_id'])


class SluggishStoreTest(WireTestCase):
    """Requests that take their time."""

    def make_store(self) -> Sluggish:
        return Sluggish()

    async def test_the_line_of_a_request_tells_the_milliseconds_that_it_took(self) -> None:
        start = time.monotonic()
        with self.logged() as logged:
            await self.fetch('GET', '/readiness')
        [line] = logged.requests()
        self.assertGreaterEqual(line['milliseconds'], 1000 * Sluggish.delay)
        self.assertLessEqual(line['milliseconds'], 1000 * (time.monotonic() - start))


class RequestLogTest(WireTestCase):
    """One line per request."""

    def make_settings(self) -> Settings:
        return make_settings(max_body_size=LIMIT)

    async def test_a_request_is_one_line_with_its_particulars(self) -> None:
        with self.logged() as logged:
            headers = {'X-Request-ID': 'mine'}
            await self.fetch('GET', f'/addressbook/x?name={SECRET}', None, headers)
        [record] = logged.records
        line = vars(record)
        self.assertEqual(('tornado.access', 'WARNING', 'request'),
                         (record.name, record.levelname, record.getMessage()))
        self.assertEqual(('mine', 'GET', '/addressbook/x', 404, '127.0.0.1'), tuple(
            line[key] for key in ('request_id', 'method', 'path', 'status', 'remote')))
        self.assertIsInstance(line['milliseconds'], float)

    async def test_the_level_follows_the_status(self) -> None:
        path = await self.post({'name': 'Ada'})
        self.service.drain()
        for method, target, body, status, level in (
            ('GET', '/healthz', None, 200, 'INFO'), ('POST', '/addressbook', SMALL, 201, 'INFO'),
            ('GET', path, None, 304, 'INFO'), ('PUT', path, SMALL, 204, 'INFO'),
            ('PUT', path, b'{', 400, 'WARNING'), ('GET', '/nowhere', None, 404, 'WARNING'),
            ('PATCH', path, SMALL, 415, 'WARNING'), ('BREW', path, SMALL, 405, 'WARNING'),
            ('OPTIONS', path, None, 204, 'INFO'),
            ('PUT', path, padded(LIMIT + 1), 413, 'WARNING'), ('DELETE', path, None, 204, 'INFO'),
            ('GET', '/readiness', None, 503, 'ERROR'), ('GET', '/addressbook', None, 200, 'INFO'),
        ):
            with self.subTest(f'{method} {target} {status}'), self.logged() as logged:
                condition = {'If-None-Match': '*'} if method == 'GET' else {}
                headers = {**JSON, **condition, 'X-Request-ID': 'mine'}
                await self.fetch(method, target, body, headers)
                [record] = logged.records
                line = vars(record)
                self.assertEqual((level, 'mine', status, method, target), (
                    record.levelname, *(line[key] for key in (
                        'request_id', 'status', 'method', 'path'))))


class GivenUpTest(WireTestCase):
    """The line of a request whose body did not become whole."""

    def make_settings(self) -> Settings:
        return make_settings(body_timeout=0.3)

    async def begin(self) -> Connection:
        """A client that has sent a part of its body, to a server that waits for it."""
        connection = await self.connect()
        answer = await connection.exchange(
            post_head('X-Request-ID: mine', 'Content-Length: 100', 'Expect: 100-continue'))
        self.assertEqual(100, answer.status)
        await connection.send(b'{"na')
        return connection

    async def assert_logged(self, logged: Lines, status: int) -> None:
        """Checks that there is one line, of a request that was given up."""
        await self.until(logged.requests)
        await self.until_disconnected()
        [line] = logged.requests()
        self.assertEqual((status, 'WARNING', 'mine', '127.0.0.1'), tuple(
            line[key] for key in ('status', 'levelname', 'request_id', 'remote')))
        self.assertEqual({}, await self.read('/addressbook'))

    async def test_a_client_that_goes_away_within_its_body_is_logged_as_499(self) -> None:
        for name in ('reset', 'close'):
            with self.subTest(name), self.logged() as logged:
                connection = await self.begin()
                if name == 'reset':
                    connection.reset()
                else:
                    await connection.close()
                await self.assert_logged(logged, 499)

    async def test_one_whose_client_is_gone_before_it_has_begun_is_one_line_and_one_span(
        self
    ) -> None:
        """Also on a connection too many."""
        for excess in (False, True):
            application = self.server.application(excess)
            collector = mock.Mock()
            collector.follows.return_value = frozenset()
            with self.subTest(excess=excess), self.logged() as logged, collecting(
                [collector], logging.getLogger('test')
            ):
                delegate = application.start_request(self.server, mock.Mock())
                delegate.headers_received(
                    RequestStartLine('POST', '/addressbook', 'HTTP/1.1'),
                    HTTPHeaders({'Host': 'localhost', 'Content-Length': '12'}))
                delegate.fail(499)
                await self.until(lambda: not application.running)
                self.assertEqual([499], [line['status'] for line in logged.requests()])
                self.assertEqual((1, 1), (collector.enter.call_count, collector.exit.call_count))

    async def test_a_body_that_is_too_slow_is_cut_off_and_logged_as_408(self) -> None:
        with self.logged() as logged:
            connection = await self.begin()
            self.assertTrue(await connection.at_end())
            await self.assert_logged(logged, 408)

    async def test_a_malformed_body_is_logged_as_400(self) -> None:
        for name, data in MALFORMED_BODIES.items():
            with self.subTest(name), self.logged() as logged:
                self.assert_malformed(await self.exchange(data))
                if self.http_parser == 'httptools' and name in UNFRAMED:
                    await self.until_disconnected()  # to httptools it is no request at all
                    self.assertEqual([], logged.requests())
                else:
                    await self.assert_logged(logged, 400)

    async def test_a_chunk_size_without_an_end_is_logged_as_400(self) -> None:
        """Tornado does not answer it: nobody can tell where it would end."""
        with self.logged() as logged:
            connection = await self.connect()
            await connection.send(CHUNKED + b'f' * 100)
            if self.http_parser == 'httptools':
                self.assert_malformed(await connection.answer())
            self.assertTrue(await connection.at_end())
            await self.assert_logged(logged, 400)


class WaitingLinesTest(unittest.TestCase):
    """Lines that wait to be written with others, when the process ends."""

    @contextmanager
    def serving(self, **service: object) -> Iterator[ServerProcess]:
        """A service whose lines wait longer than the test takes."""
        with tempfile.TemporaryDirectory() as folder:
            section = config_document(Path(folder))['logging']
        section['handlers'] = {'console': {
            'class': 'addrservice.logs.BatchHandler', 'formatter': 'brief', 'delay': 600}}
        for logger in section['loggers'].values():
            logger['handlers'] = ['console']
        with running_server(logging=section, service=service) as server:
            yield server

    def ask(self, server: ServerProcess, path: str) -> int:
        """The status of the answer; the request has the id ``mine``."""
        connection = server.connect()
        connection.request('GET', path, headers={'X-Request-ID': 'mine'})
        status = connection.getresponse().status
        connection.close()
        return status

    def test_they_are_written_in_a_drain(self) -> None:
        with self.serving() as server:
            self.assertEqual(404, self.ask(server, '/nowhere'))
            self.assertNotIn('mine', server.errors_so_far())
            self.assertEqual(0, server.stop())
            self.assertEqual(1, server.stderr.count('request_id="mine"'), server.stderr)
            self.assertRegex(server.stderr, r'draining\n(.+\n)*.* drained\n')

    def test_they_are_written_though_a_second_signal_ends_it_at_once(self) -> None:
        with self.serving(**{'drain-delay': 600}) as server:
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: self.ask(server, '/readiness') == 503)  # an error: it does not wait
            self.assertEqual(404, self.ask(server, '/nowhere'))
            self.assertNotIn('/nowhere', server.errors_so_far())
            self.assertEqual(128 + signal.SIGTERM, server.stop())
            self.assertIn('path="/nowhere"', server.stderr)

    def test_they_are_written_within_the_time_that_is_configured(self) -> None:
        """And the configurations for production have it so."""
        for config in (ROOT / 'configs').glob('*.yaml'):
            section = yaml.safe_load(config.read_text(encoding='utf-8'))['logging']
            section['loggers'] = {name: {**logger, 'handlers': ['console']}
                                  for name, logger in section['loggers'].items()}
            section['handlers'].pop('file', None)
            section['handlers']['console'].pop('stream', None)  # standard error, as told nothing
            with self.subTest(config.name), running_server(logging=section) as server:
                self.assertEqual(404, self.ask(server, '/nowhere'))
                wait_until(lambda: '/nowhere' in server.errors_so_far())


class PrivacyTest(WireTestCase):
    """What never gets into the log."""

    def make_settings(self) -> Settings:
        return make_settings(max_body_size=LIMIT)

    def assert_no_secret(self, logged: Lines) -> None:
        for record, line in zip(logged.records, logged.lines, strict=True):
            self.assertNotIn(SECRET, line)
            self.assertNotIn(SECRET, str(vars(record)))

    async def test_nothing_of_what_is_malformed_is_logged_at_the_levels_of_the_configs(
        self
    ) -> None:
        for config in (ROOT / 'configs').glob('*.yaml'):
            loggers = yaml.safe_load(config.read_text(encoding='utf-8'))['logging']['loggers']
            levels = {name: settings['level'] for name, settings in loggers.items()}
            for name, data in MALFORMED.items():
                with self.subTest(name, config=config.name), self.logged(levels) as logged:
                    self.assert_malformed(await self.exchange(data))
                    await self.until_disconnected()
                    self.assert_no_secret(logged)

    async def test_no_personal_data_is_logged_whatever_happens(self) -> None:
        entry = {**address('namo'), 'name': SECRET}
        bad = {'name': [SECRET], SECRET: 1, 'emails': [{'kind': SECRET, 'value': SECRET}]}
        with self.logged() as logged:
            path = await self.post(entry)
            for method, target, body, headers in (
                ('GET', path, None, JSON), ('GET', '/addressbook', None, JSON),
                ('PUT', path, json.dumps(entry), JSON), ('PUT', path, json.dumps(bad), JSON),
                ('POST', '/addressbook', json.dumps(bad), JSON),
                ('POST', '/addressbook', f'{{"name": "{SECRET}"', JSON),
                ('POST', '/addressbook', f'"{SECRET}"', JSON),
                ('POST', '/addressbook', json.dumps(entry), {'Content-Type': SECRET}),
                ('POST', '/addressbook', json.dumps(entry), {**JSON, 'Content-Encoding': SECRET}),
                ('POST', '/addressbook', json.dumps(entry), {**JSON, 'Content-Encoding': 'gzip'}),
                ('POST', '/addressbook', json.dumps(entry) + ' ' * LIMIT, JSON),
                ('PUT', f'{path}x?name={SECRET}', json.dumps(entry), JSON),
                ('GET', f'/healthz?{SECRET}', None, {'Authorization': SECRET}),
                ('PATCH', f'{path}?{SECRET}', json.dumps(entry), JSON),
                ('PATCH', path, json.dumps({'name': SECRET}), PATCH_JSON),
                ('PATCH', path, json.dumps({SECRET: SECRET}), PATCH_JSON),
                ('GET', f'/addressbook?name={SECRET}', None, {}),
                ('GET', f'/addressbook?limit={SECRET}&{SECRET}=1', None, {}),
                ('GET', f'/addressbook?name={SECRET}&limit=1&after={"0" * 32}:{SECRET}', None, {}),
                ('POST', '/addressbook', json.dumps(entry), {**JSON, 'Idempotency-Key': SECRET}),
                ('POST', '/addressbook', SMALL, {**JSON, 'Idempotency-Key': SECRET}),
                ('POST', '/addressbook', SMALL, {**JSON, 'Idempotency-Key': f'"{SECRET}'}),
                ('PUT', path, SMALL, {**JSON, 'If-Match': f'"{SECRET}"'}),
                ('GET', path, None, {'Accept': f'text/{SECRET}', 'Origin': SECRET}),
                ('GET', f'/nowhere?{SECRET}', None, {'X-Request-ID': f'{SECRET} {SECRET}'}),
                ('DELETE', path, None, JSON), ('DELETE', path, None, JSON),
            ):
                await self.fetch(method, target, body, headers)
            connection = await self.connect()
            await connection.send(CHUNKED + f'9\r\n"{SECRET}'.encode())
            await connection.close()
            await self.until(lambda: len(logged.requests()) == 29)
        self.assert_no_secret(logged)


if __name__ == '__main__':
    unittest.main()
