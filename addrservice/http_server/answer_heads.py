"""The heads of answers, as bytes."""

from functools import lru_cache

from tornado.httputil import HTTPHeaders, ResponseStartLine


def head(start_line: ResponseStartLine, headers: HTTPHeaders) -> bytes:
    """The head of an answer.

    :raises ValueError: a line would end within a field, or is not in Latin-1
    """
    lines = [f'{name}: {value}' for name, value in headers.get_all()]
    text = '\r\n'.join([_status_line(start_line.code, start_line.reason), *lines, '\r\n'])
    ends = len(lines) + 2
    if text.count('\n') != ends or text.count('\r') != ends:
        raise ValueError(f'a line ends within a header field: {lines}')
    return text.encode('latin1')


@lru_cache(100)
def _status_line(code: int, reason: str) -> str:
    return f'HTTP/1.1 {code} {reason}'
