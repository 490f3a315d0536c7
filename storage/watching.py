"""WatchStore answers what only the watch asks: when series came, and which work has ended processes or devices."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select

from storage.database import Database
from storage.states import DeliveryState, JobState, SeriesState, case_id
from storage.tables import Delivery, Instance, Job, Series
from storage.transitions import NEVER

_AT_WORK = (JobState.QUEUED, JobState.RUNNING)
_UNDECIDED = (SeriesState.RECEIVING, SeriesState.COMPLETE)


@dataclass(frozen=True)
class Harm:
    """How often a process ended, or the device failed, while this unfinished case was in hand."""

    case_id: str
    series_id: int
    job_id: int | None
    deaths: int
    device_faults: int


class WatchStore:
    """Read-only questions of the watch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def arrivals(self, since: datetime) -> list[datetime]:
        """When series began or last got an instance, since then; in no order."""
        query = select(Series.created_at, Series.last_arrival_at)
        with self._database.read() as session:
            rows = session.execute(query.where(Series.last_arrival_at >= since)).all()
        return [moment for row in rows for moment in row if moment >= since]

    def received_contents(self, digests: Collection[str]) -> set[str]:
        """Those of some SHA-256 values under which an instance was received; it reads all rows of instances."""
        with self._database.read() as session:
            return set(session.scalars(select(Instance.sha256).where(Instance.sha256.in_(digests))))

    def unconfirmed(self, since: datetime) -> dict[str, int]:
        """How many results that were sent since then each destination did not confirm, and is asked about no more."""
        query = (
            select(Delivery.destination, func.count())
            .join(Job, Job.id == Delivery.job_id)
            .where(Delivery.state == DeliveryState.SENT, Delivery.next_attempt_at >= NEVER)
            .where(Delivery.updated_at >= since, Job.state == JobState.PRODUCED)
            .group_by(Delivery.destination)
            .order_by(Delivery.destination)
        )
        with self._database.read() as session:
            return {destination: count for destination, count in session.execute(query)}

    def harms(self) -> list[Harm]:
        """Unfinished cases during which a process ended or the device failed at least once, oldest first."""
        jobs = select(Job).where(Job.state.in_(_AT_WORK), or_(Job.deaths > 0, Job.device_faults > 0))
        series = select(Series).where(Series.state.in_(_UNDECIDED), Series.deaths > 0)
        with self._database.read() as session:
            found = [_of_job(row) for row in session.scalars(jobs.order_by(Job.id))]
            return found + [_of_series(row) for row in session.scalars(series.order_by(Series.id))]


def _of_job(row: Job) -> Harm:
    return Harm(case_id(row.series_id, row.run), row.series_id, row.id, row.deaths, row.device_faults)


def _of_series(row: Series) -> Harm:
    return Harm(case_id(row.id, 1), row.id, None, row.deaths, 0)
