"""ShadowStore keeps what a second bundle made of the sources of jobs; nothing of it is ever sent or changes a job."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, exists, or_, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.spool import Wanted
from storage.states import JobState, SeriesState
from storage.tables import Instance, Job, Series, Shadow

PENDING, MEASURED, FAILED = "PENDING", "MEASURED", "FAILED"
YOUNG: Final = timedelta(days=7)  # older jobs are not gone through when a site names a second bundle
LEFT_BEHIND_AFTER: Final = timedelta(hours=1)
MAX_ATTEMPTS: Final = 2  # a series that ended the process so often is not tried again
_ATTEMPTS: Final = "attempts"


@dataclass(frozen=True)
class ShadowJob:
    """A job whose source is to be translated by the second bundle; files are relative to the spool."""

    job_id: int
    repeat: int
    version: int
    sources: tuple[Wanted, ...]
    product_dir: str


@dataclass(frozen=True)
class ShadowView:
    """What a second bundle made of one job's source; outcome is PENDING, MEASURED or FAILED."""

    job_id: int
    bundle: str
    outcome: str
    reason: str
    measurements: Mapping[str, Any]
    updated_at: datetime


class ShadowStore:
    """The only writer of shadows; it reads jobs and writes none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, bundle: str, now: datetime) -> ShadowJob | None:
        """The newest job with a result that this bundle has not seen, marked as taken; None where there is none.

        One that a killed process left is taken again after an hour, twice at most.
        """
        with self._database.write() as session:
            _give_up(session, bundle, now)
            job = session.scalars(_waiting(bundle, now)).first()
            if job is None:
                return None
            row = session.scalar(select(Shadow).where(Shadow.job_id == job.id, Shadow.bundle == bundle))
            if row is None:
                row = Shadow(job_id=job.id, bundle=bundle, outcome=PENDING, measurements={})
                session.add(row)
            row.measurements = {_ATTEMPTS: row.measurements.get(_ATTEMPTS, 0) + 1}
            row.updated_at = now
            rows = session.execute(
                select(Instance.spool_name, Instance.sha256, Instance.size_bytes).where(
                    Instance.series_id == job.series_id, Instance.is_current
                )
            )
            sources = tuple((name, sha256, size_bytes) for name, sha256, size_bytes in rows)
            return ShadowJob(job.id, job.repeat, job.version, sources, str(job.product_dir))

    def measured(self, job_id: int, bundle: str, measurements: Mapping[str, Any], doubt: str, now: datetime) -> None:
        """PENDING -> MEASURED with its figures, and with what a gate said against the result, or ""."""
        with self._database.write() as session:
            row = _row(session, job_id, bundle)
            row.outcome, row.reason, row.measurements, row.updated_at = MEASURED, doubt, dict(measurements), now

    def failed(self, job_id: int, bundle: str, reason: str, now: datetime) -> None:
        """PENDING -> FAILED; it is not tried again."""
        with self._database.write() as session:
            row = _row(session, job_id, bundle)
            row.outcome, row.reason, row.measurements, row.updated_at = FAILED, reason, {}, now

    def drop(self, job_id: int, bundle: str) -> None:
        """It was interrupted for a real job, and is done later as if it had never begun."""
        with self._database.write() as session:
            session.execute(delete(Shadow).where(Shadow.job_id == job_id, Shadow.bundle == bundle))

    def work_waits(self, now: datetime) -> bool:
        """Whether a real job is due."""
        due = exists().where(
            Job.series_id == Series.id,
            Series.state == SeriesState.QUEUED,
            Job.state == JobState.QUEUED,
            Job.next_attempt_at <= now,
        )
        with self._database.read() as session:
            return bool(session.scalar(select(due)))

    def views(self, job_id: int | None = None) -> list[ShadowView]:
        """The shadows of one job, or all, oldest first."""
        query = select(Shadow).order_by(Shadow.id)
        if job_id is not None:
            query = query.where(Shadow.job_id == job_id)
        with self._database.read() as session:
            return [
                ShadowView(row.job_id, row.bundle, row.outcome, row.reason, row.measurements, row.updated_at)
                for row in session.scalars(query)
            ]


def _row(session: Session, job_id: int, bundle: str) -> Shadow:
    return session.scalars(select(Shadow).where(Shadow.job_id == job_id, Shadow.bundle == bundle)).one()


def _waiting(bundle: str, now: datetime) -> Any:
    seen = exists().where(
        Shadow.job_id == Job.id,
        Shadow.bundle == bundle,
        or_(Shadow.outcome != PENDING, Shadow.updated_at > now - LEFT_BEHIND_AFTER),
    )
    return (
        select(Job)
        .join(Series, Series.id == Job.series_id)
        .where(Job.state.in_((JobState.PRODUCED, JobState.HELD)), Job.product_dir.is_not(None))
        .where(Job.purged_at.is_(None), Job.updated_at > now - YOUNG)
        .where(Series.state == SeriesState.QUEUED, Series.job_id == Job.id, Series.purged_at.is_(None))
        .where(~seen)
        .order_by(Job.id.desc())
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True, of=Job)
    )


def _give_up(session: Session, bundle: str, now: datetime) -> None:
    old = select(Shadow).where(Shadow.bundle == bundle, Shadow.outcome == PENDING)
    for row in session.scalars(old.where(Shadow.updated_at <= now - LEFT_BEHIND_AFTER)):
        if row.measurements.get(_ATTEMPTS, 0) >= MAX_ATTEMPTS:
            row.outcome, row.reason = FAILED, "the worker ended each time while it was translated"
            row.updated_at = now
