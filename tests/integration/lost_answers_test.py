"""A client that loses every third answer and tries again with its key makes nothing twice.

Real processes: one that keeps the book in memory, or two that share a SQL database. Before each is
a proxy that throws away every third of its answers and resets the connection; what was asked is
done by then. What is not answered is asked again, each time of the next process.
"""

import itertools
import unittest
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from tests.postgresql import shared_server
from tests.proxy import Proxy
from tests.replicas import (
    Answer, OnPostgreSQL, OnSQLite, ReplicasTestCase, Request, post, sent,
)

ENTRIES: Final = 40
ANSWER: Final = rb'HTTP/1\.1 '

setUpModule = shared_server  # now, so that no test waits for its start


class LostAnswersTest(ReplicasTestCase):
    """What is in the book in the end."""

    def setUp(self) -> None:
        self.proxies = [self.enterContext(Proxy(server.port)) for server in self.servers]
        for proxy in self.proxies:
            proxy.lose_answers(ANSWER, every=3)
        self.before = self.book()

    def lost(self) -> int:
        """How many answers were lost."""
        return sum(proxy.lost_answers for proxy in self.proxies)

    def made(self) -> dict[str, Any]:
        """The entries that the test has made, by path."""
        return {path: entry for path, entry in self.book().items() if path not in self.before}

    def create(self, requests: Sequence[Request]) -> dict[int, str]:
        """Where the entries are, as it is told in the end; by the number of the request."""
        told: dict[int, str] = {}
        attempts = itertools.count()
        while waiting := [number for number in range(len(requests)) if number not in told]:
            attempt = next(attempts)
            self.assertLess(attempt, ENTRIES, 'there is no answer')
            ports = [self.proxies[(number + attempt) % self.replicas].port for number in waiting]
            with sent(ports, [requests[number] for number in waiting]) as connections:
                for number, connection in zip(waiting, connections):
                    with suppress(ConnectionResetError):
                        told[number] = self.location(Answer.of(connection))
        return told

    def location(self, answer: Answer) -> str:
        """Where an answer says that the entry is."""
        self.assertEqual(HTTPStatus.CREATED, answer.status, answer.body)
        return answer.headers['Location']

    def test_with_keys_each_entry_is_there_once_and_where_it_is_said_to_be(self) -> None:
        entries = [{'name': f'Ada {number}'} for number in range(ENTRIES)]
        told = self.create([post(entry, f'key-{number}') for number, entry in enumerate(entries)])
        self.assertGreater(self.lost(), ENTRIES // 3)
        self.assertEqual({told[number]: entry for number, entry in enumerate(entries)}, self.made())

    def test_without_keys_each_lost_answer_is_an_entry_too_many(self) -> None:
        told = self.create([post({'name': 'Ada'})] * ENTRIES)
        self.assertEqual(ENTRIES, len(set(told.values())))
        made = self.made()
        self.assertLess(set(told.values()), made.keys())
        self.assertEqual(ENTRIES + self.lost(), len(made))


class SQLiteLostAnswersTest(OnSQLite, LostAnswersTest):
    """The same of two processes and a file."""


class PostgreSQLLostAnswersTest(OnPostgreSQL, LostAnswersTest):
    """The same of two processes and a server."""


if __name__ == '__main__':
    unittest.main()
