"""The ledger: all that was acknowledged is there after every crash, and nothing else is.

Writers create, replace and delete entries over HTTP, each as fast as it is answered, while the
service and the database server are killed (``kill -9``) at random moments and restarted at once; a
SQLite file has another program that uses it. Each write has a content of its own. In the end a
fresh service gives out the whole book, and every entry, all of its content, is compared with what
the ledger says of it.

What a writer learns of a write:

- done: the answer was 2xx. From then on the entry has that state and no other.
- not done: the connection was refused, so nothing was sent, or the answer was 4xx.
- unknown: the connection broke after the request was sent, or the answer was 5xx. The write may
  have been done, or never be done, or be done at any later time: the database may be still at it
  when the service that asked is long dead. So both states are allowed, whenever the book is read;
  and they stay the only ones, for an entry has one writer, who leaves it alone from then on. A POST
  of unknown outcome allows for one entry more, under any id, with just its content.

No write covers up the loss of another one: before a writer goes on with an entry after a crash, it
reads it and compares. Nor does an outage make entries doubtful one by one: a writer that was not
served does nothing but create entries until one is acknowledged.

What is not claimed: what a killed process has written is still with the kernel, so a power cut is
not tried here.

The short form is ``tests/integration/ledger_test.py``. The long one is this program, run in the
root of the repository, by the Python that has the requirements:

    env/bin/python -m tests.ledger
"""

import argparse
import http.client
import itertools
import json
import os
import random
import re
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self
from unittest import mock

from tests.postgresql import ENVIRONMENT, PostgreSQL, free_port
from tests.support import DEADLINE, JSON, ServerProcess, config_document, write_config

HAND: Final = 20  # entries that a writer goes on with; all others are left as they are
RECONNECT_PAUSE: Final = 0.005  # seconds
LONG_PAUSE: Final = 4000  # writes between two crashes, at the most
SHOWN: Final = 10  # faults of a kind

# What the service may complain of: that the database is gone, and what it answered then.
LOG_LINE: Final = re.compile(r'\S+ \S+ (WARNING addrservice|ERROR tornado\.access) ')

# The name of an entry's content; None where there is no entry.
State = str | None


def content_of(name: str) -> dict[str, Any]:
    """The content of one write; each part of it tells it from all others."""
    return {
        'name': name,
        'addresses': [{'kind': 'home', 'streetName': f'Street of {name}', 'pincode': name,
                       'country': f'Country of {name}'}],
        'phoneNumbers': [{'kind': 'work', 'countryCode': 44, 'number': name}],
        'emails': [{'kind': kind, 'value': f'{name}@{kind}.example.org'}
                   for kind in ('home', 'work')],
    }


def state_of(entry: Any) -> str:
    """The name of a content, or all of it where it is none that anybody has written."""
    with suppress(TypeError, KeyError):
        if entry == content_of(entry['name']):
            return str(entry['name'])
    return json.dumps(entry)


class Outcome(Enum):
    """What became of a write, as far as its writer knows."""

    DONE = 'done'
    NOT_DONE = 'not done'
    UNKNOWN = 'unknown'


@dataclass
class Account:
    """What is known of one entry.

    :param allowed: the states that it may be in
    :param former: the states that it was in, before it was made included
    """

    allowed: list[State]
    former: list[State]

    def verdict(self, found: State) -> str | None:
        """What is wrong about a state, None where it is allowed."""
        if found in self.allowed:
            return None
        if self.allowed == [None]:
            return 'resurrected'
        return 'lost' if found in self.former else 'wrong'


