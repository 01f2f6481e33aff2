"""Access tokens of an authorization server: which are taken, and that no other one is."""

import asyncio
import hashlib
import hmac
import json
import tempfile
import time
import unittest
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any, ClassVar, Final

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from addrservice.auth import READ, WRITE, Caller
from addrservice.auth.jwt import JWTAuthenticator
from addrservice.errors import BadCredentialsError, UnauthenticatedError
from tests.properties import PROPERTY, keep_home_temporary
from tests.tokens import (
    AUDIENCE, ISSUER, SigningKey, bearer, claims, encode_part, jwt_settings, key_set, rsa_key,
    rsa_public,
)

# The order of the curve P-256 (FIPS 186-4, D.1.2.3).
P256_ORDER: Final = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551
HEADER: Final = {'typ': 'at+jwt', 'alg': 'ES256', 'kid': 'one'}


def setUpModule() -> None:
    keep_home_temporary()


def split(token: str) -> tuple[str, str, bytes]:
    """Header and payload as they are written, and the signature."""
    header, payload, signature = token.split('.')
    return header, payload, urlsafe_b64decode(signature + '==')


class JWTTestCase(unittest.TestCase):
    folder: ClassVar[Path]
    key: ClassVar[SigningKey]
    other: ClassVar[SigningKey]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.key, cls.other = SigningKey('one'), SigningKey('two')
        cls.write(cls.key.public(), cls.other.public(), rsa_public())

    @classmethod
    def write(cls, *keys: dict[str, Any]) -> Path:
        path = cls.folder / 'keys.json'
        path.write_bytes(key_set(*keys))
        return path

    def setUp(self) -> None:
        self.authenticator = self.make()

    def make(self, **changes: Any) -> JWTAuthenticator:
        return JWTAuthenticator(jwt_settings(self.folder / 'keys.json', **changes))

    def caller(self, token: str, **changes: Any) -> Caller:
        authenticator = self.make(**changes) if changes else self.authenticator
        return asyncio.run(authenticator.authenticate(list(bearer(token).values())))

    def assert_refused(self, token: str, **changes: Any) -> None:
        """With a message that tells nothing of it, and no other error behind that."""
        with self.assertRaises(UnauthenticatedError) as caught:
            self.caller(token, **changes)
        error = caught.exception
        self.assertEqual('invalid_token', error.code)
        self.assertEqual('The access token is not valid here, or not any more', error.message)
        self.assertTrue(error.__suppress_context__ or error.__context__ is None)

    def sign(self, header: object, payload: object, key: SigningKey | None = None) -> str:
        """A token with a good signature (ES256), whatever is signed."""
        signed = f'{encode_part(header)}.{encode_part(payload)}'
        algorithm = jwt.get_algorithm_by_name('ES256')
        signature = algorithm.sign(signed.encode(), (key or self.key).private)
        return f'{signed}.{encode_part(signature)}'


class TakenTest(JWTTestCase):
    def test_the_caller_is_the_subject_and_may_what_the_scope_says(self) -> None:
        self.assertEqual(Caller('ada', frozenset({READ})), self.caller(self.key.token()))
        token = self.key.token(sub='Zoë | app@client', scope=f'openid {WRITE}  {READ}')
        self.assertEqual(Caller('Zoë | app@client', frozenset({'openid', READ, WRITE})),
                         self.caller(token))

    def test_without_a_scope_the_caller_may_nothing(self) -> None:
        for scope in None, '', ' ', f'{READ}\t{WRITE}', READ.upper():
            with self.subTest(scope=scope):
                self.assertNotIn(READ, self.caller(self.key.token(scope=scope)).scopes)

    def test_a_type_may_be_spelled_as_rfc_9068_has_it(self) -> None:
        for name in 'at+jwt', 'AT+JWT', 'application/at+jwt', 'Application/At+JWT':
            with self.subTest(typ=name):
                self.assertEqual('ada', self.caller(self.key.token({'typ': name})).name)

    def test_an_audience_may_be_one_of_several(self) -> None:
        token = self.key.token(aud=['https://other.example', AUDIENCE])
        self.assertEqual('ada', self.caller(token).name)

    def test_each_key_of_the_set_is_taken_and_rsa_too(self) -> None:
        self.assertEqual('ada', self.caller(self.other.token()).name)
        for algorithm in 'RS256', 'PS384':
            token = jwt.encode(claims(), rsa_key(), algorithm,
                               headers={'typ': 'at+jwt', 'kid': 'rsa'})
            self.assertEqual('ada', self.caller(token, algorithms=('RS256', 'PS384')).name)
            self.assert_refused(token, algorithms=('ES256', 'RS512'))

    def test_without_an_id_there_has_to_be_one_key_that_fits(self) -> None:
        token = jwt.encode(claims(), rsa_key(), 'RS256', headers={'typ': 'at+jwt'})
        self.assertEqual('ada', self.caller(token).name)
        self.assert_refused(self.key.token({'kid': None}))

    def test_clocks_may_differ_by_the_leeway(self) -> None:
        now = time.time()
        for claim, value in ('exp', now - 20), ('nbf', now + 20), ('iat', now + 20):
            with self.subTest(claim=claim):
                token = self.key.token(None, **{claim: value})
                self.assertEqual('ada', self.caller(token).name)
                self.assert_refused(token, leeway=5)

    def test_the_longest_name_is_taken(self) -> None:
        self.assertEqual('ä' * 255, self.caller(self.key.token(sub='ä' * 255)).name)

    def test_keys_that_a_token_brings_or_points_to_do_not_count(self) -> None:
        """``jwk``, ``jku``, ``x5c``, ``x5u``: nothing is read from there, and nothing believed."""
        mallory = SigningKey('one')
        for header in ({'jwk': mallory.public()}, {'jku': 'http://127.0.0.1:9/keys'},
                       {'x5u': 'http://127.0.0.1:9/'}, {'x5c': ['MIIB']}):
            with self.subTest(header=header):
                self.assert_refused(mallory.token(header))
                self.assertEqual('ada', self.caller(self.key.token(header)).name)


