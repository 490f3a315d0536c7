"""The functions through which a state changes: they check the arrow, move the row and write the event."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.states import (
    LIVE_JOB_STATES,
    OPEN_DELIVERY_STATES,
    DeliveryState,
    JobState,
    SeriesState,
    check_transition,
)
from storage.tables import Delivery, Event, Job, Series


def move_series(session: Session, row: Series, to: SeriesState, *, actor: str, reason: str, now: datetime) -> None:
    """Move a series along an existing arrow; raises IllegalTransition."""
    check_transition(row.state, to)
    session.add(
        Event(at=now, series_id=row.id, machine="series", from_state=row.state, to_state=to, actor=actor, reason=reason)
    )
    row.state, row.reason, row.updated_at = to, reason, now


def move_job(session: Session, row: Job, to: JobState, *, actor: str, reason: str, now: datetime) -> None:
    """Move a job along an existing arrow; leaving RUNNING gives the lease back. Raises IllegalTransition."""
    check_transition(row.state, to)
    session.add(
        Event(
            at=now,
            series_id=row.series_id,
            job_id=row.id,
            machine="job",
            from_state=row.state,
            to_state=to,
            actor=actor,
            reason=reason,
        )
    )
    row.state, row.reason, row.updated_at = to, reason, now
    if to is not JobState.RUNNING:
        row.worker = row.lease_until = None


def move_delivery(
    session: Session, row: Delivery, series_id: int, to: DeliveryState, *, actor: str, reason: str, now: datetime
) -> None:
    """Move a delivery along an existing arrow; leaving SENDING gives the lease back. Raises IllegalTransition."""
    check_transition(row.state, to)
    session.add(
        Event(
            at=now,
            series_id=series_id,
            job_id=row.job_id,
            delivery_id=row.id,
            machine="delivery",
            from_state=row.state,
            to_state=to,
            actor=actor,
            reason=reason,
        )
    )
    row.state, row.reason, row.updated_at = to, reason, now
    if to is not DeliveryState.SENDING:
        row.courier = row.lease_until = None


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
