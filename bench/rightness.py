"""Whether a server does the work that it is timed for: its answers, and its line for each request.

It is asked over HTTP alone, so that the service and its peers are held to the same.
"""

import http.client
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from bench.entries import SIZES, encoded

DEADLINE: Final = 10.0  # seconds for an answer
LAG: Final = 10.0  # seconds for the lines of a log to be written
UNKNOWN: Final = f'/addressbook/{"0" * 32}'
PAGE: Final = 100
PATH: Final = re.compile('/addressbook/[0-9a-f]{32}')

NOT_JSON: Final = (b'', b'{', b'{"name": "Ada"} Ada', b'{"name": "\xff"}', b"{'name': 'Ada'}")

_PHONE: Final = {'kind': 'work', 'countryCode': 44, 'areaCode': '020', 'number': 79460000.5}
_ADDRESS: Final = {'kind': 'home', 'streetName': 'St James Square', 'pincode': 'SW1Y 4JH',
                   'country': 'United Kingdom'}

VALID: Final[tuple[dict[str, Any], ...]] = (
    {'name': 'A'},
    {'name': 'é' * 256, 'addresses': [], 'emails': []},
    {'name': 'Ada', 'addresses': [{**_ADDRESS, 'unitNumber': '12B', 'streetNumber': -12}]},
    {'name': 'Ada', 'phoneNumbers': [_PHONE], 'faxNumbers': [{**_PHONE, 'number': 2**53 - 1}]},
    {'name': 'Ada', 'emails': [{'kind': 'work', 'value': 'å.l@example.org'}] * 100},
)

# What is wrong -> an entry that the JSON Schema refuses for that alone.
INVALID: Final[dict[str, Any]] = {
    'no object': [],
    'no name': {'addresses': [_ADDRESS]},
    'an empty name': {'name': ''},
    'a name that is a number': {'name': 5},
    'a name that is too long': {'name': 'a' * 257},
    'a name with a U+0000': {'name': 'Ada\0'},
    'an unknown property': {'name': 'Ada', 'age': 36},
    'null for an array': {'name': 'Ada', 'addresses': None},
    'an address without its street': {
        'name': 'Ada', 'addresses': [{'kind': 'home', 'pincode': 1, 'country': 'UK'}]},
    'an unknown property of an address': {'name': 'Ada', 'addresses': [{**_ADDRESS, 'planet': 3}]},
    'an unknown kind': {'name': 'Ada', 'phoneNumbers': [{**_PHONE, 'kind': 'mobile'}]},
    'a number that is a truth value': {'name': 'Ada', 'phoneNumbers': [{**_PHONE, 'number': True}]},
    'a number that is too large': {'name': 'Ada', 'faxNumbers': [{**_PHONE, 'number': 2**53}]},
    'an email without a domain': {'name': 'Ada', 'emails': [{'kind': 'work', 'value': 'ada@'}]},
    'too many emails': {'name': 'Ada', 'emails': [{'kind': 'work', 'value': 'a@b.c'}] * 101},
}


class Answer(NamedTuple):
    """What came for a request, and what was asked for."""

    method: str
    path: str
    request_id: str
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def __str__(self) -> str:
        return f'{self.method} {self.path}: {self.status} {self.body[:100]!r}'

    def value(self) -> Any:
        """What the JSON in its body stands for; None where there is none, or is said to be none."""
        if str(self.headers['Content-Type']).startswith('application/json'):
            with suppress(ValueError):
                return json.loads(self.body)
        return None

    def has(self, status: int, value: object = None) -> bool:
        """Whether it is of that status, with that as JSON in its body, or with no body."""
        return self.status == status and (
            not self.body if value is None else self.value() == value)

    def is_error(self, status: int) -> bool:
        """Whether it is an error of that status, in JSON."""
        document = self.value()
        if self.status != status or not isinstance(document, dict):
            return False
        told = [document.get(name) for name in ('method', 'uri', 'code')]
        return told == [self.method, self.path, status] and bool(document.get('message'))


