"""Validators and preconditions (RFC 9110, 8.8 and 13), for every backend: see ``http_contract``.

``EncodingTest`` and ``PreconditionTableTest`` are about what is the same whatever the store is.
"""

import gzip
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final
from unittest import mock

from tornado.httpclient import HTTPResponse

from tests.http_contract import PATCH_JSON, at_once
from tests.support import JSON, address
from tests.wire import SMALL, UNKNOWN_ID, WireTestCase, head, request

READS: Final = 'GET', 'HEAD'
WRITES: Final = 'PUT', 'PATCH', 'DELETE'
ETAG: Final = '"[0-9]+"'
GZIP: Final = {'Accept-Encoding': 'gzip'}
OLD: Final = 'Sun, 06 Nov 1994 08:49:37 GMT'
OLD_DATES: Final = (OLD, 'Sunday, 06-Nov-94 08:49:37 GMT', 'Sun Nov  6 08:49:37 1994')
NO_DATES: Final = (
    '', '0', '-1', '{version}', 'nonsense', '1994-11-06T08:49:37Z', 'Sun, 06 Nov 1994',
    'Sun, 31 Feb 1994 08:49:37 GMT', 'Sun, 06 Nov 1994 25:49:37 GMT', '9' * 400,
    'Sun, 06 Nov 1994 08:49:37 +9999')

# Values of If-Match and If-None-Match that have the entry's tag in them, and some that do not;
# {gzip} is the tag of the compressed form.
STRONG: Final = (
    '{etag}', '{gzip}', '"x", {etag}', '"x",{gzip},"y"', '{etag} , "x"', '"x", , {etag}',
    '"a,b", {etag}', '*')
WEAK: Final = ('W/{etag}', 'W/{gzip}', '"x", W/{etag}', '"a,b",W/{etag}')
OTHERS: Final = (
    '"x"', 'W/"x"', '"x", "y"', '""', '', '{version}', '"{version}', '{version}"', "'{version}'",
    '"{etag}"', 'x{etag}', '{etag}x', 'w/{etag}', 'W/ {etag}', '"x" {etag}', '"x", *', '*, "x"',
    'W/*', '"{version}-br"', '"x{version}"', '"-gzip"', 'nonsense')

Case = tuple[dict[str, str], int, int]  # fields, status of GET and HEAD, of PUT, PATCH and DELETE

# How conditions go together: what RFC 9110, 13.2.2, has first decides.
TOGETHER: Final[list[Case]] = [
    ({'If-Match': '{etag}', 'If-Unmodified-Since': '{earlier}'}, 200, 204),
    ({'If-Match': '"x"', 'If-Unmodified-Since': '{later}'}, 412, 412),
    ({'If-Match': 'nonsense', 'If-Unmodified-Since': '{modified}'}, 412, 412),
    ({'If-None-Match': '"x"', 'If-Modified-Since': '{modified}'}, 200, 204),
    ({'If-None-Match': 'nonsense', 'If-Modified-Since': '{modified}'}, 200, 204),
    ({'If-None-Match': '{etag}', 'If-Modified-Since': '{earlier}'}, 304, 412),
    ({'If-Match': '"x"', 'If-None-Match': '{etag}'}, 412, 412),
    ({'If-Match': '{etag}', 'If-None-Match': '{etag}'}, 304, 412),
    ({'If-Match': '*', 'If-None-Match': '*'}, 304, 412),
    ({'If-Match': '{etag}', 'If-None-Match': '"x"'}, 200, 204),
    ({'If-Match': '"x"', 'If-Modified-Since': '{modified}'}, 412, 412),
    ({'If-Match': '{etag}', 'If-Modified-Since': '{modified}'}, 304, 204),
    ({'If-Unmodified-Since': '{earlier}', 'If-None-Match': '{etag}'}, 412, 412),
    ({'If-Unmodified-Since': '{modified}', 'If-None-Match': '{etag}'}, 304, 412),
    ({'If-Unmodified-Since': '{earlier}', 'If-Modified-Since': '{modified}'}, 412, 412),
    ({'If-Unmodified-Since': '{modified}', 'If-Modified-Since': '{modified}'}, 304, 204),
    ({'If-Match': '{etag}', 'If-Unmodified-Since': '{earlier}', 'If-None-Match': '"x"',
      'If-Modified-Since': '{modified}'}, 200, 204),
]

