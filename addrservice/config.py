"""The configuration: one YAML file, checked whole, then frozen.

The classes below are the manual of the file: a key is the name of a field with hyphens, a field
without a default must be there, and a key that is no field is refused.
"""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec
import yaml

from addrservice.errors import ConfigError

Size = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Text = Annotated[str, msgspec.Meta(min_length=1, pattern=r'^[^\x00-\x1f\x7f\ud800-\udfff]*\Z')]

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Number = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
PluginSettings = dict[str, dict[str, Any] | None]  # by the dotted path of a class

# A scheme and a host, as browsers send them (RFC 6454, 6.2), or any.
Origin = Annotated[str, msgspec.Meta(pattern=r'^(https?://[a-z0-9.:\[\]-]+|\*)\Z')]

# One host of a DSN, which may be empty, or in square brackets (RFC 3986, 3.2.2), and its port.
_HOST: Final = r'(\[[0-9A-Fa-f:.]+\]|[^:,/?#@\[\]]*)(:[0-9]{1,5})?'

# A DSN in its parts.
POSTGRESQL_DSN: Final = re.compile(
    r'(?P<before>postgres(ql)?://([^:/?#@]*@)?)'
    rf'(?P<hosts>{_HOST}(,{_HOST})*)'
    r'(?P<after>(/[^?#@]*)?(\?[^#]*)?)')
SQLITE_DSN: Final = re.compile(r'sqlite://(?P<path>/[^?#]+)')

# What has a password in it, before the host or as a parameter.
_SECRET_DSN: Final = re.compile(r'\w+://[^/?#]*:[^/?#]*@.*|.*[?&](ssl)?password=.*')

LOCAL_CONFIG: Final = Path(__file__).parent.parent / 'configs' / 'addressbook-local.yaml'


class _Section(msgspec.Struct, frozen=True, rename='kebab', forbid_unknown_fields=True):
    """A mapping in the file."""


class TLSSettings(_Section, frozen=True):
    """HTTPS in the place of HTTP.

    :param certificate: file of the certificate and those between it and the root, in PEM
    :param key: file of its private key, in PEM, not encrypted
    :param minimum_version: of TLS that a client has to speak
    :param client_ca: file of the certificates, in PEM, one of which has to have signed the
        client's own; without it clients show none
    """

    certificate: Text
    key: Text
    minimum_version: Literal['1.2', '1.3'] = '1.2'
    client_ca: Text | None = None


class RateLimitSettings(_Section, frozen=True):
    """How often one caller, or one address where nobody knows the caller, may ask.

    :param requests: that may come at once; they are granted anew bit by bit
    :param seconds: in which as many are granted anew
    """

    requests: Size
    seconds: Timeout = 60


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
    :param cors_origins: the origins whose pages may use the service from a browser, each as in
        ``https://app.example``; ``*`` for any
    :param processes: that share the work; 0 for one per core. The limits hold for each of them
    :param stuck_deadline: seconds after which one of several processes is replaced if its event
        loop has not turned
    :param metrics_port: port of ``/metrics`` and the probes, in plain HTTP; 0 for any free one;
        without it there is no such port, and no ``/metrics``
    :param metrics_address: the address of that port
    :param tls: certificates, to speak HTTPS on the other port
    :param trusted_proxies: the networks, as in ``10.0.0.0/8``, whose word is taken for where a
        request comes from (``X-Forwarded-For`` and ``X-Forwarded-Proto``)
    :param max_in_flight: requests that are worked on at once; more are answered with 503
    :param rate_limit: how often one caller may ask
    :param http_parser: what reads the requests: httptools (llhttp, in C), or Tornado's own
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
    cors_origins: tuple[Origin, ...] = ()
    processes: Number = 1
    stuck_deadline: Timeout = 10
    metrics_port: Port | None = None
    metrics_address: Text = '127.0.0.1'
    tls: TLSSettings | None = None
    trusted_proxies: tuple[Text, ...] = ()
    max_in_flight: Size = 1000
    rate_limit: RateLimitSettings | None = None
    http_parser: Literal['httptools', 'tornado'] = 'httptools'

    def __post_init__(self) -> None:
        """Refuses what is no network."""
        for network in self.trusted_proxies:
            ip_network(network)


