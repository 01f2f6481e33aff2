"""The supervisor and workers that die, get stuck or are replaced: real processes and signals.

The workers are stand-ins for the service; what they do is written in their configuration.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
import unittest
from typing import Final
from unittest.mock import patch

from addrservice.config import ServiceSettings
from tests.supervised import SupervisorTestCase, until

cpus_of = os.sched_getaffinity  # whatever the supervisor is made to see
CPUS: Final = sorted(cpus_of(0))


class DeathTest(SupervisorTestCase):
    """Workers that die while they serve."""

    async def test_a_dead_worker_is_replaced_at_once_in_its_slot(self) -> None:
        with patch('addrservice.supervisor.SHORT_LIFE', 0):
            async with self.supervised():
                for times in range(1, 4):
                    self.send(signal.SIGKILL, self.noted('start1')[-1])
                    await until(lambda: len(self.noted('start1')) == times + 1)
        self.assertEqual(3, len(self.logged(
            r'WARNING.*worker 1 \(process \d+\) has ended: signal 9 .* started in 0.0 s')))

    async def test_the_pause_grows_while_workers_die_young_and_begins_anew_after_one_that_lived(
            self) -> None:
        self.text = 'if os.path.exists(sys.argv[1]): say(b"R"); sys.exit(3)\nserve()'
        self.settings = ServiceSettings(processes=1)
        with patch('addrservice.supervisor.SHORT_LIFE', 0.1), \
                patch('addrservice.supervisor.LONGEST_PAUSE', 0.2):
            async with self.supervised():
                self.send(signal.SIGKILL, self.noted('start0')[-1])
                await until(lambda: len(self.logged('started in 0.2 s')) == 2)
                (self.folder / 'notes').unlink()
                await until(lambda: self.noted('start0'))
                await asyncio.sleep(0.15)  # it lives for longer
                self.send(signal.SIGKILL, self.noted('start0')[-1])
                await until(lambda: self.logged('started in 0.0 s'))
        pauses = re.findall(r'started in (\d\.\d) s', '\n'.join(self.log.lines))
        self.assertEqual(['0.1', '0.2', '0.2', '0.0'], pauses[-4:])

    async def test_a_worker_that_cannot_be_started_for_now_is_tried_again(self) -> None:
        python = self.folder / 'python'
        python.symlink_to(sys.executable)
        self.command[0] = str(python)
        async with self.supervised():
            python.rename(self.folder / 'away')
            self.send(signal.SIGKILL, self.noted('start0')[-1])
            await until(lambda: self.logged('cannot be started'))
            (self.folder / 'away').rename(python)
            await until(lambda: len(self.noted('start0')) == 2)

    async def test_another_is_started_with_the_configuration_in_force_not_with_that_on_disk(
            self) -> None:
        async with self.supervised():
            self.text = 'sys.exit(2)'
            self.send(signal.SIGKILL, self.noted('start0')[-1])
            await until(lambda: len(self.noted('start0')) == 2)


@unittest.skipIf(len(CPUS) < 2, 'there is one CPU only')
class PlacementTest(SupervisorTestCase):
    """Which CPU the threads of a worker are bound to."""

    def bound(self) -> list[list[int]]:
        """The CPUs of each worker that lives."""
        found = []
        for process in [pid for slot in range(3) for pid in self.noted(f'start{slot}')]:
            with contextlib.suppress(ProcessLookupError):
                found.append(sorted(cpus_of(process)))
        return sorted(found)

    async def test_as_many_as_there_are_cpus_have_one_each_whoever_is_replaced(self) -> None:
        two = CPUS[:2]
        each = [[cpu] for cpu in two]
        with patch('addrservice.supervisor.os.sched_getaffinity', return_value={*two}):
            async with self.supervised():
                self.assertEqual(each, self.bound())
                await self.reload()
                await until(lambda: self.bound() == each)
                for slot, successor in ((0, 0), (2, 1)):
                    starts = len(self.noted(f'start{successor}'))
                    self.send(signal.SIGKILL, self.noted(f'start{slot}')[-1])
                    await until(lambda: len(self.noted(f'start{successor}')) > starts)
                    await until(lambda: self.bound() == each)

    async def test_fewer_or_more_of_them_are_left_to_the_system(self) -> None:
        for seen in (CPUS[:1], [*CPUS, max(CPUS) + 1, max(CPUS) + 2]):
            with patch('addrservice.supervisor.os.sched_getaffinity', return_value={*seen}):
                async with self.supervised():
                    self.assertEqual([CPUS, CPUS], self.bound())


class StuckTest(SupervisorTestCase):
    """Workers whose event loop does not turn."""

    def setUp(self) -> None:
        self.stuck = ServiceSettings(processes=1, stuck_deadline=0.3)

    async def test_a_worker_that_is_silent_for_too_long_is_aborted_and_replaced(self) -> None:
        self.settings = self.stuck
        self.text = 'note("start"); say(b"R"); time.sleep(60)'
        async with self.supervised():
            await until(lambda: len(self.noted('start')) == 2)
        self.assertTrue(self.logged(r'ERROR.*worker 0 \(process \d+\) is stuck'))
        self.assertTrue(self.logged(r'WARNING.*worker 0 .* has ended: signal 6 \(Aborted\)'))

    async def test_one_that_cannot_even_be_aborted_is_killed(self) -> None:
        self.settings = self.stuck
        with patch('addrservice.workers._LAST_WORDS', 0.1):
            async with self.supervised():
                self.send(signal.SIGSTOP, self.noted('start0')[0])
                await until(lambda: len(self.noted('start0')) == 2)
        self.assertTrue(self.logged('has ended: signal 9'))

    async def test_one_that_closes_its_pipe_and_stays_is_killed(self) -> None:
        self.settings = ServiceSettings(processes=1)
        self.text = 'note("start"); say(b"R"); os.close(told["status"]); time.sleep(60)'
        with patch('addrservice.workers._LAST_WORDS', 0.1):
            async with self.supervised():
                await until(lambda: len(self.noted('start')) == 2)

    async def test_one_that_takes_long_to_start_is_not_taken_for_stuck(self) -> None:
        self.settings = self.stuck
        self.text = 'time.sleep(0.5); serve()'
        async with self.supervised():
            self.assertEqual(1, len(self.noted('start0')))

    async def test_one_that_drains_is_not_taken_for_stuck(self) -> None:
        self.settings = self.stuck
        self.text = 'serve(leave=lambda: (time.sleep(0.5), note("end"), os._exit(0)))'
        async with self.supervised() as task:
            self.send(signal.SIGTERM)
            self.assertEqual(0, await task)
        self.assertTrue(self.noted('end'))

    async def test_a_pause_of_the_supervisor_itself_is_not_held_against_a_worker(self) -> None:
        self.settings = self.stuck
        async with self.supervised():
            process, = self.noted('start0')
            self.send(signal.SIGSTOP, process)
            time.sleep(0.5)  # as if both had been stopped
            asyncio.get_running_loop().call_later(0.01, self.send, signal.SIGCONT, process)
            await asyncio.sleep(0.3)
            self.assertEqual([process], self.noted('start0'))


class ReloadTest(SupervisorTestCase):
    """SIGHUP."""

    async def test_new_workers_take_the_places_of_the_old_ones_one_after_the_other(self) -> None:
        async with self.supervised() as task:
            old = self.noted('start.')
            self.text = 'note("new"); serve()'
            await self.reload()
            new = self.noted('new')
            self.assertEqual((2, old), (len(new), self.noted('SIGUSR2')))
            lines = [line.split()[0] for line in (self.folder / 'notes').read_text().splitlines()]
            self.assertEqual(['start0', 'start1', 'new', 'start2', 'SIGUSR2',
                              'new', 'start0', 'SIGUSR2'], lines)
            self.assertEqual([], self.logged('another is started'))
            self.send(signal.SIGKILL, new[0])
            await until(lambda: len(self.noted('new')) == 3)  # now that is in force
            await until(lambda: len(self.logged('is ready')) == 5)
            self.send(signal.SIGTERM)
            self.assertEqual(0, await task)
        self.assertEqual(2, len(self.noted('SIGTERM')))

    async def test_the_number_of_workers_follows_the_configuration(self) -> None:
        async with self.supervised():
            for processes, started, ended in ((4, 6, 2), (1, 7, 6)):
                self.settings = ServiceSettings(processes=processes)
                await self.reload()
                self.assertEqual(started, len(self.noted('start.')))
                self.assertEqual(ended, len(self.noted('SIGUSR2')))
            self.send(signal.SIGKILL, self.noted('start.')[-1])
            await until(lambda: len(self.noted('start.')) == 8)

    async def test_a_broken_configuration_is_refused_in_one_line_and_the_old_workers_stay(
            self) -> None:
        async with self.supervised():
            self.text = 'broken'
            before = len(self.log.lines)
            await self.reload()
            self.assertEqual(['ERROR not reloaded: config.yaml: broken'],
                             self.log.lines[before:])
            self.assertEqual((2, 0), (len(self.noted('start.')), len(self.noted('SIGUSR2'))))

    async def test_a_new_worker_that_does_not_become_ready_is_refused_and_the_old_ones_stay(
            self) -> None:
        async with self.supervised():
            self.text = 'sys.exit(2)'
            before = len(self.log.lines)
            await self.reload()
            line, = self.log.lines[before:]
            self.assertRegex(line, r'ERROR not reloaded: worker 2 \(process \d+\) has '
                                   'ended before it was ready: status 2; 0 of 2 workers are new')
            self.assertEqual((2, 0), (len(self.noted('start.')), len(self.noted('SIGUSR2'))))
            self.send(signal.SIGKILL, self.noted('start0')[0])
            await until(lambda: len(self.noted('start0')) == 2)  # what was in force still is

    async def test_a_reload_during_a_reload_is_made_up_for_once(self) -> None:
        self.text = 'note("begun"); time.sleep(0.1); serve()'
        async with self.supervised():
            self.send(signal.SIGHUP)
            await until(lambda: len(self.noted('begun')) == 3)
            for _ in range(3):
                self.send(signal.SIGHUP)
                await asyncio.sleep(0)
            await until(lambda: len(self.logged('reloaded')) == 2)
            self.assertEqual(3, self.loads)

    async def test_a_signal_during_a_reload_ends_old_and_new_workers(self) -> None:
        self.text = 'serve(leave=lambda: (time.sleep(0.2), note("end"), os._exit(0)))'
        async with self.supervised() as task:
            self.send(signal.SIGHUP)
            await until(lambda: self.noted('SIGUSR2'))
            self.send(signal.SIGTERM)
            self.assertEqual(0, await task)
        self.assertEqual(self.noted('start0'), self.noted('SIGUSR2'))  # and was let finish
        self.assertCountEqual(self.noted('start1') + self.noted('start2'), self.noted('SIGTERM'))
        self.assertEqual(3, len(self.noted('end')))

    async def test_a_place_that_is_empty_is_filled_by_the_reload(self) -> None:
        self.settings = ServiceSettings(processes=1)
        self.text = 'if os.path.exists(sys.argv[1]): sys.exit(3)\nserve()'
        with patch('addrservice.supervisor.FIRST_PAUSE', 0.3):
            async with self.supervised():
                self.send(signal.SIGKILL, self.noted('start0')[0])
                await until(lambda: len(self.logged('another is started in 0.3 s')) == 1)
                self.text = 'note("new"); serve()'
                await self.reload()
                await asyncio.sleep(0.4)
                self.assertEqual(1, len(self.noted('new')))
                self.assertEqual(2, len(self.noted('start0')))
