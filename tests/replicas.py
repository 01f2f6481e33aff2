"""The service as processes that share one book, and crowds of clients that come all at once.

A crowd of writers may have to wait for SQLite longer than the default deadline allows, and would be
told to come back; so the deadline here is one that it never meets, and whatever a client is told is
final.
"""

import itertools
import json
import os
import signal
import tempfile
import unittest
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple
from unittest import mock

from tests.postgresql import ENVIRONMENT, dsn_of, new_role, shared_server
from tests.support import DEADLINE, JSON, ServerProcess, running_server

MERGE_PATCH: Final = {'Content-Type': 'application/merge-patch+json'}


class Request(NamedTuple):
    """What a client asks; without a body where the content is None."""

    method: str
    path: str
    content: Any = None
    headers: Mapping[str, str] = {}

    def send(self, connection: HTTPConnection) -> None:
        """Sends it, and does not wait for the answer."""
        if self.content is None:
            connection.request(self.method, self.path, headers=self.headers)
        else:
            kind = MERGE_PATCH if self.method == 'PATCH' else JSON
            connection.request(
                self.method, self.path, json.dumps(self.content), {**kind, **self.headers})


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: HTTPMessage
    body: bytes

    @classmethod
    def of(cls, connection: HTTPConnection) -> 'Answer':
        """The answer to what was sent."""
        response = connection.getresponse()
        return cls(response.status, response.headers, response.read())


def post(content: object, key: str | None = None) -> Request:
    """Makes an entry."""
    headers = {} if key is None else {'Idempotency-Key': key}
    return Request('POST', '/addressbook', content, headers)


@contextmanager
def sent(ports: Sequence[int], requests: Sequence[Request]) -> Iterator[list[HTTPConnection]]:
    """Sends requests to ports in turn, each on a connection of its own, one right after another."""
    with ExitStack() as stack:
        connections = [
            stack.enter_context(closing(HTTPConnection('127.0.0.1', port, timeout=DEADLINE)))
            for port, _ in zip(itertools.cycle(ports), requests)]
        for connection in connections:
            connection.connect()
        for connection, request in zip(connections, requests):
            request.send(connection)
        yield connections


class ReplicasTestCase(unittest.TestCase):
    """The service as processes that share one book; this one process, for it is in memory."""

    replicas = 1
    servers: ClassVar[list[ServerProcess]]

    @classmethod
    def addr_db(cls) -> dict[str, Any]:
        """The section of the configuration that says where the book is."""
        return {'memory': None}

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        sections: dict[str, Any] = {'addr-db': cls.addr_db()}
        cls.servers = [cls.enterClassContext(running_server(**sections))
                       for _ in range(cls.replicas)]

    def crowd(
        self, requests: Sequence[Request], servers: Sequence[ServerProcess] = ()
    ) -> list[Answer]:
        """The answers to requests that come all at once.

        :param servers: where to, in turn; to all processes unless told
        """
        ports = [server.port for server in servers or self.servers]
        with ExitStack() as stack:
            with self.stopped():
                connections = stack.enter_context(sent(ports, requests))
            return [Answer.of(connection) for connection in connections]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stops the processes meanwhile, so that then they find all that has come at once."""
        for server in self.servers:
            server.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for server in self.servers:
                server.process.send_signal(signal.SIGCONT)

    def read(self, path: str) -> Answer:
        """What is there; all processes have to agree on that."""
        answers = self.crowd([Request('GET', path)] * self.replicas)
        self.assertEqual(1, len({(answer.status, answer.headers['ETag']) for answer in answers}))
        if answers[0].status == 200:
            self.assertEqual(1, len({answer.body for answer in answers}))
        return answers[0]

    def book(self) -> dict[str, Any]:
        """The whole book by path."""
        book = json.loads(self.read('/addressbook').body)
        return {f'/addressbook/{nickname}': entry for nickname, entry in book.items()}


class OnSQLite(ReplicasTestCase):
    """Two processes share a file."""

    replicas = 2

    @classmethod
    def addr_db(cls) -> dict[str, Any]:
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        dsn = f'sqlite://{Path(folder, "addressbook.db")}'
        return {'sql': {'dsn': dsn, 'deadline': DEADLINE}}


class OnPostgreSQL(ReplicasTestCase):
    """Two processes share a schema."""

    replicas = 2

    @classmethod
    def addr_db(cls) -> dict[str, Any]:
        cls.enterClassContext(mock.patch.dict(os.environ, ENVIRONMENT))
        dsn = dsn_of(shared_server().port, role=new_role())
        return {'sql': {'dsn': dsn, 'deadline': DEADLINE}}
