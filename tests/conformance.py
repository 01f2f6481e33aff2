"""The service does what its OpenAPI document says: Schemathesis tries to find where it does not.

For each backend, the service runs as a process with some entries in its book. Schemathesis reads
the document and sends what it makes of it: the examples, the limits of every parameter and
member, random requests that the document allows and random ones that it does not, and sequences
of requests in which one answer leads to the next. All of its checks look at every answer.

A run counts only if it was whole: every operation tested, every phase gone through, as many cases
as were asked for, and no error in the log of the service, which has to end in good order.

Schemathesis is a program of its own here, because it needs another version of jsonschema-rs than
the service has. So it is installed aside, and run in the root of the repository by the Python that
has the requirements:

    python3 -m venv /tmp/schemathesis
    /tmp/schemathesis/bin/pip install -r tests/conformance-requirements.txt
    env/bin/python -m tests.conformance --schemathesis /tmp/schemathesis/bin/schemathesis
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

from tests.postgresql import ENVIRONMENT, PostgreSQL
from tests.support import JSON, ServerProcess, address, config_document, running_server

CASES: Final = 2000
ENTRIES: Final = 20  # of each kind, put into the book before a run, which deletes some

SHOWN: Final = 10  # gaps
WIDTH: Final = 1000  # characters of a line that Schemathesis writes: it can be a whole entry

# Warnings that none of the few random requests to an operation has succeeded; of all of the
# requests in all of the runs, one has to: see conformance_test.
CHANCE: Final = ('missing_test_data', 'validation_mismatch')

# What Schemathesis is told, where its defaults are not right here; {...} is filled in.
CONFIGURATION: Final = '''
# What is made up is no entry's id, and asks for a state that no entry is in; a random key never
# comes again.
[dictionaries]
ids.values = {ids}
conditions.values = ["*"]
dates.values = ["Thu, 31 Dec 2099 23:59:59 GMT"]
keys.values = ["first", "second", "third"]

[parameters]
"path.id" = {{dictionary = "ids", probability = 0.7}}
"header.If-Match" = {{dictionary = "conditions", probability = 0.7}}
"header.If-None-Match" = {{dictionary = "conditions", probability = 0.1}}
"header.If-Unmodified-Since" = {{dictionary = "dates", probability = 0.7}}
"header.Idempotency-Key" = {{dictionary = "keys", probability = 0.3}}

# Sequences of requests: with fewer, few would use what an earlier request has deleted.
[phases.stateful.generation]
max-examples = {sequences}

# Stricter than the defaults, which have room for authentication, conflicts and failures.
[checks]
enabled = true
positive_data_acceptance.expected-statuses = ["2xx", "304"]
negative_data_rejection.expected-statuses = ["400", "404", "405", "415"]

# Whether there is such an entry, and in the state that a precondition asks for, is beyond a schema.
[[operations]]
include-path = "/addressbook/{{id}}"
checks.positive_data_acceptance.expected-statuses = ["2xx", "304", "404", "412"]

# Beyond a schema is also whether there still is the entry after which a search is to go on,
[[operations]]
include-name = ["GET /addressbook", "HEAD /addressbook"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "404"]

# and whether a key was used before.
[[operations]]
include-name = "POST /addressbook"
checks.positive_data_acceptance.expected-statuses = ["2xx", "422"]

# OPTIONS tells what a path can do (RFC 9110, 9.3.7), not that there is something: it is no use of
# what was deleted. The other methods are held to that.
[[operations]]
include-method = "OPTIONS"
checks.use_after_free.enabled = false
'''


@contextmanager
def in_memory(_: Path) -> Iterator[dict[str, Any]]:
    """A store in the process of the service, as its section of the configuration."""
    yield {'memory': None}


@contextmanager
def on_sqlite(folder: Path) -> Iterator[dict[str, Any]]:
    """A file, as the section of the configuration."""
    yield {'sql': {'dsn': f'sqlite://{folder / "addressbook.db"}'}}


@contextmanager
def on_postgresql(_: Path) -> Iterator[dict[str, Any]]:
    """A server, as the section of the configuration."""
    with mock.patch.dict(os.environ, ENVIRONMENT), PostgreSQL(fsync='off') as server:
        yield {'sql': {'dsn': server.dsn}}


Backend = Callable[[Path], AbstractContextManager[dict[str, Any]]]

BACKENDS: Final[dict[str, Backend]] = {
    'memory': in_memory, 'sqlite': on_sqlite, 'postgresql': on_postgresql}


@dataclass
class Report:
    """What came of one backend.

    :param cases: how many were generated
    :param failures: what the checks have found, each once
    :param gaps: why the run is no proof: what was left out, or went wrong besides
    :param succeeded: operations of which a request did what it asked for
    :param output: what Schemathesis says of each failure, with a command to reproduce it
    """

    cases: int = 0
    operations: int = 0
    failures: int = 0
    gaps: list[str] = field(default_factory=list)
    succeeded: set[str] = field(default_factory=set)
    output: str = ''

    @property
    def passed(self) -> bool:
        """Whether there is nothing to complain of."""
        return not self.failures and not self.gaps

    def __str__(self) -> str:
        return (f'{self.cases:,} cases for {self.operations} operations, '
                f'{self.failures} failures, {len(self.gaps)} gaps')


class Schemathesis:
    """The program, in front of a server.

    :param program: its path
    :param folder: where it may leave what it likes
    :param report: what the runs are added to
    """

    def __init__(self, program: str, server: ServerProcess, folder: Path, report: Report) -> None:
        self._program = program
        self._server = server
        self._folder = folder
        self._report = report

    def run(
        self, phases: Sequence[str], examples: int, seed: int, optional_headers: bool = True
    ) -> None:
        """Makes a run.

        :param examples: random cases for each operation, at the most
        :param optional_headers: whether header fields that may be left out are in the requests
        """
        ids = fill(self._server)
        summary = self._folder / 'summary.json'
        summary.unlink(missing_ok=True)
        done = subprocess.run(
            [self._program, '--config-file', self._write_configuration(ids, max(40, 4 * examples)),
             '--no-color', 'run', self._write_document(ids, optional_headers),
             f'--url=http://127.0.0.1:{self._server.port}',
             f'--phases={",".join(phases)}', f'--max-examples={examples}', f'--seed={seed}',
             '--continue-on-failure', '--report=json', f'--report-json-path={summary}'],
            cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding='utf-8', errors='replace')
        self._report.output += done.stdout
        if summary.exists():
            self._add(json.loads(summary.read_text(encoding='utf-8')), phases)
        if done.returncode and self._report.passed:
            self._report.gaps.append(f'Schemathesis ended with status {done.returncode}')

    def _write_configuration(self, ids: Sequence[str], sequences: int) -> str:
        path = self._folder / 'schemathesis.toml'
        path.write_text(CONFIGURATION.format(ids=json.dumps(ids), sequences=sequences),
                        encoding='utf-8')
        return str(path)

    def _write_document(self, ids: Sequence[str], optional_headers: bool) -> str:
        """The document as a file: given its address, Schemathesis would leave that path out."""
        document = json.loads(request(self._server, 'GET', '/openapi.json').body)
        parameters = document['components']['parameters']
        # Many requests have these examples: let them be about an entry that is there.
        parameters['id']['example'] = ids[0]
        parameters['If-Match']['example'] = '*'
        if not optional_headers:
            remove_header_parameters(document)
        path = self._folder / 'openapi.json'
        path.write_text(json.dumps(document), encoding='utf-8')
        return str(path)

    def _add(self, summary: dict[str, Any], phases: Sequence[str]) -> None:
        self._report.cases += summary['test_cases']['generated']
        self._report.operations = summary['operations']['total']
        self._report.failures += summary['test_cases']['unique_failures']
        self._report.gaps += gaps(summary, phases)
        self._report.succeeded |= {
            operation for operation, rates in summary['valid_rates'].items()
            if any(rate['accepted'] for rate in rates.values())}


def remove_header_parameters(document: dict[str, Any]) -> None:
    """Leaves the header fields out of the requests that a document describes; none is required."""
    shared = document['components']['parameters']
    for path in document['paths'].values():
        for operation in path.values():
            operation['parameters'] = [
                parameter for parameter in operation['parameters']
                if shared.get(parameter.get('$ref', '').rpartition('/')[2], parameter)['in']
                != 'header']


def gaps(summary: dict[str, Any], phases: Sequence[str]) -> Iterator[str]:
    """What one run left out, or could not do."""
    operations, cases = summary['operations'], summary['test_cases']
    if summary['stop_reason'] != 'completed':
        yield f'it ended early: {summary["stop_reason"]}'
    if operations['tested'] < operations['total']:
        yield f'only {operations["tested"]} of {operations["total"]} operations were tested'
    if cases['without_checks']:
        yield f'{cases["without_checks"]} cases were not checked'
    for phase in phases:
        status = summary['phases'][phase]['status']
        if status not in ('success', 'failure'):
            yield f'the phase {phase} ended with {status}'
    for error in summary['errors']:
        yield f'an error: {error}'
    for kind, warnings in summary['warnings'].items():
        if warnings and kind not in CHANCE:
            yield f'a warning: {kind}: {warnings}'


@contextmanager
def serving(backend: str, folder: Path) -> Iterator[ServerProcess]:
    """The service on an empty store; it logs nothing but errors."""
    logging: dict[str, Any] = config_document(folder)['logging']
    for handler in logging['handlers'].values():
        handler['level'] = 'ERROR'
    with BACKENDS[backend](folder) as store:
        sections: dict[str, Any] = {'addr-db': store, 'logging': logging}
        with running_server(**sections) as server:
            yield server


class Answer(NamedTuple):
    """What the harness itself needs of an answer."""

    location: str
    body: bytes


def request(server: ServerProcess, method: str, path: str, body: object = None) -> Answer:
    """The answer to a request that cannot fail."""
    with closing(server.connect()) as connection:
        connection.request(method, path, None if body is None else json.dumps(body), JSON)
        response = connection.getresponse()
        answer = Answer(response.headers.get('Location', ''), response.read())
        assert response.status < HTTPStatus.BAD_REQUEST, answer
        return answer


def fill(server: ServerProcess) -> list[str]:
    """Puts entries into the book; their ids."""
    return [request(server, 'POST', '/addressbook', address(name)).location.rpartition('/')[2]
            for name in ENTRIES * ('namo', 'raga')]


def conformance_test(backend: str, cases: int, seed: int, program: str) -> Report:
    """Runs Schemathesis against the service until that many cases were generated.

    :param seed: of the first run; each further one, where cases are missing, takes the next
    """
    report = Report()
    with tempfile.TemporaryDirectory() as name, serving(backend, Path(name)) as server:
        schemathesis = Schemathesis(program, server, Path(name), report)
        examples = max(1, cases // 40)
        schemathesis.run(('examples', 'fuzzing', 'stateful'), examples, seed)
        # With all header fields, hardly a body gets past the preconditions and the one key.
        schemathesis.run(['coverage'], examples, seed, optional_headers=False)
        if cases >= CASES:
            schemathesis.run(['coverage'], examples, seed)
        while report.passed and report.cases < cases:
            before = report.cases
            seed += 1
            schemathesis.run(('fuzzing', 'stateful'), max(1, (cases - before) // 20), seed)
            if report.cases == before:
                report.gaps.append(f'no further cases; {cases:,} were asked for')
        if never := report.operations - len(report.succeeded):
            report.gaps.append(f'{never} operations never succeeded')
        if status := server.stop():
            report.gaps.append(f'the service ended with status {status}')
        report.gaps += [f'the service complains: {line}' for line in server.stderr.splitlines()]
    return report


def parse_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog='python3 -m tests.conformance', description=(
        'Holds the service against its OpenAPI document with Schemathesis.'))
    parser.add_argument('--backend', choices=BACKENDS, action='append',
                        help='may be given again for another one (default: all)')
    parser.add_argument('--cases', type=int, default=CASES,
                        help='generated for each backend, at least (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=random.randrange(1_000_000),
                        help='that of another run makes the same requests, but for ids')
    parser.add_argument('--schemathesis', default='schemathesis', metavar='PROGRAM',
                        help='where it is (default: the one on PATH)')
    options = parser.parse_args()
    if shutil.which(options.schemathesis) is None:
        parser.error(f'there is no program {options.schemathesis}: see --schemathesis')
    return options


def main() -> int:
    """Runs the test; the exit status is 1 unless every backend passed."""
    options = parse_arguments()
    passed = True
    for backend in options.backend or BACKENDS:
        start = time.monotonic()
        report = conformance_test(
            backend, options.cases, options.seed, str(shutil.which(options.schemathesis)))
        seconds = time.monotonic() - start
        print(f'{backend}, seed {options.seed}, {seconds:.0f} s: {report}', flush=True)
        for gap in report.gaps[:SHOWN]:
            print(f'  {gap}')
        if not report.passed:
            passed = False
            for line in report.output.splitlines():
                print(line[:WIDTH])
    return int(not passed)


if __name__ == '__main__':
    sys.exit(main())
