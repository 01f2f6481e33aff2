"""Settings of the traces, from the configuration and from the environment, checked at the start."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
)

TRACES_PATH: Final = '/v1/traces'  # OpenTelemetry Protocol 1.5, "OTLP/HTTP Request"

# A field line (RFC 9112, 5), of characters that can be sent.
_FIELD: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~]*?)[ \t]*")


def endpoint(told: str | None) -> str | None:
    """The URL that traces go to; None where the environment or the SDK's default tells.

    :raises ValueError: it is no URL of HTTP, or it has a password in it
    """
    for variable in (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT):
        if os.environ.get(variable):
            _check_url(variable, os.environ[variable])
    if told is None:
        return None
    _check_url('endpoint', told)
    parts = urlsplit(told)
    return parts._replace(path=TRACES_PATH).geturl() if parts.path in {'', '/'} else told


def _check_url(name: str, url: object) -> None:
    """Never repeats the URL, which may have a secret in it."""
    try:
        parts = urlsplit(str(url))
        usable = parts.scheme in {'http', 'https'} and parts.hostname and parts.port != 0
    except ValueError:  # no address, no port number
        usable = False
    if not usable:
        raise ValueError(f'{name} must be a URL such as http://127.0.0.1:4318')
    if '@' in parts.netloc:
        raise ValueError(f'{name} must have no password; headers-file may')


def share(value: float | None) -> float | None:
    """A share from 0 to 1, if there is one.

    :raises ValueError: it is none
    """
    if value is not None and not (_is_number(value) and 0 <= value <= 1):
        raise ValueError('sampling must be a number from 0 to 1')
    return value


def seconds(value: float | None) -> float | None:
    """How long an export may take, if that was told.

    :raises ValueError: it is no length of time
    """
    if value is not None and not (_is_number(value) and 0 < value <= 86_400):
        raise ValueError('timeout must be a number of seconds, up to 86400')
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def name_of_service(value: str | None) -> Mapping[str, str]:
    """The attributes of the resource that the configuration tells.

    :raises ValueError: it is no name
    """
    if value is None:
        return {}
    if not isinstance(value, str) or not value:
        raise ValueError('service-name must be a text')
    return {'service.name': value}


def headers(file: str | None) -> Mapping[str, str] | None:
    """The header fields of a file of ``Name: value`` lines, if there is one.

    :raises ValueError: it cannot be read, or a line is no header field; never repeats the line
    """
    if file is None:
        return None
    try:
        lines = Path(file).read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, 'strerror', None) or 'cannot be read'
        raise ValueError(f'headers-file: {file}: {reason}') from None
    fields = [_FIELD.fullmatch(line) for line in lines if line.strip()]
    if None in fields:
        raise ValueError(f'headers-file: {file}: a line is not "Name: value"')
    return {field[1]: field[2] for field in fields if field}


def number_from_environment(variable: str, default: int) -> int:
    """A whole number of 1 or more from the environment.

    :raises ValueError: it is none; the SDK would go on with its default
    """
    text = os.environ.get(variable, '') or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f'{variable} must be a whole number of 1 or more')
    return int(text)
