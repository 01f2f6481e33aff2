"""The use cases of the address book, without web and without SQL."""

import asyncio
import logging
import subprocess
import sys
import time
import unittest
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any
from unittest import mock

import orjson

from addrservice.addressbook_db import PAGE_SIZE, InMemoryAddressBookDB, StoredEntry
from addrservice.errors import (
    InvalidEntryError, KeyReusedError, OutcomeUnknownError, PreconditionFailedError, StoreError,
    StoreMisconfiguredError, StoreUnavailableError, UnknownNicknameError,
)
from addrservice.service import AddressBookService, Page, ServiceStatus
from addrservice.tracing import AbstractTraceCollector, Span, collecting
from addrservice.validation import serialise_entry
from tests.addressbook_db_contract import NUMBERS
from tests.entries import full_entry
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

    async def pages(
        self, size: int = PAGE_SIZE, after: str | None = None
    ) -> AsyncGenerator[list[StoredEntry], None]:
        """One entry at a time, whatever the size."""
        try:
            async with aclosing(super().pages(1, after)) as pages:
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

    async def test_it_knows_what_it_has_told(self) -> None:
        """Of trouble that lasts: what may pass is told anew, each time with its own words."""
        lasting, passing = StoreMisconfiguredError('no such role'), StoreUnavailableError('gone')
        for trouble, told in ((lasting, True), (passing, False)):
            self.assertFalse(self.service.has_told(trouble))
            self.store.trouble = trouble
            with self.assertLogs(LOGGER, 'WARNING'):
                await self.service.status()
            self.assertIs(told, self.service.has_told(trouble))
            self.assertFalse(self.service.has_told(StoreMisconfiguredError('no such table')))

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
        class FailingStore(WatchedStore):
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


class OnceTest(ServiceTestCase):
    """An entry that is posted again and again."""

    async def test_an_entry_is_posted_with_an_id_of_its_own_each_time(self) -> None:
        made = [await self.service.post_entry(address('namo')) for _ in range(2)]
        self.assertEqual(made, await self.store.read_page(None, 10))
        self.assertIsNone(made[0].origin)

    async def test_with_a_key_it_is_posted_once(self) -> None:
        made = await self.service.post_entry(address('namo'), 'key')
        self.assertEqual(made, await self.service.post_entry(address('namo'), 'key'))
        self.assertEqual(made, await self.service.get_entry(made.nickname))
        self.assertEqual({made.nickname: address('namo')}, await self.service.get_all_addresses())
        self.assertTrue(made.is_original)

    async def test_a_key_is_good_for_one_entry_only(self) -> None:
        made = await self.service.post_entry(address('namo'), 'key')
        with self.assertRaises(KeyReusedError):
            await self.service.post_entry(address('raga'), 'key')
        await self.service.put_address(made.nickname, address('raga'))
        self.assertFalse((await self.service.post_entry(address('namo'), 'key')).is_original)
        self.assertEqual({made.nickname: address('raga')}, await self.service.get_all_addresses())

    async def test_an_invalid_entry_is_refused_with_a_key_too(self) -> None:
        with self.assertRaises(InvalidEntryError):
            await self.service.post_entry({'name': ''}, 'key')


class RacingStore(InMemoryAddressBookDB):
    """A store in which somebody else changes an entry right after it was read.

    ``others`` are the changes to come; the last of them comes again and again where ``for_ever``.
    What operations take together is bounded by ``deadline``, in seconds.
    """

    deadline: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[], Awaitable[object]]] = []
        self.for_ever = False
        self.reads = 0

    @asynccontextmanager
    async def in_time(self) -> AsyncGenerator[None, None]:
        try:
            async with asyncio.timeout(self.deadline):
                yield
        except TimeoutError:
            raise OutcomeUnknownError('no answer in time') from None

    async def read_entry(self, nickname: str) -> StoredEntry:
        self.reads += 1
        entry = await super().read_entry(nickname)
        await asyncio.sleep(0)
        if self.others:
            await self.others[0]()
            del self.others[:not self.for_ever]
        return entry


