"""Conditional requests (RFC 9110, 13): entity tags, dates, and what a request asks of them."""

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import Final, NamedTuple

_TAG: Final = re.compile(r'(?:^|,)[ \t]*(W/)?"([!#-~\x80-\xff]*)"[ \t]*(?=,|$)')


def entity_tag(version: int | str, gzipped: bool = False) -> str:
    """The strong ``ETag`` of a version; each of the two encodings has its own (8.8.3.3)."""
    return f'"{version}-gzip"' if gzipped else f'"{version}"'


def last_modified(version: int) -> str:
    """The ``Last-Modified`` of a version, which is a time in microseconds; never one to come."""
    return http_date(min(_seconds(version), int(time.time())))


@lru_cache(1000)
def http_date(seconds: int) -> str:
    """A time in seconds since 1970, as header fields have it (5.6.7)."""
    return formatdate(seconds, usegmt=True)


class Preconditions(NamedTuple):
    """The preconditions of a request, each as the header field has it, if it is there."""

    if_match: str | None = None
    if_unmodified_since: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> 'Preconditions | None':
        """Those among the header fields of a request, if there are any."""
        return None if _ALL.isdisjoint(headers) else cls(*map(headers.get, _NAMES))

    def concern_writing(self) -> bool:
        """Whether there is any that a request to change what is there might not meet."""
        if self.if_match is None:
            return self.if_unmodified_since is not None or self.if_none_match is not None
        return self.if_match.strip() != '*' or self.if_none_match is not None

    def allow_reading(self, version: int) -> bool:
        """Whether the state is the one that is asked for (13.2.2, steps 1 and 2).

        A date does not tell two changes within a second from each other; clients have to know
        (8.8.2.2).
        """
        if self.if_match is not None:
            return _lists(self.if_match, version, weakly=False)
        return not _is_later(version, self.if_unmodified_since)

    def allow_writing(self, version: int) -> bool:
        """The same, and that it is none of those that must not be (step 3)."""
        return self.allow_reading(version) and not self._have(version)

    def find_unmodified(self, version: int) -> bool:
        """Whether who reads has the entry already (steps 3 and 4)."""
        if self.if_none_match is not None:
            return self._have(version)
        return (_date(self.if_modified_since) is not None
                and not _is_later(version, self.if_modified_since))

    def _have(self, version: int) -> bool:
        return self.if_none_match is not None and _lists(self.if_none_match, version, weakly=True)


_NAMES: Final = ('If-Match', 'If-Unmodified-Since', 'If-None-Match', 'If-Modified-Since')
_ALL: Final = frozenset(_NAMES)


def _lists(field: str, version: int, weakly: bool) -> bool:
    """Whether a list of entity tags has one of the version's; ``*`` has all."""
    ours = {entity_tag(version), entity_tag(version, gzipped=True)}
    return field.strip() == '*' or any(
        f'"{tag}"' in ours for weak, tag in _TAG.findall(field) if weakly or not weak)


def _is_later(version: int, date: str | None) -> bool:
    """Whether a version is from after a date; never where that is no date."""
    since = _date(date)
    return since is not None and _seconds(version) > since


def _seconds(version: int) -> int:
    return version // 1_000_000


def _date(text: str | None) -> float | None:
    """Seconds since 1970, of an HTTP date in any of its forms (5.6.7)."""
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
