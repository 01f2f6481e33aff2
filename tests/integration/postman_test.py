"""The Postman collection is whole, and the service answers as it says."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from typing import Any, Final

from tests.support import (
    DEADLINE, JSON, ROOT, HTTPTestCase, ServerProcess, address, running_server,
)

COLLECTION: Final = ROOT / 'tests' / 'postman' / 'addressbook.postman_collection.json'
ERRORS: Final = {304, 400, 404, 405, 406, 412, 413, 415, 422}


def collection() -> dict[str, Any]:
    """The collection as Postman imports it."""
    document: dict[str, Any] = json.loads(COLLECTION.read_text(encoding='utf-8'))
    return document


def items() -> Iterator[dict[str, Any]]:
    """Each request of the collection, with its name and its scripts."""
    for folder in collection()['item']:
        yield from folder['item']


def script(item: dict[str, Any]) -> str:
    """What checks the answer to a request."""
    return '\n'.join(line for event in item['event'] if event['listen'] == 'test'
                     for line in event['script']['exec'])


def create(server: ServerProcess, entry: object) -> None:
    """Puts an entry into the book."""
    with closing(server.connect()) as connection:
        connection.request('POST', '/addressbook', json.dumps(entry), JSON)
        answer = connection.getresponse()
        assert answer.status == HTTPStatus.CREATED, answer.read()


def whole_book(server: ServerProcess) -> Any:
    """All entries."""
    with closing(server.connect()) as connection:
        connection.request('GET', '/addressbook')
        return json.loads(connection.getresponse().read())


class CollectionTest(HTTPTestCase):
    """What the collection has in it, without Postman."""

    async def test_every_operation_of_the_openapi_document_is_in_it(self) -> None:
        document = json.loads((await self.fetch('GET', '/openapi.json')).body)
        described = {(method.upper(), path) for path, operations in document['paths'].items()
                     for method in operations if method not in ('parameters', 'summary')}
        self.assertGreater(len(described), 10)
        requested = {(item['request']['method'], path_of(item)) for item in items()}
        self.assertEqual(set(), described - requested)

    def test_it_has_every_error_that_a_client_can_provoke(self) -> None:
        asserted = {int(status) for item in items()
                    for status in re.findall(r'have\.status\((\d+)\)', script(item))}
        self.assertEqual(set(), ERRORS - asserted)

    def test_every_request_has_a_description_and_asserts_one_status(self) -> None:
        for item in items():
            with self.subTest(item['name']):
                self.assertTrue(item['request']['description'])
                self.assertEqual(1, len(re.findall(r'have\.status\(', script(item))))

    def test_no_two_requests_have_one_name(self) -> None:
        names = [item['name'] for item in items()]
        self.assertEqual(sorted(set(names)), sorted(names))

    def test_it_creates_the_entries_of_the_test_data(self) -> None:
        sent = [json.loads(item['request']['body']['raw']) for item in items()
                if item['request']['method'] in ('POST', 'PUT')
                and 'have.status(20' in script(item)]
        self.assertIn(address('namo'), sent)
        self.assertIn(address('raga'), sent)
        self.assertTrue(all(entry in (address('namo'), address('raga')) for entry in sent))

    def test_it_asks_the_service_on_the_default_port_unless_told(self) -> None:
        values = {variable['key']: variable['value'] for variable in collection()['variable']}
        self.assertEqual('http://localhost:8080', values.pop('baseUrl'))
        self.assertEqual({''}, set(values.values()))


def path_of(item: dict[str, Any]) -> str:
    """The path of a request as the OpenAPI document has it; variables are ids."""
    path = '/'.join(['', *item['request']['url'].get('path', ['{{link}}'])])
    return re.sub(r'\{\{\w+\}\}', '{id}', path)


@unittest.skipUnless(shutil.which('newman'), 'newman runs the collection')
class NewmanTest(unittest.TestCase):
    """The collection, run by Postman's own program against the service as a process."""

    def test_every_assertion_holds_and_the_book_is_left_as_it_was(self) -> None:
        with running_server() as server:
            create(server, address('namo'))
            before = whole_book(server)
            self.assert_passes(server.port)
            self.assertEqual(before, whole_book(server))

    def assert_passes(self, port: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                ['newman', 'run', str(COLLECTION), '--env-var', f'baseUrl=http://127.0.0.1:{port}',
                 '--color', 'off', '--disable-unicode', '--reporter-cli-no-success-assertions'],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, encoding='utf-8', timeout=6 * DEADLINE)
        self.assertEqual(0, done.returncode, done.stdout)
