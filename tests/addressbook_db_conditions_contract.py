"""What every store keeps to where writes depend on what is there: versions and keys.

Each backend's tests inherit the suite, as they do ``AddressBookDBContract``.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from unittest import mock

from addrservice.addressbook_db import AbstractAddressBookDB, StoredEntry
from addrservice.errors import (
    InvalidEntryError, KeyReusedError, NicknameTakenError, PreconditionFailedError,
    UnknownNicknameError,
)
from addrservice.validation import serialise_entry
from tests.addressbook_db_contract import (
    INVALID, ODD_NICKNAMES, AddressBookDBContract, entry_named,
)
from tests.support import address

KEY: Final = '8e03978e-40d5-43dd-bc93-6894a57f9324'

# No two of them are the same key, whoever might take them for it.
KEYS: Final = [KEY, KEY.upper(), KEY[:-1], 'k', 'K', ' k', 'k ', 'k' * 254, 'k' * 255, '0', '%',
               "'", "' OR '1'='1", '$1', '\\', '"k"', 'null', '{}']

LAST_YEAR: Final = 1_700_000_000_123_456_789  # ns


def microseconds() -> int:
    """The time, as a version has it."""
    return time.time_ns() // 1000


class ConditionsContract(AddressBookDBContract):
    """Versions, changes that need one, and entries that are made once."""

    async def another_store(self) -> AbstractAddressBookDB:
        """A second store on the same entries, started: the same one where there can be but one."""
        return self.store

    # Helpers

    async def version(self, nickname: str = 'pm') -> int:
        """The version of an entry."""
        return (await self.store.read_entry(nickname)).version

    async def assert_refused(self, *operations: Awaitable[object]) -> None:
        """Each operation fails for its precondition, and nothing is changed by it."""
        before = await self.store.read_page(None, 10)
        for operation in operations:
            with self.subTest(operation=operation):
                with self.assertRaises(PreconditionFailedError):
                    await operation
                self.assertEqual(before, await self.store.read_page(None, 10))

    async def one_that_wins(
        self, operations: Sequence[Awaitable[object]], loss: type[Exception]
    ) -> int:
        """The place of the one operation that does not fail with the loss of all others."""
        outcomes = await self.outcomes(*operations)
        self.assertEqual([loss] * (len(operations) - 1), [error for error in outcomes if error])
        return outcomes.index(None)

    # Versions

    async def test_each_change_gives_a_greater_version_and_tells_it(self) -> None:
        created = await self.store.create_entry(address('namo'), 'pm')
        versions = [created.version]
        for name in ('raga', 'namo', 'namo', 'raga') * 5:
            versions.append(await self.store.update_address('pm', address(name)))
            self.assertEqual(versions[-1], await self.version())
        self.assertEqual(sorted(set(versions)), versions)
        self.assertEqual({int}, set(map(type, versions)))

    async def test_a_version_is_the_time_of_the_change_in_microseconds(self) -> None:
        before = microseconds()
        created = (await self.store.create_entry(address('namo'), 'pm')).version
        between = microseconds()
        await asyncio.sleep(0.001)
        updated = await self.store.update_address('pm', address('raga'))
        after = microseconds()
        self.assertTrue(before <= created <= between < updated <= after,
                        (before, created, between, updated, after))

    async def test_a_version_grows_by_one_at_least_whatever_the_clock_says(self) -> None:
        created = (await self.store.create_entry(address('namo'), 'pm')).version
        with mock.patch('time.time_ns', return_value=LAST_YEAR):
            self.assertEqual(created + 1, await self.store.update_address('pm', address('raga')))
            self.assertEqual(created + 2, await self.store.update_address(
                'pm', address('namo'), created + 1))
        self.assertGreater(await self.store.update_address('pm', address('raga')), created + 2)

    async def test_what_is_made_while_the_clock_is_slow_catches_up_with_the_next_change(
        self
    ) -> None:
        with mock.patch('time.time_ns', return_value=LAST_YEAR):
            await self.create_all('pm')
        self.assertEqual(LAST_YEAR // 1000, await self.version())
        now = microseconds()
        self.assertGreaterEqual(await self.store.update_address('pm', address('raga')), now)

    async def test_no_version_is_used_again_after_a_delete(self) -> None:
        versions = []
        for _ in range(20):
            versions.append((await self.store.create_entry(address('namo'), 'pm')).version)
            versions.append(await self.store.update_address('pm', address('raga')))
            await self.store.delete_address('pm')
        self.assertEqual(sorted(set(versions)), versions)

    async def test_one_of_many_updates_at_the_same_time_has_each_version(self) -> None:
        await self.create_all('pm')
        created = await self.version()
        versions = await asyncio.gather(
            *(self.store.update_address('pm', entry_named(str(n))) for n in range(50)))
        self.assertEqual(50, len(set(versions) - {created}))
        last = await self.store.read_entry('pm')
        self.assertEqual(max(versions), last.version)
        self.assertEqual(serialise_entry(entry_named(str(versions.index(last.version)))),
                         last.document)

    async def test_a_created_entry_comes_back_as_it_is_stored(self) -> None:
        for nickname in (None, 'pm'):
            created = await self.store.create_entry(address('namo'), nickname)
            self.assertIs(StoredEntry, type(created))
            self.assertEqual(nickname or created.nickname, created.nickname)
            self.assertEqual(serialise_entry(address('namo')), created.document)
            self.assertIsNone(created.origin)
            self.assertEqual(created, await self.store.read_entry(created.nickname))
        with self.assertRaises(NicknameTakenError):
            await self.store.create_entry(address('raga'), 'pm')

    # Changes that need a version

    async def test_an_update_with_the_version_of_the_entry_is_done(self) -> None:
        await self.create_all('before', 'pm', 'then')
        others = await self.store.read_entry('before'), await self.store.read_entry('then')
        version = await self.store.update_address('pm', address('raga'), await self.version())
        self.assertEqual(StoredEntry('pm', serialise_entry(address('raga')), version),
                         await self.store.read_entry('pm'))
        await self.store.update_address('pm', address('namo'), version)
        self.assertEqual(address('namo'), await self.store.read_address('pm'))
        self.assertEqual(
            others, (await self.store.read_entry('before'), await self.store.read_entry('then')))

    async def test_a_delete_with_the_version_of_the_entry_is_done(self) -> None:
        await self.create_all('before', 'pm', 'then')
        await self.store.delete_address('pm', await self.version())
        self.assertEqual(['before', 'then'], await self.nicknames())

    async def test_a_change_with_any_other_version_is_refused(self) -> None:
        await self.create_all('pm', 'lop')
        stale = await self.version()
        current = await self.store.update_address('pm', address('raga'), stale)
        for version in (stale, current - 1, current + 1, -current, 0, 1, await self.version('lop')):
            with self.subTest(version=version):
                await self.assert_refused(
                    self.store.update_address('pm', address('namo'), version),
                    self.store.delete_address('pm', version))
        await self.store.delete_address('pm', current)

    async def test_a_change_of_what_is_not_there_is_refused_whatever_the_version(self) -> None:
        await self.create_all('pm')
        version = await self.version()
        for nickname in ('', 'p', 'PM', 'pm ', "pm' OR '1'='1", 'pm\0', '\0', 'pm\ud800'):
            with self.subTest(nickname=nickname):
                await self.assert_refused(
                    self.store.update_address(nickname, address('raga'), version),
                    self.store.delete_address(nickname, version))

    async def test_a_version_that_was_deleted_is_good_for_nothing(self) -> None:
        await self.create_all('pm')
        version = await self.version()
        await self.store.delete_address('pm', version)
        changes = (lambda: self.store.update_address('pm', address('raga'), version),
                   lambda: self.store.delete_address('pm', version))
        await self.assert_refused(*(change() for change in changes))
        await self.create_all('pm')
        await self.assert_refused(*(change() for change in changes))

    async def test_an_invalid_entry_is_told_before_a_version_that_is_stale(self) -> None:
        await self.create_all('pm')
        version = await self.version()
        for entry in INVALID:
            for each in (version, version - 1):
                with self.subTest(entry=entry, version=each):
                    with self.assertRaises(InvalidEntryError):
                        await self.store.update_address('pm', entry, each)
        self.assertEqual(version, await self.version())

    async def test_odd_nicknames_have_versions_like_any_other(self) -> None:
        for nickname in ODD_NICKNAMES:
            with self.subTest(nickname=nickname):
                created = await self.store.create_entry(address('namo'), nickname)
                version = await self.store.update_address(
                    nickname, address('raga'), created.version)
                with self.assertRaises(PreconditionFailedError):
                    await self.store.delete_address(nickname, created.version)
                await self.store.delete_address(nickname, version)
        self.assertEqual([], await self.nicknames())

    async def test_one_of_many_updates_with_one_version_wins(self) -> None:
        await self.create_all('pm')
        version, stores = await self.version(), [self.store, await self.another_store()]
        winner = await self.one_that_wins(
            [stores[n % 2].update_address('pm', entry_named(str(n)), version) for n in range(50)],
            PreconditionFailedError)
        self.assertEqual(entry_named(str(winner)), await self.store.read_address('pm'))

    async def test_one_of_many_deletes_with_one_version_wins(self) -> None:
        await self.create_all('pm')
        version, stores = await self.version(), [self.store, await self.another_store()]
        await self.one_that_wins(
            [stores[n % 2].delete_address('pm', version) for n in range(50)],
            PreconditionFailedError)
        self.assertEqual([], await self.nicknames())

    async def test_an_update_or_a_delete_with_one_version_wins_never_both(self) -> None:
        for _ in range(5):
            await self.create_all('pm')
            version = await self.version()
            changes: list[Awaitable[object]] = [
                change for _ in range(5) for change in (
                    self.store.update_address('pm', address('raga'), version),
                    self.store.delete_address('pm', version))]
            winner = await self.one_that_wins(changes, PreconditionFailedError)
            self.assertEqual([] if winner % 2 else ['pm'], await self.nicknames())
            if winner % 2 == 0:
                await self.store.delete_address('pm')

    async def test_no_change_is_lost_where_each_has_the_version_it_is_a_change_of(self) -> None:
        await self.store.create_address(entry_named('0'), 'counter')

        async def count(store: AbstractAddressBookDB) -> None:
            while True:
                entry = await store.read_entry('counter')
                number = int((await store.read_address('counter'))['name'])
                try:
                    await store.update_address(
                        'counter', entry_named(str(number + 1)), entry.version)
                    return
                except PreconditionFailedError:
                    await asyncio.sleep(0)

        stores = [self.store, await self.another_store()]
        await asyncio.gather(*(count(stores[n % 2]) for n in range(10)))
        self.assertEqual(entry_named('10'), await self.store.read_address('counter'))

    # Entries that are made once

    async def test_a_key_makes_an_entry(self) -> None:
        made = await self.store.create_entry_once(address('namo'), KEY)
        self.assertEqual(serialise_entry(address('namo')), made.document)
        self.assertEqual({made.nickname: address('namo')}, await self.store.read_all_addresses())
        self.assertEqual(made.version, await self.version(made.nickname))

    async def test_the_nickname_is_a_uuid_of_the_key(self) -> None:
        """So that each store makes the same one: version 5 of RFC 9562, as 32 hex digits."""
        made = await self.store.create_entry_once(address('namo'), KEY)
        self.assertRegex(made.nickname, r'\A[0-9a-f]{12}5[0-9a-f]{3}[89ab][0-9a-f]{15}\Z')
        await self.store.delete_address(made.nickname)
        again = await self.store.create_entry_once(address('raga'), KEY)
        self.assertEqual(made.nickname, again.nickname)

    async def test_the_same_key_with_the_same_entry_makes_no_second_one(self) -> None:
        made = await self.store.create_entry_once(address('namo'), KEY)
        other = await self.another_store()
        for store in (self.store, other, self.store):
            self.assertEqual(made, await store.create_entry_once(address('namo'), KEY))
        self.assertEqual([made.nickname], await self.nicknames())

    async def test_the_same_key_with_another_entry_is_refused(self) -> None:
        """Also with one that differs only in the order of its keys: it is stored so."""
        made = await self.store.create_entry_once(address('namo'), KEY)
        for entry in (address('raga'), {'name': 'x'}, dict(reversed(address('namo').items()))):
            with self.subTest(entry=entry):
                with self.assertRaises(KeyReusedError):
                    await self.store.create_entry_once(entry, KEY)
        self.assertEqual({made.nickname: address('namo')}, await self.store.read_all_addresses())
        self.assertEqual(made.version, await self.version(made.nickname))

    async def test_other_keys_make_other_entries_of_the_same_content(self) -> None:
        made = [await self.store.create_entry_once(address('namo'), key) for key in KEYS]
        self.assertEqual(len(KEYS), len({entry.nickname for entry in made}))
        self.assertEqual(sorted(entry.nickname for entry in made), await self.nicknames())

    async def test_the_key_knows_its_first_entry_after_an_update(self) -> None:
        made = await self.store.create_entry_once(address('namo'), KEY)
        version: int | None = None
        for _ in range(2):
            version = await self.store.update_address(made.nickname, address('raga'), version)
            again = await self.store.create_entry_once(address('namo'), KEY)
            self.assertEqual(made.nickname, again.nickname)
            self.assertEqual(address('raga'), await self.store.read_address(made.nickname))
            with self.assertRaises(KeyReusedError):
                await self.store.create_entry_once(address('raga'), KEY)

    async def test_a_repeated_key_gives_the_entry_as_it_is_now(self) -> None:
        made = await self.store.create_entry_once(address('namo'), KEY)
        version = await self.store.update_address(made.nickname, address('raga'))
        again = await self.store.create_entry_once(address('namo'), KEY)
        self.assertEqual((version, serialise_entry(address('raga'))),
                         (again.version, again.document))

    async def test_after_a_delete_the_key_makes_an_entry_anew(self) -> None:
        for name in ('namo', 'namo', 'raga'):
            made = await self.store.create_entry_once(address(name), KEY)
            self.assertEqual({made.nickname: address(name)}, await self.store.read_all_addresses())
            await self.store.delete_address(made.nickname, made.version)
        self.assertEqual([], await self.nicknames())

    async def test_the_origin_tells_the_first_entries_of_keys_apart(self) -> None:
        """Whatever became of them."""
        origins = []
        for key, name in (('a', 'namo'), ('b', 'namo'), ('c', 'raga')):
            made = await self.store.create_entry_once(address(name), key)
            await self.store.update_address(made.nickname, address('raga'))
            origins.append((await self.store.read_entry(made.nickname)).origin)
        self.assertEqual([str] * 3, list(map(type, origins)))
        self.assertTrue(origins[0] == origins[1] != origins[2], origins)

    async def test_an_entry_of_a_key_is_original_until_it_is_another_one(self) -> None:
        made = await self.store.create_entry_once(address('namo'), KEY)
        self.assertTrue(made.is_original)
        for name, original in (('namo', True), ('raga', False), ('namo', True)):
            await self.store.update_address(made.nickname, address(name))
            entry = await self.store.read_entry(made.nickname)
            self.assertIs(original, entry.is_original)
            self.assertEqual(made.origin, entry.origin)
        self.assertFalse((await self.store.create_entry(address('namo'))).is_original)

    async def test_an_entry_that_was_made_without_a_key_is_not_that_of_one(self) -> None:
        made = await self.store.create_entry_once(address('namo'), KEY)
        await self.store.delete_address(made.nickname)
        await self.store.create_address(address('namo'), made.nickname)
        with self.assertRaises(KeyReusedError):
            await self.store.create_entry_once(address('namo'), KEY)

    async def test_an_invalid_entry_is_not_made_with_a_key_either(self) -> None:
        for entry in INVALID:
            with self.subTest(entry=entry):
                with self.assertRaises(InvalidEntryError):
                    await self.store.create_entry_once(entry, KEY)
        await self.store.create_entry_once(address('namo'), KEY)

    async def test_many_with_one_key_and_one_entry_make_one(self) -> None:
        stores = [self.store, await self.another_store()]
        made = await asyncio.gather(
            *(stores[n % 2].create_entry_once(address('namo'), KEY) for n in range(50)))
        self.assertEqual(1, len({(entry.nickname, entry.version) for entry in made}))
        self.assertEqual([made[0].nickname], await self.nicknames())

    async def test_one_of_many_with_one_key_and_different_entries_makes_one(self) -> None:
        stores = [self.store, await self.another_store()]
        winner = await self.one_that_wins(
            [stores[n % 2].create_entry_once(entry_named(str(n)), KEY) for n in range(50)],
            KeyReusedError)
        self.assertEqual([entry_named(str(winner))],
                         list((await self.store.read_all_addresses()).values()))

    async def test_a_key_makes_its_entry_whoever_deletes_it_meanwhile(self) -> None:
        """Each attempt ends with an entry that was there, however they interleave."""
        nickname = (await self.store.create_entry_once(address('namo'), KEY)).nickname
        other = await self.another_store()
        makers: list[Callable[[], Awaitable[Any]]] = [
            lambda: self.store.create_entry_once(address('namo'), KEY),
            lambda: other.delete_address(nickname)]
        outcomes = await self.outcomes(*(makers[n % 2]() for n in range(40)))
        self.assertEqual([None] * 20, outcomes[::2])
        self.assertLessEqual(set(outcomes[1::2]), {None, UnknownNicknameError})
