"""What the service is made of beside its own code: lock files, licences, known vulnerabilities.

::

    python -m tests.supply_chain lock       # writes the lock files for the requirements
    python -m tests.supply_chain licences   # writes deploy/licences.md
    python -m tests.supply_chain audit      # asks whether a locked package is known as vulnerable
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import ROOT

SERVICE: Final = ROOT / 'deploy' / 'requirements.txt'
DEVELOPER: Final = ROOT / 'requirements.txt'
BENCH: Final = ROOT / 'bench' / 'requirements.txt'
LICENCES: Final = ROOT / 'deploy' / 'licences.md'

# Versions of Python from this one on, and all platforms, have one lock file.
OLDEST_PYTHON: Final = '3.11'

# Permissive ones, and one whose copyleft ends at the file (https://spdx.org/licenses).
ALLOWED: Final = frozenset({
    'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'MIT', 'MIT-0', 'MPL-2.0', 'PSF-2.0',
})

# How packages without a License-Expression call theirs -> its identifier.
IDENTIFIERS: Final = {
    '3-Clause BSD License': 'BSD-3-Clause',
    'Apache 2.0': 'Apache-2.0',
    'Apache Software License': 'Apache-2.0',
    'MIT License': 'MIT',
    'Mozilla Public License 2.0 (MPL 2.0)': 'MPL-2.0',
}

# Whose metadata do not say which of several it is, but whose file of the licence does.
FROM_FILE: Final = {'pyinstrument': 'BSD-3-Clause'}

# Where pip-audit can ask: the package index itself, or OSV.
DATABASES: Final = ('pypi', 'osv')


class Locked(NamedTuple):
    """One package of a lock file.

    :param name: as PyPI writes it
    :param hashes: of the files that may be installed, each as ``sha256:`` and its digits
    """

    name: str
    version: str
    requirement: Requirement
    hashes: list[str]

    def is_for_this_python(self) -> bool:
        """Whether it is installed here."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def lock_file(requirements: Path) -> Path:
    """The lock file of a file of requirements."""
    return requirements.with_suffix('.lock')


def read_lock(path: Path) -> list[Locked]:
    """The packages of a lock file."""
    lines = [line for line in path.read_text(encoding='utf-8').splitlines()
             if not line.lstrip().startswith('#')]
    return [_parse(entry) for entry in '\n'.join(lines).replace('\\\n', ' ').splitlines()]


def _parse(entry: str) -> Locked:
    text, *hashes = entry.split('--hash=')
    requirement = Requirement(text)
    [specifier] = requirement.specifier
    return Locked(requirement.name, specifier.version, requirement, [h.strip() for h in hashes])


def lock() -> int:
    """Writes the lock files; what the requirements leave open stays as it was if it may."""
    constraints: list[str] = []
    for requirements in (SERVICE, DEVELOPER, BENCH):
        target = lock_file(requirements).relative_to(ROOT)
        subprocess.run(
            [sys.executable, '-m', 'uv', 'pip', 'compile', '--quiet', '--universal',
             '--python-version', OLDEST_PYTHON, '--generate-hashes', '--no-annotate',
             '--custom-compile-command', 'python -m tests.supply_chain lock',
             *constraints, '--output-file', str(target), str(requirements.relative_to(ROOT))],
            cwd=ROOT, check=True)
        constraints += ['--constraint', str(target)]
    return 0


def licences() -> int:
    """Writes the list of licences."""
    LICENCES.write_text(list_licences(), encoding='utf-8')
    return 0


def list_licences() -> str:
    """The content of ``deploy/licences.md``, by the metadata of what is installed."""
    rows = (f'| [{package.name}](https://pypi.org/project/{package.name}/) '
            f'| {licence_of(package.name)} |'
            for package in read_lock(lock_file(SERVICE)) if package.is_for_this_python())
    return '\n'.join([
        '# Licences',
        '',
        'Of the packages that are installed with the service, by their own metadata. Written by',
        '`python -m tests.supply_chain licences`; a test holds it against what is installed.',
        'mkdocs-swagger-ui-tag brings Swagger UI, whose licence is Apache-2.0.',
        '',
        '| package | licence |',
        '| --- | --- |',
        *rows, ''])


def licence_of(name: str) -> str:
    """The licence of an installed package, as an SPDX expression, or in its own words."""
    told = metadata.metadata(name)
    classifiers = [text.rpartition(' :: ')[2] for text in told.get_all('Classifier') or ()
                   if text.startswith('License :: ')]
    ways: list[str] = [*(told.get_all('License-Expression') or ()), FROM_FILE.get(name, ''),
                       *(told.get_all('License') or ()), *classifiers, 'none']
    licence = next(filter(None, ways))
    return IDENTIFIERS.get(licence, licence)


def is_allowed(licence: str) -> bool:
    """Whether each licence that an SPDX expression names is on the list."""
    return ALLOWED.issuperset(set(re.findall(r'[^\s()]+', licence)) - {'AND', 'OR'})


def dependencies(names: Iterable[str]) -> Iterator[str]:
    """Packages and all that they need here, by what is installed; each once."""
    waiting = [Requirement(name) for name in names]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        place = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if place not in done:
            if place[0] not in {name for name, _ in done}:
                yield place[0]
            done.add(place)
            waiting += _needed(requirement)


def _needed(requirement: Requirement) -> Iterator[Requirement]:
    for text in metadata.requires(requirement.name) or ():
        needed = Requirement(text)
        extras = requirement.extras or {''}
        if not needed.marker or any(needed.marker.evaluate({'extra': e}) for e in extras):
            yield needed


def audit() -> int:
    """Asks the databases, one after the other, until one knows all packages."""
    for database in DATABASES:
        report = ask(database)
        if report is not None:
            lines = vulnerabilities(report)
            print(*lines or [f'{len(report["dependencies"])} packages, none known as vulnerable '
                             f'({database})'], sep='\n')
            return int(bool(lines))
    print(f'could not check: no database is in reach here ({", ".join(DATABASES)})')
    return 0


def ask(database: str) -> Mapping[str, Any] | None:
    """What pip-audit says of the locked packages; None if the database could not tell of each."""
    done = subprocess.run(
        [sys.executable, '-m', 'pip_audit', '--vulnerability-service', database,
         '--requirement', lock_file(DEVELOPER), '--require-hashes', '--disable-pip',
         '--format', 'json', '--progress-spinner', 'off', '--timeout', '10'],
        capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout or '{"dependencies": []}')
    packages = report['dependencies']
    # pip-audit passes over a package that the database does not know, and is content.
    complete = packages and not any('skip_reason' in package for package in packages)
    return report if complete else None


def vulnerabilities(report: Mapping[str, Any]) -> list[str]:
    """A line for each known vulnerability in a report."""
    return [f'{package["name"]} {package["version"]}: {found["id"]}, '
            f'mended in {", ".join(found["fix_versions"]) or "no version"}'
            for package in report['dependencies'] for found in package.get('vulns', ())]


def main() -> int:
    """Runs one of the commands."""
    commands = {'lock': lock, 'licences': licences, 'audit': audit}
    parser = argparse.ArgumentParser(prog='tests.supply_chain')
    parser.add_argument('command', choices=commands)
    return commands[parser.parse_args().command]()


if __name__ == '__main__':
    sys.exit(main())
