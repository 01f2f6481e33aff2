"""Who asks: what a request has to say, and the authenticators that the configuration names."""

import asyncio
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from addrservice.auth import (
    READ, AbstractAuthenticator, Caller, bearer_token, create_authenticator,
)
from addrservice.auth.abstract import MAX_TOKEN_SIZE
from addrservice.config import AuthSettings, TokenSettings
from addrservice.errors import BadCredentialsError, ConfigError, UnauthenticatedError
from tests.tokens import SigningKey, jwt_settings, key_set, write_tokens


class KnowAll(AbstractAuthenticator):
    """Somebody else's authenticator: believes whatever it is told."""

    security_scheme: ClassVar[dict[str, Any]] = {'type': 'http', 'scheme': 'basic'}

    def __init__(self, default_name: str) -> None:
        if not default_name:
            raise ValueError('there has to be a name')
        self.default_name = default_name

    async def authenticate(self, authorization: Sequence[str]) -> Caller:
        return Caller(''.join(authorization) or self.default_name, frozenset({READ}))


CUSTOM = f'{__name__}.KnowAll'


class BearerTest(unittest.TestCase):
    def test_a_token_follows_its_scheme(self) -> None:
        """RFC 6750, 2.1; RFC 9110, 11.1: the name of a scheme has no case."""
        for field in 'Bearer a', 'bearer a', 'BEARER a', 'Bearer   a', 'Bearer a  ', ' Bearer a':
            with self.subTest(field=field):
                self.assertEqual('a', bearer_token([field]))
        everything = 'AZaz09-._~+/=='
        self.assertEqual(everything, bearer_token([f'Bearer {everything}']))

    def test_without_a_token_no_error_is_named(self) -> None:
        """RFC 6750, 3.1: nor where the client speaks of another scheme."""
        for fields in ([], [''], ['Basic YTpi'], ['Basic'], ['a'], ['Bearer\ta'], ['Bearer:a'],
                       ['Bearerish a'], ['ſ Bearer a'], ['DPoP a']):
            with self.subTest(fields=fields), self.assertRaises(UnauthenticatedError) as caught:
                bearer_token(fields)
            self.assertIsNone(caught.exception.code)

    def test_what_is_no_token_is_a_bad_request(self) -> None:
        for token in ('', ' ', 'a b', 'a,b', 'a, Bearer b', '=', 'a=b', '"a"', 'a\tb', 'ä', 'a\x00',
                      'token="a"', 'ſ', 'a\n'):
            with self.subTest(token=token), self.assertRaises(BadCredentialsError) as caught:
                bearer_token([f'Bearer {token}'])
            self.assertEqual('invalid_request', caught.exception.code)

    def test_two_fields_are_a_bad_request(self) -> None:
        for fields in ['Bearer a', 'Bearer a'], ['Bearer a', 'Basic b'], ['', 'Bearer a']:
            with self.subTest(fields=fields), self.assertRaises(BadCredentialsError):
                bearer_token(fields)

    def test_a_huge_token_is_not_looked_at(self) -> None:
        longest = 'a' * MAX_TOKEN_SIZE
        self.assertEqual(longest, bearer_token([f'Bearer {longest}']))
        with self.assertRaises(UnauthenticatedError) as caught:
            bearer_token([f'Bearer {longest}a'])
        self.assertEqual('invalid_token', caught.exception.code)


class CreateAuthenticatorTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def assert_refused(self, custom: dict[str, dict[str, Any] | None], *words: str) -> None:
        with self.assertRaises(ValueError) as caught:
            create_authenticator(AuthSettings(custom=custom))
        for word in (*words, *custom):
            self.assertIn(word, str(caught.exception))

    def test_nobody_is_asked_where_the_configuration_says_so_or_nothing(self) -> None:
        self.assertIsNone(create_authenticator('none'))
        self.assertIsNone(create_authenticator(None))

    def test_each_way_has_its_authenticator_which_tells_openapi_how(self) -> None:
        tokens, keys = self.folder / 'tokens', self.folder / 'keys'
        write_tokens(tokens)
        keys.write_bytes(key_set(SigningKey('1').public()))
        for settings, form in (
            (AuthSettings(tokens=TokenSettings(str(tokens))), None),
            (AuthSettings(jwt=jwt_settings(keys)), 'JWT'),
        ):
            authenticator = create_authenticator(settings)
            assert authenticator is not None
            scheme = authenticator.security_scheme
            self.assertEqual(('http', 'bearer', form),
                             (scheme['type'], scheme['scheme'], scheme.get('bearerFormat')))

    def test_a_class_of_somebody_elses_is_named_by_its_path(self) -> None:
        authenticator = create_authenticator(
            AuthSettings(custom={CUSTOM: {'default-name': 'Eve'}}))
        assert isinstance(authenticator, KnowAll)
        self.assertEqual(Caller('Eve', frozenset({READ})),
                         asyncio.run(authenticator.authenticate([])))

    def test_one_that_opens_nothing_and_has_no_files_needs_no_more(self) -> None:
        authenticator = KnowAll('Eve')
        asyncio.run(authenticator.start())
        authenticator.reload()
        asyncio.run(authenticator.stop())

    def test_what_is_no_authenticator_is_refused_in_words(self) -> None:
        self.assert_refused({'KnowAll': {}}, 'dotted path')
        self.assert_refused({'.KnowAll': {}}, 'dotted path')
        self.assert_refused({'no.such.Thing': {}}, 'No module')
        self.assert_refused({f'{__name__}.Nothing': {}}, 'no attribute')
        self.assert_refused({'pathlib.Path': {}}, 'not an AbstractAuthenticator')
        self.assert_refused({f'{__name__}.CUSTOM': {}}, 'not an AbstractAuthenticator')

    def test_settings_that_a_class_does_not_take_are_refused_in_words(self) -> None:
        self.assert_refused({CUSTOM: None}, 'default_name')
        self.assert_refused({CUSTOM: {'default-name': ''}}, 'there has to be a name')
        self.assert_refused({CUSTOM: {'default-name': 'Eve', 'x': 1}}, 'unexpected keyword')

    def test_a_file_that_is_not_there_is_refused(self) -> None:
        missing = self.folder / 'missing'
        for settings in (AuthSettings(tokens=TokenSettings(str(missing))),
                         AuthSettings(jwt=jwt_settings(missing))):
            with self.assertRaises(ConfigError) as caught:
                create_authenticator(settings)
            self.assertEqual(f'{missing}: No such file or directory', str(caught.exception))


if __name__ == '__main__':
    unittest.main()
