"""Moves the moments of what waits when the clock of the host was set; moments of what is over stay as they were."""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from storage.arrivals import OPEN
from storage.database import Database
from storage.neighbour_tables import RejectionNoteRow
from storage.states import DeliveryState, JobState, Leftover, NoteState, SeriesState
from storage.tables import Association, Delivery, Job, Series
from storage.transitions import NEVER

LONGEST_WAIT: Final = timedelta(minutes=15)
"""No lease and no pause is longer. A moment further ahead was written while the clock was wrong."""

_OPEN_SERIES = (SeriesState.RECEIVING, SeriesState.COMPLETE)
_OPEN_JOBS = (JobState.QUEUED, JobState.RUNNING)
_OPEN_DELIVERIES = (DeliveryState.PENDING, DeliveryState.SENDING)


def shift_waiting(database: Database, jump: timedelta, now: datetime) -> None:
    """Move leases, next attempts and last arrivals of open rows by `jump`, in one transaction.

    now: the time after the jump. What came before it is never later than it, and nothing waits longer than
    LONGEST_WAIT: after a start of the machine with a wrong clock nobody knows the jump (`jump` is 0).
    """
    is_open = exists().where(Job.series_id == Series.id, Job.state.in_(_OPEN_JOBS))
    is_sent = exists().where(
        Job.series_id == Series.id, Delivery.job_id == Job.id, Delivery.state.in_(_OPEN_DELIVERIES)
    )
    awaited = or_(Series.state.in_(_OPEN_SERIES), and_(Series.state == SeriesState.QUEUED, or_(is_open, is_sent)))
    # Of these there may be years; where their question is due already, it needs no other time.
    asked = or_(Delivery.state == DeliveryState.SENT, Delivery.leftover == Leftover.STANDS)
    with database.write() as session:
        _move(session, select(Series).where(awaited), ("last_arrival_at",), jump, now)
        _move(session, select(Association).where(Association.outcome == OPEN), ("opened_at",), jump, now)
        waiting, latest = ("next_attempt_at", "lease_until"), now + LONGEST_WAIT
        _move(session, select(Job).where(Job.state.in_(_OPEN_JOBS)), waiting, jump, latest)
        going_out = exists().where(Delivery.job_id == Job.id, Delivery.state.in_(_OPEN_DELIVERIES))
        for job in session.scalars(select(Job).where(or_(Job.state.in_(_OPEN_JOBS), going_out))):
            _settle_turn(job, now)
        _move(session, select(Delivery).where(Delivery.state.in_(_OPEN_DELIVERIES)), waiting, jump, latest)
        notes = select(RejectionNoteRow).where(RejectionNoteRow.state == NoteState.PENDING)
        _move(session, notes, ("next_attempt_at",), jump, latest)
        later = and_(asked, Delivery.next_attempt_at > now, Delivery.next_attempt_at < NEVER)
        _move(session, select(Delivery).where(later), ("next_attempt_at",), jump, latest)


def _settle_turn(job: Job, now: datetime) -> None:
    """Let a job that was queued while the clock was ahead not be wanted after all that comes from now on."""
    if job.created_at > now:
        job.due_at = min(job.due_at, now + abs(job.due_at - job.created_at))
    else:  # it was moved so when the machine began with a clock far behind
        job.due_at = max(job.due_at, job.created_at)


def _move(session: Session, rows: Any, columns: tuple[str, ...], jump: timedelta, latest: datetime) -> None:
    for row in session.scalars(rows):
        for column in columns:
            moment = getattr(row, column)
            if moment is not None:
                setattr(row, column, min(moment + jump, latest))
