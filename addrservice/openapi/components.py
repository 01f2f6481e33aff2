"""What several operations of the API share: header fields, parameters, schemas, errors."""

import re
from collections.abc import Sequence
from typing import Any, Final

from addrservice.negotiation import JSON, MERGE_PATCH
from addrservice.parameters import IDEMPOTENCY_KEY, QUERY

JSONObject = dict[str, Any]

_ID_PATTERN: Final = '^[0-9a-f]{32}$'
# What the examples of key and entry make together.
EXAMPLE_ID: Final = '0111c9ca8d1a5a74816e7bc78a1b3ff2'
EXAMPLE_KEY: Final = '8e03978e-40d5-43dd-bc93-6894a57f9324'
_EXAMPLE_VERSION: Final = '"1795557179845123"'
_EXAMPLE_DATE: Final = 'Tue, 24 Nov 2026 21:52:59 GMT'


def ref(kind: str, name: str) -> JSONObject:
    """A reference to a component."""
    return {'$ref': f'#/components/{kind}/{name}'}


def header(description: str, example: str | int, required: bool = True) -> JSONObject:
    """A header field of a response."""
    kind = 'integer' if isinstance(example, int) else 'string'
    return {'description': description, 'required': required, 'schema': {'type': kind},
            'example': example}


HEADERS: Final = {
    'X-Request-ID': header(
        'The id of the request, as in the log: the one that was sent, if it is a sane one.',
        'my-request-17'),
    'X-Content-Type-Options': header('The content is what its type says.', 'nosniff'),
    'Cache-Control': header(
        'Who may keep the answer. Entries are for the client alone, and to be asked for again.',
        'private, no-cache'),
    'Vary': header(
        'What else of the request the answer depends on: with origins configured, `Origin` too.',
        'Accept, Accept-Encoding'),
    'ETag': header('The version of what is there, for `If-Match` and `If-None-Match`.',
                   _EXAMPLE_VERSION),
    'ETag-once': header(
        'The version of the entry. Left out where the entry was changed since it was first posted '
        'with this key.', _EXAMPLE_VERSION, required=False),
    'Last-Modified': header('When the entry was last changed.', _EXAMPLE_DATE),
    'Link': header(
        'The next page, while there is one (RFC 8288).',
        f'</addressbook?limit=100&after={EXAMPLE_ID}>; rel="next"', required=False),
    'Location': header('The path of the new entry.', f'/addressbook/{EXAMPLE_ID}'),
    'Allow': header('The methods that the path knows.', 'GET, HEAD, POST, OPTIONS'),
    'Accept-Patch': header('The patches that the path takes.', MERGE_PATCH, required=False),
    'Accept': header('What a body must be.', JSON),
    'Accept-Encoding': header('How a body may be encoded.', 'gzip'),
    'Content-Encoding': header('Where the client accepts it.', 'gzip', required=False),
    'Retry-After': header('Seconds after which it may be tried again.', 1),
}
_EVERYWHERE: Final = ('X-Request-ID', 'X-Content-Type-Options', 'Cache-Control', 'Vary')


def _parameter(
    name: str, place: str, description: str, schema: JSONObject | None = None, **more: Any
) -> JSONObject:
    return {'name': name, 'in': place, 'description': description,
            'schema': schema or {'type': 'string'}, **more}


def _whole(pattern: re.Pattern[str]) -> str:
    """A pattern that a whole text has to match, as JSON Schema has it."""
    return f'^(?:{pattern.pattern})$'


PARAMETERS: Final = {
    'id': _parameter('id', 'path', 'The id of an entry.',
                     {'type': 'string', 'pattern': _ID_PATTERN}, required=True,
                     example=EXAMPLE_ID),
    'any-id': _parameter('id', 'path', 'The id of an entry, whether there is one or not.',
                         {'type': 'string', 'minLength': 1}, required=True, example=EXAMPLE_ID),
    'limit': _parameter('limit', 'query', 'At most so many entries; without it, all.',
                        {'type': 'integer', 'minimum': 1, 'maximum': 1000}, example=100),
    'name': _parameter(
        'name', 'query',
        'Only entries whose name begins so, without regard to case, in order of name.',
        {'type': 'string', 'minLength': 1, 'maxLength': 256, 'pattern': _whole(QUERY['name'][0])},
        example='nar'),
    'after': _parameter(
        'after', 'query',
        'Only entries that come after this one: an id, or as the next link has it. The id is that '
        'of an entry that is there where names are searched for.',
        {'type': 'string', 'pattern': _whole(QUERY['after'][0])}, example=EXAMPLE_ID),
    'X-Request-ID': _parameter(
        'X-Request-ID', 'header',
        'The id of the request, for the log; one is made where it is not 1 to 128 of '
        '`A-Z a-z 0-9 . _ : / + = @ -`.', example='my-request-17'),
    'Idempotency-Key': _parameter(
        'Idempotency-Key', 'header',
        'Makes it safe to send the request again: with one key one entry is made. Bare or in '
        'double quotes.',
        {'type': 'string', 'pattern': _whole(IDEMPOTENCY_KEY)},
        example=EXAMPLE_KEY),
    'If-Match': _parameter('If-Match', 'header',
                           'Only if the entry has one of these versions, or `*`.',
                           example='*'),
    'If-None-Match': _parameter('If-None-Match', 'header',
                                'Only if the entry has none of these versions, nor `*`.',
                                example=_EXAMPLE_VERSION),
    'If-Modified-Since': _parameter('If-Modified-Since', 'header',
                                    'Only if it was changed after this date.',
                                    example=_EXAMPLE_DATE),
    'If-Unmodified-Since': _parameter('If-Unmodified-Since', 'header',
                                      'Only if it was not changed after this date.',
                                      example=_EXAMPLE_DATE),
}
READ_CONDITIONS: Final = (
    'If-None-Match', 'If-Modified-Since', 'If-Match', 'If-Unmodified-Since')
