"""The sockets that a service listens on: where they come from, and where they are, in words."""

import argparse
from ipaddress import ip_address
from socket import AF_UNIX, socket
from typing import Final, NamedTuple

from tornado.netutil import bind_sockets

from addrservice import systemd
from addrservice.config import Settings
from addrservice.errors import StartError

# Connections that wait to be accepted: Tornado's 128 make a crowd of clients try again for seconds.
BACKLOG: Final = 4096


class Listeners(NamedTuple):
    """The sockets that a service listens on, by what they are for."""

    http: list[socket]
    metrics: list[socket]

    def close(self) -> None:
        """Closes them here; a process that has inherited them goes on listening."""
        for listener in [*self.http, *self.metrics]:
            listener.close()


def listen(settings: Settings, options: argparse.Namespace) -> Listeners:
    """Listens on what systemd has opened, or else on what the configuration has.

    :raises StartError: a port is taken, or everybody would be let in
    """
    inherited = systemd.inherited_sockets()
    limits = settings.service
    http = inherited.get('http') or _bind(options.address or limits.address, options.port)
    metrics = inherited.get('metrics', [])
    if not metrics and limits.metrics_port is not None:
        metrics = _bind(limits.metrics_address, limits.metrics_port)
    if settings.auth is None:
        _check_loopback(http)
    return Listeners(http, metrics)


def _bind(address: str, port: int) -> list[socket]:
    try:
        return bind_sockets(port, address, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one of a host
        reason = getattr(error, 'strerror', error)
        raise StartError(f'cannot listen on {address} port {port}: {reason}') from error


def _check_loopback(sockets: list[socket]) -> None:
    """Refuses an address that others can reach, unless somebody has said that all may come in."""
    for listener in sockets:
        if listener.family != AF_UNIX:
            address = listener.getsockname()[0]
            if not ip_address(address.partition('%')[0]).is_loopback:
                raise StartError(f'listening on {address} would let everybody in: configure '
                                 '`auth`, or say `auth: none`')


def print_start_line(settings: Settings, listeners: Listeners) -> None:
    """Tells who has started the service where it listens."""
    for name, sockets in (('', listeners.http), (' metrics', listeners.metrics)):
        for listener in sockets[:1]:
            where = address_of(listener)
            print(f'Starting {settings.service.name}{name} on {where} ...', flush=True)


def address_of(listener: socket, with_address: bool = False) -> str:
    """Where a socket listens, in words."""
    if listener.family == AF_UNIX:
        return str(listener.getsockname())
    address, port = listener.getsockname()[:2]
    return f'{address} port {port}' if with_address else f'port {port}'
