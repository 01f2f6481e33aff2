"""The header fields of an answer."""

from collections.abc import Iterable
from functools import lru_cache

from tornado.httputil import HTTPHeaders


class AnswerHeaders(dict[str, str], HTTPHeaders):  # type: ignore[misc]  # both are mappings
    """Header fields, each of which is there once at the most; names are as ``canonical`` has them.

    Tornado's are lists of values, of which each name and value is checked when it is set.
    """

    def get_all(self) -> Iterable[tuple[str, str]]:
        return self.items()


@lru_cache(1000)
def canonical(name: str) -> str:
    """A name as Tornado writes it."""
    return '-'.join([word.capitalize() for word in name.split('-')])
