"""Connections: what goes over one, and what those beyond the cap get."""

import json
import logging
import unittest
from unittest import mock

from addrservice.config import Settings
from addrservice.http_server.abstract import MAX_OVERFLOW
from addrservice.tracing import AbstractTraceCollector, collecting
from tests.support import make_settings
from tests.wire import SMALL, WireTestCase, head, request


class ConnectionTest(WireTestCase):
    """One connection and its requests."""

    async def test_a_connection_serves_one_request_after_the_other(self) -> None:
        connection = await self.connect()
        post = await connection.exchange(request('POST', '/addressbook', body=SMALL))
        path = post.headers['Location']
        for data, status in (
            (request('GET', path), 200), (request('PUT', path, body=SMALL), 204),
            (request('POST', '/addressbook', body=b'{'), 400), (request('GET', '/nowhere'), 404),
            (request('PATCH', path, body=SMALL), 415), (request('OPTIONS', path), 204),
            (request('GET', path, 'If-None-Match: *'), 304), (request('DELETE', path), 204),
            (request('GET', path), 404), (request('GET', '/addressbook'), 200),
        ):
            answer = await connection.exchange(data)
            self.assertEqual(status, answer.status)
            self.assertNotIn('Connection', answer.headers)

    async def test_pipelined_requests_are_answered_in_order(self) -> None:
        connection = await self.connect()
        await connection.send(
            request('POST', '/addressbook', body=SMALL) + request('GET', '/addressbook')
            + request('POST', '/addressbook', body=b'{') + request('GET', '/nowhere')
            + request('GET', '/healthz', 'Connection: close'))
        answers = [await connection.answer() for _ in range(5)]
        self.assertEqual([201, 200, 400, 404, 200], [answer.status for answer in answers])
        self.assertEqual([{'name': 'Ada'}], list(json.loads(answers[1].body).values()))
        self.assertTrue(await connection.at_end())

    async def test_a_client_may_ask_for_the_end_of_the_connection(self) -> None:
        connection = await self.connect()
        answer = await connection.exchange(request('GET', '/healthz', 'Connection: close'))
        self.assertEqual('close', answer.headers['Connection'])
        self.assertTrue(await connection.at_end())

    async def test_a_connection_may_end_after_so_many_requests_and_says_so(self) -> None:
        """So that clients of a process that was replaced come to the new one in the end."""
        self.server.max_requests = 3
        connection = await self.connect()
        for said in (None, None, 'close'):
            answer = await connection.exchange(request('GET', '/addressbook'))
            self.assertEqual((200, said), (answer.status, answer.headers.get('Connection')))
        self.assertTrue(await connection.at_end())

    async def test_http_1_0_is_served_and_closed_unless_it_asks_to_go_on(self) -> None:
        connection = await self.connect()
        for path in ('/healthz', '/addressbook', '/nowhere', '/readiness'):
            answer = await connection.exchange(
                f'GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n'.encode())
            self.assertEqual('Keep-Alive', answer.headers['Connection'])
            self.assertEqual(str(len(answer.body)), answer.headers['Content-Length'])
        last = await connection.exchange(b'GET /addressbook HTTP/1.0\r\n\r\n')
        self.assertEqual((200, b'{}'), (last.status, last.body))
        self.assertTrue(await connection.at_end())

    async def test_what_is_refused_before_it_has_come_ends_the_connection_and_says_so(self) -> None:
        """Else the client would send its next request into nowhere."""
        connection = await self.connect()
        answer = await connection.exchange(request(
            'POST', '/addressbook', 'Expect: 100-continue', 'Content-Length: 99999'))
        self.assert_error(answer, 413)
        self.assertEqual('close', answer.headers['Connection'])
        self.assertTrue(await connection.at_end())

    async def test_a_method_that_nobody_knows_gets_405_and_its_connection_goes_on(self) -> None:
        """Such as those of protocols that look like HTTP."""
        connection = await self.connect()
        for method in ('BREW', 'get', 'X-Y', 'Q' * 100, 'DESCRIBE', 'SOURCE', 'PRI', 'QUERY'):
            answer = await connection.exchange(request(method, '/addressbook'))
            self.assertEqual(method, self.assert_error(answer, 405)['method'])
            self.assertNotIn('Connection', answer.headers)

    async def test_a_request_with_a_method_that_nobody_knows_is_told_to_collectors(self) -> None:
        collector = mock.create_autospec(AbstractTraceCollector, instance=True)
        collector.follows.return_value = frozenset()
        with collecting([collector], logging.getLogger('test')):
            connection = await self.connect()
            self.assert_error(await connection.exchange(request('BREW', '/addressbook')), 405)
            await self.until(lambda: collector.exit.called)
        [span] = collector.exit.call_args.args
        self.assertEqual('HTTP /addressbook', span.name)
        self.assertEqual(('_OTHER', 405), (span.attributes['http.request.method'],
                                           span.attributes['http.response.status_code']))

    async def test_a_method_that_nobody_knows_gets_405_before_all_of_its_body_has_come(
        self
    ) -> None:
        connection = await self.connect()
        answer = await connection.exchange(request('BREW', '/addressbook', body=bytes(1_000_000)))
        self.assert_error(answer, 405)
        self.assertEqual('close', answer.headers['Connection'])
        self.assertTrue(await connection.at_end())

    async def test_another_protocol_is_refused(self) -> None:
        for version in ('RTSP/1.0', 'ICE/1.0', 'HTTP/2.0'):
            for method in ('GET', 'OPTIONS', 'DESCRIBE', 'SOURCE', 'PRI', 'BREW'):
                self.assert_malformed(await self.exchange(head(f'{method} /healthz {version}')))

    async def test_a_query_of_too_many_parameters_is_told_so(self) -> None:
        answer = await self.exchange(request('GET', f'/addressbook?{"&".join(["a=1"] * 1001)}'))
        self.assert_malformed(answer)
        self.assertIn('more than 1000 parameters', json.loads(answer.body)['message'])

    async def test_answers_do_not_tell_what_serves_them(self) -> None:
        for path in ('/healthz', '/nowhere'):
            self.assertNotIn('Server', (await self.fetch('GET', path)).headers)


