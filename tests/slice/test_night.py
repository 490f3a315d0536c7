"""What a night brings to a whole node: processes that hang, and a machine that allows nothing for a while."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config.load import load_settings
from models.testing import write_tiny_bundle
from node.beats import overdue
from node.bootstrap.store import open_store
from node.ops.processes import ProcessView, running_processes
from tests.slice.harness import RunningNode, push, short_limits, wait_for

ROLES = ("receive", "complete", "deliver", "work")


@pytest.fixture(autouse=True)
def _short_limits(limits: Callable[[str], None]) -> None:
    limits(short_limits(idle_s=12.0, long_s=25.0))


def process(node: RunningNode, role: str) -> ProcessView | None:
    views = running_processes(node.data_dir / "run")
    return next((view for view in views if view.role == role and view.beats), None)


def is_overdue(node: RunningNode, role: str) -> bool:
    view = process(node, role)
    return view is not None and overdue(view.beats, time.monotonic()) is not None


def status(node: RunningNode) -> dict[str, Any]:
    answer = node.run("status", "--json")
    assert "Traceback" not in answer.stderr
    result: dict[str, Any] = json.loads(answer.stdout)
    return result


def test_every_process_that_is_stopped_is_replaced(node_at: Any, tps: Any) -> None:
    node = node_at(tps).start()
    before = {role: wait_for(f"the start of {role}", partial(process, node, role)) for role in ROLES}
    for view in before.values():  # together: each is found by its own silence, and waited for only once
        os.kill(view.pid, signal.SIGSTOP)
    for role, stopped in before.items():

        def replaced(role: str = role, pid: int = stopped.pid) -> bool:
            view = process(node, role)
            return view is not None and view.pid != pid

        wait_for(f"another {role}", replaced)
    assert "made no progress for" in node.log.read_text()


def test_a_job_whose_worker_is_stopped_is_done_by_the_next_one(
    real_data: Path, node_at: Any, tps: Any, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    write_tiny_bundle(slow, matrix=64)
    node = node_at(tps, bundle=slow).start()
    push(node.port, real_data / "ct" / "siemens_chest_ncct")
    node.wait_for_states("RUNNING")
    view = wait_for("the worker", lambda: process(node, "work"))
    os.kill(view.pid, signal.SIGSTOP)
    (case,) = node.wait_for_states("SENT")
    assert len(tps.files()) == 30
    events = node.run("jobs", "events", case.id).stdout
    assert "the worker was killed: it made no progress for" in " ".join(events.split())


def test_a_stopped_process_is_not_called_running(node_at: Any, tps: Any) -> None:
    node = node_at(tps).start("deliver")  # without a supervisor
    view = wait_for("its start", lambda: process(node, "deliver"))
    os.kill(view.pid, signal.SIGSTOP)
    wait_for("its limit", partial(is_overdue, node, "deliver"))  # each `status` below costs a second of the processor

    def seen() -> list[str]:
        return [reason for reason in status(node)["reasons"] if "is not responding for" in reason]

    (reason,) = wait_for("its silence", seen)
    assert reason.startswith("the courier is not responding for ")
    assert "NOT RESPONDING" in node.run("status").stdout


def test_a_new_node_ends_the_stopped_processes_of_an_old_one(node_at: Any, tps: Any) -> None:
    node = node_at(tps).start("deliver")
    old = wait_for("its start", lambda: process(node, "deliver"))
    os.kill(old.pid, signal.SIGSTOP)
    node.start()

    def replaced() -> bool:
        view = process(node, "deliver")
        return view is not None and view.pid != old.pid

    wait_for("another courier", replaced, 45)


HOLDS_THE_DATABASE = """
import sqlite3, sys, time
from pathlib import Path
from node.beats import Heart
from node.ops.processes import process_lock
with process_lock(Path(sys.argv[1]) / "run", "deliver", "1") as sign:
    Heart(sign.beats).beat("leases", "looking", 0, 0, 0.0)
    database = sqlite3.connect(Path(sys.argv[1]) / "syncect.sqlite3", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_process_of_an_old_node_that_was_stopped_with_the_database_in_hand_keeps_no_node_from_its_start(
    node_at: Any, tps: Any
) -> None:
    node = node_at(tps)
    node.data_dir.mkdir(parents=True)
    with open_store(load_settings(node.config)):
        pass
    command = [sys.executable, "-c", HOLDS_THE_DATABASE, str(node.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as old:
        try:
            assert old.stdout is not None
            assert old.stdout.readline() == "held\n"
            node.start()
            assert old.wait(60) == -signal.SIGKILL
        finally:
            old.kill()


def test_a_port_that_is_taken_is_waited_for_and_said(node_at: Any, tps: Any) -> None:
    node = node_at(tps)
    with socket.socket() as other:
        other.bind(("127.0.0.1", node.port))
        other.listen()
        node.start("serve")
        wait_for("its words", lambda: "another program listens" in node.log.read_text())  # as above

        def said() -> list[str]:
            return [reason for reason in status(node)["reasons"] if f"port {node.port}" in reason]

        (reason,) = wait_for("the reason", said)
        assert reason.startswith("the receiver does not run since ")
        assert f"another program listens on 127.0.0.1 port {node.port}" in reason
        assert "NOT RUNNING" in node.run("status").stdout
    wait_for("the receiver", node._listening)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with few inodes, which can be made read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=60", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system can only be mounted by root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def on(disk: Path, node_at: Any, tps: Any) -> RunningNode:
    node: RunningNode = node_at(tps)
    node.data_dir = disk / "data"
    node.config.write_text(node.config.read_text().replace('data_dir = "data"', f'data_dir = "{node.data_dir}"'))
    return node


def readers_work(node: RunningNode) -> None:
    assert node.run("jobs", "ls", "--json").returncode == 0
    for command in ("status", "doctor"):
        answer = node.run(command)
        assert "Traceback" not in answer.stdout + answer.stderr
        assert answer.stdout


def test_a_disk_without_inodes_is_waited_for(small_disk: Path, node_at: Any, tps: Any) -> None:
    node = on(small_disk, node_at, tps)
    fillers: list[Path] = []
    while True:
        try:
            fillers.append(small_disk / f"filler-{len(fillers)}")
            fillers[-1].touch()
        except OSError:
            break
    node.start("serve")
    wait_for("a second try", lambda: node.log.read_text().count("next try in") >= 2)
    assert any("no inodes left" in reason for reason in status(node)["reasons"])
    readers_work(node)
    for filler in fillers:
        filler.unlink(missing_ok=True)
    wait_for("the receiver", node._listening)
    node.stop()


def test_a_read_only_disk_is_waited_for(small_disk: Path, node_at: Any, tps: Any) -> None:
    node = on(small_disk, node_at, tps).start()
    assert node.stop() == [0]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    node.start("serve")
    wait_for("a second try", lambda: node.log.read_text().count("next try in") >= 2)
    assert any("is read-only" in reason for reason in status(node)["reasons"])
    readers_work(node)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    wait_for("the receiver", node._listening)
    node.stop()
