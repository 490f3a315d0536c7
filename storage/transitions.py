"""The functions through which a row gets its first state and changes it: each checks the arrow and writes the event.

What happens to a series without an arrow gets an event here as well. On PostgreSQL an event wakes the processes that
have something to do then, once its transaction is committed (`storage.wakes`).
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import JSON, delete, exists, select, type_coerce
from sqlalchemy.orm import Session

from storage.errors import IllegalTransition
from storage.neighbour_tables import CommitmentRow, RejectionNoteRow
from storage.states import (
    CLOSED_BY_A_PERSON,
    LIVE_JOB_STATES,
    MAX_DEATHS,
    OPEN_DELIVERY_STATES,
    DeliveryState,
    JobState,
    Leftover,
    NoteCode,
    NoteState,
    SeriesState,
    State,
    case_id,
    check_transition,
)
from storage.tables import ConstancyRow, Delivery, DeliveryInstance, Event, Job, Series

NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""When a peer is asked again for what it does not confirm, once nobody asks any more."""
LEFTOVER_PAUSE: Final = timedelta(minutes=5)
"""A peer lists what it accepted some time later; only then does an empty list mean that a result is gone."""

CHANNEL: Final = "syncect"
"""Of PostgreSQL's notifications; the payload is a topic."""


class Topic(StrEnum):
    """Who has something to do."""

    COMPLETE = "complete"
    WORK = "work"
    DELIVER = "deliver"


_TOPICS: Final[dict[tuple[str, str], tuple[Topic, ...]]] = {
    ("series", SeriesState.RECEIVING): (Topic.COMPLETE,),
    ("series", SeriesState.COMPLETE): (Topic.COMPLETE,),
    ("series", SeriesState.QUEUED): (Topic.WORK, Topic.DELIVER),
    ("job", JobState.QUEUED): (Topic.WORK,),
    ("job", JobState.PRODUCED): (Topic.DELIVER,),
    ("turn", JobState.QUEUED): (Topic.WORK,),
    ("delivery", DeliveryState.PENDING): (Topic.DELIVER,),
    ("delivery", DeliveryState.SENT): (Topic.DELIVER,),
}
"""Of a state machine and the state that it came to: who has something to do now."""


def begin_series(session: Session, row: Series, *, actor: str, reason: str, now: datetime) -> None:
    """Add a series in RECEIVING."""
    row.patient_id = row.description = ""
    row.arrivals = 0
    _begin(session, row, SeriesState.RECEIVING, now)
    _write_event(session, "", row.state, actor, reason, at=now, machine="series", series_id=row.id)


def begin_job(session: Session, row: Job, *, actor: str, reason: str, now: datetime) -> None:
    """Add a job in QUEUED whose turn may come at once."""
    row.due_at = row.due_at or now
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
        row.progress = {}


def move_delivery(
    session: Session, row: Delivery, series_id: int, to: DeliveryState, *, actor: str, reason: str, now: datetime
) -> None:
    """Move a delivery along an existing arrow; leaving SENDING gives the lease back. Raises IllegalTransition."""
    check_transition(row.state, to)
    _write_event(session, row.state, to, actor, reason, at=now, **_of_delivery(row, series_id))
    row.state, row.reason, row.updated_at = to, reason, now
    if to is not DeliveryState.SENDING:
        row.courier = row.lease_until = None


def hold_delivery(session: Session, row: Delivery, series_id: int, *, actor: str, reason: str, now: datetime) -> None:
    """SENDING -> PENDING, and no courier takes it until a person lets it go; the reason is why."""
    move_delivery(session, row, series_id, DeliveryState.PENDING, actor=actor, reason=reason, now=now)
    row.held_for = reason


def require_one_free(rows: Collection[Delivery]) -> None:
    """Raise IllegalTransition where deliveries are held, and all of them are."""
    if rows and all(row.state is DeliveryState.PENDING and row.held_for for row in rows):
        raise IllegalTransition("every delivery of it is held; `jobs release` lets it go")


