"""The README is true: its curl session prints what it says, its excerpts stand in the code."""

import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.postgresql import free_port
from tests.support import DEADLINE, ROOT, running_server

README = (ROOT / 'README.md').read_text(encoding='utf-8')
END = '-- end of a command --'

# What differs from run to run, and what it is shown as.
VARYING = (
    (r'\b[0-9a-f]{32}\b', '<id>'),
    (r'(?m)^Date: .*$', 'Date: <date>'),
    (r'"uptime":\d+', '"uptime":<ms>'),
    (r'(?m)^Last-Modified: .*$', 'Last-Modified: <date>'),
    (r'"\d{16}"', '"<version>"'),
    (r'(?m)^Content-Length: \d+$', 'Content-Length: <bytes>'),
    (r'in \d+\.\d s \(\d+ per second\)', 'in <time>'),
)

# What the walk in chapter 9 uses of the machine.
FOLDER = '/tmp/addressbook'
SECURED = 'configs/addressbook-secured.yaml'
PORTS = ('8443', '9100')


def blocks(language: str) -> list[str]:
    """The text of each code block in that language."""
    return re.findall(rf'(?ms)^```{language}\n(.*?)^```$', README)


def steps(session: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what it prints."""
    for step in re.split(r'(?m)^\$ ', session)[1:]:
        command, _, output = step.partition('\n')
        yield command, output.rstrip('\n')


def masked(output: str) -> str:
    for pattern, replacement in VARYING:
        output = re.sub(pattern, replacement, output)
    return output


def run_session(commands: list[str], replaced: dict[str, str]) -> list[str]:
    """What each command prints, all in one shell, in the folder of the README.

    :param replaced: what stands for what is in the commands
    """
    script = '\n'.join(f"{command}\necho '{END}'" for command in commands)
    for shown, ours in replaced.items():
        script = script.replace(shown, ours)
    with tempfile.TemporaryFile('w+') as output:  # a service left behind would hold a pipe
        subprocess.run(['bash', '-c', script], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
                       stderr=subprocess.DEVNULL, timeout=3 * DEADLINE, check=True)
        output.seek(0)
        printed = output.read()
    for shown, ours in replaced.items():
        printed = printed.replace(ours, shown)
    return [text.rstrip('\n') for text in printed.split(f'{END}\n')[:-1]]


class ReadmeTest(unittest.TestCase):
    """What a reader may rely on."""

    @unittest.skipUnless(shutil.which('curl'), 'the session is one of curl')
    def test_the_session_prints_what_the_readme_shows(self) -> None:
        session = [step for block in blocks('console') for step in steps(block)]
        self.assertTrue(session)
        with running_server() as server:
            self.assert_prints_what_is_shown(
                session, {'localhost:8080': f'localhost:{server.port}'})

    @unittest.skipUnless(shutil.which('curl') and shutil.which('openssl'),
                         'the walk is one of curl and openssl')
    def test_the_walk_in_production_prints_what_the_readme_shows(self) -> None:
        session = [step for block in blocks('terminal') for step in steps(block)]
        self.assertTrue(session)
        with tempfile.TemporaryDirectory() as parent:
            folder = f'{parent}/book'
            ours = {FOLDER: folder, SECURED: f'{parent}/config.yaml',
                    'python3 ': f'{sys.executable} ', **{port: str(free_port()) for port in PORTS}}
            config = (ROOT / SECURED).read_text(encoding='utf-8')
            for shown in (FOLDER, *PORTS):
                config = config.replace(shown, ours[shown])
            Path(ours[SECURED]).write_text(config, encoding='utf-8')
            self.assert_prints_what_is_shown([('exec 2>&1', ''), *session], ours)

    def assert_prints_what_is_shown(
        self, session: list[tuple[str, str]], replaced: dict[str, str]
    ) -> None:
        printed = run_session([command for command, _ in session], replaced)
        for (command, shown), output in zip(session, printed, strict=True):
            with self.subTest(command):
                self.assertEqual(masked(shown), masked(output))

    def test_each_python_excerpt_stands_in_the_code(self) -> None:
        code = [path.read_text(encoding='utf-8')
                for folder in ('addrservice', 'tests') for path in (ROOT / folder).rglob('*.py')]
        for excerpt in blocks('python'):
            with self.subTest(excerpt):
                self.assertTrue(any(stands_in(excerpt, text) for text in code))


def stands_in(excerpt: str, text: str) -> bool:
    """Whether an excerpt is in a text, at whatever indentation."""
    return any(textwrap.indent(excerpt, ' ' * depth).strip() in text for depth in (0, 4, 8))
