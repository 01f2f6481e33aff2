"""Plain Tornado as tutorials have it: json, ``jsonschema.validate``, a dictionary."""

import asyncio
import json
import uuid
from typing import Any

import jsonschema
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from addrservice import ENTRY_SCHEMA
from bench.peers import serving

Book = dict[str, dict[str, Any]]


class BaseHandler(RequestHandler):
    def initialize(self, book: Book) -> None:
        self.book = book

    def set_default_headers(self) -> None:
        self.request_id = self.request.headers.get('X-Request-ID') or uuid.uuid4().hex
        self.set_header('X-Request-ID', self.request_id)

    def read_entry(self) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = json.loads(self.request.body)
            jsonschema.validate(entry, ENTRY_SCHEMA)
        except jsonschema.ValidationError:
            raise HTTPError(400, reason='JSON Schema validation failed') from None
        except ValueError:
            raise HTTPError(400, reason='Invalid JSON body') from None
        return entry

    def check_key(self, key: str) -> None:
        if key not in self.book:
            raise HTTPError(404)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish(serving.error_document(
            self.request.method, str(self.request.uri), status_code, self._reason))


class BookHandler(BaseHandler):
    async def get(self) -> None:
        limit = self.get_query_argument('limit', None)
        keys = sorted(self.book)[:int(limit) if limit else None]
        self.write({key: self.book[key] for key in keys})

    async def post(self) -> None:
        entry = self.read_entry()
        key = uuid.uuid4().hex
        self.book[key] = entry
        self.set_status(201)
        self.set_header('Location', f'/addressbook/{key}')


class EntryHandler(BaseHandler):
    async def get(self, key: str) -> None:
        self.check_key(key)
        self.write(self.book[key])

    async def put(self, key: str) -> None:
        self.check_key(key)
        self.book[key] = self.read_entry()
        self.set_status(204)

    async def delete(self, key: str) -> None:
        self.check_key(key)
        del self.book[key]
        self.set_status(204)


class UnknownHandler(BaseHandler):
    def prepare(self) -> None:
        raise HTTPError(404)


def log_request(handler: RequestHandler) -> None:
    assert isinstance(handler, BaseHandler)
    request = handler.request
    serving.log_request(handler.request_id, request.method, request.path, handler.get_status(),
                        request.request_time(), request.remote_ip)


def make_app() -> Application:
    arguments: dict[str, Book] = {'book': {}}
    return Application(
        [('/addressbook', BookHandler, arguments), ('/addressbook/(.+)', EntryHandler, arguments)],
        default_handler_class=UnknownHandler, default_handler_args=arguments,
        log_function=log_request)


async def serve_forever(place: serving.Place) -> None:
    server = HTTPServer(make_app())
    server.add_socket(place.listener)
    place.announce()
    await asyncio.Event().wait()


def serve(place: serving.Place) -> None:
    place.listener.setblocking(False)
    asyncio.run(serve_forever(place))


if __name__ == '__main__':
    serving.main(serve, stores=['memory'])
