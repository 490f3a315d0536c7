"""SeriesStore: what arrived, from which associations, and what was decided about it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from sqlalchemy import exists, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import IllegalTransition, NotFound
from storage.states import LIVE_JOB_STATES, JobState, SeriesState
from storage.tables import Association, AssociationSeries, Event, Instance, Job, Series
from storage.transitions import move_series, supersede_live_job

OPEN, RELEASED, ABORTED, LOST = "OPEN", "RELEASED", "ABORTED", "LOST"


@dataclass(frozen=True)
class Arrival:
    """One instance as it lies in the spool; UIDs as read from the dataset, `sha256` over the file's bytes."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    spool_name: str
    size_bytes: int


class Recorded(Enum):
    """What an arrival meant."""

    NEW = "new"
    DUPLICATE = "duplicate"  # same UID, same bytes: the file just written is not referenced and can go
    REPLACED = "replaced"  # same UID, other bytes: the newest counts, the series is judged again


@dataclass(frozen=True)
class OpenSeries:
    """A series that waits for a decision; `arrivals` is handed back with the decision to prove it is not stale."""

    id: int
    series_uid: str
    state: SeriesState
    arrivals: int
    association_open: bool
    ended_badly: bool
    quiet_for_s: float


@dataclass(frozen=True)
class SeriesFacts:
    """What the listing shows of a series, read from its headers."""

    description: str
    patient_id: str


@dataclass(frozen=True)
class JobRequest:
    """A job to queue; `key` is unique per (source contents, bundle, processing)."""

    key: str
    bundle: str


