"""What the benchmark makes of what it measures: reports of load generators, medians, tables."""

import json
import os
import random
import statistics
import tempfile
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

import msgspec

from addrservice.config import Settings, SQLSettings
from addrservice.validation import parse_json, serialise_entry
from bench import entries, load, machine, report, rounds, servers, tools, trials
from bench.harness import Result

WRK = """Running 2s test @ http://127.0.0.1:18080/addressbook/01a22be7d2ca723f8e7a14b66c6f3f9a
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    15.37ms    2.96ms  39.27ms   85.26%
    Req/Sec     2.09k   278.85     2.43k    70.00%
  4152 requests in 2.00s, 2.59MB read
Requests/sec:   2075.65
Transfer/sec:      1.25MB
"""
WRK_FAILURES = """  4152 requests in 2.00s, 2.59MB read
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 50000
Requests/sec:   2075.65
Transfer/sec:    512.00KB
"""
WRK_NOTHING = """  0 requests in 1.00s, 0.00B read
Requests/sec:      0.00
Transfer/sec:       0.00B
"""

RATE = 1000.0  # requests per second in what follows
START = 1_796_032_944_831_715  # microseconds since 1970


def log_lines(starts: Sequence[float], took: float = 1000, status: int = 200) -> str:
    """A log of h2load: each request took so many microseconds."""
    return ''.join(f'{START + start:.0f}\t{status}\t{took:.0f}\n' for start in starts)


def evenly(count: int) -> list[float]:
    """When requests begin, in microseconds, that keep to the rate."""
    return [number * 1e6 / RATE for number in range(count)]


class RoundsTest(unittest.TestCase):
    def test_each_round_has_another_order(self) -> None:
        """All take their turn in each round, and another one is the first."""
        turns: list[str] = []

        def measure(name: str) -> Mapping[str, float]:
            turns.append(name)
            return {'rate': len(turns)}

        samples = rounds.take_turns('abc', 3, measure)
        self.assertEqual('abcbcacab', ''.join(turns))
        self.assertEqual([{'rate': 1}, {'rate': 6}, {'rate': 8}], samples['a'])

    def test_a_figure_is_the_median_with_the_middle_half_as_its_spread(self) -> None:
        """One bad round changes little."""
        figure = rounds.summarise([100, 101, 102, 103, 1000])
        self.assertEqual(102, figure.median)
        self.assertAlmostEqual(2 / 102, figure.spread or 0)

    def test_one_value_has_no_spread(self) -> None:
        """Nobody knows how steady it is; that zeros have none is known."""
        self.assertEqual(rounds.Figure(5, None), rounds.summarise([5]))
        self.assertEqual(rounds.Figure(0, 0), rounds.summarise([0, 0]))

    def test_a_ratio_is_that_of_one_round(self) -> None:
        """A machine that is slow for a round is slow for both, so that the ratio stays."""
        ours = [{'rate': 200.0}, {'rate': 20.0}, {'rate': 220.0}]
        others = [{'rate': 100.0}, {'rate': 10.0}, {'rate': 110.0}]
        self.assertEqual({'rate': rounds.Figure(2, 0)}, rounds.ratios(ours, others))

    def test_what_only_one_has_is_not_compared(self) -> None:
        """Nor is what the other one has measured as nothing."""
        self.assertEqual({}, rounds.ratios([{'a': 1, 'b': 1}], [{'c': 1, 'b': 0}]))


class WrkTest(unittest.TestCase):
    def test_its_report_is_read(self) -> None:
        """The rates, in units of one."""
        self.assertEqual(load.Throughput(4152, 2075.65, 1.25 * 2**20, 0, 0), load.read_wrk(WRK))

    def test_all_failures_count(self) -> None:
        """Those of connections, and answers that were no success."""
        read = load.read_wrk(WRK_FAILURES)
        self.assertEqual((54321, 2**19), (read.failed, read.bytes_rate))

    def test_without_an_answer_there_is_no_result(self) -> None:
        """A rate of nothing would only be taken for one."""
        for text in ('unable to connect to 127.0.0.1:1 Connection refused', WRK_NOTHING):
            with self.subTest(text=text), self.assertRaises(load.LoadError):
                load.read_wrk(text)


