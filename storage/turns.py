"""Whose turn comes next: among the jobs that wait, and among the deliveries to one destination.

A job of an earlier priority comes first, then the one that is wanted earlier, then the older one; one that waits for
its next attempt keeps its place and is passed over meanwhile.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from storage.states import DeliveryState, JobState, Priority, SeriesState
from storage.tables import Delivery, Job, Series

_ONE_CLAIM_AT_A_TIME: Final = 0x73796E63  # of PostgreSQL's advisory locks; the number means nothing


@dataclass(frozen=True)
class Rules:
    """What limits whose turn may come. latest: no job of a later priority begins now.

    most_running_per_sender: while so many jobs of one calling AE title run, its others let those of the same priority
    from other senders pass, unless they are urgent; 0 for no limit.
    """

    latest: Priority = Priority.OFF_PEAK
    most_running_per_sender: int = 0


NO_RULES: Final = Rules()
TURNS: Final = (Job.priority, Job.due_at, Job.id)
"""The order in which jobs take turns, which is that of index ix_job_turn."""
RulesAt = Callable[[datetime], Rules]
Found = tuple[Job, str, str]


def next_job(session: Session, now: datetime, rules: Rules) -> Found | None:
    """The job whose turn it is, locked, with the UIDs of its series and study; None where none may begin.

    With a limit the claims of all processes take turns, so that none counts while another is about to begin a job.
    """
    waiting = _waiting(now, rules)
    if not rules.most_running_per_sender:
        return _first(session, waiting)
    claim_alone(session)
    first = _first(session, waiting)
    if first is None or first[0].priority == Priority.URGENT:
        return first
    full = full_senders(session, rules.most_running_per_sender)
    if not full or _sender(session, first[0]) not in full:
        return first
    others = waiting.where(Job.priority == first[0].priority, Series.calling_ae.not_in(full))
    return _first(session, others) or first


def next_delivery(session: Session, destination: str, now: datetime, most_sending: int) -> tuple[Delivery, Job] | None:
    """The delivery whose turn it is, locked, with its job; None where none is due or the destination has enough."""
    if most_sending:
        claim_alone(session)
        sending = select(func.count()).select_from(Delivery)
        sending = sending.where(Delivery.destination == destination, Delivery.state == DeliveryState.SENDING)
        if (session.scalar(sending) or 0) >= most_sending:
            return None
    found = session.execute(
        select(Delivery, Job)
        .join(Job, Job.id == Delivery.job_id)
        .join(Series, Series.id == Job.series_id)
        .where(Delivery.state == DeliveryState.PENDING, Delivery.next_attempt_at <= now)
        .where(Delivery.destination == destination, Delivery.held_for == "")
        .where(Job.state == JobState.PRODUCED, Series.state == SeriesState.QUEUED)
        .order_by(Job.priority, Job.due_at, Delivery.id)
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True, of=Delivery)
    ).first()
    return None if found is None else (found[0], found[1])


def change_turn(job: Job, priority: Priority | None, due_at: datetime | None) -> str:
    """Give a job another priority or due time; returns what changed, in words, "" for nothing."""
    said = []
    if priority is not None and priority != job.priority:
        said.append(f"{named(priority)} instead of {named(job.priority)}")
        job.priority = priority
    if due_at is not None and due_at != job.due_at:
        said.append(f"wanted at {due_at:%Y-%m-%d %H:%M} UTC")
        job.due_at = due_at
    return ", ".join(said)


def named(priority: int) -> str:
    """A priority in words: `urgent`, `routine`, `off peak`."""
    return Priority(priority).name.lower().replace("_", " ")


def claim_alone(session: Session) -> None:
    """Wait until no other transaction that counts claims goes on, and keep others out until this one ends.

    On SQLite a writing transaction is alone from its beginning.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_ONE_CLAIM_AT_A_TIME)))


def full_senders(session: Session, limit: int) -> Collection[str]:
    """The calling AE titles of which so many jobs run."""
    running = select(Series.calling_ae).join(Job, Job.series_id == Series.id).where(Job.state == JobState.RUNNING)
    return set(session.scalars(running.group_by(Series.calling_ae).having(func.count() >= limit)))


def _waiting(now: datetime, rules: Rules) -> Select[Job, str, str]:
    # Index ix_job_turn gives them in this order; without COALESCE, SQLite would take that of next_attempt_at, and sort
    # all jobs that wait. A job waits while its series is being received again.
    is_due = func.coalesce(Job.next_attempt_at, now) <= now
    query = (
        select(Job, Series.series_uid, Series.study_uid)
        .join(Series, Series.id == Job.series_id)
        .where(Job.state == JobState.QUEUED, is_due, Series.state == SeriesState.QUEUED)
    )
    return query.where(Job.priority <= rules.latest) if rules.latest < Priority.OFF_PEAK else query


def _first(session: Session, waiting: Select[Job, str, str]) -> Found | None:
    found = session.execute(
        waiting.order_by(*TURNS).limit(1).with_for_update(key_share=True, skip_locked=True, of=Job)
    ).first()
    return None if found is None else (found[0], found[1], found[2])


def _sender(session: Session, job: Job) -> str:
    return session.scalars(select(Series.calling_ae).where(Series.id == job.series_id)).one()
