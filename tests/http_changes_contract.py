"""PATCH, and POST that may be sent again, as they hold for every backend: see ``http_contract``.

``MergeTest`` and ``KeyTest`` are about what is the same whatever the store is.
"""

import gzip
import json
from collections import Counter
from typing import Any, Final

from tornado.httpclient import HTTPResponse

from tests.entries import full_entry
from tests.http_contract import MERGE_PATCH, PATCH_JSON, at_once
from tests.support import JSON
from tests.wire import SMALL, UNKNOWN_ID, WireTestCase, head, request

WORK: Final = {'kind': 'work', 'value': 'ada@example.org'}
HOME: Final = {'kind': 'home', 'value': 'ada@example.com'}
PHONE: Final = {'kind': 'home', 'countryCode': 44, 'number': 1}

# Entry, patch, result: RFC 7396, appendix A, as far as an entry can have it.
MERGED: Final[list[tuple[Any, Any, Any]]] = [
    ({'name': 'Ada'}, {'name': 'Bob'}, {'name': 'Bob'}),
    ({'name': 'Ada'}, {'emails': [WORK]}, {'name': 'Ada', 'emails': [WORK]}),
    ({'name': 'Ada', 'emails': [WORK]}, {'emails': None}, {'name': 'Ada'}),
    ({'emails': [WORK], 'name': 'Ada'}, {'name': 'Bob'}, {'emails': [WORK], 'name': 'Bob'}),
    ({'name': 'Ada', 'emails': [WORK]}, {'emails': []}, {'name': 'Ada', 'emails': []}),
    ({'name': 'Ada', 'emails': [WORK]}, {'emails': [HOME]}, {'name': 'Ada', 'emails': [HOME]}),
    ({'name': 'Ada', 'emails': [WORK, HOME], 'phoneNumbers': [PHONE]},
     {'emails': None, 'faxNumbers': [PHONE], 'phoneNumbers': []},
     {'name': 'Ada', 'phoneNumbers': [], 'faxNumbers': [PHONE]}),
    ({'name': 'Ada'}, {'emails': None}, {'name': 'Ada'}),
    ({'name': 'Ada'}, {'nothing': None, '': None}, {'name': 'Ada'}),
    ({'name': 'Ada'}, {}, {'name': 'Ada'}),
]

# Patches after which {'name': 'Ada', 'emails': [WORK]} would be no entry, and what is wrong then.
INVALID: Final[list[tuple[Any, set[str]]]] = [
    ({'name': None}, {''}),
    ({'name': ''}, {'/name'}),
    ({'name': 5, 'emails': 'c'}, {'/name', '/emails'}),
    ({'nothing': 1}, {'/nothing'}),
    ({'nothing': {'a': None}}, {'/nothing'}),
    ({'emails': {'a': 'b', 'c': None}}, {'/emails'}),
    ({'emails': [1]}, {'/emails/0'}),
    ({'emails': [None]}, {'/emails/0'}),
    ({'emails': [{'kind': 'home'}]}, {'/emails/0'}),  # an array is replaced, never merged
    ({'emails': [{**WORK, 'x': None}]}, {'/emails/0/x'}),  # and a null in it stays
    ({'emails': [{**WORK, 'kind': None}]}, {'/emails/0/kind'}),
    (['name', 'Bob'], {''}),
    ([], {''}),
    (None, {''}),
    ('Bob', {''}),
    (5, {''}),
    (True, {''}),
]


class PatchTestCase(WireTestCase):
    """An address book that is patched."""

    async def patch(self, path: str, patch: Any, **headers: str) -> HTTPResponse:
        return await self.fetch('PATCH', path, json.dumps(patch), {**PATCH_JSON, **headers})


