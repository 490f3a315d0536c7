"""The worker records exactly one outcome per claim, whatever the executor does."""

import os
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from node.beats import Numbers
from node.errors import Doubtful, Permanent, Retryable
from node.translate import heartbeat as heartbeats
from node.translate.job import DerivedFile, JobResult
from node.translate.loaded import ExecutorUnavailable
from node.translate.worker import MAX_ATTEMPTS, Worker
from storage.database import Database
from storage.jobs import ClaimedJob, JobStore
from storage.outbox import OutboxStore
from storage.overview import Overview
from storage.series import Arrival, JobRequest, SeriesFacts, SeriesStore
from storage.spool import Spool

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)


def no_options(job: ClaimedJob, now: datetime) -> Any:
    """What a job is to look like; FakeExecutor does not ask."""


class FakeExecutor:
    """Writes one file and returns, or raises what it was given; `during` runs in the middle."""

    bundle, description, spare_devices = "demo", "fake on nothing", 0

    def __init__(self, *, error=None, held=None, during=None):
        self.error, self.held, self.during = error, held, during or (lambda: None)

    def run(self, paths, options, out_dir, progress):
        path = out_dir / "0001.dcm"
        path.write_bytes(b"derived")
        self.during()
        progress("translate", 1, 1)
        if self.error:
            raise self.error
        made = (DerivedFile("9.1", "1.2.3.1", path, "0" * 64),)
        remarks = ("StudyID is longer than 16 characters: kept",)
        named: dict[str, Any] = {"series_number": 301, "series_description": "sCE-CT AI"}
        return JobResult("9", "1.2", made, self.held, {"share": 0.1}, remarks, **named)


@pytest.fixture
def bench(tmp_path, sqlite_file):
    database = Database(f"sqlite:///{sqlite_file}")
    series = SeriesStore(database)
    association = series.open_association("r", "CTSIM", "h", T0)
    series.record(association, "CTSIM", Arrival("1.2", "1.2.3", "1.2.3.1", "c", "t", "0" * 64, "n", 1), T0)
    series.close_association(association, released=True, now=T0)
    (open_series,) = series.undecided(T0 + timedelta(seconds=9), 5)
    series.queue(open_series, SeriesFacts("", ""), JobRequest("k" * 64, "demo"), T0)
    bench = SimpleNamespace(now=T0, jobs=JobStore(database), spool=Spool(tmp_path / "spool"), stop=threading.Event())
    bench.overview, bench.outbox = Overview(database), OutboxStore(database)

    def run(executor):
        def open_executor(_bundle, faults):
            if isinstance(executor, Exception):
                raise executor
            return executor

        bench.said, bench.numbers = [], Numbers()
        worker = Worker(
            bench.jobs,
            bench.spool,
            open_executor,
            no_options,
            ["tps"],
            name="w",
            announce=bench.said.append,
            numbers=bench.numbers,
            clock=lambda: bench.now,
        )
        assert worker.run_once(bench.stop)
        (case,) = bench.overview.cases()
        return case

    bench.run = run
    return bench


def folders(bench):
    return sorted(path.name for path in (bench.spool.root / "derived").iterdir())


def test_a_produced_series_lies_in_its_folder_and_in_the_outbox(bench):
    case = bench.run(FakeExecutor())
    assert (case.state, case.derived_series_uid, case.slices.produced) == ("PRODUCED", "9", 1)
    assert case.remarks == ("StudyID is longer than 16 characters: kept",)
    assert (case.series_number, case.series_description) == (301, "sCE-CT AI")
    delivery = bench.outbox.claim("c", "tps", 60, T0)
    assert bench.spool.path(delivery.missing[0].file_name).read_bytes() == b"derived"
    assert folders(bench) == ["1-1"]


def test_a_worker_counts_slices_and_seconds_of_results_only(bench):
    bench.run(FakeExecutor())
    found = bench.numbers.all()
    assert found["slices"] == 1
    assert found["translation_s"] == found["slice_s"] > 0


def test_a_doubtful_series_is_held_with_its_files(bench):
    case = bench.run(FakeExecutor(held="not all there"))
    assert (case.state, case.reason, case.slices.produced) == ("HELD", "not all there", 1)
    assert bench.outbox.claim("c", "tps", 60, T0) is None


def test_a_permanent_error_fails_the_job_and_leaves_no_files(bench):
    case = bench.run(FakeExecutor(error=Permanent("the scan is too large")))
    assert (case.state, case.reason) == ("FAILED", "the scan is too large")
    assert folders(bench) == []


def test_a_doubtful_input_is_held_for_a_person_and_leaves_no_files(bench):
    case = bench.run(FakeExecutor(error=Doubtful("the pixels of 3 slices do not fit BitsStored (12)")))
    assert (case.state, case.reason) == ("HELD", "the pixels of 3 slices do not fit BitsStored (12)")
    assert case.slices.produced == 0
    assert folders(bench) == []


@pytest.mark.parametrize("error", [Retryable("the disk is busy"), OSError(28, "No space left"), ZeroDivisionError()])
def test_other_errors_are_tried_again_and_then_fail(bench, error):
    for attempt in range(1, MAX_ATTEMPTS + 1):
        case = bench.run(FakeExecutor(error=error))
        assert case.state == ("FAILED" if attempt == MAX_ATTEMPTS else "QUEUED")
        assert case.reason
        bench.now += timedelta(hours=1)
    assert folders(bench) == []


