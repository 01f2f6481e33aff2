"""HTTP/1.1 in front of an application: one contract, and two servers that keep it.

Tornado's own reads and writes HTTP in Python; the other one leaves the reading to httptools
(llhttp, in C) and takes the place of Tornado's connections under the same application. Each is in
a module of its own, which is imported where the configuration names it.
"""

import ssl

from addrservice.config import ServiceSettings
from addrservice.http_server.abstract import AbstractHTTPServer
from addrservice.routing import RoutedApplication

__all__ = ['AbstractHTTPServer', 'make_server']


def make_server(
    application: RoutedApplication,
    overflow: RoutedApplication,
    limits: ServiceSettings,
    tls: ssl.SSLContext | None = None,
) -> AbstractHTTPServer:
    """The server that the settings name; it listens on nothing yet.

    :param application: answers the requests
    :param overflow: answers those on connections beyond the cap
    :param limits: sizes, timeouts and the cap
    :param tls: to speak HTTPS
    """
    if limits.http_parser == 'tornado':
        from addrservice.http_server.tornado_server import TornadoServer
        return TornadoServer(application, overflow, limits, tls)
    from addrservice.http_server.httptools_server import HTTPToolsServer
    return HTTPToolsServer(application, overflow, limits, tls)
