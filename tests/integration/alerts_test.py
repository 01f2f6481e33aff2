"""Rules, alerts, runbook and dashboard: checked by promtool, and against what the service has."""

import json
import re
import tempfile
import unittest
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from prometheus_client import values
from prometheus_client.parser import text_string_to_metric_families

from addrservice.app import API, PAGES
from addrservice.collectors.prometheus import PrometheusCollector
from addrservice.collectors.prometheus.metrics import UNMATCHED, WATCHED
from addrservice.collectors.prometheus.outcomes import OUTCOMES, outcome
from addrservice.request_span import METHODS
from addrservice.tracing import Span
from tests.prometheus import FOLDER, RULES, promtool
from tests.support import ROOT

CASES: Final = sorted((FOLDER / 'tests').glob('*.yml'))
DASHBOARD: Final = ROOT / 'deploy' / 'grafana' / 'addrservice.json'
RUNBOOK: Final = ROOT / 'docs' / 'runbook.md'

# What Prometheus itself has.
ITS_METRICS: Final = {'up'}
ITS_LABELS: Final = {'job', 'instance'}

_STRING: Final = re.compile(r'"[^"]*"')
_MATCHER: Final = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING: Final = re.compile(r'\b(?:by|on|without|ignoring)\s*\(([^)]*)\)')
_NO_METRICS: Final = re.compile(r'\{[^}]*\}|\[[^\]]*\]')
_NAME: Final = re.compile(r'(?<![\w:.$])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])')
_OPERATORS: Final = {'and', 'or', 'unless', 'bool', 'offset'}


class Query(NamedTuple):
    """An expression of PromQL.

    :param where: it was found
    :param text: with Grafana's variables filled in
    """

    where: str
    text: str

    def metrics(self) -> set[str]:
        """The metrics that it asks for."""
        text = _GROUPING.sub('', _NO_METRICS.sub('', _STRING.sub('""', self.text)))
        return set(_NAME.findall(text)) - _OPERATORS

    def labels(self) -> set[str]:
        """The labels that it groups by."""
        return {label.strip() for found in _GROUPING.findall(self.text)
                for label in found.split(',')}

    def matched(self) -> Iterator[tuple[str, str]]:
        """The labels that it selects by, each with a value."""
        for label, alternatives in _MATCHER.findall(self.text):
            yield from ((label, value) for value in alternatives.split('|'))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in load(path)['groups'] for rule in group['rules']]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule['alert']: rule for rule in rules() if 'alert' in rule}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding='utf-8'))['panels']
    return found


def queries() -> Iterator[Query]:
    """All of the rules and of the dashboard."""
    for rule in rules():
        yield Query(rule.get('alert') or rule['record'], rule['expr'])
    for panel in panels():
        for target in panel.get('targets', ()):
            text = target['expr'].replace('$__rate_interval', '5m')
            text = text.replace('"$job"', '"addrservice"').replace('"$instance"', '".+"')
            yield Query(panel['title'], text)


class RulesTest(unittest.TestCase):
    def test_promtool_finds_nothing_wrong_with_the_rules_and_the_example(self) -> None:
        promtool('check', 'rules', '--lint=all', '--lint-fatal', *RULES)
        promtool('check', 'config', FOLDER / 'prometheus.yml')

    def test_what_is_recorded_for_several_windows_differs_in_them_alone(self) -> None:
        found = defaultdict(set)
        for rule in rules():
            name, _, window = rule.get('record', '').partition(':ratio_rate')
            if window:
                self.assertEqual({window}, set(re.findall(r'\[(\w+)\]', rule['expr'])))
                found[name].add(rule['expr'].replace(f'[{window}]', '[]'))
        self.assertEqual([1, 1], [len(expressions) for expressions in found.values()])

    def test_each_alert_fires_when_it_has_to_and_not_otherwise(self) -> None:
        promtool('test', 'rules', *CASES)

    def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(self) -> None:
        cases = [(case['alertname'], bool(case['exp_alerts'])) for path in CASES
                 for test in load(path)['tests'] for case in test.get('alert_rule_test', ())]
        self.assertEqual({(name, fires) for name in alerts() for fires in (True, False)},
                         set(cases))

    def test_each_alert_says_how_urgent_it_is_and_what_to_do(self) -> None:
        headings = re.findall('^## (.*)$', RUNBOOK.read_text(encoding='utf-8'), re.MULTILINE)
        self.assertEqual(list(alerts()), headings)
        for name, alert in alerts().items():
            with self.subTest(name):
                self.assertIn(alert['labels']['severity'], ('page', 'ticket'))
                self.assertEqual({'summary', 'description', 'runbook'}, set(alert['annotations']))
                self.assertEqual(f'docs/runbook.md#{name.lower()}', alert['annotations']['runbook'])


class QueriesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.addClassCleanup(setattr, values, 'ValueClass', values.ValueClass)
        families = list(text_string_to_metric_families(_answer()))
        samples = [sample for family in families for sample in family.samples]
        cls.metrics = {name for family in families for name in _series(family.name, family.type)}
        cls.labels = {label for sample in samples for label in sample.labels}
        cls.bounds = {sample.labels['le'] for sample in samples if 'le' in sample.labels}

    metrics: set[str]
    labels: set[str]
    bounds: set[str]

    def test_promtool_can_read_each_query_of_the_dashboard(self) -> None:
        written = [{'record': f'query_{number}', 'expr': query.text}
                   for number, query in enumerate(queries())]
        with tempfile.NamedTemporaryFile('w', suffix='.yml') as file:
            yaml.safe_dump({'groups': [{'name': 'queries', 'rules': written}]}, file)
            file.flush()
            self.assertIn(f'{len(written)} rules found', promtool('check', 'rules', file.name))

    def test_each_query_asks_for_metrics_and_labels_that_are_there(self) -> None:
        recorded = {rule['record'] for rule in rules() if 'record' in rule}
        for query in queries():
            with self.subTest(query.where):
                self.assertTrue(query.metrics())
                self.assertLessEqual(query.metrics(), self.metrics | recorded | ITS_METRICS)
                labels = query.labels() | {label for label, _ in query.matched()}
                self.assertLessEqual(labels, self.labels | ITS_LABELS)

    def test_each_query_selects_values_that_there_can_be(self) -> None:
        known = {
            'route': {*API, *PAGES, '/metrics', UNMATCHED},
            'method': {*METHODS, '_OTHER'},
            'outcome': {*OUTCOMES.values(), outcome(None)},
            'le': self.bounds,
            'status': {'5..'},
            'job': {'addrservice'},
            'instance': {'.+'},
        }
        for query in queries():
            for label, value in query.matched():
                with self.subTest(query.where, label=label):
                    self.assertIn(value, known[label])

    def test_each_metric_of_the_service_can_be_seen_on_the_dashboard(self) -> None:
        asked = set().union(*(query.metrics() for query in queries()))
        families = {re.sub('_(bucket|count|sum)$', '', name) for name in self.metrics}
        shown = {re.sub('_(bucket|count|sum)$', '', name) for name in asked}
        self.assertEqual({'process_virtual_memory_bytes'}, families - shown)

    def test_panels_are_told_apart(self) -> None:
        numbers = [panel['id'] for panel in panels()]
        self.assertEqual(len(numbers), len(set(numbers)))


def _answer() -> str:
    """The metrics of a collector that has seen all that there is to see."""
    request, operation = Span('GET /', None, 'server'), Span('read', None, 'store')
    request.attributes.update({
        'http.request.method': 'GET', 'http.response.status_code': 200,
        'http.request.body.size': 0, 'http.response.body.size': 0})
    collector = PrometheusCollector()
    for span in request, operation:
        collector.enter(span)
        collector.exit(span)
    for name in WATCHED:
        collector.watch(name, lambda: 0)
    return collector.expose('')[1].decode()


def _series(name: str, kind: str) -> list[str]:
    """The names of the series of a metric."""
    if kind == 'histogram':
        return [f'{name}_bucket', f'{name}_count', f'{name}_sum']
    return [f'{name}_total' if kind == 'counter' else name]