ALONE: Final[list[Case]] = [
    *(({'If-Match': value}, 200, 204) for value in STRONG),
    *(({'If-Match': value}, 412, 412) for value in (*WEAK, *OTHERS)),
    *(({'If-None-Match': value}, 304, 412) for value in (*STRONG, *WEAK)),
    *(({'If-None-Match': value}, 200, 204) for value in OTHERS),
    *(({'If-Unmodified-Since': value}, 200, 204) for value in ('{modified}', '{later}', *NO_DATES)),
    *(({'If-Unmodified-Since': value}, 412, 412) for value in ('{earlier}', *OLD_DATES)),
    *(({'If-Modified-Since': value}, 304, 204) for value in ('{modified}', '{later}')),
    *(({'If-Modified-Since': value}, 200, 204) for value in ('{earlier}', *OLD_DATES, *NO_DATES)),
]

# One of each, for the stores to decide.
SHORT: Final[list[Case]] = [
    ({}, 200, 204),
    ({'If-Match': '"x", {etag}'}, 200, 204),
    ({'If-Match': '*'}, 200, 204),
    ({'If-Match': '"x"'}, 412, 412),
    ({'If-None-Match': 'W/{etag}'}, 304, 412),
    ({'If-None-Match': '*'}, 304, 412),
    ({'If-None-Match': '"x"'}, 200, 204),
    ({'If-Unmodified-Since': '{modified}'}, 200, 204),
    ({'If-Unmodified-Since': '{earlier}'}, 412, 412),
    ({'If-Modified-Since': '{modified}'}, 304, 204),
]


def large() -> dict[str, Any]:
    """An entry whose answer is worth being compressed."""
    return {'name': 'Ada', 'addresses': address('namo')['addresses'] * 20}


def document(size: int) -> bytes:
    """An entry that is so many bytes as it is stored."""
    texts = dict.fromkeys(('streetName', 'country', 'state', 'locality'), 'x' * 200)
    entry = {'name': 'A', 'addresses': [{'kind': 'home', 'pincode': 1, **texts}]}
    missing = size - len(json.dumps(entry, separators=(',', ':')))
    return json.dumps({**entry, 'name': 'A' * (1 + missing)}).encode()


