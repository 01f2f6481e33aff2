"""What clients notice of workers that are killed, and of reloads.

    env/bin/python -m bench.workers     # 20 kills, then 10 reloads, under load, on two workers
"""

import os
import signal
import statistics
import time
from typing import Final

from tests.integration.workers_test import Client, WorkersTestCase, failures, ports_of_clients
from tests.support import ServerProcess, wait_until

KILLS: Final = 20
RELOADS: Final = 10


class Trial(WorkersTestCase):
    """The service of the tests, tried for longer."""

    def runTest(self) -> None:
        server = self.serve()
        with self.clients(server) as clients:
            self.kill_workers(server, clients)
            self.reload_workers(server, clients)

    def kill_workers(self, server: ServerProcess, clients: list[Client]) -> None:
        """Prints how long the service was without one of its workers, and what that has cost."""
        gaps, served = [], set()
        for number in range(KILLS):
            victim = server.workers()[0]  # who has lived long enough to be replaced at once
            served |= ports_of_clients(victim)
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: server.errors_so_far().count('is ready') == number + 3)
            gaps.append(time.monotonic() - killed)
            answers = answered(clients)
            wait_until(lambda: answered(clients) > answers + 1000)  # they spread again meanwhile
        lost = failures(clients)
        print(f'{KILLS} kills: two workers again after {min(gaps):.2f} to {max(gaps):.2f} s, '
              f'median {statistics.median(gaps):.2f} s; {len(lost)} of {answered(clients)} '
              f'requests lost, {len(set(lost) - served)} of them of other workers')

    def reload_workers(self, server: ServerProcess, clients: list[Client]) -> None:
        """Prints what it has cost to replace all workers again and again."""
        lost, answers = len(failures(clients)), answered(clients)
        began = time.monotonic()
        for number in range(1, RELOADS + 1):
            self.reload(server, number)
        seconds = (time.monotonic() - began) / RELOADS
        print(f'{RELOADS} reloads, {seconds:.2f} s each: {len(failures(clients)) - lost} of '
              f'{answered(clients) - answers} requests lost')


def answered(clients: list[Client]) -> int:
    """Requests that have been answered."""
    return sum(client.answers for client in clients)


if __name__ == '__main__':
    Trial().debug()