class ChangeTestCase(unittest.IsolatedAsyncioTestCase):
    """A service on a store with one entry, which others change too."""

    async def asyncSetUp(self) -> None:
        self.store = RacingStore()
        self.service = AddressBookService(self.store, LOGGER)
        await self.service.start()
        await self.store.create_address({'name': 'Ada'}, 'ada')
        self.asked: list[StoredEntry] = []

    def condition(self, *answers: bool) -> Callable[[StoredEntry], bool]:
        """A condition with these answers, one after the other."""
        remaining = iter(answers)

        def ask(entry: StoredEntry) -> bool:
            self.asked.append(entry)
            return next(remaining)

        return ask

    def changes(
        self, *answers: bool
    ) -> list[tuple[str, Callable[[], Awaitable[object]], dict[str, Any] | None]]:
        """Each change with a condition of its own, and what it leaves."""
        service = self.service
        return [
            ('put', lambda: service.put_address(
                'ada', {'name': 'Grace'}, self.condition(*answers)), {'name': 'Grace'}),
            ('patch', lambda: service.patch_address(
                'ada', {'name': 'Grace'}, self.condition(*answers)), {'name': 'Grace'}),
            ('delete', lambda: service.delete_address('ada', self.condition(*answers)), None),
        ]

    async def entry(self) -> dict[str, Any] | None:
        """The entry as it is, if it is there."""
        return (await self.store.read_all_addresses()).get('ada')

    async def restore(self) -> StoredEntry:
        """Makes the entry what it was at first."""
        if await self.entry() is not None:
            await self.store.delete_address('ada')
        self.asked.clear()
        self.store.reads = 0
        return await self.store.create_entry({'name': 'Ada'}, 'ada')


