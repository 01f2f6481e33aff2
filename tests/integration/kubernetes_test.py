"""The Kubernetes manifests: rendered, valid, and held against each other, the image, the
configuration and the code."""

import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import yaml

import addrservice
from addrservice.app import PROBES
from addrservice.config import AuthSettings, Settings, SQLSettings, load_settings
from tests.container import DOCKERFILE
from tests.dockerfile import read_dockerfile
from tests.support import ROOT

MANIFESTS = Path('deploy', 'kubernetes')
OVERLAYS = {'base': MANIFESTS / 'base', 'production': MANIFESTS / 'overlays' / 'production'}
CONFIG = ROOT / 'configs' / 'addressbook-kubernetes.yaml'

# The oldest that has all that is used here, and the newest that the validator knows.
VERSIONS = '1.31', '1.37'

# Kinds of extensions, which no schema of Kubernetes knows.
EXTENSIONS = {'ServiceMonitor'}

KUBECTL = shutil.which('kubectl')

Manifest = dict[str, Any]


@cache
def render(folder: Path, root: Path = ROOT) -> dict[str, Manifest]:
    """What kustomize makes of a folder, by kind: of each there is one."""
    assert KUBECTL is not None
    rendered = subprocess.run([KUBECTL, 'kustomize', str(root / folder)],
                              capture_output=True, text=True)
    assert not rendered.returncode, rendered.stderr
    manifests = list(yaml.safe_load_all(rendered.stdout))
    by_kind = {manifest['kind']: manifest for manifest in manifests}
    assert len(by_kind) == len(manifests), 'two of one kind'
    return by_kind


@unittest.skipUnless(KUBECTL, 'kubectl is not installed')
class ManifestTestCase(unittest.TestCase):
    """The manifests of the production overlay and, as far as they differ, of the base."""

    rendered: ClassVar[dict[str, dict[str, Manifest]]]
    settings: ClassVar[Settings]

    @classmethod
    def setUpClass(cls) -> None:
        cls.rendered = {name: render(folder) for name, folder in OVERLAYS.items()}
        cls.settings = load_settings(CONFIG)

    def spec(self, kind: str, overlay: str = 'production') -> Any:
        """The specification of the one object of a kind."""
        return self.rendered[overlay][kind]['spec']

    @property
    def pod(self) -> Manifest:
        """The specification of a pod."""
        pod: Manifest = self.spec('Deployment')['template']['spec']
        return pod

    @property
    def container(self) -> Manifest:
        """The one container of a pod."""
        [container] = self.pod['containers']
        assert isinstance(container, dict)
        return container

    @property
    def labels(self) -> dict[str, str]:
        """The labels of a pod."""
        labels: dict[str, str] = self.spec('Deployment')['template']['metadata']['labels']
        return labels

    def environment(self) -> dict[str, Manifest]:
        """The variables of the container, by name."""
        return {variable['name']: variable for variable in self.container['env']}

    @staticmethod
    def policy_ports(rules: list[Manifest]) -> list[Any]:
        """The ports of some rules."""
        return [port['port'] for rule in rules for port in rule['ports']]

    def mounts(self) -> Iterator[tuple[str, Manifest]]:
        """Where a volume is mounted, and that volume."""
        volumes = {volume['name']: volume for volume in self.pod['volumes']}
        for mount in self.container['volumeMounts']:
            yield mount['mountPath'], volumes[mount['name']]


class ValidityTest(ManifestTestCase):
    """Each manifest alone."""

    def test_each_manifest_is_what_kubernetes_takes(self) -> None:
        for overlay, manifests in self.rendered.items():
            for kind in manifests.keys() - EXTENSIONS:
                for version in VERSIONS:
                    with self.subTest(overlay=overlay, kind=kind, version=version):
                        kubernetes_validate.validate(manifests[kind], version, strict=True)

    def test_the_service_monitor_finds_the_metrics(self) -> None:
        monitor, service = self.rendered['production']['ServiceMonitor'], 'Service'
        self.assertEqual({'apiVersion', 'kind', 'metadata', 'spec'}, monitor.keys())
        self.assertEqual('monitoring.coreos.com/v1', monitor['apiVersion'])
        self.assertEqual({'jobLabel', 'selector', 'endpoints'}, monitor['spec'].keys())
        labels = self.rendered['production'][service]['metadata']['labels']
        self.assertLessEqual(monitor['spec']['selector']['matchLabels'].items(), labels.items())
        self.assertEqual('addrservice', labels[monitor['spec']['jobLabel']])
        [endpoint] = monitor['spec']['endpoints']
        self.assertIn(endpoint['port'], [port['name'] for port in self.spec(service)['ports']])
        self.assertEqual('/metrics', endpoint['path'])

    def test_the_namespace_and_the_pod_keep_to_the_restricted_standard(self) -> None:
        """https://kubernetes.io/docs/concepts/security/pod-security-standards."""
        namespace = self.rendered['production']['Namespace']['metadata']
        self.assertEqual('restricted',
                         namespace['labels']['pod-security.kubernetes.io/enforce'])
        self.assertTrue(self.pod['securityContext']['runAsNonRoot'])
        self.assertEqual({'type': 'RuntimeDefault'},
                         self.pod['securityContext']['seccompProfile'])
        self.assertEqual({
            'allowPrivilegeEscalation': False,
            'readOnlyRootFilesystem': True,  # which is more than the standard asks for
            'capabilities': {'drop': ['ALL']},
        }, self.container['securityContext'])
        for forbidden in 'hostNetwork', 'hostPID', 'hostIPC', 'initContainers':
            self.assertNotIn(forbidden, self.pod)

    def test_nobody_has_a_token_for_kubernetes(self) -> None:
        account = self.rendered['production']['ServiceAccount']
        self.assertEqual(account['metadata']['name'], self.pod['serviceAccountName'])
        self.assertFalse(account['automountServiceAccountToken'])
        self.assertFalse(self.pod['automountServiceAccountToken'])


