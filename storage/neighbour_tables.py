"""The tables of what peers say beside C-STORE: commitments, rejection notes, performed procedure steps.

Like those of `storage.tables` they have no behaviour, and all instants are UTC.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from storage.column_types import CleanJson, CleanString, CleanText, UtcDateTime
from storage.tables import AE_TITLE, FOREIGN_UID, SHA256, UID, Base


class CommitmentRow(Base):
    """A request for storage commitment (PS3.4 annex J) about one delivery; the newest one of a delivery counts.

    outcome: ASKED, ANSWERED, REFUSED or EXPIRED; reason: what the peer said, or did not say.
    """

    __tablename__ = "commitment"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(UID, unique=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("delivery.id"), index=True)
    outcome: Mapped[str] = mapped_column(CleanString(16))
    reason: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)


class RejectionNoteRow(Base):
    """A rejection note (IHE IOCM, a Key Object Selection) about a delivered series, for its destination.

    sop_instance_uid: of the note, None before it was made the first time. code: a value of `storage.states.NoteCode`,
    state: of `NoteState`; reason: what the peer said last. created_at: the note names what was accepted until then.
    """

    __tablename__ = "rejection_note"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("delivery.id"), index=True)
    sop_instance_uid: Mapped[str | None] = mapped_column(UID, unique=True, default=None)
    code: Mapped[str] = mapped_column(CleanString(16))
    state: Mapped[str] = mapped_column(CleanString(16), index=True)
    reason: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    attempts: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PerformedStepRow(Base):
    """A Modality Performed Procedure Step (PS3.4 annex F) as `calling_ae` reported it.

    certificate: as in `Series.certificate`, "" also where the settings bind the AE title to it. study_uid: "" where the
    step names none. state: Performed Procedure Step Status (0040,0252). discontinued_for: Code Value of the
    Discontinuation Reason (CID 9300), "" for none that is known here.
    """

    __tablename__ = "performed_step"

    sop_instance_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    calling_ae: Mapped[str] = mapped_column(AE_TITLE, index=True)
    certificate: Mapped[str] = mapped_column(SHA256, default="", server_default="")
    study_uid: Mapped[str] = mapped_column(FOREIGN_UID, default="", server_default="", index=True)
    state: Mapped[str] = mapped_column(CleanString(16))
    discontinued_for: Mapped[str] = mapped_column(CleanString(16), default="", server_default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class PerformedSeriesRow(Base):
    """A series that a performed step lists, and the SOP Instance UIDs of its images that this node keeps."""

    __tablename__ = "performed_series"
    __table_args__ = (UniqueConstraint("step_uid", "series_uid"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    step_uid: Mapped[str] = mapped_column(ForeignKey("performed_step.sop_instance_uid"))
    series_uid: Mapped[str] = mapped_column(FOREIGN_UID, index=True)
    images: Mapped[list[str]] = mapped_column(CleanJson, default=list, server_default="[]")
