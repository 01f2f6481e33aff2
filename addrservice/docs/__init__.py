"""The page to explore the API: Swagger UI, served from here, so that no other host is asked."""

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from tornado.web import HTTPError

from addrservice.base_handler import BaseRequestHandler
from addrservice.negotiation import accepts_gzip
from addrservice.preconditions import entity_tag

# What Swagger UI needs and no more; its icons are data: URLs.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def _ours() -> Path:
    return Path(__file__).parent


def _swagger_ui() -> Path:
    """Where a package of another purpose, but kept up to date, has it; it is not imported."""
    from importlib.metadata import distribution  # which would take 3 % of the start
    return Path(str(distribution('mkdocs-swagger-ui-tag').locate_file(
        'mkdocs_swagger_ui_tag/swagger-ui')))


# All that there is below /docs: name -> content type, and the folder and the file it is in.
ASSETS: Final[dict[str, tuple[str, Callable[[], Path], str]]] = {
    '': ('text/html', _ours, 'page.html'),
    'initializer.js': ('text/javascript', _ours, 'initializer.js'),
    'swagger-ui-bundle.js': (
        'text/javascript', _swagger_ui, 'javascripts/swagger-ui-bundle.js'),
    'swagger-ui.css': ('text/css', _swagger_ui, 'stylesheets/swagger-ui.css'),
}


class DocsRequestHandler(BaseRequestHandler):
    """The page and what it loads."""

    produces_json = False

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header('Content-Security-Policy', CONTENT_SECURITY_POLICY)
        self.set_header('Referrer-Policy', 'no-referrer')

    async def get(self, asset: str = '') -> None:
        if asset not in ASSETS:
            raise HTTPError(404, reason='Unknown Endpoint')
        # In a thread, for reading and compressing takes long enough to be felt by others.
        content = await asyncio.to_thread(_content, asset)
        self.set_header('Content-Type', f'{content.type}; charset=utf-8')
        self.set_header('Cache-Control', 'no-cache')
        gzipped = accepts_gzip(self.request.headers.get('Accept-Encoding', ''))
        self.etag = entity_tag(content.digest, gzipped)
        if gzipped:
            self.set_header('Content-Encoding', 'gzip')
        self.write(content.gzipped if gzipped else content.plain)

    head = get


class _Content(NamedTuple):
    type: str
    digest: str
    plain: bytes
    gzipped: bytes


@cache
def _content(asset: str) -> _Content:
    """What is sent of an asset; read when it is first asked for, and kept."""
    content_type, folder, name = ASSETS[asset]
    plain = (folder() / name).read_bytes()
    digest = hashlib.sha256(plain).hexdigest()
    return _Content(content_type, digest, plain, gzip.compress(plain, mtime=0))
