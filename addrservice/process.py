"""The life of a process that serves: composition, signals, start, reload and drain."""

import argparse
import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Final

from addrservice import LOGGER_NAME, systemd
from addrservice.app import (
    make_addrservice_app, make_operator_application, make_overflow_application,
)
from addrservice.config import Settings
from addrservice.errors import ConfigError
from addrservice.http_server import AbstractHTTPServer, make_server
from addrservice.listening import Listeners, address_of, listen, print_start_line
from addrservice.preparation import (
    configure_logging, create_collectors, create_gate, make_tls_context,
)
from addrservice.profiling import SamplingProfiler
from addrservice.service import AddressBookService
from addrservice.tracing import collecting
from addrservice.workers import WorkerLink

# Objects made before the young ones are looked through, and how often that is before older ones are
# (gc.set_threshold): a connection is some 60 objects, a request in flight some 200.
GC_THRESHOLDS: Final = (10_000, 50, 20)

# Requests on one connection to a worker: those of many clients spread over all workers again soon
# after one of these was replaced.
MAX_REQUESTS: Final = 1000

# How often a worker's event loop says that it turns, in the time after which it counts as stuck.
BEATS: Final = 4


class Process:
    """One process that serves, alone or among others.

    :param settings: the configuration
    :param options: those of the command line
    :param link: to the supervisor, where there is one
    :raises StartError: the settings cannot be used
    """

    def __init__(
        self, settings: Settings, options: argparse.Namespace, link: WorkerLink | None
    ) -> None:
        self._settings = settings
        self._options = options
        self._link = link
        configure_logging(settings, options.config)
        self._logger = logging.getLogger(LOGGER_NAME)
        self._collectors = create_collectors(settings, options.config)
        self._gate = create_gate(settings, options.config)
        make_tls_context(settings)  # so that what cannot be used stops the start at once

    async def run(self) -> None:
        """Starts the service, waits for a signal, drains.

        :raises StartError: the store can never be used, or the port is taken
        """
        stop = Stop(is_worker=self._link is not None)
        async with AsyncExitStack() as stack:
            signs_of_life = asyncio.create_task(self._give_signs_of_life(stop))
            stack.callback(signs_of_life.cancel)
            service, server, listeners = await self._start(stack)
            self._obey_signals(server, stack)
            calm_garbage_collector()
            self._tell_ready(listeners)
            await stop.wait()
            systemd.notify('STOPPING=1')
            await self._drain(service, server, 0 if stop.in_haste else None)

    async def _start(
        self, stack: AsyncExitStack
    ) -> tuple[AddressBookService, AbstractHTTPServer, Listeners]:
        limits, debug = self._settings.service, self._options.debug
        stack.enter_context(collecting(self._collectors, self._logger))
        service, application = make_addrservice_app(self._settings, debug, self._gate)
        await service.start()
        stack.push_async_callback(service.stop)
        await service.status()  # so that the log tells at once if the store cannot be used
        self._watch(service.gauges())
        await self._gate.start()
        stack.push_async_callback(self._gate.stop)
        overflow = make_overflow_application(service, limits, debug)
        operators = make_operator_application(service, limits, debug, self._collectors)
        context = make_tls_context(self._settings)
        server = make_server(application, overflow, limits, context)
        self._watch({'http_requests_in_flight': server.requests_in_flight})
        if self._link is not None:
            server.max_requests = MAX_REQUESTS
        metrics = make_server(operators, overflow, limits)
        listeners = self._link.listeners if self._link else listen(self._settings, self._options)
        stack.push_async_callback(metrics.drain, 0)  # to the last, it tells that all others end
        metrics.add_sockets(listeners.metrics)
        server.add_sockets(listeners.http)
        return service, server, listeners

    def _watch(self, gauges: Mapping[str, Callable[[], float]]) -> None:
        for name, read in gauges.items():
            for collector in self._collectors:
                collector.watch(name, read)

    def _tell_ready(self, listeners: Listeners) -> None:
        if self._link is not None:
            with suppress(BrokenPipeError):  # the next sign of life will meet it too
                self._link.tell_ready()
        else:
            print_start_line(self._settings, listeners)
            systemd.notify('READY=1')
        for listener in listeners.http:
            self._logger.info('listening on %s', address_of(listener, with_address=True))

    async def _give_signs_of_life(self, stop: 'Stop') -> None:
        """Tells the supervisor, or systemd, that the event loop turns; drains if there is none."""
        if self._link is None:
            await systemd.watchdog()
        else:
            await self._beat(self._link, stop)

    async def _beat(self, link: WorkerLink, stop: 'Stop') -> None:
        try:
            while True:
                link.beat()
                await asyncio.sleep(self._settings.service.stuck_deadline / BEATS)
        except BrokenPipeError:
            self._logger.error('the supervisor is gone')
            stop.set()

    def _obey_signals(self, server: AbstractHTTPServer, stack: AsyncExitStack) -> None:
        """Has SIGUSR1 start and stop a profile, and SIGHUP read files anew."""
        loop = asyncio.get_running_loop()
        profiler = SamplingProfiler(self._settings.profiling, self._logger)
        stack.callback(profiler.close)
        if self._settings.profiling.at_start:
            profiler.toggle()
        loop.add_signal_handler(signal.SIGUSR1, profiler.toggle)
        loop.add_signal_handler(signal.SIGHUP, self._reload, server)

    def _reload(self, server: AbstractHTTPServer) -> None:
        """Reads tokens and certificates anew; all stays as it is if some cannot be used."""
        systemd.notify(systemd.reloading())
        try:
            context = make_tls_context(self._settings)
            self._gate.reload()
            server.tls = context
        except ConfigError as error:
            self._logger.error('not reloaded: %s', error)
        else:
            self._logger.info('tokens and certificates reloaded')
        systemd.notify('READY=1')

    async def _drain(
        self, service: AddressBookService, server: AbstractHTTPServer, delay: float | None
    ) -> None:
        """Not ready; a pause for load balancers to notice; the end of listening and of requests.

        :param delay: seconds of the pause; the configured ones unless told
        """
        limits = self._settings.service
        self._logger.info('draining')
        service.drain()
        unfinished = await server.drain(
            limits.shutdown_deadline, limits.drain_delay if delay is None else delay)
        if unfinished:
            self._logger.warning('%d requests were cut off at the deadline', unfinished)
        self._logger.info('drained')


class Stop:
    """Comes with the first of the signals that end a process: SIGTERM, SIGINT, SIGUSR2.

    A second one ends it at once; but not a worker, whose supervisor sees to that: signals to a
    whole group of processes would reach it twice.

    :ivar in_haste: whether there is no load balancer to wait for, for others go on (SIGUSR2)
    """

    def __init__(self, is_worker: bool) -> None:
        self._event = asyncio.Event()
        self._is_worker = is_worker
        self.in_haste = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)

    def set(self) -> None:
        """Has the process end."""
        self._event.set()

    async def wait(self) -> None:
        """Waits for the signal."""
        await self._event.wait()

    def _on_signal(self, number: int) -> None:
        if self._event.is_set() and not self._is_worker:
            logging.shutdown()  # writes the lines that wait, which os._exit would not
            os._exit(128 + number)
        self.in_haste = number == signal.SIGUSR2
        self.set()


def calm_garbage_collector() -> None:
    """Has it look through everything less often, and never through what the start has made.

    With thousands of connections open it would take a third of a second, several times in one.
    The start leaves no garbage to speak of: to look for it first takes 10 ms, and finds nothing.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
