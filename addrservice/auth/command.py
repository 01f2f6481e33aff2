"""``python -m addrservice token new``: makes a token, and the line of a tokens file for it."""

import argparse
import fcntl
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from addrservice.auth.abstract import SCOPES
from addrservice.auth.tokens import NAME, expiry, hash_token, parse_tokens
from addrservice.errors import ConfigError

PREFIX: Final = 'abk_'  # by which those who scan for secrets that leaked find one


def main(arguments: Sequence[str]) -> int:
    """Runs a command line, without ``token``.

    :return: the exit status: 0, or 2 when the file cannot be used
    """
    options = _parse(arguments)
    token = PREFIX + secrets.token_urlsafe(32)
    line = make_line(options.name, token, options.scope, options.expires)
    try:
        if options.file:
            append_line(options.file, line)
    except ConfigError as error:
        print(f'addrservice: {error}', file=sys.stderr)
        return 2
    _tell(token, line, options.file)
    return 0


def make_line(name: str, token: str, scopes: Sequence[str], expires: str | None) -> str:
    """The line of the file for a token."""
    chosen = ','.join(scope for scope in SCOPES if scope in scopes)
    until = f' expires={expires}' if expires else ''
    return f'{name} {hash_token(token).hex()} {chosen}{until}'


def append_line(path: Path, line: str) -> None:
    """Puts a line at the end of a tokens file, which is made if there is none.

    Readers see the file with the line or without it, whatever fails.

    :raises ConfigError: the file would not be a good one, or cannot be written
    """
    path = path.resolve()  # so that a symbolic link stays one
    try:
        with _locked(path.parent):
            content = path.read_text(encoding='utf-8') if path.exists() else ''
            if content and not content.endswith('\n'):
                content += '\n'
            content += f'{line}\n'
            parse_tokens(path, content)
            _replace(path, content)
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from None
    except UnicodeDecodeError:
        raise ConfigError(f'{path}: not UTF-8') from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps others out who would write there in the same way. A folder's lock leaves no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, content: str) -> None:
    """Writes a file beside another one, and then in its place, with its owner and mode."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}-')
    try:
        with open(descriptor, 'w', encoding='utf-8') as file:
            file.write(content)
            if path.exists():
                _copy_access(path, descriptor)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _copy_access(path: Path, descriptor: int) -> None:
    status = path.stat()
    os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, status.st_mode & 0o777)


def _tell(token: str, line: str, file: Path | None) -> None:
    print(token)
    if file:
        print(f'{file} has a line for it. A running service takes it on SIGHUP. '
              'The token is shown this once.', file=sys.stderr)
    else:
        print(line)
        print('The first line is the token, shown this once. The second one belongs into the '
              'file that auth.tokens.file names; a running service takes it on SIGHUP.',
              file=sys.stderr)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='addrservice token', description='Tokens of callers.')
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    new = commands.add_parser('new', help='make a token', description='Makes a token.')
    new.add_argument('name', metavar='NAME', type=_name, help='who is going to show it')
    new.add_argument('--scope', action='append', required=True, choices=SCOPES,
                     help='what that caller may do; may be given twice')
    new.add_argument('--expires', type=_date, metavar='YYYY-MM-DD',
                     help='the first day, in UTC, on which it is not valid any more')
    new.add_argument('--file', type=Path, help='the file to add it to; else its line is printed')
    return parser.parse_args(arguments)


def _name(text: str) -> str:
    if NAME.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(
        'a name is 1 to 64 letters, digits and . _ @ : / + -, and begins with one of the first two')


def _date(text: str) -> str:
    try:
        expiry(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
