"""Who may: every bad token is turned away, over HTTP and of a process, and no token is told."""

import contextlib
import http.client
import json
import logging
import signal
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from tornado.httpclient import HTTPResponse

from addrservice.auth import READ, WRITE
from addrservice.config import AuthSettings, Settings, TokenSettings
from addrservice.tracing import AbstractTraceCollector, Span, collecting
from tests.support import (
    JSON, ROOT, ServerProcess, address, make_settings, running_server, wait_until, write_config,
)
from tests.tokens import (
    AUDIENCE, BOTH, EXPIRED, ISSUER, READER, WRITER, SigningKey, bad_tokens, bearer, jwt_settings,
    key_set, running_key_server, token_line, write_tokens,
)
from tests.unit.auth_test import CUSTOM
from tests.wire import SMALL, Answer, WireTestCase, head, request

CHANGES: Final = ('POST', '/addressbook'), ('PUT', '/addressbook/{id}'), \
    ('PATCH', '/addressbook/{id}'), ('DELETE', '/addressbook/{id}')
READS: Final = ('GET', '/addressbook'), ('HEAD', '/addressbook'), ('GET', '/addressbook/{id}'), \
    ('HEAD', '/addressbook/{id}')
OPEN: Final = '/healthz', '/readiness', '/openapi.json', '/docs', '/docs/swagger-ui.css'

NOBODY: Final = 'Bearer realm="addressbook"'
INVALID: Final = (f'{NOBODY}, error="invalid_token", '
                  'error_description="The access token is not valid here, or not any more"')


def missing(scope: str) -> str:
    """The challenge for a caller who lacks a scope."""
    return (f'{NOBODY}, error="insufficient_scope", '
            f'error_description="The scope {scope} is needed", scope="{scope}"')


class AuthTestCase(WireTestCase):
    """A service that asks who it is, with an entry in it."""

    def make_auth(self) -> AuthSettings:
        """How it finds out."""
        path = self.folder / 'tokens'
        write_tokens(path)
        return AuthSettings(tokens=TokenSettings(str(path)))

    def make_settings(self) -> Settings:
        return msgspec.structs.replace(make_settings(), auth=self.make_auth())

    async def asyncSetUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        await super().asyncSetUp()
        self.nickname = await self.service.post_address(address('raga'))

    async def ask(self, method: str, path: str, token: str | None) -> HTTPResponse:
        """The answer to a request with a token, and with a good body where there may be one."""
        headers = bearer(token) if token is not None else {}
        body = None
        if method in ('POST', 'PUT', 'PATCH'):
            kind = 'application/merge-patch+json' if method == 'PATCH' else 'application/json'
            headers, body = {**headers, 'Content-Type': kind}, SMALL
        return await self.fetch(method, path.replace('{id}', self.nickname), body, headers)

    def assert_challenged(self, answer: HTTPResponse | Answer, status: int, challenge: str) -> None:
        """Refused as RFC 6750, 3 has it, for nobody to keep."""
        code = answer.code if isinstance(answer, HTTPResponse) else answer.status
        self.assertEqual((status, challenge), (code, answer.headers['WWW-Authenticate']))
        self.assertEqual('no-store', answer.headers['Cache-Control'])
        if answer.body:
            self.assert_error(answer, status)


