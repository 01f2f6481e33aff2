"""The gate: who gets through, and what those are told who do not."""

import unittest
from collections.abc import Sequence
from typing import Any, ClassVar

from addrservice.auth import READ, WRITE, AbstractAuthenticator, Caller
from addrservice.errors import (
    AuthenticatorUnavailableError, BadCredentialsError, ConfigError, ForbiddenError,
    TooManyRequestsError, UnauthenticatedError,
)
from addrservice.gate import Admission, Gate
from tests.support import make_settings


class Doorkeeper(AbstractAuthenticator):
    """Knows callers by the name that they send, and raises what it is told to."""

    security_scheme: ClassVar[dict[str, Any]] = {}

    def __init__(self, *scopes: str, error: Exception | None = None) -> None:
        self.scopes = frozenset(scopes)
        self.error = error
        self.events: list[str] = []

    async def start(self) -> None:
        self.events.append('start')

    async def stop(self) -> None:
        self.events.append('stop')

    def reload(self) -> None:
        self.events.append('reload')

    async def authenticate(self, authorization: Sequence[str]) -> Caller:
        if self.error is not None:
            raise self.error
        return Caller(authorization[0], self.scopes)


def gate(authenticator: AbstractAuthenticator | None = None, **service: Any) -> Gate:
    return Gate(make_settings(**service).service, authenticator)


class CallerTest(unittest.IsolatedAsyncioTestCase):
    async def admit(self, method: str, *scopes: str) -> Admission:
        return await gate(Doorkeeper(*scopes)).admit(['ann'], method, '192.0.2.1')

    async def test_reading_takes_one_scope_and_everything_else_another(self) -> None:
        for method in ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'):
            needed, other = (READ, WRITE) if method in ('GET', 'HEAD') else (WRITE, READ)
            with self.subTest(method=method):
                self.assertEqual(Admission(Caller('ann', frozenset({needed}))),
                                 await self.admit(method, needed))
                refused = await self.admit(method, other)
                assert isinstance(refused.refusal, ForbiddenError)
                self.assertEqual(needed, refused.refusal.scope)
                self.assertEqual(Caller('ann', frozenset({other})), refused.caller)

    async def test_who_is_not_known_does_not_pass(self) -> None:
        for error in (UnauthenticatedError('?'), BadCredentialsError('?'),
                      AuthenticatorUnavailableError('?')):
            with self.subTest(error=error):
                admission = await gate(Doorkeeper(error=error)).admit([], 'GET', '192.0.2.1')
                self.assertEqual(Admission(None, {}, error), admission)

    async def test_a_bug_of_the_authenticator_lets_nobody_in(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            await gate(Doorkeeper(READ, error=ZeroDivisionError())).admit([], 'GET', '192.0.2.1')

    async def test_it_keeps_the_life_of_its_authenticator(self) -> None:
        doorkeeper = Doorkeeper()
        kept = gate(doorkeeper)
        await kept.start()
        kept.reload()
        await kept.stop()
        self.assertEqual(['start', 'reload', 'stop'], doorkeeper.events)

    async def test_without_an_authenticator_there_is_nothing_to_start(self) -> None:
        kept = gate()
        await kept.start()
        kept.reload()
        await kept.stop()
        self.assertTrue(kept.is_open)

    async def test_what_cannot_be_read_anew_is_told(self) -> None:
        class Broken(Doorkeeper):
            def reload(self) -> None:
                raise ConfigError('gone')

        with self.assertRaises(ConfigError):
            gate(Broken()).reload()


class LimitTest(unittest.IsolatedAsyncioTestCase):
    LIMIT = {'requests': 2, 'seconds': 3600}

    async def test_addresses_are_counted_where_nobody_is_asked(self) -> None:
        kept = gate(rate_limit=self.LIMIT)
        self.assertFalse(kept.is_open)
        for address in ('192.0.2.1', '192.0.2.2'):
            for _ in range(2):
                admission = await kept.admit([], 'GET', address)
                self.assertIsNone(admission.refusal)
            refused = await kept.admit([], 'GET', address)
            assert isinstance(refused.refusal, TooManyRequestsError)
            self.assertEqual(1800, refused.refusal.seconds)
            self.assertEqual({'RateLimit-Policy': '"default";q=2;w=3600',
                              'RateLimit': '"default";r=0;t=1800'}, refused.headers)

    async def test_callers_are_counted_wherever_they_are(self) -> None:
        kept = gate(Doorkeeper(READ), rate_limit=self.LIMIT)
        answers = [await kept.admit([name], 'GET', address) for name, address in (
            ('ann', '192.0.2.1'), ('ann', '192.0.2.2'), ('ann', '192.0.2.3'), ('bob', '192.0.2.1'))]
        self.assertEqual([False, False, True, False],
                         [answer.refusal is not None for answer in answers])

    async def test_guesses_are_counted_by_address(self) -> None:
        kept = gate(Doorkeeper(error=UnauthenticatedError('?')), rate_limit=self.LIMIT)
        kinds = [type((await kept.admit([], 'GET', '192.0.2.1')).refusal) for _ in range(3)]
        self.assertEqual([UnauthenticatedError, UnauthenticatedError, TooManyRequestsError], kinds)

    async def test_nobody_takes_from_an_address_by_calling_themselves_so(self) -> None:
        kept = gate(Doorkeeper(READ), rate_limit=self.LIMIT)
        for _ in range(3):
            await kept.admit(['192.0.2.1'], 'GET', '192.0.2.9')
        kept.authenticator = None
        self.assertIsNone((await kept.admit([], 'GET', '192.0.2.1')).refusal)


class OriginTest(unittest.TestCase):
    def test_a_trusted_proxy_tells_where_a_request_comes_from(self) -> None:
        kept = gate(trusted_proxies=['192.0.2.0/24'])
        self.assertTrue(kept.trusts_proxies)
        for peer, origin in (('192.0.2.7', ('203.0.113.5', 'https')),
                             ('198.51.100.7', ('198.51.100.7', 'http'))):
            with self.subTest(peer=peer):
                self.assertEqual(
                    origin, kept.origin(peer, 'http', ['203.0.113.5'], ['https']))

    def test_nobody_is_trusted_unless_told(self) -> None:
        self.assertFalse(gate().trusts_proxies)


if __name__ == '__main__':
    unittest.main()
