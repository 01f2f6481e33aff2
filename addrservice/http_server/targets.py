"""The target of a request (RFC 9112, 3.2)."""

import re
from typing import Final

from tornado.httputil import RequestStartLine

_ORIGIN: Final = re.compile(r'\Ahttps?://[^/?]*/?', re.IGNORECASE)


def origin_form(start_line: RequestStartLine) -> RequestStartLine:
    """A start line whose target is a path and a query, where it was in the absolute form."""
    if start_line.path.startswith('/'):
        return start_line
    return start_line._replace(path=_ORIGIN.sub('/', start_line.path))
