"""Jobs and an archive on a real Ray cluster of this machine: equal bits in any company, and faults while they run."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import models
from config.settings import ModelSettings, Settings
from models.translator import DeviceFault
from node.archive.permits import permitted
from node.archive.run import Archive, run_archive
from node.dicom.derived_plan import EquipmentIdentity
from node.dicom.doubt_file import DOUBT_FILE
from node.errors import Permanent, Retryable
from node.translate.carried import BundleAsk
from node.translate.job import JobOptions, JobResult, run_job
from node.translate.loaded import ExecutorUnavailable
from node.translate.ray_cluster import ClusterLost, ClusterPlan, Unreachable
from node.version import software_version
from tests import archive_faults
from tests.builders import body_hu, make_series
from tests.ray_faults import CHANGED, CRASHES, DIES, FAULTY_DEVICE, REFUSED, FaultyActor

pytest.importorskip("ray")

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from node.translate import ray_executor
from node.translate.ray_executor import ActorPool, ActorsEnded, connected, settle_device, stream

PLAN = ClusterPlan(actors=2, jobs_per_actor=2, object_store_mb=64, cores_per_actor=1)
LENGTHS = (13, 8, 10)  # slices of the series


LONG = os.environ.get("RAY_FAULTS") == "long"
long = pytest.mark.skipif(not LONG, reason="an actor takes seconds to start: `make ray` runs this too")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster that finds these tests by PYTHONPATH, whose actors compute as this process does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        patch.setenv("OMP_NUM_THREADS", "1")
        with connected(PLAN) as address:
            yield address


@pytest.fixture(scope="module")
def ask(tiny_bundle: Path) -> BundleAsk:
    card = models.read_card(tiny_bundle)
    return BundleAsk(str(tiny_bundle), "tiny", card.digest, software_version(), "cpu", "fp32", None, None)


@pytest.fixture(scope="module")
def shared(cluster: str) -> Iterator[ActorPool]:
    """A pool whose actors have faults where a job asks for them; they take seconds to start, so tests share them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_executor, "Actor", FaultyActor)
        patch.setattr(ray_executor, "TURN_S", 0.02)
        patch.setattr(ray_executor, "ASK_EVERY_S", 0.02)
        pool = ActorPool(PLAN, "cpu")
        yield pool
        pool.close()


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    root = tmp_path_factory.mktemp("sources")
    return [
        make_series(root / str(n), hu=body_hu(n, 64, 64), rows=64, columns=64, slices=n, seed=f"series {n}")
        for n in LENGTHS
    ]


@pytest.fixture(scope="module")
def alone(
    series: list[list[Path]], tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, bytes]]:
    """What a worker in its own process makes of each series."""
    with ThreadPoolExecutor(1) as thread:  # one thread computes as an actor with OMP_NUM_THREADS = 1 does
        return list(thread.map(lambda paths: _made_here(paths, tiny_bundle, tmp_path_factory.mktemp("alone")), series))


def _made_here(paths: list[Path], bundle: Path, out: Path) -> dict[str, bytes]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_job(paths, models.load_bundle(bundle, precision="fp32"), options(), out)
    finally:
        torch.set_num_threads(before)
    return contents(out)


