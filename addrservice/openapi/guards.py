"""What the document says where callers are asked who they are, or may not ask too often."""

from collections.abc import Collection, Sequence
from typing import Final

from addrservice.auth.abstract import READ, WRITE
from addrservice.openapi.components import JSONObject, error, header, ref

SCHEME: Final = 'caller'

HEADERS: Final = {
    'WWW-Authenticate': header(
        'What to show instead (RFC 6750).',
        'Bearer realm="addressbook", error="insufficient_scope", error_description="The scope '
        f'{WRITE} is needed", scope="{WRITE}"'),
    'RateLimit-Policy': header('How many requests are granted in how many seconds.',
                               '"default";q=100;w=60'),
    'RateLimit': header('How many are left, and after how many seconds there are more.',
                        '"default";r=0;t=1'),
}
RESPONSES: Final = {
    '401': error(401, 'Nobody knows who asks.',
                 'The access token is not valid here, or not any more',
                 ['WWW-Authenticate']),
    '403': error(403, 'Whoever asks may not do this.', f'The scope {WRITE} is needed',
                 ['WWW-Authenticate']),
    '429': error(429, 'Whoever asks has asked too often.',
                 'Too many requests; try again in 1 s',
                 ['Retry-After', 'RateLimit-Policy', 'RateLimit']),
}


def guarded(
    document: JSONObject,
    paths: Collection[str],
    security_scheme: JSONObject | None,
    rate_limited: bool,
) -> JSONObject:
    """A document that tells too what may keep callers from some of its paths.

    :param security_scheme: how they say who they are (OpenAPI 3.1, Security Scheme Object); None
        where nobody is asked
    :param rate_limited: whether there is a limit to how often they may ask
    """
    errors = ['401', '403'] * (security_scheme is not None) + ['429'] * rate_limited
    components = document['components']
    more = {
        'headers': components['headers'] | HEADERS,
        'responses': components['responses'] | {code: RESPONSES[code] for code in errors},
    }
    if security_scheme is not None:
        more['securitySchemes'] = {SCHEME: security_scheme}
    return document | {
        'components': components | more,
        'paths': {path: _guarded_path(operations, errors) if path in paths else operations
                  for path, operations in document['paths'].items()},
    }


def _guarded_path(operations: JSONObject, errors: Sequence[str]) -> JSONObject:
    return {method: operation if method == 'options' else
            _guarded_operation(method, operation, errors)
            for method, operation in operations.items()}


def _guarded_operation(method: str, operation: JSONObject, errors: Sequence[str]) -> JSONObject:
    responses = {code: ref('responses', code) if method != 'head' else
                 {key: value for key, value in RESPONSES[code].items() if key != 'content'}
                 for code in errors}
    made = operation | {'responses': operation['responses'] | responses}
    if '401' in errors:
        made['security'] = [{SCHEME: [READ if method in ('get', 'head') else WRITE]}]
    return made