class ConditionTest(ChangeTestCase):
    """Changes that are made only to what meets a condition."""

    async def test_a_change_is_made_where_the_condition_is_met(self) -> None:
        for name, change, left in self.changes(True):
            with self.subTest(change=name):
                entry = await self.restore()
                await change()
                self.assertEqual(left, await self.entry())
                self.assertEqual([entry], self.asked)

    async def test_no_change_is_made_where_it_is_not(self) -> None:
        for name, change, _ in self.changes(False):
            with self.subTest(change=name):
                entry = await self.restore()
                with self.assertRaisesRegex(PreconditionFailedError, "'ada'"):
                    await change()
                self.assertEqual(entry, await self.store.read_entry('ada'))
                self.assertEqual([entry], self.asked)

    async def test_the_new_version_is_told(self) -> None:
        for change in (
            self.service.put_address('ada', {'name': 'Grace'}),
            self.service.put_address('ada', {'name': 'Ada'}, self.condition(True)),
            self.service.patch_address('ada', {'name': 'Grace'}),
            self.service.patch_address('ada', {'name': 'Ada'}, self.condition(True)),
        ):
            before = (await self.store.read_entry('ada')).version
            version = await change
            self.assertEqual((await self.store.read_entry('ada')).version, version)
            self.assertGreater(version, before)

    async def test_what_changes_between_is_asked_of_again(self) -> None:
        for name, change, left in self.changes(True, True):
            with self.subTest(change=name):
                await self.restore()
                self.store.others = [lambda: self.store.update_address('ada', {'name': 'Eve'})]
                await change()
                self.assertEqual(left, await self.entry())
                self.assertEqual([b'{"name":"Ada"}', b'{"name":"Eve"}'],
                                 [entry.document for entry in self.asked])

    async def test_what_changes_between_may_meet_the_condition_no_more(self) -> None:
        for name, change, _ in self.changes(True, False):
            with self.subTest(change=name):
                await self.restore()
                self.store.others = [lambda: self.store.update_address('ada', {'name': 'Eve'})]
                with self.assertRaises(PreconditionFailedError):
                    await change()
                self.assertEqual({'name': 'Eve'}, await self.entry())
                self.assertEqual(2, len(self.asked))

    async def test_what_is_deleted_between_is_unknown(self) -> None:
        for name, change, _ in self.changes(True):
            with self.subTest(change=name):
                await self.restore()
                self.store.others = [lambda: self.store.delete_address('ada')]
                with self.assertRaises(UnknownNicknameError):
                    await change()

    async def test_what_is_deleted_and_made_again_between_is_asked_of_again(self) -> None:
        for name, change, _ in self.changes(True, False):
            with self.subTest(change=name):
                await self.restore()
                self.store.others = [self.restore]
                with self.assertRaises(PreconditionFailedError):
                    await change()
                self.assertEqual({'name': 'Ada'}, await self.entry())

    async def test_who_never_comes_first_has_no_more_time_than_the_store_gives(self) -> None:
        for name, change, _ in self.changes(*[True] * 100_000):
            with self.subTest(change=name):
                await self.restore()
                self.store.others = [lambda: self.store.update_address('ada', {'name': 'Eve'})]
                self.store.for_ever = True
                self.store.deadline = 0.005
                with self.assertRaises(OutcomeUnknownError):
                    await change()
                self.store.others.clear()
                self.assertEqual({'name': 'Eve'}, await self.entry())

    async def test_a_crowd_takes_turns(self) -> None:
        """Each reads the entry once: no change comes between the reading and writing of another."""
        await asyncio.gather(*(
            self.service.patch_address('ada', {'name': f'Ada {number}'}) for number in range(100)))
        self.assertEqual(100, self.store.reads)
        self.assertEqual({'name': 'Ada 99'}, await self.entry())

    async def test_who_changes_something_else_waits_for_nobody(self) -> None:
        await self.store.create_address({'name': 'Bob'}, 'bob')
        hold = asyncio.Event()
        self.store.others = [hold.wait]
        waiting = asyncio.create_task(self.service.patch_address('ada', {'name': 'Grace'}))
        while not self.store.reads:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.store.others = []
        await self.service.patch_address('bob', {'name': 'Rob'})
        self.assertFalse(waiting.done())
        hold.set()
        await waiting

    async def test_of_an_unknown_id_no_condition_is_asked(self) -> None:
        await self.store.delete_address('ada')
        for name, change, _ in self.changes():
            with self.subTest(change=name):
                with self.assertRaises(UnknownNicknameError):
                    await change()

    async def test_an_invalid_entry_is_told_of_before_any_condition_is_asked(self) -> None:
        with self.assertRaises(InvalidEntryError):
            await self.service.put_address('ada', {'name': ''}, self.condition())
        self.assertEqual(0, self.store.reads)

    async def test_without_a_condition_nothing_is_read_before(self) -> None:
        await self.service.put_address('ada', {'name': 'Grace'})
        await self.service.delete_address('ada')
        self.assertEqual(0, self.store.reads)

    async def test_one_of_many_with_one_version_wins(self) -> None:
        version = (await self.store.read_entry('ada')).version
        outcomes = await asyncio.gather(*(
            self.service.put_address('ada', {'name': str(n)}, lambda e: e.version == version)
            for n in range(50)), return_exceptions=True)
        winner, = (n for n, outcome in enumerate(outcomes) if isinstance(outcome, int))
        self.assertEqual({'name': str(winner)}, await self.entry())
        self.assertEqual({PreconditionFailedError, int}, set(map(type, outcomes)))

    async def test_an_error_of_the_store_is_passed_on(self) -> None:
        async def fail(*_: object) -> None:
            raise trouble

        trouble = StoreUnavailableError('no route')
        self.store.others = [fail] * 3
        for name, change, _ in self.changes(True):
            with self.subTest(change=name):
                with self.assertRaises(StoreUnavailableError) as caught:
                    await change()
                self.assertIs(trouble, caught.exception)


