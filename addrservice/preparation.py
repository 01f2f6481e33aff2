"""What the configuration asks for, made: by each process that serves, and tried by a supervisor.

Nothing of it knows how requests are answered, so that a supervisor has no need to import that.
"""

import faulthandler
import logging.config
import ssl
from pathlib import Path

from addrservice import tls
from addrservice.auth import create_authenticator
from addrservice.config import Settings
from addrservice.errors import ConfigError
from addrservice.gate import Gate
from addrservice.tracing import AbstractTraceCollector, create_collector


def configure_logging(settings: Settings, config: Path) -> None:
    """Sets up logging, and the stacks of all threads on standard error for SIGABRT.

    :raises ConfigError: the section cannot be used
    """
    faulthandler.enable()
    try:
        logging.config.dictConfig(settings.logging)
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        reason = f'{error}: {error.__cause__}' if error.__cause__ else error
        raise ConfigError(f'{config}: logging: {reason}') from error


def create_collectors(settings: Settings, config: Path) -> list[AbstractTraceCollector]:
    """The collectors that the configuration names.

    :raises ConfigError: one cannot be made
    """
    try:
        return [create_collector(path, values) for path, values in settings.tracing.items()]
    except ValueError as error:
        raise ConfigError(f'{config}: tracing: {error}') from error


def create_gate(settings: Settings, config: Path) -> Gate:
    """What lets requests in.

    :raises ConfigError: the authenticator cannot be made
    """
    try:
        return Gate(settings.service, create_authenticator(settings.auth))
    except ValueError as error:
        raise ConfigError(f'{config}: auth: {error}') from error


def make_tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What it takes to speak HTTPS; None where HTTP is spoken.

    :raises ConfigError: a file cannot be used
    """
    return None if settings.service.tls is None else tls.make_context(settings.service.tls)