class Ledger:
    """What has to be in the book, and what may be in it. Several threads may write into it."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.unknown = 0
        self._accounts: dict[str, Account] = {}
        self._doubtful: set[str] = set()  # contents of entries that may be there under some id
        self._lock = threading.Lock()

    def created(self, nickname: str, name: str) -> None:
        """An entry is there for certain."""
        with self._lock:
            assert nickname not in self._accounts, f'the id {nickname} was given to two entries'
            self._accounts[nickname] = Account([name], [None])
            self.acknowledged += 1

    def may_be_created(self, name: str) -> None:
        """An entry may be there, under an id that nobody knows."""
        with self._lock:
            self._doubtful.add(name)
            self.unknown += 1

    def changed(self, nickname: str, state: State) -> None:
        """An entry has another state, or none any more, for certain."""
        with self._lock:
            account = self._accounts[nickname]
            account.former += account.allowed
            account.allowed = [state]
            self.acknowledged += 1

    def may_be_changed(self, nickname: str, state: State) -> None:
        """An entry may have another state, or get it later."""
        with self._lock:
            self._accounts[nickname].allowed.append(state)
            self.unknown += 1

    def faults(self, book: dict[str, Any]) -> dict[str, list[str]]:
        """What the book should not be like: by kind, a line for each entry."""
        faults: dict[str, list[str]] = {
            'lost': [], 'wrong': [], 'resurrected': [], 'too many': []}
        for nickname, account in self._accounts.items():
            found = state_of(book[nickname]) if nickname in book else None
            if verdict := account.verdict(found):
                faults[verdict].append(f'{nickname} is {found}, not {account.allowed}')
        doubtful = self._doubtful.copy()
        for nickname in book.keys() - self._accounts.keys():
            state = state_of(book[nickname])
            if state not in doubtful:
                faults['too many'].append(f'{nickname} is {state}')
            doubtful.discard(state)
        return faults


class Answer(NamedTuple):
    """What came of a request; without a status, there was no answer."""

    outcome: Outcome
    status: int | None = None
    location: str = ''
    body: bytes = b''


@dataclass
class Held:
    """An entry that its writer goes on with.

    :param state: the one that it is in, for certain
    :param life: the one in which that was last acknowledged or read
    """

    nickname: str
    state: State
    life: int

    @property
    def path(self) -> str:
        """Where it is."""
        return f'/addressbook/{self.nickname}'


class Load:
    """Writers at full speed, from enter to exit.

    :ivar life: a number that grows with each crash, after the end and before the restart
    :ivar surprises: what should not have been answered
    """

    def __init__(self, port: int, writers: int, seed: int) -> None:
        self.ledger = Ledger()
        self.life = 0
        self.surprises: list[str] = []
        self.over = threading.Event()
        self._writers = [Writer(self, port, number, random.Random(f'{seed} {number}'))
                         for number in range(writers)]
        self._executor = ThreadPoolExecutor(writers, 'writer')
        self._running: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._running = [self._executor.submit(writer.write) for writer in self._writers]
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._executor.shutdown()
        for running in self._running:
            running.result()

    def wait_for_writes(self, number: int) -> None:
        """Waits until so many more are acknowledged."""
        aim = self.ledger.acknowledged + number
        end = time.monotonic() + 6 * DEADLINE
        while self.ledger.acknowledged < aim:
            if any(running.done() for running in self._running) or time.monotonic() > end:
                raise AssertionError(f'only {self.ledger.acknowledged} of {aim} were acknowledged')
            self.over.wait(0.001)


class Writer:
    """A client with one connection, which writes to no entry but its own."""

    def __init__(self, load: Load, port: int, number: int, chance: random.Random) -> None:
        self._load = load
        self._chance = chance
        self._names = (f'{number}-{count}' for count in itertools.count())
        self._connection = http.client.HTTPConnection('127.0.0.1', port, timeout=DEADLINE)
        self._hand: list[Held] = []
        self._is_served = False  # whether the last request was

    def write(self) -> None:
        """Goes on until the load is over."""
        with closing(self._connection):
            while not self._load.over.is_set():
                if self._is_served and self._chance.random() < len(self._hand) / HAND:
                    self._go_on(self._chance.choice(self._hand))
                else:
                    self._create()

    def _create(self) -> None:
        name, life = next(self._names), self._load.life
        answer = self._request('POST', '/addressbook', name)
        if answer.outcome is Outcome.DONE:
            nickname = answer.location.removeprefix('/addressbook/')
            self._load.ledger.created(nickname, name)
            self._hand.append(Held(nickname, name, life))
        elif answer.outcome is Outcome.UNKNOWN:
            self._load.ledger.may_be_created(name)

    def _go_on(self, held: Held) -> None:
        """Does something with an entry, or leaves it as it is for good."""
        if not (self._is_unharmed(held) and self._write_to(held)):
            self._hand.remove(held)

    def _is_unharmed(self, held: Held) -> bool:
        """Whether an entry is after a crash what it was before."""
        life = self._load.life
        if held.life == life:
            return True
        answer = self._request('GET', held.path)
        if answer.outcome is not Outcome.DONE:
            return False
        found = state_of(json.loads(answer.body))
        if found != held.state:
            self._load.surprises.append(f'{held.path} ({held.state}): it is {found}')
            return False
        held.life = life
        return True

    def _write_to(self, held: Held) -> bool:
        """Changes an entry or not; tells whether to go on with it another time."""
        action = self._chance.choices(['PUT', 'DELETE', 'leave'], [6, 2, 1])[0]
        if action == 'PUT':
            return self._change(held, 'PUT', next(self._names))
        if action == 'DELETE':
            self._change(held, 'DELETE', None)
        return False

    def _change(self, held: Held, method: str, state: State) -> bool:
        """Writes to an entry; tells whether that was acknowledged."""
        life = self._load.life
        answer = self._request(method, held.path, state)
        if answer.outcome is Outcome.DONE:
            self._load.ledger.changed(held.nickname, state)
            held.state, held.life = state, life
        elif answer.outcome is Outcome.UNKNOWN:
            self._load.ledger.may_be_changed(held.nickname, state)
        return answer.outcome is Outcome.DONE

    def _request(self, method: str, path: str, state: State = None) -> Answer:
        answer = self._answer(method, path, state)
        self._is_served = answer.outcome is Outcome.DONE
        if not self._is_served and answer.status not in (None, HTTPStatus.SERVICE_UNAVAILABLE):
            self._load.surprises.append(f'{method} {path} ({state}): {answer.status}')
        return answer

    def _answer(self, method: str, path: str, state: State) -> Answer:
        try:
            if self._connection.sock is None:
                self._connection.connect()
        except OSError:
            self._connection.close()
            self._load.over.wait(RECONNECT_PAUSE)
            return Answer(Outcome.NOT_DONE)
        body = None if state is None else json.dumps(content_of(state))
        try:
            self._connection.request(method, path, body, {} if body is None else JSON)
            response = self._connection.getresponse()
            return _judged(response.status, response.headers.get('Location', ''), response.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return Answer(Outcome.UNKNOWN)


def _judged(status: int, location: str, body: bytes) -> Answer:
    outcome = {2: Outcome.DONE, 4: Outcome.NOT_DONE}.get(status // 100, Outcome.UNKNOWN)
    return Answer(outcome, status, location, body)


class Restartable(Protocol):
    """What ends and starts again under the load."""

    def kill(self) -> None:
        """Ends it as a crash would, and waits for its end."""

    def start(self) -> None:
        """Starts it, and waits until it is ready."""


class Service:
    """The service as a process that never ends in good order, on one port in all of its lives.

    :ivar odd_lines: what it has logged in the lives that are over, and should not have
    """

    def __init__(self, folder: Path, dsn: str) -> None:
        logging = config_document(folder)['logging']
        for handler in logging['handlers'].values():
            handler['level'] = 'WARNING'
        config = write_config(
            folder, logging=logging, tracing={}, **{'addr-db': {'sql': {'dsn': dsn}}})
        self.port = free_port()
        self.odd_lines: list[str] = []
        self._arguments = '--port', str(self.port), '--config', str(config)
        self._process: ServerProcess | None = None

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        self._process = ServerProcess(*self._arguments)
        self._process.wait_for_port()

    def kill(self) -> None:
        """Ends it by ``kill -9``, if it runs."""
        if self._process is not None:
            lines = self._process.kill().stderr.splitlines()
            self.odd_lines += [line for line in lines if not LOG_LINE.match(line)]
            self._process = None

    def book(self) -> dict[str, Any]:
        """The whole book."""
        assert self._process is not None
        with closing(self._process.connect()) as connection:
            connection.request('GET', '/addressbook')
            answer = connection.getresponse()
            assert answer.status == HTTPStatus.OK, answer.status
            book: dict[str, Any] = json.loads(answer.read())
            return book


class Visitor:
    """Another program that has a look at a SQLite file every now and then, as backups do.

    SQLite keeps what was last written in a second file, and whoever is the last to close the first
    one removes that. Only locks tell who is the last, and a process can lose its locks unawares.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def kill(self) -> None:
        """Nothing to do: it is gone already."""

    def start(self) -> None:
        """Opens the file, reads, and closes it."""
        with closing(sqlite3.connect(self._path, timeout=DEADLINE)) as connection:
            connection.execute('SELECT count(*) FROM addresses').fetchone()


