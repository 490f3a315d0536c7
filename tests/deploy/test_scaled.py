"""The roles of the Kubernetes manifests, each a process with the words of its pod, on PostgreSQL and one folder."""

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node.ops.processes import running_processes
from storage.database import Database
from storage.overview import Overview
from tests.builders import make_series
from tests.deploy.kit import DEPLOY
from tests.deploy.manifests import container_of, workloads
from tests.slice.harness import RunningNode, StoreScp, free_port, push, wait_for

JOB = "syncect-migrate"


@pytest.fixture
def run(tmp_path: Path, tiny_bundle: Path, postgres_url: str) -> Iterator[Callable[[str, int, RunningNode], Any]]:
    """Starts the container of a workload, number so and so of its replicas; all end with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, number: int, node: RunningNode) -> subprocess.Popen[bytes]:
        pod = f"{name}-{number}"
        words = [str(word).replace("$(POD_NAME)", pod) for word in container_of(workloads()[name])["args"]]
        with node.log.open("ab") as log:
            processes.append(subprocess.Popen([*node.command, *words], stdout=log, stderr=log, env=dict(os.environ)))
        return processes[-1]

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
    codes = [process.wait(40) for process in processes]
    assert set(codes) == {0}


@pytest.mark.skipif(not os.environ.get("DEPLOY_SCALED"), reason="`make scaled` runs it: eight processes begin")
def test_a_series_goes_through_roles_that_were_started_alone(
    tmp_path: Path, tiny_bundle: Path, postgres_url: str, run: Any
) -> None:
    subprocess.run([DEPLOY / "certificates.sh", tmp_path / "tls", "page=localhost"], check=True, capture_output=True)
    tps, page = StoreScp(tmp_path / "tps").start(), free_port()
    web = (
        f'host = "127.0.0.1"\nport = {page}\n[web.tls]\n'
        f'certificate = "{tmp_path}/tls/page.pem"\nprivate_key = "{tmp_path}/tls/page.key"'
    )
    node = RunningNode(tmp_path / "node", tiny_bundle, [tps], is_real=True, database_url=postgres_url, web=web)
    try:
        assert run(JOB, 0, node).wait(60) == 0
        for name, workload in workloads().items():
            for number in range(workload["spec"].get("replicas", 0)):
                run(name, number, node)
        context = ssl.create_default_context(cafile=tmp_path / "tls/ca.pem")

        def answer(path: str) -> int:
            try:
                with urllib.request.urlopen(f"https://localhost:{page}{path}", context=context, timeout=5) as got:
                    return int(got.status)
            except OSError:
                return 0

        wait_for("readiness", lambda: answer("/readyz") == 200)
        assert answer("/healthz") == 200
        assert push(node.port, make_series(tmp_path / "series")).returncode == 0
        database = Database(postgres_url)
        wait_for("the result", lambda: [case.state for case in Overview(database).cases()] == ["SENT"])
        database.close()
        roles = sorted(view.role for view in running_processes(node.data_dir / "run"))
        assert roles == ["complete", "deliver", "receive", "watch", "web", "work", "work"]
        _alive(node)
    finally:
        tps.kill()


def _alive(node: RunningNode) -> None:
    """The probe of the pods sees processes of this host that work."""
    command = [sys.executable, str(DEPLOY / "container/alive.py")]
    answer = subprocess.run(
        command, env={**os.environ, "SYNCECT_CONFIG": str(node.config)}, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    status = json.loads(node.run("status", "--json").stdout)
    assert status["state"] == "ok", status["reasons"]
