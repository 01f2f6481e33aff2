"""Bodies: how those of requests may come and how large, and which of answers are compressed."""

import asyncio
import contextlib
import gzip
import json
import unittest
import zlib
from typing import Any, Final

from addrservice.body_handler import MAX_DISCARDED
from addrservice.config import Settings
from tests.http_contract import VARY
from tests.support import JSON, address, make_settings
from tests.wire import (
    CHUNKED, SMALL, UNKNOWN_ID, WireTestCase, chunked, padded, post_head, request,
)

LIMIT: Final = 2000  # bytes of a body
EXPECTATIONS: Final = 'Expect: 100-continue', 'Expect: 100-Continue', 'expect: 100-CONTINUE'


def gzipped(packed: bytes) -> bytes:
    """A POST of what is declared as gzip."""
    return request('POST', '/addressbook', 'Content-Encoding: gzip', body=packed)


class BodyTest(WireTestCase):
    """How bodies may come, and how large."""

    def make_settings(self) -> Settings:
        return make_settings(max_body_size=LIMIT)

    async def test_a_body_at_the_limit_is_accepted_however_it_comes(self) -> None:
        body = padded(LIMIT)
        packed = gzip.compress(body)
        bodies = {
            'declared': request('POST', '/addressbook', body=body),
            'chunked': CHUNKED + chunked(body, 77),
            'gzip': gzipped(packed),
            'gzip, in chunks': post_head('Content-Encoding: GZIP', 'Transfer-Encoding: chunked')
            + chunked(packed, 5),
        }
        connection = await self.connect()
        for name, data in bodies.items():
            with self.subTest(name):
                self.assertEqual(201, (await connection.exchange(data)).status)

    async def test_a_body_over_the_limit_gets_413_however_it_comes(self) -> None:
        """What follows on the connection is still understood."""
        for size in (LIMIT + 1, 20 * LIMIT, 70_000):
            body = padded(size)
            packed = gzip.compress(body)
            bodies = {
                'declared': request('POST', '/addressbook', body=body),
                'put': request('PUT', f'/addressbook/{UNKNOWN_ID}', body=body),
                'patch': request('PATCH', f'/addressbook/{UNKNOWN_ID}', body=body),
                'chunked': CHUNKED + chunked(body, 777),
                'gzip': gzipped(packed),
                'not json': request('POST', '/addressbook', f'Content-Length: {size}') + body,
            }
            connection = await self.connect()
            for name, data in bodies.items():
                with self.subTest(name, size=size):
                    answer = await connection.exchange(data)
                    error = self.assert_error(answer, 413)
                    self.assertIn(str(LIMIT), error['message'])
        self.assertEqual({}, await self.read('/addressbook'))

    async def test_patience_with_a_body_over_the_limit_has_an_end(self) -> None:
        """A declared one, one in chunks, one that inflates: 413, or the connection is reset."""
        size = LIMIT + MAX_DISCARDED + 1_000_000
        for name, data in {
            'gzip': gzipped(gzip.compress(padded(size))),
            'declared': post_head(f'Content-Length: {10 ** 12}'),
            'chunked': CHUNKED + b'ffffff\r\n',
        }.items():
            with self.subTest(name), self.logged() as logged:
                connection = await self.connect()
                await connection.send(data)
                if name != 'gzip':
                    with contextlib.suppress(ConnectionError):
                        await connection.send(bytes(size))
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    self.assert_error(await connection.answer(), 413)
                self.assertTrue(await connection.at_end())
                await self.until_disconnected()
                [line] = logged.requests()
                self.assertEqual(413, line['status'])

    async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(self) -> None:
        connection = await self.connect()
        for expectation in EXPECTATIONS:
            with self.subTest(expectation):
                asked = post_head(expectation, f'Content-Length: {len(SMALL)}')
                self.assertEqual(100, (await connection.exchange(asked)).status)
                self.assertEqual(201, (await connection.exchange(SMALL)).status)

    async def test_a_client_that_asks_before_it_sends_chunks_is_told_to_go_on(self) -> None:
        connection = await self.connect()
        for expectation in EXPECTATIONS:
            with self.subTest(expectation):
                asked = post_head(expectation, 'Transfer-Encoding: chunked')
                self.assertEqual(100, (await connection.exchange(asked)).status)
                self.assertEqual(201, (await connection.exchange(chunked(SMALL, 5))).status)

    async def test_a_client_that_asks_before_it_sends_too_much_is_refused_at_once(self) -> None:
        for expectation in EXPECTATIONS:
            with self.subTest(expectation):
                connection = await self.connect()
                asked = post_head(expectation, f'Content-Length: {LIMIT + 1}')
                self.assert_error(await connection.exchange(asked), 413)
                self.assertTrue(await connection.at_end())

    async def test_a_body_may_come_in_pieces_and_chunks(self) -> None:
        connection = await self.connect()
        await connection.send(CHUNKED)
        for start in range(len(SMALL)):
            await connection.send(b'1\r\n%s\r\n' % SMALL[start:start + 1])
            await asyncio.sleep(0)
        location = (await connection.exchange(b'0\r\n\r\n')).headers['Location']
        self.assertEqual({'name': 'Ada'}, await self.read(location))

    async def test_a_body_may_be_compressed_with_gzip(self) -> None:
        for coding in ('gzip', 'GZip'):
            with self.subTest(coding):
                headers = {**JSON, 'Content-Encoding': coding}
                packed = gzip.compress(SMALL)
                answer = await self.fetch('POST', '/addressbook', packed, headers)
                self.assertEqual(201, answer.code, answer.body)
                self.assertEqual({'name': 'Ada'}, await self.read(answer.headers['Location']))

    async def test_identity_is_no_encoding(self) -> None:
        headers = {**JSON, 'Content-Encoding': 'Identity'}
        self.assertEqual(201, (await self.fetch('POST', '/addressbook', SMALL, headers)).code)

    async def test_any_other_encoding_of_a_body_is_refused(self) -> None:
        packed = gzip.compress(SMALL)
        for coding, body in (('deflate', zlib.compress(SMALL)), ('gzip,gzip', packed),
                             ('x-gzip', packed), ('br', SMALL), ('gzip, identity', packed)):
            with self.subTest(coding):
                headers = {**JSON, 'Content-Encoding': coding}
                answer = await self.fetch('POST', '/addressbook', body, headers)
                self.assert_error(answer, 415)
                self.assertEqual('gzip', answer.headers['Accept-Encoding'])