class PatchTest(PatchTestCase):
    """PATCH /addressbook/<id>."""

    async def test_a_patch_changes_what_it_names_and_nothing_else(self) -> None:
        path = await self.post({'name': 'Ada', 'emails': [WORK], 'phoneNumbers': [PHONE]})
        answer = await self.patch(path, {'name': 'Zoë', 'emails': None, 'faxNumbers': [PHONE]})
        self.assertEqual((204, b''), (answer.code, answer.body))
        read = await self.fetch('GET', path)
        self.assertEqual({'name': 'Zoë', 'phoneNumbers': [PHONE], 'faxNumbers': [PHONE]},
                         json.loads(read.body))
        self.assertEqual(answer.headers['ETag'], read.headers['ETag'])

    async def test_a_patch_that_would_make_no_entry_changes_nothing(self) -> None:
        path = await self.post({'name': 'Ada'})
        before = await self.fetch('GET', path)
        for patch in ({'name': None}, {'name': 'Bob', 'emails': [1]}, 'Bob'):
            self.assert_error(await self.patch(path, patch), 400)
        after = await self.fetch('GET', path)
        self.assertEqual((before.body, before.headers['ETag']), (after.body, after.headers['ETag']))

    async def test_a_condition_decides_whether_it_is_done(self) -> None:
        path = await self.post({'name': 'Ada'})
        etag = (await self.fetch('GET', path)).headers['ETag']
        patch = {'emails': [WORK]}
        self.assert_error(await self.patch(path, patch, **{'If-Match': '"x"'}), 412)
        self.assertEqual({'name': 'Ada'}, await self.read(path))
        self.assertEqual(204, (await self.patch(path, patch, **{'If-Match': etag})).code)
        self.assert_error(await self.patch(path, patch, **{'If-Match': etag}), 412)
        self.assertEqual({'name': 'Ada', **patch}, await self.read(path))

    async def test_an_entry_that_is_gone_cannot_be_patched(self) -> None:
        path = await self.post({'name': 'Ada'})
        await self.fetch('DELETE', path)
        for target in (path, f'/addressbook/{UNKNOWN_ID}', '/addressbook/x'):
            self.assert_error(await self.patch(target, {'name': 'Bob'}), 404)
            self.assert_error(await self.patch(target, {'name': None}), 404)
        self.assertEqual({}, await self.read('/addressbook'))

    async def test_patches_of_different_members_at_once_all_stay(self) -> None:
        whole = full_entry()
        for _ in range(3):
            path = await self.post({'name': 'nobody'})
            answers = await at_once(self, [
                patch_request(path, {member: value}) for member, value in whole.items()])
            self.assertEqual({204}, {answer.status for answer in answers})
            self.assertEqual(5, len({answer.headers['ETag'] for answer in answers}))
            self.assertEqual(whole, await self.read(path))

    async def test_patches_of_the_same_members_at_once_are_done_one_after_the_other(self) -> None:
        path = await self.post({'name': 'nobody'})
        patches = [{'name': str(number), 'emails': [{**WORK, 'value': f'{number}@example.org'}]}
                   for number in range(20)]
        answers = await at_once(self, [patch_request(path, patch) for patch in patches])
        self.assertEqual({204: 20}, Counter(answer.status for answer in answers))
        last = patches.index(await self.read(path))
        etag = (await self.fetch('GET', path)).headers['ETag']
        self.assertEqual(etag, answers[last].headers['ETag'])


def patch_request(path: str, patch: Any) -> bytes:
    """A whole PATCH."""
    body = json.dumps(patch).encode()
    fields = f'Content-Type: {MERGE_PATCH}', f'Content-Length: {len(body)}'
    return head(f'PATCH {path} HTTP/1.1', *fields) + body


class RetryTestCase(WireTestCase):
    """A client that sends its POSTs with a key."""

    async def send(self, body: bytes = SMALL, key: str = 'mine', **more: str) -> HTTPResponse:
        headers = {**JSON, 'Idempotency-Key': key, **more}
        return await self.fetch('POST', '/addressbook', body, headers)

    async def assert_made(self, answer: HTTPResponse) -> str:
        """Checks that an entry was made, and gives its path."""
        self.assertEqual((201, b''), (answer.code, answer.body))
        self.assertRegex(answer.headers['Location'], '^/addressbook/[0-9a-f]{32}$')
        return answer.headers['Location']