class FitTest(ManifestTestCase):
    """Each manifest held against the others."""

    def test_each_selector_of_the_pods_selects_them_and_only_the_database_s_does_not(
        self
    ) -> None:
        policy = self.spec('NetworkPolicy')
        for selector in (
            self.spec('Deployment')['selector'], self.spec('PodDisruptionBudget')['selector'],
            {'matchLabels': self.spec('Service')['selector']}, policy['podSelector'],
            *(spread['labelSelector'] for spread in self.pod['topologySpreadConstraints']),
        ):
            self.assertTrue(selector['matchLabels'])
            self.assertLessEqual(selector['matchLabels'].items(), self.labels.items())
        [database] = [peer['podSelector'] for rule in policy['egress'] for peer in rule['to']
                      if 'podSelector' in peer]
        self.assertEqual({'app.kubernetes.io/name': 'postgresql'}, database['matchLabels'])

    def test_the_policy_lets_in_to_the_ports_and_out_to_names_database_and_traces(self) -> None:
        policy = self.spec('NetworkPolicy')
        self.assertEqual(['Ingress', 'Egress'], policy['policyTypes'])
        self.assertEqual(['http', 'metrics'], self.policy_ports(policy['ingress']))
        self.assertEqual([53, 53, 5432, 4318], self.policy_ports(policy['egress']))
        for rule in policy['ingress'] + policy['egress']:
            self.assertTrue(rule.get('from') or rule.get('to'))

    def test_the_service_and_the_ingress_lead_to_ports_of_the_container(self) -> None:
        ports = {port['name']: port['containerPort'] for port in self.container['ports']}
        service = {port['name']: port['targetPort'] for port in self.spec('Service')['ports']}
        self.assertEqual({name: name for name in ports}, service)
        [rule] = self.spec('Ingress')['rules']
        [path] = rule['http']['paths']
        self.assertEqual({'name': self.rendered['production']['Service']['metadata']['name'],
                          'port': {'name': 'http'}}, path['backend']['service'])
        self.assertEqual([[rule['host']]], [tls['hosts'] for tls in self.spec('Ingress')['tls']])

    def test_the_autoscaler_alone_says_how_many_there_are_and_one_may_always_go(self) -> None:
        for overlay in OVERLAYS:
            autoscaler = self.spec('HorizontalPodAutoscaler', overlay)
            self.assertNotIn('replicas', self.spec('Deployment', overlay))
            self.assertGreater(autoscaler['minReplicas'], 1)
            self.assertGreater(autoscaler['maxReplicas'], autoscaler['minReplicas'])
        deployment = self.rendered['production']['Deployment']
        self.assertEqual({'apiVersion': deployment['apiVersion'], 'kind': deployment['kind'],
                          'name': deployment['metadata']['name']}, autoscaler['scaleTargetRef'])
        self.assertIn('cpu', self.container['resources']['requests'])  # its measure
        self.assertEqual(1, self.spec('PodDisruptionBudget')['maxUnavailable'])

    def test_the_pods_of_the_base_fit_into_the_connections_that_postgresql_has_by_default(
        self
    ) -> None:
        """Of 100, three are for superusers."""
        assert isinstance(self.settings.addr_db.sql, SQLSettings)
        pods = self.spec('HorizontalPodAutoscaler', 'base')['maxReplicas']
        pods += self.spec('Deployment', 'base')['strategy']['rollingUpdate']['maxSurge']
        self.assertLessEqual(pods * self.settings.addr_db.sql.pool_size, 97)


