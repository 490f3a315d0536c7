"""What systemd hears of `serve`: ready when the receiver listens and not before, and that it lives."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from node.ops.processes import running_processes
from tests.deploy.kit import RECEIVER_ALONE
from tests.slice.harness import RunningNode, wait_for


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The end of NOTIFY_SOCKET that systemd holds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.settimeout(60)
        yield link


def heard(link: socket.socket) -> str:
    return link.recv(100).decode()


def test_ready_is_said_once_and_only_when_the_receiver_listens(
    tmp_path: Path, tiny_bundle: Path, systemd: socket.socket
) -> None:
    node = RunningNode(tmp_path / "node", tiny_bundle, [])
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
    with socket.socket() as other:
        other.bind(("127.0.0.1", node.port))  # the receiver runs, and cannot listen
        other.listen()
        command = [sys.executable, "-c", RECEIVER_ALONE, str(node.config)]
        serve = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_for("the receiver's failure", lambda: _waits(node.data_dir / "run", "receive"))
            assert set(_said_so_far(systemd)) == {"WATCHDOG=1"}
            other.close()
            systemd.settimeout(60)
            while heard(systemd) != "READY=1":
                pass
            with socket.create_connection(("127.0.0.1", node.port), timeout=5):
                pass
            assert {heard(systemd) for _ in range(10)} == {"WATCHDOG=1"}
        finally:
            serve.terminate()
            assert serve.wait(60) == 0
            node.close()


def _said_so_far(link: socket.socket) -> list[str]:
    link.setblocking(False)
    said: list[str] = []
    with suppress(BlockingIOError):
        while True:
            said.append(heard(link))
    return said


def _waits(run_dir: Path, role: str) -> bool:
    return any(one.role == role for view in running_processes(run_dir) for one in view.waiting)
