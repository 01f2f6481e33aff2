"""The container image and the Compose file: by their linters, by running them as far as that goes
without a container engine, and held against the configuration and the code."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import yaml

import addrservice
from addrservice.config import (
    POSTGRESQL_DSN, AuthSettings, Settings, SQLSettings, load_settings,
)
from tests.container import (
    DOCKERFILE, DOCKERIGNORE, Container, Image, Python, build, is_possible, running,
)
from tests.dockerfile import is_sent, read_dockerfile
from tests.support import ROOT

CONFIG = ROOT / 'configs' / 'addressbook-kubernetes.yaml'
CONFIG_IN_CONTAINER = '/etc/addressbook/addressbook.yaml'
COMPOSE = ROOT / 'deploy' / 'compose.yaml'

DIGEST = re.compile(r'[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}')


def program(name: str) -> str:
    """A program that came with the packages of this Python."""
    return str(Path(sysconfig.get_path('scripts'), name))


def tokens_file(settings: Settings) -> str:
    """The file of tokens that a configuration names."""
    assert isinstance(settings.auth, AuthSettings) and settings.auth.tokens is not None
    return settings.auth.tokens.file


def database(settings: Settings) -> SQLSettings:
    """The database that a configuration names."""
    assert isinstance(settings.addr_db.sql, SQLSettings)
    return settings.addr_db.sql


class DockerfileTest(unittest.TestCase):
    """What can be read in it."""

    def test_the_linter_has_nothing_to_say(self) -> None:
        linter = subprocess.run(
            [program('hadolint'), '--failure-threshold', 'style', str(DOCKERFILE)],
            capture_output=True, text=True)
        self.assertEqual((0, ''), (linter.returncode, linter.stdout + linter.stderr))

    def test_each_stage_is_on_the_same_base_pinned_by_its_digest(self) -> None:
        bases = {stage.base for stage in read_dockerfile(DOCKERFILE)}
        self.assertEqual(1, len(bases))
        self.assertRegex(bases.pop(), rf'\A{DIGEST.pattern}\Z')

    def test_it_is_of_this_version_and_tells_the_ports_of_the_configuration(self) -> None:
        image = read_dockerfile(DOCKERFILE)[-1]
        self.assertEqual(addrservice.__version__,
                         image.last('LABEL').assignments['org.opencontainers.image.version'])
        ports = ['8080', str(load_settings(CONFIG).service.metrics_port)]
        self.assertEqual(ports, image.last('EXPOSE').words)

    def test_the_user_is_a_number_that_is_not_root_s(self) -> None:
        self.assertRegex(read_dockerfile(DOCKERFILE)[-1].last('USER').arguments,
                         r'\A[1-9]\d+:[1-9]\d+\Z')

    def test_no_secret_and_nothing_that_the_image_does_not_need_is_sent_to_the_builder(
        self
    ) -> None:
        for path in 'deploy/secrets/pgpass', '.git/config', 'env/bin/python', 'tests/wire.py':
            self.assertFalse(is_sent(PurePosixPath(path), DOCKERIGNORE), path)


@unittest.skipUnless(is_possible(), 'bubblewrap is not installed, or not for this user')
class ContainerTest(unittest.TestCase):
    """What comes out of its steps, with the packages of this Python for those of the lock file."""

    image: ClassVar[Image]
    folder: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.folder.chmod(0o755)
        Path(cls.folder, 'tokens').write_text(f'me {"0" * 64} addressbook:read\n')
        packages = Path(sysconfig.get_path('purelib'))
        cls.image = build(cls.folder, Python.of(sys.executable), packages)

    def mounts(self, **service: Any) -> dict[str, Path]:
        """The tokens, and the configuration as it is but for the database and some settings."""
        document = yaml.safe_load(CONFIG.read_text(encoding='utf-8'))
        document['addr-db'] = {'memory': None}
        document['service'].update({'drain-delay': 0, **service})
        config = Path(self.folder, 'addressbook.yaml')
        config.write_text(yaml.safe_dump(document), encoding='utf-8')
        return {CONFIG_IN_CONTAINER: config,
                tokens_file(load_settings(CONFIG)): Path(self.folder, 'tokens')}

    def python(self, container: Container, code: str) -> int:
        """The exit status of Python code within a container."""
        return container.run([self.image.command[0], '-c', code])

    def test_it_has_the_service_its_configuration_and_its_packages_compiled_and_no_more(
        self
    ) -> None:
        layers = self.image.layers
        self.assertEqual({'opt/addressbook', 'opt/venv', 'etc/addressbook'},
                         {str(path.relative_to(layers)) for path in layers.glob('*/*')})
        self.assertEqual(CONFIG.read_bytes(), (layers / CONFIG_IN_CONTAINER[1:]).read_bytes())
        for source in layers.glob('opt/addressbook/**/*.py'):
            self.assertTrue(list(source.parent.glob(f'__pycache__/{source.stem}.*.pyc')), source)
        self.assertEqual([], list(layers.glob('opt/venv/**/pip*')))

    def test_it_runs_without_rights_shell_or_path_and_ends_in_peace(self) -> None:
        with running(self.image, self.mounts()) as container:
            process = Path('/proc', str(container.pid))
            status = (process / 'status').read_text(encoding='ascii')
            for line in ('Uid:' + 4 * '\t10001', 'Gid:' + 4 * '\t10001', 'Groups:\t',
                         'CapEff:\t0000000000000000', 'CapBnd:\t0000000000000000',
                         'NoNewPrivs:\t1', 'NSpid:\t'):
                self.assertIn(f'\n{line}', status)
            self.assertNotIn(b'\0PATH=', b'\0' + (process / 'environ').read_bytes())
            self.assertNotEqual(0, container.run(['/bin/sh', '-c', 'exit 0']))
            exit_status, output = container.stop()
        self.assertEqual(0, exit_status, output)
        start_lines = [line for line in output.splitlines() if line.startswith('Starting ')]
        self.assertIn('Starting Address Book on port 8080 ...', start_lines)
        self.assertIn('drained', [json.loads(line)['message'] for line in output.splitlines()
                                  if line not in start_lines])

    def test_it_can_write_to_tmp_alone_and_an_answer_on_another_port_is_not_health(self) -> None:
        image = self.image
        with running(image, self.mounts()) as container:
            for folder in '/', '/opt/addressbook', '/etc/addressbook', '/run/secrets/addressbook':
                self.assertNotEqual(0, self.python(container, f'open("{folder}/x", "w")'), folder)
            self.assertEqual(0, self.python(container, 'open("/tmp/x", "w").close()'))
            health = image.stage.last('HEALTHCHECK').command
            elsewhere = [word.replace('9100', '9101') for word in health]
            self.assertNotEqual(0, container.run(elsewhere))
            unready = [word.replace('/healthz', '/unknown') for word in health]
            self.assertNotEqual(0, container.run(unready))


class ComposeTest(unittest.TestCase):
    """The Compose file, and whether its parts fit together."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.document = yaml.safe_load(COMPOSE.read_text(encoding='utf-8'))
        cls.service = cls.document['services']['addressbook']
        cls.server = cls.document['services']['postgresql']
        cls.settings = load_settings(CONFIG)

    document: ClassVar[dict[str, Any]]
    service: ClassVar[dict[str, Any]]
    server: ClassVar[dict[str, Any]]
    settings: ClassVar[Settings]

    def test_it_is_what_the_compose_specification_takes(self) -> None:
        checked = subprocess.run(
            [sys.executable, '-m', 'check_jsonschema', '--builtin-schema', 'vendor.compose-spec',
             str(COMPOSE)], capture_output=True, text=True)
        self.assertEqual(0, checked.returncode, checked.stdout + checked.stderr)

    def test_it_builds_and_runs_the_image_of_this_version(self) -> None:
        self.assertEqual(f'addressbook:{addrservice.__version__}', self.service['image'])
        context = COMPOSE.parent / self.service['build']['context']
        self.assertEqual(DOCKERFILE, context.resolve() / self.service['build']['dockerfile'])

    def test_each_container_is_read_only_and_without_rights(self) -> None:
        for name, container in self.document['services'].items():
            with self.subTest(name):
                self.assertTrue(container['read_only'])
                self.assertEqual(['ALL'], container['cap_drop'])
                self.assertEqual(['no-new-privileges:true'], container['security_opt'])
                self.assertNotIn('privileged', container)

    def test_only_this_machine_reaches_the_service_and_only_the_service_the_database(
        self
    ) -> None:
        self.assertEqual(['127.0.0.1:8080:8080'], self.service['ports'])
        self.assertNotIn('ports', self.server)
        self.assertEqual(['database'], self.server['networks'])
        self.assertTrue(self.document['networks']['database']['internal'])

    def test_the_service_waits_for_the_database_that_its_configuration_names(self) -> None:
        self.assertEqual('service_healthy',
                         self.service['depends_on']['postgresql']['condition'])
        dsn = POSTGRESQL_DSN.fullmatch(database(self.settings).dsn)
        assert dsn is not None
        role, name = self.server['environment']['POSTGRES_USER'], 'postgresql'
        self.assertEqual((f'postgresql://{role}@', name), (dsn['before'], dsn['hosts']))
        self.assertEqual('/' + self.server['environment']['POSTGRES_DB'], dsn['after'])
        self.assertRegex(self.server['image'], rf'\A{DIGEST.pattern}\Z')

    def test_the_secrets_are_files_where_they_are_looked_for(self) -> None:
        targets = {secret['source']: secret['target'] for secret in self.service['secrets']}
        self.assertEqual({'pgpass': self.service['environment']['PGPASSFILE'],
                          'tokens': tokens_file(self.settings)}, targets)
        [secret] = self.server['secrets']
        self.assertEqual(f'/run/secrets/{secret}',
                         self.server['environment']['POSTGRES_PASSWORD_FILE'])
        for name, source in self.document['secrets'].items():
            self.assertEqual(f'secrets/{name}', source['file'])

    def test_it_is_killed_only_after_it_had_the_time_to_drain(self) -> None:
        limits = self.settings.service
        grace = float(self.service['stop_grace_period'].removesuffix('s'))
        self.assertGreater(grace, limits.drain_delay + limits.shutdown_deadline + 5)

    @unittest.skipUnless(shutil.which('git'), 'git is not installed')
    def test_what_its_comment_says_to_make_is_never_committed(self) -> None:
        ignored = subprocess.run(['git', 'check-ignore', '--quiet', 'deploy/secrets/pgpass'],
                                 cwd=ROOT)
        self.assertEqual(0, ignored.returncode)
