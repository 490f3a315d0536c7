"""OfferedStore reads which derived series a peer may find and fetch: results that stand for their series now.

Never a received series, a result that waits for a person, was rejected, cancelled or superseded, and never
the phantom of a constancy run. It writes nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ColumnElement, exists, func, select, type_coerce

from storage.database import Database
from storage.states import JobState, SeriesState
from storage.tables import ConstancyRow, Delivery, Job, Product, Series


@dataclass(frozen=True)
class OfferedSeries:
    """One derived series. made_at: when the job last changed, by which a result that was made again is told."""

    job_id: int
    study_uid: str
    series_uid: str
    count: int
    made_at: datetime


@dataclass(frozen=True)
class OfferedInstance:
    """One derived instance. file_name: relative to the spool. sha256: of the file as it was produced, hex."""

    sop_instance_uid: str
    file_name: str
    sha256: str


class OfferedStore:
    """What may be found and fetched at this moment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def series(self, study_uids: Collection[str] = (), series_uids: Collection[str] = ()) -> list[OfferedSeries]:
        """The series that may be sent, the newest first, of these studies and with these UIDs; empty is any."""
        wanted = list(_may_be_sent())
        if study_uids:
            wanted.append(Series.study_uid.in_(study_uids))
        if series_uids:
            wanted.append(Job.derived_series_uid.in_(series_uids))
        query = (
            select(Job.id, Series.study_uid, Job.derived_series_uid, func.count(Product.id), Job.updated_at)
            .join(Series, Series.id == Job.series_id)
            .join(Product, Product.job_id == Job.id)
            .where(*wanted)
            .group_by(Job.id, Series.study_uid, Job.derived_series_uid, Job.updated_at)
            .order_by(Job.id.desc())
        )
        with self._database.read() as session:
            return [
                OfferedSeries(job_id, study_uid, series_uid or "", count, made_at)
                for job_id, study_uid, series_uid, count, made_at in session.execute(query)
            ]

    def instances(self, job_id: int) -> list[OfferedInstance]:
        """The instances of a series in the order of their slices; none where it may not be sent any more."""
        query = (
            select(Product.sop_instance_uid, Product.file_name, Product.sha256, Job.product_dir)
            .join(Job, Job.id == Product.job_id)
            .join(Series, Series.id == Job.series_id)
            .where(Job.id == job_id, *_may_be_sent())
            .order_by(Product.file_name)
        )
        with self._database.read() as session:
            rows = session.execute(query).all()
        return [OfferedInstance(uid, f"{folder}/{name}", sha256) for uid, name, sha256, folder in rows]

    def may_be_sent(self, job_id: int) -> bool:
        """Whether the series of a job may be sent at this moment."""
        query = select(Job.id).join(Series, Series.id == Job.series_id).where(Job.id == job_id, *_may_be_sent())
        with self._database.read() as session:
            return session.scalar(query) is not None


def _may_be_sent() -> tuple[ColumnElement[bool], ...]:
    """As the courier decides it, for every destination at once: a delivery that waits for a person keeps it back."""
    held: Any = exists().where(Delivery.job_id == Job.id, Delivery.held_for != "", Delivery.override == "")
    named = type_coerce(ConstancyRow.measurements, JSON)["series_uid"].as_string()
    phantom: Any = exists().where(named == Series.series_uid)
    return (
        Job.state == JobState.PRODUCED,
        Series.state == SeriesState.QUEUED,
        Job.purged_at.is_(None),
        Job.product_dir.is_not(None),
        ~held,
        ~phantom,
    )
