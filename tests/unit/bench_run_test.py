"""How the benchmark runs its trials and the programs that these start, whatever becomes of them."""

import importlib
import io
import json
import os
import sys
import tempfile
import time
import unittest
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from bench import BenchError, programs, servers, trials, usage
from bench.harness import Bench, Result

FOUND = Result('requests per second', {'ours': [{'GET': 2000.0}]})


def find(_: Bench) -> Result:
    return FOUND


def miss(_: Bench) -> Result:
    raise BenchError('wrk has not ended')


def crash(_: Bench) -> Result:
    raise KeyError('Location')


class RunTest(unittest.TestCase):
    """``run.py bench`` with trials that take no time."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        # Only the environment of the benchmark has the library that draws.
        stand_in = mock.patch.dict(sys.modules, {'bench.plots': mock.Mock()})
        with stand_in:
            self.program = importlib.import_module('bench.__main__')
        self.enterContext(mock.patch.object(self.program, 'Bench'))
        self.enterContext(mock.patch.object(self.program.machine, 'describe', lambda *_: {}))
        self.enterContext(mock.patch.dict(os.environ))
        self.shown, self.said = io.StringIO(), io.StringIO()

    def run_trials(self, **found: object) -> int:
        """The exit status."""
        modules = {f'bench.trials.{name}': mock.Mock(run=run) for name, run in found.items()}
        names = mock.patch.object(trials, 'NAMES', tuple(found))
        with (mock.patch.dict(sys.modules, modules), names,
              redirect_stdout(self.shown), redirect_stderr(self.said)):
            status: int = self.program.main(
                ['--only', *found, '--results', str(self.folder)])
        return status

    def written(self) -> Mapping[str, Mapping[str, object]]:
        """The trials in the file."""
        text = (self.folder / 'results.json').read_text(encoding='utf-8')
        told: Mapping[str, Mapping[str, object]] = json.loads(text)['trials']
        return told

    def test_trials_that_find_something_are_a_success(self) -> None:
        """All of them are shown and written."""
        self.assertEqual(0, self.run_trials(sizes=find, work=find))
        self.assertEqual(['sizes', 'work'], [*self.written()])
        self.assertEqual(2, self.shown.getvalue().count('| ours |'))

    def test_a_trial_that_fails_costs_no_other(self) -> None:
        """Nor does one with a bug; both are told everywhere, and in the status."""
        self.assertEqual(1, self.run_trials(sizes=miss, work=crash, memory=find))
        written = self.written()
        self.assertEqual(({'failed': 'wrk has not ended'}, {'failed': "KeyError: 'Location'"}),
                         (written['sizes'], written['work']))
        self.assertIn('figures', written['memory'])
        self.assertIn('sizes: Failed: wrk has not ended', self.shown.getvalue())
        self.assertIn('Traceback', self.said.getvalue())
        self.assertTrue(self.said.getvalue().endswith('failed: sizes, work\n'))

    def test_what_was_found_is_there_when_the_next_trial_begins(self) -> None:
        """Ctrl-C, or the end of the machine, takes nothing of it."""
        def interrupt(_: Bench) -> Result:
            self.assertEqual(['sizes'], [*self.written()])
            raise KeyboardInterrupt

        self.assertEqual(130, self.run_trials(sizes=find, work=interrupt))
        self.assertEqual(['sizes'], [*self.written()])
        self.assertIn('## sizes', (self.folder / 'results.md').read_text(encoding='utf-8'))


class ProgramsTest(unittest.TestCase):
    def test_what_a_program_prints_is_given(self) -> None:
        """Without its complaints."""
        self.assertEqual('1\n', programs.output(['sh', '-c', 'echo 1; echo 2 >&2'], os.environ))

    def test_one_that_fails_is_told_with_what_it_printed(self) -> None:
        """On either of its outputs."""
        with self.assertRaisesRegex(BenchError, r'(?s)ended with 3: refused\nno route'):
            programs.output(['sh', '-c', 'echo refused; echo no route >&2; exit 3'], os.environ)

    def test_one_that_does_not_end_is_ended(self) -> None:
        """It is told which."""
        with self.assertRaisesRegex(BenchError, 'sleep has not ended'):
            programs.output(['sleep', '600'], os.environ, patience=0.01)

    def test_a_module_says_json_in_its_last_line(self) -> None:
        """Run by another command, if that is wanted."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, 'said.py').write_text(
                'import os, sys\nprint("hello")\nprint([*map(int, sys.argv[1:])], end="")\n',
                encoding='ascii')
            with mock.patch.object(programs, 'ROOT', Path(folder)):
                self.assertEqual([1, 2], programs.told('said', 1, 2))
                self.assertEqual([3], programs.told('said', 3, under=['env']))


class ServerTest(unittest.TestCase):
    """A program in place of a server."""

    def start(self, script: str) -> servers.Server:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        with mock.patch.object(servers, '_command', lambda *_: [sys.executable, '-c', script]):
            return self.enterContext(servers.Server('silent', servers.Setup(), Path(folder)))

    def test_one_that_never_answers_is_waited_for_until_a_deadline(self) -> None:
        """What it has logged last is told."""
        server = self.start('import sys, time; print("port 1", flush=True); '
                            'print("no disk", file=sys.stderr, flush=True); time.sleep(600)')
        self.enterContext(mock.patch.object(servers, '_PATIENCE', 0.0))
        with self.assertRaisesRegex(servers.ServerError, 'silent does not answer'):
            server.wait_until_ready()

    def test_one_that_has_ended_is_not_waited_for(self) -> None:
        """Whatever the deadline."""
        server = self.start('import sys; print("no disk", file=sys.stderr); print("port 1")')
        self.enterContext(mock.patch.object(servers, '_PATIENCE', 3600.0))
        with self.assertRaisesRegex(servers.ServerError, 'no disk'):
            server.wait_until_ready()


class UsageTest(unittest.TestCase):
    def test_processes_that_are_not_there_take_nothing(self) -> None:
        """The others do."""
        ended = 2**22 + 1  # Linux gives no such number
        self.assertEqual((0, 0), (usage.memory([ended]), usage.cpu_seconds([ended])))
        self.assertGreater(usage.memory([os.getpid(), ended]), 2**20)
        self.assertGreater(usage.cpu_seconds([os.getpid(), ended]), 0)

    def test_children_that_have_ended_count(self) -> None:
        """With their parent, and by themselves."""
        before = usage.cpu_seconds_of_ended()
        programs.output([sys.executable, '-c', 'sum(range(10**6))'], os.environ)
        children = usage.cpu_seconds_of_ended()
        self.assertGreater(children, before)
        alone = time.process_time()
        self.assertAlmostEqual(alone + children, usage.cpu_seconds([os.getpid()]), delta=0.1)


if __name__ == '__main__':
    unittest.main()
