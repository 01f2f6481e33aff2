"""gzip, both ways: of the bodies of requests, and of answers."""

import zlib
from collections.abc import Iterator
from typing import Final

from tornado.httputil import HTTPHeaders, HTTPInputError
from tornado.util import GzipDecompressor
from tornado.web import GZipContentEncoding

# Bytes that are decompressed at once: a small body may stand for a huge one.
PIECE: Final = 65_536


class Inflater:
    """Takes the gzip coding off a request's body, bit by bit."""

    def __init__(self) -> None:
        self._decompressor = GzipDecompressor()

    @classmethod
    def of(cls, headers: HTTPHeaders) -> 'Inflater | None':
        """What the body of a request needs; then its coding is gone from the headers."""
        if headers.get('Content-Encoding', '').lower() != 'gzip':
            return None
        del headers['Content-Encoding']
        return cls()

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes of the body stand for.

        :raises HTTPInputError: this is no gzip
        """
        try:
            while data:
                if piece := self._decompressor.decompress(data, PIECE):
                    yield piece
                data = self._decompressor.unconsumed_tail
        except zlib.error as error:
            raise HTTPInputError(f'invalid gzip data: {error}') from None

    def finish(self) -> None:
        """Checks that nothing is missing at the end.

        :raises HTTPInputError: something is
        """
        try:
            self._decompressor.flush()
        except zlib.error as error:
            raise HTTPInputError(f'invalid gzip data: {error}') from None


class NegotiatedGzip(GZipContentEncoding):
    """Tornado's gzip encoding, for clients that accept it (RFC 9110, 12.5.3)."""

    def __init__(self) -> None:
        self._gzipping = True

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        vary = headers['Vary']  # has it already
        status_code, headers, chunk = super().transform_first_chunk(
            status_code, headers, chunk, finishing)
        headers['Vary'] = vary
        return status_code, headers, chunk
