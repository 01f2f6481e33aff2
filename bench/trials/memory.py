"""The memory of a server: idle, for each idle connection, for each entry."""

import socket
from contextlib import ExitStack
from typing import Final

from bench.harness import BARE, PEERS, Bench, Result, with_all
from bench.rounds import Sample, take_turns
from bench.servers import SERVICE, Server, bodies

OTHERS: Final = (BARE, *PEERS)
REQUEST: Final = b'GET /addressbook/x HTTP/1.1\r\nHost: bench\r\n\r\n'


def run(bench: Bench) -> Result:
    """PSS of all processes of a server, so what it shares counts once."""
    def measure(name: str) -> Sample:
        with bench.start(name) as server:
            server.wait_until_ready()
            idle = server.memory()
            server.fill(bodies('usual', 1))
            bench.throughput(server, 'post', connections=64)  # makes what a server keeps for good
            return {'idle MB': idle / 1e6, **_entries(bench, server),
                    **_connections(server, 500 if bench.quick else 2000)}

    return Result(
        'Memory (PSS) of one process; in-memory store, usual entries',
        take_turns([SERVICE, *OTHERS], bench.rounds(2), measure), with_all(SERVICE, OTHERS))


def _entries(bench: Bench, server: Server) -> Sample:
    if server.name == BARE:  # it keeps none
        return {}
    before, entries = server.memory(), 0
    while entries < (1000 if bench.quick else 5000):  # fewer would drown in what else changes
        entries += bench.throughput(server, 'post').answers
    return {'bytes per entry': (server.memory() - before) / entries}


def _connections(server: Server, count: int) -> Sample:
    """Each has been used once."""
    before = server.memory()
    with ExitStack() as crowd:
        for _ in range(count):
            _use(crowd.enter_context(socket.create_connection(('127.0.0.1', server.port), 30)))
        return {'KB per idle connection': (server.memory() - before) / count / 1000}


def _use(client: socket.socket) -> None:
    """Sends a request and takes its answer, which comes in one piece or has no body at all."""
    client.sendall(REQUEST)
    client.recv(65_536)
