"""The lock files, the licences and the audit."""

import re
import subprocess
import sys
import unittest
from importlib import metadata
from pathlib import Path
from unittest import mock

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import supply_chain
from tests.supply_chain import (
    BENCH, DEVELOPER, LICENCES, SERVICE, Locked, dependencies, is_allowed, licence_of,
    list_licences, lock_file, read_lock, vulnerabilities,
)

RENEW = 'renew the lock files: python -m tests.supply_chain lock'


def pins(path: Path) -> dict[str, Requirement]:
    """What a file of requirements asks for, with what it includes."""
    found = {}
    for line in path.read_text(encoding='utf-8').splitlines():
        text = line.partition('#')[0].strip()
        if text.startswith('-r '):
            found.update(pins(path.parent / text[3:]))
        elif text:
            requirement = Requirement(text)
            found[canonicalize_name(requirement.name)] = requirement
    return found


def locked(path: Path) -> dict[str, Locked]:
    """The packages that a lock file has for this Python."""
    return {package.name: package for package in read_lock(lock_file(path))
            if package.is_for_this_python()}


class LockTest(unittest.TestCase):
    """Each lock file, held against its requirements and against what is installed."""

    def test_each_requirement_is_locked_in_the_version_that_it_asks_for(self) -> None:
        for path in SERVICE, DEVELOPER, BENCH:
            packages = locked(path)
            for name, requirement in pins(path).items():
                version = packages[name].version if name in packages else 'none'
                self.assertEqual(f'{name}{requirement.specifier}', f'{name}=={version}', RENEW)

    def test_all_that_is_needed_is_locked_and_nothing_else(self) -> None:
        for path in SERVICE, DEVELOPER:
            needed = set(dependencies(map(str, pins(path).values())))
            self.assertEqual(needed, locked(path).keys(), RENEW)

    def test_each_package_has_hashes(self) -> None:
        for path in SERVICE, DEVELOPER, BENCH:
            for package in read_lock(lock_file(path)):
                self.assertTrue(package.hashes, package.name)
                for digest in package.hashes:
                    self.assertRegex(digest, r'\Asha256:[0-9a-f]{64}\Z')

    def test_developers_have_the_packages_that_the_service_has(self) -> None:
        developers = read_lock(lock_file(DEVELOPER))
        for package in read_lock(lock_file(SERVICE)):
            self.assertIn((package.name, package.version),
                          {(other.name, other.version) for other in developers}, RENEW)

    def test_the_tests_run_with_what_is_locked(self) -> None:
        versions = {name: package.version for name, package in locked(DEVELOPER).items()
                    if name != 'pip'}  # which is there before it can read what is locked
        self.assertEqual(versions, {name: metadata.version(name) for name in versions},
                         'install what is locked: pip install -r requirements.lock')


class LicenceTest(unittest.TestCase):
    """The list of licences."""

    def test_it_is_what_the_packages_say(self) -> None:
        self.assertEqual(LICENCES.read_text(encoding='utf-8'), list_licences(),
                         'write it anew: python -m tests.supply_chain licences')

    def test_each_licence_lets_the_service_be_used_and_passed_on(self) -> None:
        for name in locked(SERVICE):
            self.assertTrue(is_allowed(licence_of(name)), f'{name}: {licence_of(name)}')

    def test_each_part_of_an_expression_has_to_be_on_the_list(self) -> None:
        for licence in 'MIT', 'Apache-2.0 OR BSD-3-Clause', 'MPL-2.0 AND (Apache-2.0 OR MIT)':
            self.assertTrue(is_allowed(licence), licence)
        for licence in 'GPL-3.0-only', 'MIT AND (AGPL-3.0-only OR MIT)', 'none', 'Proprietary':
            self.assertFalse(is_allowed(licence), licence)


class AuditTest(unittest.TestCase):
    """What is made of what pip-audit says."""

    def report(self, *packages: str) -> mock.Mock:
        """An answer of pip-audit, about some packages."""
        text = '{"dependencies": [%s], "fixes": []}' % ', '.join(packages)
        return mock.Mock(stdout=text if packages else '')

    def audit(self, *reports: mock.Mock) -> tuple[int, str]:
        """The status and the output of an audit that gets these answers."""
        with mock.patch.object(subprocess, 'run', side_effect=reports), \
                mock.patch('builtins.print') as printed:
            status = supply_chain.audit()
        return status, '\n'.join(line for call in printed.call_args_list for line in call.args)

    SAFE = '{"name": "a", "version": "1", "vulns": []}'
    SKIPPED = '{"name": "b", "skip_reason": "Dependency not found"}'
    VULNERABLE = ('{"name": "c", "version": "2", "vulns": '
                  '[{"id": "PYSEC-1", "fix_versions": ["2.1"]}, {"id": "X", "fix_versions": []}]}')

    def test_a_vulnerable_package_fails_it(self) -> None:
        self.assertEqual(
            (1, 'c 2: PYSEC-1, mended in 2.1\nc 2: X, mended in no version'),
            self.audit(self.report(self.SAFE, self.VULNERABLE)))

    def test_it_passes_where_a_database_knows_all_and_nothing_bad(self) -> None:
        self.assertEqual((0, '1 packages, none known as vulnerable (pypi)'),
                         self.audit(self.report(self.SAFE)))

    def test_where_one_database_passes_over_a_package_the_other_is_asked(self) -> None:
        self.assertEqual((0, '1 packages, none known as vulnerable (osv)'),
                         self.audit(self.report(self.SAFE, self.SKIPPED), self.report(self.SAFE)))

    def test_what_could_not_be_checked_does_not_look_as_if_it_had_been(self) -> None:
        status, output = self.audit(self.report(self.SAFE, self.SKIPPED), self.report())
        self.assertEqual(0, status)
        self.assertRegex(output, r'\Acould not check: ')

    def test_a_report_names_each_vulnerability(self) -> None:
        self.assertEqual([], vulnerabilities({'dependencies': [{'name': 'a', 'version': '1'}]}))

    def test_pip_audit_takes_the_lock_file(self) -> None:
        """Without asking anybody."""
        asked = subprocess.run(
            [sys.executable, '-m', 'pip_audit', '--dry-run', '--requirement',
             lock_file(SERVICE), '--require-hashes', '--disable-pip', '--progress-spinner', 'off'],
            capture_output=True, text=True)
        self.assertEqual(0, asked.returncode, asked.stderr)
        self.assertTrue(re.search(rf'would have audited {len(locked(SERVICE))} packages',
                                  asked.stderr), asked.stderr)
