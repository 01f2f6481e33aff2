"""Starlette on uvicorn, with the validator and the JSON library of the service."""

from typing import Any, Final

import jsonschema_rs
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from addrservice import ENTRY_SCHEMA
from bench.peers import asgi, serving
from bench.peers.stores import Store

VALIDATOR: Final = jsonschema_rs.Draft7Validator(ENTRY_SCHEMA, validate_formats=False)


def json_response(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type='application/json')


async def entry_of(request: Request) -> dict[str, Any]:
    """The entry in the body.

    :raises HTTPException: there is none
    """
    try:
        entry: dict[str, Any] = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise HTTPException(400, 'Invalid JSON body') from None
    if not VALIDATOR.is_valid(entry):
        raise HTTPException(400, 'JSON Schema validation failed')
    return entry


def store_of(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def create(request: Request) -> Response:
    entry = await entry_of(request)
    key = await store_of(request).create(orjson.dumps(entry), entry['name'])
    return Response(status_code=201, headers={'Location': f'/addressbook/{key}'})


async def read_book(request: Request) -> Response:
    limit = request.query_params.get('limit')
    return json_response(await store_of(request).book(int(limit) if limit else None))


async def read(request: Request) -> Response:
    document = await store_of(request).read(request.path_params['key'])
    if document is None:
        raise HTTPException(404)
    return json_response(document)


async def replace(request: Request) -> Response:
    entry = await entry_of(request)
    store = store_of(request)
    if not await store.replace(request.path_params['key'], orjson.dumps(entry), entry['name']):
        raise HTTPException(404)
    return Response(status_code=204)


async def delete(request: Request) -> Response:
    if not await store_of(request).delete(request.path_params['key']):
        raise HTTPException(404)
    return Response(status_code=204)


async def answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    uri = request.url.path + (f'?{request.url.query}' if request.url.query else '')
    document = serving.error_document(request.method, uri, error.status_code, error.detail)
    return json_response(orjson.dumps(document), error.status_code)


app = Starlette(
    routes=[
        Route('/addressbook', create, methods=['POST']),
        Route('/addressbook', read_book, methods=['GET']),
        Route('/addressbook/{key}', read, methods=['GET']),
        Route('/addressbook/{key}', replace, methods=['PUT']),
        Route('/addressbook/{key}', delete, methods=['DELETE']),
    ],
    middleware=[Middleware(asgi.RequestLog)],
    exception_handlers={HTTPException: answer_error},
    lifespan=asgi.lifespan,
)


def serve(place: serving.Place) -> None:
    app.state.place = place
    asgi.serve(app, place)


if __name__ == '__main__':
    serving.main(serve)
