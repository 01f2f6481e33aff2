"""What the peers share around their frameworks: options, processes, the log line, errors."""

import argparse
import asyncio
import logging
import multiprocessing
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from bench.peers.stores import make_store

BACKLOG: Final = 2048
LOG_FORMAT: Final = '%(asctime)s %(levelname)s %(message)s'

access_log: Final = logging.getLogger('access')


class Place(NamedTuple):
    """Where a process of a peer serves.

    :param listener: listens already
    :param store: the address of the store
    :param announce: to be called once it serves
    """

    listener: socket.socket
    store: str
    announce: Callable[[], None]


def main(serve: Callable[[Place], None], stores: Sequence[str] = ()) -> None:
    """Serves as the command line says, until SIGTERM.

    :param stores: the only ones that there can be
    """
    parser = argparse.ArgumentParser()
    parser.add_argument('--port', type=int, default=0, help='0 for a free one')
    parser.add_argument('--store', default='memory', choices=stores or None)
    parser.add_argument('--processes', type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)  # to stderr, flushed line by line
    places = _places(options.port, options.store, options.processes)
    if len(places) == 1:
        serve(places[0])
    else:
        asyncio.run(_make_tables(options.store))  # not by all processes at once
        _serve_in_processes(serve, places)


def _places(port: int, store: str, processes: int) -> list[Place]:
    """One for each process; the kernel spreads connections over the sockets (SO_REUSEPORT)."""
    listeners: list[socket.socket] = []
    for _ in range(processes):
        listener = socket.create_server(
            ('127.0.0.1', port), backlog=BACKLOG, reuse_port=processes > 1)
        port = listener.getsockname()[1]
        listeners.append(listener)
    left = multiprocessing.Value('i', processes)

    def announce() -> None:
        with left.get_lock():
            left.value -= 1
            if not left.value:
                print(f'listening on port {port}', flush=True)

    return [Place(listener, store, announce) for listener in listeners]


async def _make_tables(address: str) -> None:
    store = make_store(address)
    await store.open()
    await store.close()


def _serve_in_processes(serve: Callable[[Place], None], places: Sequence[Place]) -> None:
    context = multiprocessing.get_context('fork')
    workers = [context.Process(target=serve, args=[place]) for place in places]
    for worker in workers:
        worker.start()
    for place in places:
        place.listener.close()  # else this process would be given connections, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()


def log_request(
    request_id: str, method: str | None, path: str, status: int, seconds: float, remote: str | None
) -> None:
    """Logs the line of a request that has ended, and has taken so many seconds."""
    access_log.info(
        'request_id=%s method=%s path=%s status=%d milliseconds=%.2f remote=%s',
        request_id, method, path, status, seconds * 1000, remote)


def error_document(method: str | None, uri: str, code: int, message: str) -> dict[str, Any]:
    """The body of every answer that is an error."""
    return {'method': method, 'uri': uri, 'code': code, 'message': message}
