"""containers/: the manifests fit their schemas, each other, the options of muxer.cfg and the Containerfile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from muxer import __version__
from muxer.commands import COMMANDS
from muxer.config import inspect_config
from muxer.config.schema import all_options
from tests.support.requirements import report_missing

CONTAINERS = Path(__file__).resolve().parents[2] / "containers"
MANIFESTS = sorted((CONTAINERS / "kubernetes").glob("*.yaml"))
CONTAINERFILE = (CONTAINERS / "Containerfile").read_text()
FOLDER, TLS_FOLDER = "/etc/recording-muxer", "/etc/recording-muxer-tls"
# The schemas of Kubernetes itself do not know this kind.
KEDA = "ScaledObject"


def read_documents() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def find_documents(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in read_documents() if one["kind"] == kind}


def pod_container(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod of a StatefulSet, and its container."""
    pod = find_documents("StatefulSet")[name]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def secret_variables() -> set[str]:
    return {option.env for _, _, option in all_options() if option.env}


@pytest.mark.posix  # the schemas are in a package of the test environment on Linux
@pytest.mark.parametrize("version", ["1.28", "1.34"])
def test_each_manifest_fits_the_schema_of_kubernetes(version: str) -> None:
    try:
        import kubernetes_validate
    except ModuleNotFoundError:
        report_missing("kubernetes-validate")
    checked = [document for document in read_documents() if document["kind"] != KEDA]
    assert len(checked) == 6
    for document in checked:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_workers_and_the_poller_run_the_image_with_their_command() -> None:
    workdir = re.search(r"^VOLUME (\S+)$", CONTAINERFILE, re.MULTILINE)
    user = re.search(r"^USER (\d+)$", CONTAINERFILE, re.MULTILINE)
    assert workdir and user
    for name, command in (("poller", "run"), ("worker", "worker")):
        pod, container = pod_container(f"recording-muxer-{name}")
        assert container["args"] == [command, f"--config-file={FOLDER}/muxer.cfg"] and command in {"run", *COMMANDS}
        assert container["image"].rpartition(":")[2] == __version__
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == int(user[1])
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"state": workdir[1], "configuration": FOLDER, "tls": TLS_FOLDER, "tmp": "/tmp"}
        claims = find_documents("StatefulSet")[f"recording-muxer-{name}"]["spec"]["volumeClaimTemplates"]
        assert {volume["name"] for volume in pod["volumes"]} | {claim["metadata"]["name"] for claim in claims} == set(mounts)
        assert container["securityContext"]["readOnlyRootFilesystem"] and pod["securityContext"]["runAsNonRoot"]
        assert workdir[1] in container["livenessProbe"]["exec"]["command"][-1]


def test_the_selectors_find_the_pods() -> None:
    for name, found in find_documents("StatefulSet").items():
        labels = found["spec"]["template"]["metadata"]["labels"]
        assert found["spec"]["selector"]["matchLabels"] == labels
        assert find_documents("Service")[found["spec"]["serviceName"]]["spec"]["selector"] == labels
        assert found["spec"]["serviceName"] == name


def test_keda_scales_the_workers_by_a_metric_of_the_poller() -> None:
    (scaler,) = find_documents(KEDA).values()
    target = scaler["spec"]["scaleTargetRef"]
    assert target["name"] in find_documents(target["kind"])
    assert scaler["apiVersion"] == "keda.sh/v1alpha1"
    (trigger,) = scaler["spec"]["triggers"]
    metric = re.search(r"muxer_\w+", trigger["metadata"]["query"])
    assert metric and f"`{metric[0]}`" in (CONTAINERS.parent / "docs" / "monitoring.md").read_text()
    assert trigger["metadata"]["threshold"].isdigit() and trigger["metricType"] == "Value"
    assert find_documents("StatefulSet")[target["name"]]["spec"]["replicas"] == scaler["spec"]["minReplicaCount"]


def test_the_secret_has_only_variables_that_the_muxer_reads() -> None:
    (secret,) = find_documents("Secret").values()
    assert set(secret["stringData"]) <= secret_variables()
    _, container = pod_container("recording-muxer-worker")
    assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]


def configurations() -> dict[str, str]:
    """Return each muxer.cfg, by the name of its file."""
    (map_,) = find_documents("ConfigMap").values()
    return {"muxer.cfg.sample": (CONTAINERS / "muxer.cfg.sample").read_text(), "ConfigMap": map_["data"]["muxer.cfg"]}


@pytest.mark.parametrize("name", ["muxer.cfg.sample", "ConfigMap"])
def test_the_configuration_is_valid_in_the_container(name: str, tmp_path: Path) -> None:
    """Except for the folders and the certificate, which exist only there."""
    (path := tmp_path / "muxer.cfg").write_text(configurations()[name])
    reading = inspect_config(path, {}, {"FLEET_BROKER_URL": "amqps://u:p@rabbitmq/v", "MONITORING_PASSWORD": "password"})
    there = ("temp_dir", "certificate", " key", "ffmpeg", "ffprobe", "openssl")
    assert [str(one) for one in reading.problems if not any(option in one.where for option in there)] == []
    assert [warning for warning in reading.warnings if "unknown" in warning] == []
    assert reading.values["fleet"]["mode"] == "broker"


def test_the_compose_file_has_a_broker_a_poller_and_two_workers() -> None:
    compose = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"rabbitmq", "poller", "worker"} and services["worker"]["deploy"]["replicas"] == 2
    assert {services[name]["command"][0] for name in ("poller", "worker")} == {"run", "worker"}
    variables = services["poller"]["environment"]
    assert set(variables) <= secret_variables() and "FLEET_BROKER_URL" in variables
    named = {volume.partition(":")[0] for one in services.values() for volume in one["volumes"]}
    assert {name for name in named if not name.startswith(".")} == set(compose["volumes"])
    asked = set(re.findall(r"\$\{(\w+)", (CONTAINERS / "compose.yaml").read_text()))
    assert asked == set(re.findall(r"^(\w+)=$", (CONTAINERS / ".env.sample").read_text(), re.MULTILINE))


def test_the_image_is_built_without_what_holds_passwords() -> None:
    ignored = (CONTAINERS.parent / ".dockerignore").read_text().split()
    assert {"muxer.cfg", "muxer/muxer.cfg", "**/*.keystore", "**/*.keystore.key", ".git"} <= set(ignored)
