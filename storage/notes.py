"""NoteStore knows which rejection notes (IHE IOCM) are due where, what they are about, and what the peer answered.

A note is begun for each result that stands at a destination although it was withdrawn. It names what the destination
had accepted until then; where it accepts more later, `OutboxStore` begins another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from storage.database import Database
from storage.neighbour_tables import RejectionNoteRow
from storage.states import DeliveryState, JobState, Leftover, NoteCode, NoteState, SeriesState, case_id
from storage.tables import Delivery, DeliveryInstance, Job, Product, Series
from storage.transitions import LEFTOVER_PAUSE, begin_note, write_note_event

UNDO_TIME: Final = timedelta(minutes=5)
"""So long a cancelled result can be reopened before a rejection note about it goes out."""
ANSWER_TIME: Final = timedelta(seconds=10)
"""A peer that accepted a note gets so long to act on it before it is asked what it lists."""
_ATTEMPT: Final = timedelta(seconds=60)
"""A note that was taken to be sent is due again after this, should its courier end meanwhile."""
_UNDECIDED: Final = (SeriesState.RECEIVING, SeriesState.COMPLETE, SeriesState.INCOMPLETE)
_ON_ITS_WAY: Final = (JobState.QUEUED, JobState.RUNNING, JobState.HELD, JobState.FAILED)
_THERE: Final = (DeliveryState.SENT, DeliveryState.CONFIRMED)


@dataclass(frozen=True)
class DueNote:
    """A note that is to be sent, and all that it is made of beside the files.

    decided_at: the moment that it carries. series_uid, series_number, description: of the derived series.
    sop_instance_uids: what is rejected; empty where the history of the series is gone. product_dir: the folder of the
    files, relative to the spool, "" where they were removed. patient: identity by DICOM keyword.
    """

    id: int
    delivery_id: int
    destination: str
    case: str
    attempt: int
    code: NoteCode
    decided_at: datetime
    study_uid: str
    series_uid: str
    series_number: int | None
    description: str
    sop_instance_uids: tuple[str, ...]
    product_dir: str
    patient: Mapping[str, str]


class NoteStore:
    """The writer of rejection notes, beside `RecallStore`, which makes them urgent."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, destination: str, now: datetime) -> DueNote | None:
        """The note to `destination` that is due, the most urgent first; begun where there is none, None without one.

        A recalled result is rejected at once; a cancelled one after `UNDO_TIME`, and a superseded one as soon as
        nothing that replaces it is still on its way to the destination.
        """
        due, bare = _due(destination, now), _without_note(destination, now)
        with self._database.read() as session:
            if session.scalar(due) is None and session.scalar(bare) is None:
                return None
        with self._database.write() as session:
            found = session.scalars(due.with_for_update(key_share=True, skip_locked=True, of=RejectionNoteRow)).first()
            note = found or _begin(session, bare.with_for_update(key_share=True, skip_locked=True, of=Delivery), now)
            if note is None:
                return None
            note.attempts, note.next_attempt_at = note.attempts + 1, now + _ATTEMPT
            delivery = session.get_one(Delivery, note.delivery_id)
            return _described(session, note, delivery, session.get_one(Job, delivery.job_id))

    def name(self, note_id: int, sop_instance_uid: str) -> None:
        """Keep the SOPInstanceUID of a note, before it is sent the first time."""
        with self._database.write() as session:
            session.get_one(RejectionNoteRow, note_id).sop_instance_uid = sop_instance_uid

    def sent(self, note: DueNote, actor: str, reason: str, now: datetime) -> None:
        """The peer accepted a note; what it lists is asked for as soon as it can have acted on it.

        Where the result was recalled while the note was sent, one that says so is still to come.
        """
        with self._database.write() as session:
            delivery, row = _locked(session, note.id)
            _settle(session, delivery, row, NoteState.SENT, actor=actor, reason=reason, now=now)
            row.code = note.code.value
            last = session.scalar(
                select(func.max(DeliveryInstance.sent_at)).where(DeliveryInstance.delivery_id == delivery.id)
            )
            due = [now + ANSWER_TIME, *([last + LEFTOVER_PAUSE] if last is not None else [])]
            if delivery.leftover == Leftover.STANDS:
                delivery.next_attempt_at = max(due)

    def postpone(self, note_id: int, reason: str, *, not_before: datetime, now: datetime) -> None:
        """The note could not be brought to the peer; it is due again at `not_before`."""
        with self._database.write() as session:
            _, note = _locked(session, note_id)
            if note.attempts:  # else the result was recalled while the note was sent, and it is due at once
                note.reason, note.next_attempt_at, note.updated_at = reason, not_before, now

    def fail(self, note_id: int, actor: str, reason: str, now: datetime) -> None:
        """The peer does not take the note, or it cannot be made: a person has to act there."""
        with self._database.write() as session:
            delivery, note = _locked(session, note_id)
            if note.attempts:
                _settle(session, delivery, note, NoteState.FAILED, actor=actor, reason=reason, now=now)


