"""The one function through which a state changes: it checks the arrow, moves the row and writes the event."""

from datetime import datetime

from sqlalchemy.orm import Session

from storage.states import DeliveryState, JobState, SeriesState, check_transition
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
