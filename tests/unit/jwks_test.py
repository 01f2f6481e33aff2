"""The keys of an authorization server: which are used, where they are read, and how often."""

import asyncio
import gc
import json
import logging
import socket
import ssl
import tempfile
import threading
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from addrservice.auth.jwks import (
    ALGORITHMS, MAX_SIZE, KeysError, make_reader, parse_keys,
)
from addrservice.auth.jwt import JWTAuthenticator
from addrservice.auth.key_set import MAX_WAITING, KeySet, Pace
from addrservice.errors import (
    AuthenticatorUnavailableError, ConfigError, UnauthenticatedError,
)
from tests.certificates import Authority
from tests.properties import PROPERTY, keep_home_temporary
from tests.support import DEADLINE, wait_until
from tests.tokens import (
    KeyServer, SigningKey, bearer, jwt_settings, key_set, rsa_key, rsa_public, running_key_server,
)

LOGGER = logging.getLogger('addrservice')
NEVER = 3600.0


def setUpModule() -> None:
    keep_home_temporary()


class ParseTest(unittest.TestCase):
    key: ClassVar[dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.key = SigningKey('one').public()

    def parse(
        self, *keys: Any, algorithms: Sequence[str] = ('ES256', 'RS256')
    ) -> list[tuple[str | None, str]]:
        """Id and algorithm of each key that a set gives."""
        return [(key.key_id, key.algorithm_name)
                for key in parse_keys(key_set(*keys), algorithms)]

    def assert_left_out(self, key: Any, algorithms: Sequence[str] = ('ES256', 'RS256')) -> None:
        """With another one beside it, which stays."""
        ours = rsa_public(alg='PS512')
        self.assertEqual([('rsa', 'PS512')],
                         self.parse(key, ours, algorithms=(*algorithms, 'PS512')))
        with self.assertRaises(KeysError) as caught:
            self.parse(key, algorithms=algorithms)
        self.assertEqual(f'no key for {" or ".join(algorithms)} in it', str(caught.exception))

    def test_a_key_serves_each_allowed_algorithm_that_takes_its_type(self) -> None:
        ed25519 = {**OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate().public_key(), as_dict=True),
                   'kid': 'ed'}
        found = self.parse(self.key, rsa_public(), ed25519, algorithms=tuple(ALGORITHMS))
        self.assertEqual([('one', 'ES256'), *(('rsa', name) for name in (
            'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512')), ('ed', 'EdDSA')], found)
        self.assertEqual([('one', 'ES256')],
                         self.parse(self.key, rsa_public(), ed25519, algorithms=('ES256',)))

    def test_a_key_may_say_what_it_is_for(self) -> None:
        for more in ({'use': 'sig'}, {'alg': 'ES256'}, {'key_ops': ['verify']}, {'x5t': 'a'}):
            self.assertEqual([('one', 'ES256')], self.parse({**self.key, **more}))
        self.assertEqual([(None, 'ES256')], self.parse(SigningKey(None).public()))

    def test_a_key_for_something_else_is_left_out(self) -> None:
        for more in ({'use': 'enc'}, {'alg': 'ES384'}, {'alg': 'ECDH-ES'}, {'alg': None},
                     {'key_ops': ['encrypt']}, {'key_ops': 'verify'}, {'use': None}):
            with self.subTest(more=more):
                self.assert_left_out({**self.key, **more})

    def test_a_key_that_is_none_is_left_out(self) -> None:
        """RFC 7517, 5: what is not understood hurts nobody."""
        x = self.key['x']
        for more in ({'kty': 'oct', 'k': x}, {'kty': 'XYZ'}, {'kty': None}, {'crv': 'P-384'},
                     {'crv': None}, {'kid': 1}, {'x': None}, {'x': 1}, {'x': '!'}, {'x': x[:-2]},
                     {'y': x}, {'x': [x]}, {'x': 'ä'}):
            with self.subTest(more=more):
                self.assert_left_out({**self.key, **more})
        keys: tuple[object, ...] = (
            None, [], 'key', {}, {'kty': 'EC', 'crv': 'P-256'}, {'kty': 'RSA'},
            {'kty': 'RSA', 'n': 'AQ', 'e': 'AQAB'}, {'kty': 'OKP', 'crv': 'Ed25519', 'x': ''})
        for key in keys:
            with self.subTest(key=key):
                self.assert_left_out(key)
        self.assert_left_out({'kty': 'OKP', 'crv': 'Ed25519', 'x': 'AAAA'}, ('EdDSA',))

    def test_a_key_that_is_too_short_is_left_out(self) -> None:
        short = RSAAlgorithm.to_jwk(rsa_key(1024).public_key(), as_dict=True)
        self.assert_left_out({**short, 'kid': 'short'})

    def test_a_private_key_is_taken_for_the_public_one(self) -> None:
        private = {**ECAlgorithm.to_jwk(SigningKey('p').private, as_dict=True), 'kid': 'p'}
        self.assertIn('d', private)
        key, = parse_keys(key_set(private), ['ES256'])
        self.assertFalse(hasattr(key.key, 'sign'))

    def test_what_is_no_jwk_set_is_refused_in_words(self) -> None:
        for document, words in (
            (b'', 'not JSON'), (b'{', 'not JSON'), (b'\xff', 'not JSON'),
            (b'[' * 2000, 'not JSON'), (b'[]', 'not a JWK Set'), (b'{}', 'not a JWK Set'),
            (b'{"keys": {}}', 'not a JWK Set'), (b'null', 'not a JWK Set'),
            (json.dumps(self.key).encode(), 'not a JWK Set'),
            (b'{"keys": []}', 'no key for ES256 in it'),
            (key_set(self.key) + b' ' * MAX_SIZE, f'more than {MAX_SIZE} bytes'),
        ):
            with self.subTest(words=words), self.assertRaises(KeysError) as caught:
                parse_keys(document, ['ES256'])
            self.assertEqual(words, str(caught.exception))

    @PROPERTY
    @given(st.sampled_from(['kty', 'kid', 'crv', 'x', 'y', 'n', 'e', 'alg', 'use', 'key_ops']),
           st.none() | st.booleans() | st.integers(-2**53, 2**53) | st.floats(0, 9) | st.text()
           | st.lists(st.text()) | st.dictionaries(st.text(), st.text()))
    def test_any_value_anywhere_is_left_out_or_taken(self, name: str, value: object) -> None:
        for key in self.key, rsa_public():
            try:
                self.parse({**key, name: value})
            except KeysError as error:
                self.assertIn('no key', str(error))


