"""Where the traces of the service go: they are taken, and nobody looks at them.

That is done with what time the load generator leaves: else answers would wait to be seen by it, and
what takes the traces would be measured as well.
"""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class TraceSink:
    """A server for OTLP over HTTP, for as long as it is entered.

    :ivar url: where it is
    """

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
        self.url = f'http://127.0.0.1:{self._server.server_address[1]}'
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'  # connections are kept, as collectors do
    timeout = 60  # seconds

    def setup(self) -> None:
        """Has this thread, which is one connection's, stand back for all others."""
        if sys.platform == 'linux':  # elsewhere it would be the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        super().setup()

    def do_POST(self) -> None:
        """Takes an export."""
        self.rfile.read(int(self.headers['Content-Length']))
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""
