"""Who asks too often: told so, per caller or per address, and never at the probes."""

import asyncio
import unittest
from collections.abc import Sequence

from addrservice.auth import READ, WRITE, AbstractAuthenticator, Caller
from addrservice.config import Settings
from addrservice.errors import UnauthenticatedError
from addrservice.gate import Gate
from tests.support import DEADLINE, make_settings
from tests.wire import (
    SMALL, UNKNOWN_ID, Answer, Connection, WireTestCase, post_head, request,
)

ENTRY = f'/addressbook/{UNKNOWN_ID}'


class Named(AbstractAuthenticator):
    """Takes everybody for who they say they are, and lets them read."""

    security_scheme = {'type': 'http', 'scheme': 'bearer'}

    async def authenticate(self, authorization: Sequence[str]) -> Caller:
        if not authorization:
            raise UnauthenticatedError('Say who you are', None)
        return Caller(authorization[0], frozenset({READ}))


class RateLimitTest(WireTestCase):
    """Two requests in a minute, for an address."""

    def make_settings(self) -> Settings:
        return make_settings(rate_limit={'requests': 2, 'seconds': 60})

    async def ask(self, *fields: str, method: str = 'GET', path: str = '/addressbook') -> Answer:
        return await self.exchange(request(method, path, *fields))

    async def test_each_answer_tells_what_is_left(self) -> None:
        for left, path, status in ((1, '/addressbook', 200), (0, ENTRY, 404)):
            answer = await self.ask(path=path)
            self.assertEqual(status, answer.status)
            self.assertEqual('"default";q=2;w=60', answer.headers['RateLimit-Policy'])
            self.assertRegex(answer.headers['RateLimit'], rf'^"default";r={left};t=(2\d|30)$')

    async def test_who_asks_too_often_is_told_when_to_come_again(self) -> None:
        for _ in range(2):
            await self.ask()
        for method in ('GET', 'POST', 'DELETE'):
            path = ENTRY if method == 'DELETE' else '/addressbook'
            answer = await self.ask(method=method, path=path)
            self.assert_error(answer, 429)
            seconds = answer.headers['Retry-After']
            self.assertIn(int(seconds), range(20, 31))
            self.assertEqual('"default";q=2;w=60', answer.headers['RateLimit-Policy'])
            self.assertEqual(f'"default";r=0;t={seconds}', answer.headers['RateLimit'])

    async def test_probes_are_never_limited(self) -> None:
        for path in ('/healthz', '/readiness') * 3:
            answer = await self.ask(path=path)
            self.assertEqual(200, answer.status)
            self.assertNotIn('RateLimit', answer.headers)

    async def test_without_a_proxy_that_is_trusted_no_header_makes_another_client(self) -> None:
        statuses = [(await self.ask(f'X-Forwarded-For: 192.0.2.{number}')).status
                    for number in range(3)]
        self.assertEqual([200, 200, 429], statuses)

    async def test_a_refused_request_leaves_its_connection_as_it_was_and_nothing_is_done(
        self
    ) -> None:
        connection = await self.connect()
        post = request('POST', '/addressbook', body=SMALL)
        statuses = [(await connection.exchange(post)).status for _ in range(4)]
        self.assertEqual([201, 201, 429, 429], statuses)
        self.assertEqual(2, len([page async for page in self.service.pages()][0]))


class CallerRateLimitTest(WireTestCase):
    """Two requests in a minute, for a caller."""

    def make_settings(self) -> Settings:
        return make_settings(rate_limit={'requests': 2, 'seconds': 60})

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        application = self.server.application(excess=False)
        application.settings['gate'] = Gate(self.settings.service, Named())

    async def statuses(self, *fields: str, method: str = 'GET', times: int = 3) -> list[int]:
        data = request(method, '/addressbook', *fields)
        return [(await self.exchange(data)).status for _ in range(times)]

    async def test_each_caller_has_a_limit_of_their_own_wherever_they_ask_from(self) -> None:
        for name in ('ann', 'bob'):
            self.assertEqual([200, 200, 429], await self.statuses(f'Authorization: {name}'))

    async def test_who_is_not_known_is_counted_by_the_address(self) -> None:
        self.assertEqual([401, 401, 429], await self.statuses())
        self.assertEqual([200, 200, 429], await self.statuses('Authorization: ann'))

    async def test_what_a_caller_may_not_do_counts_too(self) -> None:
        self.assertEqual([403, 403, 429], await self.statuses('Authorization: a', method='POST'))

    async def test_no_caller_uses_up_what_an_address_has(self) -> None:
        await self.statuses('Authorization: 127.0.0.1')
        self.assertEqual([401, 401, 429], await self.statuses())


class Thoughtful(Named):
    """Takes its time, and lets them write too."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def authenticate(self, authorization: Sequence[str]) -> Caller:
        self.asked.set()
        await self.may_answer.wait()
        return Caller('ann', frozenset({READ, WRITE}))


class SlowGateTest(WireTestCase):
    """A body that comes before, or after, it is known who sends it."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.authenticator = Thoughtful()
        application = self.server.application(excess=False)
        application.settings['gate'] = Gate(self.settings.service, self.authenticator)

    async def begin(self) -> Connection:
        """A client whose caller is looked for, and who has not sent the body yet."""
        connection = await self.connect()
        await connection.send(post_head(f'Content-Length: {len(SMALL)}'))
        async with asyncio.timeout(DEADLINE):
            await self.authenticator.asked.wait()
        return connection

    async def test_a_body_may_come_while_the_gate_is_thinking(self) -> None:
        connection = await self.begin()
        await connection.send(SMALL)
        [handler] = self.server.application(excess=False).running
        await self.until(lambda: handler.is_whole)
        self.authenticator.may_answer.set()
        self.assertEqual(201, (await connection.answer()).status)

    async def test_a_body_may_come_when_the_gate_is_open(self) -> None:
        connection = await self.begin()
        self.authenticator.may_answer.set()
        self.assertEqual(201, (await connection.exchange(SMALL)).status)


if __name__ == '__main__':
    unittest.main()
