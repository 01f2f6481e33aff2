"""What is spoken here, and what a client accepts of it (RFC 9110, 12.5)."""

import re
from typing import Final

JSON: Final = 'application/json'
MERGE_PATCH: Final = 'application/merge-patch+json'  # RFC 7396

_WEIGHT_ZERO: Final = re.compile(r'\s*q\s*=\s*0(\.0*)?\s*')


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an ``Accept-Encoding`` allows gzip: ``gzip;q=0`` and silence do not."""
    accepted = _accepted(accept_encoding)
    return accepted.get('gzip', accepted.get('*', False))


def accepts_json(accept: str) -> bool:
    """Whether an ``Accept`` allows application/json: silence does, and what names no type."""
    accepted = _accepted(accept)
    wanted = [accepted[name] for name in (JSON, 'application/*', '*/*')
              if name in accepted]
    return wanted[0] if wanted else not any('/' in name for name in accepted)


def _accepted(field: str) -> dict[str, bool]:
    """Each name of a list, and whether its weight is more than nothing; parameters do not count."""
    accepted = {}
    for item in field.lower().split(','):
        name, *parameters = item.split(';')
        accepted[name.strip()] = not any(map(_WEIGHT_ZERO.fullmatch, parameters))
    return accepted