class ConditionTestCase(WireTestCase):
    """An entry, and requests with conditions."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        await self.begin()

    async def begin(self) -> None:
        """Makes a new entry."""
        self.path = await self.post({'name': 'Ada'})
        await self.take_note()

    async def take_note(self) -> None:
        """Takes note of what conditions may say of the entry as it is now."""
        answer = await self.fetch('GET', self.path)
        self.etag = answer.headers['ETag']
        modified = parsedate_to_datetime(answer.headers['Last-Modified'])
        second = timedelta(seconds=1)
        self.known = {
            'etag': self.etag,
            'version': self.etag.strip('"'),
            'gzip': f'{self.etag[:-1]}-gzip"',
            'modified': format_datetime(modified, usegmt=True),
            'earlier': format_datetime(modified - second, usegmt=True),
            'later': format_datetime(modified + second, usegmt=True),
        }

    async def ask(self, method: str, fields: Mapping[str, str]) -> HTTPResponse:
        """The answer to a request for the entry with conditions."""
        headers = {**(PATCH_JSON if method == 'PATCH' else JSON), **{
            name: value.format(**self.known) for name, value in fields.items()}}
        body = b'{"name": "Eve"}' if method in ('PUT', 'PATCH') else None
        return await self.fetch(method, self.path, body, headers)

    async def assert_decided(self, cases: list[Case], methods: Sequence[str]) -> None:
        """Checks what each method is told."""
        for fields, read, written in cases:
            for method in methods:
                with self.subTest(method, fields=fields):
                    answer = await self.ask(method, fields)
                    expected = read if method in READS else written
                    self.assertEqual(expected, answer.code, answer.body)
                    if answer.code == 204:
                        await (self.begin() if method == 'DELETE' else self.take_note())


class ValidatorTest(ConditionTestCase):
    """ETag and Last-Modified."""

    async def test_each_write_tells_the_etag_that_a_get_then_gives(self) -> None:
        seen = set()
        answer = await self.fetch('POST', '/addressbook', SMALL, JSON)
        path = answer.headers['Location']
        for number in range(4):
            seen.add(answer.headers['ETag'])
            self.assertRegex(answer.headers['ETag'], f'^{ETAG}$')
            for method in READS:
                read = await self.fetch(method, path)
                self.assertEqual(answer.headers['ETag'], read.headers['ETag'])
            body = json.dumps({'name': f'Ada {number}'})
            answer = (await self.fetch('PUT', path, body, JSON) if number % 2
                      else await self.fetch('PATCH', path, body, PATCH_JSON))
            self.assert_empty(answer)
        self.assertEqual(4, len(seen))

    async def test_an_entry_that_is_put_as_it_was_is_another_version(self) -> None:
        tags = [self.etag]
        for _ in range(20):
            tags.append((await self.fetch('PUT', self.path, SMALL, JSON)).headers['ETag'])
        self.assertEqual(21, len(set(tags)))

    async def test_an_entry_that_is_made_anew_has_another_etag(self) -> None:
        """Or who knew the first one would take the second for it."""
        headers = {**JSON, 'Idempotency-Key': 'mine'}
        tags = []
        for _ in range(5):
            answer = await self.fetch('POST', '/addressbook', SMALL, headers)
            tags.append(answer.headers['ETag'])
            await self.fetch('DELETE', answer.headers['Location'])
        self.assertEqual(5, len(set(tags)))

    async def test_last_modified_is_the_time_of_the_last_change(self) -> None:
        begin = time.time_ns() // 1000
        put = await self.fetch('PUT', self.path, SMALL, JSON)
        end = time.time_ns() // 1000
        version = int(put.headers['ETag'].strip('"'))  # in microseconds; the date is in seconds
        self.assertTrue(begin <= version <= end, (begin, version, end))
        [date] = {(await self.fetch(method, self.path)).headers['Last-Modified']
                  for method in READS}
        self.assertRegex(date, '^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT$')
        self.assertEqual(version // 1_000_000, parsedate_to_datetime(date).timestamp())


class EncodingTest(ConditionTestCase):
    """The entity tags of the two encodings."""

    async def test_a_304_has_the_fields_that_the_200_would_have(self) -> None:
        await self.fetch('PUT', self.path, json.dumps(large()), JSON)
        for encodings in ({}, GZIP):
            for method in READS:
                full = await self.fetch(method, self.path, None, encodings)
                headers = {**encodings, 'If-None-Match': full.headers['ETag']}
                answer = await self.fetch(method, self.path, None, headers)
                with self.subTest(method, encodings=encodings):
                    self.assertEqual((200, 304), (full.code, answer.code))
                    self.assert_empty(answer)
                    for name in ('ETag', 'Last-Modified', 'Vary', 'Cache-Control'):
                        self.assertEqual(full.headers[name], answer.headers[name], name)

    async def test_the_compressed_form_has_a_tag_of_its_own_and_both_will_do(self) -> None:
        await self.fetch('PUT', self.path, json.dumps(large()), JSON)
        plain = await self.fetch('GET', self.path)
        packed = await self.fetch('GET', self.path, None, GZIP)
        self.assertEqual(plain.body, gzip.decompress(packed.body))
        tags = [answer.headers['ETag'] for answer in (plain, packed)]
        self.assertEqual(tags[0].replace('"', ''), tags[1].replace('-gzip', '').replace('"', ''))
        self.assertRegex(tags[1], '^"[0-9]+-gzip"$')
        bare = await self.fetch('HEAD', self.path, None, GZIP)
        self.assertEqual(tags[1], bare.headers['ETag'])
        for tag in tags:
            for encodings in ({}, GZIP):
                headers = {**encodings, 'If-None-Match': tag}
                self.assertEqual(304, (await self.fetch('GET', self.path, None, headers)).code)
        for index in (1, 0):
            answer = await self.fetch('GET', self.path, None, GZIP if index else {})
            headers = {**JSON, 'If-Match': answer.headers['ETag']}
            put = await self.fetch('PUT', self.path, json.dumps(large()), headers)
            self.assertEqual(204, put.code)
            self.assertEqual(412, (await self.fetch('GET', self.path, None, headers)).code)

    async def test_what_is_too_small_to_be_compressed_has_the_plain_tag(self) -> None:
        for size, compressed in ((1023, False), (1024, True), (1025, True)):
            await self.fetch('PUT', self.path, document(size), JSON)
            answer = await self.fetch('GET', self.path, None, GZIP)
            self.assertEqual(compressed, 'Content-Encoding' in answer.headers)
            self.assertRegex(answer.headers['ETag'], '-gzip"$' if compressed else f'^{ETAG}$')


class PreconditionTest(ConditionTestCase):
    """What conditions are made of, as far as it is the stores that decide."""

    async def test_each_condition_decides_for_each_write(self) -> None:
        await self.assert_decided(SHORT, WRITES)

    async def test_where_a_condition_is_false_nothing_is_done(self) -> None:
        for fields in ({'If-Match': '"x"'}, {'If-Unmodified-Since': '{earlier}'},
                       {'If-None-Match': '{etag}'}):
            for method in WRITES:
                self.assert_error(await self.ask(method, fields), 412)
            answer = await self.fetch('GET', self.path)
            self.assertEqual({'name': 'Ada'}, json.loads(answer.body))
            self.assertEqual(self.etag, answer.headers['ETag'])

    async def test_a_condition_of_an_entry_that_is_not_there_does_not_matter(self) -> None:
        self.path = f'/addressbook/{UNKNOWN_ID}'
        for fields in ({'If-Match': '*'}, {'If-Match': '"x"'}, {'If-None-Match': '*'},
                       {'If-None-Match': '"x"'}, {'If-Unmodified-Since': OLD}):
            for method in (*READS, *WRITES):
                with self.subTest(method, fields=fields):
                    self.assertEqual(404, (await self.ask(method, fields)).code)

    async def test_a_tag_is_good_once(self) -> None:
        for method, expected in (('PUT', 204), ('PATCH', 412), ('PUT', 412), ('DELETE', 412)):
            answer = await self.ask(method, {'If-Match': '{etag}'})
            self.assertEqual(expected, answer.code)
        self.assertEqual({'name': 'Eve'}, await self.read(self.path))

    async def test_of_fifty_puts_at_once_with_one_etag_just_one_wins(self) -> None:
        requests = [
            request('PUT', self.path, f'If-Match: {self.etag}', body=b'{"name": "%d"}' % number)
            for number in range(50)]
        answers = await at_once(self, requests)
        self.assertEqual({204: 1, 412: 49}, Counter(answer.status for answer in answers))
        [winner] = [index for index, answer in enumerate(answers) if answer.status == 204]
        answer = await self.fetch('GET', self.path)
        self.assertEqual({'name': str(winner)}, json.loads(answer.body))
        self.assertEqual(answers[winner].headers['ETag'], answer.headers['ETag'])

    async def test_of_all_writes_at_once_with_one_etag_just_one_wins(self) -> None:
        condition = f'If-Match: "x", {self.etag}'
        patch = f'Content-Type: {PATCH_JSON["Content-Type"]}', f'Content-Length: {len(SMALL)}'
        requests = [
            request('PUT', self.path, condition, body=SMALL),
            request('DELETE', self.path, condition),
            head(f'PATCH {self.path} HTTP/1.1', condition, *patch) + SMALL,
        ] * 5
        statuses = Counter(answer.status for answer in await at_once(self, requests))
        self.assertEqual(1, statuses.pop(204))
        self.assertLessEqual(statuses.keys(), {404, 412})


class PreconditionTableTest(ConditionTestCase):
    """What conditions are made of, in full, for a method that reads and one that writes."""

    async def test_each_condition_alone_decides(self) -> None:
        await self.assert_decided(ALONE, ('GET', 'PUT'))

    async def test_conditions_are_taken_in_their_order(self) -> None:
        await self.assert_decided(TOGETHER, ('GET', 'PUT'))

    async def test_a_date_is_in_gmt_wherever_the_service_is(self) -> None:
        """Even where it does not say so, as in asctime's format (RFC 9110, 5.6.7)."""
        self.addCleanup(time.tzset)
        self.enterContext(mock.patch.dict(os.environ, {'TZ': 'HST10'}))
        time.tzset()
        for date, status in (('modified', 200), ('later', 200), ('earlier', 412)):
            written = parsedate_to_datetime(self.known[date]).strftime('%a %b %e %H:%M:%S %Y')
            answer = await self.ask('GET', {'If-Unmodified-Since': written})
            self.assertEqual(status, answer.code, date)

    async def test_a_list_may_come_in_several_fields(self) -> None:
        for name, status in (('If-Match', 200), ('If-None-Match', 304)):
            answer = await self.exchange(
                request('GET', self.path, f'{name}: "x"', f'{name}: {self.etag}', f'{name}: "y"'))
            self.assertEqual(status, answer.status)

    async def test_what_decides_for_one_method_decides_for_the_others(self) -> None:
        await self.assert_decided(SHORT, (*READS, *WRITES))

    async def test_an_invalid_body_is_told_before_a_condition_that_is_false(self) -> None:
        headers = {**JSON, 'If-Match': '"x"'}
        for body in (b'{', b'{}'):
            self.assert_error(await self.fetch('PUT', self.path, body, headers), 400)
        headers = {**PATCH_JSON, 'If-Match': '"x"'}
        for body in (b'{', b'{"name": null}'):
            self.assert_error(await self.fetch('PATCH', self.path, body, headers), 400)
        headers = {'Content-Type': 'text/plain', 'If-Match': '"x"'}
        for method in ('PUT', 'PATCH'):
            self.assert_error(await self.fetch(method, self.path, SMALL, headers), 415)

    async def test_a_post_has_no_conditions(self) -> None:
        for fields in ({'If-Match': '"x"'}, {'If-None-Match': '*'}, {'If-Unmodified-Since': OLD}):
            answer = await self.fetch('POST', '/addressbook', SMALL, {**JSON, **fields})
            self.assertEqual(201, answer.code, answer.body)

    async def test_a_refused_write_and_a_delete_tell_no_etag(self) -> None:
        for method, body in (('PUT', b'{}'), ('PUT', b'{'), ('DELETE', None), ('PUT', SMALL)):
            answer = await self.fetch(method, self.path, body, JSON)
            self.assertNotIn('ETag', answer.headers)