class RefusedTest(JWTTestCase):
    def test_claims_that_are_missing_or_wrong(self) -> None:
        """RFC 9068, 2.2 and 4; RFC 7519, 4.1."""
        now = time.time()
        wrong: dict[str, list[object]] = {
            'iss': ['', 'https://other.example', f'{ISSUER}/', [ISSUER], 1],
            'aud': ['', 'https://other.example', f'{AUDIENCE}/', [], [['a']], {AUDIENCE: 1}, 1,
                    [AUDIENCE, 1]],
            'exp': [now - 31, 0, -1, str(now + 60), True, [], '', 'soon'],
            'iat': [now + 60, str(now), True, {}, 'now'],
            'sub': ['', 'a' * 256, 'a\nb', 'a\x00b', 'a\x1b[31m', 'a\u202eb', 'a\u2028b', '\ud800',
                    1, ['ada'], True],
            'client_id': [1, ['app'], False],
            'jti': [1, ['1'], True],
        }
        for name, values in wrong.items():
            self.assert_refused(self.key.token(**{name: None}))  # left out
            for value in (None, *values):
                with self.subTest(claim=name, value=value):
                    self.assert_refused(self.sign(HEADER, {**claims(), name: value}))
        for name, value in (('nbf', now + 60), ('nbf', str(now)), ('nbf', True), ('nbf', None),
                            ('scope', 1), ('scope', [READ]), ('scope', {READ: 1})):
            with self.subTest(claim=name, value=value):
                self.assert_refused(self.sign(HEADER, {**claims(), name: value}))

    def test_times_that_are_no_numbers(self) -> None:
        """What is no JSON, or what a number in JSON cannot be."""
        for value in 'NaN', 'Infinity', '-Infinity', '1e999', '-1e999', '9' * 5000, '0x7fffffff':
            with self.subTest(value=value):
                text = json.dumps(claims(exp='VALUE')).replace('"VALUE"', value)
                self.assert_refused(self.sign(HEADER, text.encode()))

    def test_other_types_of_token(self) -> None:
        """So that an ID token, say, is no access token (RFC 9068, 5)."""
        for name in None, 'JWT', 'jwt', '', 'at+jwt ', 'id+jwt', 'application/jwt', 1, ['at+jwt']:
            with self.subTest(typ=name):
                header = {key: value for key, value in {**HEADER, 'typ': name}.items()
                          if value is not None}
                self.assert_refused(self.sign(header, claims()))
                self.assertEqual('ada', self.caller(self.sign(HEADER, claims())).name)

    def test_no_signature(self) -> None:
        """``alg: none`` in any spelling, with and without a signature."""
        payload = encode_part(claims())
        _, _, signature = split(self.key.token())
        names: tuple[object, ...] = 'none', 'None', 'NONE', 'nOnE', '', None, 0, False, []
        for name in names:
            header = encode_part({**HEADER, 'alg': name})
            for end in '', encode_part(signature):
                with self.subTest(alg=name, end=end):
                    self.assert_refused_or_bad(f'{header}.{payload}.{end}')
        header = encode_part(HEADER)
        for token in (f'{header}.{payload}.', f'{header}.{payload}', f'{header}..{payload}'):
            self.assert_refused_or_bad(token)

    def assert_refused_or_bad(self, token: str) -> None:
        try:
            self.assert_refused(token)
        except BadCredentialsError:
            pass

    def test_a_public_key_is_no_shared_secret(self) -> None:
        """HS256 with what everybody can read."""
        public = self.key.private.public_key()
        rsa = rsa_key().public_key()
        secrets = [k.public_bytes(encoding, form) for k in (public, rsa) for encoding, form in (
            (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            (Encoding.DER, PublicFormat.SubjectPublicKeyInfo))]
        secrets += [json.dumps(self.key.public()).encode(), key_set(self.key.public()), b'']
        for secret in secrets:
            for kid in 'one', 'rsa', None:
                header = {**HEADER, 'alg': 'HS256', 'kid': kid}
                signed = f'{encode_part(header)}.{encode_part(claims())}'
                digest = hmac.digest(secret, signed.encode(), hashlib.sha256)
                self.assert_refused(f'{signed}.{encode_part(digest)}')

    def test_an_algorithm_that_is_not_allowed_or_not_that_of_the_key(self) -> None:
        self.assert_refused(self.key.token(), algorithms=('RS256',))
        for name in 'RS256', 'ES384', 'ES256K', 'EdDSA', 'HS256', ['ES256'], 'es256', 'ES256 ':
            with self.subTest(alg=name):
                self.assert_refused(self.sign({**HEADER, 'alg': name}, claims()))
        for kid in 'one', None:  # RSA's signature under the key of another
            header = {'typ': 'at+jwt', 'kid': kid}
            token = jwt.encode(claims(), rsa_key(), 'RS512',
                               headers={k: v for k, v in header.items() if v})
            self.assert_refused(token)

    def test_signatures_that_are_not_the_keys(self) -> None:
        """CVE-2022-21449 among them: zero for r and s."""
        header, payload, signature = split(self.key.token())
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        der = hashlib.sha256(signature).digest()
        for name, forged in {
            'zero': bytes(64),
            'the order': P256_ORDER.to_bytes(32) * 2,
            'r zero': bytes(32) + signature[32:],
            's zero': signature[:32] + bytes(32),
            'r above the order': ((r + P256_ORDER) % 2**256).to_bytes(32) + signature[32:],
            'swapped': signature[32:] + signature[:32],
            'short': signature[:-1],
            'long': signature + b'\0',
            'DER': b'\x30\x44\x02\x20' + signature[:32] + b'\x02\x20' + signature[32:],
            'random': der * 2,
            'one': b'\0',
        }.items():
            with self.subTest(signature=name):
                self.assert_refused(f'{header}.{payload}.{encode_part(forged)}')
        # (r, -s) verifies as well as (r, s): whoever has a token can write it in another way, and
        # gets nothing from it.
        twin = r.to_bytes(32) + ((P256_ORDER - s) % P256_ORDER).to_bytes(32)
        self.assertEqual('ada', self.caller(f'{header}.{payload}.{encode_part(twin)}').name)

    def test_another_keys_signature_or_another_tokens(self) -> None:
        mallory = SigningKey('one')
        self.assert_refused(mallory.token())
        self.assert_refused(self.other.token({'kid': 'one'}))
        header, payload, _ = split(self.key.token(sub='ada'))
        _, _, signature = split(self.key.token(sub='eve'))
        self.assert_refused(f'{header}.{payload}.{encode_part(signature)}')

    def test_an_id_that_no_key_has(self) -> None:
        kids: tuple[object, ...] = (
            'three', '', 'ONE', 'one ', '../../dev/null', "' or 1=1", 1, ['one'], {}, True)
        for kid in kids:
            with self.subTest(kid=kid):
                self.assert_refused(self.sign({**HEADER, 'kid': kid}, claims()))

    def test_extensions_that_have_to_be_understood(self) -> None:
        """None is: RFC 7515, 4.1.11. ``b64`` would leave the payload out of the encoding."""
        headers: tuple[dict[str, object], ...] = (
            {'crit': ['exp'], 'exp': 1}, {'crit': ['b64'], 'b64': True}, {'crit': []},
            {'crit': ['b64'], 'b64': False}, {'crit': None}, {'b64': False})
        for more in headers:
            with self.subTest(header=more):
                self.assert_refused(self.sign({**HEADER, **more}, claims()))

    def test_names_that_stand_twice(self) -> None:
        """One reader could take the first, and another one the last."""
        good = json.dumps(claims())
        for text in (f'{good[:-1]}, "sub": "ada"}}', f'{{"sub": "eve", {good[1:]}',
                     f'{good[:-1]}, "x": {{"a": 1, "a": 2}}}}'):
            self.assert_refused(self.sign(HEADER, text.encode()))
        header = json.dumps(HEADER)
        for text in f'{header[:-1]}, "alg": "ES256"}}', f'{{"alg": "none", {header[1:]}':
            self.assert_refused(self.sign(text.encode(), claims()))

    def test_what_is_no_json_object(self) -> None:
        deep = b'[' * 3000
        for text in (b'', b'null', b'[]', b'1', b'"a"', b'{', b'{}', b'\xff', deep, b'{"a":' + deep,
                     b'\xef\xbb\xbf{}', json.dumps(claims()).encode('utf-16'),
                     json.dumps(claims()).encode() + b'{}'):
            with self.subTest(text=text[:20]):
                self.assert_refused_or_bad(self.sign(HEADER, text))
                self.assert_refused_or_bad(self.sign(text, claims()))

    def test_what_is_not_in_the_compact_form(self) -> None:
        """Three parts in base64url, without padding (RFC 7515, 3.1)."""
        token = self.key.token()
        header, payload, end = token.split('.')
        standard = end.replace('-', '+').replace('_', '/')
        for other in ('a', '.', '..', '...', 'a.b', 'a.b.c', f'{token}.', f'.{token}', f'{token}=',
                      f'{token}==', f'{token}.{end}', f'{header}.{payload}.{end}.a.b',
                      f'{header}=.{payload}.{end}', f'a{token}', f'{token}A', f'{token}~',
                      f'{header}.{payload}.{end}-+', f'{payload}.{header}.{end}',
                      f'A.{payload}.{end}', f'{header}.{payload}.{standard}/'):
            with self.subTest(token=other):
                self.assert_refused_or_bad(other)

    def test_a_huge_one(self) -> None:
        self.assert_refused(self.key.token(more='a' * 8192))
        self.assertEqual('ada', self.caller(self.key.token(more='a' * 5000)).name)

    def test_last_bits_that_say_nothing(self) -> None:
        """The same bytes in another spelling are not the same token."""
        header, payload, end = self.key.token().split('.')
        alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
        twin = alphabet[alphabet.index(end[-1]) + 1]
        self.assert_refused(f'{header}.{payload}.{end[:-1]}{twin}')

    def test_the_log_has_the_kind_of_trouble_and_nothing_of_the_token(self) -> None:
        token = self.key.token(aud='https://other.example', sub='Pimpernel')
        with self.assertLogs('addrservice', 'DEBUG') as logs:
            self.assert_refused(token)
            self.assert_refused(self.sign({**HEADER, 'crit': ['Pimpernel']}, claims()))
        self.assertEqual(['DEBUG:addrservice:an access token is refused: InvalidAudienceError',
                          'DEBUG:addrservice:an access token is refused: InvalidTokenError'],
                         logs.output)

    @PROPERTY
    @given(st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5),
        st.sampled_from(['iss', 'aud', 'exp', 'iat', 'nbf', 'sub', 'client_id', 'jti', 'scope']),
        st.sampled_from(['typ', 'alg', 'kid', 'crit', 'b64', 'jwk', 'zip', 'cty']))
    def test_any_value_anywhere_ends_in_a_caller_or_a_refusal(
        self, value: object, claim: str, field: str
    ) -> None:
        for token in (self.sign(HEADER, {**claims(), claim: value}),
                      self.sign({**HEADER, field: value}, claims())):
            try:
                name = self.caller(token).name
            except (UnauthenticatedError, BadCredentialsError):
                continue
            self.assertTrue(name.isprintable() and name)


class SettingsTest(JWTTestCase):
    def test_only_algorithms_with_public_keys_may_be_allowed(self) -> None:
        for names in ('none',), ('HS256',), ('ES256', 'HS512'), (), ('ES256K',), ('es256',):
            with self.subTest(algorithms=names), self.assertRaises(ValueError) as caught:
                self.make(algorithms=names)
            self.assertIn('jwt: algorithms may be RS256, ', str(caught.exception))


if __name__ == '__main__':
    unittest.main()
