"""Sampling profiles: what is in the files, when one ends, what can go wrong."""

import asyncio
import logging
import os
import stat
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec

from addrservice import profiling
from addrservice.config import ProfilingSettings
from addrservice.profiling import SamplingProfiler, Stacks
from tests.speedscope import frame_names, read_speedscope, seconds_in

LOGGER: Final = logging.Logger('test')  # nobody else has it


def be_busy(until: Callable[[], bool]) -> int:
    """Calls a lot."""
    calls = 0
    while not until():
        calls += look_busy()
    return calls


def look_busy() -> int:
    return sum(step(number) for number in range(50))


def step(number: int) -> int:
    return number


class SamplingProfilerTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def profiler(self, **settings: Any) -> SamplingProfiler:
        told = {'folder': str(self.folder), 'interval': 0.0005, **settings}
        profiler = SamplingProfiler(msgspec.convert(told, ProfilingSettings), LOGGER)
        self.addCleanup(profiler.close)
        return profiler

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def profile(self, seconds: float = 0.05, **settings: Any) -> list[str]:
        """Takes one of a busy thread, for so much of a processor's time; gives what was logged."""
        profiler = self.profiler(**settings)
        with self.assertLogs(LOGGER) as logs:
            profiler.toggle()
            end = time.thread_time() + seconds
            be_busy(lambda: time.thread_time() > end)
            profiler.toggle()
            profiler.close()
        return logs.output

    async def test_a_profile_is_written_for_speedscope_and_as_a_page(self) -> None:
        _, written = self.profile()
        html, speedscope = self.files()
        self.assertRegex(html.name,
                         rf'\Aaddrservice-{os.getpid()}-\d{{8}}T\d{{6}}\.\d{{3}}Z\.html\Z')
        self.assertEqual(html.stem, speedscope.name.removesuffix('.speedscope.json'))
        self.assertRegex(written, rf'\AINFO:test:profile of 0\.\d s in {speedscope} and {html}\Z')
        self.assertIn('look_busy', html.read_text(encoding='utf-8'))
        self.assertEqual([0o600, 0o600],
                         [stat.S_IMODE(file.stat().st_mode) for file in self.files()])

    async def test_the_profile_says_where_the_time_went(self) -> None:
        self.profile(seconds=0.3)  # on a busy machine a few samples are far from the mark
        document = read_speedscope(self.files()[1])
        names = frame_names(document)
        self.assertLess({'MainThread', 'be_busy', 'look_busy'}, set(names))
        self.assertEqual(len(names), len(document['shared']['frames']))
        whole = sum(document['profiles'][0]['weights'])
        self.assertGreater(seconds_in(document, 'be_busy'), 0.8 * whole)
        self.assertGreater(seconds_in(document, 'look_busy'), 0.5 * whole)
        place = document['shared']['frames'][names.index('look_busy')]
        self.assertEqual((__file__, look_busy.__code__.co_firstlineno),
                         (place['file'], place['line']))

    async def test_stacks_with_the_same_callers_stand_side_by_side(self) -> None:
        """Or the page would show a function once for each time that it was seen."""
        self.profile()
        samples = read_speedscope(self.files()[1])['profiles'][0]['samples']
        for depth in range(1, 30):
            groups = [key for key, _ in groupby(stack[:depth] for stack in samples)]
            self.assertEqual(len({*map(tuple, groups)}), len(groups))

    async def test_methods_are_named_with_their_class(self) -> None:
        self.profile()
        self.assertIn('SamplingProfilerTest.profile', frame_names(
            read_speedscope(self.files()[1])))

    async def test_it_ends_by_itself(self) -> None:
        profiler = self.profiler(**{'max-seconds': 0.01})
        with self.assertLogs(LOGGER) as logs:
            profiler.toggle()
            while len(logs.output) < 2:
                await asyncio.sleep(0.001)
            profiler.toggle()  # begins the next one
            profiler.close()
        self.assertEqual(4, len(self.files()))

    async def test_one_that_was_ended_does_not_end_again(self) -> None:
        errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        self.profile(**{'max-seconds': 0.06})
        await asyncio.sleep(0.03)
        self.assertEqual([], errors)

    async def test_closing_writes_the_one_that_runs(self) -> None:
        profiler = self.profiler()
        with self.assertLogs(LOGGER):
            profiler.toggle()
            profiler.close()
            profiler.close()
        self.assertEqual(2, len(self.files()))

    async def test_closing_without_a_profile_does_nothing(self) -> None:
        with self.assertNoLogs(LOGGER):
            self.profiler().close()

    async def test_a_profile_in_which_nothing_happened_is_one_too(self) -> None:
        profiler = self.profiler(interval=1)
        with self.assertLogs(LOGGER):
            profiler.toggle()
            profiler.close()
        self.assertEqual([], read_speedscope(self.files()[1])['profiles'][0]['samples'])

    async def test_the_next_one_waits_until_the_last_is_written(self) -> None:
        """Or two of them would be held at once."""
        profiler = self.profiler()
        disk = threading.Event()

        def write_slowly(path: Path, content: bytes) -> None:
            disk.wait()

        with (patch.object(profiling, '_write_new', write_slowly),
              self.assertLogs(LOGGER) as logs):
            profiler.toggle()
            profiler.toggle()
            profiler.toggle()
            disk.set()
            profiler.close()
        self.assertEqual('WARNING:test:the last profile is still being written', logs.output[1])

    async def test_a_folder_that_cannot_be_written_is_a_line_in_the_log(self) -> None:
        _, line = self.profile(folder='/nowhere')
        self.assertRegex(line, r'\AERROR:test:the profile could not be written: .* No such file')

    async def test_what_is_there_already_is_not_written_through(self) -> None:
        """Whoever guesses the name in /tmp could have a link there."""
        target = self.folder / 'target'
        with patch.object(profiling, '_utc', lambda seconds: 'guessed'):
            link = self.folder / f'addrservice-{os.getpid()}-guessed.speedscope.json'
            link.symlink_to(target)
            _, line = self.profile()
        self.assertIn('File exists', line)
        self.assertEqual([link], self.files())

    async def test_a_missing_package_is_a_line_in_the_log(self) -> None:
        profiler = self.profiler()
        with (patch.dict(sys.modules, {'pyinstrument.stack_sampler': None}),
              self.assertLogs(LOGGER) as logs):
            profiler.toggle()
        self.assertRegex(logs.output[0], r'\AERROR:test:no profile: .*pyinstrument')
        self.assertEqual([], self.files())


class StacksTest(unittest.TestCase):
    def test_the_time_of_equal_stacks_is_added_up(self) -> None:
        stacks = Stacks()
        for stack, seconds in (('ab', 1.0), ('abc', 2.0), ('ab', 4.0)):
            stacks.add([*stack], seconds)
        self.assertEqual({('a', 'b'): 5.0, ('a', 'b', 'c'): 2.0}, stacks.seconds)
        self.assertEqual(3, stacks.samples)

    def test_their_number_is_bounded_and_no_time_is_lost(self) -> None:
        stacks = Stacks(2)
        for stack in ('ab', 'ac', 'ad', 'ae', 'ac'):
            stacks.add([*stack], 1.0)
        self.assertEqual({('a', 'b'): 1.0, ('a', 'c'): 2.0, ('a',): 2.0}, stacks.seconds)


if __name__ == '__main__':
    unittest.main()
