"""The overlay without a shared volume: every pod has the bucket, its secret and a cache of its own."""

import re
from typing import Any

import pytest
import yaml

from config.load import load_settings
from tests.deploy.kit import DEPLOY, documents, read, unknown_variables
from tests.deploy.manifests import KUSTOMIZATION, container_of, kustomized, merged, pod_of, workloads

(OVERLAY,) = documents("kubernetes-objects/kustomization.yaml")
(CACHE,) = documents("kubernetes-objects/cache.yaml")


def pods() -> dict[str, Any]:
    """The workloads of the base with the patch of the overlay."""
    return {name: merged(one, {"spec": CACHE["spec"]}) for name, one in workloads().items()}


def test_the_overlay_patches_what_the_base_patches_and_takes_the_claim_away() -> None:
    assert OVERLAY["resources"] == ["../kubernetes", "network.yaml"]
    patched = {patch["target"]["kind"] for patch in OVERLAY["patches"] if patch["path"] == "cache.yaml"}
    assert patched == {patch["target"]["kind"] for patch in KUSTOMIZATION["patches"]}
    (gone,) = documents("kubernetes-objects/no-shared-volume.yaml")
    (claim,) = documents("kubernetes/storage.yaml")
    assert (gone["kind"], gone["metadata"]["name"], gone["$patch"]) == (claim["kind"], "syncect-data", "delete")
    files = {path.name for path in (DEPLOY / "kubernetes-objects").iterdir()}
    assert files == {"kustomization.yaml", "network.yaml", *(patch["path"] for patch in OVERLAY["patches"])}


@pytest.mark.parametrize("name", sorted(workloads()))
def test_a_pod_shares_no_volume_and_reads_the_secret(name: str) -> None:
    pod, container = pod_of(pods()[name]), container_of(pods()[name])
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["data"] == {"name": "data", "emptyDir": {"sizeLimit": "50Gi"}}
    assert "persistentVolumeClaim" not in yaml.safe_dump(pod)
    assert volumes["objects"]["secret"]["defaultMode"] == 0o440, "the group of the node reads what root installs"
    assert unknown_variables(yaml.safe_dump(pod)) == set()
    secret = volumes["objects"]["secret"]["secretName"]
    assert re.search(rf"kubectl .*create secret generic {secret} --from-literal=credentials=", read("runbook.md"))


def test_the_network_lets_every_pod_to_the_server_of_the_settings() -> None:
    (policy,) = documents("kubernetes-objects/network.yaml")
    labels = policy["spec"]["podSelector"]["matchLabels"]
    for one in pods().values():
        assert labels.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    (endpoint,) = re.findall(r"https://[\w.]+:(\d+)", read("kubernetes-objects/cache.yaml"))
    assert policy["spec"]["egress"][0]["ports"] == [{"port": int(endpoint)}]


def test_kustomize_makes_the_same_of_it() -> None:
    theirs = kustomized("kubernetes-objects")
    assert ("PersistentVolumeClaim", "syncect-data") not in theirs
    for name, ours in pods().items():
        pod = pod_of(theirs[ours["kind"], name])
        assert {one["name"] for one in pod["volumes"]} == {one["name"] for one in pod_of(ours)["volumes"]}
        assert {"name": "data", "emptyDir": {"sizeLimit": "50Gi"}} in pod["volumes"]


def test_the_node_takes_the_settings_of_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in container_of(pods()["syncect-worker"])["env"]:
        if "value" in variable and variable["name"].startswith("SYNCECT_SPOOL"):
            monkeypatch.setenv(variable["name"], variable["value"])
    spool = load_settings(DEPLOY / "kubernetes/node.toml").spool
    assert (spool.bucket, spool.prefix) == ("hospital-ct", "syncect")
    assert str(spool.credentials_file) == "/run/secrets/objects/credentials"
