"""Several processes that serve together, and the one above them.

The supervisor has the sockets and serves nobody. It starts the workers, starts another where one
has ended, replaces them one after the other on SIGHUP, and ends them on SIGTERM and SIGINT.
"""

import asyncio
import logging
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from addrservice import systemd
from addrservice.errors import StartError
from addrservice.listening import Listeners
from addrservice.workers import Configuration, Launch, Worker

# A worker that ends sooner after it was ready lets the next one wait, twice as long each time.
SHORT_LIFE: Final = 1.0  # seconds
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0

REFUSAL: Final = 'status 2'  # the end of a worker that has said itself why it cannot start


async def supervise(
    command: Sequence[str],
    listeners: Listeners,
    load: Callable[[], Configuration],
    on_ready: Callable[[], None],
    logger: logging.Logger,
) -> int:
    """Keeps workers at work until a signal ends them.

    :param command: starts a worker
    :param listeners: what the workers serve on; closed here as soon as the end begins, so that
        clients are refused once the last worker listens no more
    :param load: reads the configuration, at first and at each SIGHUP
    :param on_ready: called once, when all workers are ready
    :return: the exit status: 0 after a drain, 1 if a worker had to be killed in it, 2 if the
        first workers could not start, 128 and its number after a second signal
    :raises StartError: what ``load`` raises at first
    """
    configuration = load()
    with tempfile.TemporaryDirectory(prefix='addrservice-') as folder:
        launch = Launch(command, _environment(folder), listeners)
        async with asyncio.TaskGroup() as tasks:
            crew = _Crew(launch, tasks, logger)
            return await _Supervisor(crew, configuration, load, logger).run(on_ready)


def _environment(folder: str) -> dict[str, str]:
    """The variables of a worker: prometheus_client keeps the figures of all of them in a folder."""
    mine = {name: value for name, value in os.environ.items() if name not in systemd.VARIABLES}
    return {'PROMETHEUS_MULTIPROC_DIR': folder, **mine}


class _Crew:
    """All workers that live, those included that are about to end.

    :param launch: how a worker is started
    :param tasks: in which they are watched
    """

    def __init__(self, launch: Launch, tasks: asyncio.TaskGroup, logger: logging.Logger) -> None:
        self._launch = launch
        self._tasks = tasks
        self._logger = logger
        self._workers: set[Worker] = set()
        self._cpus = sorted(os.sched_getaffinity(0))  # the one that was given longest ago first

    def start(self, configuration: Configuration) -> Worker:
        """A worker that has just been started; one that has ended, if that was not possible."""
        taken = {worker.slot for worker in self._workers if not worker.ended.is_set()}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        worker = Worker(slot, configuration, self._logger, self._choose_cpu(configuration))
        if worker.start(self._launch):
            self._workers.add(worker)
            self._tasks.create_task(self._accompany(worker))
        return worker

    def _choose_cpu(self, configuration: Configuration) -> int | None:
        """Where as many are to serve as there are CPUs, the one that the fewest have.

        Else the system chooses: these may be few of many CPUs, and others choose theirs, too.
        """
        if configuration.service.processes != len(self._cpus):
            return None
        taken = Counter(worker.cpu for worker in self._workers if not worker.ended.is_set())
        chosen = min(self._cpus, key=lambda cpu: taken[cpu])
        self._cpus.remove(chosen)
        self._cpus.append(chosen)
        return chosen

    async def settled(self, configuration: Configuration) -> Worker:
        """A new worker that is ready, or has ended without being so."""
        worker = self.start(configuration)
        await worker.settled.wait()
        return worker

    async def _accompany(self, worker: Worker) -> None:
        watching = self._tasks.create_task(worker.watch())
        await worker.settled.wait()
        self._report()
        await watching
        self._workers.remove(worker)
        self._report()

    def _report(self) -> None:
        serving = sum(worker.ready and not worker.leaving for worker in self._workers)
        systemd.notify(f'STATUS=Workers that serve: {serving}')

    def signal(self, number: int) -> None:
        """Sends a signal to those that serve: only they are sure to know what it means."""
        for worker in self._workers:
            if worker.ready and not worker.leaving:
                worker.signal(number)

    def kill(self) -> None:
        """Ends all at once."""
        for worker in self._workers:
            worker.signal(signal.SIGKILL)

    async def end(self) -> bool:
        """Drains and ends all; closes the listeners.

        :return: whether all ended by themselves
        """
        self._launch.listeners.close()
        workers = list(self._workers)
        await asyncio.gather(*(worker.leave(signal.SIGTERM) for worker in workers))
        return not any(worker.killed for worker in workers)


