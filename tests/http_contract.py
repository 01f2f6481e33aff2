"""The HTTP contract that holds for every backend, over real sockets.

Each backend's tests inherit the classes, of this module so that they are collected once, and
override ``make_settings``.
"""

import asyncio
import gzip
import json
import time
from collections.abc import Sequence
from typing import Final

from addrservice.addressbook_db import PAGE_SIZE
from tests.support import JSON, address
from tests.wire import SMALL, UNKNOWN_ID, Answer, WireTestCase, request

VARY: Final = 'Accept, Accept-Encoding'
MERGE_PATCH: Final = 'application/merge-patch+json'
PATCH_JSON: Final = {'Content-Type': MERGE_PATCH}

# Paths of each kind with what is allowed there; {} is the id of an entry.
ROUTES: Final = {
    '/healthz': {'GET', 'HEAD', 'OPTIONS'},
    '/readiness': {'GET', 'HEAD', 'OPTIONS'},
    '/openapi.json': {'GET', 'HEAD', 'OPTIONS'},
    '/addressbook': {'GET', 'HEAD', 'POST', 'OPTIONS'},
    '/addressbook/{}': {'GET', 'HEAD', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'},
}


async def at_once(test: WireTestCase, requests: Sequence[bytes]) -> list[Answer]:
    """The answers to requests that are all there before the first one is answered."""
    connections = [await test.connect() for _ in requests]
    for connection, data in zip(connections, requests, strict=True):
        await connection.send(data)
    return await asyncio.gather(*(connection.answer() for connection in connections))


class ProbeTest(WireTestCase):
    """/healthz and /readiness."""

    async def asyncSetUp(self) -> None:
        self.started = time.monotonic()
        await super().asyncSetUp()

    async def test_healthz_tells_the_uptime_in_milliseconds(self) -> None:
        answer = await self.fetch('GET', '/healthz')
        self.assertEqual(200, answer.code)
        self.assertEqual('application/json', answer.headers['Content-Type'])
        self.assertEqual({'uptime'}, json.loads(answer.body).keys())
        await asyncio.sleep(0.02)
        later = (await self.read('/healthz'))['uptime']
        self.assertIsInstance(later, int)
        self.assertGreaterEqual(later, 20)
        self.assertLessEqual(later, 1000 * (time.monotonic() - self.started))

    async def test_readiness_tells_that_it_is_ready(self) -> None:
        answer = await self.fetch('GET', '/readiness')
        self.assertEqual(200, answer.code)
        body = json.loads(answer.body)
        self.assertIs(True, body['ready'])
        self.assertIsInstance(body['uptime'], int)
        self.assertNotIn('Retry-After', answer.headers)

    async def test_a_draining_service_is_not_ready_but_alive_and_at_work(self) -> None:
        self.service.drain()
        answer = await self.fetch('GET', '/readiness')
        self.assertEqual(503, answer.code)
        self.assertIs(False, json.loads(answer.body)['ready'])
        self.assertRegex(answer.headers['Retry-After'], '^[0-9]+$')
        self.assertEqual(200, (await self.fetch('GET', '/healthz')).code)
        await self.post(address('namo'))


class BookTest(WireTestCase):
    """/addressbook."""

    async def test_an_empty_book_is_an_empty_object(self) -> None:
        answer = await self.fetch('GET', '/addressbook')
        self.assertEqual((200, b'{}'), (answer.code, answer.body))
        self.assertEqual('application/json', answer.headers['Content-Type'])

    async def test_a_post_answers_with_a_location_and_no_body(self) -> None:
        answer = await self.fetch('POST', '/addressbook', json.dumps(address('namo')), JSON)
        self.assertEqual((201, 'Created', b''), (answer.code, answer.reason, answer.body))
        self.assertRegex(answer.headers['Location'], '^/addressbook/[0-9a-f]{32}$')
        self.assertEqual('0', answer.headers['Content-Length'])
        self.assertNotIn('Content-Type', answer.headers)

    async def test_equal_entries_get_ids_of_their_own_which_sort_by_creation(self) -> None:
        locations = [await self.post(address('namo')) for _ in range(20)]
        self.assertEqual(20, len(set(locations)))
        self.assertEqual(sorted(locations), locations)

    async def test_the_book_has_all_entries_in_order_of_id(self) -> None:
        entries = [address('raga'), address('namo'), {'name': 'Ada'}]
        ids = [(await self.post(entry)).rpartition('/')[2] for entry in entries]
        book = await self.read('/addressbook')
        self.assertEqual(list(zip(ids, entries)), list(book.items()))

    async def test_a_deleted_entry_is_no_longer_in_the_book(self) -> None:
        gone, kept = await self.post({'name': 'Ada'}), await self.post({'name': 'Bob'})
        await self.fetch('DELETE', gone)
        book = await self.read('/addressbook')
        self.assertEqual({kept.rpartition('/')[2]: {'name': 'Bob'}}, book)

    async def test_text_beyond_ascii_comes_back_as_it_was(self) -> None:
        entry = {'name': 'नरेन्द्र मोदी \U0001f600 "\\/\b\t\u2028 é e\u0301'}
        location = await self.post(entry)
        self.assertEqual(entry, await self.read(location))
        body = json.dumps(entry, ensure_ascii=False).encode()
        answer = await self.fetch('PUT', location, body, JSON)
        self.assertEqual(204, answer.code)
        self.assertEqual(entry, await self.read(location))


class EntryTest(WireTestCase):
    """/addressbook/<id>."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.path = await self.post(address('namo'))

    async def etag(self) -> str:
        return (await self.fetch('GET', self.path)).headers['ETag']

    async def test_an_entry_comes_back_with_its_values_and_the_order_of_its_keys(self) -> None:
        answer = await self.fetch('GET', self.path)
        self.assertEqual(200, answer.code)
        self.assertEqual('application/json', answer.headers['Content-Type'])
        self.assertEqual(json.dumps(address('namo')), json.dumps(json.loads(answer.body)))
        turned = dict(reversed(address('namo').items()))
        path = await self.post(turned)
        self.assertEqual(json.dumps(turned), json.dumps(await self.read(path)))

    async def test_an_entry_has_a_strong_etag_that_lasts_until_it_is_put(self) -> None:
        first = await self.etag()
        self.assertRegex(first, '^"[!#-~]+"$')
        self.assertEqual(first, await self.etag())
        await self.fetch('PUT', self.path, json.dumps(address('raga')), JSON)
        second = await self.etag()
        self.assertNotEqual(first, second)
        await self.fetch('PUT', self.path, json.dumps(address('namo')), JSON)
        self.assertNotIn(await self.etag(), (first, second))

    async def test_a_matching_if_none_match_gets_304_without_a_body(self) -> None:
        etag = await self.etag()
        for value in (etag, f'W/{etag}', f'"x", {etag}', f'"x",W/{etag}, "y"', '*'):
            for method in ('GET', 'HEAD'):
                with self.subTest(value, method=method):
                    answer = await self.fetch(method, self.path, None, {'If-None-Match': value})
                    self.assertEqual(304, answer.code)
                    self.assert_empty(answer)
                    self.assertEqual(etag, answer.headers['ETag'])
                    self.assertEqual(VARY, answer.headers['Vary'])

    async def test_another_if_none_match_gets_the_entry(self) -> None:
        old = await self.etag()
        await self.fetch('PUT', self.path, json.dumps(address('raga')), JSON)
        for value in (old, f'W/{old}', '"x", "y"', '""', old.strip('"'), 'nonsense'):
            with self.subTest(value):
                answer = await self.fetch('GET', self.path, None, {'If-None-Match': value})
                self.assertEqual(200, answer.code)
                self.assertEqual(address('raga'), json.loads(answer.body))

    async def test_a_put_replaces_the_whole_entry(self) -> None:
        answer = await self.fetch('PUT', self.path, json.dumps(address('raga')), JSON)
        self.assertEqual((204, 'No Content'), (answer.code, answer.reason))
        self.assert_empty(answer)
        self.assertEqual(json.dumps(address('raga')), json.dumps(await self.read(self.path)))

    async def test_a_delete_removes_the_entry_once(self) -> None:
        answer = await self.fetch('DELETE', self.path)
        self.assertEqual((204, 'No Content'), (answer.code, answer.reason))
        self.assert_empty(answer)
        for method in ('GET', 'DELETE'):
            self.assert_error(await self.fetch(method, self.path), 404)
        put = await self.fetch('PUT', self.path, json.dumps(address('raga')), JSON)
        self.assert_error(put, 404)
        self.assertEqual({}, await self.read('/addressbook'))

    async def test_head_answers_as_get_without_a_body(self) -> None:
        paths = ['/healthz', '/readiness', '/openapi.json', '/addressbook', self.path, '/nowhere',
                 f'/addressbook/{UNKNOWN_ID}']
        connection = await self.connect()
        for path in paths:
            with self.subTest(path):
                get = await connection.exchange(request('GET', path))
                head = await connection.exchange(request('HEAD', path), has_body=False)
                self.assertEqual((get.status, get.reason), (head.status, head.reason))
                for name in ('Content-Type', 'ETag', 'Vary', 'Cache-Control', 'Last-Modified'):
                    self.assertEqual(get.headers.get(name), head.headers.get(name), name)
                if path == self.path:
                    self.assertEqual(get.headers['Content-Length'], head.headers['Content-Length'])

    async def test_a_trailing_slash_is_allowed_on_every_path(self) -> None:
        for path in ('/healthz/', '/readiness/', '/openapi.json/', '/addressbook/',
                     f'{self.path}/'):
            for method in ('GET', 'HEAD'):
                with self.subTest(path, method=method):
                    self.assertEqual(200, (await self.fetch(method, path)).code)
        answer = await self.fetch('POST', '/addressbook/', SMALL, JSON)
        self.assertEqual(201, answer.code)
        path = answer.headers['Location'] + '/'
        self.assertEqual(204, (await self.fetch('PUT', path, SMALL, JSON)).code)
        self.assertEqual(204, (await self.fetch('PATCH', path, SMALL, PATCH_JSON)).code)
        self.assertEqual(204, (await self.fetch('DELETE', path)).code)


class RefusalTest(WireTestCase):
    """What is refused, and how."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.path = await self.post({'name': 'Ada'})
        self.writes = ('POST', '/addressbook'), ('PUT', self.path), ('PATCH', self.path)

    def declared(self, method: str) -> dict[str, str]:
        """The type that the body of a write has."""
        return PATCH_JSON if method == 'PATCH' else JSON

    async def assert_unchanged(self) -> None:
        book = await self.read('/addressbook')
        self.assertEqual([{'name': 'Ada'}], list(book.values()))

    async def test_an_unknown_path_is_an_unknown_endpoint_whatever_the_method(self) -> None:
        paths = ('/', '/x', '/healthz/x', '/addressbooks', '/addressbook/a/b', '//addressbook',
                 '/addressbook//', '/ADDRESSBOOK')
        for path in paths:
            for method in ('GET', 'POST', 'OPTIONS', 'BREW'):
                with self.subTest(path, method=method):
                    answer = await self.exchange(request(method, path, body=b''))
                    body = self.assert_error(answer, 404, 'Unknown Endpoint')
                    self.assertEqual('Unknown Endpoint', answer.reason)
                    self.assertEqual((method, path), (body['method'], body['uri']))

    async def test_an_unknown_id_is_not_found(self) -> None:
        for method, body in (('GET', None), ('PUT', SMALL), ('PATCH', SMALL), ('DELETE', None)):
            for name in (UNKNOWN_ID, 'x', 'a%20b', '%E0%A4%A8'):
                with self.subTest(name, method=method):
                    headers = self.declared(method)
                    answer = await self.fetch(method, f'/addressbook/{name}?q=1', body, headers)
                    error = self.assert_error(answer, 404)
                    self.assertEqual('Not Found', answer.reason)
                    self.assertEqual(f'/addressbook/{name}?q=1', error['uri'])
                    self.assertNotIn('errors', error)

    async def test_another_method_gets_405_and_is_told_which_are_allowed(self) -> None:
        methods = ('GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'BREW')
        for route, allowed in ROUTES.items():
            for method in set(methods) - allowed:
                with self.subTest(route, method=method):
                    target = route.format(self.path.rpartition('/')[2])
                    answer = await self.exchange(request(method, target, body=b'{}'))
                    self.assert_error(answer, 405)
                    self.assertEqual('Method Not Allowed', answer.reason)
                    self.assertEqual(allowed, set(answer.headers['Allow'].split(', ')))

    async def test_what_is_not_json_is_an_invalid_json_body(self) -> None:
        bodies = (b'', b'{', b'{"name": "Ada"', b'name=Ada', b'{"name": NaN}', b"{'name': 'Ada'}",
                  b'{"name": "Ada",}', b'{"name": "\xff"}', b'\xef\xbb\xbf{"name": "Ada"}',
                  b'{"name": "Ada"} x', b'{"name": "\\ud800"}', '{"name": "Ada"}'.encode('utf-16'))
        for method, target in self.writes:
            for body in bodies:
                with self.subTest(body, method=method):
                    answer = await self.fetch(method, target, body, self.declared(method))
                    error = self.assert_error(answer, 400, 'Invalid JSON body')
                    self.assertEqual('Invalid JSON body', answer.reason)
                    [violation] = error['errors']
                    self.assertEqual('', violation['path'])
                    self.assertTrue(violation['message'])
        await self.assert_unchanged()

    async def test_what_breaks_the_schema_is_told_place_by_place(self) -> None:
        entry = {'name': '', 'addresses': [{'kind': 'moon'}], 'a/b~': 1}
        for method, target in self.writes:
            with self.subTest(method):
                headers = self.declared(method)
                answer = await self.fetch(method, target, json.dumps(entry), headers)
                error = self.assert_error(answer, 400, 'JSON Schema validation failed')
                self.assertEqual('JSON Schema validation failed', answer.reason)
                for violation in error['errors']:
                    self.assertEqual({'path', 'message'}, violation.keys())
                places = {violation['path'] for violation in error['errors']}
                self.assertEqual({'/name', '/addresses/0', '/addresses/0/kind', '/a~1b~0'}, places)
        await self.assert_unchanged()

    async def test_ten_violations_are_told_at_the_most(self) -> None:
        for number, told in ((3, 3), (10, 10), (11, 10), (500, 10)):
            with self.subTest(number):
                entry = {'name': 'Ada', **{f'x{index}': 1 for index in range(number)}}
                answer = await self.fetch('POST', '/addressbook', json.dumps(entry), JSON)
                self.assertEqual(told, len(self.assert_error(answer, 400)['errors']))

    async def test_a_body_that_is_not_declared_as_json_in_utf_8_is_refused(self) -> None:
        types = (None, '', 'text/plain', 'application/jsonp', 'text/json', 'json', '*/*',
                 'application/json, text/plain', 'application/json; charset=latin-1',
                 'application/json; charset=utf-16', 'application/json; charset="utf-8',
                 'application/json; charset', 'application/json; version=1',
                 'application/json charset=utf-8', 'application/x-www-form-urlencoded',
                 'multipart/form-data; boundary=x', 'multipart/form-data', 'application/xml',
                 MERGE_PATCH)
        for method, target in self.writes[:2]:
            for declared in types:
                with self.subTest(declared, method=method):
                    headers = {} if declared is None else {'Content-Type': declared}
                    answer = await self.fetch(method, target, SMALL, headers)
                    self.assert_error(answer, 415)
                    self.assertEqual('application/json', answer.headers['Accept'])

    async def test_json_in_utf_8_may_be_declared_in_several_ways(self) -> None:
        for declared in ('application/json', 'Application/JSON', 'application/json; charset=utf-8',
                         'application/json;charset=UTF-8', 'application/json; charset="utf-8"',
                         'application/json; charset="UTF-8"', 'application/json;',
                         'application/json ; Charset=Utf-8', ' application/json '):
            with self.subTest(declared):
                headers = {'Content-Type': declared}
                answer = await self.fetch('POST', '/addressbook', SMALL, headers)
                self.assertEqual(201, answer.code, answer.body)


class PagesTest(WireTestCase):
    """The book when it is larger than one page of the store."""

    number = 2 * PAGE_SIZE + 30

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.entries = {
            await self.service.post_address({'name': f'Ada {number}'}): {'name': f'Ada {number}'}
            for number in range(self.number)
        }

    def assert_complete(self, text: bytes) -> None:
        self.assertEqual(list(self.entries.items()), list(json.loads(text).items()))

    async def test_a_large_book_comes_in_chunks_complete_and_in_order(self) -> None:
        connection = await self.connect()
        answer = await connection.exchange(request('GET', '/addressbook'))
        self.assertEqual('chunked', answer.headers['Transfer-Encoding'])
        self.assertNotIn('Content-Length', answer.headers)
        self.assertNotIn('Content-Encoding', answer.headers)
        self.assert_complete(answer.body)
        again = await connection.exchange(request('GET', '/addressbook/'))
        self.assertEqual(answer.body, again.body)

    async def test_a_large_book_is_compressed_for_those_who_accept_it(self) -> None:
        headers = {'Accept-Encoding': 'gzip'}
        answer = await self.fetch('GET', '/addressbook', None, headers)
        self.assertEqual('gzip', answer.headers['Content-Encoding'])
        self.assert_complete(gzip.decompress(answer.body))

    async def test_just_a_page_and_one_entry_more_are_complete_too(self) -> None:
        while len(self.entries) > PAGE_SIZE + 1:
            await self.service.delete_address(self.entries.popitem()[0])
        self.assert_complete((await self.fetch('GET', '/addressbook')).body)
        await self.service.delete_address(self.entries.popitem()[0])
        self.assert_complete((await self.fetch('GET', '/addressbook')).body)

    async def test_a_client_of_http_1_0_gets_it_up_to_the_end_of_the_connection(self) -> None:
        answer = await self.exchange(b'GET /addressbook HTTP/1.0\r\n\r\n')
        self.assertNotIn('Transfer-Encoding', answer.headers)
        self.assert_complete(answer.body)

    async def test_a_client_of_http_1_0_that_would_go_on_is_shown_the_end_too(self) -> None:
        """Nothing else can tell it where an answer ends that has no length and no chunks."""
        answer = await self.exchange(b'GET /addressbook HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
        self.assertNotIn('Connection', answer.headers)
        self.assert_complete(answer.body)

    async def test_a_client_of_http_1_0_is_not_told_to_go_on_after_a_head_of_it(self) -> None:
        connection = await self.connect()
        answer = await connection.exchange(
            b'HEAD /addressbook HTTP/1.0\r\nConnection: keep-alive\r\n\r\n', has_body=False)
        self.assertEqual(200, answer.status)
        self.assertNotIn('Connection', answer.headers)
        self.assertTrue(await connection.at_end())

    async def test_a_head_of_it_has_no_body_and_keeps_the_connection(self) -> None:
        connection = await self.connect()
        answer = await connection.exchange(request('HEAD', '/addressbook'), has_body=False)
        self.assertEqual(200, answer.status)
        self.assertNotIn('Content-Length', answer.headers)
        self.assertEqual(200, (await connection.exchange(request('GET', '/healthz'))).status)