class RetryTest(RetryTestCase):
    """POST /addressbook with an Idempotency-Key."""

    async def test_the_same_post_again_gets_the_same_answer_and_makes_no_second_entry(self) -> None:
        first = await self.send()
        path = await self.assert_made(first)
        for _ in range(3):
            again = await self.send()
            self.assertEqual(path, await self.assert_made(again))
            self.assertEqual(first.headers['ETag'], again.headers['ETag'])
        read = await self.fetch('GET', path)
        self.assertEqual(first.headers['ETag'], read.headers['ETag'])
        self.assertEqual({path.rpartition('/')[2]: {'name': 'Ada'}},
                         await self.read('/addressbook'))

    async def test_another_entry_with_the_same_key_is_refused(self) -> None:
        path = await self.assert_made(await self.send())
        for body in (b'{"name": "ada"}', b'{"name": "Ada", "emails": []}'):
            answer = await self.send(body)
            self.assert_error(answer, 422)
            self.assertNotIn('Location', answer.headers)
            self.assertNotIn('ETag', answer.headers)
        self.assertEqual({path.rpartition('/')[2]: {'name': 'Ada'}},
                         await self.read('/addressbook'))

    async def test_the_same_answer_is_given_after_the_entry_was_changed(self) -> None:
        """But no ETag, for what the client sent is not there any more."""
        for method, headers in (('PUT', JSON), ('PATCH', PATCH_JSON)):
            with self.subTest(method):
                path = await self.assert_made(await self.send(key=method))
                await self.fetch(method, path, b'{"name": "Bob"}', headers)
                answer = await self.send(key=method)
                self.assertEqual(path, await self.assert_made(answer))
                self.assertNotIn('ETag', answer.headers)
                self.assertEqual({'name': 'Bob'}, await self.read(path))
                self.assert_error(await self.send(b'{"name": "Bob"}', key=method), 422)
                self.assertEqual({'name': 'Bob'}, await self.read(path))

    async def test_after_a_delete_the_key_is_free(self) -> None:
        path = await self.assert_made(await self.send())
        for body in (SMALL, b'{"name": "Bob"}'):
            await self.fetch('DELETE', path)
            answer = await self.send(body)
            self.assertEqual(path, await self.assert_made(answer))
            read = await self.fetch('GET', path)
            self.assertEqual(json.loads(body), json.loads(read.body))
            self.assertEqual(answer.headers['ETag'], read.headers['ETag'])
        self.assert_error(await self.send(), 422)

    async def test_of_fifty_posts_at_once_with_one_key_one_entry_comes(self) -> None:
        answers = await at_once(self, [
            request('POST', '/addressbook', 'Idempotency-Key: "mine"', body=SMALL)] * 50)
        self.assertEqual({201: 50}, Counter(answer.status for answer in answers))
        [path] = {answer.headers['Location'] for answer in answers}
        [_] = {answer.headers['ETag'] for answer in answers}
        self.assertEqual({path.rpartition('/')[2]: {'name': 'Ada'}},
                         await self.read('/addressbook'))

    async def test_of_two_entries_at_once_with_one_key_one_is_made(self) -> None:
        bodies = [b'{"name": "%d"}' % (number % 2) for number in range(20)]
        answers = await at_once(self, [
            request('POST', '/addressbook', 'Idempotency-Key: mine', body=body) for body in bodies])
        [made] = (await self.read('/addressbook')).values()
        for body, answer in zip(bodies, answers, strict=True):
            self.assertEqual(201 if json.loads(body) == made else 422, answer.status)


