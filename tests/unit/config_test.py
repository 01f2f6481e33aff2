"""The configuration: what a file may say, and what it is told when it says something else."""

import json
import tempfile
import unittest
from pathlib import Path
from typing import Any, Final

from addrservice.config import (
    LOCAL_CONFIG, AuthSettings, JWTSettings, ProfilingSettings, RateLimitSettings,
    ServiceSettings, Settings, SQLSettings, StoreSettings, TLSSettings, TokenSettings,
    load_settings,
)
from addrservice.errors import ConfigError
from tests.support import ROOT

STORE: Final = 'addr-db: {memory: null}\n'
LOGGING: Final = 'logging: {version: 1}\n'
SMALLEST: Final = STORE + LOGGING


class ConfigTestCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / 'address book.yaml'

    def load(self, content: str | bytes) -> Settings:
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load_settings(self.path)

    def refusal_of(self, path: Path) -> str:
        """What is said of a file that is refused, after its name."""
        with self.assertRaises(ConfigError) as caught:
            load_settings(path)
        text = str(caught.exception)
        self.assertEqual(1, len(text.splitlines()), text)
        self.assertTrue(text.startswith(f'{path}: '), text)
        return text.removeprefix(f'{path}: ')

    def refusal(self, content: str | bytes) -> str:
        """What is said of a content that is refused, after the name of the file."""
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.refusal_of(self.path)

    def assert_refused(self, content: str, *words: str) -> None:
        """It is YAML, but says something wrong, and the line has these words."""
        reason = self.refusal(content)
        self.assertNotIn('not YAML', reason)
        for word in words:
            self.assertIn(word, reason)


