"""A received file that is damaged or gone is made good by the same instance, whatever happened to it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from storage.database import Database
from storage.intake import Intake
from storage.jobs import JobStore
from storage.overview import Overview
from storage.series import Identifiers, JobRequest, OpenSeries, Recorded, SeriesFacts, SeriesStore
from storage.sources import SourceFile
from storage.spool import LOST, Condition, Spool
from storage.tables import Event
from tests.damages import EVERY, deleted, overwritten

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
FACTS = SeriesFacts("Thorax", "TEST-1")


class Bench:
    """A node's way in, and one series of three instances that it received."""

    def __init__(self, database: Database, root: Path) -> None:
        self.database, self.series, self.jobs = database, SeriesStore(database), JobStore(database)
        self.spool = Spool(root)
        self.intake = Intake(self.spool, self.series)
        for number in range(3):
            assert self.send(number) is Recorded.NEW

    def send(self, number: int, data: bytes = b"head and pixels", ae: str = "CTSIM") -> Recorded:
        association = self.series.open_association("receiver", ae, "10.0.0.1", NOW)
        uids = Identifiers("1.2", "1.2.3", f"1.2.3.{number}", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
        recorded = self.intake.keep(association, ae, uids, (b"%d" % number, data), NOW)
        self.series.close_association(association, released=True, now=NOW)
        return recorded

    def open(self) -> OpenSeries:
        (series,) = self.series.undecided(NOW + timedelta(minutes=1), 5)
        return series

    def queue(self) -> None:
        assert self.series.queue(self.open(), FACTS, JobRequest("k" * 64, "demo"), NOW)

    def lose(self, *numbers: int) -> int:
        lost = {self.file(number).spool_name: Condition.DAMAGED for number in numbers}
        return self.series.lose_sources(1, lost, "worker", NOW)

    def file(self, number: int) -> SourceFile:
        return next(one for one in self.series.sources(1) if one.sop_instance_uid == f"1.2.3.{number}")

    def condition(self, number: int) -> Condition:
        one = self.file(number)
        return self.spool.condition(one.spool_name, one.sha256, one.size_bytes)

    def states(self) -> list[str]:
        return [case.state for case in Overview(self.database).cases()]


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    return Bench(database, tmp_path / "data" / "spool")


@pytest.mark.parametrize("damage", EVERY)
def test_whatever_happened_to_a_file_the_same_instance_makes_it_good(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    damage(bench.spool.path(bench.file(1).spool_name))
    assert bench.condition(1) in LOST
    assert bench.send(1) is Recorded.DUPLICATE
    assert bench.condition(1) is Condition.INTACT
    assert [path for path in bench.spool.incoming.iterdir()] == []


@pytest.mark.parametrize("damage", EVERY)
def test_after_whatever_happened_new_instances_are_kept_at_once(bench: Bench, damage: Callable[[Path], None]) -> None:
    damage(bench.spool.path(bench.file(1).spool_name))
    assert bench.send(7) is Recorded.NEW
    assert bench.condition(7) is Condition.INTACT


def test_a_duplicate_of_an_intact_file_leaves_it_as_it_is(bench: Bench) -> None:
    path = bench.spool.path(bench.file(1).spool_name)
    before = path.stat().st_ino
    assert bench.send(1) is Recorded.DUPLICATE
    assert path.stat().st_ino == before
    assert len(list((bench.spool.root / "received").rglob("*.dcm"))) == 3


def test_a_queued_series_without_a_file_waits_for_a_resend_and_says_which(bench: Bench) -> None:
    bench.queue()
    assert bench.lose(0, 2) == 2
    series, job = Overview(bench.database).cases()
    assert (series.state, series.slices.received, job.state) == ("INCOMPLETE", 1, "QUEUED")
    assert series.reason == "waits for a resend of 2 images that came and were damaged or lost in the spool"
    reasons = [event.reason for event in Overview(bench.database).events(series)]
    assert "instance 1.2.3.0 is damaged in the spool afterwards" in reasons
    assert "instance 1.2.3.2 is damaged in the spool afterwards" in reasons
    assert bench.jobs.claim("w", 60, NOW) is None


def test_the_resend_heals_by_itself_and_the_job_goes_on(bench: Bench) -> None:
    bench.queue()
    overwritten(bench.spool.path(bench.file(1).spool_name))
    bench.lose(1)
    assert bench.send(1) is Recorded.DUPLICATE
    assert not bench.open().missing
    bench.queue()
    job = bench.jobs.claim("w", 60, NOW)
    assert job is not None
    assert (job.id, job.attempt, len(job.sources)) == (1, 1, 3)
    assert bench.condition(1) is Condition.INTACT


def test_a_series_that_lost_all_its_files_keeps_its_owner(bench: Bench) -> None:
    bench.queue()
    bench.lose(0, 1, 2)
    assert bench.send(1, b"other pixels", ae="STRANGER") is Recorded.FOREIGN
    assert bench.send(1) is Recorded.DUPLICATE


def test_a_resend_of_a_part_leaves_the_rest_missing(bench: Bench) -> None:
    bench.queue()
    bench.lose(0, 1)
    bench.send(0)
    (missing,) = bench.open().missing
    assert (missing.sop_instance_uid, missing.reason) == ("1.2.3.1", "damaged in the spool afterwards")


def test_a_resend_in_other_bytes_counts_as_well(bench: Bench) -> None:
    bench.queue()
    bench.lose(1)
    assert bench.send(1, b"the same image in another encoding") is Recorded.REPLACED
    assert not bench.open().missing
    bench.queue()
    assert bench.states() == ["QUEUED"]


def test_a_job_that_failed_for_want_of_a_file_is_queued_again(bench: Bench) -> None:
    bench.queue()
    assert bench.jobs.claim("w", 60, NOW) is not None
    bench.jobs.fail(1, "w", "a file of the series does not exist any more", NOW)
    deleted(bench.spool.path(bench.file(1).spool_name))
    bench.send(1)
    assert bench.states() == ["QUEUED"]


def test_a_series_skipped_for_want_of_a_file_is_judged_again(bench: Bench) -> None:
    bench.series.skip(bench.open(), FACTS, "a file is damaged", NOW)
    overwritten(bench.spool.path(bench.file(1).spool_name))
    bench.send(1)
    assert bench.states() == ["RECEIVING"]


def test_what_a_finished_job_does_not_need_is_not_waited_for(bench: Bench) -> None:
    bench.queue()
    assert bench.jobs.claim("w", 60, NOW) is not None
    bench.jobs.cancel(1, "operator", "", NOW)
    assert bench.lose(1) == 0
    assert bench.states() == ["CANCELLED"]


def test_files_that_are_there_again_count_without_a_resend(bench: Bench) -> None:
    bench.queue()
    bench.lose(0, 1, 2)
    names = [one.spool_name for one in bench.series.lost_sources(1)]
    assert bench.series.find_sources(1, names[:2], "operator", NOW) == 2
    assert [one.sop_instance_uid for one in bench.series.lost_sources(1)] == ["1.2.3.2"]
    assert bench.open().instances == 2


def test_a_loss_makes_a_decision_about_the_series_stale(bench: Bench) -> None:
    before = bench.open()
    bench.lose(1)
    assert not bench.series.queue(before, FACTS, JobRequest("k" * 64, "demo"), NOW)
    assert bench.open().missing


def test_events_of_a_great_loss_are_bounded(bench: Bench) -> None:
    for number in range(3, 40):
        bench.send(number)
    bench.queue()
    bench.lose(*range(40))
    with bench.database.read() as session:
        events = session.scalars(select(Event).where(Event.reason.startswith("instance 1.2.3."))).all()
    assert len(events) == 20