def free_delivery(session: Session, row: Delivery, series_id: int, *, actor: str, reason: str, now: datetime) -> None:
    """A held delivery is due at once; it keeps its state, and an event says who freed it and why."""
    _write_event(session, row.state, row.state, actor, reason, at=now, **_of_delivery(row, series_id))
    row.held_for, row.reason, row.next_attempt_at, row.updated_at = "", reason, now, now


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
    wake(session, _TOPICS.get((of["machine"], to_state), ()))


def wake(session: Session, topics: Iterable[Topic]) -> None:
    """Wake these, once this transaction is committed; nothing on SQLite, where they look by themselves."""
    if session.get_bind().dialect.name == "postgresql":
        for topic in topics:  # PostgreSQL sends one for several alike of a transaction
            session.connection().exec_driver_sql(f"SELECT pg_notify('{CHANNEL}', '{topic}')")


def supersede_live_job(session: Session, series_id: int, reason: str, actor: str, now: datetime) -> None:
    """Mark the live job of a series, which is locked, SUPERSEDED and take back its deliveries."""
    # Locked, so that what a worker or a person makes of it at this moment is either seen here or comes too late.
    live = select(Job).where(Job.series_id == series_id, Job.state.in_(LIVE_JOB_STATES))
    job = session.scalar(live.with_for_update(key_share=True))
    if job is None:
        return
    move_job(session, job, JobState.SUPERSEDED, actor=actor, reason=reason, now=now)
    withdraw_deliveries(session, job, reason, actor, now)
    session.flush()


def withdraw_deliveries(session: Session, job: Job, reason: str, actor: str, now: datetime) -> None:
    """Cancel every delivery of a job that has not reached SENT, and mark what a destination has already got of it."""
    # Locked, so that an answer being recorded is either seen here or sees that the delivery was taken back.
    for delivery in session.scalars(select(Delivery).where(Delivery.job_id == job.id).with_for_update(key_share=True)):
        courier, lease_until = delivery.courier, delivery.lease_until
        if delivery.state in OPEN_DELIVERY_STATES:
            move_delivery(
                session, delivery, job.series_id, DeliveryState.CANCELLED, actor=actor, reason=reason, now=now
            )
            # It may have an instance in flight; until it says that it stopped, nobody knows whether that arrives.
            delivery.courier, delivery.lease_until = courier, lease_until
        # Of what was sent long ago the history may be gone, and with it what was accepted.
        was_sent = delivery.state in (DeliveryState.SENT, DeliveryState.CONFIRMED)
        if was_sent or delivery.leftover == Leftover.RESENT or has_accepted_any(session, delivery.id):
            mark_leftover(session, delivery, job.series_id, Leftover.STANDS, actor=actor, reason=reason, now=now)


def reopen_deliveries(session: Session, job: Job, actor: str, reason: str, now: datetime) -> None:
    """Let the deliveries of a reopened job go on: what the destinations still have is not sent again."""
    for delivery in session.scalars(select(Delivery).where(Delivery.job_id == job.id)):
        # A note that was refused says nothing about what is sent from now on.
        session.execute(delete(RejectionNoteRow).where(RejectionNoteRow.delivery_id == delivery.id))
        if delivery.leftover in (Leftover.GONE, Leftover.ACKNOWLEDGED):
            send_anew(session, delivery, job, actor=actor, reason=reason, now=now)
            continue
        if delivery.state is DeliveryState.CANCELLED:
            move_delivery(session, delivery, job.series_id, DeliveryState.PENDING, actor=actor, reason=reason, now=now)
            delivery.attempts = 0
        delivery.next_attempt_at = now
        mark_leftover(session, delivery, job.series_id, Leftover.NONE, actor=actor, reason=reason, now=now)


