"""The overlay with a Ray cluster: contained pods that have the token and nothing of the node, and a closed network."""

import re
import shlex
import subprocess
from typing import Any

import pytest
import yaml

from config.load import load_settings
from tests.deploy.kit import DEPLOY, documents, read, unknown_command, unknown_variables
from tests.deploy.manifests import Manifest, container_of, kustomized, merged, pod_of, workloads

(OVERLAY,) = documents("kubernetes-ray/kustomization.yaml")
CLUSTER = {"app.kubernetes.io/name": "syncect-ray"}
WORKER = {"app.kubernetes.io/name": "syncect", "app.kubernetes.io/component": "worker"}
HEAD = "syncect-ray-head"


def pods() -> dict[str, Manifest]:
    """The worker of the node and the pods of the cluster, all patched."""
    (host,), (token,), (worker,) = (documents(f"kubernetes-ray/{name}.yaml") for name in ("host", "token", "worker"))
    found = {"syncect-worker": merged(workloads()["syncect-worker"], {"spec": worker["spec"]})}
    for one in documents("kubernetes-ray/cluster.yaml"):
        if one["kind"] == "StatefulSet":
            found[one["metadata"]["name"]] = merged(one, {"spec": host["spec"]})
    return {name: merged(one, {"spec": token["spec"]}) for name, one in found.items()}


PODS = pods()
MEMBERS = sorted(set(PODS) - {"syncect-worker"})


def policies() -> dict[str, Any]:
    return {one["metadata"]["name"]: one["spec"] for one in documents("kubernetes-ray/network.yaml")}


def ray_words(name: str) -> list[str]:
    """The `ray start ...` of a pod."""
    container = container_of(PODS[name])
    if name != "syncect-worker":
        return [*container["command"][2:], *container["args"]]
    script = container["command"][4]
    return shlex.split(script.partition(";")[0])


def test_every_file_of_the_folder_belongs_to_it() -> None:
    files = {path.name for path in (DEPLOY / "kubernetes-ray").iterdir()}
    patches = {patch["path"] for patch in OVERLAY["patches"]}
    assert OVERLAY["resources"] == ["../kubernetes", "cluster.yaml", "network.yaml"]
    assert files == {"kustomization.yaml", "cluster.yaml", "network.yaml", *patches}
    (base,) = documents("kubernetes/kustomization.yaml")
    assert OVERLAY["images"] == base["images"], "all hosts of a cluster need one version"