class H2loadTest(unittest.TestCase):
    def read(self, starts: Sequence[float], seconds: float = 1, ramp: float = 0) -> load.Latency:
        return load.read_log(log_lines(starts), RATE, seconds, ramp)

    def test_percentiles_are_those_of_the_latencies(self) -> None:
        """In milliseconds, of all requests."""
        text = ''.join(log_lines([start], took=1000 * number)
                       for number, start in enumerate(evenly(1000), 1))
        read = load.read_log(text, RATE, 1, 0)
        self.assertEqual((501, 901, 991, 1000), read.percentiles)
        self.assertAlmostEqual(RATE, read.rate, delta=2)

    def test_the_beginning_does_not_count(self) -> None:
        """What was begun while connections were still made is left out."""
        slow = log_lines(evenly(100), took=9e6)
        text = slow + log_lines([100_000 + start for start in evenly(1000)])
        self.assertEqual((1, 1, 1, 1), load.read_log(text, RATE, 1, 0.1).percentiles)

    def test_a_request_that_begins_late_has_waited(self) -> None:
        """After a stop of 200 ms, those that were due meanwhile are begun all at once."""
        starts = evenly(1000)
        stopped = [max(start, 600_000) if start >= 400_000 else start for start in starts]
        median, _, p99, highest = self.read(stopped).percentiles
        self.assertEqual(1, median)
        self.assertAlmostEqual(1 + 190, p99, delta=1)
        self.assertAlmostEqual(1 + 199, highest, delta=2)

    def test_what_a_timer_is_late_is_no_wait(self) -> None:
        """The generator's clock is no better than that."""
        chance = random.Random(1)
        starts = [start + chance.uniform(-500, 500) for start in evenly(1000)]
        self.assertEqual((1, 1, 1, 1), self.read(starts).percentiles)

    def test_a_server_that_is_too_slow_makes_wait_ever_longer(self) -> None:
        """Of 1,000 requests a second it answers 500."""
        starts = [2 * start for start in evenly(1000)]
        self.assertAlmostEqual(1 + 990, self.read(starts, seconds=1).percentiles[2], delta=110)

    def test_a_rate_at_which_connections_would_begin_together_is_refused(self) -> None:
        """They would all wait for each other, whatever the server does."""
        with self.assertRaisesRegex(load.LoadError, '30000 requests'):
            load.run_h2load(tools.Tool('h2load'), 'http://127.0.0.1:1', 30_000, 1, Path('log'))

    def test_answers_that_are_no_success_are_counted(self) -> None:
        """A request without an answer has the status -1."""
        text = (log_lines(evenly(10)) + log_lines([11_000], status=503)
                + log_lines([12_000], status=-1))
        self.assertEqual(2, load.read_log(text, RATE, 1, 0).failed)