def options(version: str = "0.1.0") -> JobOptions:
    return JobOptions(EquipmentIdentity(software_version=version), datetime(2026, 1, 2, tzinfo=UTC))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def nothing(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def run(
    pool: ActorPool,
    ask: BundleAsk,
    paths: list[Path],
    out: Path,
    progress: Callable[[str, int, int], None] = nothing,
    version: str = "0.1.0",
    limit_s: float = 60.0,
) -> JobResult:
    out.mkdir()
    return pool.run(ask, paths, options(version), out, progress, limit_s=limit_s)


class Striker:
    """A progress that signals the actor of its job once, at its first step of the translation."""

    def __init__(self, pool: ActorPool, number: int) -> None:
        self._pool, self._number = pool, number
        self.struck = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage == "translate" and not self.struck:
            (member,) = [one for one in self._pool._members if one.jobs]
            self.struck = member.pid
            os.kill(member.pid, self._number)


def test_a_process_of_an_archive_that_ends_costs_no_series_and_one_that_always_ends_only_its_own(
    cluster: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    """Before the others, whose actors take all seats of the cluster as long as they live."""
    always = [archive_faults.DIES] if LONG else []  # an actor takes seconds to start
    names = ["first", archive_faults.DIES_ONCE, *always, "last"]
    for name in names:
        make_series(tmp_path / name, hu=body_hu(8, 64, 64), rows=64, columns=64, slices=8, seed=name)
    pq.write_table(pa.table({"source": [str(tmp_path / name) for name in names]}), tmp_path / "index.parquet")
    settings = Settings(model=ModelSettings(bundle=str(tiny_bundle), allow_unproven=("tiny",), device="cpu"))
    ask = replace(permitted(settings)[0], device="cpu")

    def ending(rows: Any, _maker: Any, run: Any) -> Any:
        return stream(rows, archive_faults.EndingTranslator, run, replace(PLAN, actors=1), "cpu")

    archive = Archive(settings, tmp_path / "index.parquet", str(tmp_path / "out"), ask)
    tally = run_archive(archive, ending, lambda _tally: None)
    assert tally.done == len(names)
    rows = pq.read_table(tmp_path / "out" / "outcomes.parquet").to_pylist()
    ends = {Path(row["source"]).name: row["end"] for row in rows}
    assert ends == {name: "FAILED" if name == archive_faults.DIES else "PRODUCED" for name in names}
    assert (tmp_path / "has died").exists(), "the fault was there"
    named = {row["derived_series_uid"] for row in rows} - {""}
    made = {path.name for path in (tmp_path / "out" / "series").iterdir()}
    assert len(named) == len(names) - LONG
    assert named <= made, "what an ended process had put, the next one put again under the same name"
    if not LONG:
        assert named == made


def test_a_series_has_the_same_bits_alone_and_in_any_company(
    shared: ActorPool, ask: BundleAsk, series: list[list[Path]], alone: list[dict[str, bytes]], tmp_path: Path
) -> None:
    crowd = [0, 1, 2, 1, 0, 2]  # six at a time on four seats
    with ThreadPoolExecutor(len(crowd)) as threads:
        outs = [tmp_path / str(number) for number in range(len(crowd))]
        results = list(threads.map(lambda at: run(shared, ask, series[at[0]], at[1]), zip(crowd, outs, strict=True)))
    for which, out, result in zip(crowd, outs, results, strict=True):
        assert contents(out) == alone[which]
        assert [made.path.parent for made in result.files] == [out] * LENGTHS[which]
    assert DOUBT_FILE in alone[0], "the file of the doubt travels too"
    pids = {member.pid for member in shared._members}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_a_job_whose_actor_is_killed_goes_on_at_another_one_with_equal_bits(
    shared: ActorPool, ask: BundleAsk, series: list[list[Path]], alone: list[dict[str, bytes]], tmp_path: Path
) -> None:
    strike = Striker(shared, signal.SIGKILL)
    run(shared, ask, series[0], tmp_path / "out", strike)
    assert strike.struck not in {0, *(member.pid for member in shared._members)}
    assert contents(tmp_path / "out") == alone[0]


@long
def test_an_actor_that_is_stopped_is_ended_and_its_job_goes_on_elsewhere(
    shared: ActorPool,
    ask: BundleAsk,
    series: list[list[Path]],
    alone: list[dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_executor, "SILENT_S", 0.5)
    strike = Striker(shared, signal.SIGSTOP)
    run(shared, ask, series[0], tmp_path / "out", strike)
    assert strike.struck not in {0, *(member.pid for member in shared._members)}
    assert contents(tmp_path / "out") == alone[0]


@long
def test_a_job_that_ends_its_actors_fails_after_two(
    shared: ActorPool, ask: BundleAsk, series: list[list[Path]], tmp_path: Path
) -> None:
    with pytest.raises(ActorsEnded, match="2 Ray actors ended or stopped answering while they translated it"):
        run(shared, ask, series[1], tmp_path / "out", version=DIES)
    assert list((tmp_path / "out").iterdir()) == []


def test_no_job_is_to_blame_for_a_host_that_the_head_still_takes_for_alive(
    shared: ActorPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "_living_nodes", lambda: {"host": ("127.0.0.1", 1)})
    ended = shared._ended(ray_executor._Member(None, node="host"), ray.exceptions.RayActorError())
    assert (ended.why, ended.blames_job) == ("its host is no longer in the cluster", False)


def test_a_device_that_fails_ends_its_actor_and_one_slice_at_a_time_is_computed_by_another(
    shared: ActorPool, ask: BundleAsk, series: list[list[Path]], tmp_path: Path
) -> None:
    run(shared, ask, series[1], tmp_path / "before")
    before = {member.pid for member in shared._members}
    with pytest.raises(DeviceFault, match="ran out of memory"):
        run(shared, ask, series[1], tmp_path / "out", version=FAULTY_DEVICE)
    run(shared, replace(ask, careful=True), series[1], tmp_path / "again", version=FAULTY_DEVICE)
    assert len(list((tmp_path / "again").iterdir())) == LENGTHS[1] + 1
    assert before - {member.pid for member in shared._members}, "the process whose device failed is no more"


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (REFUSED, Permanent, "too large"),
        (CRASHES, Retryable, "unexpected ValueError in an actor"),
        (CHANGED, Retryable, "a file changed on its way"),
    ],
)
def test_errors_come_back_without_words_of_the_source(
    shared: ActorPool, ask: BundleAsk, series: list[list[Path]], tmp_path: Path, fault: str, error: type, words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        run(shared, ask, series[1], tmp_path / "out", version=fault)
    assert "Person" not in str(caught.value)


def test_another_version_or_bundle_is_refused_with_a_sentence(shared: ActorPool, ask: BundleAsk) -> None:
    with pytest.raises(ExecutorUnavailable, match=r"the worker 9\.9; install one version on every host"):
        shared.open(replace(ask, version="9.9"))
    with pytest.raises(ExecutorUnavailable, match=r"the actor has another bundle .* than the worker \(000000000000\)"):
        shared.open(replace(ask, digest="0" * 64))


def test_a_cluster_without_a_gpu_is_none_where_one_is_asked_for(cluster: str) -> None:
    with pytest.raises(ExecutorUnavailable, match="no host of the Ray cluster has a GPU"):
        settle_device("cuda", PLAN)
    assert settle_device("auto", PLAN) == "cpu"


def test_a_job_that_is_taken_away_ends_in_its_actor_too(
    shared: ActorPool, ask: BundleAsk, series: list[list[Path]], alone: list[dict[str, bytes]], tmp_path: Path
) -> None:
    class TakenAway(Exception):
        pass

    def progress(stage: str, _done: int, _total: int) -> None:
        if stage == "translate":
            raise TakenAway

    with pytest.raises(TakenAway):
        run(shared, ask, series[0], tmp_path / "out", progress)
    run(shared, ask, series[2], tmp_path / "next")
    assert contents(tmp_path / "next") == alone[2]


def test_a_cluster_that_is_lost_gives_every_job_back(
    cluster: str, ask: BundleAsk, series: list[list[Path]], tmp_path: Path
) -> None:
    pool = ActorPool(PLAN, "cpu")
    pool.lose("the head does not answer")
    assert not pool.has_room()
    with pytest.raises(ClusterLost, match="the head does not answer"):
        run(pool, ask, series[1], tmp_path / "out")
    pool.close()


def test_nothing_is_left_in_the_object_store_and_nothing_was_spilled(shared: ActorPool) -> None:
    # The bytes of many jobs have passed, and errors that the tests keep may hold those of a few.
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    stats = get_memory_info_reply(state).store_stats
    assert stats.spilled_bytes_total == 0
    assert stats.object_store_bytes_used < stats.cumulative_created_bytes / 2


def test_a_cluster_that_does_not_start_is_tried_as_often_as_told_and_the_sentence_says_where_to_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, ended = [], []

    def fail(**_words: Any) -> None:
        begun.append(os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600"))
        raise Exception("The current node timed out during startup.")  # what Ray raises

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setattr(ray_executor, "_shut_down", lambda: ended.append(1))
    with (
        pytest.raises(Unreachable, match=r"did not start on this machine in 4 tries \(Exception\): .* its logs lie in"),
        connected(ClusterPlan(), tries=4),
    ):
        pytest.fail("there is no cluster")
    assert len(begun) == len(ended) == 4
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in begun] == [-signal.SIGKILL] * 4
