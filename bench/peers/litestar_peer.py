"""Litestar on uvicorn, with msgspec structs that say what the JSON Schema says.

Litestar rather than Sanic: it runs on the server and under the middleware of the other ASGI peers,
and checks bodies itself, by msgspec, where Sanic leaves that to others.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Litestar, MediaType, Request, Response, delete, get, post, put
from litestar.datastructures import State
from litestar.exceptions import HTTPException, NotFoundException, ValidationException
from msgspec import UNSET, Meta, Struct, UnsetType

from bench.peers import asgi, serving

LARGEST: Final = 2**53 - 1
NO_NUL: Final = r'^[^\x00]*\Z'

Text = Annotated[str, Meta(max_length=256, pattern=NO_NUL)]
Integer = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Real = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
NumberOrText = Integer | Real | Text
Kind = Literal['home', 'work']
EmailAddress = Annotated[str, Meta(
    max_length=254,
    pattern="^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\u00a1-\uffff-]+"
            r'@[A-Za-z0-9\u00a1-\uffff-]+([.][A-Za-z0-9\u00a1-\uffff-]+)*\Z')]


class Address(Struct, forbid_unknown_fields=True):
    kind: Kind
    streetName: Text
    pincode: NumberOrText
    country: Text
    buildingName: Text | UnsetType = UNSET
    unitNumber: NumberOrText | UnsetType = UNSET
    streetNumber: NumberOrText | UnsetType = UNSET
    locality: Text | UnsetType = UNSET
    city: Text | UnsetType = UNSET
    state: Text | UnsetType = UNSET


class Phone(Struct, forbid_unknown_fields=True):
    kind: Kind
    countryCode: NumberOrText
    number: NumberOrText
    areaCode: NumberOrText | UnsetType = UNSET


class Email(Struct, forbid_unknown_fields=True):
    kind: Kind
    value: EmailAddress


class Entry(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=256, pattern=NO_NUL)]
    addresses: Annotated[list[Address], Meta(max_length=100)] | UnsetType = UNSET
    phoneNumbers: Annotated[list[Phone], Meta(max_length=100)] | UnsetType = UNSET
    faxNumbers: Annotated[list[Phone], Meta(max_length=100)] | UnsetType = UNSET
    emails: Annotated[list[Email], Meta(max_length=100)] | UnsetType = UNSET


@post('/addressbook')
async def create(data: Entry, state: State) -> Response[bytes]:
    key = await state.store.create(msgspec.json.encode(data), data.name)
    return Response(b'', status_code=201, headers={'Location': f'/addressbook/{key}'})


@get('/addressbook')
async def read_book(state: State, limit: int | None = None) -> Response[bytes]:
    return Response(await state.store.book(limit), media_type=MediaType.JSON)


@get('/addressbook/{key:str}')
async def read(key: str, state: State) -> Response[bytes]:
    document = await state.store.read(key)
    if document is None:
        raise NotFoundException
    return Response(document, media_type=MediaType.JSON)


@put('/addressbook/{key:str}', status_code=204)
async def replace(key: str, data: Entry, state: State) -> None:
    if not await state.store.replace(key, msgspec.json.encode(data), data.name):
        raise NotFoundException


@delete('/addressbook/{key:str}')
async def remove(key: str, state: State) -> None:
    if not await state.store.delete(key):
        raise NotFoundException


def error_response(request: Request[Any, Any, Any], code: int, message: str) -> Response[Any]:
    uri = request.url.path + (f'?{request.url.query}' if request.url.query else '')
    document = serving.error_document(request.method, uri, code, message)
    return Response(document, status_code=code, media_type=MediaType.JSON)


def answer_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    message = 'Invalid entry' if isinstance(error, ValidationException) else error.detail
    return error_response(request, error.status_code, message)


def answer_bad_utf8(request: Request[Any, Any, Any], _: UnicodeDecodeError) -> Response[Any]:
    """Some versions of msgspec raise that for text that is not in UTF-8."""
    return error_response(request, 400, 'Invalid JSON body')


app = Litestar(
    [create, read_book, read, replace, remove], lifespan=[asgi.lifespan],
    exception_handlers={HTTPException: answer_error, UnicodeDecodeError: answer_bad_utf8},
    logging_config=None)


def serve(place: serving.Place) -> None:
    app.state.place = place
    # Around all of it, for its own middleware does not see what no route is for.
    asgi.serve(asgi.RequestLog(app), place)


if __name__ == '__main__':
    serving.main(serve)
