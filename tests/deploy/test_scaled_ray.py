"""The commands of the Kubernetes overlay with Ray, each a process of this machine, and a series through them."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from config.load import load_settings
from node.bootstrap.store import Node, open_store
from tests.builders import body_hu, make_series
from tests.component.node.conftest import receive
from tests.deploy.manifests import container_of
from tests.deploy.test_kubernetes_ray import HEAD, PODS
from tests.slice.harness import free_port, wait_for

SLICES = 12
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def config(tmp_path: Path, tiny_bundle: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(
        f'[node]\ndata_dir = "{tmp_path}/data"\n[model]\nbundle = "{tiny_bundle}"\ndevice = "cpu"\n'
        '[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "127.0.0.1"\nport = 1\n'
    )
    return path


@pytest.fixture
def start(config: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts the container of a pod, with the address, token and folders of this machine; all end with the test."""
    root = Path(__file__).parents[2]
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # names of Ray's sockets in it have to be short
    (tmp_path / "token").write_text(secrets.token_hex(32))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/syncect").write_text(f'#!/bin/sh\nexec {sys.executable} -m node.cli "$@"\n')
    (tmp_path / "bin/syncect").chmod(0o700)
    address = f"127.0.0.1:{free_port()}"
    here = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "HOME": str(tmp_path),
        "RAY_TMPDIR": folder,
        "OMP_NUM_THREADS": "1",
    }
    processes: list[subprocess.Popen[bytes]] = []

    def words(name: str) -> Sequence[str]:
        container = container_of(PODS[name])
        found = [str(word) for word in (*container["command"], *container["args"])][2:]  # there is no tini here
        changes = {f"{HEAD}:6379": address, "--port=6379": f"--port={address.rpartition(':')[2]}", "$(POD_NAME)": name}
        for theirs, ours in changes.items():
            found = [word.replace(theirs, ours) for word in found]
        return found

    def begin(name: str, **others: str) -> subprocess.Popen[bytes]:
        env = {one["name"]: str(one["value"]) for one in container_of(PODS[name])["env"] if "value" in one}
        env |= {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"), "SYNCECT_RAY__ADDRESS": address}
        env |= {"SYNCECT_CONFIG": str(config), **others}
        processes.append(subprocess.Popen(words(name), env={**here, **env}))
        return processes[-1]

    yield begin
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        process.wait(60)
    for entry in Path("/proc").iterdir():  # what `ray start` of the worker left, which ends with a pod
        with suppress(OSError):
            if entry.name.isdigit() and f"RAY_TMPDIR={folder}\0".encode() in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def node(config: Path, tmp_path: Path) -> Iterator[Node]:
    with open_store(load_settings(config)) as node:
        hu = body_hu(SLICES, 64, 64)
        receive(node, make_series(tmp_path / "source", hu=hu, slices=SLICES, rows=64, columns=64), "")
        yield node


@pytest.mark.skipif(os.environ.get("RAY_FAULTS") != "long", reason="takes a minute: `make ray` runs it")
def test_a_series_goes_through_the_commands_of_the_pods_and_nothing_joins_without_the_token(
    node: Node, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    start(HEAD)
    start("syncect-ray-gpu")
    refused = start("syncect-worker", RAY_AUTH_TOKEN_PATH="/nowhere/token")
    assert refused.wait(120) != 0, "its pod begins anew until it has the token"
    said = capfd.readouterr()
    assert "/nowhere/token" in said.out + said.err
    worker = start("syncect-worker")

    def is_made() -> bool:  # the small network draws what the gates doubt, so the result may be HELD
        (case,) = node.overview.cases()
        return case.state in {"PRODUCED", "HELD"} and case.slices.produced == SLICES

    wait_for("the result", is_made, 300)
    worker.terminate()
    assert worker.wait(60) == 0
