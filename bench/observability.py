"""What metrics and traces cost, and what an endpoint in trouble costs.

    env/bin/python -m bench.observability throughput    # nothing on, against metrics and traces on
    env/bin/python -m bench.observability endpoints     # nothing on, against endpoints in trouble

Needs wrk, two idle cores and nothing else that is busy. What is compared runs side by side and is
loaded in turns, in rounds, so that whatever else changes on the machine changes for all of it.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from bench import programs, usage
from tests.otlp import Receiver, closed_url
from tests.support import JSON, ROOT, address

PROMETHEUS: Final = 'addrservice.collectors.prometheus.PrometheusCollector'
OPENTELEMETRY: Final = 'addrservice.collectors.opentelemetry.OpenTelemetryCollector'
CONNECTIONS: Final = 16

_UNITS: Final = {'us': 0.001, 'ms': 1.0, 's': 1000.0}


class Load(NamedTuple):
    """What wrk has measured; latencies in milliseconds, and microseconds of the server's CPU."""

    rate: float
    cpu: float
    median: float
    p99: float
    failed: int


class Server:
    """The service as a process of its own, with one entry to ask for."""

    def __init__(
        self, folder: Path, name: str, tracing: Mapping[str, Any], options: argparse.Namespace
    ) -> None:
        config = folder / f'{name}.yaml'
        config.write_text(yaml.safe_dump(_configuration(tracing, options)), encoding='utf-8')
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'addrservice', '-p', '0', '-c', str(config)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT)})
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline().split()[-2])
        self._url = f'http://127.0.0.1:{port}{_create_entry(port)}'

    def load(self, seconds: int) -> Load:
        """Asks for the entry as fast as it answers."""
        before = usage.cpu_seconds([self._process.pid])
        report = programs.output(
            ['wrk', '-t1', f'-c{CONNECTIONS}', f'-d{seconds}s', '--latency', self._url], os.environ)
        return _read(report, usage.cpu_seconds([self._process.pid]) - before)

    def resident_megabytes(self) -> float:
        """The memory that it occupies."""
        pages = Path(f'/proc/{self._process.pid}/statm').read_text(encoding='ascii').split()[1]
        return int(pages) * os.sysconf('SC_PAGE_SIZE') / 2**20

    def stop(self) -> float:
        """How many seconds it takes to end."""
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=20)
        return time.monotonic() - started


