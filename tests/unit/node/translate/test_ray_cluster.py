"""What is on its way is bounded, and a head that does not answer is lost after a while."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config.settings import RaySettings
from node.translate import ray_cluster
from node.translate.loaded import ExecutorUnavailable
from node.translate.ray_cluster import (
    ClusterPlan,
    HeadWatch,
    InFlight,
    Unreachable,
    answers,
    ask_for_token,
    end_idle_helpers,
    place_of,
)


class Full(Exception):
    pass


def full() -> None:
    raise Full


def test_no_job_begins_beyond_the_bound_and_a_larger_one_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_TURN_S", 0.0)
    flight = InFlight(100)
    with flight.room_for(40, full):  # the result takes as much again
        assert flight.has_room()
        with pytest.raises(Full), flight.room_for(11, full):
            pytest.fail("20 of 100 bytes are free")
        with flight.room_for(10, full):
            assert not flight.has_room()
    with flight.room_for(1000, full):
        assert not flight.has_room()
    assert flight.has_room()


def test_while_one_waits_nobody_else_claims() -> None:
    flight, seen = InFlight(100), []
    with flight.room_for(45, full):

        def wait() -> None:
            seen.append(flight.has_room())
            raise Full

        with pytest.raises(Full), flight.room_for(10, wait):
            pass
    assert seen == [False]


def test_a_job_that_waits_begins_when_another_ends() -> None:
    flight, waits, began = InFlight(100), threading.Event(), threading.Event()

    def later() -> None:
        with flight.room_for(50, waits.set):
            began.set()

    with flight.room_for(50, full):
        thread = threading.Thread(target=later)
        thread.start()
        assert waits.wait(10)
        assert not began.is_set()
    assert began.wait(10)
    thread.join()


def test_a_head_that_nobody_answers_for_is_lost_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        watch = HeadWatch(f"127.0.0.1:{port}")
        monkeypatch.setattr(ray_cluster, "HEAD_LOST_S", 0.0)
        assert not HeadWatch(f"127.0.0.1:{port}").is_lost() or answers("127.0.0.1", port)
    monkeypatch.setattr(ray_cluster, "HEAD_LOST_S", 1000.0)
    assert not watch.is_lost(), "it may come back"
    monkeypatch.setattr(ray_cluster, "HEAD_LOST_S", 0.0)
    assert watch.is_lost()


def test_a_head_where_nobody_listens_is_told_before_ray_waits_for_it() -> None:
    with pytest.raises(Unreachable, match=r"nobody listens at the head of the Ray cluster, 127\.0\.0\.1:1"):
        ClusterPlan(address="127.0.0.1:1").prepare()
    assert place_of("[::1]:6379") == ("::1", 6379)


def test_a_cluster_of_this_machine_spills_nothing_and_reports_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    plan = ClusterPlan(actors=64, object_store_mb=1000, cores_per_actor=2)
    plan.prepare()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    asked = plan.arguments()
    assert not asked["_system_config"]["automatic_object_spilling_enabled"]
    assert asked["object_store_memory"] == 1250 << 20
    assert asked["num_cpus"] >= 128
    assert not asked["include_dashboard"]
    assert ClusterPlan(address="auto").arguments() == {"address": "auto"}


@pytest.mark.parametrize("mode", ["", "token"])
def test_no_cluster_is_joined_without_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with socket.create_server(("127.0.0.1", 0)) as server:
        plan = ClusterPlan(address=f"127.0.0.1:{server.getsockname()[1]}")
        for one in (plan, ClusterPlan(address="auto")):
            with pytest.raises(Unreachable, match=r"no token of the Ray cluster: copy that of its head to ~/\.ray"):
                one.prepare()
        (tmp_path / "token").write_text("\n")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
        with pytest.raises(Unreachable, match="no token"):
            plan.prepare()
        (tmp_path / "token").write_text("a1b2\n")
        plan.prepare()
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
        (tmp_path / ".ray").mkdir()
        (tmp_path / "token").rename(tmp_path / ".ray/auth_token")
        plan.prepare()
        (tmp_path / ".ray/auth_token").unlink()
        monkeypatch.setenv("RAY_AUTH_TOKEN", "a1b2")
        plan.prepare()


def test_what_the_environment_says_of_the_token_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ask_for_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    ClusterPlan(address="auto").prepare()
    monkeypatch.delenv("RAY_AUTH_MODE")
    ask_for_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_actors_have_the_threads_that_this_process_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert ClusterPlan().environment == {"OMP_NUM_THREADS": "3"}
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert ClusterPlan().environment == {}


def test_what_was_started_and_lives_is_known() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert process.pid in ray_cluster.children()
    finally:
        process.kill()
        process.wait()
    assert process.pid not in ray_cluster.children()


def test_of_what_ray_starts_only_the_helpers_without_work_are_ended() -> None:
    script = "import sys; print(flush=True); sys.stdin.read()"
    names = ["/x/ray/_private/log_monitor.py", "/x/ray/autoscaler/_private/monitor.py", "/x/gcs_server"]
    started = [
        subprocess.Popen([sys.executable, "-c", script, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in names
    ]
    for process in started:
        assert process.stdout
        process.stdout.readline()
    end_idle_helpers({process.pid for process in started} | {2**22 + 1})
    living = [name for name, process in zip(names, started, strict=True) if process.poll() is None]
    started[-1].communicate()
    assert living == names[-1:]


@pytest.mark.parametrize(
    ("device", "plan", "hosts", "found"),
    [
        ("auto", {}, [{"CPU": 0.0}, {"CPU": 4.0}], "cpu"),
        ("auto", {}, [{"CPU": 4.0, "GPU": 1.0}], "cuda"),
        ("cuda", {"gpus_per_actor": 2.0}, [{"GPU": 1.0}, {"GPU": 2.0}], "cuda"),
        ("cuda", {"actors": 2, "gpus_per_actor": 2.0}, [{"GPU": 1.0}], "cuda"),  # an autoscaler may bring another host
        ("cpu", {"actors": 2}, [{}], "cpu"),
        ("cuda", {}, [{"CPU": 4.0}], "no host of the Ray cluster has a GPU"),
        ("cuda", {"gpus_per_actor": 2.0}, [{"GPU": 1.0}, {"GPU": 1.0}], "no host of the Ray cluster has the 2 GPUs"),
        ("cpu", {}, [{"CPU": 1.0}, {"CPU": 1.0}], "no host of the Ray cluster has the 2 cores that an actor takes"),
    ],
)
def test_a_cluster_without_room_for_one_actor_is_refused(
    device: str, plan: dict[str, Any], hosts: list[dict[str, float]], found: str
) -> None:
    with nullcontext() if found in ("cpu", "cuda") else pytest.raises(ExecutorUnavailable, match=found):
        assert ClusterPlan(**plan).device_of(device, hosts) == found


def test_a_part_of_several_gpus_is_refused_which_ray_does_not_share_out() -> None:
    assert RaySettings(gpus_per_actor=0.5).gpus_per_actor == 0.5
    assert RaySettings(gpus_per_actor=2).gpus_per_actor == 2
    with pytest.raises(ValidationError, match="above 1 it should be a whole number"):
        RaySettings(gpus_per_actor=1.5)