class LocationTest(unittest.TestCase):
    def test_a_url_is_in_https_or_on_this_machine(self) -> None:
        for url in ('https://issuer.example/keys', 'https://issuer.example:8443/', 'HTTPS://a/',
                    'http://127.0.0.1:80/keys', 'http://[::1]/keys', 'http://localhost:8080/keys'):
            with self.subTest(url=url):
                self.assertEqual(url.lower(), make_reader(url, 1)[0].lower())
        for url in ('http://issuer.example/keys', 'http://127.0.0.1.example/', 'ftp://127.0.0.1/',
                    'file:///etc/passwd', 'https://', 'https:///keys', 'http://[::2]/', '://a',
                    'http://localhost.example/', 'https://[::1/', 'https://a:99999/',
                    'data://a', 'https://a:b/'):
            with self.subTest(url=url), self.assertRaises(ValueError) as caught:
                make_reader(url, 1)
            self.assertTrue(str(caught.exception).startswith('jwks: '))
            self.assertNotIn(url, str(caught.exception))

    def test_a_url_has_no_password_in_it_and_its_query_is_told_nobody(self) -> None:
        for url in 'https://user:Pimpernel@issuer.example/', 'https://Pimpernel@issuer.example/':
            with self.assertRaises(ValueError) as caught:
                make_reader(url, 1)
            self.assertNotIn('Pimpernel', str(caught.exception))
        self.assertEqual('https://a/keys', make_reader('https://a/keys?secret=Pimpernel#x', 1)[0])


