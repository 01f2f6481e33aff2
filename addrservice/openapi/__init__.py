"""The OpenAPI 3.1 description of the API, built from its routes and the entry's JSON Schema.

The routes say which operations there are, the JSON Schema what an entry is; the tables of the two
modules add what neither can tell. A test holds the outcome against the service, and Schemathesis
tries it.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from addrservice import ENTRY_SCHEMA, __version__
from addrservice.openapi.components import (
    ERRORS, HEADERS, PARAMETERS, SCHEMAS, JSONObject, response,
)
from addrservice.openapi.guards import guarded
from addrservice.openapi.operations import OPERATIONS, operation

_INFO: Final = {
    'title': 'Address book',
    'version': __version__,
    'description': (
        'Keeps the addresses of persons and organisations.\n\n'
        'A trailing slash is allowed on every path. A method that a path does not know gets 405 '
        'with `Allow`, an unknown path 404, what is not HTTP/1.1 or has more than 1000 parameters '
        '400. Every error is a JSON object that says what is wrong and where. Bodies may be '
        'encoded with gzip. Where the configuration names origins, answers have the header fields '
        'of CORS too.'),
}

_TAGS: Final = [
    {'name': 'Entries', 'description': 'The entries of the book.'},
    {'name': 'Probes', 'description': 'What an orchestrator asks.'},
    {'name': 'Description', 'description': 'This document.'},
]


def describe(
    routes: Mapping[str, Iterable[str]],
    guarded_paths: Collection[str] = (),
    security_scheme: JSONObject | None = None,
    rate_limited: bool = False,
) -> JSONObject:
    """The OpenAPI document of a service as it is configured.

    :param routes: the methods of each path; ``{id}`` in a path stands for the id of an entry
    :param guarded_paths: those that not everybody may have
    :param security_scheme: how callers of these say who they are; None where nobody is asked
    :param rate_limited: whether there is a limit to how often they may ask
    :raises KeyError: nothing is known of one of them
    """
    document = {
        'openapi': '3.1.0',
        'info': _INFO,
        'servers': [{'url': '/'}],
        'tags': _TAGS,
        'paths': {
            path: {method.lower(): _describe_operation(path, method) for method in methods}
            for path, methods in routes.items()
        },
        'components': {
            'schemas': _schemas(),
            'parameters': PARAMETERS,
            'headers': HEADERS,
            'responses': ERRORS,
        },
    }
    if security_scheme is None and not rate_limited:
        return document
    return guarded(document, guarded_paths, security_scheme, rate_limited)


def _describe_operation(path: str, method: str) -> JSONObject:
    if method == 'OPTIONS':
        return _options(path)
    if method == 'HEAD':
        return _head(OPERATIONS[path, 'GET'])
    return OPERATIONS[path, method]


def _head(get: JSONObject) -> JSONObject:
    """HEAD answers as GET without the body, and errors too."""
    bodiless = {code: {key: value for key, value in _resolve(answer).items() if key != 'content'}
                for code, answer in get['responses'].items()}
    return get | {'operationId': f'{get["operationId"]}Head',
                  'summary': f'{get["summary"]}, headers only', 'responses': bodiless}


def _resolve(answer: JSONObject) -> JSONObject:
    """What a response is that may be a reference."""
    return ERRORS[answer['$ref'].rpartition('/')[2]] if '$ref' in answer else answer


def _options(path: str) -> JSONObject:
    get = OPERATIONS[path, 'GET']
    options = operation(
        f'{get["operationId"]}Options', 'Tell what can be done here', get['tags'][0],
        {'204': response('The methods.', ['Allow', 'Accept-Patch'])},
        *((['400'], ['any-id']) if '{id}' in path else ()))
    del options['responses']['406']  # there is nothing to accept
    return options


def _schemas() -> JSONObject:
    """The schemas, those of the JSON Schema first, where they are found in OpenAPI."""
    entry = {key: value for key, value in ENTRY_SCHEMA.items()
             if key not in ('$schema', 'definitions')}
    definitions = {_component(name): value for name, value in ENTRY_SCHEMA['definitions'].items()}
    ours = {'Entry': entry, 'EntryPatch': _patch_schema(entry), **definitions}
    moved: JSONObject = _move_references(ours)
    return moved | SCHEMAS


def _patch_schema(entry: JSONObject) -> JSONObject:
    """What a patch must be for an entry to come out: what is not required may be removed."""
    return {
        'title': 'Changes of an entry',
        'description': 'A JSON Merge Patch (RFC 7396).',
        'type': 'object',
        'properties': {
            name: schema if name in entry['required'] else {'anyOf': [schema, {'type': 'null'}]}
            for name, schema in entry['properties'].items()
        },
        'additionalProperties': {'type': 'null'},
    }


def _move_references(value: Any) -> Any:
    """A copy in which references to definitions lead to components.

    Formats are left out: the patterns decide, and many a tool means something else by ``email``.
    """
    if isinstance(value, dict):
        return {key: f'#/components/schemas/{_component(item.rpartition("/")[2])}'
                if key == '$ref' else _move_references(item)
                for key, item in value.items() if key != 'format'}
    if isinstance(value, list):
        return list(map(_move_references, value))
    return value


def _component(definition: str) -> str:
    return definition[0].upper() + definition[1:]
