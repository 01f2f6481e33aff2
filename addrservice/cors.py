"""Pages of other origins in a browser: the CORS protocol of the Fetch standard (3.3)."""

from collections.abc import Collection
from typing import Final

# What such a page may send and see, beyond what every page may.
REQUEST_HEADERS: Final = ('Authorization, Content-Encoding, Content-Type, Idempotency-Key, '
                          'If-Match, If-Modified-Since, If-None-Match, If-Unmodified-Since, '
                          'traceparent, tracestate, X-Request-ID')
RESPONSE_HEADERS: Final = ('Allow, ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, '
                           'traceresponse, WWW-Authenticate, X-Request-ID')
MAX_AGE: Final = 600  # seconds


def cors_headers(allowed: Collection[str], origin: str | None) -> dict[str, str]:
    """The header fields that let a page of an origin read an answer; none where it may not."""
    granted = '*' if '*' in allowed else origin
    if granted is None or granted not in allowed:
        return {}
    return {'Access-Control-Allow-Origin': granted,
            'Access-Control-Expose-Headers': RESPONSE_HEADERS}


def preflight_headers(methods: str) -> dict[str, str]:
    """The header fields that let it send what it likes, once it may read the answer."""
    return {'Access-Control-Allow-Methods': methods,
            'Access-Control-Allow-Headers': REQUEST_HEADERS,
            'Access-Control-Max-Age': str(MAX_AGE)}