def _locked(session: Session, note_id: int) -> tuple[Delivery, RejectionNoteRow]:
    """A note and its delivery, which is locked first as in a recall."""
    of_note = select(Delivery).join(RejectionNoteRow, RejectionNoteRow.delivery_id == Delivery.id)
    of_note = of_note.where(RejectionNoteRow.id == note_id).with_for_update(key_share=True, of=Delivery)
    delivery = session.scalars(of_note).one()
    return delivery, session.get_one(RejectionNoteRow, note_id, with_for_update={"key_share": True})


def _settle(
    session: Session,
    delivery: Delivery,
    note: RejectionNoteRow,
    to: NoteState,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    job = session.get_one(Job, delivery.job_id)
    if note.state != to:
        write_note_event(session, delivery, job.series_id, to, actor=actor, reason=reason, now=now)
    note.state, note.reason, note.updated_at = to.value, reason, now


def _due(destination: str, now: datetime) -> Any:
    return (
        select(RejectionNoteRow)
        .join(Delivery, Delivery.id == RejectionNoteRow.delivery_id)
        .where(RejectionNoteRow.state == NoteState.PENDING, RejectionNoteRow.next_attempt_at <= now)
        .where(Delivery.destination == destination, Delivery.leftover == Leftover.STANDS)
        .order_by(RejectionNoteRow.code.desc(), RejectionNoteRow.next_attempt_at, RejectionNoteRow.id)
        .limit(1)
    )


def _without_note(destination: str, now: datetime) -> Any:
    """The first result that stands at a destination, is to be rejected, and has no note of its kind."""
    return (
        select(Delivery)
        .join(Job, Job.id == Delivery.job_id)
        .join(Series, Series.id == Job.series_id)
        .where(Delivery.destination == destination, Delivery.leftover == Leftover.STANDS)
        .where(Delivery.courier.is_(None))  # else an instance may be in flight, which the note would not name
        .where(_may_be_rejected(now), ~_is_rejected())
        .order_by(Job.recalled_at.is_(None), Delivery.id)
        .limit(1)
    )


def _begin(session: Session, bare: Any, now: datetime) -> RejectionNoteRow | None:
    delivery = session.scalars(bare).first()
    if delivery is None:
        return None
    return begin_note(session, delivery, session.get_one(Job, delivery.job_id), now)


def _may_be_rejected(now: datetime) -> ColumnElement[bool]:
    """Whether the time has come: a planner must not see nothing while what replaces a result is on its way."""
    new, its = aliased(Job), aliased(Delivery)
    of_series = new.series_id == Job.series_id
    sending = and_(new.state == JobState.PRODUCED, its.job_id == new.id, its.destination == Delivery.destination)
    waits = or_(
        Series.state.in_(_UNDECIDED),
        exists().where(of_series, new.state.in_(_ON_ITS_WAY)).correlate(Job),
        exists().where(of_series, sending, its.state.not_in(_THERE)).correlate(Job, Delivery),
    )
    return or_(
        Job.recalled_at.is_not(None),
        and_(Job.state == JobState.CANCELLED, Job.updated_at <= now - UNDO_TIME),
        and_(Job.state == JobState.SUPERSEDED, ~waits),
    )


def _is_rejected() -> ColumnElement[bool]:
    """Whether there is a note that is as urgent as the withdrawal."""
    note = aliased(RejectionNoteRow)
    return (
        exists()
        .where(note.delivery_id == Delivery.id)
        .where(or_(Job.recalled_at.is_(None), note.code == NoteCode.PATIENT_SAFETY.value))
        .correlate(Delivery, Job)
    )


def _described(session: Session, note: RejectionNoteRow, delivery: Delivery, job: Job) -> DueNote:
    series = session.get_one(Series, job.series_id)
    uids = select(Product.sop_instance_uid).where(Product.job_id == job.id).order_by(Product.file_name)
    accepted = select(DeliveryInstance.product_id).where(
        DeliveryInstance.delivery_id == delivery.id,
        DeliveryInstance.sent_at <= note.created_at,
        DeliveryInstance.failure_reason.is_(None),
    )
    # Where nobody knows what arrived, as after a resend, all of the series is rejected.
    known = session.scalars(uids.where(Product.id.in_(accepted))).all() or session.scalars(uids).all()
    return DueNote(
        id=note.id,
        delivery_id=delivery.id,
        destination=delivery.destination,
        case=case_id(series.id, job.run),
        attempt=note.attempts,
        code=NoteCode(note.code),
        decided_at=note.created_at,
        study_uid=series.study_uid,
        series_uid=job.derived_series_uid or "",
        series_number=job.series_number,
        description=job.series_description,
        sop_instance_uids=tuple(known),
        product_dir="" if job.purged_at is not None else job.product_dir or "",
        patient=job.patient,
    )
