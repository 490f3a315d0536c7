"""A rebuilt store counts on behind the numbers of the old jobs, so that no new one writes into an old one's folder."""

from datetime import UTC, datetime

from sqlalchemy import select

from storage.database import Database
from storage.jobs import JobStore, ProducedInstance, ProducedSeries
from storage.rebuilt import FoundResult, RebuiltStore
from storage.series import Arrival, JobRequest, SeriesFacts, SeriesStore
from storage.tables import Job

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def arrival(series: str) -> Arrival:
    uids = ("1.2", series, f"{series}.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    return Arrival(*uids, series.rjust(64, "0"), f"received/{series}.dcm", 1)


def result(job_id: int) -> FoundResult:
    instance = ProducedInstance(f"9.{job_id}", "1.2.3.1", "0001.dcm", "f" * 64)
    return FoundResult(job_id, NOW, ProducedSeries(f"8.{job_id}", f"derived/{job_id}-1", (instance,), {}))


def test_the_newest_result_is_held_the_older_superseded_and_new_jobs_count_on(database: Database) -> None:
    rebuilt, series = RebuiltStore(database), SeriesStore(database)
    assert rebuilt.is_empty()
    rebuilt.receive([(arrival("1.2.3"), NOW), (arrival("1.2.4"), NOW)], NOW)
    assert not rebuilt.is_empty()
    rebuilt.add_results("1.2", "1.2.3", SeriesFacts("", ""), [result(40), result(41)], NOW)
    rebuilt.settle_numbers()
    (waiting,) = series.undecided(NOW, 0.0)
    assert series.queue(waiting, SeriesFacts("", ""), JobRequest("k" * 64, "bundle"), NOW)
    with database.read() as session:
        jobs = session.scalars(select(Job).order_by(Job.id)).all()
        assert [(job.id, job.run, str(job.state), job.product_dir) for job in jobs] == [
            (40, 1, "SUPERSEDED", "derived/40-1"),
            (41, 2, "HELD", "derived/41-1"),
            (42, 1, "QUEUED", None),
        ]
    assert rebuilt.counts() == {"QUEUED": 2}


def test_a_result_whose_source_retention_removed_is_kept_as_well(database: Database) -> None:
    rebuilt = RebuiltStore(database)
    rebuilt.add_results("1.2", "1.2.3", SeriesFacts("", ""), [result(7)], NOW)
    JobStore(database).release(7, ["tps"], "operator", "it is not there", NOW)
    assert rebuilt.source_of("1.2.3") == []
