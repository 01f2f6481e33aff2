"""The use cases of the address book, without web and without SQL."""

import asyncio
import logging
import subprocess
import sys
import time
import unittest
from collections.abc import AsyncGenerator
from contextlib import aclosing

from addrservice.addressbook_db import InMemoryAddressBookDB, StoredEntry
from addrservice.errors import (
    InvalidEntryError, StoreError, StoreMisconfiguredError, StoreUnavailableError,
    UnknownNicknameError,
)
from addrservice.service import AddressBookService, ServiceStatus
from addrservice.tracing import AbstractTraceCollector, Span, collecting
from addrservice.validation import serialise_entry
from tests.support import ROOT, address, make_settings

LOGGER = logging.getLogger('addrservice.service_test')


class WatchedStore(InMemoryAddressBookDB):
    """A store that can get out of reach and notes what is done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: StoreError | None = None
        self.events: list[str] = []

    async def start(self) -> None:
        self.events.append('start')

    async def stop(self) -> None:
        self.events.append('stop')

    async def ping(self) -> None:
        self.events.append('ping')
        if self.trouble is not None:
            raise self.trouble

    async def pages(self, size: int = 1) -> AsyncGenerator[list[StoredEntry], None]:
        try:
            async with aclosing(super().pages(size)) as pages:
                async for page in pages:
                    yield page
        finally:
            self.events.append('pages closed')


class SpanRecorder(AbstractTraceCollector):
    """Notes the spans that have ended."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def enter(self, span: Span) -> None:
        """Nothing: the end of the span tells all."""

    def exit(self, span: Span) -> None:
        self.spans.append(span)


class ServiceTestCase(unittest.IsolatedAsyncioTestCase):
    """A service on a store in memory."""

    async def asyncSetUp(self) -> None:
        self.store = WatchedStore()
        self.service = AddressBookService(self.store, LOGGER)
        await self.service.start()