class PatchTest(ChangeTestCase):
    """Changes of parts of an entry."""

    PHONE = {'kind': 'home', 'countryCode': 44, 'number': 1}
    EMAIL = {'kind': 'home', 'value': 'ada@example.org'}

    async def test_a_patch_leaves_the_rest_as_it_is(self) -> None:
        await self.service.patch_address('ada', {'emails': [self.EMAIL]})
        self.assertEqual({'name': 'Ada', 'emails': [self.EMAIL]}, await self.entry())
        await self.service.patch_address('ada', {'emails': None, 'name': 'Grace'})
        self.assertEqual({'name': 'Grace'}, await self.entry())

    async def test_what_a_patch_does_not_name_stays_byte_for_byte(self) -> None:
        numbers: list[Any] = [*NUMBERS, '\u2028', '\U0010ffff', '"', '\\u0000', '\x01']
        entry = {**full_entry(), 'emails': [], 'addresses': [
            {**full_entry()['addresses'][0], 'pincode': number} for number in numbers]}
        await self.store.update_address('ada', entry)
        before = (await self.store.read_entry('ada')).document
        await self.service.patch_address('ada', {'name': 'Grace'})
        self.assertEqual(before.replace(b'"Ada Lovelace"', b'"Grace"'),
                         (await self.store.read_entry('ada')).document)

    async def test_a_patch_that_changes_nothing_is_a_change_of_the_version_alone(self) -> None:
        before = await self.store.read_entry('ada')
        version = await self.service.patch_address('ada', {})
        self.assertEqual(before._replace(version=version), await self.store.read_entry('ada'))

    async def test_what_comes_out_has_to_be_an_entry(self) -> None:
        before = await self.store.read_entry('ada')
        patches: list[Any] = [
            {'name': None}, {'name': ''}, {'colour': 1}, {'emails': {'value': 'x'}},
            {'emails': [None]}, [], None, 'x', 1]
        for patch in patches:
            with self.subTest(patch=patch):
                with self.assertRaises(InvalidEntryError):
                    await self.service.patch_address('ada', patch)
                self.assertEqual(before, await self.store.read_entry('ada'))

    async def test_of_an_unknown_id_nothing_is_patched(self) -> None:
        with self.assertRaises(UnknownNicknameError):
            await self.service.patch_address('nobody', {'name': ''})

    async def test_what_others_change_between_stays(self) -> None:
        self.store.others = [
            lambda: self.store.update_address('ada', {'name': 'Ada', 'phoneNumbers': [self.PHONE]}),
            lambda: self.store.update_address('ada', {'name': 'Eve', 'phoneNumbers': [self.PHONE]}),
        ]
        await self.service.patch_address('ada', {'emails': [self.EMAIL]})
        self.assertEqual({'name': 'Eve', 'phoneNumbers': [self.PHONE], 'emails': [self.EMAIL]},
                         await self.entry())

    async def test_patches_of_different_members_at_the_same_time_all_stay(self) -> None:
        patches: list[dict[str, Any]] = [
            {'name': 'Grace'}, {'emails': [self.EMAIL]}, {'phoneNumbers': [self.PHONE]},
            {'faxNumbers': [self.PHONE]}, {'addresses': []}] * 8
        await asyncio.gather(*(self.service.patch_address('ada', patch) for patch in patches))
        self.assertEqual({key: value for patch in patches for key, value in patch.items()},
                         await self.entry())


