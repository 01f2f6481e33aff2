"""What clients, browsers and proxies are told beside the answer itself: Accept, OPTIONS, CORS."""

import json
import unittest
from typing import Final

from tornado.httpclient import HTTPResponse

from addrservice.config import Settings
from tests.http_contract import MERGE_PATCH, PATCH_JSON, ROUTES, VARY
from tests.stores import Buggy, Unreachable
from tests.support import JSON, address, make_settings
from tests.wire import MALFORMED, SMALL, UNKNOWN_ID, Answer, WireTestCase, padded, request

PERSONAL: Final = 'private, no-cache'
LIMIT: Final = 2000  # bytes of a body
APP: Final = 'https://app.example'
OTHER: Final = 'http://localhost:3000'
DOCS: Final = '/docs', '/docs/swagger-ui.css', '/docs/initializer.js'

# Values of Accept that leave room for JSON, and some that do not.
WITH_JSON: Final = (
    '', '*/*', 'application/*', 'application/json', 'Application/JSON', '*/*;q=0.1',
    'application/json;q=0.001', 'application/json; q=0.5', 'text/html, application/json',
    'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8',
    'text/*, application/*;q=0.1',
    '*/*;q=0, application/json', 'application/*;q=0, application/json', '*/*;q=0, application/*',
    'application/json, */*;q=0', 'text/html;q=0, */*', 'application/json;charset=utf-8',
    'application/json;q=1.000', 'application/json ; q=1')
WITHOUT_JSON: Final = (
    'text/html', 'text/*', 'application/xml', 'application/jsonp', 'application/json+x',
    'application/json;q=0', 'application/json;q=0.000', 'application/json; q=0', '*/*;q=0',
    'application/*;q=0.0', 'APPLICATION/JSON;Q=0', 'application/json;q=0, */*',
    '*/*, application/json;q=0', 'application/json;q=0, application/*', 'text/html, image/*;q=0.8',
    '*/*, application/*;q=0', 'application/merge-patch+json')

# Requests one after the other, {} is an entry, with the status of the answer and further fields.
EXCHANGES: Final[list[tuple[str, str, bytes | None, int, list[str]]]] = [
    ('GET', '/healthz', None, 200, []),
    ('HEAD', '/readiness', None, 200, []),
    ('GET', '/openapi.json', None, 200, []),
    *(('GET', target, None, 200, []) for target in DOCS),
    ('GET', '/docs/x', None, 404, []),
    ('GET', '/nowhere', None, 404, []),
    ('OPTIONS', '/nowhere', None, 404, []),
    ('PUT', '/healthz', SMALL, 405, []),
    ('GET', '/addressbook', None, 200, []),
    ('HEAD', '/addressbook', None, 200, []),
    ('GET', '/addressbook?limit=1', None, 200, []),
    ('GET', '/addressbook?name=a', None, 200, []),
    ('GET', '/addressbook?limit=0', None, 400, []),
    ('POST', '/addressbook', b'{', 400, []),
    ('POST', '/addressbook', SMALL, 201, []),
    ('POST', '/addressbook', SMALL, 201, ['Idempotency-Key: mine']),
    ('POST', '/addressbook', b'{"name": "B"}', 422, ['Idempotency-Key: mine']),
    ('GET', '{}', None, 200, []),
    ('HEAD', '{}', None, 200, []),
    ('GET', '{}', None, 304, ['If-None-Match: *']),
    ('HEAD', '{}', None, 304, ['If-None-Match: *']),
    ('GET', '{}', None, 412, ['If-Match: "x"']),
    ('GET', '{}', None, 406, ['Accept: text/html']),
    ('OPTIONS', '{}', None, 204, []),
    ('PUT', '{}', SMALL, 204, []),
    ('PUT', '{}', SMALL, 412, ['If-None-Match: *']),
    ('PUT', '{}', padded(LIMIT + 1), 413, []),
    ('PATCH', '{}', SMALL, 415, []),
    ('BREW', '{}', SMALL, 405, []),
    ('DELETE', '{}', None, 204, []),
    ('GET', '{}', None, 404, []),
    ('HEAD', '{}', None, 404, []),
    ('GET', '/addressbook/%FF', None, 400, []),
]


