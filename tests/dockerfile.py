"""Reads a Dockerfile and a .dockerignore, as far as those of this repository go.

https://docs.docker.com/reference/dockerfile: one instruction a line, lines that end with a
backslash go on in the next one, comments have lines of their own.
"""

import json
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Instruction(NamedTuple):
    """One instruction.

    :param name: in capitals
    :param flags: by name, without the dashes
    :param arguments: all that follows
    """

    name: str
    flags: dict[str, str]
    arguments: str

    @property
    def command(self) -> list[str]:
        """What it runs, which has to be in the exec form: no shell takes part.

        :raises ValueError: it is in the shell form
        """
        command: list[str] = json.loads(self.arguments.removeprefix('CMD '))
        return command

    @property
    def words(self) -> list[str]:
        """Its arguments, without their quotes."""
        return shlex.split(self.arguments)

    @property
    def assignments(self) -> dict[str, str]:
        """Its arguments, each of which is NAME=VALUE."""
        return dict(word.split('=', 1) for word in self.words)


class Stage(NamedTuple):
    """A FROM and what follows it, up to the next one.

    :param name: that COPY --from calls it by
    """

    base: str
    name: str
    instructions: list[Instruction]

    def all(self, name: str) -> list[Instruction]:
        """The instructions of a name."""
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        """The instruction of a name that counts: the last one."""
        return self.all(name)[-1]


def read_dockerfile(path: Path) -> list[Stage]:
    """The stages of a Dockerfile, the last one being the image."""
    values: dict[str, str] = {}
    stages: list[Stage] = []
    for instruction in _instructions(path.read_text(encoding='utf-8')):
        if instruction.name == 'FROM':
            base, *rest = instruction.words
            base = values.get(base.strip('${}'), base)
            stages.append(Stage(base, rest[-1] if rest else '', []))
        elif stages:
            stages[-1].instructions.append(instruction)
        else:  # an ARG before the first FROM is for the FROMs
            values.update(instruction.assignments)
    return stages


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith('#')]
    for line in '\n'.join(lines).replace('\\\n', ' ').splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(' ')
            yield _instruction(name.upper(), rest.strip())


def _instruction(name: str, rest: str) -> Instruction:
    flags = {}
    while rest.startswith('--'):
        flag, _, rest = rest.partition(' ')
        key, _, value = flag[2:].partition('=')
        flags[key] = value
        rest = rest.strip()
    return Instruction(name, flags, rest)


def is_sent(path: PurePosixPath, ignore: Path) -> bool:
    """Whether a file, named from the context's folder, is in the context; the last rule counts."""
    sent = True
    for rule in ignore.read_text(encoding='utf-8').splitlines():
        pattern = rule.strip().removeprefix('!')
        if pattern and not rule.startswith('#') and _covers(pattern, path):
            sent = rule.startswith('!')
    return sent


def _covers(pattern: str, path: PurePosixPath) -> bool:
    """Whether a pattern matches a path, or a folder that it is in."""
    places = [path, *path.parents][:-1]  # the last one is the context itself
    if pattern.startswith('**/'):
        return any(fnmatch(place.name, pattern[3:]) for place in places)
    return any(
        len(place.parts) == pattern.count('/') + 1 and fnmatch(str(place), pattern)
        for place in places)