WRITE_CONDITIONS: Final = ('If-Match', 'If-Unmodified-Since', 'If-None-Match')

_UPTIME: Final = {'description': 'Milliseconds since the start.', 'type': 'integer', 'minimum': 0}
SCHEMAS: Final = {
    'Book': {
        'description': 'Entries by id.',
        'type': 'object',
        'propertyNames': {'pattern': _ID_PATTERN},
        'additionalProperties': ref('schemas', 'Entry'),
    },
    'Health': {
        'description': 'The process lives.',
        'type': 'object',
        'properties': {'uptime': _UPTIME},
        'required': ['uptime'],
        'additionalProperties': False,
    },
    'Readiness': {
        'description': 'Whether requests should be sent here.',
        'type': 'object',
        'properties': {'ready': {'type': 'boolean'}, 'uptime': _UPTIME},
        'required': ['ready', 'uptime'],
        'additionalProperties': False,
    },
    'Error': {
        'description': 'What is wrong, and where.',
        'type': 'object',
        'properties': {
            'method': {'description': 'Null where it could not be read.',
                       'type': ['string', 'null']},
            'uri': {'description': 'Null where it could not be read.', 'type': ['string', 'null']},
            'code': {'description': 'The status.', 'type': 'integer', 'minimum': 400},
            'message': {'type': 'string'},
            'requestId': {'description': 'As in the log.', 'type': 'string'},
            'errors': {
                'description': 'The places that are wrong, ten at the most.',
                'type': 'array',
                'items': ref('schemas', 'Violation'),
                'minItems': 1,
                'maxItems': 10,
            },
            'trace': {'description': 'The traceback, under --debug alone.', 'type': 'string'},
        },
        'required': ['method', 'uri', 'code', 'message'],
        'additionalProperties': False,
    },
    'Violation': {
        'description': 'One place that is wrong.',
        'type': 'object',
        'properties': {
            'path': {'description': 'A JSON Pointer (RFC 6901) into the body, or the name of a '
                                    'parameter.', 'type': 'string'},
            'message': {'type': 'string'},
        },
        'required': ['path', 'message'],
        'additionalProperties': False,
    },
}


def content(schema: JSONObject, media_type: str = JSON, **examples: Any) -> JSONObject:
    """A body of one media type, with examples by name."""
    made = {'schema': schema}
    if examples:
        made['examples'] = {name: {'value': value} for name, value in examples.items()}
    return {media_type: made}


def response(
    description: str, headers: Sequence[str] = (), body: JSONObject | None = None
) -> JSONObject:
    """A response with the header fields that all have, and further ones."""
    made: JSONObject = {'description': description, 'headers': {
        name.removesuffix('-once'): ref('headers', name) for name in (*_EVERYWHERE, *headers)}}
    if body is not None:
        made['content'] = body
        made['headers']['Content-Encoding'] = ref('headers', 'Content-Encoding')
    return made


def error(
    code: int, description: str, message: str, headers: Sequence[str] = (),
    errors: Sequence[JSONObject] = (),
) -> JSONObject:
    """A response that says what is wrong."""
    example = {'method': 'PUT', 'uri': f'/addressbook/{EXAMPLE_ID}', 'code': code,
               'message': message, 'requestId': 'my-request-17'}
    if errors:
        example['errors'] = errors
    return response(description, headers, content(ref('schemas', 'Error'), error=example))


ERRORS: Final = {
    '400': error(400, 'The request, a parameter or the body is not as it must be.',
                 'JSON Schema validation failed',
                 errors=[{'path': '/name', 'message': 'must not be empty'}]),
    '404': error(404, 'There is no such entry.', f"There is no entry '{EXAMPLE_ID}'"),
    '406': error(406, 'What there is is JSON, which `Accept` excludes.',
                 'What is here is application/json, which Accept excludes'),
    '412': error(412, 'A precondition is not met: somebody else was first.',
                 f"The entry '{EXAMPLE_ID}' is not in the state that the request asks for"),
    '413': error(413, 'The body is too large, whether it is of use or not.',
                 'The body is larger than 65536 bytes'),
    '415': error(415, 'The body is not declared as JSON, or is encoded other than with gzip.',
                 f'The body must be declared as Content-Type: {JSON}',
                 ('Accept', 'Accept-Encoding')),
    '415-patch': error(
        415, 'The body is not declared as a merge patch, or is encoded other than with gzip.',
        f'The body must be declared as Content-Type: {MERGE_PATCH}',
        ('Accept', 'Accept-Encoding', 'Accept-Patch')),
    '422': error(422, 'The key was used for another entry.',
                 'The Idempotency-Key was used for another entry'),
    '500': error(500, 'A bug, or the store turns the service away.', 'Internal Server Error'),
    '503': error(503, 'The store is out of reach or overloaded, or there are too many '
                 'connections.', 'Service Unavailable', ('Retry-After',)),
}