class KeySetTestCase(unittest.IsolatedAsyncioTestCase):
    """With a key server, whose key has the id ``one`` at first."""

    pace = Pace(lifetime=NEVER, retry=NEVER, pause=NEVER, deadline=DEADLINE)

    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().set_debug(False)
        self.server: KeyServer = self.enterContext(running_key_server())
        self.server.document = key_set(SigningKey('one').public())

    def make(self, location: str | None = None, **pace: float) -> KeySet:
        return KeySet(location or self.server.url, ['ES256'], self.pace._replace(**pace), LOGGER)

    async def start(self, location: str | None = None, **pace: float) -> KeySet:
        keys = self.make(location, **pace)
        await keys.start()
        self.addAsyncCleanup(keys.stop)
        return keys

    async def has(self, keys: KeySet, kid: str | None) -> bool:
        return await keys.find('ES256', kid) is not None

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.001)

    def rotate(self, kid: str) -> None:
        self.server.document = key_set(SigningKey(kid).public())


class ReadingTest(KeySetTestCase):
    async def warning(self, location: str | None = None, **pace: float) -> str:
        """What the log says of a place that cannot be read at the start."""
        with self.assertLogs(LOGGER, 'WARNING') as logs:
            keys = await self.start(location, **pace)
        with self.assertRaises(AuthenticatorUnavailableError):
            await keys.find('ES256', 'one')
        line, = logs.records
        return line.getMessage()

    async def test_keys_are_read_at_the_start(self) -> None:
        keys = await self.start()
        self.assertEqual(1, self.server.asked)
        self.assertTrue(await self.has(keys, 'one'))
        self.assertTrue(await self.has(keys, None))
        self.assertEqual(1, self.server.asked)

    async def test_a_server_that_does_not_give_them_keeps_nothing_from_starting(self) -> None:
        """The log says why; tokens cannot be checked for now."""
        self.server.status = 500
        self.assertEqual(
            f'cannot read the keys at {self.server.url}: answered with status 500; '
            'there are none yet', await self.warning(f'{self.server.url}?secret=Pimpernel'))
        self.server.status, self.server.document = 200, b'{"keys": []}'
        self.assertIn('no key for ES256 in it', await self.warning())
        self.server.document = b' ' * (MAX_SIZE + 1)
        self.assertIn(f'more than {MAX_SIZE} bytes', await self.warning())

    async def test_a_server_that_is_out_of_reach(self) -> None:
        with socket.socket() as sock:
            sock.bind(('127.0.0.1', 0))
            url = f'127.0.0.1:{sock.getsockname()[1]}'
            self.assertIn('Connection refused', await self.warning(f'http://{url}/keys'))
            sock.listen()
            self.assertIn('no answer in 0.05 s', await self.warning(f'http://{url}', deadline=0.05))

    async def test_a_redirect_is_not_followed(self) -> None:
        self.server.status = 302
        self.assertIn('answered with status 302', await self.warning())
        self.assertEqual(1, self.server.asked)

    async def test_an_answer_that_is_no_http(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as sock:
            def answer() -> None:
                with sock.accept()[0] as connection:
                    connection.recv(9999)
                    connection.sendall(b'Pimpernel\x1b' + b'x' * 999 + b'\r\n\r\n')

            thread = threading.Thread(target=answer)
            thread.start()
            warning = await self.warning(f'http://127.0.0.1:{sock.getsockname()[1]}/')
            thread.join()
        self.assertIn(r": BadStatusLine('Pimpernel\x1bxxx", warning)
        self.assertLess(len(warning), 320)

    async def test_no_proxy_is_asked_for_what_is_on_this_machine(self) -> None:
        with mock.patch.dict('os.environ', http_proxy='http://127.0.0.1:9', no_proxy=''):
            self.assertTrue(await self.has(await self.start(), 'one'))

    async def test_a_proxy_of_the_environment_is_asked_for_what_is_in_https(self) -> None:
        with mock.patch.dict('os.environ', https_proxy='http://127.0.0.1:9', no_proxy=''):
            for scheme in 'https', 'HTTPS':
                url = self.server.url.replace('http', scheme)
                self.assertIn('Connection refused', await self.warning(url))

    async def test_a_certificate_has_to_be_good(self) -> None:
        self.enterContext(mock.patch.dict('os.environ', no_proxy='*'))
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        authority = Authority(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue('issuer'))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        url = self.server.url.replace('http://', 'https://')
        self.assertIn(': certificate: unable to get local issuer ', await self.warning(url))
        with mock.patch.dict('os.environ', SSL_CERT_FILE=str(authority.certificate)):
            self.assertTrue(await self.has(await self.start(url), 'one'))


class RotationTest(KeySetTestCase):
    async def test_keys_are_read_anew_when_they_are_old(self) -> None:
        keys = await self.start(lifetime=0.01)
        self.rotate('two')
        await self.until(lambda: keys._pick('ES256', 'two'))
        self.assertFalse(keys._pick('ES256', 'one'))

    async def test_keys_stay_in_force_when_they_cannot_be_read_anew(self) -> None:
        with self.assertLogs(LOGGER, 'WARNING') as logs:
            keys = await self.start(lifetime=0.01, retry=0.01)
            self.server.status = 503
            await self.until(lambda: len(logs.output) > 1)
        self.assertIn('status 503; those read before stay in force', logs.output[0])
        self.assertTrue(await self.has(keys, 'one'))
        self.server.status = 200
        self.rotate('two')
        await self.until(lambda: keys._pick('ES256', 'two'))

    async def test_after_a_start_without_keys_it_is_tried_again_soon(self) -> None:
        self.server.status = 503
        with self.assertLogs(LOGGER, 'WARNING'):
            keys = await self.start(retry=0.01)
        self.server.status = 200
        await self.until(lambda: keys._keys)
        self.assertTrue(await self.has(keys, 'one'))

    async def test_an_unknown_id_has_the_keys_read_anew(self) -> None:
        keys = await self.start()
        self.rotate('two')
        self.assertTrue(await self.has(keys, 'two'))
        self.assertFalse(await self.has(keys, 'one'))
        self.assertEqual(2, self.server.asked)

    async def test_unknown_ids_have_them_read_once_in_a_while_in_all(self) -> None:
        """However many there are, one after the other or at once."""
        keys = await self.start(pause=NEVER)
        for number in range(20):
            self.assertFalse(await self.has(keys, f'unknown-{number}'))
        self.assertEqual(2, self.server.asked)
        again = await self.start(pause=0)
        self.assertFalse(await self.has(again, 'unknown'))
        self.assertFalse(await self.has(again, 'unknown'))
        self.assertEqual(5, self.server.asked)

    async def test_who_asks_at_the_same_time_shares_one_reading(self) -> None:
        keys = await self.start(pause=0)
        self.rotate('two')
        self.server.answering.clear()
        asking = [asyncio.create_task(self.has(keys, 'two')) for _ in range(50)]
        await self.until(lambda: self.server.asked == 2)
        asking.append(asyncio.create_task(self.has(keys, 'two')))
        self.server.answering.set()
        self.assertEqual([True] * 51, await asyncio.gather(*asking))
        self.assertEqual(2, self.server.asked)

    async def test_not_all_that_are_made_up_may_wait(self) -> None:
        keys = await self.start()
        self.server.answering.clear()
        waiting = [asyncio.create_task(self.has(keys, str(n))) for n in range(MAX_WAITING)]
        await self.until(lambda: keys._waiting == MAX_WAITING)
        with self.assertRaises(AuthenticatorUnavailableError):
            await self.has(keys, 'one too many')
        self.server.answering.set()
        self.assertEqual({False}, set(await asyncio.gather(*waiting)))
        self.assertEqual(0, keys._waiting)

    async def test_known_keys_are_found_while_others_wait(self) -> None:
        keys = await self.start()
        self.server.answering.clear()
        waiting = asyncio.create_task(self.has(keys, 'two'))
        await self.until(lambda: self.server.asked == 2)
        self.assertTrue(await self.has(keys, 'one'))
        self.assertFalse(waiting.done())
        self.server.answering.set()
        self.assertFalse(await waiting)

    async def test_who_gives_up_takes_nothing_from_the_others(self) -> None:
        keys = await self.start()
        self.rotate('two')
        self.server.answering.clear()
        first, second = (asyncio.create_task(self.has(keys, 'two')) for _ in range(2))
        await self.until(lambda: self.server.asked == 2)
        first.cancel()
        await asyncio.wait([first])
        self.server.answering.set()
        self.assertTrue(await second)

    async def test_a_stop_waits_for_no_server(self) -> None:
        keys = await self.start()
        self.server.answering.clear()
        keys.reload()
        await self.until(lambda: self.server.asked == 2)
        async with asyncio.timeout(1):
            await keys.stop()
        self.server.answering.set()
        wait_until(lambda: all(thread.name != 'jwks' for thread in threading.enumerate()))
        gc.collect()

    async def test_what_was_never_started_can_be_stopped(self) -> None:
        await self.make().stop()

    async def test_the_event_loop_does_not_wait(self) -> None:
        keys = await self.start()
        self.server.answering.clear()
        waiting = asyncio.create_task(self.has(keys, 'two'))
        await self.until(lambda: self.server.asked == 2)
        turned = asyncio.Event()
        asyncio.get_running_loop().call_soon(turned.set)
        await turned.wait()
        self.assertFalse(waiting.done())
        self.server.answering.set()
        await waiting

    async def test_two_keys_of_one_id_are_none(self) -> None:
        self.server.document = key_set(SigningKey('one').public(), SigningKey('one').public())
        keys = await self.start()
        self.assertFalse(await self.has(keys, 'one'))

    async def test_a_bug_ends_no_rotation(self) -> None:
        keys = await self.start(lifetime=0.01, retry=0.01)
        with mock.patch.object(keys, '_read', side_effect=ZeroDivisionError), \
                self.assertLogs(LOGGER, 'ERROR') as logs:
            await self.until(lambda: logs.output)
        self.rotate('two')
        await self.until(lambda: keys._pick('ES256', 'two'))


class AuthenticatorTest(KeySetTestCase):
    """The life of an authenticator, with a file or with a URL."""

    async def authenticate(self, authenticator: JWTAuthenticator, key: SigningKey) -> str:
        return (await authenticator.authenticate(list(bearer(key.token()).values()))).name

    async def test_a_url_is_read_at_the_start_and_when_told(self) -> None:
        one, two = SigningKey('one'), SigningKey('two')
        self.server.document = key_set(one.public())
        authenticator = JWTAuthenticator(jwt_settings(self.server.url), self.pace)
        with self.assertRaises(AuthenticatorUnavailableError):
            await self.authenticate(authenticator, one)
        await authenticator.start()
        self.addAsyncCleanup(authenticator.stop)
        self.assertEqual('ada', await self.authenticate(authenticator, one))
        self.server.document = key_set(two.public())
        authenticator.reload()
        await self.until(lambda: authenticator._keys._pick('ES256', 'two'))
        self.assertEqual('ada', await self.authenticate(authenticator, two))
        with self.assertRaises(UnauthenticatedError):
            await self.authenticate(authenticator, one)

    async def test_a_file_is_read_when_made_and_when_told(self) -> None:
        one, two = SigningKey('one'), SigningKey('two')
        path = Path(self.enterContext(tempfile.TemporaryDirectory()), 'keys')
        path.write_bytes(key_set(one.public()))
        authenticator = JWTAuthenticator(jwt_settings(path), self.pace)
        self.assertEqual('ada', await self.authenticate(authenticator, one))
        path.write_bytes(b'{')
        with self.assertRaises(ConfigError) as caught:
            authenticator.reload()
        self.assertEqual(f'{path}: not JSON', str(caught.exception))
        self.assertEqual('ada', await self.authenticate(authenticator, one))
        path.write_bytes(key_set(two.public()))
        authenticator.reload()
        self.assertEqual('ada', await self.authenticate(authenticator, two))


if __name__ == '__main__':
    unittest.main()