class TargetTest(WireTestCase):
    """The forms that a request's target may have (RFC 9112, 3.2)."""

    async def test_an_absolute_target_is_served_as_its_path(self) -> None:
        path = await self.post({'name': 'Ada'})
        for target, status, uri in (
            ('http://host/healthz', 200, None), ('https://host:8080/readiness/', 200, None),
            (f'http://host{path}', 200, None), ('HTTP://HOST/healthz', 200, None),
            ('Https://host/healthz?x=http://y/', 200, None), ('http://[::1]:80/healthz', 200, None),
            ('http://host/addressbook/x?a=b', 404, '/addressbook/x?a=b'),
            ('http://host', 404, '/'), ('http://host?x=/healthz', 404, '/?x=/healthz'),
            ('http://host/http://host/healthz', 404, '/http://host/healthz'),
        ):
            with self.subTest(target), self.logged() as logged:
                answer = await self.exchange(request('GET', target))
                self.assertEqual(status, answer.status)
                if uri is not None:
                    self.assertEqual(uri, self.assert_error(answer, 404)['uri'])
                [line] = logged.requests()
                self.assertTrue(line['path'].startswith('/'), line['path'])
                self.assertNotIn('?', line['path'])

    async def test_a_write_may_have_an_absolute_target(self) -> None:
        post = await self.exchange(request('POST', 'http://host/addressbook', body=SMALL))
        self.assertEqual(201, post.status)
        path = post.headers['Location']
        self.assertEqual({'name': 'Ada'}, await self.read(path))
        self.assertEqual(
            204, (await self.exchange(request('DELETE', f'http://host{path}'))).status)

    async def test_any_other_target_is_an_unknown_endpoint(self) -> None:
        for target in ('ftp://host/healthz', 'xhttp://host/healthz', '*', '//host/healthz',
                       '/http://host/healthz'):
            with self.subTest(target):
                answer = await self.exchange(request('GET', target))
                error = self.assert_error(answer, 404, 'Unknown Endpoint')
                self.assertEqual(target, error['uri'])

    async def test_what_is_no_target_is_not_served(self) -> None:
        """httptools says what is wrong with it."""
        for target in ('host:80', 'healthz', '?http://host/healthz', 'http:/healthz'):
            with self.subTest(target):
                answer = await self.exchange(request('GET', target))
                if self.http_parser == 'httptools':
                    self.assert_malformed(answer)
                else:
                    self.assert_error(answer, 404, 'Unknown Endpoint')