class ScopeTest(AuthTestCase):
    async def test_who_may_read_cannot_write(self) -> None:
        before = await self.service.get_all_addresses()
        for method, path in READS:
            self.assertEqual(200, (await self.ask(method, path, READER)).code)
        for method, path in CHANGES:
            with self.subTest(method=method):
                self.assert_challenged(
                    await self.ask(method, path, READER), 403, missing(WRITE))
        self.assertEqual(before, await self.service.get_all_addresses())

    async def test_who_may_write_cannot_read(self) -> None:
        for method, path in READS:
            with self.subTest(method=method):
                self.assert_challenged(await self.ask(method, path, WRITER), 403, missing(READ))
        statuses = [(await self.ask(method, path, WRITER)).code for method, path in CHANGES]
        self.assertEqual([201, 204, 204, 204], statuses)

    async def test_who_may_both_does_both(self) -> None:
        statuses = [(await self.ask(*asked, BOTH)).code for asked in (*READS, *CHANGES)]
        self.assertEqual([200, 200, 200, 200, 201, 204, 204, 204], statuses)

    async def test_nobody_gets_anything(self) -> None:
        before = await self.service.get_all_addresses()
        for method, path in (*READS, *CHANGES):
            for token, challenge in (None, NOBODY), ('abk_other', INVALID), (EXPIRED, INVALID):
                with self.subTest(method=method, token=token):
                    answer = await self.ask(method, path, token)
                    self.assert_challenged(answer, 401, challenge)
                    self.assertNotIn(self.nickname.encode(), answer.body.replace(
                        f'/addressbook/{self.nickname}'.encode(), b''))
        self.assertEqual(before, await self.service.get_all_addresses())

    async def test_whether_an_entry_exists_is_told_nobody(self) -> None:
        for path in '/addressbook/nobody', '/addressbook/{id}', '/addressbook?limit=oops':
            self.assert_challenged(await self.ask('GET', path, None), 401, NOBODY)

    async def test_probes_the_description_and_the_pages_ask_nobody(self) -> None:
        """Whatever they are shown."""
        for path in OPEN:
            for token in None, 'abk_other':
                with self.subTest(path=path, token=token):
                    self.assertEqual(200, (await self.ask('GET', path, token)).code)
        self.assertEqual(404, (await self.ask('GET', '/nothing', None)).code)
        answer = await self.ask('OPTIONS', '/addressbook', None)
        self.assertEqual((204, 'GET, HEAD, POST, OPTIONS'), (answer.code, answer.headers['Allow']))
        self.assertEqual(405, (await self.ask('DELETE', '/addressbook', None)).code)

    async def test_two_callers_may_use_the_same_idempotency_key(self) -> None:
        """Neither sees what the other one has made."""
        places = set()
        for token in WRITER, BOTH, WRITER:
            answer = await self.fetch('POST', '/addressbook', SMALL, {
                **JSON, **bearer(token), 'Idempotency-Key': '"same"'})
            self.assertEqual(201, answer.code)
            places.add(answer.headers['Location'])
        self.assertEqual(2, len(places))

    async def test_the_description_says_how_to_ask(self) -> None:
        document = json.loads((await self.ask('GET', '/openapi.json', None)).body)
        scheme, = document['components']['securitySchemes'].values()
        self.assertEqual(('http', 'bearer'), (scheme['type'], scheme['scheme']))
        paths = document['paths']
        for path, operations in paths.items():
            for method, operation in operations.items():
                asks = path.startswith('/addressbook') and method != 'options'
                self.assertEqual(asks, 'security' in operation, f'{method} {path}')


