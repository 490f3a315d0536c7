"""Counts of what is settled, made ahead of readers where a store is large.

Nearly every row of an old store is in a state that it keeps for ever. To count 1,000,000 of them takes a database
seconds, and everyone who asks how the node is would wait for it. So the watch counts them every five minutes. Readers
add what is not settled, which an index finds. A store of fewer rows is always counted as it is. So is one whose watch
does not run: what was counted is used for fifteen minutes only.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.scale_tables import TallyRow
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Delivery, Job, Series

LARGE: Final = 50_000  # series; fewer are counted in a twentieth of a second
KEPT_FOR: Final = timedelta(minutes=15)
COUNTED_EVERY: Final = timedelta(minutes=5)
ROWS, CASES = "rows", "cases"
"""Rows by raw state, and cases by a reader's state."""

SETTLED_SERIES: Final = (SeriesState.QUEUED, SeriesState.SKIPPED)
SETTLED_JOBS: Final = (JobState.PRODUCED, JobState.SUPERSEDED, JobState.CANCELLED, JobState.REJECTED)
_SETTLED_DELIVERIES: Final = (DeliveryState.SENT, DeliveryState.CONFIRMED)
UNSETTLED_SERIES: Final = [state for state in SeriesState if state not in SETTLED_SERIES]
UNSETTLED_JOBS: Final = [state for state in JobState if state not in SETTLED_JOBS]
_UNSETTLED_DELIVERIES: Final = [state for state in DeliveryState if state not in _SETTLED_DELIVERIES]


def row_counts(session: Session, now: datetime) -> dict[str, int]:
    """Number of rows per raw state, keyed `machine:STATE`; states without a row are left out."""
    settled = kept_counts(session, ROWS, now)
    if settled is None:
        settled = _settled_rows(session)
    unsettled = ((Series, UNSETTLED_SERIES), (Job, UNSETTLED_JOBS), (Delivery, _UNSETTLED_DELIVERIES))
    return {**settled, **_rows(session, unsettled)}


def kept_counts(session: Session, name: str, now: datetime) -> Mapping[str, int] | None:
    """What was counted in the last minutes; None where nothing was."""
    counts = session.scalar(select(TallyRow.counts).where(TallyRow.name == name, TallyRow.at > now - KEPT_FOR))
    return counts or None


def keep_counts(database: Database, now: datetime, settled_cases: Callable[[Session], Mapping[str, int]]) -> None:
    """Count what is settled of a large store and keep it, unless that was done within the last five minutes."""
    with database.read() as session:
        newest = session.scalar(select(func.max(TallyRow.at)))
        if (newest is not None and newest > now - COUNTED_EVERY) or _series(session) < LARGE:
            return
        counted = {ROWS: _settled_rows(session), CASES: dict(settled_cases(session))}
    with database.write() as session:
        for name, counts in counted.items():
            session.merge(TallyRow(name=name, counts=counts, at=now))


def _series(session: Session) -> int:
    """How many series came in all: the number of the newest."""
    return session.scalar(select(func.max(Series.id))) or 0


def _settled_rows(session: Session) -> dict[str, int]:
    return _rows(session, ((Series, SETTLED_SERIES), (Job, SETTLED_JOBS), (Delivery, _SETTLED_DELIVERIES)))


def _rows(session: Session, wanted: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for table, states in wanted:
        query = select(table.state, func.count()).where(table.state.in_(states)).group_by(table.state)
        found |= {f"{table.__tablename__}:{state}": count for state, count in session.execute(query)}
    return found
