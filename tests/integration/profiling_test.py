"""Profiles of the service as a process, by SIGUSR1."""

import signal
import tempfile
import unittest
from contextlib import closing
from pathlib import Path

from tests.speedscope import frame_names, read_speedscope
from tests.support import ServerProcess, running_server, wait_until


class SignalTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def keep_busy(self, server: ServerProcess) -> None:
        """Asks until it must have been seen at work."""
        with closing(server.connect()) as connection:
            for _ in range(500):
                connection.request('GET', '/addressbook/nobody')
                answer = connection.getresponse()
                answer.read()
                self.assertEqual(404, answer.status)

    def profile(self) -> list[str]:
        """The functions in the profile, which is checked."""
        file, = self.folder.glob('*.speedscope.json')
        page, = self.folder.glob('*.html')
        self.assertIn('get_entry', page.read_text(encoding='utf-8'))
        return frame_names(read_speedscope(file))

    def test_sigusr1_starts_a_profile_and_ends_it(self) -> None:
        with running_server(profiling={'folder': str(self.folder), 'interval': 0.0001}) as server:
            server.process.send_signal(signal.SIGUSR1)
            self.keep_busy(server)
            server.process.send_signal(signal.SIGUSR1)
            wait_until(lambda: len([*self.folder.iterdir()]) == 2)
            self.keep_busy(server)
            self.assertEqual(0, server.stop())
        self.assertIn('AddressBookService.get_entry', self.profile())

    def test_one_that_runs_at_the_end_is_written(self) -> None:
        settings = {'folder': str(self.folder), 'interval': 0.0001, 'at-start': True}
        with running_server(profiling=settings) as server:
            self.keep_busy(server)
            self.assertEqual(0, server.stop())
        self.assertIn('AddressBookService.get_entry', self.profile())

    def test_a_folder_that_is_not_there_stops_nobody(self) -> None:
        with running_server(profiling={'folder': '/nowhere', 'at-start': True}) as server:
            self.keep_busy(server)
            server.process.send_signal(signal.SIGUSR1)
            self.keep_busy(server)
            self.assertEqual(0, server.stop())
        self.assertEqual(1, server.stderr.count('the profile could not be written'))


if __name__ == '__main__':
    unittest.main()
