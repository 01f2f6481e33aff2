"""What a crowd of idle keep-alive connections costs, and what the busy ones notice of it.

    python -m bench.idle_connections [--idle 10000] [--busy 500] [--seconds 2]

Two services, one of which has the crowd, are put under load in turns, so that both meet whatever
else the machine has to do. The services, the load and the crowd have processes of their own.
"""

import argparse
import asyncio
import json
import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from bench import programs, usage

ROOT: Final = Path(__file__).resolve().parent.parent
ENTRY: Final = ROOT / 'tests' / 'data' / 'addresses' / 'namo.json'

RESERVED_FILES: Final = 200  # for all that is no connection of the crowd or of the load
WARM_UP: Final = 1.0  # seconds
PATIENCE: Final = 60.0  # seconds
ROUNDS: Final = 5


class Load(NamedTuple):
    """What the busy connections got.

    :param rate: requests per second
    :param p50: milliseconds that half of the requests took at the most
    :param p99: the same, of 99 in a hundred
    :param cpu: milliseconds of the service's processor time for each, the least noisy of all
    """

    rate: float
    p50: float
    p99: float
    cpu: float


class BusyConnection(asyncio.Protocol):
    """Sends the same request again and again, each as soon as the one before is answered.

    :param times: the seconds that each took are added here
    """

    def __init__(self, request: bytes, times: list[float]) -> None:
        self._request = request
        self._times = times
        self._answer = b''

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if len(self._answer) == _length_of(self._answer):
            assert self._answer.startswith(b'HTTP/1.1 200 '), self._answer
            self._times.append(time.perf_counter() - self._begin)
            self._send()

    def _send(self) -> None:
        self._answer = b''
        self._begin = time.perf_counter()
        self._transport.write(self._request)


def _length_of(answer: bytes) -> int:
    """How long a whole answer is, by its header; 0 where that has not come yet."""
    head, end, _ = answer.partition(b'\r\n\r\n')
    if not end:
        return 0
    _, _, rest = head.lower().partition(b'content-length: ')
    return len(head) + len(end) + int(rest.split(b'\r\n')[0])