class PagesTest(ServiceTestCase):
    """A part of the book at a time."""

    async def create_all(self, *names: str) -> None:
        """Creates entries whose ids are the numbers of their places."""
        for number, name in enumerate(names):
            await self.store.create_address({'name': name}, f'{number:032x}')

    async def follow(self, limit: int, name: str | None = None) -> list[list[str]]:
        """The names of all pages, each got as the one before says."""
        pages, after = [], None
        while True:
            page = await self.service.page(limit, name, after)
            self.assertIs(Page, type(page))
            pages.append(names(page.entries))
            if page.after is None:
                return pages
            after = page.after

    async def test_pages_follow_each_other_to_the_end(self) -> None:
        await self.create_all(*'edcba')
        for limit, pages in ((1, ['e', 'd', 'c', 'b', 'a']), (2, ['ed', 'cb', 'a']),
                             (4, ['edcb', 'a']), (5, ['edcba']), (1000, ['edcba'])):
            with self.subTest(limit=limit):
                self.assertEqual([list(page) for page in pages], await self.follow(limit))

    async def test_the_pages_of_a_search_do_in_order_of_name(self) -> None:
        await self.create_all('xe', 'XD', 'other', 'xc', 'Xb', 'xa', 'XA')
        found = ['xa', 'XA', 'Xb', 'xc', 'XD', 'xe']
        for limit in (1, 2, 4, 5, 6, 1000):
            with self.subTest(limit=limit):
                self.assertEqual([found[n:n + limit] for n in range(0, 6, limit)],
                                 await self.follow(limit, 'X'))

    async def test_an_empty_book_has_one_empty_page(self) -> None:
        self.assertEqual(Page([], None), await self.service.page(10))
        self.assertEqual(Page([], None), await self.service.page(10, 'x'))

    async def test_the_next_page_of_the_book_comes_after_an_id(self) -> None:
        await self.create_all(*'abc')
        self.assertEqual(f'{1:032x}', (await self.service.page(2)).after)
        self.assertEqual(f'{0:032x}', (await self.service.page(1)).after)

    async def test_the_next_page_of_a_search_comes_after_an_id_and_a_folded_name(self) -> None:
        await self.create_all('Straße', 'STRASSE: 1', 'strasse; z')
        page = await self.service.page(1, 'strasse')
        self.assertEqual(f'{0:032x}:strasse', page.after)
        page = await self.service.page(1, 'strasse', page.after)
        self.assertEqual(f'{1:032x}:strasse: 1', page.after)
        page = await self.service.page(1, 'strasse', page.after)
        self.assertEqual((['strasse; z'], None), (names(page.entries), page.after))

    async def test_the_longest_names_have_a_next_page_too(self) -> None:
        await self.create_all('ß' * 256, 'S' * 256, '\U0010ffff' * 256)
        self.assertEqual([['ß' * 256], ['S' * 256]], await self.follow(1, 's'))
        self.assertEqual(f'{0:032x}:{"s" * 256}', (await self.service.page(1, 's')).after)

    async def test_a_search_goes_on_where_an_entry_was_that_is_gone(self) -> None:
        await self.create_all('xa', 'xb', 'xc')
        after = (await self.service.page(2, 'x')).after
        await self.store.delete_address(f'{1:032x}')
        self.assertEqual(['xc'], names((await self.service.page(2, 'x', after)).entries))

    async def test_a_search_may_go_on_after_the_id_of_an_entry(self) -> None:
        await self.create_all('xb', 'xa', 'xc', 'a', 'z')
        for number, found in enumerate((['xc'], ['xb', 'xc'], [], ['xa', 'xb', 'xc'], [])):
            after = f'{number:032x}'
            with self.subTest(after=after):
                self.assertEqual(found, names((await self.service.page(9, 'x', after)).entries))
                self.assertEqual(found, [
                    name async for page in self.service.pages('x', after) for name in names(page)])

    async def test_a_search_cannot_go_on_after_the_id_of_none(self) -> None:
        await self.create_all('xa')
        with self.assertRaises(UnknownNicknameError):
            await self.service.page(1, 'x', f'{9:032x}')
        with self.assertRaises(UnknownNicknameError):
            await anext(self.service.pages('x', f'{9:032x}'))

    async def test_the_book_goes_on_after_any_id(self) -> None:
        await self.create_all(*'abc')
        await self.store.delete_address(f'{1:032x}')
        for after in (f'{1:032x}', f'{0:032x}', f'{1:032x}:whatever'):
            with self.subTest(after=after):
                self.assertEqual(['c'], names((await self.service.page(9, None, after)).entries))
                self.assertEqual(['c'], [
                    name async for page in self.service.pages(None, after) for name in names(page)])

    async def test_a_page_of_large_entries_has_fewer_of_them(self) -> None:
        await self.create_all(*'abcdef')  # 12 bytes each
        for room, pages in ((1, [*'abcdef']), (12, [*'abcdef']), (13, ['ab', 'cd', 'ef']),
                            (48, ['abcd', 'ef']), (49, ['abcde', 'f']), (72, ['abcde', 'f'])):
            with (self.subTest(room=room),
                  mock.patch('addrservice.service.MAX_PAGE_BYTES', room)):
                self.assertEqual([list(page) for page in pages], await self.follow(5))
        with mock.patch('addrservice.service.MAX_PAGE_BYTES', 13):
            self.assertEqual([['a']], await self.follow(5, 'a'))

    async def test_up_to_a_hundred_entries_are_read_at_once(self) -> None:
        """With the one after them, which tells whether there is a next page."""
        service = AddressBookService(store := InMemoryAddressBookDB(), LOGGER)
        for number in range(101):
            await store.create_address({'name': 'x'}, f'{number:032x}')
        for limit in (1, 2, 100):
            with (mock.patch.object(store, 'read_page', wraps=store.read_page) as read_page,
                  mock.patch.object(store, 'find_page', wraps=store.find_page) as find_page):
                for name in (None, 'x'):
                    page = await service.page(limit, name)
                    self.assertEqual(limit, len(page.entries))
                read_page.assert_awaited_once_with(None, limit + 1)
                find_page.assert_awaited_once_with('x', None, limit + 1)

    async def test_a_long_page_is_read_in_parts(self) -> None:
        await self.create_all(*(f'x{n:03}' for n in range(250)))
        for name in (None, 'X'):
            page = await self.service.page(201, name)
            self.assertEqual([f'x{n:03}' for n in range(201)], names(page.entries))
            page = await self.service.page(1000, name, page.after)
            self.assertEqual([f'x{n:03}' for n in range(201, 250)], names(page.entries))
            self.assertIsNone(page.after)

    async def test_pages_are_as_long_as_they_are_asked_for(self) -> None:
        service = AddressBookService(InMemoryAddressBookDB(), LOGGER)
        for name in 'abcde':
            await service.post_address({'name': name})
        self.assertEqual([2, 2, 1], [len(page) async for page in service.pages(size=2)])

    async def test_all_that_is_found_comes_in_pages(self) -> None:
        await self.create_all(*(f'x{n:03}' for n in range(300)), 'other')
        pages = [page async for page in self.service.pages('X')]
        self.assertEqual([250, 50], list(map(len, pages)))
        self.assertEqual([f'x{n:03}' for n in range(300)],
                         [name for page in pages for name in names(page)])


