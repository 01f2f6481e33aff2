"""What the trials make of functions and of books, without a load."""

import asyncio
import io
import os
import tempfile
import unittest
from contextlib import ExitStack, nullcontext, redirect_stderr
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from unittest import mock

from addrservice.validation import parse_json
from bench import functions, load
from bench.entries import encoded
from bench.harness import BARE_UVLOOP, BUSY_UVLOOP, RIVALS
from bench.servers import SAME_WORK, SERVICE, Server, ServerError
from bench.trials import functions as functions_trial
from bench.trials import latency as latency_trial
from bench.trials import postgresql, processes, scale

# What callgrind writes at a mark, without the lines on functions.
PART = """# callgrind format
version: 1
creator: callgrind-3.19.0
desc: Trigger: --dump-before=getloadavg
events: Ir
summary: 123377


totals: 123377
"""


class CasesTest(unittest.IsolatedAsyncioTestCase):
    async def test_each_function_can_be_called_again_and_again(self) -> None:
        """In a running event loop."""
        asyncio.get_running_loop().slow_callback_duration = 10  # it would complain of jsonschema
        for name, case in functions.cases().items():
            if name.endswith(', pydantic') and not find_spec('fastapi'):
                continue  # only the environment of the benchmark has that
            with self.subTest(name=name), ExitStack() as stack:
                call = case(stack)
                call()
                call()

    async def test_what_is_compared_gives_the_same(self) -> None:
        """An entry that is as it was, whoever reads and writes it; the fields of a request."""
        cases = functions.cases()
        with ExitStack() as stack:
            for name in ('usual entry', 'usual entry, json and jsonschema'):
                written = cases[name](stack)()
                assert isinstance(written, bytes)
                self.assertEqual(parse_json(encoded('usual')), parse_json(written))
            parsed = cases['GET parsed, Tornado'](stack)()
            assert isinstance(parsed, tuple)
            self.assertEqual(('GET', 6), (parsed[0].method, len(parsed[1])))

    async def test_log_lines_are_written(self) -> None:
        """Ours and a plain one, to where there is nobody."""
        for name in ('log line', 'log line, standard library'):
            with self.subTest(name=name), ExitStack() as stack:
                with mock.patch('os.devnull', stack.enter_context(
                        tempfile.NamedTemporaryFile()).name), ExitStack() as inner:
                    functions.cases()[name](inner)()
                    inner.close()
                    self.assertIn('4bf92f3577b34da6a3ce929d0e0e4736',
                                  Path(os.devnull).read_text(encoding='utf-8'))


class TimeTest(unittest.IsolatedAsyncioTestCase):
    def test_a_call_takes_its_time(self) -> None:
        """The best is never worse than the median."""
        measured = functions.time_call(lambda: sum(range(1000)), 0.02)
        self.assertGreater(measured['least ns'], 100)
        self.assertLessEqual(measured['least ns'], measured['ns'])

    async def test_all_are_timed_in_one_order_whichever_is_the_first(self) -> None:
        """So that rounds can be put together."""
        called: list[str] = []

        def case(name: str) -> functions.Case:
            return lambda _: lambda: called.append(name)

        cases = {name: case(name) for name in 'abc'}
        with (mock.patch.object(functions, 'cases', lambda: cases),
              mock.patch.object(functions, 'time_call', lambda call, _: call())):
            told = await functions.time_all(1, 0)
        self.assertEqual(('bca', 'abc'), (''.join(called), ''.join(told)))


class CountTest(unittest.IsolatedAsyncioTestCase):
    async def test_calls_are_between_marks(self) -> None:
        """So many between the first two, three times as many between the last two."""
        events: list[str] = []
        cases: dict[str, functions.Case] = {'one': lambda _: lambda: events.append('call')}
        with (mock.patch.object(functions, 'cases', lambda: cases),
              mock.patch.object(os, functions.MARK, lambda: events.append('mark'))):
            [(_, number)] = (await functions.count_all()).items()
        first, second, third = (place for place, event in enumerate(events) if event == 'mark')
        self.assertEqual((number, 3 * number), (second - first - 1, third - second - 1))
        self.assertEqual(len(events), third + 1)

    def test_what_is_there_besides_the_calls_does_not_count(self) -> None:
        """Neither before the first mark nor with each of them."""
        totals = [9999, 50 + 10 * 7, 50 + 30 * 7, 8888, 50 + 2 * 400, 50 + 6 * 400]
        self.assertEqual({'a': 7, 'b': 400},
                         functions_trial.per_call({'a': 10, 'b': 2}, totals))

    def test_parts_are_read(self) -> None:
        """All instructions of one."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'part.1')
            path.write_text(PART, encoding='ascii')
            self.assertEqual(123_377, functions_trial.read_total(path))

    def test_without_valgrind_nothing_is_counted(self) -> None:
        """Nor where it fails."""
        with tempfile.TemporaryDirectory() as folder:
            with mock.patch.dict(os.environ, PATH=folder):
                self.assertEqual({}, functions_trial.count_instructions(Path(folder)))
            printed = io.StringIO()
            with (mock.patch('shutil.which', lambda _: 'false'), redirect_stderr(printed)):
                self.assertEqual({}, functions_trial.count_instructions(Path(folder)))
            self.assertIn('ended with 1', printed.getvalue())

    def test_others_are_compared_with_ours(self) -> None:
        """A comma alone makes nobody another one."""
        names = ['id', 'id, uuid', 'call', 'call, 1', 'call, 3', 'dump, usual entry']
        self.assertEqual([('id, uuid', 'id'), ('call, 1', 'call'), ('call, 3', 'call')],
                         functions_trial.pairs(names))


class _Book(BaseHTTPRequestHandler):
    """Three megabytes in chunks, or nothing."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        if self.path != '/addressbook':
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        for _ in range(3):
            self.wfile.write(b'%x\r\n%b\r\n' % (10**6, b'x' * 10**6))
        self.wfile.write(b'0\r\n\r\n')

    def log_message(self, format: str, *args: object) -> None:
        pass


