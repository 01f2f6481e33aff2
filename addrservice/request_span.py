"""The span of a request, as OpenTelemetry's semantic conventions for HTTP servers have it."""

from typing import Final

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from addrservice import tracing
from addrservice.tracing import Span

METHODS: Final = frozenset(RequestHandler.SUPPORTED_METHODS)


def begin(request: HTTPServerRequest, route: str | None) -> Span:
    """The span of a request that has begun to come; some collector has to be in force.

    :param route: the pattern of its path; None where there is no such path
    """
    method = request.method if request.method in METHODS else 'HTTP'
    return tracing.begin_request(f'{method} {route}' if route else str(method), request.headers)


def end(
    span: Span,
    request: HTTPServerRequest,
    *,
    request_id: str,
    route: str | None,
    status: int,
    sizes: tuple[int, int],
    caller: str | None,
) -> None:
    """Ends the span of a request that has been answered.

    :param sizes: bytes of the request's body and of the answer's
    :param caller: who sent it, where that is known
    """
    span.attributes.update({
        'http.request.method': str(request.method) if request.method in METHODS else '_OTHER',
        'http.response.status_code': status,
        'url.scheme': request.protocol,
        'url.path': request.path,
        'http.request.body.size': sizes[0],
        'http.response.body.size': sizes[1],
        'client.address': str(request.remote_ip),
        'network.protocol.version': request.version.removeprefix('HTTP/'),
        'addrservice.request.id': request_id,
    })
    if route is not None:
        span.attributes['http.route'] = route
    if caller is not None:
        span.attributes['enduser.id'] = caller
    tracing.end_request(span)