def test_a_device_that_is_not_there_holds_the_job(bench):
    case = bench.run(ExecutorUnavailable("no CUDA device"))
    assert (case.state, case.reason) == ("HELD", "the worker cannot translate: no CUDA device")
    assert case.slices.produced == 0
    assert bench.said == ["CANNOT WORK: no CUDA device"]


def test_bundle_and_device_are_loaded_before_the_first_job_and_said_aloud(bench):
    loaded: list[str] = []
    said: list[str] = []

    def open_executor(_bundle, faults):
        loaded.append(bench.overview.cases()[0].state)
        bench.stop.set()
        return FakeExecutor()

    worker = Worker(bench.jobs, bench.spool, open_executor, no_options, [], name="w", announce=said.append)
    worker.run(bench.stop)
    assert (loaded, said) == (["QUEUED"], ["fake on nothing"])


def make_old(folder, moment):
    os.utime(folder, (moment.timestamp(), moment.timestamp()))


def leave_behind(bench, *names, age=timedelta(hours=2)):
    """Folders of results that a killed process left."""
    for name in names:
        folder = bench.spool.root / "derived" / name
        folder.mkdir()
        (folder / "0001.dcm").write_bytes(b"derived")
        make_old(folder, bench.now - age)


def start(bench):
    """A worker that starts and finds nothing to do."""

    def open_executor(_bundle, faults):
        return FakeExecutor()

    bench.stop.set()
    worker = Worker(bench.jobs, bench.spool, open_executor, no_options, [], name="w", clock=lambda: bench.now)
    worker.run(bench.stop)


def test_a_worker_that_starts_removes_what_killed_processes_left_behind(bench):
    bench.run(FakeExecutor(held="looks enhanced"))
    make_old(bench.spool.root / "derived" / "1-1", bench.now - timedelta(days=9))
    leave_behind(bench, "1-r12345678", ".staging-1-r12345678", "1-2")
    start(bench)
    assert folders(bench) == ["1-1"]
    assert bench.spool.path("derived/1-1/0001.dcm").exists()


def test_what_may_still_be_wanted_is_not_removed(bench):
    leave_behind(bench, "1-1", ".staging-1-1")  # its job is QUEUED
    leave_behind(bench, "77-1", "notes")  # a job of another store, and no folder of ours
    start(bench)
    assert folders(bench) == [".staging-1-1", "1-1", "77-1", "notes"]


def test_a_folder_whose_transaction_may_still_come_is_not_removed(bench):
    bench.run(FakeExecutor(held="looks enhanced"))
    leave_behind(bench, "1-r12345678", age=timedelta(minutes=50))
    start(bench)
    assert folders(bench) == ["1-1", "1-r12345678"]


def test_another_bundle_never_steps_in(bench):
    executor = FakeExecutor()
    executor.bundle = "other"
    case = bench.run(executor)
    assert case.state == "HELD"
    assert "queued for bundle demo" in case.reason


def test_a_stopped_worker_gives_the_job_back(bench):
    case = bench.run(FakeExecutor(during=bench.stop.set))
    assert (case.state, case.reason) == ("QUEUED", "the worker was stopped")
    assert bench.jobs.claim("w", 60, bench.now) is not None


def test_a_job_cancelled_while_running_is_dropped(bench):
    case = bench.run(FakeExecutor(during=lambda: bench.jobs.cancel(1, "operator", "wrong patient", T0)))
    assert (case.state, case.reason) == ("CANCELLED", "wrong patient")
    assert case.slices.produced == 0
    assert folders(bench) == []


def test_the_heartbeat_notices_that_a_job_was_taken_away(bench, monkeypatch):
    monkeypatch.setattr(heartbeats, "HEARTBEAT_S", 0.01)
    beaten = threading.Event()
    original = bench.jobs.heartbeat

    def heartbeat(*arguments, **progress):
        try:
            original(*arguments, **progress)
        except Exception:
            beaten.set()
            raise

    monkeypatch.setattr(bench.jobs, "heartbeat", heartbeat)

    def during():
        bench.jobs.cancel(1, "operator", "", T0)
        assert beaten.wait(60)

    assert bench.run(FakeExecutor(during=during)).state == "CANCELLED"


def test_the_heartbeat_says_how_far_a_job_is(bench, monkeypatch):
    monkeypatch.setattr(heartbeats, "HEARTBEAT_S", 0.01)
    written, shown = threading.Event(), []
    waiting_for: list[tuple[str, int]] = []
    original = bench.jobs.heartbeat

    def heartbeat(*arguments, progress):
        original(*arguments, progress=progress)
        if progress is not None and (progress.stage, progress.done) in waiting_for:
            written.set()

    monkeypatch.setattr(bench.jobs, "heartbeat", heartbeat)

    class Reporting(FakeExecutor):
        def run(self, paths, options, out_dir, progress):
            for second, step in enumerate([("read", 3, 10), ("translate", 1, 10), ("translate", 5, 10)]):
                bench.now = T0 + timedelta(seconds=second)
                waiting_for[:] = [(step[0], step[1])]
                written.clear()
                progress(*step)
                assert written.wait(60)
                shown.append(bench.overview.case("1").progress)
            return super().run(paths, options, out_dir, progress)

    assert bench.run(Reporting()).progress is None
    began = [(one.stage, one.done, (one.started_at - T0).total_seconds()) for one in shown]
    assert began == [("read", 3, 0), ("translate", 1, 1), ("translate", 5, 1)]
    assert shown[-1].expected_end_at == T0 + timedelta(seconds=3)
