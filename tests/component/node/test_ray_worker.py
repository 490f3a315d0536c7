"""`syncect work` on a Ray cluster of this machine: what it has in hand survives its own end, and that of the head."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.load import load_settings
from config.settings import Settings
from node.beats import CANNOT_WORK, Numbers, no_beat
from node.bootstrap.store import Node, open_store
from storage.wakes import Polling
from tests.builders import body_hu, make_series
from tests.component.node.conftest import receive

pytest.importorskip("ray")

from node.bootstrap.ray_worker import ask_of, make_ray_worker, plan_of
from node.translate import ray_worker
from node.translate.loaded import ExecutorUnavailable

long = pytest.mark.skipif(os.environ.get("RAY_FAULTS") != "long", reason="takes a minute: `make ray` runs it")
SLICES = 300


def until(holds: Callable[[], object], within_s: float = 300.0) -> None:
    """Look again and again, since other processes tell nobody what they did; a cluster may take minutes to start."""
    end_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end_s, "it did not come about"
        threading.Event().wait(0.05)


@pytest.fixture
def node(config: Path, tiny_bundle: Path, tmp_path: Path) -> Iterator[Node]:
    """A node with two series in its queue."""
    config.write_text(
        config.read_text() + f'[model]\nbundle = "{tiny_bundle}"\ndevice = "cpu"\nexecutor = "ray"\n'
        "[ray]\nactors = 2\njobs_per_actor = 1\nobject_store_mb = 64\n"
    )
    with open_store(load_settings(config)) as node:
        for number in range(2):
            hu = body_hu(SLICES, 64, 64)
            files = make_series(
                tmp_path / f"source{number}", hu=hu, slices=SLICES, rows=64, columns=64, seed=f"series {number}"
            )
            receive(node, files, "", "ab"[number])
        yield node


@contextmanager
def work() -> Iterator[subprocess.Popen[bytes]]:
    """`syncect work`, which has the settings of the environment."""
    process = subprocess.Popen([sys.executable, "-m", "node.cli", "work"], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def below(pid: int) -> dict[int, str]:
    """All processes that one started, directly or not, and their names."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        try:
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if int(rest.split()[1]) == pid:
            found |= {int(entry.name): name, **below(int(entry.name))}
    return found


def states(node: Node) -> list[str]:
    return sorted(case.state for case in node.overview.cases())


def are_made(node: Node) -> bool:
    """The small network draws what the gates doubt, so a result may be HELD."""
    return all(case.state in {"PRODUCED", "HELD"} and case.slices.produced == SLICES for case in node.overview.cases())


def is_in_hand(node: Node) -> bool:
    """An actor has told how far a job is; on a quiet machine it is past its translation when it is asked first."""
    return any(case.progress for case in node.overview.cases() if case.state == "RUNNING")


@long
def test_the_head_dies_the_jobs_go_back_and_the_next_process_produces_them(node: Node) -> None:
    with work() as process:
        until(lambda: is_in_hand(node))
        (head,) = [pid for pid, name in below(process.pid).items() if name.startswith("gcs_server")]
        os.kill(head, signal.SIGKILL)
        assert process.wait(60) == 1, "it ends in order, and not by a signal"
    assert {case.attempts for case in node.overview.cases() if case.state == "QUEUED"} <= {0}
    assert "QUEUED" in states(node), "the jobs take longer than a head that is gone is waited for"
    assert "RUNNING" not in states(node)
    with work() as process:
        until(lambda: are_made(node))
        process.terminate()
        assert process.wait(60) == 0


@long
def test_a_worker_that_is_killed_takes_its_actors_along_and_its_jobs_come_back(node: Node) -> None:
    with work() as process:
        until(lambda: is_in_hand(node))
        theirs = below(process.pid)
        assert any("ray::Actor" in name for name in theirs.values())
        process.kill()
        until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in theirs))
    with work():
        until(lambda: are_made(node))


def test_without_a_cluster_the_worker_says_so_and_waits_until_it_is_stopped(
    config: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_worker, "CONNECT_EVERY_S", 0.0)
    config.write_text(config.read_text() + '[model]\nexecutor = "ray"\n[ray]\naddress = "127.0.0.1:1"\n')
    with open_store(load_settings(config)) as node:
        said: list[str] = []
        stop = threading.Event()

        def announce(words: str) -> None:
            said.append(words)
            if len(said) == 3:
                stop.set()

        make_ray_worker(node, "1", announce, no_beat, Numbers(), bell_of=Polling).run(stop)
    assert said == [f"{CANNOT_WORK}nobody listens at the head of the Ray cluster, 127.0.0.1:1"] * 3
    assert caplog.text.count("this worker cannot work") == 1, "a log of the night is not full of it"


def test_the_settings_of_a_cluster_and_of_the_bundle_reach_it(tiny_bundle: Path) -> None:
    settings = Settings.model_validate(
        {
            "model": {"bundle": str(tiny_bundle), "batch_size": 4},
            "ray": {"address": "[::1]:6379", "object_store_mb": 100},
        }
    )
    assert plan_of(settings).in_flight_bytes == 100 << 20
    ask = ask_of(settings.model)
    assert (ask.bundle, ask.batch_size, ask.careful) == (str(tiny_bundle), 4, False)
    assert ask_of(settings.model, faults=1).careful
    with pytest.raises(ExecutorUnavailable, match="no-such-bundle"):
        ask_of(settings.model.model_copy(update={"bundle": "no-such-bundle"}))