class MergeTest(PatchTestCase):
    """What a patch is, and what comes of it."""

    async def test_a_patch_is_merged_into_the_entry(self) -> None:
        for entry, patch, result in MERGED:
            with self.subTest(entry=entry, patch=patch):
                path = await self.post(entry)
                answer = await self.patch(path, patch)
                self.assertEqual((204, 'No Content'), (answer.code, answer.reason), answer.body)
                self.assert_empty(answer)
                read = await self.fetch('GET', path)
                self.assertEqual(json.dumps(result), json.dumps(json.loads(read.body)))
                self.assertEqual(answer.headers['ETag'], read.headers['ETag'])

    async def test_a_patch_that_would_make_no_entry_is_refused_as_a_put_of_it_is(self) -> None:
        entry = {'name': 'Ada', 'emails': [WORK]}
        path = await self.post(entry)
        etag = (await self.fetch('GET', path)).headers['ETag']
        for patch, places in INVALID:
            with self.subTest(patch=patch):
                answer = await self.patch(path, patch)
                error = self.assert_error(answer, 400, 'JSON Schema validation failed')
                self.assertEqual('JSON Schema validation failed', answer.reason)
                self.assertEqual(places, {violation['path'] for violation in error['errors']})
                self.assertNotIn('ETag', answer.headers)
        answer = await self.fetch('GET', path)
        self.assertEqual((etag, entry), (answer.headers['ETag'], json.loads(answer.body)))

    async def test_a_patch_may_be_nested_as_deeply_as_it_likes(self) -> None:
        """It is refused, and is no bug."""
        path = await self.post({'name': 'Ada'})
        for depth in (100, 250, 253, 254, 255, 256, 500, 900, 1000, 1022, 1023, 1024, 1025, 5000):
            for opening, middle, closing in (
                (b'{"a":', b'1', b'}'), (b'{"emails":', b'null', b'}'), (b'{"name":', b'{}', b'}'),
            ):
                with self.subTest(depth=depth, opening=opening):
                    patch = opening * depth + middle + closing * depth
                    self.assert_error(await self.fetch('PATCH', path, patch, PATCH_JSON), 400)
            patch = b'{"emails":' + b'[' * depth + b']' * depth + b'}'
            self.assert_error(await self.fetch('PATCH', path, patch, PATCH_JSON), 400)
        self.assertEqual({'name': 'Ada'}, await self.read(path))

    async def test_a_body_of_another_type_is_told_which_is_understood(self) -> None:
        path = await self.post({'name': 'Ada'})
        for declared in (None, '', 'application/json', 'application/json-patch+json', 'text/plain',
                         'application/merge-patch', f'{MERGE_PATCH}; charset=latin-1',
                         f'{MERGE_PATCH}, application/json', 'application/x-www-form-urlencoded'):
            with self.subTest(declared):
                headers = {} if declared is None else {'Content-Type': declared}
                answer = await self.fetch('PATCH', path, b'{"name": "Bob"}', headers)
                self.assert_error(answer, 415)
                self.assertEqual(MERGE_PATCH, answer.headers['Accept-Patch'])
                self.assertEqual(MERGE_PATCH, answer.headers['Accept'])
        self.assertEqual({'name': 'Ada'}, await self.read(path))
        answer = await self.fetch('PUT', path, SMALL, PATCH_JSON)
        self.assert_error(answer, 415)
        self.assertEqual('application/json', answer.headers['Accept'])

    async def test_its_type_may_be_declared_in_several_ways_and_its_body_compressed(self) -> None:
        path = await self.post({'name': 'Ada'})
        for number, declared in enumerate((
            MERGE_PATCH, MERGE_PATCH.upper(), f'{MERGE_PATCH}; charset=utf-8',
            f'{MERGE_PATCH};charset="UTF-8"', f' {MERGE_PATCH} ;',
        )):
            with self.subTest(declared):
                patch = gzip.compress(json.dumps({'name': str(number)}).encode())
                headers = {'Content-Type': declared, 'Content-Encoding': 'gzip'}
                answer = await self.fetch('PATCH', path, patch, headers)
                self.assertEqual(204, answer.code, answer.body)
                self.assertEqual({'name': str(number)}, await self.read(path))


