"""The page to explore the API and what it loads, as bytes; docs_browser_test has it rendered."""

import gzip
import importlib.util
import re
import sys
import threading
import unittest
from importlib.metadata import distribution
from pathlib import Path
from typing import Final
from unittest import mock

from tornado.httpclient import HTTPResponse

from addrservice import docs
from tests.wire import WireTestCase

PATHS: Final = (
    '/docs', '/docs/initializer.js', '/docs/swagger-ui-bundle.js', '/docs/swagger-ui.css')

GZIP: Final = {'Accept-Encoding': 'gzip'}

POLICY: Final = {
    'default-src': "'none'", 'script-src': "'self'", 'style-src': "'self'",
    'connect-src': "'self'", 'img-src': "'self' data:", 'base-uri': "'none'",
    'form-action': "'none'", 'frame-ancestors': "'none'",
}

# What is not there: other files of the package and of ours, other spellings, ways out of a folder.
UNKNOWN: Final = (
    'x', 'index.html', 'page.html', '__init__.py', 'swagger-ui.js', 'swagger-ui.css.map',
    'favicon-32x32.png', 'LICENSE', 'SWAGGER-UI.CSS', 'swagger-ui.css%00', 'swagger-ui.css%20',
    'swagger-ui.css/x', '/swagger-ui.css', './swagger-ui.css', '../swagger-ui.css', '.', '..',
    '%2e%2e', '../../../../etc/passwd', '..%2f..%2f..%2f..%2fetc%2fpasswd', '%2fetc%2fpasswd',
    '..%5cpage.html', 'x/../swagger-ui.css',
)


