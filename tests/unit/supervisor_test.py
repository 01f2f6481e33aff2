"""The supervisor, from its start to its end: real processes and signals.

The workers are stand-ins for the service; what they do is written in their configuration.
"""

import asyncio
import os
import re
import signal
import socket
import time
from pathlib import Path
from unittest.mock import patch

from addrservice.config import ServiceSettings
from tests.support import DEADLINE
from tests.supervised import SupervisorTestCase, until


class StartAndStopTest(SupervisorTestCase):
    """From the first worker to the last."""

    async def test_all_are_ready_before_the_start_is_told_and_all_end_before_it_ends(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            (self.folder / 'notes').unlink(missing_ok=True)
            async with self.supervised() as task:
                self.assertEqual(1, self.starts)
                started = self.noted('start0') + self.noted('start1')
                self.assertEqual(2, len(set(started)))
                self.assertEqual(started, [os.getpgid(process) for process in started])
                self.send(number)
                self.assertEqual(0, await task)
            self.assertCountEqual(started, self.noted('SIGTERM'))
            for process in started:
                with self.assertRaises(ProcessLookupError):
                    os.kill(process, 0)

    async def test_once_the_workers_listen_no_more_connections_are_refused(self) -> None:
        self.text = ('serve(leave=lambda: (os.close(told["http"][0]), note("closed"), '
                     'time.sleep(0.3), os._exit(0)))')
        async with self.supervised() as task:
            socket.create_connection(self.address).close()
            self.send(signal.SIGTERM)
            await until(lambda: len(self.noted('closed')) == 2)
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(self.address)
            self.assertFalse(task.done())

    async def test_a_worker_has_a_folder_for_figures_and_nothing_that_is_for_systemd(self) -> None:
        self.text = 'for name in os.environ: note(name + "=" + os.environ[name] + " of")\nserve()'
        for given in {}, {'PROMETHEUS_MULTIPROC_DIR': '/mine'}:
            (self.folder / 'notes').unlink(missing_ok=True)
            with patch.dict(os.environ, {**given, 'WATCHDOG_USEC': '1000000', 'LISTEN_FDS': '1'}):
                async with self.supervised():
                    text = (self.folder / 'notes').read_text()
                    found = re.search('PROMETHEUS_MULTIPROC_DIR=(.*) of', text)
                    assert found
                    self.assertEqual(given.get('PROMETHEUS_MULTIPROC_DIR', found[1]), found[1])
                    self.assertEqual(not given, Path(found[1]).is_dir())
            self.assertFalse(Path(found[1]).exists())
            self.assertNotRegex(text, 'WATCHDOG|LISTEN')
            self.assertEqual({'0', '1'}, set(re.findall('ADDRSERVICE_WORKER_SLOT=(.) of', text)))

    async def test_a_first_worker_that_refuses_to_start_ends_it_and_speaks_for_itself(self) -> None:
        self.text = 'note("start"); sys.exit(2)'
        async with self.supervised() as task:
            self.assertEqual(2, await task)
        self.assertEqual((0, 1), (self.starts, len(self.noted('start'))))
        self.assertEqual([], self.logged('.'))

    async def test_a_first_worker_that_dies_or_cannot_be_started_is_named(self) -> None:
        python, *arguments = self.command
        for text, python, words in (
            ('os.kill(os.getpid(), 11)', python, r'ERROR.*worker 0 .* ready: signal 11 \(Segm'),
            ('', '/none', r'ERROR.*worker 0 .* ready: it cannot be started: .*/none'),
        ):
            self.text, self.command = text, [python, *arguments]
            async with self.supervised() as task:
                self.assertEqual(2, await task)
            self.assertEqual(1, len(self.logged(words)), self.log.lines)

    async def test_one_of_the_others_that_cannot_start_ends_them_all(self) -> None:
        self.text = 'sys.exit(2) if told["slot"] else serve()'
        async with self.supervised() as task:
            self.assertEqual(2, await task)
        self.assertEqual(self.noted('start0'), self.noted('SIGTERM'))

    async def test_a_signal_before_all_are_ready_ends_it(self) -> None:
        self.text = 'serve(ready=False)'
        task = asyncio.create_task(self.supervise())
        await until(lambda: self.noted('start0'))
        self.send(signal.SIGTERM)
        self.assertEqual(0, await task)

    async def test_a_second_signal_ends_all_at_once(self) -> None:
        self.text = 'serve(leave=lambda: None)'
        async with self.supervised() as task:
            self.send(signal.SIGTERM)
            await until(lambda: len(self.noted('SIGTERM')) == 2)
            self.send(signal.SIGINT)
            async with asyncio.timeout(DEADLINE / 2):
                self.assertEqual(128 + signal.SIGINT, await task)

    async def test_a_worker_that_does_not_end_is_killed_at_the_deadline(self) -> None:
        self.text = 'serve(leave=(lambda: None) if told["slot"] else lambda: os._exit(0))'
        self.settings = ServiceSettings(processes=2, drain_delay=0.1, shutdown_deadline=0.1)
        with patch('addrservice.workers._END_MARGIN', 0.1):
            async with self.supervised() as task:
                start = time.monotonic()
                self.send(signal.SIGTERM)
                self.assertEqual(1, await task)
        self.assertGreater(time.monotonic() - start, 0.3)
        self.assertEqual(1, len(self.logged('ERROR.*worker 1 .* does not end: it is killed')))

    async def test_no_worker_outlives_a_supervisor_that_fails(self) -> None:
        async with self.supervised() as task:
            started = self.noted('start.')
            task.cancel()
            await asyncio.wait([task])
        for process in started:
            self.assertFalse(Path(f'/proc/{process}').exists())

    async def test_sigusr1_reaches_those_that_are_ready(self) -> None:
        """Others do not know of it yet and would be ended by it."""
        self.text = 'serve(ready=not os.path.exists(sys.argv[1] + ".later"))'
        async with self.supervised() as task:
            (self.folder / 'notes.later').touch()
            self.send(signal.SIGKILL, self.noted('start0')[0])
            await until(lambda: len(self.noted('start0')) == 2)
            self.send(signal.SIGUSR1)
            await until(lambda: self.noted('SIGUSR1'))
            self.send(signal.SIGUSR1)
            await until(lambda: len(self.noted('SIGUSR1')) == 2)
            self.send(signal.SIGTERM)
            await task
        self.assertEqual(set(self.noted('start1')), set(self.noted('SIGUSR1')))
        self.assertEqual([], self.logged(f'signal {int(signal.SIGUSR1)}'))


class SystemdTest(SupervisorTestCase):
    """What systemd hears of it."""

    async def test_it_is_told_of_the_start_of_reloads_and_of_the_end(self) -> None:
        path = str(self.folder / 'notify')
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver, \
                patch.dict(os.environ, NOTIFY_SOCKET=path):
            receiver.bind(path)
            receiver.settimeout(DEADLINE)
            hearing = asyncio.create_task(asyncio.to_thread(hear, receiver))
            async with self.supervised() as task:
                await self.reload()
                self.text = 'broken'
                await self.reload()
                self.send(signal.SIGTERM)
                await task
            heard = await hearing
        states = [state for state in heard if not state.startswith('STATUS')]
        self.assertEqual(['READY=1', *2 * ['RELOADING=1', 'READY=1'], 'STOPPING=1'], states)
        self.assertIn('STATUS=Workers that serve: 2', heard[:heard.index('READY=1')])
        self.assertEqual('STATUS=Workers that serve: 0', heard[-1])


def hear(receiver: socket.socket) -> list[str]:
    """The first lines of what is told to systemd, until nobody serves any more."""
    heard = ['']
    while 'STOPPING=1' not in heard or heard[-1] != 'STATUS=Workers that serve: 0':
        heard.append(receiver.recv(1000).decode().split('\n')[0])
    return heard[1:]
