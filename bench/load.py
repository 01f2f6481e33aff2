"""Load: wrk, whose connections each wait for their answer, and h2load, which keeps to a rate.

wrk says how much a server can do. It says nothing of how long clients wait: while the server is
slow, wrk asks less. For that there is h2load, which begins a request when it is time to, whatever
has become of the ones before; what begins late because its connection still waits has waited, too,
and that is added here.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench import BenchError, programs, usage
from bench.tools import Tool

_SCRIPT: Final = Path(__file__).parent / 'scripts' / 'requests.lua'

# h2load begins all of its connections at once unless it makes them one by one, and each then keeps
# its own time. Made at this pace, in this number, which is prime, they take turns evenly at each
# rate that is a multiple of RATE_STEP.
CLIENTS: Final = 307
_PERIOD: Final = 0.005  # seconds between two new connections
RATE_STEP: Final = 200  # requests per second
_RAMP: Final = CLIENTS * _PERIOD  # seconds until all are there

# No timer of h2load is shorter than 10 ms. Connections that have more to do than once in that time
# would all begin what they have at once (src/h2load.cc, rps_watcher).
HIGHEST_RATE: Final = CLIENTS * 100 * 0.9  # requests per second

# With epoll, which libev prefers, h2load waits for whole milliseconds, and then begins at once what
# has fallen due: requests came in heaps of eight or so, and waited for each other twice as long as
# for the server. With select (1, libev's EVBACKEND_SELECT) it is on time to some 50 microseconds.
_ON_TIME: Final = {'LIBEV_FLAGS': '1'}

_TIMER: Final = 1000  # microseconds that requests are early or late at most when all is well

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


class Throughput(NamedTuple):
    """What wrk has counted.

    :param answers: all of them
    :param rate: answers per second
    :param bytes_rate: bytes per second
    :param failed: answers that were no success, and failures of connections
    :param cpu_each: seconds of CPU time that wrk itself took for each
    """

    answers: int
    rate: float
    bytes_rate: float
    failed: int
    cpu_each: float


class Latency(NamedTuple):
    """How long clients waited.

    :param rate: requests per second that were begun
    :param percentiles: milliseconds, in the order of ``PERCENTILES``
    :param failed: answers that were no success
    """

    rate: float
    percentiles: tuple[float, ...]
    failed: int


class LoadError(BenchError):
    """Requests have failed, or there were none."""


def run_wrk(
    wrk: Tool, url: str, seconds: float, connections: int = 32, script: Sequence[object] = ()
) -> Throughput:
    """Loads a server as fast as it answers.

    :param script: the arguments of ``scripts/requests.lua``; without any, wrk asks for the URL
    """
    scripted = ['-s', _SCRIPT] if script else []
    before = usage.cpu_seconds_of_ended()
    command = [wrk.path, '-t1', f'-c{connections}', f'-d{max(1, round(seconds))}s',
               '--timeout=10s', *scripted, url, *(['--', *script] if script else [])]
    read = read_wrk(programs.output([*map(str, command)], wrk.environment()))
    return read._replace(cpu_each=(usage.cpu_seconds_of_ended() - before) / read.answers)


def read_wrk(report: str) -> Throughput:
    """The figures in what wrk prints."""
    answers = re.search(r'^ +([0-9]+) requests in ', report, re.MULTILINE)
    rate = re.search(r'^Requests/sec: +([0-9.]+)', report, re.MULTILINE)
    transfer = re.search(r'^Transfer/sec: +([0-9.]+)(B|KB|MB|GB)', report, re.MULTILINE)
    if answers is None or rate is None or transfer is None or answers[1] == '0':
        raise LoadError(f'wrk said: {report}')
    failures = re.findall(r'(?:connect|read|write|timeout|responses:) ([0-9]+)', report)
    size = 1024 ** ('B', 'KB', 'MB', 'GB').index(transfer[2])
    return Throughput(int(answers[1]), float(rate[1]), float(transfer[1]) * size,
                      sum(map(int, failures)), 0)


def run_h2load(h2load: Tool, url: str, rate: float, seconds: float, log: Path) -> Latency:
    """Asks for a URL at a constant rate.

    :param rate: requests per second; rounded to ``RATE_STEP``
    :param seconds: that count, after the connections were made
    :param log: a file to write
    :raises LoadError: the rate is higher than h2load can keep to evenly
    """
    if rate > HIGHEST_RATE:
        raise LoadError(f'h2load does not keep to {rate:.0f} requests per second')
    rate = max(RATE_STEP, round(rate / RATE_STEP) * RATE_STEP)
    log.unlink(missing_ok=True)  # h2load would add to it
    per_client = round(rate * (_RAMP + seconds) / CLIENTS)
    programs.output(
        [h2load.path, '--h1', '-t1', f'-c{CLIENTS}', f'-n{per_client * CLIENTS}',
         f'--rps={rate / CLIENTS}', '-r1', f'--rate-period={_PERIOD * 1000:.0f}ms',
         f'--log-file={log}', url], h2load.environment() | _ON_TIME)
    return read_log(log.read_text(encoding='ascii'), rate, seconds, _RAMP)


def read_log(text: str, rate: float, seconds: float, ramp: float) -> Latency:
    """What the lines of h2load's log say: when a request began, its status, how long it took.

    :param ramp: seconds at the beginning that do not count
    """
    lines = sorted(tuple(map(int, line.split()[:3])) for line in text.splitlines())
    beginning = lines[0][0] + ramp * 1e6
    counted = [line for line in lines if line[0] >= beginning][:int(rate * seconds)]
    waits = late_starts([line[0] for line in counted], rate)
    times = sorted(line[2] + wait for line, wait in zip(counted, waits, strict=True))
    passed = (counted[-1][0] - counted[0][0]) / 1e6
    return Latency(len(counted) / passed, tuple(percentile(times, share) / 1000
                                                for share in PERCENTILES),
                   sum(not 200 <= line[1] < 300 for line in counted))


def late_starts(starts: Sequence[int], rate: float) -> list[float]:
    """By how much each request began later than at a constant rate, in the unit of microseconds.

    The first tenth says when that rate began. What the generator's timers may do is no lateness.
    """
    offsets = [start - number * 1e6 / rate for number, start in enumerate(starts)]
    beginning = percentile(sorted(offsets[:len(offsets) // 10 + 1]), 50)
    return [late if (late := offset - beginning) > _TIMER else 0 for offset in offsets]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so many in a hundred do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]
