"""The command line: what to run, and whether as one process or as several."""

import sys
from pathlib import Path

if not __package__:  # run as a file: Python has put addrservice/ on its path, not its parent
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from addrservice import LOGGER_NAME
from addrservice.config import LOCAL_CONFIG, Settings, parse_settings, read_config
from addrservice.errors import ConfigError, StartError
from addrservice.listening import listen, print_start_line
from addrservice.preparation import configure_logging, create_gate, make_tls_context
from addrservice.supervisor import supervise
from addrservice.workers import Configuration, WorkerLink, own_command

COMMANDS: Final = ('export', 'import', 'token')  # besides serving


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the service until a signal ends it, or another command.

    :param arguments: the command line, without the program; that of the process unless told
    :return: the exit status: 0 after a drain, 2 when the start failed
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] in COMMANDS:
            return _run_command(arguments[0], arguments[1:])
        return serve(parse_arguments(arguments))
    except StartError as error:
        print(f'addrservice: {error}', file=sys.stderr)
        return 2


def _run_command(name: str, arguments: Sequence[str]) -> int:
    if name == 'token':
        from addrservice.auth import command
        return command.main(arguments)
    from addrservice import transfer
    return transfer.main(name, arguments)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command line; ends the process with status 2 for a bad one."""
    parser = argparse.ArgumentParser(
        prog='addrservice', description='Keeps an address book.',
        epilog=f'Other commands: {", ".join(COMMANDS)}, each with a --help of its own.')
    parser.add_argument('-p', '--port', type=_port, default=8080,
                        help='port to listen on, 0 for any free one (default: %(default)s)')
    parser.add_argument('-a', '--address', type=_address,
                        help='address to listen on (default: the one in the configuration)')
    parser.add_argument('-c', '--config', type=Path, default=LOCAL_CONFIG,
                        help='configuration file (default: %(default)s)')
    parser.add_argument('-n', '--processes', type=_processes,
                        help='processes that share the work, 0 for one per core (default: the '
                             'number in the configuration)')
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


def _processes(text: str) -> int:
    if text.isdecimal() and int(text) <= 1000:
        return int(text)
    raise argparse.ArgumentTypeError(f'{text!r} is not a number of processes (0 to 1000)')


def serve(options: argparse.Namespace) -> int:
    """Serves, as one process, as one of several, or as the supervisor of these.

    :return: the exit status
    :raises StartError: the configuration cannot be used, or the port is taken
    """
    link = WorkerLink.from_environment()
    text = link.configuration if link else read_config(options.config)
    settings = parse_settings(text, options.config)
    if link is None and _count_processes(settings, options) > 1:
        return _serve_with_workers(settings, options)
    from addrservice.process import Process  # and all of the web, which a supervisor never needs
    with asyncio.Runner(loop_factory=_loop_factory(settings)) as runner:
        runner.run(Process(settings, options, link).run())
    return 0


def _loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's loop where connections are asyncio's: it gives nothing to Tornado's."""
    if settings.service.http_parser == 'tornado':
        return asyncio.new_event_loop
    import uvloop
    return uvloop.new_event_loop


def _serve_with_workers(settings: Settings, options: argparse.Namespace) -> int:
    load = _loader(options)
    load()  # before anything is opened
    configure_logging(settings, options.config)
    listeners = listen(settings, options)
    return asyncio.run(supervise(
        own_command(), listeners, load, lambda: print_start_line(settings, listeners),
        logging.getLogger(LOGGER_NAME)))


def _loader(options: argparse.Namespace) -> Callable[[], Configuration]:
    def load() -> Configuration:
        """Reads the configuration anew and refuses what no worker could use."""
        text = read_config(options.config)
        settings = parse_settings(text, options.config)
        processes = _count_processes(settings, options)
        if processes > 1 and settings.addr_db.sql is msgspec.UNSET:
            raise ConfigError(f'{options.config}: several processes cannot share a store in '
                              'memory: each would have a book of its own')
        create_gate(settings, options.config)
        make_tls_context(settings)
        return Configuration(
            text, msgspec.structs.replace(settings.service, processes=processes))

    return load


def _count_processes(settings: Settings, options: argparse.Namespace) -> int:
    wanted = settings.service.processes if options.processes is None else options.processes
    return wanted or len(os.sched_getaffinity(0))


if __name__ == '__main__':
    sys.exit(main())
