"""The header fields of an answer."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from tornado.httputil import HTTPHeaders


class AnswerHeaders(dict[str, str], HTTPHeaders):  # type: ignore[misc]  # both are mappings
    """Header fields, each of which is there once at the most.

    Tornado's are lists of values, of which each is checked when it is set.

    :param fields: the first ones, their names as ``canonical`` has them
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        dict.__init__(self, fields)

    def __setitem__(self, name: str, value: str) -> None:
        dict.__setitem__(self, canonical(name), value)

    def __getitem__(self, name: str) -> str:
        return dict.__getitem__(self, canonical(name))

    def __delitem__(self, name: str) -> None:
        dict.__delitem__(self, canonical(name))

    def __contains__(self, name: object) -> bool:
        return dict.__contains__(self, canonical(str(name)))

    def get(self, name: str, default: Any = None) -> Any:
        return dict.get(self, canonical(name), default)

    def get_all(self) -> Iterable[tuple[str, str]]:
        return self.items()


@lru_cache(1000)
def canonical(name: str) -> str:
    """A name as Tornado writes it."""
    return '-'.join([word.capitalize() for word in name.split('-')])
