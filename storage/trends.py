"""Trends say how the last days went: how many series were made, held, failed and sent, and how long that took."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import and_, or_, select

from storage.database import Database
from storage.states import DeliveryState, JobState
from storage.tables import Event, Job

_MOST: Final = 20_000  # events that are read; a department makes some hundred a day
_OF_JOBS: Final = (JobState.RUNNING, JobState.PRODUCED, JobState.HELD, JobState.FAILED)


@dataclass(frozen=True)
class Step:
    """One series got further: it was PRODUCED, HELD or FAILED by a worker, or SENT to a destination.

    per_slice_s: seconds per slice of the translation that ended then. to_tps_s: seconds from the moment when the job
    was queued; None where a person decided in between, which takes as long as it takes.
    """

    at: datetime
    outcome: str
    per_slice_s: float | None = None
    to_tps_s: float | None = None


class Trends:
    """Read-only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def steps(self, since: datetime) -> list[Step]:
        """What happened since then, oldest first; of more than 20,000 events the newest count."""
        by_worker = and_(Event.machine == "job", Event.to_state.in_(_OF_JOBS))
        by_courier = and_(Event.machine == "delivery", Event.to_state == DeliveryState.SENT)
        query = (
            select(
                Event.at,
                Event.machine,
                Event.from_state,
                Event.to_state,
                Job.id,
                Job.source_count,
                Job.created_at,
                Job.override,
            )
            .join(Job, Event.job_id == Job.id)
            .where(Event.at >= since, or_(by_worker, by_courier))
            .order_by(Event.at.desc(), Event.id.desc())
            .limit(_MOST)
        )
        with self._database.read() as session:
            rows = session.execute(query).all()
        return _steps(rows[::-1])


def _steps(rows: Sequence[Any]) -> list[Step]:
    begun: dict[int, datetime] = {}
    found = []
    for at, machine, from_state, to_state, job_id, slices, queued_at, override in rows:
        if machine == "delivery":
            waited_s = max(0.0, (at - queued_at).total_seconds()) if not override else None
            found.append(Step(at, to_state, to_tps_s=waited_s))
        elif to_state == JobState.RUNNING:
            begun[job_id] = at
        elif from_state == JobState.RUNNING:
            start = begun.pop(job_id, None)
            spent_s = max(0.0, (at - start).total_seconds()) if start is not None and slices else None
            made = to_state != JobState.FAILED and spent_s is not None
            found.append(Step(at, to_state, per_slice_s=spent_s / slices if made and spent_s is not None else None))
    return found