class AcceptedTest(ConfigTestCase):
    def test_each_file_in_configs_loads(self) -> None:
        files = sorted((ROOT / 'configs').glob('*.yaml'))
        self.assertIn(LOCAL_CONFIG, files)
        for path in files:
            with self.subTest(path=path):
                self.assertIsInstance(load_settings(path), Settings)

    def test_the_local_file_keeps_entries_in_memory_on_the_loopback_address(self) -> None:
        settings = load_settings(LOCAL_CONFIG)
        self.assertEqual(StoreSettings(memory=None), settings.addr_db)
        self.assertEqual(ServiceSettings(), settings.service)

    def test_what_is_not_said_has_the_documented_default(self) -> None:
        """Sizes in bytes, times in seconds."""
        service = self.load(SMALLEST).service
        for field, value in {
            'address': '127.0.0.1',
            'max_body_size': 65_536,
            'max_header_size': 16_384,
            'idle_connection_timeout': 75,
            'body_timeout': 5,
            'drain_delay': 0,
            'shutdown_deadline': 10,
            'cors_origins': (),
        }.items():
            with self.subTest(field=field):
                self.assertEqual(value, getattr(service, field))

    def test_nothing_is_traced_unless_told(self) -> None:
        self.assertEqual({}, self.load(SMALLEST).tracing)

    def test_every_key_of_the_service_can_be_set(self) -> None:
        """Keys are the fields with hyphens."""
        values: dict[str, Any] = {
            'name': 'Ours', 'address': '::1', 'max-body-size': 1, 'max-header-size': 2,
            'idle-connection-timeout': 0.5, 'body-timeout': 1.5, 'max-connections': 3,
            'drain-delay': 2, 'shutdown-deadline': 0, 'cors-origins': ['https://app.example'],
            'processes': 4, 'stuck-deadline': 5, 'metrics-port': 6, 'metrics-address': '::2',
            'tls': {'certificate': '/c', 'key': '/k', 'minimum-version': '1.3',
                    'client-ca': '/a'},
            'trusted-proxies': ['10.0.0.0/8', '::1'], 'max-in-flight': 7,
            'rate-limit': {'requests': 8, 'seconds': 0.5}, 'http-parser': 'tornado',
        }
        service = self.load(f'{SMALLEST}service: {json.dumps(values)}').service
        values['cors-origins'] = ('https://app.example',)
        values['trusted-proxies'] = ('10.0.0.0/8', '::1')
        values['tls'] = TLSSettings('/c', '/k', '1.3', '/a')
        values['rate-limit'] = RateLimitSettings(8, 0.5)
        self.assertEqual(list(values.values()),
                         [getattr(service, key.replace('-', '_')) for key in values])
        self.assertEqual(len(values), len(service.__struct_fields__))

    def test_a_database_needs_nothing_but_its_dsn(self) -> None:
        """Times in seconds."""
        sql = self.load(LOGGING + 'addr-db: {sql: {dsn: "sqlite:///a.db"}}').addr_db.sql
        self.assertEqual(
            SQLSettings(dsn='sqlite:///a.db', deadline=1, connect_timeout=1, pool_size=10,
                        statement_cache_size=100), sql)

    def test_every_key_of_a_database_can_be_set(self) -> None:
        sql = self.load(LOGGING + 'addr-db: {sql: {dsn: "postgres://a", deadline: 2, '
                        'connect-timeout: 3, pool-size: 4, max-waiting: 5, '
                        'statement-cache-size: 0}}').addr_db.sql
        self.assertEqual(
            SQLSettings(dsn='postgres://a', deadline=2, connect_timeout=3, pool_size=4,
                        max_waiting=5, statement_cache_size=0), sql)

    def test_nobody_is_asked_who_they_are_unless_told(self) -> None:
        self.assertIsNone(self.load(SMALLEST).auth)

    def test_every_way_to_find_out_who_asks_can_be_named(self) -> None:
        for text, auth in (
            ('none', 'none'),
            ('{tokens: {file: /t}}', AuthSettings(tokens=TokenSettings('/t'))),
            ('{jwt: {jwks: /j, issuer: i, audience: a}}', AuthSettings(jwt=JWTSettings(
                '/j', 'i', 'a', leeway=30, algorithms=('RS256', 'ES256')))),
            ('{jwt: {jwks: /j, issuer: i, audience: a, leeway: 1, algorithms: [PS256]}}',
             AuthSettings(jwt=JWTSettings('/j', 'i', 'a', 1, ('PS256',)))),
            ('{custom: {a.B: {c-d: 1}}}', AuthSettings(custom={'a.B': {'c-d': 1}})),
        ):
            with self.subTest(auth=text):
                self.assertEqual(auth, self.load(f'{SMALLEST}auth: {text}').auth)

    def test_profiles_go_to_the_folder_for_such_things_unless_told(self) -> None:
        """Times in seconds."""
        self.assertEqual(ProfilingSettings('/tmp', 0.001, 60, False),
                         self.load(SMALLEST).profiling)
        self.assertEqual(
            ProfilingSettings('/p', 0.01, 5, True),
            self.load(SMALLEST + 'profiling: {folder: /p, interval: 0.01, max-seconds: 5, '
                      'at-start: true}').profiling)

    def test_a_dsn_may_name_all_that_is_not_secret(self) -> None:
        for dsn in (
            'postgresql://', 'postgres://', 'postgresql://user@host', 'postgresql:///database',
            'postgresql://user@a,b:5433,[::1]:5434/database?target_session_attrs=primary',
            'postgresql://user%40home@host/d?sslmode=verify-full&sslrootcert=/etc/ca.pem',
            'postgresql:///d?host=/run/postgresql', 'sqlite:///a', 'sqlite:///~/a b.db',
        ):
            with self.subTest(dsn=dsn):
                sql = self.load(f'{LOGGING}addr-db: {{sql: {{dsn: "{dsn}"}}}}').addr_db.sql
                self.assertEqual(SQLSettings(dsn=dsn), sql)

    def test_the_pages_of_several_origins_or_of_any_may_use_it(self) -> None:
        for origins in ([], ['*'], ['https://a.example', 'http://localhost:3000', 'http://[::1]']):
            with self.subTest(origins=origins):
                service = self.load(f'{SMALLEST}service: {{cors-origins: {origins}}}').service
                self.assertEqual(tuple(origins), service.cors_origins)

    def test_logging_and_collector_settings_come_as_they_are(self) -> None:
        settings = self.load(STORE + 'logging: {version: 1, filters: {a-b: {(): c}}}\n'
                             'tracing: {a.B: null, c.D: {max-events: 5}}')
        self.assertEqual({'version': 1, 'filters': {'a-b': {'()': 'c'}}}, settings.logging)
        self.assertEqual({'a.B': None, 'c.D': {'max-events': 5}}, settings.tracing)

    def test_settings_are_frozen(self) -> None:
        settings = self.load(SMALLEST)
        for section in (settings, settings.service, settings.addr_db):
            for field in section.__struct_fields__:
                with self.subTest(field=field), self.assertRaises(AttributeError):
                    setattr(section, field, None)

    def test_each_key_is_documented_with_its_section(self) -> None:
        """The docstrings are the manual of the file."""
        for section in (Settings, ServiceSettings, StoreSettings, SQLSettings):
            for field in section.__struct_fields__:
                with self.subTest(section=section.__name__, field=field):
                    self.assertIn(f':param {field}:', section.__doc__ or '')


