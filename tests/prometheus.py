"""A real Prometheus for the tests, and its promtool: those of the system, Debian's ``prometheus``.

``with Prometheus(port) as prometheus`` scrapes the metrics port of a service as fast as it can.
"""

import json
import shutil
import signal
import subprocess
import tempfile
import unittest
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import yaml

from addrservice.tracing import AbstractTraceCollector, Span
from tests.postgresql import free_port
from tests.support import DEADLINE, ROOT, wait_until

FOLDER: Final = ROOT / 'deploy' / 'prometheus'
RULES: Final = FOLDER / 'recording.yml', FOLDER / 'alerts.yml'
COLLECTOR: Final = 'addrservice.collectors.prometheus.PrometheusCollector'
SCRAPE_INTERVAL: Final = '200ms'
PATIENCE: Final = 3 * DEADLINE  # seconds: on a busy machine it takes its time, too

Series = dict[tuple[str, ...], float]


def find(program: str) -> str:
    """Where a program is.

    :raises SkipTest: it is not installed
    """
    path = shutil.which(program)
    if path is None:
        raise unittest.SkipTest(f'{program} is not installed')
    return path


def promtool(*arguments: object, text: bytes = b'') -> str:
    """What promtool says, of its input too, if it finds nothing wrong.

    :raises AssertionError: with what it finds wrong
    """
    done = subprocess.run([find('promtool'), *map(str, arguments)], input=text,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=6 * DEADLINE)
    if done.returncode:
        raise AssertionError(done.stdout.decode())
    return done.stdout.decode()


class TraceIds(AbstractTraceCollector):
    """Gives each request a trace that is said to be kept: its request id, where that can be one."""

    def enter(self, span: Span) -> None:
        sent = span.carrier.get('X-Request-ID', '') if span.kind == 'server' else ''
        if len(sent) == 32:
            span.trace_id = sent
            span.traceresponse = f'00-{sent}-{sent[:16]}-01'

    def exit(self, span: Span) -> None:
        """Nothing: all is said."""


class Prometheus:
    """A server that scrapes one target, as the job ``addrservice``, and has the rules of the house.

    Entering it starts it; leaving it ends it and removes what it wrote. It looks at its targets
    for the first time after 5 s, so it had better be started before there is something to see.

    :param target: a port of 127.0.0.1
    """

    def __init__(self, target: int) -> None:
        self._program = find('prometheus')
        self._target = target
        self.port = free_port()

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory()
        self._folder = Path(self._temporary.name)
        with (self._folder / 'log').open('wb') as log:
            self._process = subprocess.Popen(
                [*_die_with_tests(), *self._command()], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True)
        try:
            wait_until(self._is_ready, PATIENCE)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, and removes what it wrote."""
        self._process.send_signal(signal.SIGKILL)  # nothing that it keeps is of use
        self._process.wait(DEADLINE)
        self._temporary.cleanup()

    def _command(self) -> list[str]:
        config = self._folder / 'prometheus.yml'
        config.write_text(yaml.safe_dump({
            'global': {'scrape_interval': SCRAPE_INTERVAL, 'evaluation_interval': SCRAPE_INTERVAL},
            'rule_files': [str(path) for path in RULES],
            'scrape_configs': [{
                'job_name': 'addrservice',
                'static_configs': [{'targets': [f'127.0.0.1:{self._target}']}],
            }],
        }), encoding='utf-8')
        return [self._program, f'--config.file={config}', f'--storage.tsdb.path={self._folder}',
                f'--web.listen-address=127.0.0.1:{self.port}',
                '--enable-feature=exemplar-storage', '--log.level=warn']

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError((self._folder / 'log').read_text(encoding='utf-8'))
        try:
            with urllib.request.urlopen(f'http://127.0.0.1:{self.port}/-/ready', timeout=DEADLINE):
                return True
        except OSError:
            return False

    def ask(self, path: str, parameters: Mapping[str, str]) -> Any:
        """What its HTTP API answers."""
        url = f'http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}'
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            return json.load(answer)['data']

    def query(self, expression: str, *labels: str) -> Series:
        """The values of an expression now, by those labels."""
        found = self.ask('query', {'query': expression})['result']
        return {tuple(sample['metric'].get(label, '') for label in labels):
                float(sample['value'][1]) for sample in found}

    def exemplars(self, expression: str) -> set[str]:
        """The trace ids of the exemplars that it keeps for the series of an expression."""
        found = self.ask('query_exemplars', {
            'query': expression, 'start': '0', 'end': '9999999999'})
        return {exemplar['labels']['trace_id'] for series in found
                for exemplar in series['exemplars']}


def _die_with_tests() -> list[str]:
    """Has the kernel end a program with the tests, even by kill -9, where util-linux is there."""
    setpriv = shutil.which('setpriv')
    return [setpriv, '--pdeathsig', 'KILL'] if setpriv else []