class ConnectionCapTest(WireTestCase):
    """What connections beyond the cap get."""

    def make_settings(self) -> Settings:
        return make_settings(max_connections=1)

    async def test_one_connection_too_many_gets_the_probes_and_503_for_the_rest(self) -> None:
        first = await self.connect()
        await first.exchange(request('GET', '/healthz'))
        for path, status in (('/addressbook', 503), ('/healthz', 200), ('/readiness', 200),
                             ('/addressbook/x', 503), ('/nowhere', 503)):
            with self.subTest(path):
                second = await self.connect()
                answer = await second.exchange(request('GET', path))
                self.assertEqual(status, answer.status)
                self.assertEqual('close', answer.headers['Connection'])
                if status == 503:
                    self.assert_error(answer, 503)
                    self.assertRegex(answer.headers['Retry-After'], '^[1-9][0-9]*$')
                self.assertTrue(await second.at_end())
        self.assertEqual(200, (await first.exchange(request('GET', '/addressbook'))).status)

    async def test_a_post_beyond_the_cap_is_refused_and_not_carried_out(self) -> None:
        first = await self.connect()
        await first.exchange(request('GET', '/healthz'))
        second = await self.exchange(request('POST', '/addressbook', body=SMALL))
        self.assert_error(second, 503)
        answer = await first.exchange(request('GET', '/addressbook'))
        self.assertEqual(b'{}', answer.body)

    async def test_what_is_malformed_beyond_the_cap_is_told_so(self) -> None:
        first = await self.connect()
        await first.exchange(request('GET', '/healthz'))
        self.assert_malformed(await self.exchange(b'GET /healthz HTTP/1.1\r\n\r\n'))

    async def test_a_connection_that_ends_makes_room_for_another(self) -> None:
        for _ in range(3):
            connection = await self.connect()
            answer = await connection.exchange(request('GET', '/addressbook'))
            self.assertEqual(200, answer.status)
            self.assertNotIn('Connection', answer.headers)
            self.assertEqual(503, (await self.exchange(request('GET', '/addressbook'))).status)
            await connection.close()
            await self.until_disconnected()

    async def test_yet_more_connections_are_closed_at_once(self) -> None:
        kept = [await self.connect() for _ in range(1 + MAX_OVERFLOW)]
        await self.until(lambda: len(self.server.connections) == 1 + MAX_OVERFLOW)
        extra = [await self.connect() for _ in range(5)]
        for connection in extra:
            self.assertTrue(await connection.at_end())
        last = await kept[-1].exchange(request('GET', '/healthz'))
        self.assertEqual((200, 'close'), (last.status, last.headers['Connection']))


class OverflowDebugTest(WireTestCase):
    """A refusal beyond the cap is an error like all others."""

    show_tracebacks = True

    def make_settings(self) -> Settings:
        return make_settings(max_connections=1)

    async def test_a_refusal_beyond_the_cap_tells_its_trace_under_debug(self) -> None:
        first = await self.connect()
        await first.exchange(request('GET', '/healthz'))
        answer = await self.exchange(request('GET', '/addressbook'))
        self.assertIn('HTTPError', self.assert_error(answer, 503)['trace'])


if __name__ == '__main__':
    unittest.main()
