"""What clients send that mean no good, and what may come of it."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from addrservice.errors import json_pointer
from tests import wire
from tests.entries import (
    NUMBERS, OBJECTS, REQUIRED, Place, at, full_entry, places, replaced, without,
)
from tests.wire import SMALL, UNKNOWN_ID

BODY_LIMIT: Final = 64 * 1024  # bytes; the default
HEADER_LIMIT: Final = 16 * 1024  # bytes; the default


class Case(NamedTuple):
    """Something to send, and what may come of it.

    :param data: all that is sent
    :param statuses: the statuses that are right; None is a connection closed without an answer
    :param httptools: those that are right over httptools, where they are others
    """

    data: bytes
    statuses: tuple[int | None, ...]
    httptools: tuple[int | None, ...] | None = None

    def right(self, http_parser: str) -> tuple[int | None, ...]:
        """The statuses that are right over a parser."""
        if http_parser == 'httptools' and self.httptools is not None:
            return self.httptools
        return self.statuses


Cases = dict[str, Case]


def head(line: str, *fields: str) -> bytes:
    """A request without a body that asks for the end of the connection."""
    return wire.head(line, 'Connection: close', *fields)


def post(body: bytes, *fields: str, length: bool = True) -> bytes:
    """A POST with a body."""
    lengths = [f'Content-Length: {len(body)}'] if length else []
    return head('POST /addressbook HTTP/1.1', 'Content-Type: application/json',
                *lengths, *fields) + body


def json_bodies() -> dict[str, tuple[bytes, bool]]:
    """Bodies that break some JSON parser or database, and whether they are good entries."""
    def text(value: bytes) -> bytes:
        return b'{"name": "' + value + b'"}'

    def number(value: str) -> bytes:
        return (b'{"name": "Ada", "phoneNumbers": [{"kind": "home", "countryCode": 1, "number": '
                + value.encode() + b'}]}')

    return {
        'NaN': (number('NaN'), False), 'Infinity': (number('Infinity'), False),
        '-Infinity': (number('-Infinity'), False), '1e400': (number('1e400'), False),
        '1e131000 as text': (number('"1e131000"'), True), '1e131000': (number('1e131000'), False),
        'a long exponent': (number('1e' + '9' * 4000), False), '1e-400': (number('1e-400'), True),
        'integer of 5,000 digits': (number('9' * 5000), False), '2**64': (number('2**64'), False),
        '2**64 in full': (number(str(2**64)), False), '2**53': (number(str(2**53)), False),
        '2**53 - 1': (number(str(2**53 - 1)), True), '-2**53': (number(str(-2**53)), False),
        'leading zero': (number('012'), False), 'hexadecimal': (number('0x12'), False),
        'lone surrogate': (text(b'\\ud800'), False),
        'surrogate pair': (text(b'\\ud83d\\ude00'), True),
        'pair the wrong way': (text(b'\\ude00\\ud83d'), False),
        'escaped NUL': (text(b'\\u0000'), False),
        'NUL': (text(b'\0'), False), 'NUL in a key': (b'{"name": "Ada", "\\u0000": 1}', False),
        'surrogate in a key': (b'{"name": "Ada", "\\ud800": 1}', False),
        'surrogate in bytes': (text(b'\xed\xa0\x80'), False),
        'overlong': (text(b'\xc0\xaf'), False),
        'latin-1': (text(b'\xe9'), False), 'BOM': (b'\xef\xbb\xbf' + SMALL, False),
        'UTF-16': (SMALL.decode().encode('utf-16'), False),
        'UTF-32': (SMALL.decode().encode('utf-32-le'), False),
        'control character': (text(b'a\nb'), False), 'comment': (SMALL + b'// Ada', False),
        'noncharacter': (text('\uffff'.encode()), True),
        'separators': (text('\u2028'.encode()), True),
        'key twice': (b'{"name": 1, "name": "Ada"}', True), 'two values': (SMALL * 2, False),
        '65,536 brackets': (b'[' * BODY_LIMIT, False), '100,000 brackets': (b'[' * 100_000, False),
        'brackets that close': (b'[' * 999 + b']' * 999, False),
        '1,000 brackets in a name': (b'{"name": ' + b'[' * 1000 + b']' * 1000 + b'}', False),
        '1,000 objects in a name': (b'{"name":' * 1000 + b'1' + b'}' * 1000, False),
        '8,000 objects': (b'{"name":' * 8000, False),
        'empty': (b'', False), 'array': (b'[]', False), 'string': (b'"x"', False),
        'null': (b'null', False), 'true': (b'true', False), 'number': (b'0', False),
        'object': (b'{}', False), 'blank': (b' \n', False), 'form': (b'name=Ada', False),
        '__proto__': (b'{"name": "Ada", "__proto__": {}}', False),
        'SQL': (text(b"'; DROP TABLE addressbook; --"), True), 'format': (text(b'%s%n{0}'), True),
        'log lines': (text(b'\\r\\n2026-01-01 ERROR forged'), True),
    }


def floods() -> Iterator[tuple[str, bytes]]:
    """Bodies of 64 KiB that have as many errors as fit."""
    def filled(start: bytes, item: bytes, end: bytes) -> bytes:
        count = (BODY_LIMIT - len(start) - len(end)) // (len(item) + 1)
        return start + b','.join([item] * count) + end

    for items in (b'1', b'{}', b'[]', b'null', b'{"kind":"moon"}', b'""'):
        yield f'items {items!r}', filled(b'{"emails":[', items, b']}')
    yield 'all lists', (b'{"name":"Ada","addresses":' + filled(b'[', b'1', b']')[:20_000] + b'1],'
                        b'"emails":[' + b'{},' * 10_000 + b'{}]}')
    names = (b'"%x":0' % number for number in range(7000))
    yield 'unknown properties', b'{' + b','.join(names) + b'}'
    yield 'one long unknown property', b'{"' + b'x' * 65_000 + b'":0}'
    yield 'a long name', b'{"name":"' + b'x' * 65_000 + b'"}'
    yield 'a long email', (b'{"name":"Ada","emails":[{"kind":"home","value":"' + b'a.' * 30_000
                           + b'"}]}')
    yield 'tildes and slashes', b'{"' + b'~/' * 30_000 + b'":0}'


def wrong_entries() -> Iterator[tuple[str, Any]]:
    """Entries that are wrong in one place each, with a name that says where."""
    entry = full_entry()
    for place in places(entry):
        for wrong in wrong_values(place, at(entry, place)):
            yield f'{json_pointer(place)} {json.dumps(wrong)[:20]}', replaced(entry, place, wrong)
    for place in OBJECTS:
        yield f'{json_pointer(place)} with another', replaced(entry, (*place, 'other'), 1)
    for place in REQUIRED:
        yield f'without {json_pointer(place)}', without(entry, place)


def wrong_values(place: Place, value: Any) -> Iterator[Any]:
    """Values that may not be in the place of one."""
    yield from (None, True)
    if not isinstance(value, dict):
        yield {}
    if isinstance(value, list):
        yield [value[0]] * 101
    else:
        yield []
    if isinstance(value, dict | list):
        yield from ('x', 7)
    else:
        yield from ('x' * 257, 'a\0b')
        if place in NUMBERS:
            yield from (2**53, -1e300)
        else:
            yield 7


def encoded_bodies() -> Cases:
    """Encodings that lie, break off or never end."""
    packed = gzip.compress(SMALL)
    junk = {
        'broken': b'this is no gzip', 'truncated': packed[:-12], 'without its trailer': packed[:-8],
        'with half a trailer': packed[:-2], 'with a wrong checksum': packed[:-8] + b'12345678',
        'with junk behind': packed + b'junk', 'header alone': packed[:10],
        'zlib': zlib.compress(SMALL),
    }
    return {
        **{f'gzip, {name}': Case(post(body, 'Content-Encoding: gzip'), (400,))
           for name, body in junk.items()},
        'nothing': Case(post(b'', 'Content-Encoding: gzip'), (400,)),
        'twice compressed': Case(post(gzip.compress(packed), 'Content-Encoding: gzip'), (400,)),
        'many members': Case(post(gzip.compress(b' ') * 500 + packed, 'Content-Encoding: gzip'),
                             (201,)),
        'empty members': Case(post(gzip.compress(b'') * 3000 + packed, 'Content-Encoding: gzip'),
                              (201,)),
        'bomb of 1 MB': Case(post(gzip.compress(bytes(10**6)), 'Content-Encoding: gzip'), (413,)),
        'bomb of 60 MB': Case(post(gzip.compress(bytes(6 * 10**7)), 'Content-Encoding: gzip'),
                              (413,)),
        **{coding: Case(post(packed, f'Content-Encoding: {coding}'), (415,))
           for coding in ('deflate', 'br', 'x-gzip', 'gzip,gzip', 'gzip, gzip', 'compress', 'zstd',
                          'identity, gzip', 'x', '\xff')},
        'twice': Case(post(packed, 'Content-Encoding: gzip', 'Content-Encoding: gzip'), (415,)),
    }


def framing() -> Cases:
    """Requests whose body has no clear end."""
    tail = (400, None)
    ending = b'\r\n0\r\n\r\n'

    def sized(*lengths: str) -> bytes:
        return post(SMALL, *(f'Content-Length: {length}' for length in lengths), length=False)

    def chunks(body: bytes) -> bytes:
        return post(body, 'Transfer-Encoding: chunked', length=False)

    good = b'%x\r\n%s\r\n' % (len(SMALL), SMALL)
    return {
        **{f'length {length[:30]}': Case(sized(length), (400,)) for length in (
            '-1', '+15', 'abc', '1e1', '0x0f', '15 15', '15;', '', '\xb2', '9' * 19, '9' * 40,
            '9' * 5000, '15, 16')},
        'lengths that differ': Case(sized('15', '16'), (400,)),
        'lengths that agree': Case(sized('15', '15'), (201,), (400,)),
        'no length': Case(head('POST /addressbook HTTP/1.1', 'Content-Type: application/json'),
                          (400,)),
        'length and chunks': Case(post(good + b'0\r\n\r\n', 'Transfer-Encoding: chunked'), (400,)),
        **{f'transfer encoding {coding}': Case(
            post(good + b'0\r\n\r\n', f'Transfer-Encoding: {coding}', length=False), (400,))
           for coding in ('gzip', 'identity', 'chunked, chunked', 'gzip, chunked', 'xchunked',
                          ',chunked', 'chunked;x')},
        **{f'chunk size {size[:20]!r}': Case(chunks(size + b'\r\n' + SMALL + ending), tail)
           for size in (b'zz', b'-1', b'+f', b'0xf', b' f', b'f ', b'', b'f' * 20, b'f' * 70,
                        b'\xff', b'f\n')},
        'a long chunk extension': Case(
            chunks(b'f;' + b'x' * 100 + b'\r\n' + SMALL + ending), tail, (201,)),
        'a chunk extension without an end': Case(
            chunks(b'f;' + b'x' * 2 * HEADER_LIMIT + b'\r\n' + SMALL + ending), tail, (400,)),
        'a trailer without an end': Case(
            chunks(good + b'0\r\nX: ' + b'y' * 2 * HEADER_LIMIT), tail, (400,)),
        'chunk too short': Case(chunks(b'10\r\n' + SMALL + b'\r\n0\r\n\r\n'), tail),
        'chunk too long': Case(chunks(b'3\r\n' + SMALL + b'\r\n0\r\n\r\n'), tail),
        'trailers': Case(chunks(good + b'0\r\nX: y\r\n\r\n'), (400, 201)),
        'thousands of tiny chunks': Case(chunks(b'1\r\n \r\n' * 5_000 + good + b'0\r\n\r\n'),
                                         (201,)),
        'chunks over the limit': Case(chunks(b'10000\r\n' + b' ' * 65_536 + b'\r\n' + good
                                             + b'0\r\n\r\n'), (413,)),
    }


def start_lines() -> Cases:
    """Start lines and headers that are odd, huge or forged."""
    get = 'GET /healthz HTTP/1.1'
    return {
        **{line[:40]: Case(head(line), (400, None)) for line in (
            '', 'GET', 'GET /healthz', 'GET /healthz HTTP/2.0', 'GET /healthz HTTP/0.9',
            'GET /healthz HTTQ/1.1', 'GET /healthz HTTP/1.1 x', 'GET /health z HTTP/1.1',
            ' /healthz HTTP/1.1', 'GET  HTTP/1.1', 'GET /\0 HTTP/1.1', 'G\0T / HTTP/1.1',
            'G(T / HTTP/1.1', 'PRI * HTTP/2.0', 'GET /healthz HTTP/1.1\rX: y', '\x16\x03\x01\x02')},
        'a long target': Case(
            head('GET /' + 'a' * HEADER_LIMIT + ' HTTP/1.1'), (400, None), (431,)),
        **{line: Case(head(line), (404,)) for line in (
            'OPTIONS * HTTP/1.1', 'CONNECT test:80 HTTP/1.1', 'GET http://[ HTTP/1.1',
            'GET //evil/addressbook HTTP/1.1', 'GET /../etc/passwd HTTP/1.1')},
        **{line: Case(head(line), (404,), (400,)) for line in (
            'GET http: HTTP/1.1', 'GET ? HTTP/1.1', 'GET # HTTP/1.1', 'GET x HTTP/1.1')},
        **{line[:40]: Case(head(line), (200,)) for line in (
            'GET http://test/healthz HTTP/1.1', 'GET HTTPS://u:p@test:443/healthz? HTTP/1.1',
            'GET http:///healthz HTTP/1.1', 'GET http://' + 'h' * 9000 + '/healthz HTTP/1.1')},
        'odd query': Case(head('GET /healthz?%ff=%00&&=;%zz HTTP/1.1'), (200,)),
        'lower case method': Case(head('get /healthz HTTP/1.1'), (405,)),
        'long method': Case(head('G' * 5000 + ' /healthz HTTP/1.1'), (405, 400)),
        'bare LF': Case(head(get).replace(b'\r', b''), (200, 400), (400,)),
        'empty lines first': Case(b'\r\n' + head(get), (200,)),
        'no host': Case(b'GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n', (400,)),
        'two hosts': Case(head(get, 'Host: other'), (400,)),
        **{f'host {name!r}': Case(head(get).replace(b'test', name), (400,))
           for name in (b'a b', b'a/b', b'\xff', b'a@b')},
        **{f'field {field[:30]!r}': Case(head(get, field), (400, None)) for field in (
            'no colon', 'a b: c', ': c', 'X: a\0b', 'X: a\rY: b', 'X\0: a', 'X: \x7f', 'X : a')},
        'a long field': Case(head(get, 'X: ' + 'a' * HEADER_LIMIT), (400, None), (431,)),
        '10,000 headers': Case(head(get, *['a: b'] * 10_000), (None,), (431,)),
        'as many headers as fit': Case(head(get, *['a:b'] * 3000), (200,)),
        'huge headers': Case(head(get, *[f'X-{n}: {"a" * 1000}' for n in range(1000)]),
                             (None,), (431, None)),
        'forwarded': Case(head(get, 'X-Forwarded-For: \xff,,,', 'X-Real-Ip: ::1::',
                               'X-Forwarded-Proto: gopher'), (200,)),
        'odd negotiation': Case(head(get, 'Accept-Encoding: gzip;q=;q=0,*;;,,\xff;q=9e9',
                                     'If-None-Match: "', 'Range: bytes=-', 'Cookie: =;=;;'),
                                (200,)),
        'upgrade': Case(head(get, 'Upgrade: websocket', 'Sec-WebSocket-Key: x'), (200,)),
        'chunks in HTTP/1.0': Case(
            post(b'f\r\n%s\r\n0\r\n\r\n' % SMALL, 'Transfer-Encoding: chunked',
                 length=False).replace(b'HTTP/1.1', b'HTTP/1.0'), (400, 201), (400,)),
        'expectations': Case(post(SMALL, 'Expect: 200-ok'), (201, 417)),
        'a body nobody asked for': Case(head(get, 'Content-Length: 3') + b'abc', (200,)),
        'media type': Case(head('POST /addressbook HTTP/1.1', 'Content-Length: 0',
                                'Content-Type: ' + 'application/json;' * 500), (415,)),
        'media type with blanks': Case(head(
            'POST /addressbook HTTP/1.1', 'Content-Length: 0',
            'Content-Type: application/json' + '; ' * 2000 + 'x'), (415,)),
        'multipart': Case(head('POST /addressbook HTTP/1.1', 'Content-Length: 4',
                               'Content-Type: multipart/form-data; boundary=') + b'----', (415,)),
    }


def ids() -> Cases:
    """Ids of odd characters, for each method; a start line cannot hold a blank or a NUL."""
    names = (
        '%00', '%2F', 'a%2Fb', '%2e%2e', '..', '.', '%2E%2E%2F%2E%2E%2Fetc%2Fpasswd',
        '%0d%0aX:%20y', '%F0%9F%98%80', '%u0041', '%', '%zz', '%4', '%%%', 'a;b', '*',
        "'%20OR%201=1%20--", '{}', '%7B0%7D', '%25s%25n', '%E2%80%A8',
        UNKNOWN_ID.upper(), '-1', '"status="200', '\\"', 'a' * 5000, '%41' * 1000,
        UNKNOWN_ID + '%20', '~' * 100,
    )
    raw = ('\xe9', '\xff')  # httptools takes no target that is not in ASCII
    bad_text = ('%FF', '%C0%AF', '%ED%A0%80', '%80' * 100)
    cases = {}
    for method, body in (('GET', b''), ('HEAD', b''), ('PUT', SMALL), ('DELETE', b'')):
        fields = ['Content-Type: application/json', f'Content-Length: {len(body)}'] if body else []
        for name in (*names, *raw, *bad_text):
            cases[f'{method} {name[:40]}'] = Case(
                head(f'{method} /addressbook/{name} HTTP/1.1', *fields) + body,
                (400, 404) if name in bad_text else (404,), (400,) if name in raw else None)
    return cases


def entries() -> Cases:
    """All the bodies above as POST and PUT."""
    cases = {}
    for name, (body, good) in json_bodies().items():
        status = 201 if good else 400 if len(body) <= BODY_LIMIT else 413
        cases[name] = Case(post(body), (status,))
    for name, body in floods():
        cases[name] = Case(post(body), (400,))
    for name, entry in wrong_entries():
        cases[name] = Case(post(json.dumps(entry).encode()), (400,))
    return cases


def as_put(case: Case, path: str) -> Case:
    """The same as a PUT of an entry that is there."""
    line = f'PUT {path} HTTP/1.1\r\n'.encode()
    return Case(line + case.data.partition(b'\r\n')[2],
                tuple(204 if status == 201 else status for status in case.statuses),
                case.httptools)
