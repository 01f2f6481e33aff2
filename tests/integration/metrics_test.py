"""The metrics port: what a scraper gets, in the place of the book."""

import unittest
from typing import Final

from addrservice.app import make_operator_application
from addrservice.routing import RoutedApplication
from addrservice.tracing import AbstractTraceCollector, Span
from tests.support import HTTPTestCase

TEXT: Final = 'text/plain; version=0.0.4'


class Silent(AbstractTraceCollector):
    """Has nothing to tell a scraper."""

    def enter(self, span: Span) -> None:
        """Nothing."""

    def exit(self, span: Span) -> None:
        """Nothing."""


class Telling(Silent):
    """Tells a scraper what it would take."""

    def expose(self, accept: str) -> tuple[str, bytes] | None:
        return TEXT, f'accept {accept}'.encode()


class MetricsTestCase(HTTPTestCase):
    collectors: list[AbstractTraceCollector] = []

    def make_application(self) -> RoutedApplication:
        return make_operator_application(
            self.service, self.settings.service, self.show_tracebacks, self.collectors)


class MetricsTest(MetricsTestCase):
    collectors = [Silent(), Telling()]

    async def test_a_scraper_gets_what_the_first_has_that_tells(self) -> None:
        answer = await self.fetch('GET', '/metrics', headers={'Accept': 'text/plain;q=0.5'})
        self.assertEqual((200, b'accept text/plain;q=0.5'), (answer.code, answer.body))
        self.assertEqual(TEXT, answer.headers['Content-Type'])
        self.assertEqual('no-store', answer.headers['Cache-Control'])

    async def test_a_head_tells_the_length(self) -> None:
        answer = await self.fetch('HEAD', '/metrics')
        self.assertEqual((200, b''), (answer.code, answer.body))
        self.assertEqual(str(len('accept ')), answer.headers['Content-Length'])

    async def test_the_probes_are_there_and_the_book_is_not(self) -> None:
        for path, status in (('/healthz', 200), ('/readiness', 200), ('/addressbook', 404)):
            with self.subTest(path=path):
                self.assertEqual(status, (await self.fetch('GET', path)).code)


class NoMetricsTest(MetricsTestCase):
    collectors = [Silent()]

    async def test_where_none_tells_there_is_nothing(self) -> None:
        answer = await self.fetch('GET', '/metrics')
        self.assertEqual(404, answer.code)
        self.assertIn(b'No collector has metrics to tell', answer.body)


if __name__ == '__main__':
    unittest.main()
