"""The floor of several processes: sums, which share nothing but the machine."""

import argparse
import json
import multiprocessing
import time


def sum_until(end: float) -> tuple[int, float]:
    """How many sums one process has made at that time, and the CPU time that it took for them."""
    began, count = time.process_time(), 0
    while time.monotonic() < end:
        sum(range(1000))
        count += 1
    return count, time.process_time() - began


def measure(processes: int, seconds: float) -> dict[str, float]:
    """How many all of them make in a second, and the CPUs that they had."""
    with multiprocessing.get_context('fork').Pool(processes) as pool:
        ends = [time.monotonic() + seconds] * processes
        counts, worked = zip(*pool.map(sum_until, ends, chunksize=1), strict=True)
    return {'operations_per_second': sum(counts) / seconds, 'cpus': sum(worked) / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=5)
    options = parser.parse_args()
    print(json.dumps(measure(options.processes, options.seconds)))


if __name__ == '__main__':
    main()
