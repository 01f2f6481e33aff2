"""A run of Schemathesis that was not whole does not pass, whatever it says itself.

Schemathesis is played by a script here: the real one has an environment of its own, and is run by
``python3 -m tests.conformance``.
"""

import json
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, Final

from tests.conformance import Report, conformance_test, gaps, remove_header_parameters

PHASES: Final = ['coverage', 'fuzzing']


def summary(**changed: Any) -> dict[str, Any]:
    """What Schemathesis writes of a whole run in which all went well; keywords replace parts."""
    return {
        'stop_reason': 'completed',
        'operations': {'total': 19, 'tested': 19},
        'test_cases': {'generated': 10, 'unique_failures': 0, 'without_checks': 0},
        'phases': {name: {'status': 'success'} for name in ('examples', 'stateful', *PHASES)},
        'errors': [],
        'warnings': {'unsupported_regex': []},
        'valid_rates': {str(number): {'coverage': {'accepted': 1}} for number in range(19)},
        **changed,
    }


class GapsTest(unittest.TestCase):
    """What a run may not leave out."""

    def assert_gap(self, pattern: str, **changed: Any) -> None:
        [gap] = gaps(summary(**changed), PHASES)
        self.assertRegex(gap, pattern)

    def test_a_whole_run_has_none(self) -> None:
        self.assertEqual([], list(gaps(summary(), PHASES)))

    def test_a_run_that_was_cut_short_has_one(self) -> None:
        self.assert_gap('ended early: max_time', stop_reason='max_time')

    def test_an_operation_that_was_not_tested_is_one(self) -> None:
        self.assert_gap('18 of 19', operations={'total': 19, 'tested': 18})

    def test_a_phase_that_was_skipped_is_one(self) -> None:
        phases = {'coverage': {'status': 'success'}, 'fuzzing': {'status': 'skip'}}
        self.assert_gap('the phase fuzzing ended with skip', phases=phases)

    def test_an_answer_that_no_check_has_seen_is_one(self) -> None:
        cases = {**summary()['test_cases'], 'without_checks': 3}
        self.assert_gap('3 cases were not checked', test_cases=cases)

    def test_an_error_is_one(self) -> None:
        self.assert_gap('connection refused', errors=['connection refused'])

    def test_a_warning_is_one(self) -> None:
        self.assert_gap('unsupported_regex', warnings={'unsupported_regex': ['POST /addressbook']})

    def test_a_warning_that_hangs_on_chance_is_none(self) -> None:
        self.assertEqual(
            [], list(gaps(summary(warnings={'missing_test_data': ['GET /addressbook']}), PHASES)))


class RunTest(unittest.TestCase):
    """The service under a script that plays Schemathesis."""

    def run_script(self, *lines: str, cases: int = 1) -> Report:
        """What comes of a script; it finds the path of its summary in ``path``."""
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, 'schemathesis')
            script.write_text('\n'.join([
                f'#!{sys.executable}',
                'import json, sys',
                "path = sys.argv[-1].removeprefix('--report-json-path=')",
                f'summary = json.loads({json.dumps(json.dumps(summary()))})',
                *lines]), encoding='utf-8')
            script.chmod(0o700)
            return conformance_test('memory', cases, 0, str(script))

    def test_it_goes_on_until_there_are_as_many_cases_as_were_asked_for(self) -> None:
        report = self.run_script("json.dump(summary, open(path, 'w'))", cases=35)
        self.assertTrue(report.passed, report)
        self.assertEqual(40, report.cases)

    def test_an_operation_that_never_succeeds_is_a_gap(self) -> None:
        report = self.run_script(
            "summary['valid_rates']['7']['coverage']['accepted'] = 0",
            "json.dump(summary, open(path, 'w'))")
        self.assertEqual(['1 operations never succeeded'], report.gaps)

    def test_it_does_not_go_on_for_ever(self) -> None:
        report = self.run_script(
            "summary['test_cases']['generated'] = 0", "json.dump(summary, open(path, 'w'))")
        self.assertEqual(['no further cases; 1 were asked for'], report.gaps)

    def test_it_fails_where_schemathesis_does(self) -> None:
        report = self.run_script("sys.exit('no such option')")
        self.assertEqual(['Schemathesis ended with status 1'], report.gaps[:1])
        self.assertIn('no such option', report.output)


class DocumentTest(unittest.TestCase):
    """What is left out of the document."""

    def test_header_parameters_are_left_out_whether_they_are_shared_or_not(self) -> None:
        shared = {'id': {'in': 'path'}, 'If-Match': {'in': 'header'}}
        own = {'in': 'query'}
        references = [{'$ref': f'#/components/parameters/{name}'} for name in shared]
        document: dict[str, Any] = {
            'components': {'parameters': shared},
            'paths': {'/x': {'get': {'parameters': [*references, own, {'in': 'header'}]}}},
        }
        remove_header_parameters(document)
        self.assertEqual([references[0], own], document['paths']['/x']['get']['parameters'])
