"""The worker never translates damaged files, and makes a lost result again under its UIDs or as a new version."""

import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from config.settings import NodeSettings, Settings
from node.bootstrap.worker import options_of_job
from node.network.no_association import Outcome
from node.translate.job import JobOptions, run_job
from node.translate.worker import Worker
from storage.database import Database
from storage.intake import Intake
from storage.jobs import JobStore
from storage.outbox import OutboxStore
from storage.overview import Case, Overview
from storage.series import Identifiers, JobRequest, Recorded, SeriesFacts, SeriesStore
from storage.spool import Condition, Spool
from tests.builders import FakeTranslator, make_series
from tests.damages import EVERY, OF_A_FILE, deleted, overwritten

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Executor:
    """Runs real jobs with a translator that is quick; `during` is called with each stage that is reached."""

    bundle, description = "demo", "fake on cpu"

    def __init__(self) -> None:
        self.during: Callable[[str, int], None] = lambda _stage, _done: None
        self.translator = FakeTranslator()

    def run(self, paths: Any, options: JobOptions, out_dir: Path, progress: Any) -> Any:
        def report(stage: str, done: int, total: int) -> None:
            self.during(stage, done)
            progress(stage, done, total)

        return run_job(paths, self.translator, options, out_dir, progress=report)


class Bench:
    """A store and a spool with one received series of six slices, and a worker for it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.now = T0
        self.series, self.jobs, self.outbox = SeriesStore(database), JobStore(database), OutboxStore(database)
        self.overview = Overview(database)
        self.spool = Spool(folder / "spool")
        self.intake = Intake(self.spool, self.series)
        self.executor = Executor()
        self.files = make_series(folder / "scan", slices=6)
        self.send()
        self.queue()
        self.names = [source.spool_name for source in self.series.sources(1)]

    def send(self) -> list[Recorded]:
        association = self.series.open_association("r", "CTSIM", "h", self.now)
        answers = []
        for path in self.files:
            ds = dcmread(path, stop_before_pixels=True)
            uids = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID)
            study, series, instance, sop_class = map(str, uids)
            known = Identifiers(study, series, instance, sop_class, str(ds.file_meta.TransferSyntaxUID))
            answers.append(self.intake.keep(association, "CTSIM", known, (path.read_bytes(),), self.now))
        self.series.close_association(association, released=True, now=self.now)
        return answers

    def queue(self) -> None:
        (open_series,) = self.series.undecided(self.now + timedelta(seconds=9), 5)
        assert not open_series.missing
        assert self.series.queue(open_series, SeriesFacts("", ""), JobRequest("k" * 64, "demo"), self.now)

    def work(self) -> bool:
        options_for = partial(options_of_job, Settings(node=NodeSettings(data_dir=self.spool.root)))
        worker = Worker(
            *(self.jobs, self.spool, lambda _bundle, _faults: self.executor, options_for, ["tps"]),  # type: ignore[arg-type]
            name="w",
            clock=lambda: self.now,
        )
        return worker.run_once(threading.Event())

    def lose_result(self, damage: Callable[[Path], None] = deleted) -> None:
        """What the courier does when it finds a file of the result damaged."""
        job = self.case()
        assert job.product_dir is not None
        damage(self.spool.path(f"{job.product_dir}/0002.dcm"))
        assert self.outbox.make_again(1, f"the result is made again: {Outcome.DAMAGED.value}", "courier", self.now)
        self.now += timedelta(hours=1)

    def case(self, state: str = "") -> Case:
        cases = self.overview.cases()
        return next(case for case in cases if state in ("", case.state))

    def products(self, case: Case) -> dict[str, str]:
        """UIDs and SHA-256 of a result as it lies in the spool; it must be the one that is recorded."""
        made = self.overview.products(case)
        found = {
            one.sop_instance_uid: hashlib.sha256(
                self.spool.path(f"{case.product_dir}/{one.file_name}").read_bytes()
            ).hexdigest()
            for one in made
        }
        assert found == {one.sop_instance_uid: one.sha256 for one in made}
        return found


@pytest.fixture
def bench(sqlite_file: Path, tmp_path: Path) -> Bench:
    return Bench(Database(f"sqlite:///{sqlite_file}"), tmp_path)


@pytest.mark.parametrize("damage", EVERY)
def test_a_damaged_source_is_not_translated_and_a_resend_heals_it(bench: Bench, damage: Callable[[Path], None]) -> None:
    damage(bench.spool.path(bench.names[2]))
    assert bench.work() is True
    waiting = bench.case("INCOMPLETE")
    assert waiting.reason.startswith("waits for a resend of ")
    assert bench.work() is False
    bench.now += timedelta(hours=1)
    assert set(bench.send()) == {Recorded.DUPLICATE}
    bench.queue()
    assert bench.work() is True
    (case,) = bench.overview.cases()
    assert (case.state, case.slices.produced, case.attempts) == ("PRODUCED", 6, 1)


@pytest.mark.parametrize("damage", OF_A_FILE)
def test_a_source_damaged_while_the_others_are_read_is_not_translated(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    def at(stage: str, done: int) -> None:
        if (stage, done) == ("read", 1):
            damage(bench.spool.path(bench.names[5]))

    bench.executor.during = at
    bench.work()
    assert bench.case("INCOMPLETE").reason == (
        "waits for a resend of 1 image that came and were damaged or lost in the spool"
    )


def test_a_source_damaged_after_it_was_read_hurts_nobody(bench: Bench) -> None:
    def at(stage: str, _done: int) -> None:
        if stage == "translate":
            for name in bench.names:
                bench.spool.path(name).unlink(missing_ok=True)

    bench.executor.during = at
    bench.work()
    assert bench.case().state == "PRODUCED"


def test_a_source_that_came_again_meanwhile_is_only_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.spool.path(bench.names[3])
    kept = path.read_bytes()
    path.write_bytes(b"DICM")
    original = bench.spool.condition

    def healed_meanwhile(*arguments: Any) -> Condition:
        path.write_bytes(kept)
        return original(*arguments)

    monkeypatch.setattr(bench.spool, "condition", healed_meanwhile)
    bench.work()
    (case,) = bench.overview.cases()
    assert (case.state, case.reason) == ("QUEUED", "a file of the series has other bytes than were received")
    bench.now += timedelta(minutes=1)
    bench.work()
    assert bench.case().state == "PRODUCED"


@pytest.mark.parametrize("damage", EVERY)
def test_a_lost_result_is_made_again_with_the_same_bytes_and_goes_on(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    bench.work()
    before = bench.products(bench.case())
    sources = {name: bench.spool.path(name).read_bytes() for name in bench.names}
    bench.lose_result(damage)
    for name, data in sources.items():  # where the whole spool went, somebody put the sources back
        bench.spool.path(name).parent.mkdir(parents=True, exist_ok=True)
        bench.spool.path(name).write_bytes(data)
    assert bench.outbox.claim("c", "tps", 60, bench.now) is None
    assert bench.work() is True
    (case,) = bench.overview.cases()
    assert (case.state, bench.products(case)) == ("PRODUCED", before)
    delivery = bench.outbox.claim("c", "tps", 60, bench.now)
    assert delivery is not None
    assert len(delivery.missing) == 6


def test_a_result_made_again_twice_keeps_the_moment_of_its_first_run(bench: Bench) -> None:
    bench.work()
    before = bench.products(bench.case())
    for _ in range(2):
        bench.lose_result()
        bench.work()
        assert bench.products(bench.case()) == before


def test_what_the_peer_has_taken_of_a_lost_result_is_not_sent_again(bench: Bench) -> None:
    bench.work()
    claimed = bench.outbox.claim("c", "tps", 60, bench.now)
    assert claimed is not None
    bench.outbox.record_accepted(claimed.id, "c", claimed.missing[0].product_id, 0, lease_s=60, now=bench.now)
    bench.outbox.postpone(claimed.id, "c", "damaged", not_before=bench.now, now=bench.now)
    bench.lose_result(overwritten)
    bench.work()
    again = bench.outbox.claim("c", "tps", 60, bench.now)
    assert again is not None
    assert [one.product_id for one in again.missing] == [one.product_id for one in claimed.missing[1:]]


def test_a_result_that_comes_out_otherwise_becomes_a_new_version(bench: Bench) -> None:
    bench.work()
    before = bench.products(bench.case())
    claimed = bench.outbox.claim("c", "tps", 60, bench.now)
    assert claimed is not None
    bench.outbox.record_accepted(claimed.id, "c", claimed.missing[0].product_id, 0, lease_s=60, now=bench.now)
    bench.outbox.postpone(claimed.id, "c", "damaged", not_before=bench.now, now=bench.now)
    bench.lose_result()
    bench.executor.translator.shift_hu = 61.0
    assert bench.work() is True
    old, new = bench.case("SUPERSEDED"), bench.case("QUEUED")
    assert (old.leftovers, new.version) == (("tps",), 2)
    assert "made again they have other bytes" in old.reason
    assert bench.work() is True
    produced = bench.case("PRODUCED")
    assert not set(bench.products(produced)) & set(before)
    left = {folder.name for folder in (bench.spool.root / "derived").iterdir()}
    assert left == {"1-1", "2-1"}, "what was made again is gone; the damaged one is of a job that ended: retention's"


def test_a_lost_result_without_its_sources_waits_for_a_resend(bench: Bench) -> None:
    bench.work()
    before = bench.products(bench.case())
    bench.lose_result()
    for name in bench.names:
        bench.spool.path(name).unlink()
    bench.work()
    assert bench.case("INCOMPLETE").reason.startswith("waits for a resend of 6 images")
    bench.send()
    bench.queue()
    bench.work()
    (case,) = bench.overview.cases()
    assert (case.state, bench.products(case)) == ("PRODUCED", before)