class KeyTest(RetryTestCase):
    """What a key is, and what it is for."""

    async def test_an_entry_is_the_same_however_it_is_written(self) -> None:
        path = await self.assert_made(await self.send('{"name": "Zoë"}'.encode()))
        for body in ('{"name":"Zoë"}'.encode(), b'\n{ "name"\t:\r\n "Zo\\u00eb" } ',
                     b'{"\\u006eame": "Zo\xc3\xab"}'):
            with self.subTest(body):
                self.assertEqual(path, await self.assert_made(await self.send(body)))
        packed = gzip.compress(b'{"name": "Zo\xc3\xab"}')
        answer = await self.send(packed, **{'Content-Encoding': 'gzip'})
        self.assertEqual(path, await self.assert_made(answer))

    async def test_a_key_is_the_same_quoted_and_bare_and_another_one_otherwise(self) -> None:
        keys = ('abc', 'ABC', 'abd', 'a', '!', '~', '1,2', 'W/abc', "'abc'", 'x' * 254, 'x' * 255,
                '6f1c7a52-6f0f-4b7c-8a53-9d6f3f6f8c11')
        paths = set()
        for key in keys:
            with self.subTest(key[:40]):
                path = await self.assert_made(await self.send(key=key))
                self.assertEqual(path, await self.assert_made(await self.send(key=f'"{key}"')))
                paths.add(path)
        for key in ('"a b"', '" a"', '"a "'):  # as it is, blanks too
            paths.add(await self.assert_made(await self.send(key=key)))
        self.assertEqual(len(keys) + 3, len(paths))

    async def test_a_bad_key_is_refused_and_named(self) -> None:
        for key in ('', '""', '"', '"abc', 'abc"', 'a"b', '"a"b"', '"a", "b"', 'a\\b', '"a\\"b"',
                    'a b', 'x' * 256, f'"{"x" * 256}"', 'a\tb', 'é', '"é"', '"abc";a=1'):
            with self.subTest(key[:40]):
                data = head('POST /addressbook HTTP/1.1', 'Content-Type: application/json',
                            f'Content-Length: {len(SMALL)}', f'Idempotency-Key: {key}') + SMALL
                error = self.assert_error(await self.exchange(data), 400)
                self.assertIn('Idempotency-Key', error['message'])
        self.assertEqual({}, await self.read('/addressbook'))

    async def test_two_keys_are_refused(self) -> None:
        twice = request('POST', '/addressbook', *['Idempotency-Key: mine'] * 2, body=SMALL)
        error = self.assert_error(await self.exchange(twice), 400)
        self.assertIn('Idempotency-Key', error['message'])

    async def test_a_post_that_is_refused_does_not_use_up_its_key(self) -> None:
        for body in (b'{', b'{}'):
            self.assert_error(await self.send(body), 400)
        path = await self.assert_made(await self.send())
        for body in (b'{', b'{}'):
            self.assert_error(await self.send(body), 400)
        self.assertEqual({'name': 'Ada'}, await self.read(path))

    async def test_what_has_no_key_is_made_each_time_and_only_a_post_has_one(self) -> None:
        keyed = await self.assert_made(await self.send())
        paths = {await self.post({'name': 'Ada'}) for _ in range(2)}
        self.assertEqual(3, len({keyed, *paths}))
        for path in paths:
            headers = {**JSON, 'Idempotency-Key': 'mine'}
            self.assertEqual(204, (await self.fetch('PUT', path, b'{"name": "B"}', headers)).code)
        self.assertEqual({'name': 'Ada'}, await self.read(keyed))
