"""The operations of the API, and what neither their routes nor the JSON Schema can tell."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from addrservice import ENTRY_SCHEMA
from addrservice.negotiation import MERGE_PATCH
from addrservice.openapi.components import (
    EXAMPLE_ID, READ_CONDITIONS, WRITE_CONDITIONS, JSONObject, content, ref, response,
)

# What may come of any request.
_ALWAYS_POSSIBLE: Final = ('406', '413', '500', '503')


def operation(
    identifier: str,
    summary: str,
    tag: str,
    responses: JSONObject,
    errors: Sequence[str] = (),
    parameters: Iterable[str] = (),
    body: JSONObject | None = None,
    description: str | None = None,
) -> JSONObject:
    """An operation, with the errors that may come of it beside its own responses."""
    possible = sorted({*errors, *_ALWAYS_POSSIBLE} - responses.keys())
    made: JSONObject = {
        'operationId': identifier,
        'summary': summary,
        'tags': [tag],
        'parameters': [ref('parameters', name) for name in (*parameters, 'X-Request-ID')],
        'responses': responses | {
            code.removesuffix('-patch'): ref('responses', code) for code in possible},
    }
    if description is not None:
        made['description'] = description
    if body is not None:
        made['requestBody'] = {'required': True, 'content': body}
    return made


_ENTRY: Final = ref('schemas', 'Entry')
_EXAMPLES: Final[dict[str, Any]] = dict(zip(('namo', 'raga'), ENTRY_SCHEMA['examples']))
_CHANGED: Final = response('It is done.', ['ETag'])

_READINESS: Final = content(ref('schemas', 'Readiness'), ready={'ready': True, 'uptime': 20})

# Path and method -> operation. HEAD is as GET and OPTIONS everywhere the same.
OPERATIONS: Final = {
    ('/healthz', 'GET'): operation(
        'checkHealth', 'Tell whether the process lives', 'Probes',
        {'200': response('It does.', body=content(ref('schemas', 'Health'), fine={'uptime': 13}))}),
    ('/readiness', 'GET'): operation(
        'checkReadiness', 'Tell whether requests should be sent here', 'Probes',
        {'200': response('They should.', body=_READINESS),
         '503': response(
             'They should not: the store is out of reach, or the process is about to end.',
             ['Retry-After'],
             content(ref('schemas', 'Readiness'), unready={'ready': False, 'uptime': 20}))}),
    ('/addressbook', 'GET'): operation(
        'listEntries', 'List entries', 'Entries',
        {'200': response('Entries by id.', ['Link'], content(
            ref('schemas', 'Book'), book={EXAMPLE_ID: _EXAMPLES['namo']}))},
        ('400', '404'), ('limit', 'after', 'name'),
        description='All entries in order of id, or a page of them. With a name, those whose names '
                    'begin so, in order of name. Follow the `next` link to get every entry that '
                    'stays meanwhile just once.'),
    ('/addressbook', 'POST'): operation(
        'createEntry', 'Create an entry', 'Entries',
        {'201': response('It is there.', ['Location', 'ETag-once'])}, ('400', '415', '422'),
        ['Idempotency-Key'], content(_ENTRY, **_EXAMPLES)),
    ('/addressbook/{id}', 'GET'): operation(
        'readEntry', 'Read an entry', 'Entries',
        {'200': response('The entry.', ['ETag', 'Last-Modified'], content(_ENTRY, **_EXAMPLES)),
         '304': response('The client has it.', ['ETag', 'Last-Modified'])},
        ('400', '404', '412'), ('id', *READ_CONDITIONS)),
    ('/addressbook/{id}', 'PUT'): operation(
        'replaceEntry', 'Replace an entry', 'Entries', {'204': _CHANGED},
        ('400', '404', '412', '415'), ('id', *WRITE_CONDITIONS),
        content(_ENTRY, **_EXAMPLES)),
    ('/addressbook/{id}', 'PATCH'): operation(
        'changeEntry', 'Change an entry', 'Entries', {'204': _CHANGED},
        ('400', '404', '412', '415-patch'), ('id', *WRITE_CONDITIONS),
        content(ref('schemas', 'EntryPatch'), MERGE_PATCH,
                email={'emails': _EXAMPLES['raga']['emails']}, noFax={'faxNumbers': None}),
        'By a JSON Merge Patch (RFC 7396): members replace those of the entry, null removes them. '
        'Lists are replaced as a whole.'),
    ('/addressbook/{id}', 'DELETE'): operation(
        'deleteEntry', 'Delete an entry', 'Entries', {'204': response('It is gone.')},
        ('400', '404', '412'), ('id', *WRITE_CONDITIONS)),
    ('/openapi.json', 'GET'): operation(
        'describe', 'Describe the API', 'Description',
        {'200': response('This document.', ['ETag'], content({'type': 'object'})),
         '304': response('The client has it.', ['ETag'])},
        parameters=['If-None-Match']),
}
