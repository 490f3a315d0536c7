"""The Kubernetes manifests with the patch of every pod applied, as `kubectl kustomize` does it."""

import shutil
import subprocess
from copy import deepcopy
from typing import Any

import pytest
import yaml

from tests.deploy.kit import DEPLOY, documents

Manifest = dict[str, Any]
(KUSTOMIZATION,) = documents("kubernetes/kustomization.yaml")
PATCHED = {patch["target"]["kind"] for patch in KUSTOMIZATION["patches"]}
_NAMED = {"containers", "env", "volumes", "volumeMounts"}  # lists whose items are known by a name


def manifests() -> list[Manifest]:
    """Every resource, the workloads patched."""
    (patch,) = documents("kubernetes/pod.yaml")
    found = [one for name in KUSTOMIZATION["resources"] for one in documents(f"kubernetes/{name}")]
    return [merged(one, {"spec": patch["spec"]}) if one["kind"] in PATCHED else one for one in found]


def workloads() -> dict[str, Manifest]:
    """StatefulSets, Deployments and the Job by their names."""
    return {one["metadata"]["name"]: one for one in manifests() if one["kind"] in PATCHED}


def kustomized(folder: str) -> dict[tuple[str, str], Manifest]:
    """What `kubectl kustomize` itself makes of a folder, by kind and name; skips the test where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    built = subprocess.run([kubectl, "kustomize", DEPLOY / folder], capture_output=True, text=True, check=True)
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(built.stdout)}


def pod_of(workload: Manifest) -> Manifest:
    pod: Manifest = workload["spec"]["template"]["spec"]
    return pod


def container_of(workload: Manifest) -> Manifest:
    """The one container of a workload."""
    (container,) = pod_of(workload)["containers"]
    found: Manifest = container
    return found


def merged(base: Any, patch: Any, key: str = "") -> Any:
    """A strategic merge patch, as far as these files need it: a null takes a key away."""
    if isinstance(base, dict) and isinstance(patch, dict):
        both = deepcopy(base)
        for name, value in patch.items():
            both[name] = merged(base[name], value, name) if name in base else deepcopy(value)
        return {name: value for name, value in both.items() if value is not None}
    if isinstance(base, list) and isinstance(patch, list) and key in _NAMED:
        by_name = {item["name"]: item for item in base}
        for item in patch:
            name = item["name"]
            by_name[name] = merged(by_name[name], item) if name in by_name else deepcopy(item)
        return list(by_name.values())
    return deepcopy(patch)