class FieldTest(AuthTestCase):
    """The Authorization field itself, byte by byte."""

    async def get(self, *fields: str) -> Answer:
        return await self.exchange(head('GET /addressbook HTTP/1.1', *fields))

    async def test_one_field_with_one_token_is_taken(self) -> None:
        for field in (f'Authorization: Bearer {READER}', f'authorization:bearer   {READER}  ',
                      f'AUTHORIZATION: BEARER {READER}'):
            self.assertEqual(200, (await self.get(field)).status)

    async def test_other_schemes_are_no_error_of_the_token(self) -> None:
        for field in 'Basic YTpi', 'Digest a="b"', READER, '', 'DPoP a', f'Bearer\t{READER}':
            with self.subTest(field=field):
                self.assert_challenged(await self.get(f'Authorization: {field}'), 401, NOBODY)

    async def test_more_than_one_token_is_a_bad_request(self) -> None:
        """Even if they are the same, and whether in one field or in two."""
        for fields in (
            (f'Bearer {READER}', f'Bearer {READER}'), (f'Bearer {READER}', 'Bearer abk_other'),
            ('Basic YTpi', f'Bearer {READER}'), (f'Bearer {READER}, Bearer {READER}',),
            (f'Bearer {READER} {READER}',), ('Bearer',), ('Bearer ',), ('Bearer "a"',),
            ('Bearer ä',), ('Bearer \xff',), ('Bearer a=b',),
        ):
            with self.subTest(fields=fields):
                answer = await self.get(*(f'Authorization: {field}' for field in fields))
                self.assertEqual(400, answer.status)
                self.assertTrue(answer.headers['WWW-Authenticate'].startswith(
                    f'{NOBODY}, error="invalid_request", error_description="'))
                self.assert_error(answer, 400)
                self.assertNotIn(READER.encode(), answer.body)

    async def test_a_field_that_no_http_has_lets_nobody_in(self) -> None:
        """A NUL, a folded line: Tornado refuses the whole request."""
        for field in f'Bearer {READER}\0', f'Bearer \0{READER}', f'Bearer\r\n {READER}':
            with self.subTest(field=field), self.assertLogs('tornado', 'INFO'):
                self.assertNotEqual(200, (await self.get(f'Authorization: {field}')).status)

    async def test_a_token_elsewhere_is_not_looked_at(self) -> None:
        """RFC 6750, 2.2 and 2.3: in the query it would end up in logs."""
        answer = await self.exchange(head(f'GET /addressbook?access_token={READER} HTTP/1.1'))
        self.assert_challenged(answer, 401, NOBODY)
        answer = await self.get(f'Cookie: access_token={READER}')
        self.assert_challenged(answer, 401, NOBODY)

    async def test_a_refusal_does_not_end_the_connection(self) -> None:
        """The body is read and dropped, and the next request may do better."""
        connection = await self.connect()
        for status, fields in (401, []), (403, [f'Authorization: Bearer {READER}']), \
                (201, [f'Authorization: Bearer {WRITER}']):
            answer = await connection.exchange(
                request('POST', '/addressbook', *fields, body=SMALL + b' ' * 9999))
            self.assertEqual(status, answer.status)