def _configuration(tracing: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """A log line per request in JSON, which goes nowhere, or none where it is to be quiet."""
    level = 'ERROR' if options.quiet else 'INFO'
    logger = {'level': level, 'handlers': ['console'], 'propagate': False}
    return {
        'service': {'metrics-port': 0} if PROMETHEUS in tracing else {},
        'addr-db': {'sql': {'dsn': options.dsn}} if options.dsn else {'memory': None},
        'tracing': dict(tracing),
        'logging': {
            'version': 1,
            'disable_existing_loggers': False,
            'filters': {'request': {'()': 'addrservice.logs.RequestFilter'}},
            'formatters': {'json': {
                '()': 'addrservice.logs.JSONFormatter',
                'fmt': '%(asctime)s %(levelname)s %(name)s %(message)s'}},
            'handlers': {'console': {
                'class': 'logging.StreamHandler', 'formatter': 'json', 'filters': ['request']}},
            'loggers': {'addrservice': logger, 'tornado.access': logger},
        },
    }


def _create_entry(port: int) -> str:
    connection = HTTPConnection('127.0.0.1', port, timeout=10)
    connection.request('POST', '/addressbook', json.dumps(address('raga')), JSON)
    location = connection.getresponse().headers['Location']
    connection.close()
    return str(location)


def _read(report: str, cpu_seconds: float) -> Load:
    def find(pattern: str) -> tuple[str, ...]:
        match = re.search(pattern, report, re.MULTILINE)
        assert match is not None, report
        return match.groups()

    def milliseconds(percentile: int) -> float:
        number, unit = find(rf'^ +{percentile}% +([0-9.]+)(us|ms|s)$')
        return float(number) * _UNITS[unit]

    requests, = find('([0-9]+) requests in')
    rate, = find('^Requests/sec: +([0-9.]+)')
    failed = re.findall(r'(?:connect|read|write|timeout|responses:) ([0-9]+)', report)
    return Load(float(rate), cpu_seconds / int(requests) * 1e6, milliseconds(50),
                milliseconds(99), sum(map(int, failed)))


@contextmanager
def _servers(
    tracing: Mapping[str, Mapping[str, Any]], options: argparse.Namespace
) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {}
        for name, collectors in tracing.items():
            servers[name] = Server(folder, name, collectors, options)
            stack.callback(servers[name].stop)
        yield servers


def _rounds(
    tracing: Mapping[str, Mapping[str, Any]], options: argparse.Namespace
) -> dict[str, list[Load]]:
    """Loads one after the other, in another order each time.

    Each round has processes of its own: of two that run the same code, one is up to a tenth faster
    for as long as it lives.
    """
    loads: dict[str, list[Load]] = {name: [] for name in tracing}
    for number in range(options.rounds):
        names = list(tracing)
        first = number % len(names)
        with _servers(tracing, options) as servers:
            for server in servers.values():
                server.load(1)
            for name in names[first:] + names[:first]:
                loads[name].append(servers[name].load(options.seconds))
    return loads


def _show(loads: Mapping[str, Sequence[Load]], reference: str) -> None:
    print(f'{"":>12} {"req/s":>7} {"of that":>7} {"(range)":>15} {"CPU us":>7} {"more":>6}'
          f' {"p50 ms":>7} {"p99 ms":>7} {"failed":>6}')
    for name, mine in loads.items():
        pairs = list(zip(mine, loads[reference], strict=True))
        shares = [load.rate / off.rate for load, off in pairs]
        more = statistics.median(load.cpu - off.cpu for load, off in pairs)
        rate, cpu, median, p99 = (
            statistics.median(load[column] for load in mine) for column in range(4))
        print(f'{name:>12} {rate:>7.0f} {statistics.median(shares):>7.1%} {min(shares):>7.1%}'
              f'-{max(shares):>7.1%} {cpu:>7.1f} {more:>+6.1f} {median:>7.2f} {p99:>7.2f}'
              f' {sum(load.failed for load in mine):>6}')


def throughput(options: argparse.Namespace) -> None:
    """Compares no collector with metrics, traces of one request in a hundred, and both."""
    with Receiver() as receiver:
        traces = {OPENTELEMETRY: {'endpoint': receiver.url, 'sampling': 0.01}}
        metrics = {PROMETHEUS: None}
        configurations: dict[str, dict[str, Any]] = {
            'off': {}, 'traces': traces, 'metrics': metrics, 'both': {**metrics, **traces}}
        _show(_rounds(configurations, options), 'off')
        print(f'{len(receiver.spans)} spans arrived')


def endpoints(options: argparse.Namespace) -> None:
    """Compares no traces with traces to an endpoint that is well, hangs or is not there."""
    with Receiver() as well, Receiver() as hanging, closed_url() as closed:
        hanging.hang()
        urls = {'well': well.url, 'hanging': hanging.url, 'unreachable': closed}
        told = {name: {OPENTELEMETRY: {'endpoint': url, 'sampling': 0.01}}
                for name, url in urls.items()}
        _show(_rounds({'off': {}, **told}, options), 'off')
        for name in ('off', 'hanging', 'unreachable'):
            _watch_memory(name, urls, options)


def _watch_memory(name: str, urls: Mapping[str, str], options: argparse.Namespace) -> None:
    """A minute at full load with every trace kept, which is more than anybody would."""
    told = {OPENTELEMETRY: {'endpoint': urls[name], 'sampling': 1.0}} if name in urls else {}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), name, told, options)
        sizes = [server.resident_megabytes()]
        for _ in range(6):
            server.load(options.memory // 6)
            sizes.append(server.resident_megabytes())
        print(f'{name}, all traces kept: MB resident', *(f'{size:.1f}' for size in sizes),
              f'and {server.stop():.2f} s to end')


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    parser.add_argument('what', choices=['throughput', 'endpoints'])
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--seconds', type=int, default=3, help='of load, each time')
    parser.add_argument('--memory', type=int, default=60, help='seconds to watch the memory')
    parser.add_argument('--dsn', help='of the store (default: none, all is in memory)')
    parser.add_argument('--quiet', action='store_true', help='no log line per request')
    options = parser.parse_args()
    {'throughput': throughput, 'endpoints': endpoints}[options.what](options)


if __name__ == '__main__':
    main()