def send_anew(session: Session, row: Delivery, job: Job, *, actor: str, reason: str, now: datetime) -> None:
    """A delivery that is not open -> PENDING with every instance missing, whatever its destination accepted before."""
    if has_accepted_any(session, row.id):
        row.leftover = Leftover.RESENT
        session.execute(delete(DeliveryInstance).where(DeliveryInstance.delivery_id == row.id))
    # A report about what was sent before says nothing about what is sent now.
    session.execute(delete(CommitmentRow).where(CommitmentRow.delivery_id == row.id))
    move_delivery(session, row, job.series_id, DeliveryState.PENDING, actor=actor, reason=reason, now=now)
    row.attempts, row.next_attempt_at, row.held_for, row.override = 0, now, "", ""


def has_accepted_any(session: Session, delivery_id: int) -> bool:
    """Whether the destination accepted an instance of this delivery."""
    return bool(session.scalar(select(exists().where(DeliveryInstance.delivery_id == delivery_id))))


def remark_when_sent(session: Session, delivery: Delivery) -> str:
    """What was said when a delivery was last sent, such as what else the peer refused; "" for nothing."""
    sent = select(Event.reason).where(Event.delivery_id == delivery.id, Event.to_state == DeliveryState.SENT)
    return session.scalar(sent.order_by(Event.id.desc()).limit(1)) or ""


def mark_leftover(
    session: Session, row: Delivery, series_id: int, to: Leftover, *, actor: str, reason: str, now: datetime
) -> None:
    """Write down what became of a withdrawn result at its destination, with an event; nothing where it is known."""
    if row.leftover == to:
        return
    event = {**_of_delivery(row, series_id), "machine": "leftover"}
    _write_event(session, row.leftover, to, actor, reason, at=now, **event)
    row.leftover = to
    if to is Leftover.STANDS:
        row.next_attempt_at = now + LEFTOVER_PAUSE
    else:
        notes = delete(RejectionNoteRow).where(RejectionNoteRow.delivery_id == row.id, RejectionNoteRow.attempts == 0)
        session.execute(notes.where(RejectionNoteRow.state == NoteState.PENDING))


def begin_note(session: Session, row: Delivery, job: Job, now: datetime) -> RejectionNoteRow:
    """Add a rejection note in PENDING that is due at once, about what a destination has accepted until now."""
    code = NoteCode.QUALITY if job.recalled_at is None else NoteCode.PATIENT_SAFETY
    moments = {"next_attempt_at": now, "created_at": now, "updated_at": now}
    note = RejectionNoteRow(delivery_id=row.id, code=code.value, state=NoteState.PENDING.value, attempts=0, **moments)
    session.add(note)
    session.flush()
    return note


def write_note_event(
    session: Session, row: Delivery, series_id: int, to: NoteState, *, actor: str, reason: str, now: datetime
) -> None:
    """Write down what became of a rejection note about a delivery."""
    event = {**_of_delivery(row, series_id), "machine": "note"}
    _write_event(session, NoteState.PENDING, to, actor, reason, at=now, **event)


def note_job(session: Session, row: Job, *, actor: str, reason: str, now: datetime) -> None:
    """Write down what happened to a job without changing its state; it becomes the reason of that state."""
    _write_event(session, row.state, row.state, actor, reason, at=now, **_of_job(row))
    row.reason, row.updated_at = reason, now


def note_turn(session: Session, row: Job, *, actor: str, reason: str, now: datetime) -> None:
    """Write down that a person changed when a job takes its turn; the reason of its state stays."""
    _write_event(session, row.state, row.state, actor, reason, at=now, **{**_of_job(row), "machine": "turn"})
    row.updated_at = now