@contextmanager
def on_sqlite(folder: Path) -> Iterator[tuple[str, list[Restartable]]]:
    """A file: the DSN, and who uses it besides the service."""
    path = folder / 'addressbook.db'
    yield f'sqlite://{path}', [Visitor(path)]


@contextmanager
def on_postgresql(_: Path) -> Iterator[tuple[str, list[Restartable]]]:
    """A server as durable as in production: the DSN, and itself."""
    with mock.patch.dict(os.environ, ENVIRONMENT), PostgreSQL() as server:
        yield server.dsn, [server]


Backend = Callable[[Path], AbstractContextManager[tuple[str, list[Restartable]]]]

BACKENDS: Final[dict[str, Backend]] = {'sqlite': on_sqlite, 'postgresql': on_postgresql}


@dataclass
class Report:
    """What came of a run.

    :param faults: by kind, a line for each; there should be none
    """

    acknowledged: int
    unknown: int
    faults: dict[str, list[str]]

    def __str__(self) -> str:
        counts = {'acknowledged': self.acknowledged, 'unknown': self.unknown,
                  **{kind: len(lines) for kind, lines in self.faults.items()}}
        return ', '.join(f'{count:,} {kind}' for kind, count in counts.items())


def crash_test(backend: str, kills: int, writes: int, writers: int, seed: int) -> Report:
    """Writes under crashes, then compares the book with the ledger.

    :param kills: how often the service is killed, and as often what is behind it
    :param writes: the most that are acknowledged between one crash and the next
    """
    with tempfile.TemporaryDirectory() as name, BACKENDS[backend](Path(name)) as (dsn, others):
        service = Service(Path(name), dsn)
        try:
            service.start()
            with Load(service.port, writers, seed) as load:
                crash([service, *others], load, kills, writes, random.Random(seed))
            service.kill()
            service.start()
            faults = load.ledger.faults(service.book())
        finally:
            service.kill()
    faults['unexpected'] = load.surprises + service.odd_lines
    return Report(load.ledger.acknowledged, load.ledger.unknown, faults)


