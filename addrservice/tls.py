"""HTTPS: the certificate that the service shows, and whose certificates it asks for."""

import ssl
from pathlib import Path
from typing import Final

from addrservice.config import TLSSettings
from addrservice.errors import ConfigError

VERSIONS: Final = {'1.2': ssl.TLSVersion.TLSv1_2, '1.3': ssl.TLSVersion.TLSv1_3}


def make_context(settings: TLSSettings) -> ssl.SSLContext:
    """What new connections are taken with. The ciphers are those that Python takes for safe.

    Renewed files are taken by making another one: that is whole or not made at all, and knows of
    nothing that was withdrawn.

    :raises ConfigError: in one line that names the file
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.minimum_version]
    context.options |= ssl.OP_NO_RENEGOTIATION  # it would cost the client next to nothing
    context.set_alpn_protocols(['http/1.1'])
    _check_certificates(settings.certificate)
    _load_key(context, settings)
    if settings.client_ca is not None:
        _check_certificates(settings.client_ca)
        context.load_verify_locations(settings.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _check_certificates(path: str) -> None:
    """Refuses a file that has no certificates in it, or something else than those."""
    _check_readable(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        raise ConfigError(f'{path}: no certificates in PEM, or not whole') from None


def _load_key(context: ssl.SSLContext, settings: TLSSettings) -> None:
    def ask_nobody() -> str:
        raise ConfigError(f'{settings.key}: the key is encrypted')

    _check_readable(settings.key)
    try:
        context.load_cert_chain(settings.certificate, settings.key, ask_nobody)
    except ssl.SSLError as error:
        if error.reason is None:  # nothing in particular: not in PEM
            raise ConfigError(f'{settings.key}: no key in PEM, or not whole') from None
        reason = error.reason.replace('_', ' ').lower()
        raise ConfigError(f'{settings.certificate}, {settings.key}: {reason}') from None


def _check_readable(path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from None