def names(entries: list[StoredEntry]) -> list[str]:
    """What entries are called."""
    return [orjson.loads(entry.document)['name'] for entry in entries]


class TracingTest(ServiceTestCase):
    """Every use case is a span."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.recorder = SpanRecorder()
        self.enterContext(collecting([self.recorder], LOGGER))

    def assert_spans(self, *names: str) -> None:
        spans = [(span.name, span.parent, span.error) for span in self.recorder.spans
                 if span.name.startswith('AddressBookService.') and span.parent is None]
        self.assertEqual([(f'AddressBookService.{name}', None, None) for name in names], spans)

    async def test_every_use_case_is_traced(self) -> None:
        nickname = await self.service.post_address(address('namo'))
        await self.service.get_address(nickname)
        await self.service.get_entry(nickname)
        await self.service.put_address(nickname, address('raga'))
        await self.service.patch_address(nickname, {})
        await self.service.get_all_addresses()
        await self.service.page(1)
        async for _ in self.service.pages():
            pass
        await self.service.delete_address(nickname)
        await self.service.post_entry(address('raga'))
        self.assert_spans('post_address', 'get_address', 'get_entry', 'put_address',
                          'patch_address', 'get_all_addresses', 'page', 'pages', 'delete_address',
                          'post_entry')

    async def test_the_probes_are_not_traced(self) -> None:
        """They come every few seconds and would hide what is worth seeing."""
        await self.service.status()
        self.service.uptime_millis()
        self.assert_spans()

    async def test_a_refusal_is_seen_in_the_span(self) -> None:
        with self.assertRaises(UnknownNicknameError) as caught:
            await self.service.get_address('nobody')
        inner, span = self.recorder.spans
        self.assertEqual(('read', 'AddressBookService.get_address'), (inner.name, span.name))
        self.assertIs(span, inner.parent)
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