class ReadingTest(unittest.TestCase):
    def setUp(self) -> None:
        httpd = HTTPServer(('127.0.0.1', 0), _Book)
        self.addCleanup(httpd.server_close)
        thread = Thread(target=httpd.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(httpd.shutdown)
        self.server = mock.Mock(spec=Server)
        self.server.connect = lambda: Server.connect(self.server)
        self.server.port = httpd.server_port

    def test_a_book_is_read_with_an_eye_on_the_memory(self) -> None:
        """The most of it is told beside that before."""
        self.server.memory.side_effect = [50_000_000, 52_000_000, 90_000_000, 51_000_000] * 2
        with mock.patch.object(scale, 'INTERVAL', 0):
            read = scale.read_book(self.server)
        self.assertEqual((50, 90), (read['MB before it'], read['MB during it']))
        self.assertGreater(read['whole book MB/s'], 1)

    def test_the_median_of_the_waits_is_told(self) -> None:
        """In milliseconds."""
        self.assertGreater(1000, scale.median_wait(self.server, ['/addressbook'] * 3))

    def test_what_is_no_success_is_no_measurement(self) -> None:
        """It would only be fast."""
        with self.assertRaisesRegex(ServerError, '404'):
            scale.median_wait(self.server, ['/addressbook/x'])


class ProcessesTest(unittest.TestCase):
    def test_whole_cpus_do_what_those_have_done_that_were_there(self) -> None:
        """As much each: 1.6 CPUs have done 3200, so two would do 4000."""
        self.assertEqual({'per second': 3200, 'per second with whole CPUs': 4000,
                          'CPU us each': 500, 'CPUs': 1.6}, processes.sample(2, 3200, 1.6))


class LatencyTest(unittest.TestCase):
    def test_the_floor_is_asked_at_the_rate_of_the_service(self) -> None:
        """Its own would be another load; all others are asked at 70 % of their own."""
        others = {SAME_WORK, BUSY_UVLOOP, *RIVALS}
        highest = {SERVICE: [1000.0, 2000.0], **{name: [5000.0] * 2 for name in others}}
        asked: list[tuple[str, float]] = []

        def latency(name: str, rate: float) -> load.Latency:
            asked.append((name, rate))
            return load.Latency(rate, (1, 2, 3, 4), 0)

        bench = mock.Mock(latency=latency, rounds=lambda: 2, quick=True)
        bench.filled = lambda name: nullcontext(name)
        bench.throughput = lambda name, _, connections: mock.Mock(rate=highest[name].pop(0))
        with mock.patch.object(latency_trial, '_measure_streaming', lambda *_: {}):
            result = latency_trial.run(bench)
        self.assertEqual([700, 700], [rate for name, rate in asked if name == BARE_UVLOOP])
        self.assertEqual([700, 1400], [rate for name, rate in asked if name == SERVICE])
        self.assertEqual({3500}, {rate for name, rate in asked if name in others})
        self.assertIn((SERVICE, BUSY_UVLOOP), result.comparisons)


class PostgreSQLTest(unittest.TestCase):
    def test_a_side_has_no_room_where_it_takes_a_whole_cpu(self) -> None:
        """What the database and the load generator take is of one CPU."""
        self.assertEqual(
            {'per second': 2000, 'us: server': 125, 'us: database': 375, 'us: generator': 125,
             'CPUs: server': 0.25, 'CPUs: database, generator': 1},
            postgresql.sample(2000, 0.000125, 0.000375, 0.000125))


class SizesTest(unittest.TestCase):
    def test_books_are_left_out_for_which_there_is_no_room(self) -> None:
        """All of those before them take some, too."""
        free = 11_000 * scale.BYTES
        self.assertEqual([1000, 10_000], scale.those_that_fit([1000, 10_000, 100_000], free))
        self.assertEqual([1000], scale.those_that_fit([1000, 10_000, 100_000], free - 1))

    def test_the_books_that_are_read_as_a_whole_are_among_them(self) -> None:
        """One at least even where all is short."""
        self.assertLessEqual({*scale.BOOKS}, {*scale.SIZES})
        self.assertTrue({*scale.BOOKS} & {*scale.QUICK_SIZES})


if __name__ == '__main__':
    unittest.main()
