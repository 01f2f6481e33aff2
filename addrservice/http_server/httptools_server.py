"""The server whose connections leave the reading to httptools."""

import socket
import ssl

from tornado.log import gen_log

from addrservice.http_server.abstract import AbstractHTTPServer, Origin
from addrservice.http_server.connection import HTTPToolsConnection


class HTTPToolsServer(AbstractHTTPServer):
    """Serves with asyncio's transports."""

    def _serve(self, sock: socket.socket, origin: Origin, excess: bool) -> None:
        connection = HTTPToolsConnection(self, sock, origin, excess)
        self.connections.add(connection)
        connection.arrival = self.loop.create_task(self._connect(connection, sock))

    async def _connect(self, connection: HTTPToolsConnection, sock: socket.socket) -> None:
        patience = self.limits.idle_connection_timeout if self.tls else None
        try:
            await self.loop.connect_accepted_socket(
                lambda: connection, sock, ssl=self.tls,
                ssl_handshake_timeout=patience, ssl_shutdown_timeout=patience)
        except ssl.SSLError as error:
            gen_log.warning('no TLS with %s: %s', connection.context, error)
        except OSError:  # the client is gone, or takes too long
            pass
        finally:
            if connection.arrival is not None:
                self.connections.discard(connection)
