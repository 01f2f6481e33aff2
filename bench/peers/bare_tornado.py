"""The floor of Tornado: a handler that answers a constant of the usual entry's size, no more.

It checks, keeps and logs nothing.
"""

import asyncio
from typing import Final

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from bench.peers import serving

SIZE: Final = 900  # bytes
BODY: Final = b'{"name":"%s"}' % (b'x' * (SIZE - len('{"name":""}')))


class Handler(RequestHandler):
    def get(self) -> None:
        self.set_header('Content-Type', 'application/json')
        self.write(BODY)

    def post(self) -> None:
        self.set_status(201)


async def serve_forever(place: serving.Place) -> None:
    app = Application([('/addressbook(?:/x)?', Handler)], log_function=lambda _: None)
    server = HTTPServer(app)
    server.add_socket(place.listener)
    place.announce()
    await asyncio.Event().wait()


def serve(place: serving.Place) -> None:
    place.listener.setblocking(False)
    asyncio.run(serve_forever(place))


if __name__ == '__main__':
    serving.main(serve, stores=['memory'])