def crash(
    parts: Sequence[Restartable], load: Load, kills: int, writes: int, chance: random.Random
) -> None:
    """Kills each part so many times under the load, in any order, and starts it again at once."""
    crashes = [part for part in parts for _ in range(kills)]
    chance.shuffle(crashes)
    for part in crashes:
        load.wait_for_writes(chance.randint(1, writes))
        part.kill()
        load.life += 1
        part.start()
    load.wait_for_writes(chance.randint(1, writes))


def parse_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog='python3 -m tests.ledger', description=(
        'Writes to the service at full speed while it and its database are killed, '
        'and counts what was acknowledged and is lost.'))
    parser.add_argument('--backend', choices=['all', *BACKENDS], default='all')
    parser.add_argument('--kills', type=int, default=10,
                        help='how often each process is killed (default: %(default)s)')
    parser.add_argument('--writers', type=int, default=16,
                        help='clients that write at the same time (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=random.randrange(1_000_000),
                        help='that of another run makes the same choices, but not to the moment')
    return parser.parse_args()


def main() -> int:
    """Runs the long form; the exit status is 1 if there was any fault."""
    options = parse_arguments()
    found = False
    for backend in BACKENDS if options.backend == 'all' else [options.backend]:
        start = time.monotonic()
        report = crash_test(
            backend, options.kills, LONG_PAUSE, options.writers, options.seed)
        seconds = time.monotonic() - start
        print(f'{backend}, seed {options.seed}, {seconds:.0f} s: {report}', flush=True)
        for kind, lines in report.faults.items():
            found |= bool(lines)
            for line in lines[:SHOWN]:
                print(f'  {kind}: {line}')
    return int(found)


if __name__ == '__main__':
    sys.exit(main())
