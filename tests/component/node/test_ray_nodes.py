"""A Ray cluster of several hosts, each a raylet of this machine: one joins, one ends, memory is short.

Takes minutes: `make ray` runs it, in a process of its own, since actors of a second cluster with another configuration
end at once in a process that was connected to a first one.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

import models
from node.dicom.derived_plan import EquipmentIdentity
from node.translate.carried import BundleAsk
from node.translate.job import JobOptions, run_job
from node.translate.ray_cluster import ClusterPlan, children
from node.version import software_version
from tests.builders import body_hu, make_series

pytest.importorskip("ray")

import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
from ray.cluster_utils import Cluster

from node.translate import ray_executor
from node.translate.ray_executor import ActorPool, connected

pytestmark = pytest.mark.skipif(os.environ.get("RAY_FAULTS") != "long", reason="takes minutes: `make ray` runs it")

STORE_BYTES = 80 << 20  # of each host, little more than the least that Ray takes
SLICES = 24


class Hosts:
    """A head without cores, to which the driver is connected, and hosts with one each; Ray may spill, as by default."""

    def __init__(self) -> None:
        self._cluster = _started(lambda: Cluster(initialize_head=True, head_node_args=self._of(0)))
        self.address = str(self._cluster.address)

    def add(self) -> str:
        """A host more; returns its ID."""
        return str(_started(lambda: self._cluster.add_node(**self._of(1))).node_id)

    def kill(self, node_id: str, *pids: int) -> None:
        """End the raylet of a host, as a host that loses its power does, and processes on it."""
        (node,) = [one for one in self._cluster.worker_nodes if one.node_id == node_id]
        for pid in (node.all_processes["raylet"][0].process.pid, *pids):
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self._cluster.shutdown()

    def _of(self, cores: int) -> dict[str, Any]:
        return {"num_cpus": cores, "object_store_memory": STORE_BYTES, "include_dashboard": False}


def _started(start: Callable[[], Any]) -> Any:
    """Try again where Ray's processes do not start within the 30 s that Ray gives them, too few on a busy machine."""
    for tries_left in (2, 1, 0):
        before = children()
        try:
            return start()
        except Exception:  # Ray raises no other
            for pid in children() - before:
                os.kill(pid, signal.SIGKILL)
            if not tries_left:
                raise
    return None


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setattr(ray_executor, "TURN_S", 0.02)
        patch.setattr(ray_executor, "ASK_EVERY_S", 0.02)
        hosts = Hosts()
        hosts.add()
        yield hosts
        hosts.close()


@pytest.fixture(scope="module")
def pool(hosts: Hosts) -> Iterator[ActorPool]:
    plan = ClusterPlan(address=hosts.address, jobs_per_actor=2, object_store_mb=44, cores_per_actor=1)
    with connected(plan):
        pool = ActorPool(plan, "cpu")
        yield pool
        pool.close()


@pytest.fixture(scope="module")
def ask(tiny_bundle: Path) -> BundleAsk:
    digest = models.read_card(tiny_bundle).digest
    return BundleAsk(str(tiny_bundle), "tiny", digest, software_version(), "cpu", "fp32", None, None)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_series(
        tmp_path_factory.mktemp("source"), hu=body_hu(SLICES, 64, 64), rows=64, columns=64, slices=SLICES
    )


@pytest.fixture(scope="module")
def alone(paths: list[Path], tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a worker in its own process makes of the series."""
    import torch

    threads, out = torch.get_num_threads(), tmp_path_factory.mktemp("alone")
    torch.set_num_threads(1)
    run_job(paths, models.load_bundle(tiny_bundle, precision="fp32"), OPTIONS, out)
    torch.set_num_threads(threads)
    return contents(out)


OPTIONS = JobOptions(EquipmentIdentity(software_version="0.1.0"), datetime(2026, 1, 2, tzinfo=UTC))
Progress = Callable[[str, int, int], None]


def nothing(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def run(
    pool: ActorPool, ask: BundleAsk, paths: list[Path], out: Path, progress: Progress = nothing
) -> dict[str, bytes]:
    out.mkdir()
    pool.run(ask, paths, OPTIONS, out, progress, limit_s=300.0)
    return contents(out)


def stats() -> Any:
    """Ray's own counters of the object stores of all living hosts together."""
    return get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address)).store_stats