class Client:
    """Asks on one connection, and takes note of what came."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=DEADLINE)
        self._run = secrets.token_hex(8)
        self.answers: list[Answer] = []

    def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """The answer to a request with an id of its own."""
        return self._ask(method, path, body, f'{self._run}-{len(self.answers)}')

    def ask_without_id(self, path: str) -> Answer:
        """The answer to a GET that names no id, with the one that came as its own."""
        return self._ask('GET', path, None, None)

    def _ask(self, method: str, path: str, body: bytes | None, request_id: str | None) -> Answer:
        fields = {} if body is None else {'Content-Type': 'application/json'}
        if request_id is not None:
            fields['X-Request-ID'] = request_id
        self._connection.request(method, path, body, fields)
        response = self._connection.getresponse()
        answer = Answer(method, path, request_id or str(response.headers['X-Request-ID']),
                        response.status, response.headers, response.read())
        self.answers.append(answer)
        return answer

    def post(self, body: bytes) -> str:
        """The path of a new entry; '' if there is none."""
        answer = self.ask('POST', '/addressbook', body)
        return answer.headers.get('Location', '') if answer.has(201) else ''

    def close(self) -> None:
        self._connection.close()


def check(url: str, log: Path) -> list[str]:
    """What is wrong, a line each; nothing if the server is right.

    Leaves the book as it was; all of that is read, so it should be a short one.

    :param url: of the server, without a path
    :param log: the file that its standard error goes to
    """
    client = Client(url)
    wrong: list[str] = []
    try:
        for what in CHECKS:
            wrong += what(client)
    except (OSError, http.client.HTTPException) as error:
        wrong.append(f'no answer: {error!r}')
    finally:
        client.close()
    return [*wrong, *_check_ids(client.answers), *_check_log(client.answers, log)]


def _check_entry(client: Client) -> Iterator[str]:
    """Creates, reads, replaces, reads and deletes entries of all sizes and of odd values."""
    bodies = [*map(encoded, SIZES), *(json.dumps(entry).encode() for entry in VALID)]
    for body, other in zip(bodies, [*bodies[1:], bodies[0]]):
        path = client.post(body)
        if not PATH.fullmatch(path):
            yield f'POST /addressbook: 201 with an id expected: {client.answers[-1]}'
            continue
        yield from _expect(client.ask('GET', path), 200, json.loads(body))
        yield from _expect(client.ask('PUT', path, other), 204)
        yield from _expect(client.ask('GET', path), 200, json.loads(other))
        yield from _expect(client.ask('DELETE', path), 204)
        yield from _expect_error(client.ask('GET', path), 404)


def _check_unknown(client: Client) -> Iterator[str]:
    for method, body in (('GET', None), ('PUT', b'{"name":"Ada"}'), ('DELETE', None)):
        yield from _expect_error(client.ask(method, UNKNOWN, body), 404)
    yield from _expect_error(client.ask('GET', '/no/such?path=1'), 404)


def _check_refusals(client: Client) -> Iterator[str]:
    """What is not JSON, or no entry, is refused and changes nothing."""
    entry = encoded('small')
    path = client.post(entry)
    before = client.ask('GET', '/addressbook').value()
    refused = {f'what is no JSON, {body!r}': body for body in NOT_JSON}
    refused |= {what: json.dumps(value).encode() for what, value in INVALID.items()}
    for what, body in refused.items():
        for method, place in (('POST', '/addressbook'), ('PUT', path)):
            answer = client.ask(method, place, body)
            if not answer.is_error(400):
                yield f'{what} is not refused as it should be: {answer}'
    yield from _expect(client.ask('GET', '/addressbook'), 200, before)
    client.ask('DELETE', path)


def _check_lists(client: Client) -> Iterator[str]:
    """The book has what was created, in the order of the ids; a page is its beginning."""
    created = {}
    for seed in range(PAGE + 1):
        body = encoded('small', seed)
        created[client.post(body).rpartition('/')[2]] = json.loads(body)
    whole = client.ask('GET', '/addressbook')
    page = client.ask('GET', f'/addressbook?limit={PAGE}')
    for key in created:
        client.ask('DELETE', f'/addressbook/{key}')
    yield from _compare(whole, page, created)


def _compare(whole: Answer, page: Answer, created: dict[str, Any]) -> Iterator[str]:
    book, beginning = whole.value(), page.value()
    if not isinstance(book, dict) or not isinstance(beginning, dict):
        yield f'two JSON objects expected: {whole}, {page}'
        return
    if list(book) != sorted(book):
        yield f'{whole.path}: the entries are not in the order of their ids'
    if {**book, **created} != book:
        yield f'{whole.path}: it has not all that was created'
    if list(beginning.items()) != list(book.items())[:PAGE]:
        yield f'{page.path}: it is not the beginning of the book'
    yield from _expect(whole, 200, book)
    yield from _expect(page, 200, beginning)


def _check_made_ids(client: Client) -> Iterator[str]:
    """A request that comes without an id gets one of its own, even if it fails."""
    answers = [client.ask_without_id(path) for path in ('/addressbook?limit=1', UNKNOWN)]
    ids = {answer.request_id for answer in answers} - {'', 'None'}
    if len(ids) < len(answers):
        yield f'no X-Request-ID was made for each request: {ids}'


CHECKS: Final[Sequence[Callable[[Client], Iterator[str]]]] = (
    _check_entry, _check_unknown, _check_refusals, _check_lists, _check_made_ids)


def _expect(answer: Answer, status: int, value: object = None) -> Iterator[str]:
    if not answer.has(status, value):
        what = 'no body' if value is None else 'the JSON that was put there'
        yield f'{status} with {what} expected: {answer}'


def _expect_error(answer: Answer, status: int) -> Iterator[str]:
    if not answer.is_error(status):
        yield f'an error {status} in JSON expected: {answer}'


def _check_ids(answers: Sequence[Answer]) -> Iterator[str]:
    for answer in answers:
        if answer.headers['X-Request-ID'] != answer.request_id:
            yield f'X-Request-ID {answer.request_id} is not in the answer: {answer}'


def _check_log(answers: Sequence[Answer], log: Path) -> Iterator[str]:
    """Each request has one line, with all that is to be in it."""
    lines = _lines_of(answers, log)
    for answer in answers:
        mine = lines[answer.request_id]
        if len(mine) != 1:
            yield f'{len(mine)} lines in the log, not one, for {answer}'
        elif missing := [name for name, pattern in _fields(answer).items()
                         if not re.search(pattern, mine[0])]:
            yield f'no {", ".join(missing)} in the line of the log {mine[0]!r}'


def _lines_of(answers: Sequence[Answer], log: Path) -> dict[str, list[str]]:
    """The lines by the request id in them. Waits for those that are to come: a log may lag."""
    end = time.monotonic() + LAG
    while True:
        lines: dict[str, list[str]] = {answer.request_id: [] for answer in answers}
        for line in log.read_text(encoding='utf-8').splitlines():
            for request_id in set(re.findall(r'[\w-]+', line)) & lines.keys():
                lines[request_id].append(line)
        if all(lines.values()) or time.monotonic() > end:
            return lines
        time.sleep(0.01)


def _fields(answer: Answer) -> dict[str, str]:
    """What is to be in the line of a request: each a pattern, for JSON and for ``key=value``."""
    path = answer.path.partition('?')[0]
    return {
        'time': r'\d{4}-\d\d-\d\d.\d\d:\d\d:\d\d',
        'level': r'\b(DEBUG|INFO|WARNING|ERROR)\b',
        'request id': rf'request_id\W+{re.escape(answer.request_id)}\b',
        'method': rf'method\W+{answer.method}\b',
        'path': rf'path\W+{re.escape(path.removeprefix("/"))}(\W|$)',
        'status': rf'status\W+{answer.status}\b',
        'milliseconds': r'milliseconds["=: ]+\d{1,5}(\.\d+)?\b',
        'remote': r'remote\W+127\.0\.0\.1\b',
    }