class ReportTest(unittest.TestCase):
    def setUp(self) -> None:
        self.told = report.document({'CPU': 'one'}, {'trial': report.trial(Result(
            'requests per second',
            {'ours': [{'GET': 2000.0, 'POST': 1.0}, {'GET': 2000.0, 'POST': 2.0}],
             'theirs': [{'GET': 1000.0, 'POST': 1.0}, {'GET': 1000.0, 'POST': 1.0}]},
            [('ours', 'theirs')], ['A note.']))})

    def test_it_has_figures_ratios_and_all_that_was_measured(self) -> None:
        """In the types of JSON."""
        trial = self.told['trials']['trial']
        self.assertEqual({'median': 2000, 'spread': 0}, trial['figures']['ours']['GET'])
        self.assertEqual([{'of': 'ours', 'to': 'theirs', 'figures': {
            'GET': {'median': 2, 'spread': 0},
            'POST': {'median': 1.5, 'spread': 0.3333}}}], trial['ratios'])
        self.assertEqual([1, 2], [sample['POST'] for sample in trial['samples']['ours']])
        self.assertEqual(self.told, json.loads(json.dumps(self.told)))

    def test_tables_say_what_proves_nothing(self) -> None:
        """Where the ratio of a measure is too unsteady, or the measure itself, and only there."""
        lines = report.markdown(self.told).splitlines()
        [ratios] = [line for line in lines if line.startswith('| ours / theirs ')]
        cells = [cell.strip() for cell in ratios.split('|')[1:-1]]
        self.assertEqual(['ours / theirs', '2.00 ±0%', '1.50 ±17%, proves nothing'], cells)
        [figures] = [line for line in lines if line.startswith('| ours ') and line != ratios]
        cells = [cell.strip() for cell in figures.split('|')[1:-1]]
        self.assertEqual(['ours', '2,000 ±0%', '1.5 ±17%, unsteady'], cells)
        self.assertIn('A note.', lines)

    def test_a_failure_is_told_with_its_reason(self) -> None:
        """In place of the tables."""
        failed = report.failure('wrk has not ended')
        self.assertTrue(report.has_failed(failed))
        self.assertFalse(report.has_failed(self.told['trials']['trial']))
        text = report.markdown(report.document({}, {'sizes': failed}))
        self.assertTrue(text.endswith('## sizes\n\nFailed: wrk has not ended\n'), text)

    def test_one_round_is_told_without_a_spread(self) -> None:
        """In the ratios, too."""
        told = report.document({}, {'short': report.trial(Result(
            '', {'a': [{'GET': 3.0}], 'b': [{'GET': 2.0}]}, [('a', 'b')]))})
        text = report.markdown(told).partition('## short')[2]
        self.assertIn('1.50', text)
        self.assertNotIn('±', text)

    def test_a_trial_without_figures_has_its_notes(self) -> None:
        """So that it says why there are none."""
        told = report.document(
            {}, {'none': report.trial(Result('nothing', {}, notes=['There is none.']))})
        self.assertIn('There is none.', report.markdown(told))

    def test_numbers_are_told_with_three_digits(self) -> None:
        """More would be noise."""
        told = [report.number(value) for value in (2_075_650, 2075.65, 123.4, 12.345, 0.012345)]
        self.assertEqual(['2,080,000', '2,080', '123', '12.3', '0.0123'], told)

    def test_trials_that_were_not_run_again_stay(self) -> None:
        """Unless they are of another machine or of other versions."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'results.json')
            self.assertEqual(self.told, report.merge(path, self.told))
            report.write_json(path, self.told)
            for cpu, kept in (('one', ['trial', 'other']), ('two', ['other'])):
                new = report.document({'CPU': cpu}, {'other': report.trial(Result('', {}))})
                self.assertEqual(kept, list(report.merge(path, new)['trials']))


class ToolsTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.programs = self.folder / 'programs'
        self.programs.mkdir()
        self.enterContext(mock.patch.dict(os.environ, PATH=str(self.programs)))

    def write_program(self, name: str, script: str) -> str:
        path = self.programs / name
        path.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n', encoding='ascii')
        path.chmod(0o755)
        return str(path)

    def test_h2load_is_on_time(self) -> None:
        """By libev's select, for with its epoll it waits for whole milliseconds."""
        path = self.write_program(
            'h2load', 'echo "0 200 1\n9000000 503 1\n9005000 200 1" > $0.$LIBEV_FLAGS')
        measured = load.run_h2load(tools.Tool(path), 'http://x', 200, 1, Path(f'{path}.1'))
        self.assertEqual((400, 1), (measured.rate, measured.failed))

    def test_a_program_of_the_machine_is_taken(self) -> None:
        """As it is."""
        self.assertEqual(tools.Tool(self.write_program('wrk', '')), tools.find('wrk', self.folder))

    def test_a_missing_one_is_told_where_it_cannot_be_fetched(self) -> None:
        """With the package to install."""
        with self.assertRaisesRegex(tools.ToolError, '^install nghttp2-client '):
            tools.find('h2load', self.folder)

    def test_a_missing_one_is_unpacked_from_its_package_with_libraries(self) -> None:
        """Once; then it is there."""
        self.write_program('apt-cache', 'echo wrk; echo libc6; echo " Depends: x"; echo libfast1')
        self.write_program('apt-get', 'shift; for name; do touch $name.deb; done')
        self.write_program('dpkg-deb', 'mkdir -p usr/bin lib; touch usr/bin/wrk '
                           'lib/${2%1.deb}.so; test $2 != libc6.deb')
        tool = tools.find('wrk', self.folder)
        self.assertTrue(Path(tool.path).exists())
        self.assertEqual([str(self.folder / 'wrk' / 'lib')],
                         tool.environment()['LD_LIBRARY_PATH'].split(':'))
        self.write_program('apt-get', 'false')
        self.assertEqual(tool, tools.find('wrk', self.folder))

    def test_a_package_that_cannot_be_fetched_is_told_with_the_reason(self) -> None:
        """In one line, and tried anew the next time."""
        self.write_program('apt-cache', '')
        self.write_program('apt-get', 'echo; echo "E: Unable to locate package wrk" >&2; exit 100')
        self.write_program('dpkg-deb', '')
        for _ in range(2):
            with self.assertRaisesRegex(tools.ToolError, 'install wrk, .*: E: Unable to locate'):
                tools.find('wrk', self.folder)


