"""The context of TLS: what it speaks, and what a file that cannot be used is answered."""

import ssl
import unittest
from pathlib import Path

from addrservice.config import TLSSettings
from addrservice.errors import ConfigError
from addrservice.tls import make_context
from tests.certificates import Authority, new_folder


class ContextTest(unittest.TestCase):
    """A context of an authority's files."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.authority = Authority(self.folder)
        self.pair = self.authority.issue('server')

    def make(self, **changes: str) -> ssl.SSLContext:
        files = {'certificate': str(self.pair.certificate), 'key': str(self.pair.key)}
        return make_context(TLSSettings(**{**files, **changes}))  # type: ignore[arg-type]  # a str

    def refusal(self, **changes: Path | str) -> str:
        """What is said of it, in one line that begins with the file."""
        with self.assertRaises(ConfigError) as caught:
            self.make(**{name: str(value) for name, value in changes.items()})
        self.assertNotIn('\n', str(caught.exception))
        return str(caught.exception).replace(f'{self.folder}/', '')

    def file(self, name: str, text: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(text)
        return path

    def test_nothing_older_than_tls_1_2_is_spoken(self) -> None:
        self.assertEqual(ssl.TLSVersion.TLSv1_2, self.make().minimum_version)

    def test_the_minimum_can_be_tls_1_3(self) -> None:
        context = self.make(minimum_version='1.3')
        self.assertEqual(ssl.TLSVersion.TLSv1_3, context.minimum_version)

    def test_there_is_neither_compression_nor_renegotiation(self) -> None:
        self.assertTrue(self.make().options & ssl.OP_NO_COMPRESSION)
        self.assertTrue(self.make().options & ssl.OP_NO_RENEGOTIATION)

    def test_each_cipher_is_authenticated_and_has_forward_secrecy(self) -> None:
        for cipher in self.make().get_ciphers():
            self.assertRegex(cipher['name'], r'^(ECDHE|DHE|TLS)[-_]')
            self.assertNotRegex(cipher['name'], 'NULL|RC4|3DES|MD5|anon|PSK|CCM')

    def test_clients_are_asked_for_a_certificate_where_there_is_an_authority(self) -> None:
        self.assertEqual(ssl.CERT_NONE, self.make().verify_mode)
        context = self.make(client_ca=str(self.authority.certificate))
        self.assertEqual(ssl.CERT_REQUIRED, context.verify_mode)
        self.assertEqual(1, len(context.get_ca_certs()))

    def test_no_other_authority_is_believed(self) -> None:
        self.assertEqual([], self.make().get_ca_certs())

    def test_a_file_that_is_not_there_is_named(self) -> None:
        for name in ('certificate', 'key', 'client_ca'):
            self.assertEqual('none.pem: No such file or directory',
                             self.refusal(**{name: self.folder / 'none.pem'}))

    def test_a_folder_is_no_file(self) -> None:
        folder = self.folder / 'folder'
        folder.mkdir()
        self.assertEqual('folder: Is a directory', self.refusal(key=folder))

    def test_a_file_without_certificates_is_refused(self) -> None:
        whole = self.pair.certificate.read_bytes()
        for text in (b'', b'garbage', whole[:200], self.pair.key.read_bytes(),
                     whole + whole[:200] + whole[-30:]):
            for name in ('certificate', 'client_ca'):
                path = self.file('bad.pem', text)
                self.assertEqual('bad.pem: no certificates in PEM, or not whole',
                                 self.refusal(**{name: path}))

    def test_a_file_without_a_key_is_refused(self) -> None:
        for text in (b'', b'garbage', self.pair.key.read_bytes()[:60],
                     self.pair.certificate.read_bytes()):
            self.assertEqual('bad.key: no key in PEM, or not whole',
                             self.refusal(key=self.file('bad.key', text)))

    def test_the_key_of_another_certificate_is_refused(self) -> None:
        other = self.authority.issue('other')
        self.assertEqual('server.pem, other.key: key values mismatch',
                         self.refusal(key=other.key))

    def test_an_encrypted_key_is_refused_and_nobody_asked_for_its_password(self) -> None:
        encrypted = self.authority.issue('encrypted', password='secret')
        self.assertEqual('encrypted.key: the key is encrypted', self.refusal(**{
            'certificate': encrypted.certificate, 'key': encrypted.key}))