class RefusedTest(ConfigTestCase):
    def test_an_unknown_key_is_named(self) -> None:
        """With the section it stands in."""
        for content, *words in (
            (SMALLEST + 'servce: {}', '`servce`'),
            (SMALLEST + 'service: {prot: 1}', '`prot`', 'service'),
            (SMALLEST + 'service: {max_body_size: 1}', '`max_body_size`', 'service'),
            (LOGGING + 'addr-db: {memory: null, postgres: null}', '`postgres`', 'addr-db'),
        ):
            with self.subTest(content=content):
                self.assert_refused(content, *words)

    def test_a_missing_key_is_named(self) -> None:
        for content, *words in (
            (LOGGING, '`addr-db`'),
            (STORE, '`logging`'),
            (LOGGING + 'addr-db: {}', '`memory`', '`sql`', 'addr-db'),
            (LOGGING + 'addr-db: {sql: {}}', '`dsn`', 'addr-db.sql'),
        ):
            with self.subTest(content=content):
                self.assert_refused(content, *words)

    def test_a_value_of_another_type_is_named_by_its_key(self) -> None:
        for content, key in (
            (SMALLEST + 'service: {max-body-size: big}', 'service.max-body-size'),
            (SMALLEST + 'service: {max-body-size: 1.5}', 'service.max-body-size'),
            (SMALLEST + 'service: {max-body-size: true}', 'service.max-body-size'),
            (SMALLEST + 'service: {drain-delay: 5s}', 'service.drain-delay'),
            (SMALLEST + 'service: {address: 127}', 'service.address'),
            (SMALLEST + 'service: {name: !!set {a}}', 'service.name'),
            (SMALLEST + 'service:', 'service'),
            (SMALLEST + 'tracing: [a.B]', 'tracing'),
            (SMALLEST + 'tracing: {a.B: 5}', 'tracing'),
            (STORE + 'logging:', 'logging'),
            (STORE + 'logging: {1: 2}', 'logging'),
            (LOGGING + 'addr-db: memory', 'addr-db'),
            (LOGGING + 'addr-db: {memory: 3}', 'addr-db.memory'),
        ):
            with self.subTest(content=content):
                self.assert_refused(content, f'$.{key}')

    def test_a_value_out_of_its_range_is_named_by_its_key(self) -> None:
        """No size is under 1, no time under 0 or endless; a text is one line, and not empty."""
        for key, value in (
            ('max-body-size', '0'),
            ('max-header-size', '-1'),
            ('max-connections', '0'),
            ('idle-connection-timeout', '-0.1'),
            ('body-timeout', '-1'),
            ('drain-delay', '.nan'),
            ('shutdown-deadline', '-.inf'),
            ('shutdown-deadline', '9' * 400),
            ('idle-connection-timeout', '0'),
            ('body-timeout', '0'),
            ('drain-delay', '.inf'),
            ('address', '""'),
            ('name', '""'),
            ('name', r'"two\nlines"'),
            ('name', r'"\uD800"'),
        ):
            with self.subTest(key=key, value=value):
                self.assert_refused(f'{SMALLEST}service: {{{key}: {value}}}', f'$.service.{key}')

    def test_an_origin_that_cannot_be_one_is_refused(self) -> None:
        """A browser would never send it, so that it would allow nothing."""
        for origin in ('', 'app.example', 'https://', 'https://app.example/', 'ftp://app.example',
                       'https://app.example/path', 'https://a?b', 'https://a#b', 'https://u@a',
                       'https://a b', 'https://a, https://b', '**', '*.example', 'null', 'a\\nb'):
            with self.subTest(origin=origin):
                self.assert_refused(f'{SMALLEST}service: {{cors-origins: ["{origin}"]}}',
                                    '$.service.cors-origins')
        for value in ('https://app.example', '{a: b}', 'null', '[1]', '[["*"]]'):
            with self.subTest(value=value):
                self.assert_refused(f'{SMALLEST}service: {{cors-origins: {value}}}',
                                    '$.service.cors-origins')

    def test_what_is_no_network_cannot_be_trusted(self) -> None:
        for network in ('proxy', '10.0.0.1/8', '10.0.0.0/33', '::/129', ''):
            with self.subTest(network=network):
                self.assert_refused(f'{SMALLEST}service: {{trusted-proxies: ["{network}"]}}',
                                    '$.service')

    def test_there_is_one_way_to_find_out_who_asks(self) -> None:
        for auth in ('{}', 'tokens', '{tokens: null}', '{custom: {}}', '{custom: {a.B: null, c.D: '
                     'null}}', '{tokens: {file: /t}, custom: {a.B: null}}', '{tokens: {}}',
                     '{jwt: {jwks: /j, issuer: i}}', '{basic: {}}', '{tokens: {file: ""}}'):
            with self.subTest(auth=auth):
                self.assert_refused(f'{SMALLEST}auth: {auth}', '$.auth')

    def test_a_dsn_that_cannot_be_one_is_refused(self) -> None:
        for dsn in (
            '/var/lib/a.db', 'a.db', 'mysql://host/d', 'sqlite:', 'sqlite://', 'sqlite:///',
            'sqlite://var/lib/a.db', 'sqlite:a.db', 'sqlite:///a.db?mode=ro', 'sqlite:///a#b',
            'postgresql:database', 'postgresql://[::1/d', 'postgresql://host:port/d',
            'postgresql://a,b:655360/d', 'postgresql://user:1/2@host/d', 'sqlite:///a%00b',
        ):
            with self.subTest(dsn=dsn):
                self.assert_refused(f'{LOGGING}addr-db: {{sql: {{dsn: "{dsn}"}}}}',
                                    '$.addr-db.sql', 'dsn')

    def test_a_dsn_with_a_password_is_refused_and_not_repeated(self) -> None:
        for dsn in ('postgresql://user:Pimpernel@host/d', 'postgresql://:Pimpernel@a,b/d',
                    'postgresql://user@host/d?password=Pimpernel',
                    'postgresql://user@host/d?%70assword=Pimpernel',
                    'postgresql://host/d?sslmode=require&sslpassword=Pimpernel'):
            with self.subTest(dsn=dsn):
                content = f'{LOGGING}addr-db: {{sql: {{dsn: "{dsn}"}}}}'
                self.assert_refused(content, 'PGPASSWORD', '$.addr-db.sql')
                self.assertNotIn('Pimpernel', self.refusal(content))

    def test_two_stores_are_refused(self) -> None:
        self.assert_refused(LOGGING + 'addr-db: {memory: null, sql: {dsn: "sqlite:///a"}}',
                            '`memory`', '`sql`', '$.addr-db')

    def test_a_key_with_a_line_break_is_told_in_one_line(self) -> None:
        self.assert_refused(SMALLEST + r'service: {"line\nbreak": 1}', 'service', 'unknown')

    def test_a_file_that_is_no_mapping_is_refused(self) -> None:
        """An empty one among them."""
        for content in ('', '# nothing yet\n', '---\n', '- a\n', 'text\n', '5\n'):
            with self.subTest(content=content):
                self.assert_refused(content, 'object')

    def test_a_file_that_is_not_yaml_is_refused_with_the_place(self) -> None:
        """It never is half a configuration."""
        for content, place in (
            (SMALLEST + 'service: {', 'line 3'),
            (SMALLEST + 'service:\n\t- a', 'line 4'),
            (SMALLEST + 'service: *nowhere', 'line 3'),
            (SMALLEST + '---\n' + SMALLEST, 'line 3'),
            (SMALLEST + 'service: !!python/object/apply:os.getpid []', 'line 3'),
        ):
            with self.subTest(content=content):
                reason = self.refusal(content)
                self.assertIn('not YAML', reason)
                self.assertIn(place, reason)

    def test_a_file_that_is_not_utf_8_is_refused(self) -> None:
        """Latin-1 among it, and what is no text at all."""
        for content in (b'service: {name: Caf\xe9}', b'\xff\xfe\xff', b'\x00\x01\x02'):
            with self.subTest(content=content):
                self.assertIn('not YAML', self.refusal(content))

    def test_a_value_that_is_not_of_its_own_tag_is_refused(self) -> None:
        """The parser has no error of its own for these, each ends in another built-in one."""
        for value in (
            '2024-01-99', '!!bool maybe', '!!int ""', '!!int x', '!!float ""', '!!timestamp soon',
            '9' * 5_000,
        ):
            with self.subTest(value=value[:20]):
                self.assertIn('not YAML', self.refusal(f'{SMALLEST}service: {{name: {value}}}'))

    def test_a_file_that_is_nested_too_deeply_is_refused(self) -> None:
        self.assertIn('not YAML', self.refusal(SMALLEST + 'service: ' + '[' * 5_000))

    def test_a_file_that_cannot_be_read_is_told_with_the_reason(self) -> None:
        """A missing file, a folder, a file taken for a folder."""
        self.load(SMALLEST)
        for path, reason in (
            (self.folder / 'nowhere.yaml', 'No such file or directory'),
            (self.folder, 'Is a directory'),
            (self.path / 'config.yaml', 'Not a directory'),
        ):
            with self.subTest(reason=reason):
                self.assertEqual(reason, self.refusal_of(path))


if __name__ == '__main__':
    unittest.main()
