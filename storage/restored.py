"""A store that was put back from a backup: what stands in it, and what is no longer true of it."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from storage.arrivals import LOST, OPEN
from storage.database import Database
from storage.people_tables import WebSession
from storage.scale_tables import ProcessRow
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Association, Delivery, Job, Series

_GOES_ON: Final[dict[str, Collection[str]]] = {
    "series": (SeriesState.RECEIVING, SeriesState.COMPLETE),
    "jobs": (JobState.QUEUED, JobState.RUNNING),
    "deliveries": (DeliveryState.PENDING, DeliveryState.SENDING),
}


@dataclass(frozen=True)
class Census:
    """How many series, jobs and deliveries are in each state."""

    series: Counter[str]
    jobs: Counter[str]
    deliveries: Counter[str]

    def goes_on(self) -> dict[str, int]:
        """How many series, jobs and deliveries the node works at by itself."""
        return {kind: sum(getattr(self, kind)[state] for state in states) for kind, states in _GOES_ON.items()}


def census(database: Database) -> Census:
    """Count them. Raises SchemaMismatch and StoreUnavailable."""
    with database.read() as session:
        return Census(*(_states(session, table) for table in (Series, Job, Delivery)))


def _states(session: Session, table: Any) -> Counter[str]:
    rows = session.execute(select(table.state, func.count()).group_by(table.state))
    return Counter({str(state): count for state, count in rows})


def settle(database: Database, now: datetime) -> None:
    """Say of the store what no process of it can say any more.

    Its associations ended with the machine that had them, which may have had another name; nobody has a series in hand;
    no process that reported itself counts as one that runs, or as one that is missed; and nobody is logged in: who
    logged out after the backup was made would be logged in again.
    """
    with database.write() as session:
        session.execute(update(Association).where(Association.outcome == OPEN).values(outcome=LOST, closed_at=now))
        session.execute(update(Series).where(Series.in_hand.is_not(None)).values(in_hand=None))
        session.execute(delete(ProcessRow))
        session.execute(delete(WebSession))
