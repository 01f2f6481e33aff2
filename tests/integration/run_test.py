"""run.py, in a tiny project of its own whose one requirement is a wheel made here: no network."""
import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from typing import Any

from tests.runner import processors
from tests.support import wait_until

ROOT = Path(__file__).parents[2]
RUN_PY = ROOT / 'run.py'
OWN_FILES = 'run.py', 'tests/__init__.py', 'tests/measuring.py', 'tests/runner.py'
SETUP_CFG = ROOT / 'setup.cfg'

# What the pretend service and the pretend benchmark do: they say how they were started.
SERVICE = """
import json, os, sys
from importlib import metadata
from pathlib import Path
stamp = Path(sys.prefix, '.stamp')
dummies = [found.version for found in metadata.distributions(name='dummy')]
print(json.dumps({'args': sys.argv[1:], 'pid': os.getpid(), 'cwd': os.getcwd(),
                  'prefix': sys.prefix, 'dummies': dummies,
                  'made': stamp.exists() and stamp.stat().st_mtime_ns}))
"""

PASSING = """
import unittest
class Case(unittest.TestCase):
    def test_one(self): self.assertEqual(1, 1)
    def test_two(self): self.assertEqual(2, 2)
"""

FAILING = """
import unittest
class Case(unittest.TestCase):
    def test_wrong(self): self.assertEqual(1, 2)
    def test_broken(self): raise KeyError
    def test_right(self): pass
    def test_parts(self):
        with self.subTest(part=1): self.fail()
    @unittest.skip('for now')
    def test_later(self): pass
    @unittest.expectedFailure
    def test_known(self): self.fail()
    @unittest.expectedFailure
    def test_fixed(self): pass
"""

SKIPPED = """
import unittest
class Case(unittest.TestCase):
    def test_one(self): pass
    @unittest.skip('no nginx here')
    def test_two(self): pass
"""

WARNING = """
import unittest, warnings
class Case(unittest.TestCase):
    def test_old(self): warnings.warn('old', DeprecationWarning)
"""

LEAKING = """
import unittest
class Case(unittest.TestCase):
    def test_file(self): open(__file__)
"""

# Two modules that look for each other, which takes two processes; each waits as long as it has to.
SOCIABLE = """
import pathlib, select, time, unittest
class Case(unittest.TestCase):
    def test_each_meets_the_other(self):
        folder = pathlib.Path(__file__).parent
        (folder / __name__).touch()
        end = time.monotonic() + 30
        while len(list(folder.glob('tests.unit.*'))) < 2:
            self.assertLess(time.monotonic(), end)
            select.select([], [], [], 0.01)
"""

FATAL = """
import os, unittest
class Case(unittest.TestCase):
    def test_end(self): os._exit(3)
"""

ENDLESS = """
import os, time, unittest
class Case(unittest.TestCase):
    def test_for_ever(self):
        print(os.getpid(), flush=True)
        time.sleep(60)
"""

FORGETFUL = """
import asyncio, unittest
class Case(unittest.TestCase):
    def test_coroutine(self): asyncio.sleep(0)
"""


def clean_environ(**extra: str) -> dict[str, str]:
    """The environment of a user who has set up nothing: neither Python, pip nor run.py."""
    ours = ('PYTHON', 'VIRTUAL_ENV', 'COVERAGE_', 'PIP_', 'ADDRSERVICE_')
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, 'PIP_CONFIG_FILE': os.devnull, **extra}


