"""aiohttp on uvloop, with the validator and the JSON library of the service."""

import time
from collections.abc import AsyncIterator
from typing import Any, Final

import jsonschema_rs
import orjson
import uuid_utils
import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler

from addrservice import ENTRY_SCHEMA
from bench.peers import serving
from bench.peers.stores import Store, make_store

VALIDATOR: Final = jsonschema_rs.Draft7Validator(ENTRY_SCHEMA, validate_formats=False)
STORE: Final = web.AppKey('store', Store)
PLACE: Final = web.AppKey('place', serving.Place)

routes = web.RouteTableDef()


def json_response(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type='application/json')


@web.middleware
async def identify_and_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives a request its id and its line in the log, and an error its JSON."""
    began = time.perf_counter()
    request_id = request.headers.get('X-Request-ID') or uuid_utils.uuid4().hex
    try:
        response = await handler(request)
    except web.HTTPException as error:
        document = serving.error_document(
            request.method, request.path_qs, error.status, error.reason)
        response = json_response(orjson.dumps(document), error.status)
    response.headers['X-Request-ID'] = request_id
    serving.log_request(request_id, request.method, request.path, response.status,
                        time.perf_counter() - began, request.remote)
    return response


async def entry_of(request: web.Request) -> dict[str, Any]:
    """The entry in the body.

    :raises web.HTTPBadRequest: there is none
    """
    try:
        entry: dict[str, Any] = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise web.HTTPBadRequest(reason='Invalid JSON body') from None
    if not VALIDATOR.is_valid(entry):
        raise web.HTTPBadRequest(reason='JSON Schema validation failed')
    return entry


@routes.post('/addressbook')
async def create(request: web.Request) -> web.Response:
    entry = await entry_of(request)
    key = await request.app[STORE].create(orjson.dumps(entry), entry['name'])
    return web.Response(status=201, headers={'Location': f'/addressbook/{key}'})


@routes.get('/addressbook')
async def read_book(request: web.Request) -> web.Response:
    limit = request.query.get('limit')
    return json_response(await request.app[STORE].book(int(limit) if limit else None))


@routes.get('/addressbook/{key}')
async def read(request: web.Request) -> web.Response:
    document = await request.app[STORE].read(request.match_info['key'])
    if document is None:
        raise web.HTTPNotFound
    return json_response(document)


@routes.put('/addressbook/{key}')
async def replace(request: web.Request) -> web.Response:
    entry = await entry_of(request)
    store = request.app[STORE]
    if not await store.replace(request.match_info['key'], orjson.dumps(entry), entry['name']):
        raise web.HTTPNotFound
    return web.Response(status=204)


@routes.delete('/addressbook/{key}')
async def delete(request: web.Request) -> web.Response:
    if not await request.app[STORE].delete(request.match_info['key']):
        raise web.HTTPNotFound
    return web.Response(status=204)


async def store_context(app: web.Application) -> AsyncIterator[None]:
    app[STORE] = make_store(app[PLACE].store)
    await app[STORE].open()
    app[PLACE].announce()
    yield
    await app[STORE].close()


def serve(place: serving.Place) -> None:
    app = web.Application(middlewares=[identify_and_log])
    app[PLACE] = place
    app.add_routes(routes)
    app.cleanup_ctx.append(store_context)
    web.run_app(app, sock=place.listener, backlog=serving.BACKLOG, access_log=None,
                print=lambda *_: None, loop=uvloop.new_event_loop())


if __name__ == '__main__':
    serving.main(serve)
