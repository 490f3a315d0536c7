"""A device that fails costs no result and no attempt: smaller batch, new process, other device, then a person."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import models
from config.routes import RouteSettings
from config.settings import ModelSettings, Settings
from models.testing import write_tiny_bundle
from models.translator import DeviceFault
from node.beats import IDLE_LIMIT_S, LONG_LIMIT_S
from node.bootstrap import worker as wiring
from node.translate import heartbeat as heartbeats
from node.translate.device_record import DeviceRecord
from node.translate.loaded import ExecutorUnavailable
from node.translate.worker import DeviceFailed, Worker
from storage.database import Database
from storage.jobs import JobStore
from storage.overview import Case, Overview
from storage.series import Arrival, JobRequest, SeriesFacts, SeriesStore
from storage.spool import Spool
from tests.component.node.test_worker import FakeExecutor, no_options

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Bench:
    """One queued job, and workers that take it one after the other, as new processes would."""

    def __init__(self, folder: Path, sqlite_file: Path) -> None:
        database = Database(f"sqlite:///{sqlite_file}")
        series = SeriesStore(database)
        association = series.open_association("r", "CTSIM", "h", T0)
        series.record(association, "CTSIM", Arrival("1.2", "1.2.3", "1.2.3.1", "c", "t", "0" * 64, "n", 1), T0)
        series.close_association(association, released=True, now=T0)
        (open_series,) = series.undecided(T0 + timedelta(seconds=9), 5)
        series.queue(open_series, SeriesFacts("", ""), JobRequest("k" * 64, "demo"), T0)
        self.jobs, self.overview, self.spool = JobStore(database), Overview(database), Spool(folder / "spool")
        self.record, self.stop, self.now = DeviceRecord(folder / "device.json"), threading.Event(), T0
        self.opened_for: list[int] = []
        self.beats: list[tuple[Any, ...]] = []

    def worker(self, executor: Any, **options: Any) -> Worker:
        def open_executor(_bundle: str, faults: int) -> Any:
            self.opened_for.append(faults)
            return executor

        named = {"name": "w", "clock": lambda: self.now, "record": self.record, "beat": self.beat, **options}
        return Worker(self.jobs, self.spool, open_executor, no_options, [], **named)

    def beat(self, *beat: Any) -> None:
        self.beats.append(beat)

    @property
    def case(self) -> Case:
        return self.overview.case("1")


@pytest.fixture
def bench(tmp_path: Path, sqlite_file: Path) -> Bench:
    return Bench(tmp_path, sqlite_file)


@pytest.mark.parametrize("spare", [0, 1])
def test_a_device_that_fails_again_and_again_ends_held(bench: Bench, spare: int) -> None:
    executor = FakeExecutor(error=DeviceFault("the device ran out of memory: 2 GiB"))
    executor.spare_devices = spare
    for _ in range(1 + spare):
        with pytest.raises(DeviceFailed, match="ran out of memory"):
            bench.worker(executor).run(bench.stop)
        assert (bench.case.state, bench.case.attempts) == ("QUEUED", 0)
    with pytest.raises(DeviceFailed):
        bench.worker(executor).run(bench.stop)
    assert bench.case.state == "HELD"
    assert bench.case.reason.startswith("the worker cannot translate: the device ran out of memory: 2 GiB, also")
    assert ("1 more of its kind" in bench.case.reason) == bool(spare)
    assert max(bench.opened_for) == 1 + spare, "each new process takes the next measure"


def test_a_job_that_works_in_a_new_process_is_produced(bench: Bench) -> None:
    with pytest.raises(DeviceFailed):
        bench.worker(FakeExecutor(error=DeviceFault("an illegal memory access"))).run(bench.stop)
    bench.worker(FakeExecutor(during=bench.stop.set)).run_once(threading.Event())
    assert (bench.case.state, bench.case.attempts) == ("PRODUCED", 1)


def test_clean_stops_use_up_no_attempt(bench: Bench) -> None:
    for _ in range(5):
        stop = threading.Event()
        bench.worker(FakeExecutor(during=stop.set)).run_once(stop)
        assert (bench.case.state, bench.case.attempts) == ("QUEUED", 0)
    bench.worker(FakeExecutor()).run_once(bench.stop)
    assert (bench.case.state, bench.case.attempts) == ("PRODUCED", 1)


def test_a_job_learns_why_its_worker_was_killed(bench: Bench) -> None:
    bench.jobs.claim("w", 60, T0)
    bench.stop.set()
    why = "it made no progress for 61 s at job 1: translate 3 of 64"
    bench.worker(FakeExecutor(), previous_end=why).run(bench.stop)
    assert bench.case.state == "QUEUED"
    reasons = [event.reason for event in bench.overview.events(bench.case)]
    assert f"the worker was killed: {why}" in reasons


def test_a_job_that_stands_still_loses_its_lease_and_its_late_end_writes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(DeviceRecord, "limit_s", lambda *_: 0.0)
    beaten: list[datetime] = []
    monkeypatch.setattr(bench.jobs, "heartbeat", lambda *given, **_: beaten.append(given[3]))

    def during() -> None:  # a call of the GPU that does not come back; meanwhile another host looks at the leases
        bench.now += timedelta(seconds=61)
        assert bench.jobs.release_expired(bench.now) == [1]
        assert bench.jobs.claim("other", 60, bench.now) is not None

    bench.worker(FakeExecutor(during=during)).run_once(bench.stop)
    assert (bench.case.state, bench.case.slices.produced) == ("RUNNING", 0)
    assert list((bench.spool.root / "derived").iterdir()) == []


def test_the_time_limit_of_a_job_comes_from_what_a_slice_took_before(bench: Bench) -> None:
    executor: Any = FakeExecutor()
    name = executor.description
    assert bench.record.limit_s(name, 10) == LONG_LIMIT_S
    assert bench.record.limit_s(name, 1000) == 20_000
    bench.record.measured(executor.description, 4.0)
    assert bench.record.limit_s(name, 200) == 800.0
    assert bench.record.limit_s(name, 2) == IDLE_LIMIT_S
    again = DeviceRecord(bench.record._path)
    assert again.seconds_per_slice(executor.description) == 4.0, "the next process knows it"
    again.measured(executor.description, 2.0)
    assert again.seconds_per_slice(executor.description) == 3.0


def test_each_step_of_a_job_is_a_beat_with_its_limit(bench: Bench) -> None:
    bench.record.measured(FakeExecutor.description, 90.0)
    bench.worker(FakeExecutor()).run_once(bench.stop)
    assert ("", "job 1: translate", 1, 1, 90.0) in bench.beats


@pytest.mark.parametrize("text", ["", "[1]", '{"seconds_per_slice": 3, "device": 7}', "\0"])
def test_a_record_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "device.json").write_text(text)
    record = DeviceRecord(tmp_path / "device.json")
    assert not record.had_gpu
    assert record.seconds_per_slice("x") is None
    record.measured("x", 1.0)
    assert DeviceRecord(tmp_path / "device.json").seconds_per_slice("x") == 1.0


def test_a_record_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    record = DeviceRecord(tmp_path / "gone" / "device.json")
    record.uses("cuda")
    assert record.had_gpu


def test_a_gpu_that_is_gone_is_no_reason_to_take_the_processor(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    record = DeviceRecord(tmp_path / "device.json")
    record.uses("cuda")
    auto = ModelSettings(bundle=str(tmp_path), device="auto", precision="fp32")
    with pytest.raises(ExecutorUnavailable, match="the GPU is gone"):
        wiring.open_recorded(auto, record, 0)
    wiring.open_recorded(auto.model_copy(update={"device": "cpu"}), record, 0)
    assert not DeviceRecord(tmp_path / "device.json").had_gpu
    wiring.open_recorded(auto, record, 0)


def test_after_a_fault_one_slice_at_a_time_and_then_the_next_gpu_of_the_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_bundle(tmp_path)
    asked: list[tuple[int | None, int]] = []
    real = models.load_bundle

    def load_bundle(path: Path, **options: Any) -> Any:
        asked.append((options["batch_size"], options["gpu"]))
        return real(path, device="cpu")

    monkeypatch.setattr(models, "load_bundle", load_bundle)
    monkeypatch.setattr(models, "count_alike_gpus", lambda: 2)
    settings = ModelSettings(bundle=str(tmp_path), device="cuda", batch_size=8)
    for faults in range(4):
        assert wiring.open_recorded(settings, DeviceRecord(), faults).spare_devices == 1
    assert asked == [(8, 0), (1, 0), (1, 1), (1, 1)]


def test_a_job_of_a_bundle_that_is_not_in_use_any_more_is_told_which_are() -> None:
    settings = Settings(route=(RouteSettings(name="neck", bundle="no-such-bundle"),))
    with pytest.raises(ExecutorUnavailable) as caught:
        wiring.open_in_use(settings, lambda *_: pytest.fail("nothing is loaded"), "gone 1 (0123456789ab)", 0)
    said = str(caught.value)
    assert said.startswith("the job was queued for bundle gone 1 (0123456789ab), and this worker has demo-1step ")
    assert "bundle of route neck = 'no-such-bundle', which cannot be used" in said
