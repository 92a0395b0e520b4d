"""The manifests of Kubernetes."""

import re
from typing import Any

import kubernetes_validate
import pytest

from archiver.telemetry import all_metrics
from tests.deploy.files import COMMANDS, DEPLOY, manifest, manifests, read, read_yaml

VERSIONS = ("1.30", kubernetes_validate.latest_version())
OBJECTS = manifests()
ROLES = {"web": "Deployment", "worker": "StatefulSet"}


def name_of(each: Any) -> str:  # noqa: ANN401 - pytest passes whatever the parameter is
    return f"{each['kind']} {each['metadata']['name']}" if isinstance(each, dict) else str(each)


def pod(role: str) -> dict[str, Any]:
    spec: dict[str, Any] = manifest(ROLES[role], f"archiver-{role}")["spec"]["template"]["spec"]
    return spec


def container(role: str) -> dict[str, Any]:
    (found,) = pod(role)["containers"]
    return dict(found)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("described", OBJECTS, ids=name_of)
def test_every_object_follows_the_schema_of_kubernetes(
    described: dict[str, Any], version: str
) -> None:
    kubernetes_validate.validate(described, version, strict=True)


def test_everything_is_applied_but_the_example_of_the_secrets() -> None:
    resources = read_yaml("kubernetes/kustomization.yaml")["resources"]
    applied = [
        kind
        for name in resources
        for kind in re.findall(r"^kind: (\w+)$", read(f"kubernetes/{name}"), re.MULTILINE)
    ]
    assert sorted(applied) == sorted(each["kind"] for each in OBJECTS if each["kind"] != "Secret")


@pytest.mark.parametrize("role", ROLES)
def test_the_command_exists(role: str) -> None:
    assert container(role)["args"] == [role]
    assert role in COMMANDS


@pytest.mark.parametrize("role", ROLES)
def test_pods_are_as_restricted_as_the_namespace_demands(role: str) -> None:
    spec, security = pod(role), container(role)["securityContext"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("role", ROLES)
def test_mounts_have_their_volumes_and_objects(role: str) -> None:
    spec = manifest(ROLES[role], f"archiver-{role}")["spec"]
    volumes = {each["name"]: each for each in pod(role)["volumes"]}
    claims = {each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", ())}
    mounted = {each["name"]: each["mountPath"] for each in container(role)["volumeMounts"]}
    assert mounted.keys() == volumes.keys() | claims
    assert manifest("ConfigMap", volumes["settings"]["configMap"]["name"])
    assert manifest("Secret", volumes["secrets"]["secret"]["secretName"])
    assert mounted["settings"] == "/etc/archiver"


@pytest.mark.parametrize("role", ROLES)
def test_selectors_find_the_pods_of_their_role(role: str) -> None:
    found = manifest(ROLES[role], f"archiver-{role}")["spec"]
    labels = found["template"]["metadata"]["labels"]
    assert found["selector"]["matchLabels"] == labels
    assert manifest("Service", f"archiver-{role}")["spec"]["selector"] == labels
    budget = manifest("PodDisruptionBudget", f"archiver-{role}")["spec"]
    assert budget["selector"]["matchLabels"] == labels
    scaled = manifest("HorizontalPodAutoscaler", f"archiver-{role}")["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == (ROLES[role], f"archiver-{role}")


@pytest.mark.parametrize("role", ROLES)
def test_probes_ask_whether_the_process_answers(role: str) -> None:
    ports = {each["name"]: each["containerPort"] for each in container(role)["ports"]}
    probes = {name: probe for name, probe in container(role).items() if name.endswith("Probe")}
    assert {"livenessProbe", "startupProbe"} <= probes.keys()
    assert ("readinessProbe" in probes) == (role == "web")
    for probe in probes.values():
        assert probe["httpGet"]["path"] == "/__lbheartbeat__"
        assert ports[probe["httpGet"]["port"]] == {"web": 8010, "worker": 8011}[role]


@pytest.mark.parametrize("role", ROLES)
def test_prometheus_scrapes_the_port_of_the_metrics(role: str) -> None:
    found = manifest(ROLES[role], f"archiver-{role}")["spec"]["template"]["metadata"]
    port = int(found["annotations"]["prometheus.io/port"])
    ports = {each["name"]: each["containerPort"] for each in container(role)["ports"]}
    assert ports["metrics"] == port
    if role == "web":
        settings = manifest("ConfigMap", "archiver")["data"]["archiver.toml"]
        assert f'metrics_listen = "0.0.0.0:{port}"' in settings


def test_workers_scale_by_a_metric_of_archiver_that_the_adapter_serves() -> None:
    (metric,) = manifest("HorizontalPodAutoscaler", "archiver-worker")["spec"]["metrics"]
    name = metric["external"]["metric"]["name"]
    (rule,) = read_yaml("kubernetes/prometheus-adapter.yaml")["rules"]["external"]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].partition("{")[0] == name


def test_secrets_are_placeholders() -> None:
    for role in ROLES:
        values = manifest("Secret", f"archiver-{role}")["stringData"].values()
        assert set(values) == {"REPLACE-ME"}


def test_the_metric_that_scales_workers_exists() -> None:
    named = {
        name
        for path in (DEPLOY / "kubernetes").glob("*.yaml")
        for name in re.findall(r"\barchiver_\w+", path.read_text())
    }
    known = {next(iter(metric.describe())).name for metric in all_metrics().values()}
    assert named
    assert named <= known
