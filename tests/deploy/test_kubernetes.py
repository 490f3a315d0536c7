"""The Kubernetes manifests: contained pods, no role twice that may run once, and settings that agree."""

import re
from typing import Any

import pytest
import yaml

from config.load import load_settings
from node.ops.health import ROLES
from node.ops.supervisor import GRACE_S
from tests.deploy.kit import DEPLOY, read, unknown_command, unknown_variables
from tests.deploy.manifests import KUSTOMIZATION, container_of, kustomized, manifests, pod_of, workloads

ONCE = {"receive", "watch", "web"}  # they take no --name
WORKLOADS = sorted(workloads())


def arguments(workload: dict[str, Any]) -> list[str]:
    return [str(word) for word in container_of(workload)["args"]]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_is_contained(name: str) -> None:
    pod, container = pod_of(workloads()[name]), container_of(workloads()[name])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"USER {pod['securityContext']['runAsUser']}:" in read("container/Containerfile")
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert pod["terminationGracePeriodSeconds"] > GRACE_S + 5


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_node_takes_every_variable_of_a_pod(name: str) -> None:
    pod = pod_of(workloads()[name])
    assert pod["enableServiceLinks"] is False  # SYNCECT_WEB_PORT of a Service would stop the node
    assert unknown_variables(yaml.safe_dump(pod)) == set()


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_command_exists(name: str) -> None:
    assert unknown_command(arguments(workloads()[name])) == ""


def test_every_role_runs_and_none_twice_that_may_run_once() -> None:
    served = [one for one in workloads().values() if one["kind"] != "Job"]
    # `receive` brings the completion; `query` is off unless the settings enable it.
    assert {arguments(one)[0] for one in served} | {"complete", "query"} == set(ROLES)
    for one in served:
        role = arguments(one)[0]
        assert ("--name" in arguments(one)) is (role not in ONCE)
        assert role not in ONCE or one["spec"]["replicas"] == 1
        assert one["kind"] == "StatefulSet" or one["spec"]["strategy"] == {"type": "Recreate"}


def test_what_hangs_is_ended_and_a_page_without_a_receiver_can_be_read() -> None:
    for one in workloads().values():
        if one["kind"] == "Job":
            continue
        container = container_of(one)
        assert {"startupProbe", "livenessProbe"} <= set(container)
        probes = yaml.safe_dump({key: value for key, value in container.items() if key.endswith("Probe")})
        assert "readyz" not in probes
        for path in re.findall(r"/opt/syncect/(\w+\.py)", probes):
            assert f"COPY deploy/container/{path} /opt/syncect/{path}" in read("container/Containerfile")


def test_volumes_labels_and_ports_agree() -> None:
    settings = load_settings(DEPLOY / "kubernetes/node.toml")
    pods = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in workloads().items()}
    ports = {"dicom": settings.scp.port, "page": settings.web.port}
    for one in workloads().values():
        volumes = {volume["name"] for volume in pod_of(one)["volumes"]}
        assert {mount["name"] for mount in container_of(one)["volumeMounts"]} == volumes
        for port in container_of(one).get("ports", []):
            assert ports[port["name"]] == port["containerPort"]
    for one in manifests():
        if one["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            selector = one["spec"].get("selector") or one["spec"]["podSelector"]
            labels = selector.get("matchLabels", selector)
            assert any(labels.items() <= pod.items() for pod in pods.values()), one["metadata"]["name"]
        for port in one["spec"].get("ports", []) if one["kind"] == "Service" else []:
            assert ports[port["targetPort"]] == port["port"]
    assert (settings.destination[0].port, settings.model.device) == (104, "cuda")


def test_every_secret_is_made_by_a_command_of_the_runbook() -> None:
    text = yaml.safe_dump_all(manifests())
    names = set(re.findall(r"secretName: ([\w-]+)", text)) | {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for one in workloads().values()
        for variable in container_of(one).get("env", [])
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    assert names == {"syncect-database", "syncect-page"}
    for name in names:
        assert re.search(rf"kubectl .*create secret \w+ {name}", read("runbook.md")), name


def test_every_file_of_the_folder_belongs_to_it() -> None:
    files = {path.name for path in (DEPLOY / "kubernetes").iterdir()}
    used = {*KUSTOMIZATION["resources"], "kustomization.yaml", "pod.yaml", "node.toml"}
    assert files == used


def test_kustomize_makes_the_same_of_it() -> None:
    theirs = kustomized("kubernetes")
    for name, ours in workloads().items():
        pod, container = pod_of(theirs[ours["kind"], name]), container_of(theirs[ours["kind"], name])
        assert container["securityContext"] == container_of(ours)["securityContext"]
        assert container["args"] == arguments(ours)
        for key, values in (("env", container), ("volumeMounts", container), ("volumes", pod)):
            mine = (container_of(ours) if values is container else pod_of(ours))[key]
            assert {item["name"] for item in values[key]} == {item["name"] for item in mine}


def test_the_schemas_of_kubernetes_take_it() -> None:
    """kubernetes-validate (Apache-2.0) has 16,944 files and is no dependency for that: `pip install` it to run this."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for one in manifests():
        for container in one["spec"].get("template", {}).get("spec", {}).get("containers", []):
            assert container["image"]
        validate.validate(one, validate.latest_version(), strict=True)
