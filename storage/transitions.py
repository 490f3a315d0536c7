"""The functions through which a row gets its first state and changes it: each checks the arrow and writes the event.

What happens to a series without an arrow gets an event here as well.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.states import (
    LIVE_JOB_STATES,
    OPEN_DELIVERY_STATES,
    DeliveryState,
    JobState,
    SeriesState,
    State,
    check_transition,
)
from storage.tables import Delivery, Event, Job, Series


def begin_series(session: Session, row: Series, *, actor: str, reason: str, now: datetime) -> None:
    """Add a series in RECEIVING."""
    row.patient_id = row.description = ""
    row.arrivals = 0
    _begin(session, row, SeriesState.RECEIVING, now)
    _write_event(session, "", row.state, actor, reason, at=now, machine="series", series_id=row.id)


def begin_job(session: Session, row: Job, *, actor: str, reason: str, now: datetime) -> None:
    """Add a job in QUEUED that is due at once."""
    row.attempts, row.next_attempt_at, row.measurements = 0, now, {}
    _begin(session, row, JobState.QUEUED, now)
    _write_event(session, "", row.state, actor, reason, at=now, **_of_job(row))


def begin_delivery(session: Session, row: Delivery, series_id: int, *, actor: str, reason: str, now: datetime) -> None:
    """Add a delivery in PENDING that is due at once."""
    row.attempts, row.next_attempt_at = 0, now
    _begin(session, row, DeliveryState.PENDING, now)
    _write_event(session, "", row.state, actor, reason, at=now, **_of_delivery(row, series_id))


def move_series(session: Session, row: Series, to: SeriesState, *, actor: str, reason: str, now: datetime) -> None:
    """Move a series along an existing arrow; raises IllegalTransition."""
    check_transition(row.state, to)
    _write_event(session, row.state, to, actor, reason, at=now, machine="series", series_id=row.id)
    row.state, row.reason, row.updated_at = to, reason, now


def note_series(session: Session, row: Series, *, actor: str, reason: str, now: datetime) -> None:
    """Write down what happened to a series without changing its state."""
    _write_event(session, row.state, row.state, actor, reason, at=now, machine="series", series_id=row.id)


def move_job(session: Session, row: Job, to: JobState, *, actor: str, reason: str, now: datetime) -> None:
    """Move a job along an existing arrow; leaving RUNNING gives the lease back. Raises IllegalTransition."""
    check_transition(row.state, to)
    _write_event(session, row.state, to, actor, reason, at=now, **_of_job(row))
    row.state, row.reason, row.updated_at = to, reason, now
    if to is not JobState.RUNNING:
        row.worker = row.lease_until = None


def move_delivery(
    session: Session, row: Delivery, series_id: int, to: DeliveryState, *, actor: str, reason: str, now: datetime
) -> None:
    """Move a delivery along an existing arrow; leaving SENDING gives the lease back. Raises IllegalTransition."""
    check_transition(row.state, to)
    _write_event(session, row.state, to, actor, reason, at=now, **_of_delivery(row, series_id))
    row.state, row.reason, row.updated_at = to, reason, now
    if to is not DeliveryState.SENDING:
        row.courier = row.lease_until = None


def _begin(session: Session, row: Any, state: State, now: datetime) -> None:
    """Add a row in its first state; it gets its id, which its first event needs."""
    row.state, row.reason, row.created_at, row.updated_at = state, "", now, now
    session.add(row)
    session.flush()


def _of_job(row: Job) -> dict[str, Any]:
    return {"machine": "job", "series_id": row.series_id, "job_id": row.id}


def _of_delivery(row: Delivery, series_id: int) -> dict[str, Any]:
    return {"machine": "delivery", "series_id": series_id, "job_id": row.job_id, "delivery_id": row.id}


def _write_event(session: Session, from_state: str, to_state: str, actor: str, reason: str, **of: Any) -> None:
    session.add(Event(from_state=from_state, to_state=to_state, actor=actor, reason=reason, **of))


def supersede_live_job(session: Session, series_id: int, reason: str, actor: str, now: datetime) -> None:
    """Mark the live job of a series SUPERSEDED and cancel what of it was not delivered yet."""
    job = session.scalar(select(Job).where(Job.series_id == series_id, Job.state.in_(LIVE_JOB_STATES)))
    if job is None:
        return
    move_job(session, job, JobState.SUPERSEDED, actor=actor, reason=reason, now=now)
    cancel_open_deliveries(session, job, reason, actor, now)
    session.flush()


def cancel_open_deliveries(session: Session, job: Job, reason: str, actor: str, now: datetime) -> None:
    """Cancel every delivery of a job that has not reached SENT."""
    open_ = select(Delivery).where(Delivery.job_id == job.id, Delivery.state.in_(OPEN_DELIVERY_STATES))
    for delivery in session.scalars(open_):
        move_delivery(session, delivery, job.series_id, DeliveryState.CANCELLED, actor=actor, reason=reason, now=now)