class LifeTest(ServiceTestCase):
    """Start, drain, stop, and what is said of the state meanwhile."""

    async def test_the_settings_name_the_store(self) -> None:
        service = AddressBookService.from_config(make_settings(), LOGGER)
        await service.start()
        nickname = await service.post_address(address('namo'))
        self.assertEqual({nickname: address('namo')}, await service.get_all_addresses())
        await service.stop()

    async def test_it_is_not_ready_before_the_start(self) -> None:
        for service in (AddressBookService(self.store, LOGGER),
                        AddressBookService.from_config(make_settings(), LOGGER)):
            self.assertIs(False, (await service.status()).ready)

    async def test_start_opens_the_store_and_stop_closes_it(self) -> None:
        self.assertEqual(['start'], self.store.events)
        await self.service.stop()
        self.assertEqual(['start', 'stop'], self.store.events)

    async def test_it_is_ready_once_started(self) -> None:
        status = await self.service.status()
        self.assertIsInstance(status, ServiceStatus)
        self.assertIs(True, status.ready)
        self.assertIn('ping', self.store.events)

    async def test_it_is_not_ready_where_the_store_did_not_start(self) -> None:
        class BrokenStore(InMemoryAddressBookDB):
            async def start(self) -> None:
                raise StoreUnavailableError('no route to the store')

        service = AddressBookService(BrokenStore(), LOGGER)
        with self.assertRaises(StoreUnavailableError):
            await service.start()
        self.assertIs(False, (await service.status()).ready)

    async def test_it_is_not_ready_once_stopped(self) -> None:
        await self.service.stop()
        self.assertIs(False, (await self.service.status()).ready)

    async def test_start_and_stop_are_logged(self) -> None:
        with self.assertLogs(LOGGER, 'DEBUG') as logs:
            await self.service.start()
            await self.service.stop()
        self.assertEqual(['store opened', 'store closed'],
                         [record.getMessage() for record in logs.records])

    async def test_a_draining_service_is_not_ready_and_still_serves(self) -> None:
        self.service.drain()
        self.assertIs(False, (await self.service.status()).ready)
        nickname = await self.service.post_address(address('namo'))
        self.assertEqual(address('namo'), await self.service.get_address(nickname))

    async def test_the_status_of_a_draining_service_does_not_depend_on_the_store(self) -> None:
        self.store.trouble = StoreUnavailableError('no route to the store')
        self.service.drain()
        with self.assertNoLogs(LOGGER):
            self.assertIs(False, (await self.service.status()).ready)
        self.assertEqual(['start'], self.store.events)

    async def test_it_is_not_ready_while_the_store_is_out_of_reach(self) -> None:
        self.store.trouble = StoreUnavailableError('no route to the store')
        with self.assertLogs(LOGGER, 'WARNING') as logs:
            status = await self.service.status()
        self.assertIs(False, status.ready)
        self.assertEqual(['the store cannot be used: no route to the store'],
                         [record.getMessage() for record in logs.records])
        self.assertEqual(['WARNING'], [record.levelname for record in logs.records])

    async def test_the_same_trouble_is_told_once(self) -> None:
        """And another one, or the same after an end, again."""
        with self.assertLogs(LOGGER, 'INFO') as logs:
            for trouble in (
                StoreUnavailableError('no route'), StoreUnavailableError('no route'),
                StoreMisconfiguredError('no such role'), StoreMisconfiguredError('no such role'),
                None, None, StoreMisconfiguredError('no such role'),
            ):
                self.store.trouble = trouble
                self.assertIs(trouble is None, (await self.service.status()).ready)
        self.assertEqual([
            ('WARNING', 'the store cannot be used: no route'),
            ('ERROR', 'the store cannot be used: no such role'),
            ('INFO', 'the store can be used again'),
            ('ERROR', 'the store cannot be used: no such role'),
        ], [(record.levelname, record.getMessage()) for record in logs.records])

    async def test_it_is_ready_again_when_the_store_is_back(self) -> None:
        self.store.trouble = StoreUnavailableError('no route to the store')
        with self.assertLogs(LOGGER, 'WARNING'):
            await self.service.status()
        self.store.trouble = None
        with self.assertLogs(LOGGER, 'INFO'):
            self.assertIs(True, (await self.service.status()).ready)

    async def test_a_bug_in_the_store_is_not_taken_for_its_absence(self) -> None:
        class BuggyStore(InMemoryAddressBookDB):
            async def ping(self) -> None:
                raise ZeroDivisionError

        service = AddressBookService(BuggyStore(), LOGGER)
        await service.start()
        with self.assertRaises(ZeroDivisionError):
            await service.status()

    async def test_uptime_is_milliseconds_since_the_start(self) -> None:
        service = AddressBookService(InMemoryAddressBookDB(), LOGGER)
        await asyncio.sleep(0.01)  # a life before the start, which does not count
        before = time.monotonic_ns()
        await service.start()
        after = time.monotonic_ns()
        await asyncio.sleep(0.005)
        shortest = (time.monotonic_ns() - after) // 1_000_000
        uptimes = [service.uptime_millis(), (await service.status()).uptime]
        longest = (time.monotonic_ns() - before) // 1_000_000
        for uptime in uptimes:
            self.assertIs(int, type(uptime))
            self.assertTrue(0 < shortest <= uptime <= longest, (shortest, uptime, longest))


