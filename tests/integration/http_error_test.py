"""What clients are told when something is wrong: with the store, the code or their bytes."""

import json
import unittest
from typing import Final

from addrservice.base_handler import BaseRequestHandler
from addrservice.routing import Route
from tests.http_contract import PATCH_JSON
from tests.stores import Buggy, Slow, Taken, Unreachable
from tests.support import JSON
from tests.wire import MALFORMED, MALFORMED_BODIES, SECRET, SMALL, WireTestCase, request

OPERATIONS: Final = (
    ('GET', '/addressbook', None), ('POST', '/addressbook', SMALL), ('GET', '/addressbook/x', None),
    ('PUT', '/addressbook/x', SMALL), ('DELETE', '/addressbook/x', None),
    ('PATCH', '/addressbook/x', SMALL), ('GET', '/addressbook?limit=9', None),
    ('GET', '/addressbook?name=a', None), ('GET', '/addressbook?name=a&limit=9', None),
)


def declared(method: str) -> dict[str, str]:
    """The type that a body has."""
    return PATCH_JSON if method == 'PATCH' else JSON


class UnreachableStoreTest(WireTestCase):
    """What clients are told when the store is out of reach."""

    def make_store(self) -> Unreachable:
        return Unreachable()

    async def test_readiness_follows_the_store_and_healthz_does_not(self) -> None:
        answer = await self.fetch('GET', '/readiness')
        self.assertEqual(503, answer.code)
        self.assertIs(False, json.loads(answer.body)['ready'])
        self.assertIsInstance(json.loads(answer.body)['uptime'], int)
        self.assertRegex(answer.headers['Retry-After'], '^[0-9]+$')
        self.assertEqual(200, (await self.fetch('GET', '/healthz')).code)

    async def test_a_store_out_of_reach_is_503_with_retry_after(self) -> None:
        for method, path, body in OPERATIONS:
            with self.subTest(f'{method} {path}'):
                answer = await self.fetch(method, path, body, declared(method))
                error = self.assert_error(answer, 503)
                self.assertEqual('Service Unavailable', answer.reason)
                self.assertRegex(answer.headers['Retry-After'], '^[1-9][0-9]*$')
                self.assertNotIn('errors', error)

    async def test_a_condition_or_a_key_does_not_make_a_difference(self) -> None:
        fields = {'If-Match': '*', 'If-None-Match': '"x"', 'Idempotency-Key': 'mine'}
        for method, path, body in OPERATIONS:
            with self.subTest(f'{method} {path}'):
                answer = await self.fetch(method, path, body, {**declared(method), **fields})
                self.assert_error(answer, 503)

    async def test_a_head_says_503_where_a_get_does(self) -> None:
        for path in ('/readiness', '/addressbook', '/addressbook/x', '/addressbook?limit=9',
                     '/addressbook?name=a', '/addressbook?name=a&limit=9'):
            with self.subTest(path):
                answer = await self.fetch('HEAD', path)
                self.assertEqual((503, b''), (answer.code, answer.body))
                self.assertRegex(answer.headers['Retry-After'], '^[1-9][0-9]*$')

    async def test_an_answer_is_not_taken_for_a_bug(self) -> None:
        """Nothing but the line of the request is logged for it."""
        with self.logged() as logged:
            for method, path, body in OPERATIONS:
                await self.fetch(method, path, body, declared(method))
            await self.fetch('PATCH', '/addressbook', SMALL, JSON)
            await self.fetch('POST', '/addressbook', b'{}', JSON)
            await self.fetch('GET', '/addressbook?limit=0')
            await self.fetch('GET', '/addressbook', None, {'Accept': 'text/html'})
        self.assertEqual({'tornado.access'}, {record.name for record in logged.records})


class TakenStoreTest(WireTestCase):
    """What a client is told whose id is another's; the service would have to make it twice."""

    def make_store(self) -> Taken:
        return Taken()

    async def test_a_nickname_that_is_taken_is_a_conflict(self) -> None:
        answer = await self.fetch('POST', '/addressbook', SMALL, JSON)
        self.assert_error(answer, 409)
        self.assertEqual('Conflict', answer.reason)
        self.assertNotIn('Location', answer.headers)


class BuggyStoreTest(WireTestCase):
    """What clients are told of a bug."""

    def make_store(self) -> Buggy:
        return Buggy()

    async def test_a_bug_is_500_and_logged_and_says_nothing_of_the_inside(self) -> None:
        for method, path, body in OPERATIONS:
            with (self.subTest(f'{method} {path}'),
                  self.assertLogs('tornado.application', 'ERROR') as caught):
                answer = await self.fetch(method, path, body, declared(method))
                error = self.assert_error(answer, 500, 'Internal Server Error')
                self.assertEqual({'method', 'uri', 'code', 'message', 'requestId'}, error.keys())
                self.assertNotIn(SECRET, f'{answer.body!r} {answer.reason} {answer.headers}')
                [line] = caught.output
                self.assertIn(f'RuntimeError: {SECRET}', line)
                self.assertIn('Traceback', line)