class Project:
    """A checkout with run.py, a service and one requirement, `dummy`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = folder / 'env'
        self.bench_env = folder / 'bench' / 'env'
        self.stamp = self.env / '.stamp'

    @classmethod
    def create(cls, folder: Path) -> 'Project':
        project = cls(folder)
        for path in OWN_FILES:
            project.write(path, (ROOT / path).read_text())
        project.write('addrservice/__main__.py', SERVICE)
        project.write('addrservice/__init__.py', '')
        project.write('requirements.txt', '-r deploy/requirements.txt  # nested\n')
        project.write('requirements.lock',
                      '--no-index\n--find-links wheels\n-r deploy/requirements.txt\n')
        project.require_dummy('1.0')
        project.write_wheel('1.0')
        return project

    def copy(self, folder: Path) -> 'Project':
        """Another with the same files: all that writes one makes it anew."""
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=os.link)
        return Project(folder)

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)

    def write_benchmark(self) -> None:
        """A pretend benchmark, which has the same requirement."""
        self.write('bench/__main__.py', SERVICE)
        self.write('bench/requirements.txt', '-r ../deploy/requirements.txt\n')
        self.write('bench/requirements.lock',
                   '--no-index\n--find-links wheels\n-r ../deploy/requirements.txt\n')

    def write_test(self, suite: str, text: str, name: str = 'some') -> None:
        """Makes the text the one test module of the suite that has this name."""
        self.write(f'tests/{suite}/__init__.py', '')
        self.write(f'tests/{suite}/{name}_test.py', text)

    def require_dummy(self, version: str) -> None:
        self.write('deploy/requirements.txt', f'# needed\ndummy=={version}  # for the test\n')

    def write_wheel(self, version: str) -> None:
        """A wheel with nothing but its own description, in wheels/."""
        info = f'dummy-{version}.dist-info'
        files = {
            f'{info}/METADATA': f'Metadata-Version: 2.1\nName: dummy\nVersion: {version}\n',
            f'{info}/WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
        }
        record = ''.join(f'{name},,\n' for name in [*files, f'{info}/RECORD'])
        wheel = self.folder / 'wheels' / f'dummy-{version}-py3-none-any.whl'
        wheel.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel, 'w') as archive:
            for name, text in [*files.items(), (f'{info}/RECORD', record)]:
                archive.writestr(name, text)

    def start(
        self, *args: str, python: Path | str = sys.executable, cwd: Path | None = None, **env: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [python, self.folder / 'run.py', *args], cwd=cwd or self.folder,
            env=clean_environ(**env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True)

    def run(self, *args: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return ended(self.start(*args, **how))


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """What the process came to; kills all of it if it does not end in time."""
    with process:
        try:
            out, err = process.communicate(timeout=60)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class RunTestCase(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix='run-test-')
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name).resolve()

    def project(self) -> Project:
        return Project.create(self.folder / 'project')

    def hide_ensurepip(self, project: Project) -> str:
        """A PYTHONPATH on which ensurepip cannot be imported, as if it were not installed."""
        project.write('hidden/ensurepip.py', 'raise ImportError("No module named ensurepip")')
        return str(project.folder / 'hidden')

    def said(self, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
        """What the service said of itself, when it was started as it should."""
        self.assertEqual(0, done.returncode, done.stderr)
        return dict(json.loads(done.stdout))

    def assert_refused(
        self, done: subprocess.CompletedProcess[str], *words: str, env: str = './env'
    ) -> None:
        """Status 2, and one line that says why, after the line that announced the set-up."""
        self.assertEqual(2, done.returncode, done.stderr)
        announced, reason = done.stderr.splitlines()
        self.assertIn(f'Setting up {env} ', announced)
        for word in words:
            self.assertIn(word, reason)

    def assert_makes_env(self, project: Project) -> None:
        """That it would be made: it is tried, which here is all that takes no seconds."""
        done = project.run('serve', PYTHONPATH=self.hide_ensurepip(project))
        self.assert_refused(done, 'ensurepip')


@unittest.skipUnless(importlib.util.find_spec('ensurepip'), 'this Python cannot make environments')
class SetUpTest(RunTestCase):
    first: Project
    first_runs: list[subprocess.CompletedProcess[str]]
    incomplete: Project
    incomplete_run: subprocess.CompletedProcess[str]

    @classmethod
    def setUpClass(cls) -> None:
        """Makes what takes seconds to make: an environment, and most of another, at once."""
        temporary = tempfile.TemporaryDirectory(prefix='run-test-')
        cls.addClassCleanup(temporary.cleanup)
        cls.first, cls.incomplete = (
            Project.create(Path(temporary.name).resolve() / name)
            for name in ('first', 'incomplete'))
        cls.first.write('env/old', '')
        cls.incomplete.write_benchmark()
        cls.incomplete.require_dummy('3.0')
        starting = [*(cls.first.start('serve', '--port', str(port), '--help') for port in (1, 2)),
                    cls.incomplete.start('bench')]
        *cls.first_runs, cls.incomplete_run = map(ended, starting)

    def assert_runs_in_own_env(
        self, project: Project, done: subprocess.CompletedProcess[str]
    ) -> None:
        said = self.said(done)
        self.assertEqual((str(project.env), ['1.0']), (said['prefix'], said['dummies']))

    def test_the_first_run_sets_up_env_and_starts_the_service_in_it(self) -> None:
        """A first run says in one line what it does, and passes all arguments on."""
        done = self.first_runs[0]
        self.assert_runs_in_own_env(self.first, done)
        self.assertEqual(['--port', '1', '--help'], self.said(done)['args'])
        self.assertEqual(1, len(done.stderr.splitlines()), done.stderr)

    def test_what_was_in_env_before_is_gone(self) -> None:
        """Else what is no longer required would stay."""
        self.assertFalse((self.first.env / 'old').exists())

    def test_two_first_runs_at_once_both_succeed(self) -> None:
        """The two of this class were started together; ./env was made once, and serves both."""
        for done in self.first_runs:
            self.assert_runs_in_own_env(self.first, done)
        one, other = [self.said(done)['made'] for done in self.first_runs]
        self.assertEqual(one, other)

    def test_the_benchmark_has_an_environment_of_its_own(self) -> None:
        """It is set up as ./env is, which is neither made nor needed; what fails is one line."""
        self.assert_refused(self.incomplete_run, 'cannot install bench/requirements.lock',
                            'No matching distribution found for dummy==3.0', 'network',
                            env='./bench/env')
        self.assertFalse((self.incomplete.bench_env / '.stamp').exists())
        self.assertFalse(self.incomplete.env.exists())

    def test_a_benchmark_whose_environment_is_there_sets_nothing_up(self) -> None:
        """It runs there and gets all arguments."""
        project = self.first.copy(self.folder / 'project')
        project.write_benchmark()
        project.env.rename(project.bench_env)
        done = project.run('bench', '--quick')
        said = self.said(done)
        self.assertEqual((str(project.bench_env), ['1.0'], ['--quick']),
                         (said['prefix'], said['dummies'], said['args']))
        self.assertEqual('', done.stderr)

    def test_a_second_run_sets_nothing_up(self) -> None:
        """With nothing left to install from, a second run starts at once and in silence."""
        project = self.first.copy(self.folder / 'project')
        shutil.rmtree(project.folder / 'wheels')
        before = project.stamp.stat()
        done = project.run('serve')
        self.assert_runs_in_own_env(project, done)
        self.assertEqual('', done.stderr)
        self.assertEqual(before.st_mtime_ns, project.stamp.stat().st_mtime_ns)

    def test_env_itself_is_told_apart_and_used(self) -> None:
        """Called with the interpreter of ./env, run.py goes on in it."""
        done = self.first.run('serve', python=self.first.env / 'bin' / 'python')
        self.assert_runs_in_own_env(self.first, done)
        self.assertEqual('', done.stderr)

    def test_a_half_made_env_is_made_again(self) -> None:
        """An ./env that a killed run left without its stamp is not trusted."""
        project = self.first.copy(self.folder / 'project')
        project.require_dummy('2.0')
        with project.start('serve') as killed:
            wait_until(lambda: not project.stamp.exists())
            os.killpg(killed.pid, signal.SIGKILL)
        self.assert_makes_env(project)

    def test_changed_requirements_make_env_again(self) -> None:
        """After a new pin it is not what the stamp says any more."""
        project = self.first.copy(self.folder / 'project')
        project.require_dummy('2.0')
        self.assert_makes_env(project)

    def test_a_changed_comment_keeps_env(self) -> None:
        """What does not change what is asked for does not cost a new ./env."""
        project = self.first.copy(self.folder / 'project')
        project.write('deploy/requirements.txt', 'dummy==1.0  # in other words\n')
        done = project.run('serve')
        self.assert_runs_in_own_env(project, done)
        self.assertEqual('', done.stderr)

    def test_a_python_without_ensurepip_is_told_in_one_line(self) -> None:
        """Where Debian left ensurepip out, the line names the package to install."""
        project = self.project()
        done = project.run('serve', PYTHONPATH=self.hide_ensurepip(project))
        self.assert_refused(done, 'ensurepip', 'python3-venv')
        self.assertFalse(project.env.exists())

    def test_an_env_that_cannot_be_made_is_told_in_one_line(self) -> None:
        """Whatever the file system refuses, it is one line and no traceback."""
        project = self.project()
        project.write('env', 'a file in the way')
        self.assert_refused(project.run('serve'), 'Not a directory', str(project.env))

    def test_an_interrupted_set_up_ends_with_130(self) -> None:
        """Ctrl-C during the set-up leaves one line, no traceback, and the status shells expect."""
        # A child started while SIGINT is ignored, as in a shell's background job, ignores it too.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        with self.project().start('serve') as process:
            assert process.stderr
            process.stderr.readline()
            os.killpg(process.pid, signal.SIGINT)
            rest = process.stderr.read()
        self.assertEqual((130, 'run.py: interrupted\n'), (process.returncode, rest))

    def test_an_environment_that_has_the_requirements_is_used(self) -> None:
        """No ./env appears beside an interpreter that has all pins; for another pin it would."""
        project = self.project()
        done = project.run('serve', python=self.first.env / 'bin' / 'python')
        self.assertEqual(str(self.first.env), self.said(done)['prefix'])
        self.assertEqual('', done.stderr)
        self.assertFalse(project.env.exists())

    def test_serve_asks_only_for_what_the_service_needs(self) -> None:
        """A requirement of developers alone does not keep the service from an interpreter."""
        project = self.project()
        project.write('requirements.txt', '-r deploy/requirements.txt\nabsent==1.0\n')
        python = self.first.env / 'bin' / 'python'
        self.assertEqual(['1.0'], self.said(project.run('serve', python=python))['dummies'])
        hidden = self.hide_ensurepip(project)
        self.assert_refused(project.run('test', python=python, PYTHONPATH=hidden), 'ensurepip')


class InstalledTest(RunTestCase):
    """What the interpreter has, besides its own, in folders of PYTHONPATH."""

    def serve(self, *descriptions: str) -> tuple[Project, subprocess.CompletedProcess[str]]:
        """Where these describe packages, each in a folder of its own; ./env cannot be made."""
        project = self.project()
        project.write('deploy/requirements.txt', 'a-dummy==1.0\n')
        for place, name in enumerate(descriptions):
            project.write(f'{place}/{name}/METADATA', '')
        places = [*(str(project.folder / str(place)) for place in range(len(descriptions))),
                  str(project.folder / 'nowhere'), self.hide_ensurepip(project)]
        return project, project.run('serve', PYTHONPATH=os.pathsep.join(places))

    def test_a_package_is_found_in_whatever_spelling(self) -> None:
        """As installers of today write the name, and those of yesterday and of Debian."""
        for name in ('a_dummy-1.0.dist-info', 'A.Dummy-1.0.dist-info', 'a_dummy-1.0.egg-info',
                     'a_dummy-1.0-py3.11.egg-info'):
            with self.subTest(name=name):
                project, done = self.serve(name)
                self.assertEqual(sys.prefix, self.said(done)['prefix'])
                self.assertFalse(project.env.exists())
                shutil.rmtree(project.folder)

    def test_another_version_or_package_is_not_enough(self) -> None:
        """Nor the right version behind a wrong one, which is what would be imported."""
        for names in (['a_dummy-2.0.dist-info', 'a_dummy-1.0.dist-info'],
                      ['a_dummy-1.0.post1.dist-info'], ['a_dummy.dist-info'],
                      ['dummy-1.0.dist-info'], ['a_dummy-1.0']):
            with self.subTest(names=names):
                project, done = self.serve(*names)
                self.assert_refused(done, 'ensurepip')
                shutil.rmtree(project.folder)


class SetUpOffTestCase(RunTestCase):
    """With ADDRSERVICE_SETUP=off, in the interpreter of this test."""

    def setUp(self) -> None:
        super().setUp()
        self.checkout = self.project()

    def run_py(self, *args: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return self.checkout.run(*args, ADDRSERVICE_SETUP='off', **how)


class ServeTest(SetUpOffTestCase):
    def test_set_up_off_uses_the_interpreter_as_it_is(self) -> None:
        """The requirements are missing, and yet the service starts and no ./env appears."""
        said = self.said(self.run_py('serve'))
        self.assertEqual((sys.prefix, []), (said['prefix'], said['dummies']))
        self.assertFalse(self.checkout.env.exists())

    def test_serve_becomes_the_service(self) -> None:
        """The service has the process id that was started, so signals reach it."""
        process = self.checkout.start('serve', ADDRSERVICE_SETUP='off')
        self.assertEqual(process.pid, self.said(ended(process))['pid'])

    def test_serve_stays_in_the_working_directory(self) -> None:
        """A relative path is the caller's, and a package of the same name there is not run."""
        elsewhere = self.folder / 'elsewhere'
        (elsewhere / 'addrservice').mkdir(parents=True)
        (elsewhere / 'addrservice' / '__init__.py').touch()
        (elsewhere / 'addrservice' / '__main__.py').write_text('raise SystemExit("wrong one")')
        self.assertEqual(str(elsewhere), self.said(self.run_py('serve', cwd=elsewhere))['cwd'])