class UseCaseTest(ServiceTestCase):
    """What people do with an address book."""

    async def test_a_posted_entry_can_be_got(self) -> None:
        nickname = await self.service.post_address(address('namo'))
        self.assertRegex(nickname, r'\A[0-9a-f]{32}\Z')
        self.assertEqual(address('namo'), await self.service.get_address(nickname))

    async def test_an_entry_can_be_got_as_it_is_stored(self) -> None:
        nickname = await self.service.post_address(address('raga'))
        entry = await self.service.get_entry(nickname)
        self.assertEqual((nickname, serialise_entry(address('raga'))),
                         (entry.nickname, entry.document))
        self.assertEqual(await self.store.read_entry(nickname), entry)

    async def test_a_put_replaces_the_entry(self) -> None:
        nickname = await self.service.post_address(address('namo'))
        await self.service.put_address(nickname, address('raga'))
        self.assertEqual({nickname: address('raga')}, await self.service.get_all_addresses())

    async def test_a_deleted_entry_is_gone(self) -> None:
        nickname = await self.service.post_address(address('namo'))
        await self.service.delete_address(nickname)
        self.assertEqual({}, await self.service.get_all_addresses())

    async def test_all_entries_come_in_order_of_id(self) -> None:
        made = [await self.service.post_address(address(name)) for name in ('raga', 'namo')]
        everything = await self.service.get_all_addresses()
        self.assertEqual(made, list(everything))
        self.assertEqual([address('raga'), address('namo')], list(everything.values()))

    async def test_pages_give_all_entries_in_order_of_id(self) -> None:
        made = [await self.service.post_address(address('namo')) for _ in range(5)]
        pages = [page async for page in self.service.pages()]
        self.assertEqual(made, [entry.nickname for page in pages for entry in page])
        self.assertEqual({serialise_entry(address('namo'))},
                         {entry.document for page in pages for entry in page})

    async def test_an_invalid_entry_is_refused(self) -> None:
        nickname = await self.service.post_address(address('namo'))
        with self.assertRaises(InvalidEntryError):
            await self.service.post_address({'name': ''})
        with self.assertRaises(InvalidEntryError):
            await self.service.put_address(nickname, {'name': ''})
        self.assertEqual({nickname: address('namo')}, await self.service.get_all_addresses())

    async def test_an_unknown_id_is_refused(self) -> None:
        for call in (self.service.get_address('nobody'), self.service.get_entry('nobody'),
                     self.service.put_address('nobody', address('namo')),
                     self.service.delete_address('nobody')):
            with self.subTest(call=call):
                with self.assertRaises(UnknownNicknameError):
                    await call

    async def test_pages_given_up_early_are_closed_in_the_store_too(self) -> None:
        for _ in range(3):
            await self.service.post_address(address('namo'))
        async with aclosing(self.service.pages()) as pages:
            self.assertEqual(1, len(await anext(pages)))
            self.assertNotIn('pages closed', self.store.events)
        self.assertIn('pages closed', self.store.events)

    async def test_a_failure_of_the_store_half_way_through_the_pages_is_passed_on(self) -> None:
        class FailingStore(InMemoryAddressBookDB):
            async def read_page(self, after: str | None, limit: int) -> list[StoredEntry]:
                if after is not None:
                    raise StoreUnavailableError('the connection was lost')
                return await super().read_page(after, limit)

        service = AddressBookService(FailingStore(), LOGGER)
        nickname = await service.post_address(address('namo'))
        seen: list[str] = []
        with self.assertRaises(StoreUnavailableError):
            async for page in service.pages():
                seen.extend(entry.nickname for entry in page)
        self.assertEqual([nickname], seen)


class TracingTest(ServiceTestCase):
    """Every use case is a span."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.recorder = SpanRecorder()
        self.enterContext(collecting([self.recorder], LOGGER))

    def assert_spans(self, *names: str) -> None:
        spans = [(span.name, span.parent, span.error) for span in self.recorder.spans
                 if span.name.startswith('AddressBookService.')]
        self.assertEqual([(f'AddressBookService.{name}', None, None) for name in names], spans)

    async def test_every_use_case_is_traced(self) -> None:
        nickname = await self.service.post_address(address('namo'))
        await self.service.get_address(nickname)
        await self.service.get_entry(nickname)
        await self.service.put_address(nickname, address('raga'))
        await self.service.get_all_addresses()
        async for _ in self.service.pages():
            pass
        await self.service.delete_address(nickname)
        self.assert_spans('post_address', 'get_address', 'get_entry', 'put_address',
                          'get_all_addresses', 'pages', 'delete_address')

    async def test_the_probes_are_not_traced(self) -> None:
        """They come every few seconds and would hide what is worth seeing."""
        await self.service.status()
        self.service.uptime_millis()
        self.assert_spans()

    async def test_a_refusal_is_seen_in_the_span(self) -> None:
        with self.assertRaises(UnknownNicknameError) as caught:
            await self.service.get_address('nobody')
        (span,) = self.recorder.spans
        self.assertEqual('AddressBookService.get_address', span.name)
        self.assertIs(caught.exception, span.error)

    async def test_pages_given_up_early_end_their_span_without_an_error(self) -> None:
        for _ in range(3):
            await self.service.post_address(address('namo'))
        self.recorder.spans.clear()
        async with aclosing(self.service.pages()) as pages:
            await anext(pages)
            self.assert_spans()
        self.assert_spans('pages')
        self.assertIn('pages closed', self.store.events)


class LayerTest(unittest.TestCase):
    """Dependencies point inward."""

    def test_the_service_does_without_tornado(self) -> None:
        program = 'import sys, addrservice.service; print("tornado" in sys.modules)'
        done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True,
                              text=True, check=True)
        self.assertEqual('False', done.stdout.strip())
