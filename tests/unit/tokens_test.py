"""Bearer tokens: the file of their hashes, and the command that makes them."""

import asyncio
import contextlib
import hmac
import io
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from addrservice.auth import READ, SCOPES, WRITE, Caller, command
from addrservice.auth.tokens import TokenAuthenticator, read_tokens
from addrservice.config import TokenSettings
from addrservice.errors import ConfigError, UnauthenticatedError
from tests.support import ROOT
from tests.tokens import BOTH, EXPIRED, READER, WRITER, bearer, token_line, write_tokens


class TokensTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.folder / 'tokens'

    def authenticator(self) -> TokenAuthenticator:
        return TokenAuthenticator(TokenSettings(str(self.path)))

    def caller(self, authenticator: TokenAuthenticator, token: str) -> Caller:
        return asyncio.run(authenticator.authenticate(list(bearer(token).values())))

    def assert_unknown(self, authenticator: TokenAuthenticator, token: str) -> None:
        with self.assertRaises(UnauthenticatedError) as caught:
            self.caller(authenticator, token)
        self.assertEqual('invalid_token', caught.exception.code)
        self.assertNotIn(token, str(caught.exception))


class TokenAuthenticatorTest(TokensTestCase):
    def setUp(self) -> None:
        super().setUp()
        write_tokens(self.path)

    def test_who_shows_a_token_is_who_its_line_names(self) -> None:
        known = self.authenticator()
        self.assertEqual(Caller('reader', frozenset({READ})), self.caller(known, READER))
        self.assertEqual(Caller('writer', frozenset({WRITE})), self.caller(known, WRITER))
        self.assertEqual(Caller('both', frozenset(SCOPES)), self.caller(known, BOTH))

    def test_any_other_token_is_nobodys(self) -> None:
        known = self.authenticator()
        hashes = re.findall('[0-9a-f]{64}', self.path.read_text())
        for token in ('abk_other', READER.upper(), READER[:-1], f'{READER}=', *hashes):
            with self.subTest(token=token):
                self.assert_unknown(known, token)

    def test_a_digest_that_differs_in_a_single_bit_is_another(self) -> None:
        name, digest, scopes = token_line('ada', 'abk_ada', READ).split()
        for bit in range(256):
            other = int(digest, 16) ^ 1 << bit
            self.path.write_text(f'{name} {other:064x} {scopes}')
            self.assert_unknown(self.authenticator(), 'abk_ada')

    def test_each_line_is_compared_whoever_asks(self) -> None:
        """So that the time an answer takes does not tell which one it is, or that there is none."""
        known = self.authenticator()
        for token in READER, BOTH, EXPIRED, 'abk_other':
            with mock.patch('hmac.compare_digest', wraps=hmac.compare_digest) as compare, \
                    contextlib.suppress(UnauthenticatedError):
                self.caller(known, token)
            self.assertEqual(4, compare.call_count)

    def test_a_token_expires(self) -> None:
        """As its day begins, in UTC."""
        self.addCleanup(time.tzset)
        self.enterContext(mock.patch.dict(os.environ, TZ='Pacific/Auckland'))
        time.tzset()
        known = self.authenticator()
        self.assert_unknown(known, EXPIRED)
        for now, name in (1577836799.9, 'expired'), (1577836800.0, None):  # 2020-01-01
            with mock.patch('time.time', return_value=now):
                if name:
                    self.assertEqual(name, self.caller(known, EXPIRED).name)
                else:
                    self.assert_unknown(known, EXPIRED)

    def test_the_file_is_read_anew_when_told(self) -> None:
        known = self.authenticator()
        self.path.write_text(token_line('new', 'abk_new', READ))
        self.assertEqual('reader', self.caller(known, READER).name)
        known.reload()
        self.assert_unknown(known, READER)
        self.assertEqual('new', self.caller(known, 'abk_new').name)

    def test_a_file_that_is_broken_by_then_changes_nothing(self) -> None:
        known = self.authenticator()
        for content in 'oops', token_line('new', 'abk_new', READ) + 'oops', '':
            self.path.write_text(content)
            with self.assertRaises(ConfigError):
                known.reload()
            self.assertEqual('reader', self.caller(known, READER).name)
            self.assert_unknown(known, 'abk_new')


