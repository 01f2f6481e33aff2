"""What a handler does with a request, without a connection."""

import asyncio
import unittest
from collections.abc import Awaitable
from typing import Any
from unittest import mock

from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError

from addrservice.lean_handler import LeanRequestHandler
from tests.support import DEADLINE


class Handler(LeanRequestHandler):
    """Notes what becomes of its one request, a GET."""

    def __init__(self, path: str = '') -> None:
        # Not RequestHandler's, as with the handlers of the service.
        self.request = mock.Mock(method='GET', headers=HTTPHeaders())
        self.logged: list[int] = []
        self.settings = {'running': {self}, 'log_function': self.log}
        self._path = path
        self.clear()

    def log(self, handler: LeanRequestHandler) -> None:
        self.logged.append(handler.get_status())

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        self.set_status(status_code)
        self.finish()

    def log_exception(self, *_: Any) -> None:
        """Nothing: what is logged is what the test wants to know."""

    async def get(self) -> None:
        if self._path == '/early':
            self.finish()
        elif self._path == '/twice':
            self.finish()
            self.finish()
        elif self._path == '/given-up':
            raise asyncio.CancelledError
        await asyncio.Event().wait()


class RunTest(unittest.IsolatedAsyncioTestCase):
    async def run_and_cancel(self, handler: Handler) -> None:
        """Has it run until it waits, then cancels it."""
        task = asyncio.create_task(handler.run([]))
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(task, return_exceptions=True)
        self.assertTrue(task.cancelled())
        self.assertEqual(set(), handler.settings['running'])

    async def test_one_that_is_cancelled_is_answered_with_503(self) -> None:
        handler = Handler()
        await self.run_and_cancel(handler)
        self.assertEqual([503], handler.logged)

    async def test_one_that_is_cancelled_after_its_answer_has_no_other_one(self) -> None:
        handler = Handler('/early')
        with self.assertNoLogs('tornado'):
            await self.run_and_cancel(handler)
        self.assertEqual([200], handler.logged)

    async def test_where_only_what_it_waits_for_is_cancelled_it_has_failed(self) -> None:
        handler = Handler('/given-up')
        await handler.run([])
        self.assertEqual([500], handler.logged)

    async def test_an_answer_ends_once(self) -> None:
        handler = Handler('/twice')
        with mock.patch.object(handler, 'log_exception') as noted:
            await handler.run([])
        self.assertEqual('finish() called twice', str(noted.call_args.args[1]))
        self.assertEqual([200], handler.logged)

    async def test_what_was_written_for_an_answer_that_has_no_body_is_not_sent(self) -> None:
        """It would be taken for the beginning of the next answer."""
        for status in (204, 304):
            handler = Handler()
            handler.set_status(status)
            with mock.patch.object(handler.request.connection, 'write_headers') as sent:
                handler.finish(b'{}')
            start_line, _, body = sent.call_args.args
            self.assertEqual((status, b''), (start_line.code, body))

    async def test_an_error_that_cannot_be_answered_is_logged(self) -> None:
        handler = Handler()
        failing: Awaitable[None] = mock.AsyncMock(side_effect=HTTPError(404))()
        with (mock.patch.object(handler, 'prepare', return_value=failing),
              mock.patch.object(handler, 'send_error', side_effect=LookupError('no such text')),
              self.assertLogs('tornado.application', 'ERROR') as caught):
            await handler.run([])
        self.assertIn('LookupError: no such text', caught.output[0])


if __name__ == '__main__':
    unittest.main()
