"""The tables of the store; their constraints refuse what the state machines exclude. There is no behaviour here.

One row of `series` per SeriesInstanceUID, one of `job` per (contents, bundle, processing), one of `delivery` per
(job, destination). All instants are UTC.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from storage.column_types import CleanJson, CleanString, CleanText, UtcDateTime
from storage.states import LIVE_JOB_STATES, DeliveryState, JobState, Priority, SeriesState

SCHEMA_REVISION = "0008"  # of the newest migration, which makes exactly these tables

UID = CleanString(64)  # PS3.5 section 9: at most 64 characters
FOREIGN_UID = CleanString(
    128
)  # of a study or series as a peer sent it: a longer one than allowed is skipped, not refused
AE_TITLE = CleanString(16)  # PS3.5 VR AE
SHA256 = CleanString(64)


def _state(kind: type[SeriesState] | type[JobState] | type[DeliveryState], name: str) -> Enum:
    return Enum(kind, native_enum=False, length=16, create_constraint=True, name=name)


class Base(DeclarativeBase):
    """Declarative base with named constraints, so that migrations can address them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Series(Base):
    """A series as received; `arrivals` counts accepted instances and so tells whether any came since it was read.

    job_id: the job of the contents that the series has now; None until it has one. ignored: instances of classes that
    this node accepts and does not keep. expected: images of the series as a peer counted them
    (`completion.count_from`), None where nobody was asked or answered. calling_ae, certificate: the peer that owns
    the series; `certificate` is the SHA-256 of the subject of its client certificate, which a renewal keeps, "" without
    TLS. in_hand: the process that judges the series at the moment, starter: what started it; deaths: how many processes
    ended alone while they did, node_deaths: how many together with the whole node. purged_at: when retention removed
    the received files. called_ae: the AE title by which this node was called, "" where an earlier version took it.
    facts: what tells it from others and is no free text. barred: AE titles whose instances a person dropped; they add
    none any more.
    """

    __tablename__ = "series"
    __table_args__ = (
        Index(  # SQLite uses none for LIKE, and such an index is lost there when a migration makes the table anew
            "ix_series_patient",
            text("lower(patient_id)"),
            postgresql_ops={"lower(patient_id)": "text_pattern_ops"},
        ).ddl_if(dialect="postgresql"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    series_uid: Mapped[str] = mapped_column(FOREIGN_UID, unique=True)
    study_uid: Mapped[str] = mapped_column(FOREIGN_UID, index=True)
    state: Mapped[SeriesState] = mapped_column(_state(SeriesState, "series_state"), index=True)
    reason: Mapped[str] = mapped_column(CleanText, default="")
    calling_ae: Mapped[str] = mapped_column(AE_TITLE)
    called_ae: Mapped[str] = mapped_column(AE_TITLE, default="", server_default="")
    patient_id: Mapped[str] = mapped_column(CleanText, default="")
    description: Mapped[str] = mapped_column(CleanText, default="")
    facts: Mapped[dict[str, int | str]] = mapped_column(CleanJson, default=dict, server_default="{}")
    arrivals: Mapped[int] = mapped_column(Integer, default=0)
    job_id: Mapped[int | None] = mapped_column(Integer, default=None)
    ignored: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    expected: Mapped[int | None] = mapped_column(Integer, default=None)
    certificate: Mapped[str] = mapped_column(SHA256, default="", server_default="")
    in_hand: Mapped[str | None] = mapped_column(CleanString(80), default=None)
    starter: Mapped[str] = mapped_column(CleanString(64), default="", server_default="")
    deaths: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    node_deaths: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    purged_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    barred: Mapped[list[str]] = mapped_column(CleanJson, default=list, server_default="[]")
    last_arrival_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Instance(Base):
    """One received SOP Instance; where two contents came under one UID, the newest is `is_current`.

    received_at: when these contents came last. calling_ae: the peer that sent them first, "" where an earlier version
    took them.
    """

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("series_id", "sop_instance_uid", "sha256"),
        Index(
            "uq_instance_current",
            "series_id",
            "sop_instance_uid",
            unique=True,
            sqlite_where=text("is_current"),
            postgresql_where=text("is_current"),
        ),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    sha256: Mapped[str] = mapped_column(SHA256)
    spool_name: Mapped[str] = mapped_column(CleanString(80), unique=True)
    size_bytes: Mapped[int] = mapped_column(Integer)
    is_current: Mapped[bool] = mapped_column(Boolean)
    calling_ae: Mapped[str] = mapped_column(AE_TITLE, default="", server_default="")
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Refusal(Base):
    """Instances that the receiver refused, counted by caller, series, status and reason."""

    __tablename__ = "refusal"
    __table_args__ = (UniqueConstraint("calling_ae", "peer_host", "series_uid", "dimse_status", "reason"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    calling_ae: Mapped[str] = mapped_column(AE_TITLE)
    peer_host: Mapped[str] = mapped_column(CleanString(64))
    series_uid: Mapped[str] = mapped_column(FOREIGN_UID, index=True)
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    dimse_status: Mapped[int] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(CleanString(200))
    count: Mapped[int] = mapped_column(Integer)
    first_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class LostInstance(Base):
    """An instance that the node knows of and does not have: refused, or under way when its association was aborted.

    series_uid is "" where the node did not learn it; then it may belong to any series of its association. The row
    counts until an instance of this UID has been stored.
    """

    __tablename__ = "lost_instance"
    __table_args__ = (UniqueConstraint("series_uid", "sop_instance_uid"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    association_id: Mapped[int | None] = mapped_column(ForeignKey("association.id"), default=None, index=True)
    series_uid: Mapped[str] = mapped_column(FOREIGN_UID)
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    reason: Mapped[str] = mapped_column(CleanString(200))
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class Sender(Base):
    """The longest pause that a calling AE title has made within a series, seconds, and when it made it."""

    __tablename__ = "sender"

    calling_ae: Mapped[str] = mapped_column(AE_TITLE, primary_key=True)
    pause_s: Mapped[float] = mapped_column(Float)
    measured_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PeerState(Base):
    """Since when a destination cannot be reached; `failing_since` is None while it answers."""

    __tablename__ = "peer_state"

    destination: Mapped[str] = mapped_column(CleanString(64), primary_key=True)
    failing_since: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    reason: Mapped[str] = mapped_column(CleanText, default="")


class Association(Base):
    """One accepted association and how it ended: OPEN, RELEASED, ABORTED, or LOST with the receiver process.

    called_ae: the AE title by which the peer called this node, "" where an earlier version took it.
    """

    __tablename__ = "association"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    receiver: Mapped[str] = mapped_column(CleanString(80), index=True)
    calling_ae: Mapped[str] = mapped_column(AE_TITLE)
    called_ae: Mapped[str] = mapped_column(AE_TITLE, default="", server_default="")
    peer_host: Mapped[str] = mapped_column(CleanString(64))
    outcome: Mapped[str] = mapped_column(CleanString(8), index=True)
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)


class AssociationSeries(Base):
    """Which associations touched which series; completion waits for the last of them to close."""

    __tablename__ = "association_series"

    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), primary_key=True)
    association_id: Mapped[int] = mapped_column(ForeignKey("association.id"), primary_key=True, index=True)


_LIVE = text("state IN (" + ", ".join(f"'{state}'" for state in LIVE_JOB_STATES) + ")")

# Some hundred rows, whatever the table holds. SQLite takes this index only where a query writes the state literally.
_QUEUED = text("state = 'QUEUED'")
_WITH_FILES = text("product_dir IS NOT NULL AND purged_at IS NULL")


class Job(Base):
    """The translation of one series by one bundle; `run` counts the jobs of a series from 1.

    `repeat` counts earlier jobs of the same key; it enters the derived UIDs, so that no UID is ever made twice.
    version: 1 for the first result of a series, one more for each job that follows one with a result; planners read it.
    doubt: why a person must look at the result whatever the gates say of it; set when the job is queued. patient: the
    identity under which the job was queued. remarks: what of the source was changed or left out. progress: the stage
    that a running job has reached. series_number, series_description: of the derived series, as a planner sees them.
    override: who released the result against which doubt, and why. attempts counts failures, `deaths` those during
    which the process ended alone, node_deaths those during which the whole node ended; starter: what started the
    worker. device_faults: how often the device ran out of memory, was lost or hung, from which the
    worker takes its next measure. purged_at: when retention removed the files of the result. route: which rule of the
    settings chose bundle and destinations, "" for none; destinations: their names, empty for all that get results.
    recalled_at: when a person recalled the result from where it had been sent. priority: a `storage.states.Priority`;
    due_at: when the result is wanted at the latest, by which jobs of one priority take turns.
    """

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("series_id", "run"),
        UniqueConstraint("job_key", "repeat"),
        Index("uq_job_live", "series_id", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),
        Index("ix_job_state_next", "state", "next_attempt_at"),
        Index("ix_job_with_files", "series_id", sqlite_where=_WITH_FILES, postgresql_where=_WITH_FILES),
        Index("ix_job_turn", "state", "priority", "due_at", "id", postgresql_where=_QUEUED),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    run: Mapped[int] = mapped_column(Integer)
    job_key: Mapped[str] = mapped_column(SHA256)
    repeat: Mapped[int] = mapped_column(Integer, default=0)
    state: Mapped[JobState] = mapped_column(_state(JobState, "job_state"))
    reason: Mapped[str] = mapped_column(CleanText, default="")
    bundle: Mapped[str] = mapped_column(CleanString(120))
    source_count: Mapped[int] = mapped_column(Integer)
    version: Mapped[int] = mapped_column(Integer, default=1, server_default="1")
    doubt: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    override: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    patient: Mapped[dict[str, Any]] = mapped_column(CleanJson, default=dict, server_default="{}")
    remarks: Mapped[list[str]] = mapped_column(CleanJson, default=list, server_default="[]")
    progress: Mapped[dict[str, Any]] = mapped_column(CleanJson, default=dict, server_default="{}")
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    starter: Mapped[str] = mapped_column(CleanString(64), default="", server_default="")
    deaths: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    node_deaths: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    device_faults: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    purged_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    route: Mapped[str] = mapped_column(CleanString(64), default="", server_default="")
    destinations: Mapped[list[str]] = mapped_column(CleanJson, default=list, server_default="[]")
    recalled_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None, index=True)
    priority: Mapped[int] = mapped_column(Integer, default=Priority.ROUTINE, server_default="1")
    due_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default="1970-01-01 00:00:00.000000")
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    worker: Mapped[str | None] = mapped_column(CleanString(80), default=None)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    derived_series_uid: Mapped[str | None] = mapped_column(UID, default=None)
    series_number: Mapped[int | None] = mapped_column(Integer, default=None)
    series_description: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    product_dir: Mapped[str | None] = mapped_column(CleanString(80), default=None)
    measurements: Mapped[dict[str, Any]] = mapped_column(CleanJson, default=dict)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)

    @property
    def closed_as(self) -> str:
        """What was done to a job that ended, in one word."""
        return self.state.lower() if self.recalled_at is None else "recalled"