@pytest.mark.parametrize("name", sorted(PODS))
def test_a_pod_is_contained_and_has_the_token(name: str) -> None:
    pod, container, base = pod_of(PODS[name]), container_of(PODS[name]), pod_of(workloads()["syncect-courier"])
    for key in ("automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds"):
        assert pod[key] == base[key]
    assert pod["securityContext"].items() <= base["securityContext"].items()
    assert container["securityContext"] == base["containers"][0]["securityContext"]
    assert container["resources"]["limits"]["memory"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["ray-objects"]["emptyDir"]["medium"] == "Memory"
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert (env["RAY_AUTH_MODE"], env["RAY_USAGE_STATS_ENABLED"]) == ("token", "0")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert (env["RAY_AUTH_TOKEN_PATH"], mounts["ray-objects"]) == (f"{mounts['ray-token']}/token", "/dev/shm")
    assert unknown_variables(yaml.safe_dump(pod)) == set()
    secret = volumes["ray-token"]["secret"]["secretName"]
    assert re.search(rf"kubectl .*create secret generic {secret} --from-literal=token=", read("runbook.md"))


@pytest.mark.parametrize("name", MEMBERS)
def test_a_pod_of_the_cluster_has_nothing_of_the_node(name: str) -> None:
    text = yaml.safe_dump(pod_of(PODS[name]))
    for word in ("syncect-database", "syncect-data", "syncect-settings", "persistentVolumeClaim", "SYNCECT_"):
        assert word not in text.replace("image: syncect", "")
    labels = PODS[name]["spec"]["template"]["metadata"]["labels"]
    assert CLUSTER.items() <= labels.items()
    assert PODS[name]["spec"]["selector"]["matchLabels"] == labels


def test_one_head_computes_nothing_and_the_others_find_it() -> None:
    (service,) = [one for one in documents("kubernetes-ray/cluster.yaml") if one["kind"] == "Service"]
    port = service["spec"]["ports"][0]["port"]
    assert service["metadata"]["name"] == HEAD
    assert service["spec"]["selector"] == PODS[HEAD]["spec"]["selector"]["matchLabels"]
    assert PODS[HEAD]["spec"]["replicas"] == PODS["syncect-worker"]["spec"]["replicas"] == 1
    assert {"--head", f"--port={port}", "--num-cpus=0", "--num-gpus=0"} <= set(ray_words(HEAD))
    assert "--include-dashboard=false" in ray_words(HEAD)
    for name in set(PODS) - {HEAD}:
        assert f"--address={HEAD}:{port}" in ray_words(name)
    assert "nvidia.com/gpu" not in yaml.safe_dump(PODS["syncect-worker"])
    gpu = PODS["syncect-ray-gpu"]
    count = container_of(gpu)["resources"]["limits"]["nvidia.com/gpu"]
    assert f"--num-gpus={count}" in ray_words("syncect-ray-gpu")
    assert "--block" in set(ray_words(HEAD)) & set(ray_words("syncect-ray-gpu")), "else the pod ends at once"
    assert ",ray]" in read("container/install.sh"), "the image has Ray"


def test_the_network_lets_members_of_the_cluster_reach_each_other_and_nobody_else() -> None:
    cluster, worker = policies()["syncect-ray"], policies()["syncect-worker-ray"]
    assert cluster["podSelector"]["matchLabels"] == CLUSTER
    assert worker["podSelector"]["matchLabels"] == WORKER
    both = [{"podSelector": {"matchLabels": CLUSTER}}, {"podSelector": {"matchLabels": WORKER}}]
    assert (cluster["ingress"], cluster["egress"][0]) == ([{"from": both}], {"to": both})
    assert cluster["egress"][1:] == [{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}]
    assert (worker["ingress"], worker["egress"]) == ([{"from": both[:1]}], [{"to": both[:1]}])
    assert all(set(one["policyTypes"]) == {"Ingress", "Egress"} for one in policies().values())
    assert WORKER.items() <= PODS["syncect-worker"]["spec"]["template"]["metadata"]["labels"].items()


def test_the_worker_takes_its_settings_and_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    container = container_of(PODS["syncect-worker"])
    for variable in container["env"]:
        if "value" in variable and variable["name"].startswith(("SYNCECT_MODEL", "SYNCECT_RAY")):
            monkeypatch.setenv(variable["name"], variable["value"])
    settings = load_settings(DEPLOY / "kubernetes/node.toml")
    assert (settings.model.executor, settings.ray.address) == ("ray", f"{HEAD}:6379")
    store = next(word for word in ray_words("syncect-worker") if word.startswith("--object-store-memory="))
    assert settings.ray.object_store_mb * 1.25 <= int(store.partition("=")[2]) >> 20
    assert container["command"][:3] == ["/usr/bin/tini", "--", "sh"]
    # Here the shell runs the script of the pod, with another word for each of its two programs.
    script = container["command"][4].replace("ray start", "echo ray start").replace("exec syncect", "exec echo syncect")
    ran = subprocess.run(["sh", "-ec", script, "sh", *container["args"]], capture_output=True, text=True, check=True)
    last = ran.stdout.splitlines()[-1].split()
    assert last[0] == "syncect"
    assert unknown_command(last[1:]) == ""


def test_kustomize_makes_the_same_of_it() -> None:
    theirs = kustomized("kubernetes-ray")
    for name, ours in PODS.items():
        pod, container = pod_of(theirs["StatefulSet", name]), container_of(theirs["StatefulSet", name])
        for key in ("command", "args", "securityContext", "resources"):
            assert container[key] == container_of(ours)[key]
        assert container["image"].startswith("registry.hospital.example/syncect:")
        assert {one["name"] for one in pod["volumes"]} == {one["name"] for one in pod_of(ours)["volumes"]}
        assert {one["name"] for one in container["env"]} == {one["name"] for one in container_of(ours)["env"]}
        assert pod.get("tolerations") == pod_of(ours).get("tolerations")
    assert all(one["metadata"].get("namespace") == "syncect" for one in theirs.values())


def test_the_schemas_of_kubernetes_take_it() -> None:
    """See the test of this name for deploy/kubernetes."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for one in [*PODS.values(), *documents("kubernetes-ray/cluster.yaml"), *documents("kubernetes-ray/network.yaml")]:
        validate.validate(one, validate.latest_version(), strict=True)
