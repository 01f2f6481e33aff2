"""The description of the API is true: it says what the service does, and the service does it."""

import json
import re
import unittest
from collections.abc import Iterator, Mapping
from typing import Any, Final
from unittest import mock

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from tornado.httpclient import HTTPResponse
from tornado.web import RequestHandler

from addrservice import ENTRY_SCHEMA
from addrservice.app import API, PAGES
from addrservice.base_handler import BaseRequestHandler
from addrservice.explanation import explain
from addrservice.openapi import describe
from addrservice.openapi.components import EXAMPLE_ID, EXAMPLE_KEY
from addrservice.openapi.operations import OPERATIONS
from addrservice.parameters import IDEMPOTENCY_KEY, QUERY
from tests.entries import KINDS, NUMBERS, OBJECTS, REQUIRED, TEXTS, full_entry, replaced, without
from tests.support import JSON, address
from tests.wire import SMALL, UNKNOWN_ID, WireTestCase, request

DAMAGES: Final[list[Any]] = [None, '', 'x\0', 'x' * 257, 2**53, [], {}]
METHODS: Final = ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE')
MERGE_PATCH: Final = {'Content-Type': 'application/merge-patch+json'}
LARGE: Final = b'{"name": "%s"}' % (b'x' * 70_000)
STALE: Final = {'If-Match': '"0"'}

# What HTTP and Tornado add to any answer.
TRANSPORT: Final = {'Connection', 'Content-Length', 'Content-Type', 'Date', 'Transfer-Encoding'}

