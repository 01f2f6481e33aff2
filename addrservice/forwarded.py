"""Where a request comes from, where proxies stand before the service and tell.

``X-Forwarded-For`` and ``X-Forwarded-Proto`` are what anybody may send, so they are believed as
far as they come from an address that is trusted.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import (
    IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address,
)
from typing import Final

Network = IPv4Network | IPv6Network

# An address in brackets or not, and a port, which some proxies add.
_NODE: Final = re.compile(r'\[(?P<six>[0-9A-Fa-f:.]+)\](:\d{1,5})?|(?P<four>[0-9.]+):\d{1,5}')

SCHEMES: Final = ('http', 'https')


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address of the client, as far as it can be known.

    Each proxy has added at the right whom it got the request from. So the first one from the right
    that is not trusted is the client; whatever stands left of it, the client may have made up.
    Where something is no address, it is the proxy that passed it on.

    :param peer: the address at the other end of the connection
    :param forwarded_for: values of the ``X-Forwarded-For`` fields, in their order
    :param trusted: networks of the proxies
    """
    client = _parse(peer)
    if client is None:  # as at a Unix socket
        return peer
    for node in _from_the_right(forwarded_for):
        before = _parse(node) if _is_in(client, trusted) else None
        if before is None:
            break
        client = before
    return str(client)


def scheme(
    peer: str, forwarded_proto: Sequence[str], trusted: Sequence[Network], default: str
) -> str:
    """The scheme that the client has used, ``http`` or ``https``, as far as it can be known.

    :param peer: the address at the other end of the connection
    :param forwarded_proto: values of the ``X-Forwarded-Proto`` fields, in their order; the last
        word is that of the proxy at the other end
    :param default: the scheme of that connection
    """
    proxy = _parse(peer)
    if proxy is not None and _is_in(proxy, trusted):
        told = next(_from_the_right(forwarded_proto), '').lower()
        if told in SCHEMES:
            return told
    return default


def _from_the_right(values: Sequence[str]) -> Iterator[str]:
    """The members of lists (RFC 9110, 5.6.1), without the empty ones."""
    members = (member.strip(' \t') for value in reversed(values)
               for member in reversed(value.split(',')))
    return filter(None, members)


def _parse(node: str) -> IPv4Address | IPv6Address | None:
    """An address, without its port and zone; an IPv4 one also where it stands in an IPv6 one."""
    if found := _NODE.fullmatch(node):
        node = found['six'] or found['four']
    try:
        address = ip_address(node.partition('%')[0])
    except ValueError:
        return None
    return getattr(address, 'ipv4_mapped', None) or address


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