class TokensFileTest(TokensTestCase):
    def refusal(self, content: str | bytes) -> str:
        """What is said of a content, after the name of the file."""
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        with self.assertRaises(ConfigError) as caught:
            read_tokens(self.path)
        text = str(caught.exception)
        self.assertEqual(1, len(text.splitlines()))
        self.assertTrue(text.startswith(str(self.path)), text)
        return text.removeprefix(str(self.path))

    def test_blank_lines_comments_and_any_blanks_between_do_not_count(self) -> None:
        digest = token_line('a', 'abk_a', READ).split()[1]
        self.path.write_text(
            '\r\n# comment\r\n  # comment\n\n'
            f' \ta\t{digest.upper()}  {READ},{WRITE}\texpires=2030-02-28 \r\n'
            f'{token_line("b@example.org", "abk_b", WRITE).strip()}')
        first, second = read_tokens(self.path)
        self.assertEqual(
            (Caller('a', frozenset(SCOPES)), bytes.fromhex(digest), 1898467200.0), first)
        self.assertEqual('b@example.org', second.caller.name)

    def test_a_bad_line_is_named_and_not_quoted(self) -> None:
        """A token itself may stand in it by mistake."""
        secret = 'abk_Pimpernel'
        digest = token_line('a', secret, READ).split()[1]
        for line, words in (
            (f'a {secret} {READ}', 'is not NAME SHA256'),
            (f'{secret} {READ}', 'is not NAME SHA256'),
            (f'a {digest}', 'is not NAME SHA256'),
            (f'a {digest}0 {READ}', 'is not NAME SHA256'),
            (f'a {digest[1:]} {READ}', 'is not NAME SHA256'),
            (f'a {digest} {READ} {WRITE}', 'is not NAME SHA256'),
            (f'a {digest} {READ} expires=2030-01-01 {secret}', 'is not NAME SHA256'),
            (f'ä {digest} {READ}', 'is not NAME SHA256'),
            (f'{"a" * 65} {digest} {READ}', 'is not NAME SHA256'),
            (f'-a {digest} {READ}', 'is not NAME SHA256'),
            (f'a {digest} {secret}', f'the scopes are {READ} and {WRITE}'),
            (f'a {digest} {READ},', f'the scopes are {READ} and {WRITE}'),
            (f'a {digest} {READ.upper()}', f'the scopes are {READ} and {WRITE}'),
            (f'a {digest} {READ} expires={secret}', 'a date is YYYY-MM-DD'),
            (f'a {digest} {READ} expires=20300101', 'a date is YYYY-MM-DD'),
            (f'a {digest} {READ} expires=2030-02-30', 'day is out of range'),
        ):
            with self.subTest(line=line):
                refusal = self.refusal(f'# \n{token_line("z", "abk_z", READ)}{line}\n')
                self.assertTrue(refusal.startswith(', line 3: '), refusal)
                self.assertIn(words, refusal)
                self.assertNotIn(secret, refusal)
                self.assertNotIn(digest[1:], refusal)

    def test_no_two_lines_have_the_same_name_or_token(self) -> None:
        one = token_line('a', 'abk_a', READ)
        self.assertEqual(', line 3: has the name of line 1',
                         self.refusal(one + '\n' + token_line('a', 'abk_b', READ)))
        self.assertEqual(', line 2: has the token of line 1',
                         self.refusal(one + token_line('b', 'abk_a', READ)))

    def test_a_file_that_is_no_text_or_has_no_token_is_refused(self) -> None:
        self.assertEqual(': not UTF-8', self.refusal(b'\xff'))
        self.assertEqual(': there is no token in it', self.refusal(''))
        self.assertEqual(': there is no token in it', self.refusal('# nobody\n'))