class CompressionTest(WireTestCase):
    """Compressed answers."""

    def large(self) -> dict[str, Any]:
        return {'name': 'Ada', 'addresses': address('namo')['addresses'] * 20}

    async def test_an_answer_is_compressed_only_for_those_who_accept_it(self) -> None:
        path = await self.post(self.large())
        cases = {
            'gzip': True, 'GZIP': True, 'gzip;q=0.5': True, 'gzip; q=1.0': True, '*': True,
            'deflate, gzip': True, 'br;q=1, *;q=0.1': True, 'identity;q=0.5, gzip;q=0.001': True,
            '': False, 'identity': False, 'br, deflate': False, 'gzip;q=0': False,
            'gzip; q=0.000': False, 'gzip;Q=0': False, '*;q=0': False, 'gzip;q=0, *': False,
            '*, gzip;q=0': False,
        }
        for target in (path, '/addressbook'):
            for accepted, compressed in cases.items():
                with self.subTest(accepted, target=target):
                    headers = {'Accept-Encoding': accepted}
                    answer = await self.fetch('GET', target, None, headers)
                    coding = answer.headers.get('Content-Encoding')
                    self.assertEqual('gzip' if compressed else None, coding)
                    body = gzip.decompress(answer.body) if compressed else answer.body
                    self.assertIn(b'Raisina Hill', body)
                    self.assertEqual(VARY, answer.headers['Vary'])
                    self.assertEqual(str(len(answer.body)), answer.headers['Content-Length'])

    async def test_silence_about_encodings_gets_the_answer_as_it_is(self) -> None:
        path = await self.post(self.large())
        answer = await self.fetch('GET', path)
        self.assertNotIn('Content-Encoding', answer.headers)
        self.assertEqual(VARY, answer.headers['Vary'])
        self.assertEqual(self.large(), json.loads(answer.body))

    async def test_what_is_small_or_empty_is_not_compressed(self) -> None:
        headers = {**JSON, 'Accept-Encoding': 'gzip'}
        answer = await self.fetch('POST', '/addressbook', SMALL, headers)
        self.assertNotIn('Content-Encoding', answer.headers)
        path = answer.headers['Location']
        self.assertNotIn('Content-Encoding', (await self.fetch('GET', path, None, headers)).headers)
        put = await self.fetch('PUT', path, json.dumps(self.large()), headers)
        self.assertEqual(204, put.code)
        self.assert_empty(put)
        headers = {'Accept-Encoding': 'gzip', 'If-None-Match': '*'}
        self.assert_empty(await self.fetch('GET', path, None, headers))


if __name__ == '__main__':
    unittest.main()