class _Place:
    """One of as many places as workers are to serve.

    :param worker: who has it; None when it is given up
    """

    def __init__(self, worker: Worker) -> None:
        self.worker: Worker | None = worker
        self.pause = 0.0

    def next_pause(self, age: float) -> float:
        """Seconds until the place is filled anew, after a worker that ended at that age."""
        if age >= SHORT_LIFE:
            self.pause = 0.0
        else:
            self.pause = min(max(2 * self.pause, FIRST_PAUSE), LONGEST_PAUSE)
        return self.pause

    async def hand_over(self, successor: Worker | None) -> None:
        """Gives the place to another, or up, and has the one before drain and end."""
        worker, self.worker, self.pause = self.worker, successor, 0.0
        assert worker is not None
        await worker.leave(signal.SIGUSR2)


class _Supervisor:
    """Keeps the places filled until a signal ends it."""

    def __init__(
        self,
        crew: _Crew,
        configuration: Configuration,
        load: Callable[[], Configuration],
        logger: logging.Logger,
    ) -> None:
        self._crew = crew
        self._configuration = configuration
        self._load = load
        self._logger = logger
        self._places: list[_Place] = []
        self._reload_wanted = asyncio.Event()
        self._stop_wanted = asyncio.Event()
        self._second_signal = 0

    async def run(self, on_ready: Callable[[], None]) -> int:
        """Returns the exit status."""
        self._handle_signals()
        async with asyncio.TaskGroup() as tasks:
            watchdog = tasks.create_task(systemd.watchdog())
            stopping = tasks.create_task(self._stop_wanted.wait())
            serving = tasks.create_task(self._serve(on_ready))
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, stopping):
                task.cancel()
            await asyncio.wait([serving])
            systemd.notify('STOPPING=1')
            drained = await self._crew.end()
            watchdog.cancel()
        if not serving.cancelled():
            return 2
        return 128 + self._second_signal if self._second_signal else int(not drained)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        loop.add_signal_handler(signal.SIGUSR1, self._crew.signal, signal.SIGUSR1)

    def _stop(self, number: int) -> None:
        if self._stop_wanted.is_set():
            self._second_signal = number
            self._crew.kill()
        self._stop_wanted.set()

    async def _serve(self, on_ready: Callable[[], None]) -> None:
        """Ends only if the first workers could not start."""
        if not await self._fill():
            return
        on_ready()
        systemd.notify('READY=1')
        async with asyncio.TaskGroup() as keepers:
            for place in self._places:
                keepers.create_task(self._keep(place))
            while True:
                await self._reload_wanted.wait()
                self._reload_wanted.clear()
                await self._reload(keepers)

    async def _fill(self) -> bool:
        """Starts the first workers, one before all others: what is wrong is then said once."""
        workers = [await self._crew.settled(self._configuration)]
        if workers[0].ready:
            workers += await asyncio.gather(*(
                self._crew.settled(self._configuration)
                for _ in range(1, self._configuration.service.processes)))
        self._places = [_Place(worker) for worker in workers]
        failed = [worker for worker in workers if not worker.ready]
        for worker in failed:
            if worker.fate != REFUSAL:
                self._logger.error('%s has ended before it was ready: %s',
                                   worker.name, worker.fate)
        return not failed

    async def _keep(self, place: _Place) -> None:
        """Starts another worker where one has ended, until the place is given up."""
        while (worker := place.worker) is not None:
            await worker.ended.wait()
            if worker is place.worker:
                await self._wait_before_another(place, worker)
            if worker is place.worker:
                place.worker = self._crew.start(self._configuration)

    async def _wait_before_another(self, place: _Place, worker: Worker) -> None:
        pause = place.next_pause(worker.age)
        self._logger.warning('%s has ended: %s; another is started in %.1f s',
                             worker.name, worker.fate, pause)
        await asyncio.sleep(pause)

    async def _reload(self, keepers: asyncio.TaskGroup) -> None:
        systemd.notify(systemd.reloading())
        try:
            configuration = self._load()
        except StartError as error:
            self._logger.error('not reloaded: %s', error)
        else:
            await self._replace(configuration, keepers)
        systemd.notify('READY=1')

    async def _replace(self, configuration: Configuration, keepers: asyncio.TaskGroup) -> None:
        """Puts new workers into the places, one after the other, and fits the number of places."""
        processes = configuration.service.processes
        for index in range(processes):
            worker = await self._crew.settled(configuration)
            if not worker.ready:
                self._logger.error('not reloaded: %s has ended before it was ready: %s; '
                                   '%d of %d workers are new',
                                   worker.name, worker.fate, index, processes)
                return
            self._configuration = configuration
            await self._seat(index, worker, keepers)
        while len(self._places) > processes:
            await self._places.pop().hand_over(None)
        self._logger.info('reloaded')

    async def _seat(self, index: int, worker: Worker, keepers: asyncio.TaskGroup) -> None:
        if index < len(self._places):
            await self._places[index].hand_over(worker)
        else:
            self._places.append(_Place(worker))
            keepers.create_task(self._keep(self._places[index]))
