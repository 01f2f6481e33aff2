"""The service over TLS as a process: its files, and that renewed ones are taken."""

import signal
import socket
import ssl
import unittest
from pathlib import Path
from typing import Any, Final

from tests.certificates import Authority, new_folder
from tests.postgresql import free_port
from tests.support import DEADLINE, ServerProcess, wait_until, write_config
from tests.wire import request

HEALTH: Final = request('GET', '/healthz')


class ProcessTest(unittest.TestCase):
    """The service as a process."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.authority = Authority(self.folder)
        self.pair = self.authority.issue('server')
        self.metrics_port = free_port()

    def start(self) -> ServerProcess:
        files = {'certificate': str(self.pair.certificate), 'key': str(self.pair.key)}
        config = write_config(self.folder, service={
            'tls': files, 'metrics-port': self.metrics_port})
        server = ServerProcess('--port', '0', '--config', str(config))
        self.addCleanup(server.kill)
        return server

    def connect(self, port: int, tls: bool = True) -> socket.socket:
        """A connection on which the service has answered."""
        client = socket.create_connection(('127.0.0.1', port), DEADLINE)
        if tls:
            context = ssl.create_default_context(cafile=self.authority.certificate)
            client = context.wrap_socket(client, server_hostname='127.0.0.1')
        self.addCleanup(client.close)
        self.ask(client)
        return client

    def ask(self, client: socket.socket) -> None:
        client.sendall(HEALTH)
        self.assertRegex(client.recv(1000), rb'^HTTP/1.1 200 OK\r\n')

    def name(self, client: socket.socket) -> str:
        """The name in the certificate that the service has shown."""
        assert isinstance(client, ssl.SSLSocket)
        found: Any = client.getpeercert()
        return str(found['subject'][0][0][1])

    def log(self) -> str:
        return Path(self.folder, 'service.log').read_text(encoding='utf-8')

    def reload(self, server: ServerProcess, line: str) -> None:
        """Sends SIGHUP and waits for what the log has to say."""
        self.assertNotIn(line, self.log())
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: line in self.log())

    def test_renewed_files_are_taken_on_sighup_and_broken_ones_are_not(self) -> None:
        server = self.start()
        port = server.wait_for_port()
        before = self.connect(port)
        self.assertEqual('server', self.name(before))
        self.connect(self.metrics_port, tls=False)
        self.pair.replace(self.authority.issue('renewed'))
        self.reload(server, 'tokens and certificates reloaded')
        self.assertEqual('renewed', self.name(self.connect(port)))
        self.pair.key.write_bytes(self.authority.issue('other').key.read_bytes())
        self.reload(server, f'not reloaded: {self.pair.certificate}, {self.pair.key}: key values')
        self.assertEqual('renewed', self.name(self.connect(port)))
        self.ask(before)
        self.assertEqual(0, server.stop())
        self.assertNotIn('Traceback', server.stderr)

    def test_a_key_that_is_encrypted_is_refused_in_one_line(self) -> None:
        self.pair = self.authority.issue('encrypted', password='secret')
        server = self.start()
        self.assertEqual(2, server.wait())
        self.assertEqual(
            f'addrservice: {self.pair.key}: the key is encrypted\n', server.stderr)


if __name__ == '__main__':
    unittest.main()