class SQLSettings(_Section, frozen=True):
    """A SQL database. The password is no part of it: ``PGPASSWORD`` or a passfile have it.

    :param dsn: where the database is: ``postgresql://USER@HOST:PORT/DATABASE``, with several hosts
        separated by commas, or ``sqlite:///PATH/OF/THE/FILE``, where ``/~/`` is the home folder
    :param deadline: seconds that one operation may take, the wait for a connection included
    :param connect_timeout: seconds in which a host has to take a connection
    :param pool_size: connections at once, per process
    :param max_waiting: operations that may wait for a connection, per process; more fail at once
    :param statement_cache_size: prepared statements that a PostgreSQL connection keeps; 0 behind
        a PgBouncer that pools transactions
    """

    dsn: Text
    deadline: Timeout = 1
    connect_timeout: Timeout = 1
    pool_size: Size = 10
    max_waiting: Number = 1000
    statement_cache_size: Annotated[int, msgspec.Meta(ge=0)] = 100

    def __post_init__(self) -> None:
        """Refuses a DSN that cannot be one, and never repeats it: it may have a secret in it."""
        if _SECRET_DSN.fullmatch(self.dsn) or _SECRET_DSN.fullmatch(unquote(self.dsn)):
            raise ValueError('a dsn must have no password; PGPASSWORD or a passfile may')
        forms = POSTGRESQL_DSN.fullmatch(self.dsn) or SQLITE_DSN.fullmatch(self.dsn)
        if not forms or '%00' in self.dsn:
            raise ValueError('a dsn is postgresql://USER@HOST:PORT/DATABASE, or sqlite:// and '
                             'the absolute path of a file')


class StoreSettings(_Section, frozen=True):
    """The store: one key, named after the backend.

    :param memory: entries live in the process
    :param sql: entries live in a PostgreSQL database or a SQLite file
    """

    memory: None | msgspec.UnsetType = msgspec.UNSET
    sql: SQLSettings | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        """Refuses none, and two."""
        if (self.memory is msgspec.UNSET) == (self.sql is msgspec.UNSET):
            raise ValueError('just one of the keys `memory` and `sql` must be there')


class TokenSettings(_Section, frozen=True):
    """Bearer tokens.

    :param file: of their hashes, as ``run.py token new`` prints them
    """

    file: Text


class JWTSettings(_Section, frozen=True):
    """Access tokens of an authorization server (RFC 9068).

    :param jwks: its keys (RFC 7517): a file, or a URL in https, or in http on this machine
    :param issuer: who has to have issued a token
    :param audience: for whom it has to be
    :param leeway: seconds that its clock may be off
    :param algorithms: with which it may be signed (RFC 7518, 3.1)
    """

    jwks: Text
    issuer: Text
    audience: Text
    leeway: Seconds = 30
    algorithms: tuple[Text, ...] = ('RS256', 'ES256')


class AuthSettings(_Section, frozen=True):
    """Who may use the service: one key, named after the way to find out.

    :param tokens: who shows a token of a file
    :param jwt: who shows an access token of an authorization server
    :param custom: whom a class of somebody else's knows: its settings, by its dotted path
    """

    tokens: TokenSettings | None = None
    jwt: JWTSettings | None = None
    custom: PluginSettings | None = None

    def __post_init__(self) -> None:
        """Refuses none, and two."""
        given = [way for way in (self.tokens, self.jwt, self.custom) if way is not None]
        if len(given) != 1 or (self.custom is not None and len(self.custom) != 1):
            raise ValueError('just one of the keys `tokens`, `jwt` and `custom` must be there')


class ProfilingSettings(_Section, frozen=True):
    """Sampling profiles of the running service, which SIGUSR1 starts and stops.

    :param folder: where they are written
    :param interval: seconds between two samples
    :param max_seconds: after which one ends by itself
    :param at_start: whether the first begins with the service
    """

    folder: Text = '/tmp'
    interval: Annotated[float, msgspec.Meta(ge=0.0001, le=1)] = 0.001
    max_seconds: Timeout = 60
    at_start: bool = False


class Settings(_Section, frozen=True, kw_only=True):
    """The whole file.

    :param addr_db: the store
    :param auth: who may use the service; ``none`` for anybody, which has to be said where it
        listens on other addresses than this machine's own
    :param service: the service and its limits
    :param logging: as ``logging.config.dictConfig`` takes it
    :param tracing: settings of the collectors, by the dotted path of their class
    :param profiling: sampling profiles
    """

    addr_db: StoreSettings
    service: ServiceSettings = ServiceSettings()
    logging: dict[str, Any]
    tracing: PluginSettings = {}
    auth: Literal['none'] | AuthSettings | None = None
    profiling: ProfilingSettings = ProfilingSettings()


def load_settings(path: Path) -> Settings:
    """The settings in a YAML file.

    :raises ConfigError: in one line that names the file and the key or the place
    """
    return parse_settings(read_config(path), path)


def read_config(path: Path) -> bytes:
    """The text of a configuration file.

    :raises ConfigError: in one line that names the file
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from None


def parse_settings(text: bytes, path: Path) -> Settings:
    """The settings that a YAML text has.

    :param path: where it is from
    :raises ConfigError: in one line that names the file and the key or the place
    """
    try:
        return msgspec.convert(yaml.safe_load(text), Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f'{path}: {_one_line(error)}') from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # PyYAML lets the built-in ones out: the 99th of January, !!bool maybe, !!timestamp soon
        raise ConfigError(f'{path}: not YAML: {_one_line(error)}') from None


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())
