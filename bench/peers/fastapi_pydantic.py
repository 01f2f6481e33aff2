"""FastAPI on uvicorn, with pydantic models that say what the JSON Schema says.

An entry is kept, and answered, as the JSON that its model made when it came: to make it a model
again and serialise that would be slower.
"""

from typing import Annotated, Final, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from bench.peers import asgi, serving
from bench.peers.stores import Store

JSON: Final = 'application/json'
LARGEST: Final = 2**53 - 1
NO_NUL: Final = r'^[^\x00]*$'

Text = Annotated[str, Field(max_length=256, pattern=NO_NUL)]
Integer = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Real = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
NumberOrText = Integer | Real | Text
Kind = Literal['home', 'work']
EmailAddress = Annotated[str, Field(
    max_length=254,
    pattern="^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\u00a1-\uffff-]+"
            '@[A-Za-z0-9\u00a1-\uffff-]+([.][A-Za-z0-9\u00a1-\uffff-]+)*$')]


class Model(BaseModel):
    """As JSON Schema has it: no other properties, and 5 is no text."""

    model_config = ConfigDict(extra='forbid', strict=True)


class Address(Model):
    kind: Kind
    buildingName: Text = ''
    unitNumber: NumberOrText = ''
    streetNumber: NumberOrText = ''
    streetName: Text
    locality: Text = ''
    city: Text = ''
    state: Text = ''
    pincode: NumberOrText
    country: Text


class Phone(Model):
    kind: Kind
    countryCode: NumberOrText
    areaCode: NumberOrText = ''
    number: NumberOrText


class Email(Model):
    kind: Kind
    value: EmailAddress


class Entry(Model):
    name: Annotated[str, Field(min_length=1, max_length=256, pattern=NO_NUL)]
    addresses: Annotated[list[Address], Field(max_length=100)] = []
    phoneNumbers: Annotated[list[Phone], Field(max_length=100)] = []
    faxNumbers: Annotated[list[Phone], Field(max_length=100)] = []
    emails: Annotated[list[Email], Field(max_length=100)] = []

    def document(self) -> bytes:
        """The entry as JSON, without what the client left out."""
        return self.model_dump_json(exclude_unset=True).encode()


app = FastAPI(
    lifespan=asgi.lifespan,
    telemetry={'tracing': False, 'metrics': False, 'logs': False},  # nobody collects it
)
app.add_middleware(asgi.RequestLog)


def store_of(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


@app.post('/addressbook', status_code=201)
async def create(request: Request, entry: Entry) -> Response:
    key = await store_of(request).create(entry.document(), entry.name)
    return Response(status_code=201, headers={'Location': f'/addressbook/{key}'})


@app.get('/addressbook')
async def read_book(request: Request, limit: int | None = None) -> Response:
    return Response(await store_of(request).book(limit), media_type=JSON)


@app.get('/addressbook/{key}')
async def read(request: Request, key: str) -> Response:
    document = await store_of(request).read(key)
    if document is None:
        raise HTTPException(404)
    return Response(document, media_type=JSON)


@app.put('/addressbook/{key}', status_code=204)
async def replace(request: Request, key: str, entry: Entry) -> Response:
    if not await store_of(request).replace(key, entry.document(), entry.name):
        raise HTTPException(404)
    return Response(status_code=204)


@app.delete('/addressbook/{key}', status_code=204)
async def delete(request: Request, key: str) -> Response:
    if not await store_of(request).delete(key):
        raise HTTPException(404)
    return Response(status_code=204)


def error_response(request: Request, code: int, message: str) -> JSONResponse:
    uri = request.url.path + (f'?{request.url.query}' if request.url.query else '')
    return JSONResponse(serving.error_document(request.method, uri, code, message), code)


@app.exception_handler(StarletteHTTPException)
async def answer_error(request: Request, error: StarletteHTTPException) -> JSONResponse:
    return error_response(request, error.status_code, error.detail)


@app.exception_handler(RequestValidationError)
async def answer_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    is_json = error.errors()[0]['type'] != 'json_invalid'
    return error_response(request, 400, 'Invalid entry' if is_json else 'Invalid JSON body')


def serve(place: serving.Place) -> None:
    app.state.place = place
    asgi.serve(app, place)


if __name__ == '__main__':
    serving.main(serve)
