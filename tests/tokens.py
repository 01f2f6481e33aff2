"""Tokens for tests: files of them, the keys of an authorization server, and where to read them."""

import functools
import hashlib
import hmac
import http.server
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from addrservice.auth import READ, SCOPES, WRITE
from addrservice.config import JWTSettings
from tests.support import DEADLINE

ISSUER: Final = 'https://issuer.example'
AUDIENCE: Final = 'https://addressbook.example'

# Tokens as of a file, and what the lines of it say.
READER: Final = 'abk_reader'
WRITER: Final = 'abk_writer'
BOTH: Final = 'abk_both'
EXPIRED: Final = 'abk_expired'


def token_line(name: str, token: str, *scopes: str, more: str = '') -> str:
    """The line of a tokens file."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    return f'{name} {digest} {",".join(scopes)}{more}\n'


def write_tokens(path: Path) -> None:
    """A tokens file with the tokens above."""
    path.write_text(
        '# who may\n\n'
        + token_line('reader', READER, READ)
        + token_line('writer', WRITER, WRITE, more='  expires=2999-12-31')
        + token_line('both', BOTH, *SCOPES)
        + token_line('expired', EXPIRED, *SCOPES, more=' expires=2020-01-01'), encoding='utf-8')


def bearer(token: str) -> dict[str, str]:
    """The header field that shows a token."""
    return {'Authorization': f'Bearer {token}'}


class SigningKey:
    """A key of an authorization server.

    :param kid: its id
    """

    def __init__(self, kid: str | None) -> None:
        self.kid = kid
        self.private = generate_private_key(SECP256R1())

    def public(self, **changes: Any) -> dict[str, Any]:
        """The public key as a JWK."""
        kid = {} if self.kid is None else {'kid': self.kid}
        return {**ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True), **kid, **changes}

    def token(self, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """A good access token for reading, with changes; None leaves a claim or field out."""
        head = {'typ': 'at+jwt', 'kid': self.kid, **(header or {})}
        return jwt.encode(claims(**changes), self.private, 'ES256', headers=without_none(head))


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good access token for reading, with changes; None leaves one out."""
    now = int(time.time())
    return without_none({
        'iss': ISSUER, 'aud': AUDIENCE, 'sub': 'ada', 'client_id': 'app', 'jti': '1',
        'iat': now, 'exp': now + 600, 'scope': READ, **changes})


def without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def key_set(*keys: dict[str, Any]) -> bytes:
    """A JWK Set."""
    return json.dumps({'keys': keys}).encode()


def jwt_settings(jwks: str | Path, **changes: Any) -> JWTSettings:
    """Settings that take the tokens of a ``SigningKey``."""
    return JWTSettings(jwks=str(jwks), issuer=ISSUER, audience=AUDIENCE, **changes)


def encode_part(value: object) -> str:
    """A part of a JWT: JSON, or bytes as they are, in base64url without padding."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(text).rstrip(b'=').decode()


@functools.cache
def rsa_key(bits: int = 2048) -> RSAPrivateKey:
    """A key that takes its time to make, once."""
    return generate_rsa(65537, bits)


def rsa_public(**changes: Any) -> dict[str, Any]:
    """The public half of that as a JWK, with the id ``rsa``."""
    public = RSAAlgorithm.to_jwk(rsa_key().public_key(), as_dict=True)
    return {**public, 'kid': 'rsa', **changes}


def bad_tokens(key: SigningKey, other: SigningKey) -> dict[str, str]:
    """Tokens that must let nobody in, by what is wrong with them.

    :param key: the only one of the authorization server
    :param other: another one
    """
    now = time.time()
    good = key.token(scope=' '.join(SCOPES))
    header, payload, signature = good.split('.')
    unsigned = encode_part({'typ': 'at+jwt', 'alg': 'none', 'kid': key.kid})
    pem = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    confused = encode_part({'typ': 'at+jwt', 'alg': 'HS256', 'kid': key.kid}) + f'.{payload}'
    digest = hmac.digest(pem, confused.encode(), hashlib.sha256)
    other.kid, kid = key.kid, other.kid
    forged = {name: other.token({name: value}) for name, value in (
        ('jwk', other.public()), ('jku', 'http://127.0.0.1:9/'), ('x5u', 'http://127.0.0.1:9/'))}
    other.kid = kid
    return {
        'expired': key.token(exp=now - 60),
        'not yet valid': key.token(nbf=now + 60),
        'issued in the future': key.token(iat=now + 60),
        'another audience': key.token(aud='https://other.example'),
        'another issuer': key.token(iss='https://other.example'),
        'another type': key.token({'typ': 'JWT'}),
        'no expiry': key.token(exp=None),
        'no subject': key.token(sub=None),
        'a name with a line break': key.token(sub='ada\ncaller="root"'),
        'an unknown key': other.token(),
        'a key of somebody else': other.token({'kid': key.kid}),
        **{f'a key of its own in {name}': token for name, token in forged.items()},
        'alg none': f'{unsigned}.{payload}.{signature}',
        'alg HS256, signed with the public key': f'{confused}.{encode_part(digest)}',
        'a critical extension': key.token({'crit': ['exp'], 'exp': 1}),
        'a signature of zeros': f'{header}.{payload}.{encode_part(bytes(64))}',
        'another payload': f'{header}.{encode_part(claims(sub="eve"))}.{signature}',
        'a part too few': f'{header}.{payload}',
        'a part too many': f'{good}.{signature}',
        'no signature': f'{header}.{payload}.',
        'huge': key.token(more='a' * 8192),
        'no token at all': 'abc',
    }


class KeyServer(http.server.ThreadingHTTPServer):
    """An authorization server, as far as its keys go.

    :ivar document: what it answers with
    :ivar status: and the status of that
    :ivar asked: the requests that have come
    :ivar answering: cleared, for it to leave them waiting
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _KeyHandler)
        self.document = b''
        self.status = 200
        self.asked = 0
        self.answering = threading.Event()
        self.answering.set()
        self.url = f'http://127.0.0.1:{self.server_port}/keys'

    def handle_error(self, *_: Any) -> None:
        """Nobody needs to know that a client is gone."""


class _KeyHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, KeyServer)
        self.server.asked += 1
        self.server.answering.wait(DEADLINE)
        self.send_response(self.server.status)
        self.send_header('Location', '/elsewhere')
        self.send_header('Content-Length', str(len(self.server.document)))
        self.end_headers()
        self.wfile.write(self.server.document)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running_key_server() -> Iterator[KeyServer]:
    """A key server on a free port of this machine."""
    with KeyServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.answering.set()
            server.shutdown()
            thread.join()