class Product(Base):
    """One derived instance on disk; it is sent from there as often as needed and never made again."""

    __tablename__ = "product"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    source_sop_instance_uid: Mapped[str] = mapped_column(UID)
    file_name: Mapped[str] = mapped_column(CleanString(80))
    sha256: Mapped[str] = mapped_column(SHA256)


class Delivery(Base):
    """The outbox: one derived series to one destination; leftover: a value of `storage.states.Leftover`.

    held_for: why a person must look before anything is sent, "" for no reason; override: who let it go all the same.
    """

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("job_id", "destination"),
        Index("ix_delivery_state_next", "state", "next_attempt_at"),
        Index("ix_delivery_destination_state_updated", "destination", "state", "updated_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"))
    destination: Mapped[str] = mapped_column(CleanString(64))
    state: Mapped[DeliveryState] = mapped_column(_state(DeliveryState, "delivery_state"))
    reason: Mapped[str] = mapped_column(CleanText, default="")
    leftover: Mapped[str] = mapped_column(CleanString(12), default="", server_default="", index=True)
    held_for: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    override: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    courier: Mapped[str | None] = mapped_column(CleanString(80), default=None)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DeliveryInstance(Base):
    """What the peer answered for one instance: the DIMSE status, and when.

    failure_reason: Failure Reason (0008,1197) of a storage commitment that did not commit to it.
    """

    __tablename__ = "delivery_instance"

    delivery_id: Mapped[int] = mapped_column(ForeignKey("delivery.id"), primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True, index=True)
    dimse_status: Mapped[int] = mapped_column(Integer)
    sent_at: Mapped[datetime] = mapped_column(UtcDateTime)
    confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    failure_reason: Mapped[int | None] = mapped_column(Integer, default=None)