def require_not_rejected(session: Session, job: Job) -> None:
    """Raise IllegalTransition where a result must not come back: images once rejected never come under their UIDs.

    That is what IHE RAD-TF, Imaging Object Change Management, lets an archive expect after a rejection note.
    """
    if job.recalled_at is not None:
        raise IllegalTransition(f"its result was recalled on {job.recalled_at:%Y-%m-%d}, and never comes back")
    # Locked, so that a courier that takes a note, or hears that nothing is left, is either seen here or comes too late.
    deliveries = select(Delivery.id).where(Delivery.job_id == job.id)
    session.execute(deliveries.with_for_update(key_share=True))
    notes = select(RejectionNoteRow.id).where(RejectionNoteRow.delivery_id.in_(deliveries))
    session.execute(notes.with_for_update(key_share=True))
    told = (RejectionNoteRow.state == NoteState.SENT) | (RejectionNoteRow.attempts > 0)
    query = select(Delivery.destination).join(RejectionNoteRow, RejectionNoteRow.delivery_id == Delivery.id)
    query = query.where(Delivery.job_id == job.id, told, RejectionNoteRow.state != NoteState.FAILED)
    if (name := session.scalar(query.limit(1))) is not None:
        raise IllegalTransition(f"{name} was sent a rejection note about its images, which never come back")


def judge_again(session: Session, job: Job, series: Series, *, actor: str, reason: str, now: datetime) -> None:
    """Let completion judge a series once more that ended it before; the job that stood for it is superseded."""
    if job.state is JobState.CANCELLED:
        move_job(session, job, JobState.QUEUED, actor=actor, reason=reason, now=now)
    move_job(session, job, JobState.SUPERSEDED, actor=actor, reason=reason or "the series is judged again", now=now)
    move_series(session, series, SeriesState.RECEIVING, actor=actor, reason=reason, now=now)
    series.deaths = MAX_DEATHS - 1


def note_that_it_came_again(session: Session, series: Series, job: Job, now: datetime) -> None:
    """Say at a QUEUED series that contents came again whose job a person closed; once, until the job is reopened."""
    if series.reason or job.state not in CLOSED_BY_A_PERSON:
        return
    closed = last_event(session, job, job.state)
    by = f" by {closed.actor}" if closed is not None else ""
    name = case_id(series.id, job.run)
    series.reason = (
        f"the series came again; its result was recalled{by}, and the settings still name the bundle that made it"
        if job.recalled_at is not None
        else f"the series came again; its result was {job.state.lower()}{by}: reopen it with "
        f"`syncect jobs reopen {name}`"
    )
    _write_event(
        session, series.state, series.state, "eligibility", series.reason, at=now, machine="series", series_id=series.id
    )


def last_event(
    session: Session, job: Job, to: JobState, *, from_state: JobState | None = None, before: Event | None = None
) -> Event | None:
    """The event by which a job last came to a state (from `from_state`, before another); None where there is none."""
    query = select(Event).where(Event.series_id == job.series_id, Event.job_id == job.id, Event.machine == "job")
    if from_state is not None:
        query = query.where(Event.from_state == from_state)
    if before is not None:
        query = query.where(Event.id < before.id)
    return session.scalars(query.where(Event.to_state == to).order_by(Event.id.desc()).limit(1)).first()


def destinations_of(session: Session, job: Job, destinations: Sequence[str]) -> Sequence[str]:
    """Where the result of a job goes: `destinations`, or, where the series is a constancy run's, only where that said.

    A phantom must not reach a planning system by itself, whichever command or process sends it; a node that has only
    the destination of such runs sends it there all the same.
    """
    series_uid = session.scalar(select(Series.series_uid).where(Series.id == job.series_id))
    row = session.scalars(constancy_run_of(series_uid or "")).first()
    if row is None:
        return destinations
    only = str(row.measurements["destination"])
    known = set(session.scalars(select(Delivery.destination).where(Delivery.job_id == job.id)))
    return [only] if only not in known else []


def constancy_run_of(series_uid: str) -> Any:
    """Selects the row of the constancy run that named this series before it was sent."""
    named = type_coerce(ConstancyRow.measurements, JSON)["series_uid"].as_string()
    return select(ConstancyRow).where(named == series_uid, named != "")
