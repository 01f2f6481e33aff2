"""The house: imports point inward, and importing a module does next to nothing."""

import ast
import json
import subprocess
import sys
import unittest
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Final

PACKAGE: Final = 'addrservice'
ROOT: Final = Path(__file__).resolve().parent.parent.parent
SCHEMA: Final = ROOT / PACKAGE / 'address-book-v1.0.json'

# From the outside in: the modules of a room may import those of the rooms after it, never one of a
# room before it. A new room has to be given its place here.
ROOMS: Final = (
    '__main__', 'server', 'transfer', 'process', 'preparation', 'supervisor', 'workers', 'tls',
    'profiling', 'app', 'http_server', 'listening', 'docs', 'operators', 'routing', 'base_handler',
    'body_handler', 'lean_handler', 'request', 'compression', 'answer_headers', 'request_span',
    'answers', 'gate', 'openapi',
    'auth', 'collectors', 'throttle', 'forwarded', 'parameters', 'preconditions', 'negotiation',
    'cors', 'service', 'merge_patch', 'addressbook_db', 'sql_connectors', 'validation',
    'explanation', 'config', 'tracing', 'plugins', 'systemd', 'logs', 'errors', '',
)

# The only ones that know of the web.
WEB: Final = {'http_server', 'listening', 'app', 'docs', 'operators', 'routing', 'base_handler',
              'body_handler', 'lean_handler', 'request', 'compression', 'answer_headers',
              'request_span', 'answers'}

# Of use on their own, in another project too.
INDEPENDENT: Final = ('errors', 'plugins', 'throttle', 'forwarded', 'logs', 'preconditions',
                      'negotiation', 'cors')

# Imports modules and prints, as JSON, what the interpreter did meanwhile that others can see.
WATCHED_IMPORT: Final = '''
import importlib, json, logging, os, signal, sys, threading

READING = os.O_RDONLY | os.O_CLOEXEC
WATCHED = ('socket.', 'subprocess.', 'os.', 'shutil.', 'tempfile.', 'signal.', 'sqlite3.')
HARMLESS = {'os.listdir', 'os.scandir', 'os.putenv'}
acts, read = [], []

def watch(event, args):
    if event == 'open':
        path, mode, flags = args
        if flags & ~READING:
            acts.append(f'open {path} {mode}')
        elif isinstance(path, (str, bytes)):
            read.append(os.fsdecode(path))
    elif event.startswith(WATCHED) and event not in HARMLESS:
        acts.append(event)

handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
json.dump({
    'acts': acts,
    'read': read,
    'signals': [n for n, handler in handlers.items() if signal.getsignal(n) != handler],
    'threads': threading.active_count() - 1,
    'root handlers': len(logging.getLogger().handlers),
    'house handlers': len(logging.getLogger('addrservice').handlers),
    'house level': logging.getLogger('addrservice').level,
    'root level': logging.getLogger().level,
}, sys.stdout)
'''


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'), str(path))


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES: Final = {module_name(path): parse(path) for path in (ROOT / PACKAGE).rglob('*.py')}


