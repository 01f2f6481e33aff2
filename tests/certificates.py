"""Certificate authorities for the tests, with elliptic curves: their keys are made in no time."""

import datetime
import ipaddress
import tempfile
import unittest
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY: Final = datetime.timedelta(days=1)
SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH

# What Python 3.13 asks of an authority (RFC 5280, 4.2.1.3).
SIGNING: Final = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
    encipher_only=False, decipher_only=False)


class Pair(NamedTuple):
    """The files of a certificate and of its key, in PEM."""

    certificate: Path
    key: Path

    def replace(self, other: 'Pair') -> None:
        """Puts another pair in the place of this one, as a renewal does."""
        for mine, its in zip(self, other, strict=True):
            its.replace(mine)


class Authority:
    """Signs certificates, which are files in a folder.

    :param name: of itself, of which there is to be no other in the folder
    """

    def __init__(self, folder: Path, name: str = 'authority') -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        public_key = self._key.public_key()
        certificate = (
            self._builder(self._name, public_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(SIGNING, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .sign(self._key, SHA256()))
        self.certificate = folder / f'{name}.pem'
        self.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(
        self, name: str, usage: x509.ObjectIdentifier = SERVER, password: str | None = None
    ) -> Pair:
        """A certificate and its key, for 127.0.0.1.

        :param name: whose it is
        :param usage: what for
        :param password: of the key
        """
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.IPAddress(ipaddress.ip_address('127.0.0.1'))
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            self._builder(_name(name), key.public_key())
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, SHA256()))
        encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        pair = Pair(self._folder / f'{name}.pem', self._folder / f'{name}.key')
        pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return pair

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(self._name).public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY).not_valid_after(now + DAY))


def new_folder(test: unittest.TestCase) -> Path:
    """A folder that is gone after a test."""
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return Path(folder.name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