async def run_load(service: int, port: int, path: str, busy: int, seconds: float) -> Load:
    """What so many busy connections get in that time, after a moment to warm up.

    :param service: the id of its process
    """
    times: list[float] = []
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(
            lambda: BusyConnection(request('GET', path), times), '127.0.0.1', port))[0]
        for _ in range(busy)]
    await asyncio.sleep(WARM_UP)
    times.clear()
    begin, worked = time.perf_counter(), usage.cpu_seconds([service])
    await asyncio.sleep(seconds)
    passed, work = time.perf_counter() - begin, usage.cpu_seconds([service]) - worked
    for connection in connections:
        connection.abort()
    took = sorted(1000 * took for took in times)
    return Load(len(took) / passed, took[len(took) // 2], took[-len(took) // 100],
                1000 * work / len(took))


def measure(service: int, port: int, path: str, busy: int, seconds: float) -> Load:
    """The same, by a process of its own."""
    command = [sys.executable, '-m', 'bench.idle_connections', '--load', str(service), str(port),
               path, '--busy', str(busy), '--seconds', str(seconds)]
    return Load(*json.loads(programs.output(command, os.environ)))


def resident_kilobytes(process: int) -> float:
    """The memory that a process occupies."""
    pages = Path(f'/proc/{process}/statm').read_text(encoding='ascii').split()[1]
    return int(pages) * resource.getpagesize() / 1024


@contextmanager
def serving(connections: int) -> Iterator[tuple[int, int]]:
    """The service, without a log and with room for so many connections: its process and port."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, 'config.yaml')
        config.write_text(yaml.safe_dump({
            'service': {'max-connections': connections, 'idle-connection-timeout': 3600},
            'addr-db': {'memory': None},
            'logging': {'version': 1},
        }), encoding='utf-8')
        process = subprocess.Popen(
            [sys.executable, '-m', 'addrservice', '--port', '0', '--config', str(config)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            yield process.pid, _port_of(process)
        finally:
            process.terminate()
            process.communicate()


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
    words = process.stdout.readline().split() if ready else []
    return int(words[words.index('port') + 1])


def request(method: str, path: str, body: bytes = b'') -> bytes:
    """A request on a connection that goes on."""
    head = (f'{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n'
            f'Content-Length: {len(body)}\r\n\r\n')
    return head.encode() + body


def exchange(client: socket.socket, data: bytes) -> bytes:
    """The answer to a request, which must be a good one."""
    client.sendall(data)
    answer = client.recv(65_536)
    assert answer.startswith(b'HTTP/1.1 20'), answer
    return answer


def connect(port: int) -> socket.socket:
    return socket.create_connection(('127.0.0.1', port), PATIENCE)


def post_entry(port: int) -> str:
    """Creates an entry and gives its path."""
    with connect(port) as client:
        answer = exchange(client, request('POST', '/addressbook', ENTRY.read_bytes()))
    return answer.partition(b'Location: ')[2].split(b'\r\n')[0].decode()


def gather_crowd(port: int, size: int) -> list[socket.socket]:
    """So many connections, each of which has been used once."""
    crowd = []
    for _ in range(size):
        crowd.append(connect(port))
        exchange(crowd[-1], request('GET', '/healthz'))
    return crowd


def raise_file_limit() -> int:
    """Lets this process and its children open as many files as they may; gives that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def compare(idle: int, busy: int, seconds: float) -> list[str]:
    """Measures, and tells it line by line."""
    room = idle + busy + RESERVED_FILES
    with serving(room) as (empty, empty_port), serving(room) as (full, full_port):
        services = [(empty, empty_port, post_entry(empty_port)),
                    (full, full_port, post_entry(full_port))]
        for service in services:  # what the busy ones make it keep for good
            measure(*service, busy, 0.1)
        before = resident_kilobytes(full)
        crowd = gather_crowd(full_port, idle)
        after = resident_kilobytes(full)
        loads = [[measure(*service, busy, seconds) for service in services] for _ in range(ROUNDS)]
        for client in crowd:  # still there, all of it
            exchange(client, request('GET', '/healthz'))
            client.close()
    return [
        f'{idle} idle connections: {(after - before) / idle:.1f} KB each '
        f'({before / 1024:.0f} MB without them, {after / 1024:.0f} MB with them)',
        *_table(busy, loads)]


def _table(busy: int, loads: list[list[Load]]) -> Iterator[str]:
    """The medians of each column, and of their ratios."""
    without, crowded = (_medians(column) for column in zip(*loads, strict=True))
    ratios = _medians([
        Load(*(there / here for here, there in zip(*pair, strict=True))) for pair in loads])
    yield f'{busy} busy connections    requests/s    p50 ms    p99 ms    CPU ms'
    for name, load in (('without the crowd', without), ('with the crowd', crowded)):
        yield f'{name:<24} {load.rate:>10.0f} {load.p50:>9.1f} {load.p99:>9.1f} {load.cpu:>9.3f}'
    yield '{:<24} {:>10.2f} {:>9.2f} {:>9.2f} {:>9.2f}'.format('ratio', *ratios)


def _medians(loads: Sequence[Load]) -> Load:
    return Load(*map(statistics.median, zip(*loads, strict=True)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog='bench.idle_connections')
    parser.add_argument('--idle', type=int, default=10_000)
    parser.add_argument('--busy', type=int, default=500)
    parser.add_argument('--seconds', type=float, default=2)
    parser.add_argument('--load', nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    files = raise_file_limit()
    if options.load:
        service, port, path = options.load
        load = run_load(int(service), int(port), path, options.busy, options.seconds)
        print(json.dumps(asyncio.run(load)))
        return
    idle = min(options.idle, files - options.busy - 2 * RESERVED_FILES)
    print('\n'.join(compare(idle, options.busy, options.seconds)))


if __name__ == '__main__':
    main()
