"""The configuration: one YAML file, checked whole, then frozen.

The classes below are the manual of the file: a key is the name of a field with hyphens, a field
without a default must be there, and a key that is no field is refused.
"""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml

from addrservice.errors import ConfigError

Size = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Text = Annotated[str, msgspec.Meta(min_length=1, pattern=r'^[^\x00-\x1f\x7f\ud800-\udfff]*\Z')]

LOCAL_CONFIG: Final = Path(__file__).parent.parent / 'configs' / 'addressbook-local.yaml'


class _Section(msgspec.Struct, frozen=True, rename='kebab', forbid_unknown_fields=True):
    """A mapping in the file."""


class ServiceSettings(_Section, frozen=True):
    """The service and its limits.

    :param name: what the service calls itself in its start line
    :param address: the address to listen on
    :param max_body_size: bytes of a request's body, after decompression
    :param max_header_size: bytes of a request's start line and headers
    :param idle_connection_timeout: seconds that a connection may wait for a request, a request
        for its headers, or an answer for its reader; more than a load balancer waits, so that
        it is never the service that ends a connection in use
    :param body_timeout: seconds in which a request's body has to arrive
    :param max_connections: connections served at once; fewer where the process may not open as
        many files
    :param drain_delay: seconds between "not ready" and the end of listening, for load balancers
        to notice
    :param shutdown_deadline: seconds that the requests in flight get to finish after that
    """

    name: Text = 'Address Book'
    address: Text = '127.0.0.1'
    max_body_size: Size = 64 * 1024
    max_header_size: Size = 16 * 1024
    idle_connection_timeout: Timeout = 75
    body_timeout: Timeout = 5
    max_connections: Size = 10_000
    drain_delay: Seconds = 0
    shutdown_deadline: Seconds = 10


class StoreSettings(_Section, frozen=True):
    """The store: one key, named after the backend.

    :param memory: entries live in the process
    """

    memory: None


class Settings(_Section, frozen=True, kw_only=True):
    """The whole file.

    :param addr_db: the store
    :param service: the service and its limits
    :param logging: as ``logging.config.dictConfig`` takes it
    :param tracing: settings of the collectors, by the dotted path of their class
    """

    addr_db: StoreSettings
    service: ServiceSettings = ServiceSettings()
    logging: dict[str, Any]
    tracing: dict[str, dict[str, Any] | None] = {}


def load_settings(path: Path) -> Settings:
    """The settings in a YAML file.

    :raises ConfigError: in one line that names the file and the key or the place
    """
    document = _read_yaml(path)
    try:
        return msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f'{path}: {_one_line(error)}') from None


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # PyYAML lets the built-in ones out: the 99th of January, !!bool maybe, !!timestamp soon
        raise ConfigError(f'{path}: not YAML: {_one_line(error)}') from None


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())
