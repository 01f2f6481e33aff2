"""What the ASGI peers share: uvicorn, and a middleware with the request's id and log line."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import uuid_utils
import uvicorn

from bench.peers.serving import BACKLOG, Place, log_request
from bench.peers.stores import make_store

# As the specification of ASGI has them. Each framework has types of its own for these, which no
# other takes.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]


class RequestLog:
    """Gives each request its id and its line in the log."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _request_id(scope['headers'])
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message['type'] == 'http.response.start':
                status = message['status']
                message['headers'] = [*message['headers'], (b'x-request-id', request_id)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            log_request(request_id.decode('latin-1'), scope['method'], scope['path'], status,
                        time.perf_counter() - began, scope['client'][0])


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The client's, else a new one."""
    for name, value in headers:
        if name == b'x-request-id':
            return value
    return uuid_utils.uuid4().hex.encode()


@contextlib.asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Has the store open while an application, of whichever framework, serves."""
    app.state.store = make_store(app.state.place.store)
    await app.state.store.open()
    app.state.place.announce()
    yield
    await app.state.store.close()


def serve(app: Application, place: Place) -> None:
    """Serves with uvicorn, its fast loop and its fast parser, without its own access log."""
    config = uvicorn.Config(
        app, loop='uvloop', http='httptools', ws='none', lifespan='on', access_log=False,
        log_config=None, log_level='warning', proxy_headers=False, server_header=False,
        backlog=BACKLOG)
    uvicorn.Server(config).run(sockets=[place.listener])