class OldPythonTest(unittest.TestCase):
    def test_an_older_python_can_parse_run_py(self) -> None:
        """Syntax newer than Python 3.8 would end in a traceback in place of the reason."""
        ast.parse(RUN_PY.read_text(), feature_version=(3, 8))

    def test_an_older_python_is_refused_in_one_line(self) -> None:
        """Below Python 3.11: which one is needed, which one this is, status 2."""
        pretend = ('import runpy, sys; sys.version_info = (3, 10, 1); sys.version = "3.10.1 (old)";'
                   f'runpy.run_path({str(RUN_PY)!r}, run_name="__main__")')
        done = subprocess.run([sys.executable, '-c', pretend], env=clean_environ(),
                              capture_output=True, text=True)
        self.assertEqual(2, done.returncode)
        self.assertEqual('run.py: Python 3.11 or newer is needed; this is 3.10.1\n', done.stderr)


class CommandTest(SetUpOffTestCase):
    def assert_outcome(
        self, done: subprocess.CompletedProcess[str], status: int, tally: str
    ) -> None:
        self.assertEqual((status, tally + '\n'), (done.returncode, done.stdout), done.stderr)

    def test_passing_tests_are_counted(self) -> None:
        """Status 0 and the count as the last line."""
        self.checkout.write_test('unit', PASSING)
        self.assert_outcome(self.run_py('test'), 0, '2 passed, 0 failed')

    def test_failing_tests_are_counted(self) -> None:
        """Errors and unexpected successes fail, expected failures pass, skipped ones are named."""
        self.checkout.write_test('unit', FAILING)
        self.assert_outcome(self.run_py('test'), 1, '2 passed, 4 failed, 1 skipped')

    def test_a_skipped_test_fails_where_none_may_be(self) -> None:
        """With --no-skips, which names it and its reason."""
        self.checkout.write_test('unit', SKIPPED)
        self.assert_outcome(self.run_py('test'), 0, '1 passed, 0 failed, 1 skipped')
        done = self.run_py('test', '--no-skips')
        self.assert_outcome(done, 1, '1 passed, 1 failed, 1 skipped')
        self.assertIn('tests.unit.some_test.Case.test_two was skipped: no nginx here', done.stderr)

    def test_a_module_that_cannot_be_imported_fails(self) -> None:
        """A broken test module is a failure, not an absence of tests."""
        self.checkout.write_test('unit', 'import nothing_of_that_name')
        self.assert_outcome(self.run_py('test'), 1, '0 passed, 1 failed')

    def test_no_tests_are_a_failure(self) -> None:
        """With nothing to run, a clear line and status 1, whatever the reason."""
        self.assertIn('no test was found in tests', self.run_py('test').stderr)
        self.checkout.write_test('unit', PASSING)
        done = self.run_py('test', '--suite', 'integration')
        self.assertEqual(1, done.returncode)
        self.assertIn('no test was found in tests/integration', done.stderr)

    def test_suite_selects_the_tests(self) -> None:
        """--suite runs one folder of the tests, all of them by default."""
        self.checkout.write_test('unit', PASSING)
        self.checkout.write_test('integration', FAILING)
        self.assert_outcome(self.run_py('test', '--suite', 'unit'), 0, '2 passed, 0 failed')
        integration = self.run_py('test', '--suite', 'integration')
        self.assert_outcome(integration, 1, '2 passed, 4 failed, 1 skipped')
        self.assert_outcome(self.run_py('test'), 1, '4 passed, 4 failed, 1 skipped')

    def test_verbose_names_each_test(self) -> None:
        """With -v each test is named by the dotted path that it can be run by."""
        self.checkout.write_test('unit', PASSING)
        self.assertIn('tests.unit.some_test.Case.test_one', self.run_py('test', '-v').stderr)

    def test_a_warning_fails_the_test(self) -> None:
        """Warnings are errors, those that Python hides by default too."""
        self.checkout.write_test('unit', WARNING)
        self.assert_outcome(self.run_py('test'), 1, '0 passed, 1 failed')

    def test_a_warning_on_import_fails_the_module(self) -> None:
        """What a test module imports may not warn either."""
        self.checkout.write_test('unit', 'import warnings; warnings.warn("old")\n' + PASSING)
        self.assert_outcome(self.run_py('test'), 1, '0 passed, 1 failed')

    def test_what_is_left_open_fails_the_run(self) -> None:
        """An unclosed file and a forgotten coroutine count, though no test can see them."""
        for module in (LEAKING, FORGETFUL):
            with self.subTest(module=module):
                self.checkout.write_test('unit', module)
                self.assert_outcome(self.run_py('test'), 1, '1 passed, 1 failed')

    @unittest.skipIf(processors() == 1, 'there is one processor')
    def test_modules_are_run_at_the_same_time(self) -> None:
        """As many as there are processors; all are counted."""
        for name in ('some', 'other'):
            self.checkout.write_test('unit', SOCIABLE, name)
        self.assert_outcome(self.run_py('test'), 0, '2 passed, 0 failed')

    def test_a_module_that_ends_its_process_fails_and_the_others_are_run(self) -> None:
        """Whichever process they are given to."""
        for name in ('a', 'c', 'd'):
            self.checkout.write_test('unit', PASSING, name)
        self.checkout.write_test('unit', FATAL, 'b')
        done = self.run_py('test')
        self.assert_outcome(done, 1, '6 passed, 1 failed')
        self.assertIn('tests.unit.b_test:\nits process has ended with status 3', done.stderr)

    def test_a_process_that_fails_after_its_last_module_fails_the_run(self) -> None:
        """That all tests have passed is not enough."""
        self.checkout.write_test(
            'unit', 'import atexit, os\natexit.register(os._exit, 3)' + PASSING)
        done = self.run_py('test')
        self.assertEqual(2, done.returncode)
        self.assertIn('a process of the tests has ended with status 3', done.stderr)

    def test_an_interrupt_ends_all_processes(self) -> None:
        """Ctrl-C leaves one line and no process, although only run.py is sent the signal."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # see SetUpTest
        self.addCleanup(signal.signal, signal.SIGINT, before)
        self.checkout.write_test('unit', ENDLESS)
        with self.checkout.start('test', ADDRSERVICE_SETUP='off') as process:
            assert process.stdout and process.stderr
            pid = int(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        self.assertEqual((130, 'run.py: interrupted\n'), (process.returncode, rest))
        with self.assertRaises(ProcessLookupError):
            os.kill(pid, 0)

    def test_lint_returns_the_status_of_what_it_ran(self) -> None:
        """0 for clean code, 1 once a file breaks a rule."""
        self.checkout.write('setup.cfg', SETUP_CFG.read_text())
        self.checkout.write('addrservice/__main__.py', '')
        self.assertEqual(0, self.run_py('lint').returncode)
        self.checkout.write('addrservice/__main__.py', 'import os\n')
        done = self.run_py('lint')
        self.assertEqual(1, done.returncode)
        self.assertIn('F401', done.stdout)

    def test_coverage_fails_for_a_gap_and_for_a_failed_test(self) -> None:
        """0 when all is reached, 2 when something is not, 1 when a test fails, whatever else."""
        self.checkout.write('setup.cfg', SETUP_CFG.read_text())
        self.checkout.write('addrservice/__init__.py', 'reached = True\n')
        for service, tests, status in (
            ('print("not reached")\n', PASSING, 2), ('', PASSING, 0), ('', FAILING, 1),
        ):
            with self.subTest(status=status):
                self.checkout.write('addrservice/__main__.py', service)
                self.checkout.write_test('unit', 'import addrservice\n' + tests)
                done = self.run_py('coverage')
                self.assertEqual(status, done.returncode, done.stdout)
                self.assertIn('TOTAL', done.stdout)

    def test_an_unknown_command_is_refused_with_the_usage(self) -> None:
        """No command, an unknown one or an unknown option: usage and status 2, no set-up."""
        for args in ([], ['bogus'], ['lint', '--bogus']):
            with self.subTest(args=args):
                done = self.checkout.run(*args)
                self.assertEqual(2, done.returncode)
                self.assertIn('usage: run.py', done.stderr)
                self.assertFalse(self.checkout.env.exists())

    def test_help_lists_the_commands_a_line_each(self) -> None:
        """--help works before anything is set up."""
        lines = self.checkout.run('--help').stdout.splitlines()
        for command in ('serve', 'bench', 'test', 'lint', 'typecheck', 'coverage'):
            described = [line for line in lines if line.startswith(f'    {command} ')]
            self.assertEqual(1, len(described), lines)


if __name__ == '__main__':
    unittest.main()