def test_a_job_waits_for_no_host_while_another_one_has_a_seat(
    pool: ActorPool,
    ask: BundleAsk,
    paths: list[Path],
    alone: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pool, "_size", 2)  # as the settings may say, although there is one host
    with ExitStack() as seats:
        for _ in range(2):
            seats.enter_context(pool._seat(replace(ask, device="cpu"), nothing))
        monkeypatch.setattr(ray_executor, "START_LIMIT_S", 10.0)

        def progress(stage: str, _done: int, _total: int) -> None:
            if stage == "wait for Ray" and len(pool._members) == 2:
                seats.close()

        assert run(pool, ask, paths, tmp_path / "out", progress) == alone
    assert len(pool._members) == 2, "the other actor still waits for its host"
    assert not [record for record in caplog.records if record.name == ray_executor.__name__]


def test_a_host_that_joins_gets_an_actor_of_its_own(
    hosts: Hosts, pool: ActorPool, ask: BundleAsk, paths: list[Path], alone: dict[str, bytes], tmp_path: Path
) -> None:
    assert pool.lanes == 2, "one actor for the one core"
    hosts.add()
    pool.tick()
    assert pool.lanes == 4
    together = Barrier(3)  # two jobs at the first actor, and one for which it has no seat

    def progress() -> Progress:
        met: list[bool] = []

        def tell(stage: str, _done: int, _total: int) -> None:
            if stage == "translate" and not met:
                met.append(True)
                together.wait(300)

        return tell

    with ThreadPoolExecutor(3) as threads:
        made = [threads.submit(run, pool, ask, paths, tmp_path / str(number), progress()) for number in range(3)]
        assert [one.result() for one in made] == [alone] * 3
    assert len({member.node for member in pool._members}) == 2


def test_a_job_whose_host_ends_goes_on_at_another_host_and_is_not_to_blame(
    hosts: Hosts,
    pool: ActorPool,
    ask: BundleAsk,
    paths: list[Path],
    alone: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost: list[str] = []

    def progress(stage: str, _done: int, _total: int) -> None:
        if stage == "translate" and not lost:
            (member,) = [one for one in pool._members if one.jobs]
            lost.append(member.node)
            hosts.kill(member.node, member.pid)

    with caplog.at_level(logging.WARNING, logger=ray_executor.__name__):
        assert run(pool, ask, paths, tmp_path / "out", progress) == alone
    assert lost
    assert lost[0] not in {member.node for member in pool._members}
    assert [record.getMessage() for record in caplog.records] == [
        "an actor of Ray ended: its host is no longer in the cluster"
    ]


def test_a_result_that_is_lost_with_its_host_before_it_has_come_back_is_made_again(
    hosts: Hosts,
    pool: ActorPool,
    ask: BundleAsk,
    paths: list[Path],
    alone: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = ActorPool._watch
    lost: list[str] = []

    def watch_and_lose(self: ActorPool, member: Any, ticket: str, answer: Any, *rest: Any) -> None:
        if lost:
            watch(self, member, ticket, answer, *rest)
        else:
            assert ray.wait([answer], timeout=120, fetch_local=False)[0]
            lost.append(member.node)
            hosts.kill(member.node, member.pid)

    monkeypatch.setattr(ActorPool, "_watch", watch_and_lose)
    hosts.add()
    assert run(pool, ask, paths, tmp_path / "out") == alone
    assert lost[0] not in {member.node for member in pool._members}


def test_more_volumes_than_the_memory_of_ray_holds_are_all_made_and_none_goes_to_a_disk(
    hosts: Hosts, pool: ActorPool, ask: BundleAsk, tmp_path: Path
) -> None:
    pool.close()
    pool = ActorPool(
        ClusterPlan(address=hosts.address, jobs_per_actor=10, object_store_mb=44, cores_per_actor=1), "cpu"
    )
    large = make_series(tmp_path / "large", hu=body_hu(20, 512, 512), rows=512, columns=512, slices=20)
    jobs, each = 10, sum(path.stat().st_size for path in large)
    assert 2 * jobs * each > 2 * STORE_BYTES
    with ThreadPoolExecutor(jobs) as threads:
        made = [threads.submit(run, pool, ask, large, tmp_path / str(number)) for number in range(jobs)]
        first = made[0].result()
        assert all(one.result() == first for one in made)
    assert stats().cumulative_created_bytes > 2 * jobs * each
    assert stats().spilled_bytes_total == 0
    assert stats().object_store_bytes_fallback == 0