def imports(tree: ast.AST, package: str = PACKAGE) -> Iterator[str]:
    """The modules that code imports, wherever in it: at the top, in functions, for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(filter(None, [package if node.level else '', node.module]))
            for alias in node.names:
                inner = f'{base}.{alias.name}'
                yield inner if inner in MODULES else base


def room(module: str) -> str:
    """The module or package just below the package that a module is, or is in."""
    return module.removeprefix(PACKAGE).removeprefix('.').partition('.')[0]


def imports_of_the_house(tree: ast.AST) -> set[str]:
    return {name for name in imports(tree) if name.split('.')[0] == PACKAGE}


def run_at_import(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """What runs when a module is imported: all but the bodies of functions."""
    for node in nodes:
        yield node
        inner: Sequence[ast.AST] = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [*node.decorator_list, node.args]
        elif isinstance(node, ast.Lambda):
            inner = [node.args]
        yield from run_at_import(inner)


def calls_at_import(tree: ast.Module, function: str) -> list[int]:
    """The lines of a module that call a function of that name at import."""
    return [node.lineno for node in run_at_import(tree.body) if isinstance(node, ast.Call)
            and ast.unparse(node.func).split('.')[-1] == function]


def imported_with(module: str) -> set[str]:
    """All modules that are there once a fresh interpreter has imported that one."""
    code = f'import sys, {module}; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True,
                          capture_output=True, timeout=60, check=True)
    return set(done.stdout.split())


class ImportsTest(unittest.TestCase):
    def test_every_room_has_its_place(self) -> None:
        self.assertEqual(set(ROOMS), set(map(room, MODULES)))

    def test_imports_point_inward(self) -> None:
        """Server, app, service, store: each imports what is further in, nothing points back."""
        for name, tree in MODULES.items():
            with self.subTest(module=name):
                inner = set(ROOMS[ROOMS.index(room(name)):])
                self.assertLessEqual(set(map(room, imports_of_the_house(tree))), inner)

    def test_no_imports_go_round_in_a_circle(self) -> None:
        """Within a room neither. A package that gathers what its modules have is not counted."""
        graph = {name: imports_of_the_house(tree) - {name.rpartition('.')[0]}
                 for name, tree in MODULES.items()}
        TopologicalSorter(graph).prepare()  # raises CycleError

    def test_only_the_web_rooms_import_tornado(self) -> None:
        users = {room(name) for name, tree in MODULES.items()
                 if any(imported.split('.')[0] == 'tornado' for imported in imports(tree))}
        self.assertEqual(WEB, users)

    def test_a_driver_is_imported_only_where_the_configuration_names_its_database(self) -> None:
        """So that each costs nobody else anything, and can be left out of an installation."""
        self.assertEqual(set(), imported_with('addrservice.process') & {'asyncpg', 'sqlite3'})

    def test_a_supervisor_does_not_import_the_web(self) -> None:
        """It is up sooner by a third of the time, and a third smaller: it answers no request."""
        web = {'tornado.web', 'addrservice.app', 'addrservice.http_server', 'addrservice.service'}
        self.assertEqual(set(), imported_with('addrservice.server') & web)

    def test_what_is_of_use_on_its_own_imports_nothing_of_the_house(self) -> None:
        for name in INDEPENDENT:
            with self.subTest(module=name):
                imported = {other for module, tree in MODULES.items() if room(module) == name
                            for other in imports_of_the_house(tree)}
                self.assertLessEqual(set(map(room, imported)), {name})

    def test_an_import_is_seen_in_whatever_form(self) -> None:
        """The tests above rest on this."""
        for code in (
            'import addrservice.errors',
            'import json, addrservice.errors as e',
            'from addrservice import errors',
            'from addrservice.errors import ConfigError',
            'from . import errors',
            'from .errors import ConfigError',
            'def late():\n    from addrservice import errors',
            'if TYPE_CHECKING:\n    import addrservice.errors',
        ):
            with self.subTest(code=code):
                self.assertEqual({'addrservice.errors'}, imports_of_the_house(ast.parse(code)))


class ImportingTest(unittest.TestCase):
    report: dict[str, Any]

    @classmethod
    def setUpClass(cls) -> None:
        # Not the one that serves; nor what urllib3 comes with, which tries whether there is IPv6.
        names = [name for name in MODULES
                 if not name.endswith('.__main__') and 'collectors.opentelemetry' not in name]
        done = subprocess.run(
            [sys.executable, '-B', '-W', 'error', '-c', WATCHED_IMPORT, *names],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        cls.report = json.loads(done.stdout)

    def test_importing_opens_no_socket_and_writes_nothing(self) -> None:
        """Nor does it start a process or change anything of the file system."""
        self.assertEqual([], self.report['acts'])

    def test_importing_reads_only_the_schema(self) -> None:
        """Of the files of the project, apart from code; what libraries read is theirs."""
        project = {path for path in map(Path, self.report['read'])
                   if path.is_relative_to(ROOT) and not path.is_relative_to(sys.prefix)
                   and path.suffix not in {'.py', '.pyc'}}
        self.assertEqual({SCHEMA}, project)

    def test_importing_configures_no_logging(self) -> None:
        self.assertEqual((0, 0), (self.report['root handlers'], self.report['house handlers']))
        self.assertEqual((30, 0), (self.report['root level'], self.report['house level']))

    def test_importing_starts_no_thread_and_takes_no_signal(self) -> None:
        self.assertEqual((0, []), (self.report['threads'], self.report['signals']))

    def test_no_logger_is_fetched_at_import(self) -> None:
        """Who logs is told its logger, or asks for it when it is built."""
        for name, tree in MODULES.items():
            with self.subTest(module=name):
                self.assertEqual([], calls_at_import(tree, 'getLogger'))

    def test_a_call_at_import_is_seen_wherever_it_stands(self) -> None:
        """The test above rests on this."""
        for code, lines in (
            ('a = logging.getLogger()', [1]),
            ('a = getLogger("a")', [1]),
            ('class A:\n    a = logging.getLogger()', [2]),
            ('def f(a=logging.getLogger()): pass', [1]),
            ('@log(getLogger())\nasync def f(): pass', [1]),
            ('if a:\n    b = [getLogger(c) for c in d]', [2]),
            ('def f():\n    return logging.getLogger()', []),
            ('class A:\n    def f(self):\n        return getLogger()', []),
            ('f = lambda: getLogger()', []),
        ):
            with self.subTest(code=code):
                self.assertEqual(lines, calls_at_import(ast.parse(code), 'getLogger'))


if __name__ == '__main__':
    unittest.main()