class Event(Base):
    """One row per transition: what changed, when, by whom and why. Never patient data."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("job.id"), default=None)
    delivery_id: Mapped[int | None] = mapped_column(ForeignKey("delivery.id"), default=None)
    machine: Mapped[str] = mapped_column(CleanString(8))
    from_state: Mapped[str] = mapped_column(CleanString(16))
    to_state: Mapped[str] = mapped_column(CleanString(16))
    actor: Mapped[str] = mapped_column(CleanString(80))
    reason: Mapped[str] = mapped_column(CleanText, default="")


class Alert(Base):
    """Something that a person has to know: open until its cause is gone, told once and then as a reminder.

    kind and subject name the cause (a series, a destination, the disk); at most one alert of a cause is open. text
    never holds patient data. notified: by channel, when it was told there first (`opened`), last (`told`) and that it
    is over (`over`), UTC ISO 8601. acknowledged_for: why a person needs no reminder.
    """

    __tablename__ = "alert"
    __table_args__ = (
        Index(
            "uq_alert_open",
            "kind",
            "subject",
            unique=True,
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    kind: Mapped[str] = mapped_column(CleanString(32))
    subject: Mapped[str] = mapped_column(CleanString(128))
    text: Mapped[str] = mapped_column(CleanText)
    series_id: Mapped[int | None] = mapped_column(ForeignKey("series.id"), default=None, index=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("job.id"), default=None)
    notified: Mapped[dict[str, Any]] = mapped_column(CleanJson, default=dict, server_default="{}")
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    told_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    acknowledged_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    acknowledged_by: Mapped[str] = mapped_column(CleanString(80), default="", server_default="")
    acknowledged_for: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None, index=True)


class Shadow(Base):
    """What a second bundle made of a job's source beside the first (`model.shadow`); it is measured and never sent.

    outcome: PENDING, MEASURED or FAILED; reason: why it failed, or what a gate said of the result.
    """

    __tablename__ = "shadow"
    __table_args__ = (UniqueConstraint("job_id", "bundle"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"))
    bundle: Mapped[str] = mapped_column(CleanString(120))
    outcome: Mapped[str] = mapped_column(CleanString(8), index=True)
    reason: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    measurements: Mapped[dict[str, Any]] = mapped_column(CleanJson, default=dict)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ConstancyRow(Base):
    """What a constancy run found: a phantom series through the whole chain, its figures against their tolerances.

    environment: what may change a result, by name: arithmetic, device, driver, versions of libraries.
    outcome: PASSED or FAILED; reason: what was out of tolerance.
    """

    __tablename__ = "constancy"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    bundle: Mapped[str] = mapped_column(CleanString(120))
    bundle_digest: Mapped[str] = mapped_column(SHA256)
    environment: Mapped[dict[str, Any]] = mapped_column(CleanJson, default=dict)
    outcome: Mapped[str] = mapped_column(CleanString(16))
    reason: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    measurements: Mapped[dict[str, Any]] = mapped_column(CleanJson, default=dict)


class StoreMark(Base):
    """One row: a name of this store that its spool knows too, so that neither is used with another's.

    moved_to: where `syncect db move` copied all rows, "" for nowhere; no node begins on a store that was moved.
    """

    __tablename__ = "store_mark"

    uid: Mapped[str] = mapped_column(UID, primary_key=True)
    made_at: Mapped[datetime] = mapped_column(UtcDateTime)
    moved_to: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    moved_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