class KeepAll(AbstractTraceCollector):
    """Keeps what the spans say."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def enter(self, span: Span) -> None:
        pass

    def exit(self, span: Span) -> None:
        self.said.append(f'{span.name} {span.attributes} {span.error!r}')


class SilenceTest(AuthTestCase):
    """Names are told, tokens are not: with tracebacks in the answers, all logs, and all spans."""

    show_tracebacks = True

    async def asyncSetUp(self) -> None:
        self.spans = KeepAll()
        self.enterContext(collecting([self.spans], logging.getLogger('addrservice')))
        await super().asyncSetUp()

    async def test_the_log_has_the_name_of_the_caller(self) -> None:
        with self.logged() as logs:
            for token, status in (READER, 200), (WRITER, 403), ('abk_other', 401), (None, 401):
                self.assertEqual(status, (await self.ask('GET', '/addressbook', token)).code)
            await self.until(lambda: len(logs.requests()) == 4)
        self.assertEqual([('reader', 200), ('writer', 403), (None, 401), (None, 401)],
                         [(line.get('caller'), line['status']) for line in logs.requests()])
        self.assertIn(' caller="reader"', logs.lines[0])
        self.assertIn("'enduser.id': 'reader'", ''.join(self.spans.said))

    async def test_no_token_is_told_anybody(self) -> None:
        told = []
        fields = [f'Authorization: Bearer {token}' for token in (READER, WRITER, EXPIRED, 'abk_x')]
        with self.logged() as logs:
            for method, path in (*READS, *CHANGES):
                for more in (*([field] for field in fields), fields[:2], [fields[0] + ' abk_x'],
                             [fields[0].replace('Bearer', 'Basic')]):
                    path = path.replace('{id}', self.nickname)
                    connection = await self.connect()
                    answer = await connection.exchange(
                        request(method, path, *more), has_body=method != 'HEAD')
                    told.append(f'{answer.headers} {answer.body!r}')
        self.assertIn('UnauthenticatedError', ''.join(told))  # so it has tracebacks in it
        self.assertIn('GET /addressbook', ''.join(self.spans.said))
        for text in (*told, *logs.lines, *self.spans.said):
            self.assertNotIn('abk_', text)


class JWTTest(AuthTestCase):
    """With the keys of an authorization server in a file."""

    def make_auth(self) -> AuthSettings:
        self.key = SigningKey('one')
        path = self.folder / 'keys.json'
        path.write_bytes(key_set(self.key.public()))
        return AuthSettings(jwt=jwt_settings(path))

    async def test_who_shows_a_good_token_may_what_its_scope_says(self) -> None:
        token = self.key.token(sub='ada')
        with self.logged() as logs:
            self.assertEqual(200, (await self.ask('GET', '/addressbook', token)).code)
            self.assert_challenged(
                await self.ask('POST', '/addressbook', token), 403, missing(WRITE))
        self.assertEqual(['ada', 'ada'], [line['caller'] for line in logs.requests()])
        self.assertNotIn(token, ''.join(logs.lines))
        self.assertEqual(201, (await self.ask(
            'POST', '/addressbook', self.key.token(scope=WRITE))).code)

    async def test_no_bad_token_lets_anybody_in(self) -> None:
        """Neither to read nor to write, and nothing is changed."""
        with self.logged() as logs:
            for wrong, token in bad_tokens(self.key, SigningKey('two')).items():
                for method in 'GET', 'POST':
                    with self.subTest(wrong=wrong):
                        answer = await self.ask(method, '/addressbook', token)
                        self.assert_challenged(answer, 401, INVALID)
                        self.assertNotIn(token.encode(), answer.body)
        text = ''.join(logs.lines)
        self.assertNotIn('eyJ', text)  # as each of them begins
        self.assertEqual({None}, {line.get('caller') for line in logs.requests()})
        self.assertEqual(1, len(await self.service.get_all_addresses()))

    async def test_the_description_names_the_form_of_the_tokens(self) -> None:
        document = json.loads((await self.ask('GET', '/openapi.json', None)).body)
        scheme, = document['components']['securitySchemes'].values()
        self.assertEqual('JWT', scheme['bearerFormat'])


class CustomTest(AuthTestCase):
    def make_auth(self) -> AuthSettings:
        return AuthSettings(custom={CUSTOM: {'default-name': 'Eve'}})

    async def test_somebody_elses_authenticator_decides(self) -> None:
        with self.logged() as logs:
            answer = await self.fetch('GET', '/addressbook', headers={'Authorization': 'Zoe'})
            self.assertEqual(200, answer.code)
            answer = await self.ask('POST', '/addressbook', None)
            self.assert_challenged(answer, 403, missing(WRITE))
        self.assertEqual(['Zoe', 'Eve'], [line['caller'] for line in logs.requests()])


class ProcessTest(unittest.TestCase):
    """The service as a process, as an operator has it."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.tokens = self.folder / 'tokens'
        write_tokens(self.tokens)

    @contextlib.contextmanager
    def running(self, **auth: Any) -> Iterator[ServerProcess]:
        """Logging all it can to a file."""
        log = self.folder / 'log'
        lines = {
            'version': 1, 'disable_existing_loggers': False,
            'formatters': {'f': {'()': 'addrservice.logs.KeyValueFormatter'}},
            'handlers': {'h': {'class': 'logging.FileHandler', 'filename': str(log),
                               'formatter': 'f'}},
            'root': {'level': 'DEBUG', 'handlers': ['h']},
        }
        with running_server('--debug', auth=auth, logging=lines) as server:
            yield server

    def log(self) -> str:
        return (self.folder / 'log').read_text(encoding='utf-8')

    def status(self, server: ServerProcess, token: str | None, path: str = '/addressbook') -> int:
        return self.answer(server, token, path)[0]

    def answer(
        self, server: ServerProcess, token: str | None, path: str = '/addressbook'
    ) -> tuple[int, Mapping[str, str]]:
        with contextlib.closing(server.connect()) as connection:
            connection.request('GET', path, headers=bearer(token) if token else {})
            answer: http.client.HTTPResponse = connection.getresponse()
            answer.read()
            return answer.status, dict(answer.headers)

    def test_sighup_reads_the_tokens_anew_and_nothing_else_does(self) -> None:
        with self.running(tokens={'file': str(self.tokens)}) as server:
            self.assertEqual([200, 401, 401], [
                self.status(server, token) for token in (READER, 'abk_new', None)])
            self.tokens.write_text(token_line('new', 'abk_new', READ))
            self.assertEqual([200, 401], [self.status(server, t) for t in (READER, 'abk_new')])
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: self.status(server, 'abk_new') == 200)
            self.assertEqual(401, self.status(server, READER))
            self.tokens.write_text(token_line('other', 'abk_other', READ) + 'abk_Pimpernel\n')
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: f'{self.tokens}, line 2: ' in self.log())
            self.assertEqual([200, 401], [self.status(server, t) for t in ('abk_new', 'abk_other')])
            server.stop()
        self.assertIn(' caller="new"', self.log())
        self.assertNotIn('abk_', self.log() + server.stdout + server.stderr)

    def test_a_token_of_the_command_line_is_taken(self) -> None:
        made = subprocess.run(
            [sys.executable, '-m', 'addrservice', 'token', 'new', 'ada', '--scope', READ,
             '--file', str(self.tokens)],
            cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
        with self.running(tokens={'file': str(self.tokens)}) as server:
            self.assertEqual(200, self.status(server, made.stdout.strip()))

    def test_a_start_with_a_broken_file_is_refused_in_one_line(self) -> None:
        self.tokens.write_text('abk_Pimpernel')
        keys = self.folder / 'keys'
        keys.write_text('{}')
        for auth, words in (
            ({'tokens': {'file': str(self.tokens)}}, f'{self.tokens}, line 1: is not NAME'),
            ({'jwt': {'jwks': str(keys), 'issuer': ISSUER, 'audience': AUDIENCE}},
             f'{keys}: not a JWK Set'),
        ):
            with self.subTest(words=words):
                config = write_config(self.folder, auth=auth)
                server = ServerProcess('--port', '0', '--config', str(config))
                self.addCleanup(server.kill)
                self.assertEqual(2, server.wait())
                self.assertEqual(1, len(server.stderr.splitlines()), server.stderr)
                self.assertIn(f'{config}: auth: ', server.stderr)
                self.assertIn(words, server.stderr)
                self.assertNotIn('Pimpernel', server.stderr)

    def test_keys_rotate_while_it_runs(self) -> None:
        one, two, three = map(SigningKey, ('one', 'two', 'three'))
        with running_key_server() as keys:
            keys.document = key_set(one.public())
            with self.running(jwt={
                'jwks': f'{keys.url}?secret=Pimpernel', 'issuer': ISSUER, 'audience': AUDIENCE,
            }) as server:
                self.assertEqual([200, 401], [self.status(server, k.token()) for k in (one, two)])
                asked = keys.asked  # at the start, and for the unknown one
                keys.document = key_set(two.public(), three.public())
                self.assertEqual([401] * 5, [self.status(server, two.token()) for _ in range(5)])
                self.assertEqual((2, 2), (asked, keys.asked))
                server.process.send_signal(signal.SIGHUP)
                wait_until(lambda: self.status(server, two.token()) == 200)
                self.assertEqual([401, 200], [self.status(server, k.token()) for k in (one, three)])
                server.stop()
        self.assertIn('an access token is refused: InvalidKeyError', self.log())
        for secret in 'eyJ', 'Pimpernel':
            self.assertNotIn(secret, self.log())

    def test_it_starts_while_the_keys_are_out_of_reach(self) -> None:
        """Then nobody can be known: 503, and not the client's fault. Probes are answered."""
        key = SigningKey('one')
        with running_key_server() as keys:
            keys.status, keys.document = 500, key_set(key.public())
            with self.running(jwt={
                'jwks': keys.url, 'issuer': ISSUER, 'audience': AUDIENCE,
            }) as server:
                status, headers = self.answer(server, key.token())
                self.assertEqual((503, '1'), (status, headers['Retry-After']))
                self.assertEqual([200, 401], [
                    self.status(server, None, path) for path in ('/healthz', '/addressbook')])
                keys.status = 200
                server.process.send_signal(signal.SIGHUP)
                wait_until(lambda: self.status(server, key.token()) == 200)
                server.stop()
        self.assertIn(f'cannot read the keys at {keys.url}: answered with status 500', self.log())


if __name__ == '__main__':
    unittest.main()
