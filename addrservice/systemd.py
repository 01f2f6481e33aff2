"""What systemd and a service tell each other: sd_notify(3), the watchdog, socket activation.

Where systemd is not around, nothing is told and nothing is inherited.
"""

import asyncio
import contextlib
import os
import socket
import time
from typing import Final

from addrservice.errors import StartError

# What is meant for the process that systemd started, and for none that this one starts.
VARIABLES: Final = frozenset({
    'NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID',
    'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES',
})

_FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START in sd_listen_fds(3)
_PATIENCE: Final = 0.1  # seconds that systemd gets to take a message; the event loop waits too


def notify(state: str) -> None:
    """Tells systemd; a message that it does not take is dropped.

    :param state: assignments as in sd_notify(3), a line each: ``READY=1``
    """
    path = os.environ.get('NOTIFY_SOCKET')
    if not path:
        return
    if path.startswith('@'):  # an abstract socket (unix(7))
        path = '\0' + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_PATIENCE)
        with contextlib.suppress(OSError):
            sender.sendto(state.encode(), path)


def reloading() -> str:
    """The state of a service that has begun to read its configuration anew."""
    return f'RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}'


def watchdog_seconds() -> float | None:
    """The time within which systemd wants to hear that this process lives, if it does."""
    owner = os.environ.get('WATCHDOG_PID')
    microseconds = os.environ.get('WATCHDOG_USEC', '')
    if not microseconds.isdecimal() or owner not in (None, str(os.getpid())):
        return None
    return int(microseconds) / 1_000_000 or None


async def watchdog() -> None:
    """Tells systemd that the event loop turns, twice as often as it asks for; never ends."""
    seconds = watchdog_seconds()
    while seconds:
        notify('WATCHDOG=1')
        await asyncio.sleep(seconds / 2)
    await asyncio.Event().wait()


def inherited_sockets() -> dict[str, list[socket.socket]]:
    """The sockets that systemd has opened for this process (sd_listen_fds(3)).

    They are for one taker: a second call finds none, nor does a child.

    :return: ``metrics``: those of that name; ``http``: all others; empty if there are none
    :raises StartError: one of them does not listen for connections
    """
    owner = os.environ.pop('LISTEN_PID', '')
    count = os.environ.pop('LISTEN_FDS', '')
    names = os.environ.pop('LISTEN_FDNAMES', '').split(':')
    if owner != str(os.getpid()) or not count.isdecimal():
        return {}
    sockets: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        purpose = 'metrics' if names[index:index + 1] == ['metrics'] else 'http'
        sockets.setdefault(purpose, []).append(_listener(_FIRST_DESCRIPTOR + index))
    return sockets


def _listener(descriptor: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=descriptor)
    except OSError as error:
        raise StartError(f'LISTEN_FDS: descriptor {descriptor}: {error.strerror}') from None
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise StartError(f'LISTEN_FDS: descriptor {descriptor} does not listen')
    listener.setblocking(False)
    listener.set_inheritable(False)
    return listener