# An operation, its path relative to what it is about, and the rest of a request, by the status that
# it gets. Each status that is described is here, but those of a service that fails.
Request = tuple[str, bytes | None, Mapping[str, str]]
NO_JSON: Final[Request] = ('', None, {'Accept': 'text/html'})
WRITES: Final[dict[int, Request]] = {
    204: ('', SMALL, JSON), 400: ('', b'{}', JSON), 404: ('x', SMALL, JSON),
    406: ('', SMALL, {**JSON, 'Accept': 'text/html'}), 412: ('', SMALL, {**JSON, **STALE}),
    413: ('', LARGE, JSON), 415: ('', SMALL, {}),
}
READ: Final[dict[int, Request]] = {
    200: ('', None, {}), 304: ('', None, {'If-None-Match': '*'}), 400: ('%FF', None, {}),
    404: ('x', None, {}), 406: NO_JSON, 412: ('', None, STALE),
}
LIST: Final[dict[int, Request]] = {
    200: ('?limit=1', None, {}), 400: ('?limit=0', None, {}),
    404: (f'?name=a&after={UNKNOWN_ID}', None, {}), 406: NO_JSON,
}
PROBE: Final[dict[int, Request]] = {200: ('', None, {}), 406: NO_JSON}
DESCRIPTION: Final[dict[int, Request]] = {**PROBE, 304: ('', None, {'If-None-Match': '*'})}
TELL: Final[dict[int, Request]] = {204: ('', None, {})}
REQUESTS: Final[dict[tuple[str, str], dict[int, Request]]] = {
    ('/healthz', 'GET'): PROBE, ('/healthz', 'HEAD'): PROBE, ('/healthz', 'OPTIONS'): TELL,
    ('/readiness', 'GET'): PROBE, ('/readiness', 'HEAD'): PROBE, ('/readiness', 'OPTIONS'): TELL,
    ('/openapi.json', 'GET'): DESCRIPTION, ('/openapi.json', 'HEAD'): DESCRIPTION,
    ('/openapi.json', 'OPTIONS'): TELL,
    ('/addressbook', 'GET'): LIST, ('/addressbook', 'HEAD'): LIST,
    ('/addressbook', 'OPTIONS'): TELL,
    ('/addressbook', 'POST'): {
        201: ('', SMALL, {**JSON, 'Idempotency-Key': 'once'}),
        400: ('', b'{}', JSON), 406: ('', SMALL, {**JSON, 'Accept': 'text/html'}),
        413: ('', LARGE, JSON), 415: ('', SMALL, {}),
        422: ('', b'{"name": "Bob"}', {**JSON, 'Idempotency-Key': 'once'}),
    },
    ('/addressbook/{id}', 'GET'): READ, ('/addressbook/{id}', 'HEAD'): READ,
    ('/addressbook/{id}', 'PUT'): WRITES,
    ('/addressbook/{id}', 'PATCH'): {
        status: (path, b'{"name": null}' if status == 400 else body,
                 {} if status == 415 else {**headers, **MERGE_PATCH})
        for status, (path, body, headers) in WRITES.items()},
    ('/addressbook/{id}', 'DELETE'): {
        400: ('%FF', None, {}), 404: ('x', None, {}), 406: NO_JSON, 412: ('', None, STALE),
        204: ('', None, {}),
    },
    ('/addressbook/{id}', 'OPTIONS'): {**TELL, 400: ('%FF', None, {})},
}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each operation."""
    for path, methods in document['paths'].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


class OpenAPITestCase(WireTestCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.document = await self.read('/openapi.json')

    def resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        """What a reference stands for; anything else as it is."""
        if '$ref' not in value:
            return value
        _, kind, name = value['$ref'].rsplit('/', 2)
        component: dict[str, Any] = self.document['components'][kind][name]
        return component

    def validator(self, schema: dict[str, Any]) -> Draft202012Validator:
        """Judges by a schema of the document."""
        return Draft202012Validator({**schema, 'components': self.document['components']})

    def assert_valid(self, value: object, schema: dict[str, Any]) -> None:
        errors = [error.message for error in self.validator(schema).iter_errors(value)]
        self.assertEqual([], errors)


class DocumentTest(OpenAPITestCase):
    """The document by itself."""

    async def test_it_is_openapi_3_1(self) -> None:
        self.assertEqual('3.1.0', self.document['openapi'])
        validate(self.document)

    async def test_its_examples_are_as_its_schemas_have_them(self) -> None:
        count = 0
        for path, method, operation in operations(self.document):
            places = [operation.get('requestBody', {}),
                      *map(self.resolved, operation['responses'].values())]
            for content in (media for place in places
                            for media in place.get('content', {}).values()):
                for name, example in content.get('examples', {}).items():
                    with self.subTest(path, method=method, example=name):
                        self.assert_valid(example['value'], content['schema'])
                        count += 1
        for parameter in self.document['components']['parameters'].values():
            with self.subTest(parameter['name']):
                self.assert_valid(parameter['example'], parameter['schema'])
        for name, header in self.document['components']['headers'].items():
            with self.subTest(name):
                self.assert_valid(header['example'], header['schema'])
        self.assertGreater(count, 50)

    async def test_its_examples_of_entries_are_the_test_data(self) -> None:
        entries = [address('namo'), address('raga')]
        self.assertEqual(entries, ENTRY_SCHEMA['examples'])
        [content] = self.document['paths']['/addressbook']['post']['requestBody'][
            'content'].values()
        self.assertEqual(
            entries, [example['value'] for example in content['examples'].values()])

    async def test_its_examples_of_key_and_id_belong_together(self) -> None:
        """Who tries out one operation after the other finds what the first one has made."""
        answer = await self.fetch('POST', '/addressbook', json.dumps(address('namo')),
                                  {**JSON, 'Idempotency-Key': EXAMPLE_KEY})
        self.assertEqual(f'/addressbook/{EXAMPLE_ID}', answer.headers['Location'])

    async def test_an_entry_is_to_it_what_it_is_to_the_service(self) -> None:
        full = full_entry()
        candidates = [
            full, None, [], {}, 'x',
            *(without(full, place) for place in REQUIRED),
            *(replaced(full, place, value) for place in KINDS + TEXTS + NUMBERS + OBJECTS
              for value in DAMAGES),
            *(replaced(full, ('emails', 0, 'value'), value) for value in ('a@b', 'ü@ü', 'a', '@')),
        ]
        judge = self.validator({'$ref': '#/components/schemas/Entry'})
        for candidate in candidates:
            with self.subTest(candidate):
                self.assertEqual(not explain(candidate), judge.is_valid(candidate))

    async def test_what_it_calls_a_patch_is_what_leaves_a_valid_entry(self) -> None:
        judge = self.validator({'$ref': '#/components/schemas/EntryPatch'})
        patches: list[tuple[bool, object]] = [
            (True, {}), (True, {'emails': None}), (True, {'name': 'Bob', 'addresses': []}),
            (True, {'nothing': None}), (False, {'name': None}), (False, {'nothing': 1}),
            (False, {'emails': {}}), (False, {'emails': [{'kind': 'home'}]}), (False, []),
            (False, None), (False, {'name': ''}), (False, {'nothing': {}}),
        ]
        for good, patch in patches:
            with self.subTest(patch):
                path = await self.post(full_entry())
                answer = await self.fetch('PATCH', path, json.dumps(patch), MERGE_PATCH)
                self.assertEqual(204 if good else 400, answer.code)
                self.assertEqual(good, judge.is_valid(patch))

    async def test_a_parameter_is_to_it_what_it_is_to_the_service(self) -> None:
        parameters = self.document['components']['parameters']
        texts = ['', '0', '1', '01', '-1', '+1', '1.0', '999', '1000', '1001', '9' * 5000, ' 1',
                 'a', 'x' * 256, 'x' * 257, '\0', 'a\nb', UNKNOWN_ID, UNKNOWN_ID[:-1], 'F' * 32,
                 f'{UNKNOWN_ID}:', f'{UNKNOWN_ID}:a', f'{UNKNOWN_ID}:\n', f'{UNKNOWN_ID}:\0']
        for name, (pattern, _) in QUERY.items():
            judge = self.validator(parameters[name]['schema'])
            for text in texts:
                with self.subTest(name, text=text):
                    is_number = name == 'limit' and re.fullmatch('0|-?[1-9][0-9]{,4}', text)
                    value: int | str = int(text) if is_number else text
                    self.assertEqual(bool(pattern.fullmatch(text)), judge.is_valid(value))

    async def test_an_idempotency_key_is_to_it_what_it_is_to_the_service(self) -> None:
        judge = self.validator(self.document['components']['parameters']['Idempotency-Key'][
            'schema'])
        for text in ('', 'a', '"a"', '"', '""', '"a', 'a"', 'a\\', 'a b', '" a "', 'ä', 'x' * 255,
                     'x' * 256, f'"{"x" * 255}"', f'"{"x" * 256}"', '~', '!', '\x7f'):
            with self.subTest(text):
                self.assertEqual(bool(IDEMPOTENCY_KEY.fullmatch(text)), judge.is_valid(text))


class RoutesTest(OpenAPITestCase):
    """The document against the service."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        await self.post(address('raga'))
        await self.renew()

    async def renew(self) -> None:
        """Makes the entry that requests are about; it may have been deleted."""
        self.entry = await self.post(address('namo'))

    async def answer(self, path: str, method: str, asked: Request) -> HTTPResponse:
        """The answer to a request; ``x`` and ``%FF`` are in the place of an id."""
        relative, body, headers = asked
        if relative in ('x', '%FF'):
            target = path.replace('{id}', UNKNOWN_ID if relative == 'x' else relative)
        else:
            target = path.replace('/addressbook/{id}', self.entry) + relative
        return await self.fetch(method, target, body, headers)

    async def test_it_describes_all_routes_and_no_others(self) -> None:
        """The pages for people are no part of the API."""
        routes = self.server.application(excess=False).routes
        self.assertEqual({*self.document['paths'], *PAGES}, routes.keys())

    async def test_it_describes_all_methods_of_a_route_and_no_others(self) -> None:
        for path, described in self.document['paths'].items():
            for method in METHODS:
                with self.subTest(path, method=method):
                    answer = await self.answer(path, method, ('', None, {}))
                    self.assertEqual(method.lower() not in described, answer.code == 405)
                    if answer.code == 405:
                        allowed = answer.headers['Allow'].lower().split(', ')
                        self.assertEqual(described.keys(), set(allowed))

    async def test_it_describes_nothing_that_there_is_no_route_for(self) -> None:
        routes = {(path, method) for path, handler in API.items() for method in handler.methods()}
        self.assertLessEqual(OPERATIONS.keys(), routes)

    async def test_a_route_that_nothing_is_known_of_cannot_be_described(self) -> None:
        for routes in ({'/nowhere': ['GET']}, {'/healthz': ['GET', 'POST']}):
            with self.subTest(routes), self.assertRaises(KeyError):
                describe(routes)

    async def test_each_status_is_described_and_each_that_is_described_is_given(self) -> None:
        for path, method, operation in operations(self.document):
            requests = REQUESTS[path, method]
            await self.renew()
            with self.subTest(path, method=method):
                own = {code for code in operation['responses'] if code < '500'}
                self.assertEqual(own, {*map(str, requests), '413'})
            for status, asked in requests.items():
                with self.subTest(path, method=method, status=status):
                    answer = await self.answer(path, method, asked)
                    self.assertEqual(status, answer.code, answer.body)
                    self.assert_as_described(method, answer, operation)

    def assert_as_described(
        self, method: str, answer: HTTPResponse, operation: dict[str, Any]
    ) -> None:
        """Checks status, header fields and body of an answer."""
        described = self.resolved(operation['responses'][str(answer.code)])
        headers = {name.title(): self.resolved(header)
                   for name, header in described['headers'].items()}
        sent = {name.title() for name in answer.headers} - TRANSPORT
        self.assertLessEqual(sent, headers.keys())
        self.assertLessEqual({name for name, header in headers.items() if header['required']}, sent)
        content = described.get('content', {})
        self.assertEqual(bool(content), bool(answer.body) or 'Content-Type' in answer.headers
                         and method != 'HEAD')
        for media_type, described_body in content.items():
            self.assertEqual(media_type, answer.headers['Content-Type'])
            self.assert_valid(json.loads(answer.body), described_body['schema'])

    async def test_a_body_may_be_too_large_for_any_operation(self) -> None:
        """Even where none is asked for."""
        for path, method, operation in operations(self.document):
            with self.subTest(path, method=method):
                announced = request(
                    method, path.replace('/addressbook/{id}', self.entry), 'Expect: 100-continue',
                    'Content-Length: 70000', 'Content-Type: application/json')
                connection = await self.connect()
                answer = await connection.exchange(announced, has_body=method != 'HEAD')
                self.assertEqual((413, 'close'), (answer.status, answer.headers['Connection']))
                self.assertIn('413', operation['responses'])

    async def test_an_unready_service_is_described(self) -> None:
        self.service.drain()
        answer = await self.fetch('GET', '/readiness')
        self.assertEqual(503, answer.code)
        self.assert_as_described('GET', answer, self.document['paths']['/readiness']['get'])

    async def test_any_operation_may_fail_and_that_is_described(self) -> None:
        for path, method, operation in operations(self.document):
            with self.subTest(path, method=method), self.assertLogs('tornado.application'), \
                    mock.patch.object(API[path], method.lower(), _fail):
                answer = await self.answer(path, method, ('', None, {}))
                self.assertEqual(500, answer.code)
                self.assert_as_described(method, answer, operation)
                self.assertIn('503', operation['responses'])


def _fail(handler: BaseRequestHandler, *_: str) -> None:
    assert isinstance(handler, RequestHandler)
    raise RuntimeError('a bug')


if __name__ == '__main__':
    unittest.main()