class DocsTest(WireTestCase):
    async def get(self, path: str, **headers: str) -> HTTPResponse:
        """The answer to a GET, its status 200; underscores stand for hyphens."""
        answer = await self.fetch(
            'GET', path, headers={name.replace('_', '-'): text for name, text in headers.items()})
        self.assertEqual(200, answer.code, answer.body)
        return answer

    def assert_policy(self, answer: HTTPResponse) -> None:
        directives = answer.headers['Content-Security-Policy'].split('; ')
        self.assertEqual(POLICY, dict(directive.split(' ', 1) for directive in directives))
        self.assertEqual('no-referrer', answer.headers['Referrer-Policy'])
        self.assertEqual('nosniff', answer.headers['X-Content-Type-Options'])

    async def test_the_page_is_html_with_a_language_and_a_title(self) -> None:
        for path in ('/docs', '/docs/'):
            with self.subTest(path):
                answer = await self.get(path)
                self.assertEqual('text/html; charset=utf-8', answer.headers['Content-Type'])
                self.assertTrue(answer.body.startswith(b'<!DOCTYPE html>\n<html lang="en">'))
                self.assertIn(b'<title>Address book API</title>', answer.body)

    async def test_the_page_loads_what_is_there_and_from_nowhere_else(self) -> None:
        page = (await self.get('/docs')).body.decode()
        loaded = set(re.findall(r'(?:src|href)="([^"]*)"', page))
        self.assertEqual({*PATHS[1:], '/openapi.json', 'data:,'}, loaded)
        for path in loaded - {'data:,'}:
            await self.get(path)

    async def test_the_page_has_no_script_and_no_style_of_its_own(self) -> None:
        """The policy would keep them from running."""
        page = (await self.get('/docs')).body.decode()
        self.assertNotRegex(page, r'<style|style=|\son\w+=|javascript:|<script(?! src="[^"]+"></)')

    async def test_swagger_ui_comes_from_its_package_as_it_is(self) -> None:
        folder = Path(str(distribution('mkdocs-swagger-ui-tag').locate_file(
            'mkdocs_swagger_ui_tag/swagger-ui')))
        for path, content_type in (('javascripts/swagger-ui-bundle.js', 'text/javascript'),
                                   ('stylesheets/swagger-ui.css', 'text/css')):
            with self.subTest(path):
                answer = await self.get(f'/docs/{Path(path).name}')
                self.assertEqual(f'{content_type}; charset=utf-8', answer.headers['Content-Type'])
                self.assertEqual((folder / path).read_bytes(), answer.body)

    async def test_nothing_of_the_package_is_imported(self) -> None:
        """It would import much that only its other users need."""
        await self.get('/docs/swagger-ui.css')
        self.assertEqual(set(), {'mkdocs_swagger_ui_tag'} & sys.modules.keys())

    async def test_swagger_ui_shows_this_api_and_asks_no_validator(self) -> None:
        answer = await self.get('/docs/initializer.js')
        self.assertEqual('text/javascript; charset=utf-8', answer.headers['Content-Type'])
        self.assertIn(b"url: '/openapi.json'", answer.body)
        self.assertIn(b'validatorUrl: null', answer.body)

    async def test_nothing_else_is_served(self) -> None:
        """Each gets what any unknown path gets."""
        for name in UNKNOWN:
            with self.subTest(name):
                answer = await self.fetch('GET', f'/docs/{name}')
                self.assert_error(answer, 404, 'Unknown Endpoint')
                self.assertEqual('Unknown Endpoint', answer.reason)
                self.assertEqual('no-store', answer.headers['Cache-Control'])
                self.assertNotIn('ETag', answer.headers)

    async def test_only_what_comes_from_here_may_run(self) -> None:
        """Every answer says so, an error too; none may be put into a frame."""
        for path in PATHS:
            with self.subTest(path):
                self.assert_policy(await self.get(path))
        self.assert_policy(await self.fetch('GET', '/docs/x'))
        self.assert_policy(await self.fetch('POST', '/docs', b''))

    async def test_any_accept_is_served(self) -> None:
        """The page is HTML whatever a browser's extension or script asks for."""
        for accept in ('text/html', 'application/json', 'image/png', 'text/html;q=0', ''):
            for path in PATHS:
                with self.subTest(path, accept=accept):
                    await self.get(path, Accept=accept)

    async def test_a_head_tells_what_a_get_does(self) -> None:
        for path in PATHS:
            for headers in ({}, GZIP):
                with self.subTest(path, headers=headers):
                    got = await self.fetch('GET', path, headers=headers)
                    answer = await self.fetch('HEAD', path, headers=headers)
                    self.assertEqual((200, b''), (answer.code, answer.body))
                    for one in (got, answer):
                        del one.headers['X-Request-ID'], one.headers['Date']
                    self.assertEqual([*got.headers.get_all()], [*answer.headers.get_all()])

    async def test_a_client_that_takes_gzip_gets_it(self) -> None:
        for path in PATHS:
            with self.subTest(path):
                plain, packed = await self.get(path), await self.get(path, Accept_Encoding='gzip')
                self.assertEqual('gzip', packed.headers['Content-Encoding'])
                self.assertEqual(plain.body, gzip.decompress(packed.body))
                self.assertNotIn('Content-Encoding', plain.headers)
                for answer in (plain, packed):
                    self.assertEqual(str(len(answer.body)), answer.headers['Content-Length'])
                    self.assertEqual('Accept-Encoding', answer.headers['Vary'])

    async def test_a_client_that_does_not_take_gzip_is_spared_it(self) -> None:
        for accepted in ('', 'identity', 'gzip;q=0', 'br, *;q=0'):
            with self.subTest(accepted):
                answer = await self.get('/docs', Accept_Encoding=accepted)
                self.assertNotIn('Content-Encoding', answer.headers)

    async def test_each_file_and_each_form_has_an_etag_of_its_own(self) -> None:
        tags = [(await self.fetch('GET', path, headers=headers)).headers['ETag']
                for path in PATHS for headers in ({}, GZIP)]
        self.assertEqual(8, len(set(tags)))
        for plain, packed in zip(tags[::2], tags[1::2], strict=True):
            self.assertRegex(plain, '^"[0-9a-f]{64}"$')
            self.assertEqual(f'{plain[:-1]}-gzip"', packed)

    async def test_what_a_client_has_is_not_sent_again(self) -> None:
        for path in PATHS:
            for headers in ({}, GZIP):
                tag = (await self.fetch('GET', path, headers=headers)).headers['ETag']
                for known in (tag, f'W/{tag}', f'"x", {tag}', '*'):
                    for method in ('GET', 'HEAD'):
                        with self.subTest(f'{method} {path}', headers=headers, known=known):
                            answer = await self.fetch(
                                method, path, headers={**headers, 'If-None-Match': known})
                            self.assertEqual(304, answer.code)
                            self.assert_empty(answer)
                            self.assertEqual(tag, answer.headers['ETag'])
                            self.assertEqual('no-cache', answer.headers['Cache-Control'])
                            self.assert_policy(answer)

    async def test_the_form_that_a_client_has_not_is_sent(self) -> None:
        for path in PATHS:
            with self.subTest(path):
                plain, packed = await self.get(path), await self.get(path, Accept_Encoding='gzip')
                await self.get(path, If_None_Match=packed.headers['ETag'])
                await self.get(
                    path, If_None_Match=plain.headers['ETag'], Accept_Encoding='gzip')

    async def test_a_cache_may_keep_it_but_has_to_ask(self) -> None:
        """A newer service may bring a newer page."""
        for path in PATHS:
            with self.subTest(path):
                self.assertEqual('no-cache', (await self.get(path)).headers['Cache-Control'])

    async def test_nothing_is_read_before_it_is_asked_for(self) -> None:
        """So that the service starts as fast as without."""
        spec = importlib.util.spec_from_file_location('fresh', docs.__file__)
        assert spec is not None and spec.loader is not None
        with mock.patch.object(Path, 'read_bytes') as read:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        read.assert_not_called()

    async def test_a_file_is_read_and_compressed_once_beside_the_event_loop(self) -> None:
        threads = []

        def compress(data: bytes, **options: int) -> bytes:
            threads.append(threading.current_thread())
            return data

        docs._content.cache_clear()
        self.addCleanup(docs._content.cache_clear)
        with (mock.patch.object(Path, 'read_bytes', autospec=True, return_value=b'x') as read,
              mock.patch.object(gzip, 'compress', compress)):
            for headers in ({}, GZIP, {}, GZIP):
                await self.fetch('GET', '/docs/swagger-ui.css', headers=headers)
        self.assertEqual((1, 1), (read.call_count, len(threads)))
        self.assertNotIn(threading.current_thread(), threads)


if __name__ == '__main__':
    unittest.main()