class TokenNewTest(TokensTestCase):
    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        """Status, stdout and stderr of a command line."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = command.main(arguments)
            except SystemExit as end:
                status = int(str(end.code))
        return status, out.getvalue(), err.getvalue()

    def add(self, name: str, *more: str) -> str:
        """The token that the command makes and adds to the file."""
        status, out, err = self.run_command(
            'new', name, '--scope', READ, '--file', str(self.path), *more)
        self.assertEqual(0, status, err)
        return out.strip()

    def assert_refused(self, *arguments: str, words: str) -> None:
        status, out, err = self.run_command(*arguments)
        self.assertEqual((2, ''), (status, out))
        self.assertIn(words, err)

    def test_a_token_is_shown_once_with_the_line_for_the_file(self) -> None:
        status, out, err = self.run_command(
            'new', 'ada', '--scope', WRITE, '--scope', READ, '--expires', '2999-01-01')
        token, line = out.splitlines()
        self.assertEqual(0, status)
        self.assertRegex(token, r'^abk_[A-Za-z0-9_-]{43}$')
        self.assertEqual(token_line('ada', token, READ, WRITE, more=' expires=2999-01-01'),
                         f'{line}\n')
        self.assertIn('SIGHUP', err)
        self.assertNotIn(token, err)
        self.path.write_text(line)
        self.assertEqual('ada', self.caller(self.authenticator(), token).name)

    def test_no_two_tokens_are_alike(self) -> None:
        outs = {self.run_command('new', 'ada', '--scope', READ)[1] for _ in range(20)}
        self.assertEqual(20, len(outs))

    def test_a_file_gets_the_line_and_has_it_from_nobody_else(self) -> None:
        """It is made with mode 0600, and never has the token in it."""
        first, second = self.add('ada'), self.add('bob')
        known = self.authenticator()
        self.assertEqual(['ada', 'bob'], [self.caller(known, t).name for t in (first, second)])
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))
        self.assertNotIn(first, self.path.read_text())
        self.assertEqual([self.path], list(self.folder.iterdir()))

    def test_a_file_that_is_there_stays_what_it_is(self) -> None:
        """Its lines, with an end where the last one had none, its mode, owner and links."""
        link = self.folder / 'link'
        link.symlink_to(self.path)
        self.path.write_text('# by hand')
        self.path.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(self.path, 1, 2)
        before, self.path = self.path.stat(), link
        self.add('ada')
        self.assertTrue(link.is_symlink())
        after = self.path.stat()
        self.assertEqual((before.st_mode, before.st_uid, before.st_gid),
                         (after.st_mode, after.st_uid, after.st_gid))
        self.assertRegex(self.path.read_text(), r'^# by hand\nada [0-9a-f]{64} addressbook:read\n$')

    def test_a_line_that_would_break_the_file_is_not_added(self) -> None:
        self.add('ada')
        arguments = 'new', 'ada', '--scope', READ, '--file', str(self.path)
        before = self.path.read_text()
        self.assert_refused(*arguments, words=f'addrservice: {self.path}, line 2: has the name')
        self.path.write_text(f'{before}oops')
        self.assert_refused(*arguments, words=f'addrservice: {self.path}, line 2: is not')
        self.path.write_bytes(b'\xff')
        self.assert_refused(*arguments, words=f'addrservice: {self.path}: not UTF-8')
        self.assertEqual(b'\xff', self.path.read_bytes())

    def test_a_file_that_cannot_be_written_is_no_token(self) -> None:
        arguments = 'new', 'ada', '--scope', READ, '--file'
        self.assert_refused(*arguments, str(self.folder), words='Is a directory')
        self.assert_refused(*arguments, str(self.folder / 'no' / 'file'), words='No such file')
        with mock.patch('os.replace', side_effect=OSError(28, 'No space left on device')):
            self.assert_refused(*arguments, str(self.path), words=f'{self.path}: No space left')
        self.assertEqual([], list(self.folder.iterdir()))

    def test_what_cannot_stand_in_a_file_is_refused(self) -> None:
        for name in '', 'a b', '#a', 'ä', 'a' * 65, 'a\nb':
            with self.subTest(name=name):
                self.assert_refused('new', name, '--scope', READ, words='a name is')
        self.assert_refused('new', 'ada', words='--scope')
        self.assert_refused('new', 'ada', '--scope', 'all', words=f"'{READ}'")
        self.assert_refused('new', 'ada', '--scope', READ, '--expires', 'soon', words='YYYY-MM-DD')
        self.assert_refused(words='COMMAND')

    def test_commands_that_run_at_once_take_turns(self) -> None:
        """Each line ends up in the file."""
        code = 'import sys; from addrservice.auth.command import main; sys.exit(main(sys.argv[1:]))'
        names = [f'caller-{number}' for number in range(4)]
        running = [subprocess.Popen(
            [sys.executable, '-c', code, 'new', name, '--scope', READ, '--file', str(self.path)],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for name in names]
        self.assertEqual([0] * len(names), [process.wait(timeout=30) for process in running])
        self.assertCountEqual(names, [token.caller.name for token in read_tokens(self.path)])


if __name__ == '__main__':
    unittest.main()