class SeriesStore:
    """The only writer of series, instances and associations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- associations ------------------------------------------------------------------------------------------

    def open_association(self, receiver: str, calling_ae: str, peer_host: str, now: datetime) -> int:
        """Record an accepted association and return its id."""
        with self._database.write() as session:
            row = Association(
                receiver=receiver, calling_ae=calling_ae, peer_host=peer_host, outcome=OPEN, opened_at=now
            )
            session.add(row)
            session.flush()
            return row.id

    def close_association(self, association_id: int, *, released: bool, now: datetime) -> None:
        """Record how an association ended; an abort makes completion wait for the sender's next try."""
        with self._database.write() as session:
            session.execute(
                update(Association)
                .where(Association.id == association_id, Association.outcome == OPEN)
                .values(outcome=RELEASED if released else ABORTED, closed_at=now)
            )

    def lose_associations(self, receiver: str, now: datetime) -> int:
        """Close what a killed receiver of this name left open; returns how many there were."""
        with self._database.write() as session:
            lost = session.scalars(
                update(Association)
                .where(Association.receiver == receiver, Association.outcome == OPEN)
                .values(outcome=LOST, closed_at=now)
                .returning(Association.id)
            )
            return len(lost.all())

    # -- arrivals ----------------------------------------------------------------------------------------------

    def record(self, association_id: int, calling_ae: str, arrival: Arrival, now: datetime) -> Recorded:
        """Record one instance durably. Only after this returns may the receiver answer 0x0000.

        A late slice, or other bytes under a known SOP Instance UID, reopens the series. A new slice supersedes the
        live job at once; other bytes under a known UID may still be the same image in another encoding, so the job
        only pauses until completion compares the contents.
        """
        try:
            return self._record(association_id, calling_ae, arrival, now)
        except IntegrityError:
            # Two associations brought the first slices of a series at once; the other one made its row.
            return self._record(association_id, calling_ae, arrival, now)

    def _record(self, association_id: int, calling_ae: str, arrival: Arrival, now: datetime) -> Recorded:
        with self._database.write() as session:
            series = _series_row(session, calling_ae, arrival, now)
            _link(session, series.id, association_id)
            known = session.scalars(
                select(Instance).where(
                    Instance.series_id == series.id, Instance.sop_instance_uid == arrival.sop_instance_uid
                )
            ).all()
            same = next((row for row in known if row.sha256 == arrival.sha256), None)
            if same is not None and same.is_current:
                if series.state in (SeriesState.RECEIVING, SeriesState.INCOMPLETE):
                    _reopen(session, series, "the sender tried again", now)
                    series.last_arrival_at, series.arrivals = now, series.arrivals + 1
                return Recorded.DUPLICATE
            for row in known:
                row.is_current = False
            session.flush()
            if same is not None:
                same.is_current = True
            else:
                session.add(_instance_row(series.id, arrival, now))
            if known:
                _reopen(session, series, f"instance {arrival.sop_instance_uid} arrived with other contents", now)
            else:
                if series.state is not SeriesState.RECEIVING:
                    supersede_live_job(session, series.id, "a late slice arrived", "receiver", now)
                _reopen(session, series, f"late slice {arrival.sop_instance_uid}", now)
            series.last_arrival_at, series.arrivals, series.updated_at = now, series.arrivals + 1, now
            return Recorded.DUPLICATE if same is not None else (Recorded.REPLACED if known else Recorded.NEW)

    def is_referenced(self, spool_name: str) -> bool:
        """Whether a row refers to a spooled file; after a commit whose outcome is unknown, only this may say no."""
        with self._database.read() as session:
            return session.scalar(select(Instance.id).where(Instance.spool_name == spool_name)) is not None

    # -- decisions ---------------------------------------------------------------------------------------------

    def undecided(self, now: datetime, quiet_s: float) -> list[OpenSeries]:
        """Series in RECEIVING or COMPLETE with no arrival for `quiet_s`, oldest first."""
        open_ = (
            exists()
            .where(AssociationSeries.series_id == Series.id)
            .where(AssociationSeries.association_id == Association.id)
            .where(Association.outcome == OPEN)
        )
        with self._database.read() as session:
            rows = session.execute(
                select(Series, open_)
                .where(Series.state.in_((SeriesState.RECEIVING, SeriesState.COMPLETE)))
                .where(Series.last_arrival_at <= now - timedelta(seconds=quiet_s))
                .order_by(Series.last_arrival_at)
            ).all()
            return [
                OpenSeries(
                    id=row.id,
                    series_uid=row.series_uid,
                    state=row.state,
                    arrivals=row.arrivals,
                    association_open=bool(is_open),
                    ended_badly=_last_outcome(session, row.id) in (ABORTED, LOST),
                    quiet_for_s=(now - row.last_arrival_at).total_seconds(),
                )
                for row, is_open in rows
            ]

    def spool_names(self, series_id: int) -> list[str]:
        """Spool names of the current instances of a series."""
        with self._database.read() as session:
            return list(
                session.scalars(select(Instance.spool_name).where(Instance.series_id == series_id, Instance.is_current))
            )

    def hold_incomplete(self, series: OpenSeries, reason: str, now: datetime) -> bool:
        """RECEIVING -> INCOMPLETE; False when another instance arrived meanwhile."""
        with self._database.write() as session:
            row = _fresh(session, series)
            if row is None:
                return False
            move_series(session, row, SeriesState.INCOMPLETE, actor="completion", reason=reason, now=now)
            return True

    def skip(self, series: OpenSeries, facts: SeriesFacts, reason: str, now: datetime) -> bool:
        """RECEIVING -> COMPLETE -> SKIPPED; a live job of earlier contents is superseded. False when stale."""
        with self._database.write() as session:
            row = _fresh(session, series)
            if row is None:
                return False
            _complete(session, row, facts, now)
            supersede_live_job(session, row.id, "the series changed and is now skipped", "completion", now)
            move_series(session, row, SeriesState.SKIPPED, actor="eligibility", reason=reason, now=now)
            return True

    def queue(self, series: OpenSeries, facts: SeriesFacts, request: JobRequest, now: datetime) -> bool:
        """RECEIVING -> COMPLETE -> QUEUED with one job per key, in one transaction. False when stale.

        The same contents sent again, even in another transfer syntax, find their job and make no second one; other
        contents supersede the live job. A job that a person cancelled or rejected is not made again.
        """
        with self._database.write() as session:
            row = _fresh(session, series)
            if row is None:
                return False
            _complete(session, row, facts, now)
            same = session.scalars(select(Job).where(Job.job_key == request.key).order_by(Job.repeat.desc())).first()
            if same is None or same.state not in LIVE_JOB_STATES:
                supersede_live_job(session, row.id, "the contents of the series changed", "completion", now)
            if same is None or same.state is JobState.SUPERSEDED:
                _add_job(session, row, request, now, repeat=0 if same is None else same.repeat + 1)
            move_series(session, row, SeriesState.QUEUED, actor="eligibility", reason="", now=now)
            return True

    def complete_by_operator(self, series_id: int, actor: str, reason: str, now: datetime) -> None:
        """INCOMPLETE -> COMPLETE: a person vouches that nothing more will come. Geometry is still judged."""
        with self._database.write() as session:
            row = session.get(Series, series_id)
            if row is None:
                raise NotFound(f"there is no series {series_id}")
            if row.state is not SeriesState.INCOMPLETE:
                raise IllegalTransition(f"only an INCOMPLETE series can be completed; this one is {row.state}")
            move_series(session, row, SeriesState.COMPLETE, actor=actor, reason=reason, now=now)