def field_of(answer: HTTPResponse | Answer, name: str) -> str | None:
    """A header field, which may be there once at the most."""
    values = answer.headers.get_list(name)
    assert len(values) <= 1, values
    return values[0] if values else None


class AcceptTest(WireTestCase):
    """Accept, on what answers in JSON."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.path = await self.post({'name': 'Ada'})

    async def test_who_takes_json_among_others_gets_it(self) -> None:
        for accepted in WITH_JSON:
            for path in ('/addressbook', self.path, '/healthz', '/openapi.json'):
                with self.subTest(accepted, path=path):
                    answer = await self.fetch('GET', path, None, {'Accept': accepted})
                    self.assertEqual(200, answer.code, answer.body)
                    self.assertEqual('application/json', answer.headers['Content-Type'])

    async def test_who_does_not_take_json_is_told_so(self) -> None:
        for accepted in WITHOUT_JSON:
            with self.subTest(accepted):
                answer = await self.fetch('GET', self.path, None, {'Accept': accepted})
                self.assert_error(answer, 406)
                self.assertEqual('Not Acceptable', answer.reason)
                self.assertNotIn('ETag', answer.headers)

    async def test_several_fields_are_one_list(self) -> None:
        for fields, status in ((('text/html', 'application/json'), 200),
                               (('text/html', 'image/png'), 406),
                               (('*/*', 'application/json;q=0'), 406)):
            data = request('GET', self.path, *(f'Accept: {field}' for field in fields))
            self.assertEqual(status, (await self.exchange(data)).status)

    async def test_it_holds_for_every_route_and_method_and_nothing_is_done(self) -> None:
        for route, methods in ROUTES.items():
            for method in methods - {'OPTIONS'}:
                with self.subTest(route, method=method):
                    path = route.format(self.path.rpartition('/')[2])
                    headers = {**(PATCH_JSON if method == 'PATCH' else JSON), 'Accept': 'text/html'}
                    body = b'{"name": "Bob"}' if method in ('POST', 'PUT', 'PATCH') else None
                    answer = await self.fetch(method, path, body, headers)
                    self.assertEqual(406, answer.code)
                    if method != 'HEAD':
                        self.assert_error(answer, 406)
        book = await self.read('/addressbook')
        self.assertEqual([{'name': 'Ada'}], list(book.values()))

    async def test_who_was_told_so_may_go_on_over_the_same_connection(self) -> None:
        connection = await self.connect()
        for method, path in (('GET', self.path), ('POST', '/addressbook'), ('PUT', self.path)):
            body = None if method == 'GET' else padded(60_000)
            with self.subTest(method):
                data = request(method, path, 'Accept: text/html', body=body)
                self.assert_error(await connection.exchange(data), 406)

    async def test_an_unknown_path_is_unknown_whatever_is_accepted(self) -> None:
        answer = await self.fetch('GET', '/nowhere', None, {'Accept': 'text/html'})
        self.assert_error(answer, 404, 'Unknown Endpoint')

    async def test_a_method_that_a_path_does_not_know_is_told_first(self) -> None:
        for method, path in (('PUT', '/addressbook'), ('DELETE', '/healthz')):
            answer = await self.fetch(method, path, b'', {'Accept': 'text/html'})
            self.assert_error(answer, 405)

    async def test_what_is_no_json_is_for_those_who_do_not_take_it(self) -> None:
        for path in DOCS:
            for accepted in ('text/html', 'application/json;q=0', 'image/png'):
                with self.subTest(path, accepted=accepted):
                    answer = await self.fetch('GET', path, None, {'Accept': accepted})
                    self.assertEqual(200, answer.code)

    async def test_options_are_for_everyone(self) -> None:
        for path in ('/addressbook', self.path, '/healthz', '/docs'):
            answer = await self.fetch('OPTIONS', path, None, {'Accept': 'text/html'})
            self.assertEqual(204, answer.code)


class OptionsTest(WireTestCase):
    """OPTIONS, where the store cannot be asked."""

    def make_store(self) -> Unreachable:
        return Unreachable()

    async def test_each_route_tells_its_methods(self) -> None:
        routes = {**ROUTES, **dict.fromkeys(DOCS, {'GET', 'HEAD', 'OPTIONS'})}
        for route, allowed in routes.items():
            for slash in ('', '/', '?x=1'):
                with self.subTest(route, slash=slash):
                    path = route.format(UNKNOWN_ID) + slash
                    answer = await self.fetch('OPTIONS', path)
                    self.assertEqual((204, 'No Content'), (answer.code, answer.reason))
                    self.assert_empty(answer)
                    self.assertEqual(allowed, set(answer.headers['Allow'].split(', ')))
                    patch = MERGE_PATCH if 'PATCH' in allowed else None
                    self.assertEqual(patch, field_of(answer, 'Accept-Patch'))

    async def test_an_unknown_path_has_none(self) -> None:
        for path in ('/nowhere', '/addressbook/a/b'):
            answer = await self.fetch('OPTIONS', path)
            self.assert_error(answer, 404, 'Unknown Endpoint')
            self.assertNotIn('Allow', answer.headers)

    async def test_they_may_have_a_body(self) -> None:
        connection = await self.connect()
        for body in (b'', b'{"name": "Ada"}', b'{'):
            answer = await connection.exchange(request('OPTIONS', '/addressbook', body=body))
            self.assertEqual(204, answer.status)


class ExchangeTestCase(WireTestCase):
    """Every kind of answer."""

    def make_settings(self) -> Settings:
        return make_settings(max_body_size=LIMIT)

    async def answers(self, *fields: str) -> list[tuple[str, Answer]]:
        """Answers of each kind, with a name, to requests with those fields."""
        path = await self.post({'name': 'Ada'})
        answers = []
        for method, target, body, status, more in EXCHANGES:
            data = request(method, target.format(path), *fields, *more, body=body)
            answer = await (await self.connect()).exchange(data, has_body=method != 'HEAD')
            name = f'{method} {target} {status}'
            self.assertEqual(status, answer.status, name)
            answers.append((name, answer))
        return answers


class FieldTest(ExchangeTestCase):
    """What every answer tells."""

    async def test_every_answer_has_an_id_and_tells_what_it_depends_on(self) -> None:
        """And that its type is the one that it says."""
        for name, answer in await self.answers():
            with self.subTest(name):
                self.assertEqual('nosniff', field_of(answer, 'X-Content-Type-Options'))
                vary = 'Accept-Encoding' if '/docs' in name else VARY
                self.assertEqual(vary, field_of(answer, 'Vary'))
                self.assertRegex(field_of(answer, 'X-Request-ID') or '', '^[0-9a-f]{32}$')

    async def test_only_who_asked_may_keep_what_is_personal(self) -> None:
        """And nobody what is not worth it: errors, say, and answers to writes."""
        for name, answer in await self.answers():
            with self.subTest(name):
                method, target, _ = name.split(' ', 2)
                expected = 'no-store'
                if answer.status in (200, 304) and target.startswith(('/addressbook', '{}')):
                    expected = PERSONAL
                elif answer.status == 200 and target in ('/openapi.json', *DOCS):
                    expected = 'no-cache'
                self.assertEqual(expected, field_of(answer, 'Cache-Control'))

    async def test_what_is_malformed_is_not_kept_either(self) -> None:
        for name, data in MALFORMED.items():
            with self.subTest(name):
                answer = await self.exchange(data)
                self.assertEqual('no-store', field_of(answer, 'Cache-Control'))
                self.assertEqual('nosniff', field_of(answer, 'X-Content-Type-Options'))

    async def test_a_large_answer_says_the_same(self) -> None:
        body = json.dumps({'name': 'Ada', 'addresses': address('namo')['addresses'] * 9})
        for method, path in (('GET', await self.post(json.loads(body))), ('GET', '/addressbook')):
            for encoding in ('gzip', 'identity'):
                with self.subTest(path, encoding=encoding):
                    answer = await self.fetch(method, path, None, {'Accept-Encoding': encoding})
                    self.assertEqual(VARY, field_of(answer, 'Vary'))
                    self.assertEqual(PERSONAL, field_of(answer, 'Cache-Control'))

    async def test_what_is_not_personal_may_be_kept_and_has_to_be_asked_for_again(self) -> None:
        for path in ('/openapi.json', *DOCS):
            for encoding in ('gzip', 'identity'):
                with self.subTest(path, encoding=encoding):
                    headers = {'Accept-Encoding': encoding}
                    full = await self.fetch('GET', path, None, headers)
                    etag = full.headers['ETag']
                    self.assertRegex(etag, '^"[!#-~]+"$')
                    again = await self.fetch('GET', path, None, {**headers, 'If-None-Match': etag})
                    self.assertEqual((304, b''), (again.code, again.body))
                    for name in ('ETag', 'Cache-Control', 'Vary'):
                        self.assertEqual(field_of(full, name), field_of(again, name), name)

    async def test_two_forms_of_the_description_have_two_tags(self) -> None:
        for path in ('/openapi.json', *DOCS):
            tags = {(await self.fetch('GET', path, None, {'Accept-Encoding': encoding}))
                    .headers['ETag'] for encoding in ('gzip', 'identity')}
            answer = await self.fetch('GET', path, None, {'Accept-Encoding': 'gzip'})
            packed = 'Content-Encoding' in answer.headers
            self.assertEqual(2 if packed else 1, len(tags), path)


class NoStoreTest(WireTestCase):
    """What is told where the store cannot be reached."""

    def make_store(self) -> Unreachable:
        return Unreachable()

    async def test_a_503_is_kept_by_nobody(self) -> None:
        for path in ('/readiness', '/addressbook', '/addressbook?limit=1', '/addressbook/x'):
            for method in ('GET', 'HEAD'):
                with self.subTest(path, method=method):
                    answer = await self.fetch(method, path)
                    self.assertEqual(503, answer.code)
                    self.assertEqual('no-store', field_of(answer, 'Cache-Control'))
                    self.assertEqual(VARY, field_of(answer, 'Vary'))


class NoOriginTest(ExchangeTestCase):
    """CORS where the configuration names no origin."""

    async def test_no_answer_says_anything_to_other_origins(self) -> None:
        preflight = f'Origin: {APP}', 'Access-Control-Request-Method: PUT'
        for fields in ((), (f'Origin: {APP}',), preflight):
            for name, answer in await self.answers(*fields):
                with self.subTest(name, fields=fields):
                    self.assertEqual([], cors_fields(answer))


def cors_fields(answer: HTTPResponse | Answer) -> list[str]:
    """The names of the fields of CORS."""
    return [name for name in answer.headers if name.lower().startswith('access-control-')]


class OriginTestCase(ExchangeTestCase):
    """A service that the pages of some origins may use."""

    origins: tuple[str, ...] = APP, OTHER

    def make_settings(self) -> Settings:
        return make_settings(cors_origins=list(self.origins), max_body_size=LIMIT)

    async def preflight(self, path: str, origin: str, **more: str) -> HTTPResponse:
        """What a browser asks before a request that is not simple."""
        return await self.fetch('OPTIONS', path, None, {
            'Origin': origin, 'Access-Control-Request-Method': 'PUT',
            'Access-Control-Request-Headers': 'content-type, if-match', **more})


class OriginTest(OriginTestCase):
    """CORS for some origins."""

    async def test_every_answer_to_such_an_origin_may_be_read_by_its_pages(self) -> None:
        for origin in self.origins:
            for name, answer in await self.answers(f'Origin: {origin}'):
                with self.subTest(name, origin=origin):
                    self.assertEqual(origin, field_of(answer, 'Access-Control-Allow-Origin'))
                    exposed = names_in(field_of(answer, 'Access-Control-Expose-Headers'))
                    self.assertLessEqual(
                        {'etag', 'link', 'location', 'x-request-id', 'retry-after'}, exposed)
                    self.assertNotIn('Access-Control-Allow-Credentials', answer.headers)

    async def test_every_answer_to_whomever_depends_on_the_origin(self) -> None:
        for fields in ((), (f'Origin: {APP}',), ('Origin: https://evil.example',)):
            for name, answer in await self.answers(*fields):
                with self.subTest(name, fields=fields):
                    vary = 'Origin, Accept-Encoding' if '/docs' in name else (
                        'Accept, Origin, Accept-Encoding')
                    self.assertEqual(vary, field_of(answer, 'Vary'))

    async def test_other_origins_are_told_nothing(self) -> None:
        for origin in ('https://evil.example', 'http://app.example', 'https://app.example:8443',
                       'https://app.example.evil.example', 'https://xapp.example', 'null', '*', '',
                       'https://app.example/', f'{APP}, {OTHER}', f'{APP} {OTHER}', 'app.example'):
            with self.subTest(origin):
                get = await self.fetch('GET', '/addressbook', None, {'Origin': origin})
                self.assertEqual((200, []), (get.code, cors_fields(get)))
                preflight = await self.preflight('/addressbook', origin)
                self.assertEqual((204, []), (preflight.code, cors_fields(preflight)))

    async def test_who_comes_from_nowhere_is_told_nothing(self) -> None:
        answer = await self.fetch('GET', '/addressbook')
        self.assertEqual((200, []), (answer.code, cors_fields(answer)))

    async def test_a_browser_that_asks_first_is_told_what_its_pages_may(self) -> None:
        for route, methods in ROUTES.items():
            with self.subTest(route):
                answer = await self.preflight(route.format(UNKNOWN_ID), APP)
                self.assertEqual(204, answer.code)
                self.assert_empty(answer)
                self.assertEqual(APP, field_of(answer, 'Access-Control-Allow-Origin'))
                allowed = field_of(answer, 'Access-Control-Allow-Methods') or ''
                self.assertEqual(methods, set(allowed.split(', ')))
                self.assertLessEqual(
                    {'content-type', 'idempotency-key', 'if-match', 'if-none-match',
                     'x-request-id'}, names_in(field_of(answer, 'Access-Control-Allow-Headers')))
                self.assertRegex(field_of(answer, 'Access-Control-Max-Age') or '', '^[1-9][0-9]*$')

    async def test_only_who_asks_first_is_told_that(self) -> None:
        for answer in (await self.fetch('OPTIONS', '/addressbook', None, {'Origin': APP}),
                       await self.fetch('GET', '/addressbook', None, {
                           'Origin': APP, 'Access-Control-Request-Method': 'GET'})):
            self.assertEqual(APP, field_of(answer, 'Access-Control-Allow-Origin'))
            for name in ('Methods', 'Headers'):
                self.assertNotIn(f'Access-Control-Allow-{name}', answer.headers)
            self.assertNotIn('Access-Control-Max-Age', answer.headers)

    async def test_a_path_that_is_unknown_stays_so(self) -> None:
        answer = await self.preflight('/nowhere', APP)
        self.assert_error(answer, 404)


class AnyOriginTest(OriginTestCase):
    """CORS for all."""

    origins = ('*',)

    async def test_the_pages_of_any_origin_may_read_the_answers(self) -> None:
        for origin in (APP, 'https://evil.example', 'null'):
            for answer in (await self.fetch('GET', '/addressbook', None, {'Origin': origin}),
                           await self.preflight('/addressbook', origin),
                           await self.fetch('GET', '/nowhere', None, {'Origin': origin})):
                self.assertEqual('*', field_of(answer, 'Access-Control-Allow-Origin'))


class BuggyOriginTest(OriginTestCase):
    """CORS where there is a bug."""

    def make_store(self) -> Buggy:
        return Buggy()

    async def test_a_page_may_read_that_there_is_one(self) -> None:
        with self.assertLogs('tornado.application', 'ERROR'):
            answer = await self.fetch('GET', '/addressbook/x', None, {'Origin': APP})
        self.assert_error(answer, 500)
        self.assertEqual(APP, field_of(answer, 'Access-Control-Allow-Origin'))
        self.assertEqual('no-store', field_of(answer, 'Cache-Control'))


def names_in(field: str | None) -> set[str]:
    """The names that a field lists."""
    return {name.strip().lower() for name in (field or '').split(',')}


if __name__ == '__main__':
    unittest.main()
