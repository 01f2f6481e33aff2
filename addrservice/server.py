"""The process: command line, composition, signals, start and drain."""

import sys
from pathlib import Path

if not __package__:  # run as a file: Python has put addrservice/ on its path, not its parent
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import asyncio
import logging
import logging.config
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack

from tornado.netutil import bind_sockets

from addrservice import LOGGER_NAME
from addrservice.app import make_addrservice_app, make_overflow_application
from addrservice.config import LOCAL_CONFIG, ServiceSettings, Settings, load_settings
from addrservice.errors import ConfigError, StartError
from addrservice.http_server import BACKLOG, AddressBookHTTPServer
from addrservice.service import AddressBookService
from addrservice.tracing import AbstractTraceCollector, collecting, create_collector


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the service until a signal ends it.

    :param arguments: the command line, without the program; that of the process unless told
    :return: the exit status: 0 after a drain, 2 when the start failed
    """
    options = parse_arguments(arguments)
    try:
        asyncio.run(serve(options))
    except StartError as error:
        print(f'addrservice: {error}', file=sys.stderr)
        return 2
    return 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line; ends the process with status 2 for a bad one."""
    parser = argparse.ArgumentParser(prog='addrservice', description='Keeps an address book.')
    parser.add_argument('-p', '--port', type=_port, default=8080,
                        help='port to listen on, 0 for any free one (default: %(default)s)')
    parser.add_argument('-a', '--address', type=_address,
                        help='address to listen on (default: the one in the configuration)')
    parser.add_argument('-c', '--config', type=Path, default=LOCAL_CONFIG,
                        help='configuration file (default: %(default)s)')
    parser.add_argument('-d', '--debug', action='store_true',
                        help='answer errors with their traceback')
    return parser.parse_args(arguments)


def _address(text: str) -> str:
    if text:
        return text
    raise argparse.ArgumentTypeError('an empty address would be every address; say 0.0.0.0 or ::')


def _port(text: str) -> int:
    if text.isdecimal() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f'{text!r} is not a port number (0 to 65535)')


async def serve(options: argparse.Namespace) -> None:
    """Starts the service, waits for a signal, drains.

    :raises StartError: the configuration cannot be used, or the port is taken
    """
    stopping = _stop_on_signal()
    settings = load_settings(options.config)
    collectors = _set_up(settings, options.config)
    logger = logging.getLogger(LOGGER_NAME)
    async with AsyncExitStack() as stack:
        stack.enter_context(collecting(collectors, logger))
        service, application = make_addrservice_app(settings, options.debug)
        await service.start()
        stack.push_async_callback(service.stop)
        await service.status()  # so that the log tells at once if the store cannot be used
        overflow = make_overflow_application(service, settings.service, options.debug)
        server = AddressBookHTTPServer(application, overflow, settings.service)
        address = options.address or settings.service.address
        port = _listen(server, address, options.port)
        print(f'Starting {settings.service.name} on port {port} ...', flush=True)
        logger.info('listening on %s port %d', address, port)
        await stopping.wait()
        await drain(service, server, settings.service, logger)


async def drain(
    service: AddressBookService,
    server: AddressBookHTTPServer,
    limits: ServiceSettings,
    logger: logging.Logger,
) -> None:
    """Not ready; a pause for load balancers to notice; the end of listening, then of requests."""
    logger.info('draining')
    service.drain()
    unfinished = await server.drain(limits.shutdown_deadline, limits.drain_delay)
    if unfinished:
        logger.warning('%d requests were cut off at the deadline', unfinished)
    logger.info('drained')


def _stop_on_signal() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process at once."""
    stopping = asyncio.Event()

    def on_signal(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return stopping


def _set_up(settings: Settings, config: Path) -> list[AbstractTraceCollector]:
    """Configures logging and makes the collectors."""
    try:
        logging.config.dictConfig(settings.logging)
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        reason = f'{error}: {error.__cause__}' if error.__cause__ else error
        raise ConfigError(f'{config}: logging: {reason}') from error
    try:
        return [create_collector(path, values) for path, values in settings.tracing.items()]
    except ValueError as error:
        raise ConfigError(f'{config}: tracing: {error}') from error


def _listen(server: AddressBookHTTPServer, address: str, port: int) -> int:
    """Listens and gives the port, which the system has picked where it was 0."""
    try:
        sockets = bind_sockets(port, address, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one of a host
        reason = getattr(error, 'strerror', error)
        raise StartError(f'cannot listen on {address} port {port}: {reason}') from error
    server.add_sockets(sockets)
    bound: int = sockets[0].getsockname()[1]
    return bound


if __name__ == '__main__':
    sys.exit(main())