class ImageAndConfigurationTest(ManifestTestCase):
    """The manifests held against the image, the configuration and the code."""

    def test_it_runs_the_image_of_this_version_as_its_user(self) -> None:
        name, _, tag = self.container['image'].rpartition(':')
        self.assertEqual(addrservice.__version__, tag)
        self.assertEqual('addressbook', name.rpartition('/')[2])
        context = self.pod['securityContext']
        self.assertEqual(read_dockerfile(DOCKERFILE)[-1].last('USER').arguments,
                         f'{context["runAsUser"]}:{context["runAsGroup"]}')
        self.assertNotIn('command', self.container)  # it has an entry point

    def test_the_probes_ask_for_what_is_served_on_the_metrics_port(self) -> None:
        probes = {name: self.container[f'{name}Probe']['httpGet']
                  for name in ('startup', 'readiness', 'liveness')}
        self.assertEqual({'startup': '/healthz', 'readiness': '/readiness', 'liveness': '/healthz'},
                         {name: probe['path'] for name, probe in probes.items()})
        for probe in probes.values():
            self.assertIn(probe['path'], PROBES)
            self.assertEqual('metrics', probe['port'])

    def test_the_ports_are_those_of_the_configuration_on_all_addresses(self) -> None:
        service = self.settings.service
        self.assertEqual({'http': 8080, 'metrics': service.metrics_port},
                         {port['name']: port['containerPort'] for port in self.container['ports']})
        self.assertEqual(('0.0.0.0', '0.0.0.0'), (service.address, service.metrics_address))

    def test_it_is_killed_only_after_it_had_the_time_to_drain(self) -> None:
        service = self.settings.service
        self.assertGreater(service.drain_delay, 0)
        self.assertGreater(self.pod['terminationGracePeriodSeconds'],
                           service.drain_delay + service.shutdown_deadline + 5)

    def test_the_configuration_is_mounted_where_the_arguments_say(self) -> None:
        config_map = self.rendered['production']['ConfigMap']
        [(key, text)] = config_map['data'].items()
        self.assertEqual(CONFIG.read_text(encoding='utf-8'), text)
        mounted = {f'{path}/{key}' for path, volume in self.mounts()
                   if volume.get('configMap') == {'name': config_map['metadata']['name']}}
        self.assertEqual(['--config', *mounted], self.container['args'])

    def test_the_secrets_are_where_the_configuration_looks_for_them(self) -> None:
        assert isinstance(self.settings.auth, AuthSettings) and self.settings.auth.tokens
        made = (ROOT / OVERLAYS['production'] / 'kustomization.yaml').read_text(encoding='utf-8')
        [(folder, secret)] = [(path, volume['secret']['secretName'])
                              for path, volume in self.mounts() if 'secret' in volume]
        self.assertIn(f'create secret generic {secret} --from-file=tokens\n', made)
        self.assertEqual(f'{folder}/tokens', self.settings.auth.tokens.file)
        reference = self.environment()['PGPASSWORD']['valueFrom']['secretKeyRef']
        self.assertIn(f'create secret generic {reference["name"]} '
                      f'--from-literal={reference["key"]}=', made)

    def test_traces_go_where_the_policy_lets_them_and_only_from_the_overlay(self) -> None:
        image = read_dockerfile(DOCKERFILE)[-1].last('ENV').assignments
        self.assertEqual('true', image['OTEL_SDK_DISABLED'])
        environment = self.environment()
        self.assertEqual('false', environment['OTEL_SDK_DISABLED']['value'])
        endpoint = urlsplit(environment['OTEL_EXPORTER_OTLP_ENDPOINT']['value'])
        *_, rule = self.spec('NetworkPolicy')['egress']
        self.assertEqual([endpoint.port], self.policy_ports([rule]))
        [peer] = rule['to']
        self.assertEqual({'kubernetes.io/metadata.name': str(endpoint.hostname).split('.')[1]},
                         peer['namespaceSelector']['matchLabels'])

    def test_there_is_a_folder_to_write_to(self) -> None:
        self.assertEqual(['/tmp'],
                         [path for path, volume in self.mounts() if 'emptyDir' in volume])

    def test_another_configuration_rolls_the_pods(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            for folder in MANIFESTS, Path('configs'):
                shutil.copytree(ROOT / folder, name / folder)
            with Path(name, 'configs', CONFIG.name).open('a', encoding='utf-8') as file:
                file.write('# changed\n')
            changed = render(OVERLAYS['base'], Path(name))['Deployment']['spec']['template']
        self.assertNotEqual(self.spec('Deployment', 'base')['template'], changed)