class SlowStoreTest(WireTestCase):
    """What a client is told whose request is given up."""

    store: Slow

    def make_store(self) -> Slow:
        return Slow()

    async def test_a_request_whose_task_is_cancelled_is_answered(self) -> None:
        connection = await self.connect()
        await connection.send(request('GET', '/addressbook/x'))
        await self.until(lambda: self.store.waiting)
        assert self.store.waiting is not None
        self.store.waiting.cancel()
        self.assert_error(await connection.answer(), 503)


class OwnHandlerTest(WireTestCase):
    """What a handler that is written on the base can do."""

    async def test_it_may_send_an_error_without_raising_one(self) -> None:
        class Conflicting(BaseRequestHandler):
            def get(self) -> None:
                self.send_error(409)

        arguments = {'service': self.service, 'limits': self.settings.service}
        self.application._paths['/conflict'] = Route(Conflicting, arguments)
        self.assert_error(await self.fetch('GET', '/conflict'), 409)


class MalformedTest(WireTestCase):
    """What is said to bytes that are no request, or no whole one."""

    async def test_what_is_malformed_gets_400_in_json_and_the_end_of_its_connection(self) -> None:
        for name, data in MALFORMED.items():
            with self.subTest(name):
                connection = await self.connect()
                self.assert_malformed(await connection.exchange(data))
                self.assertTrue(await connection.at_end())
        self.assertEqual({}, await self.read('/addressbook'))

    async def test_what_is_malformed_after_good_requests_does_not_touch_their_answers(self) -> None:
        for name, data in MALFORMED.items():
            with self.subTest(name):
                connection = await self.connect()
                await connection.send(request('GET', '/healthz') * 2 + data)
                for _ in range(2):
                    self.assertEqual(200, (await connection.answer()).status)
                self.assert_malformed(await connection.answer())

    async def test_what_is_malformed_and_cannot_be_done_either_gets_one_answer(self) -> None:
        """A method that nobody knows ends the connection before the body counts."""
        for name, data in MALFORMED_BODIES.items():
            with self.subTest(name):
                connection = await self.connect()
                method, _, rest = data.partition(b' ')
                answer = await connection.exchange(b'BREW ' + rest)
                if answer.status == 405:  # whichever is noticed first
                    self.assert_error(answer, 405)
                else:
                    self.assert_malformed(answer)
                self.assertTrue(await connection.at_end())


class NoDebugTest(WireTestCase):
    """Without ``--debug`` errors keep their traceback to themselves."""

    async def test_no_error_tells_its_trace(self) -> None:
        for method, path, body in (('GET', '/addressbook/x', None), ('POST', '/addressbook', b'{'),
                                   ('PATCH', '/addressbook', SMALL), ('GET', '/nowhere', None),
                                   ('GET', '/addressbook?limit=0', None)):
            with self.subTest(f'{method} {path}'):
                answer = await self.fetch(method, path, body, JSON)
                self.assertNotIn('trace', self.assert_error(answer, answer.code))


class DebugTest(WireTestCase):
    """Under ``--debug`` errors carry their traceback."""

    show_tracebacks = True

    async def test_a_refusal_tells_its_trace(self) -> None:
        for method, path, body, name in (
            ('GET', '/addressbook/x', None, 'UnknownNicknameError'),
            ('POST', '/addressbook', b'{', 'InvalidJSONError'),
            ('PATCH', '/addressbook', SMALL, 'HTTPError'),
            ('GET', '/addressbook?limit=0', None, 'InvalidParameterError'),
        ):
            with self.subTest(f'{method} {path}'):
                answer = await self.fetch(method, path, body, JSON)
                error = self.assert_error(answer, answer.code)
                self.assertTrue(error['trace'].startswith('Traceback'))
                self.assertIn(name, error['trace'])


class BuggyStoreDebugTest(WireTestCase):
    """A bug under ``--debug``."""

    show_tracebacks = True

    def make_store(self) -> Buggy:
        return Buggy()

    async def test_a_bug_tells_its_trace(self) -> None:
        with self.assertLogs('tornado.application', 'ERROR'):
            answer = await self.fetch('GET', '/addressbook/x')
        self.assertIn(f'RuntimeError: {SECRET}', self.assert_error(answer, 500)['trace'])


if __name__ == '__main__':
    unittest.main()
