"""A receiver of traces (OTLP over HTTP) that decodes the official protobuf and can misbehave.

It has threads of its own, so that it serves tests with and without an event loop, and goes on
while a test waits for something else.
"""

import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest, ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support import wait_until

KINDS: Final = {number: name.removeprefix('SPAN_KIND_').lower()
                for name, number in Span.SpanKind.items()}


class ReceivedSpan:
    """One span as it came, in Python's types; ids are hex digits."""

    def __init__(self, span: Span, resource: dict[str, Any]) -> None:
        self.name = span.name
        self.kind = KINDS[span.kind]
        self.trace_id = span.trace_id.hex()
        self.span_id = span.span_id.hex()
        self.parent_id = span.parent_span_id.hex()
        self.trace_state = span.trace_state
        self.start_ns = span.start_time_unix_nano
        self.end_ns = span.end_time_unix_nano
        self.attributes = in_python(span.attributes)
        self.is_failure = span.status.code == Status.STATUS_CODE_ERROR
        self.status_message = span.status.message
        self.events = len(span.events)
        self.resource = resource


def in_python(pairs: Any) -> dict[str, Any]:
    """Attributes as a dict."""
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof('value')
    return None if kind is None else getattr(pair.value, kind)


class Receiver:
    """A place to send traces to.

    ``status`` is what it answers, ``Retry-After: 0`` included, ``body`` what it answers with
    (without an end where ``is_endless``), ``location`` where it redirects to. While it ``hangs``
    it answers nothing at all. ``spans`` and ``bodies`` are what has come, ``headers`` those of the
    last request; what it refuses does not count. ``connections`` is how many there have been.
    """

    def __init__(self) -> None:
        self.status = 200
        self.location: str | None = None
        self.is_endless = False
        self.body = ExportTraceServiceResponse().SerializeToString()
        self.connections = 0
        self.open: set[socket.socket] = set()
        self.spans: list[ReceivedSpan] = []
        self.bodies: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.paths: list[str] = []
        self.requests = 0
        self._go_on = threading.Event()
        self._go_on.set()
        self._server = _Server(('127.0.0.1', 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.server_address[1]
        return port

    @property
    def url(self) -> str:
        """The same, for the configuration."""
        return f'http://127.0.0.1:{self.port}'

    def hang(self) -> None:
        """From now on requests get no answer."""
        self._go_on.clear()

    def go_on(self) -> None:
        """Those that wait get one."""
        self._go_on.set()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Takes note of a request, and waits while this hangs."""
        self.requests += 1
        self.headers = headers
        self.paths.append(path)
        self._go_on.wait()
        if self.status == 200:
            self.bodies.append(body)
            if headers.get('Content-Encoding') == 'gzip':
                body = gzip.decompress(body)
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = in_python(group.resource.attributes)
                self.spans += [ReceivedSpan(span, resource)
                               for scope in group.scope_spans for span in scope.spans]

    def wait_for(self, count: int) -> list[ReceivedSpan]:
        """All spans, when there are at least so many."""
        wait_until(lambda: len(self.spans) >= count)
        return self.spans

    def span(self, name: str) -> ReceivedSpan:
        """The one span of that name, when it has come."""
        wait_until(lambda: any(span.name == name for span in self.spans))
        span, = [span for span in self.spans if span.name == name]
        return span

    def close(self) -> None:
        """Ends it; who waits for an answer gets one."""
        self._go_on.set()
        self._server.shutdown()
        for connection in list(self.open):
            with suppress(OSError):  # it has just ended
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone is none."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'  # connections are kept, as collectors do

        def setup(self) -> None:
            super().setup()
            receiver.connections += 1
            receiver.open.add(self.connection)

        def finish(self) -> None:
            receiver.open.discard(self.connection)
            super().finish()

        def do_POST(self) -> None:
            length = int(self.headers['Content-Length'])
            receiver.take(self.path, dict(self.headers.items()), self.rfile.read(length))
            self.send_response(receiver.status)
            if receiver.location is not None:
                self.send_header('Location', receiver.location)
            self.send_header('Content-Type', 'application/x-protobuf')
            if not receiver.is_endless:
                self.send_header('Content-Length', str(len(receiver.body)))
            self.end_headers()
            self.wfile.write(receiver.body)
            while receiver.is_endless:
                self.wfile.write(b' ' * 65536)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests look at what has come."""

    return Handler


@contextmanager
def closed_url() -> Iterator[str]:
    """A place where nobody listens."""
    with Receiver() as receiver:
        url = receiver.url
    yield url
