"""Moves the moments of what waits when the clock of the host was set; moments of what is over stay as they were."""

from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.arrivals import OPEN
from storage.database import Database
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Association, Delivery, Job, Series

_OPEN_SERIES = (SeriesState.RECEIVING, SeriesState.COMPLETE)
_OPEN_JOBS = (JobState.QUEUED, JobState.RUNNING)
_OPEN_DELIVERIES = (DeliveryState.PENDING, DeliveryState.SENDING)


def shift_waiting(database: Database, jump: timedelta) -> None:
    """Move leases, next attempts and last arrivals of open rows by `jump`, in one transaction."""
    with database.write() as session:
        _move(session, select(Series).where(Series.state.in_(_OPEN_SERIES)), ("last_arrival_at",), jump)
        _move(session, select(Association).where(Association.outcome == OPEN), ("opened_at",), jump)
        waiting = ("next_attempt_at", "lease_until")
        _move(session, select(Job).where(Job.state.in_(_OPEN_JOBS)), waiting, jump)
        _move(session, select(Delivery).where(Delivery.state.in_(_OPEN_DELIVERIES)), waiting, jump)


def _move(session: Session, rows: Any, columns: tuple[str, ...], jump: timedelta) -> None:
    for row in session.scalars(rows):
        for column in columns:
            moment = getattr(row, column)
            if moment is not None:
                setattr(row, column, moment + jump)