class PartsTest(unittest.TestCase):
    def test_entries_are_valid_and_of_their_size(self) -> None:
        """200 bytes, 900 bytes and 30 kilobytes, within a fifth."""
        for (size, make), expected in zip(entries.SIZES.items(), (200, 900, 30_000), strict=True):
            chance = random.Random(1)
            lengths = [len(serialise_entry(make(chance))) for _ in range(20)]
            with self.subTest(size=size):
                self.assertAlmostEqual(1, statistics.median(lengths) / expected, delta=0.2)

    def test_a_seed_gives_the_same_entry_again(self) -> None:
        """And another one another entry."""
        self.assertEqual(entries.encoded('usual', 1), entries.encoded('usual', 1))
        self.assertNotEqual(parse_json(entries.encoded('usual', 1)),
                            parse_json(entries.encoded('usual', 2)))

    def test_the_service_is_measured_as_it_runs_in_production(self) -> None:
        """With lines in its log, metrics and traces; only callers and the store are others."""
        setup = servers.Setup('sqlite:///tmp/book.db', traces='http://127.0.0.1:1', processes=2)
        document = servers.production(setup)
        settings = msgspec.convert(document, Settings)
        self.assertEqual((2, 0), (settings.service.processes, settings.service.metrics_port))
        self.assertEqual([None, {'sampling': 0.01, 'endpoint': 'http://127.0.0.1:1'}],
                         list(settings.tracing.values()))
        self.assertEqual('INFO', document['logging']['loggers']['tornado.access']['level'])
        self.assertIsNone(settings.auth)

    def test_processes_can_share_the_connections_to_a_database(self) -> None:
        for pool, expected in ((None, 10), (5, 5)):
            setup = servers.Setup('postgresql://127.0.0.1/book', 2, pool=pool)
            sql = msgspec.convert(servers.production(setup), Settings).addr_db.sql
            assert isinstance(sql, SQLSettings)
            self.assertEqual(expected, sql.pool_size)

    def test_a_server_is_bound_to_its_cpus(self) -> None:
        """To the first ones, unless there is no other for the load."""
        with mock.patch.object(machine, '_CPUS', [3, 5]):
            self.assertEqual(['taskset', '-c', '3', 'x'], machine.on_cpus(1, ['x']))
            self.assertEqual(['taskset', '-c', '3,5', 'x'], machine.on_cpus(2, ['x']))
        with mock.patch.object(machine, '_CPUS', [3]):
            self.assertEqual(['x'], machine.on_cpus(1, ['x']))
            self.assertIn('disturb', machine.placement())

    def test_each_trial_has_a_name(self) -> None:
        """A module that nobody named would never run."""
        modules = {path.stem for path in Path(trials.__file__).parent.glob('[a-z]*.py')}
        self.assertEqual(modules, set(trials.NAMES))


if __name__ == '__main__':
    unittest.main()