def _series_row(session: Session, calling_ae: str, arrival: Arrival, now: datetime) -> Series:
    row = session.scalar(select(Series).where(Series.series_uid == arrival.series_uid).with_for_update())
    if row is None:
        row = Series(
            series_uid=arrival.series_uid,
            study_uid=arrival.study_uid,
            state=SeriesState.RECEIVING,
            reason="",
            calling_ae=calling_ae,
            patient_id="",
            description="",
            arrivals=0,
            last_arrival_at=now,
            created_at=now,
            updated_at=now,
        )
        session.add(row)
        session.flush()
        session.add(
            Event(
                at=now,
                series_id=row.id,
                machine="series",
                from_state="",
                to_state=SeriesState.RECEIVING,
                actor="receiver",
                reason=f"first instance from {calling_ae}",
            )
        )
    return row


def _instance_row(series_id: int, arrival: Arrival, now: datetime) -> Instance:
    return Instance(
        series_id=series_id,
        sop_instance_uid=arrival.sop_instance_uid,
        sop_class_uid=arrival.sop_class_uid,
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        sha256=arrival.sha256,
        spool_name=arrival.spool_name,
        size_bytes=arrival.size_bytes,
        is_current=True,
        received_at=now,
    )


def _link(session: Session, series_id: int, association_id: int) -> None:
    if session.get(AssociationSeries, (series_id, association_id)) is None:
        session.add(AssociationSeries(series_id=series_id, association_id=association_id))


def _reopen(session: Session, series: Series, reason: str, now: datetime) -> None:
    if series.state is not SeriesState.RECEIVING:
        move_series(session, series, SeriesState.RECEIVING, actor="receiver", reason=reason, now=now)


def _last_outcome(session: Session, series_id: int) -> str | None:
    """Outcome of the association that touched the series and closed last."""
    return session.scalar(
        select(Association.outcome)
        .join(AssociationSeries, AssociationSeries.association_id == Association.id)
        .where(AssociationSeries.series_id == series_id, Association.closed_at.is_not(None))
        .order_by(Association.closed_at.desc(), Association.id.desc())
        .limit(1)
    )


def _fresh(session: Session, series: OpenSeries) -> Series | None:
    """The row, locked, if nothing arrived and nobody decided since `series` was read."""
    row = session.scalar(select(Series).where(Series.id == series.id).with_for_update())
    if row is None or row.arrivals != series.arrivals or row.state is not series.state:
        return None
    return row


def _complete(session: Session, row: Series, facts: SeriesFacts, now: datetime) -> None:
    row.description, row.patient_id = facts.description, facts.patient_id
    if row.state is SeriesState.RECEIVING:
        move_series(session, row, SeriesState.COMPLETE, actor="completion", reason="", now=now)


def _add_job(session: Session, series: Series, request: JobRequest, now: datetime, *, repeat: int) -> None:
    runs = session.scalar(select(func.count()).select_from(Job).where(Job.series_id == series.id)) or 0
    count = session.scalar(
        select(func.count()).select_from(Instance).where(Instance.series_id == series.id, Instance.is_current)
    )
    job = Job(
        series_id=series.id,
        run=runs + 1,
        job_key=request.key,
        repeat=repeat,
        state=JobState.QUEUED,
        reason="",
        bundle=request.bundle,
        source_count=count or 0,
        attempts=0,
        next_attempt_at=now,
        measurements={},
        created_at=now,
        updated_at=now,
    )
    session.add(job)
    session.flush()
    session.add(
        Event(
            at=now,
            series_id=series.id,
            job_id=job.id,
            machine="job",
            from_state="",
            to_state=JobState.QUEUED,
            actor="eligibility",
            reason=f"bundle {request.bundle}",
        )
    )
