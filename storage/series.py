"""SeriesStore records what arrived, from which associations, and what was decided about it."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from storage.arrivals import (
    ABORTED,
    LOST,
    OPEN,
    RELEASED,
    Arrival,
    ArrivalStore,
    Closing,
    Discard,
    Identifiers,
    Opening,
    Receipt,
    Recorded,
)
from storage.deaths import count_death
from storage.errors import IllegalTransition, NotFound
from storage.losses import Loss, MissingInstance, forget_missing, missing_instances
from storage.owners import OwnerView, allow_again, doubt_about_owners, drop_instances, owner_of
from storage.patients import doubt_about_patient
from storage.peers import Pause, wait_s
from storage.queueing import JobRequest, add_job, take_route, why_replaced
from storage.spool import Wanted
from storage.states import CLOSED_BY_A_PERSON, LIVE_JOB_STATES, NOT_JUDGED, JobState, SeriesState
from storage.tables import Association, AssociationSeries, Instance, Job, Series
from storage.titles import titles_of
from storage.transitions import (
    move_job,
    move_series,
    note_series,
    note_that_it_came_again,
    supersede_live_job,
)

__all__ = [
    "Arrival",
    "Closing",
    "Discard",
    "Identifiers",
    "JobRequest",
    "Loss",
    "MissingInstance",
    "OpenSeries",
    "Opening",
    "Pause",
    "Receipt",
    "Recorded",
    "SeriesFacts",
    "SeriesStore",
]


@dataclass(frozen=True)
class OpenSeries:
    """A series that waits for a decision; `arrivals` is handed back with the decision to prove it is not stale.

    calling_ae, certificate: of its owner, as in the table; "" where nobody knows it.
    association_quiet_for_s: how long its open associations have brought nothing, of any series; infinite where none is
    open. instances: how many came, each once, those that were thrown away with them. missing: what the node knows to
    be missing. wait_s: how long its sender is known to pause. called: the AE titles by which it came, the one that
    counts first; empty where nobody knows one.
    """

    id: int
    study_uid: str
    series_uid: str
    calling_ae: str
    state: SeriesState
    arrivals: int
    instances: int
    association_open: bool
    association_quiet_for_s: float
    ended_badly: bool
    quiet_for_s: float
    wait_s: float = 0.0
    missing: tuple[MissingInstance, ...] = ()
    expected: int | None = None
    certificate: str = ""
    called: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeriesFacts:
    """What the listing shows of a series, read from its headers.

    facts: series number, modality, body part and time of acquisition, as far as they are no free text.
    """

    description: str
    patient_id: str
    facts: Mapping[str, int | str] = field(default_factory=dict)

    def write_to(self, row: Series) -> None:
        """Let a series show them."""
        row.description, row.patient_id, row.facts = self.description, self.patient_id, dict(self.facts)


class SeriesStore(ArrivalStore):
    """The only writer of series: their arrivals, and on top of these what is decided about them."""

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
            return [_open_series(session, row, now, is_open=bool(is_open)) for row, is_open in rows]

    def spool_names(self, series_id: int) -> list[str]:
        """Spool names of the current instances of a series."""
        with self._database.read() as session:
            return list(
                session.scalars(select(Instance.spool_name).where(Instance.series_id == series_id, Instance.is_current))
            )

    def replaced(self, series_id: int) -> list[str]:
        """Spool names of what its owner sent and replaced by other contents under the same UID, oldest first.

        Left out is what came before the sender sent the whole present series (again): that was its last word.
        """
        current = select(func.min(Instance.received_at)).where(Instance.series_id == series_id, Instance.is_current)
        with self._database.read() as session:
            owner = select(Series.calling_ae).where(Series.id == series_id)
            replaced = (
                select(Instance.spool_name)
                .where(Instance.series_id == series_id, ~Instance.is_current)
                .where(or_(Instance.calling_ae == "", Instance.calling_ae == owner.scalar_subquery()))
            )
            since = replaced.where(Instance.received_at >= current.scalar_subquery())
            return list(session.scalars(since.order_by(Instance.id)))

    def wanted(self, spool_names: Sequence[str]) -> list[Wanted]:
        """What must be in these files of the spool; those that no row has are left out."""
        query = select(Instance.spool_name, Instance.sha256, Instance.size_bytes)
        with self._database.read() as session:
            rows = session.execute(query.where(Instance.spool_name.in_(spool_names)))
            return [(name, sha256, size_bytes) for name, sha256, size_bytes in rows]

    def nameless(self) -> list[tuple[int, str]]:
        """Id and first spool name of the series that are received, not whole, and of which no header was read."""
        first = select(func.min(Instance.id)).where(Instance.series_id == Series.id).correlate(Series).scalar_subquery()
        with self._database.read() as session:
            rows = session.execute(
                select(Series.id, Instance.spool_name)
                .join(Instance, Instance.id == first)
                .where(Series.state.in_((SeriesState.RECEIVING, SeriesState.INCOMPLETE)))
                .where(Series.patient_id == "", Series.description == "")
            )
            return [(series_id, name) for series_id, name in rows]

    def note_facts(self, series_id: int, facts: SeriesFacts) -> None:
        """Keep what the listing shows of a series that is being received."""
        with self._database.write() as session:
            facts.write_to(session.get_one(Series, series_id))

    def note_expected(self, series_id: int, expected: int) -> None:
        """Keep how many instances of a series a peer counts."""
        with self._database.write() as session:
            session.execute(update(Series).where(Series.id == series_id).values(expected=expected))

    def hold_incomplete(self, series: OpenSeries, reason: str, now: datetime) -> bool:
        """RECEIVING -> INCOMPLETE; False when another instance arrived meanwhile."""
        with self._database.write() as session:
            row = _fresh(session, series)
            if row is None:
                return False
            reason = _with_doubt(session, row, reason)
            move_series(session, row, SeriesState.INCOMPLETE, actor="completion", reason=reason, now=now)
            return True

    def skip(self, series: OpenSeries, facts: SeriesFacts, reason: str, now: datetime) -> bool:
        """RECEIVING -> COMPLETE -> SKIPPED; a live job of earlier contents is superseded. False when stale."""
        with self._database.write() as session:
            row = _fresh(session, series)
            if row is None:
                return False
            _complete(session, row, facts, now)
            if row.purged_at is None:  # else nobody knows any more of which contents the earlier result is
                supersede_live_job(session, row.id, "the series changed and is now skipped", "completion", now)
            row.purged_at = None
            reason = _with_doubt(session, row, reason)
            move_series(session, row, SeriesState.SKIPPED, actor="eligibility", reason=reason, now=now)
            return True

    def queue(self, series: OpenSeries, facts: SeriesFacts, request: JobRequest, now: datetime) -> bool:
        """RECEIVING -> COMPLETE -> QUEUED with one job per key, in one transaction. False when stale.

        The same contents sent again, even in another transfer syntax, find their job and make no second one; other
        contents supersede the live job. A job that a person cancelled or rejected is not made again. Where retention
        removed the result, the series is translated anew under new UIDs: what a destination has of it is superseded.
        """
        with self._database.write() as session:
            row = _fresh(session, series)
            if row is None:
                return False
            _complete(session, row, facts, now)
            same = session.scalars(select(Job).where(Job.job_key == request.key).order_by(Job.repeat.desc())).first()
            doubts = [
                request.doubt,
                doubt_about_patient(session, row, request.patient),
                doubt_about_owners(session, row),
            ]
            removed = same is not None and same.purged_at is not None
            if same is None or removed or same.state not in LIVE_JOB_STATES:
                why = why_replaced(session, row, request, removed)
                supersede_live_job(session, row.id, why, "completion", now)
            if same is not None and removed and same.state in CLOSED_BY_A_PERSON:
                doubts.append(f"a person {same.closed_as} an earlier result of the same images")
            request = replace(request, doubt="; ".join(doubt for doubt in doubts if doubt))
            if same is None or removed or same.state is JobState.SUPERSEDED:
                same = add_job(session, row, request, now, repeat=0 if same is None else same.repeat + 1)
            else:
                take_route(session, same, request)
            row.job_id, row.purged_at = same.id, None
            move_series(session, row, SeriesState.QUEUED, actor="eligibility", reason="", now=now)
            note_that_it_came_again(session, row, same, now)
            return True

    def owner(self, series_id: int) -> OwnerView:
        """Whose a series is, and which other peers added to it; raises NotFound."""
        with self._database.read() as session:
            return owner_of(session, _known(session, series_id))

    def barred(self, series_id: int) -> list[str]:
        """The AE titles whose instances a person dropped, and which add none any more; raises NotFound."""
        with self._database.read() as session:
            return list(_known(session, series_id).barred)

    def drop(self, series_id: int, calling_ae: str, actor: str, reason: str, now: datetime) -> int:
        """Take the instances of one peer out of a series, which is judged anew; returns their number.

        A live job of it is superseded. Raises NotFound, and IllegalTransition where none came from this peer.
        """
        with self._database.write() as session:
            row = _known(session, series_id, locked=True)
            count = drop_instances(session, row, calling_ae)
            dropped = f"{count} instance{'s' if count > 1 else ''} from {calling_ae} dropped"
            said = f"{dropped}: {reason}" if reason else dropped
            supersede_live_job(session, row.id, said, actor, now)
            if row.state is SeriesState.RECEIVING:
                note_series(session, row, actor=actor, reason=said, now=now)
            else:
                move_series(session, row, SeriesState.RECEIVING, actor=actor, reason=said, now=now)
            # It counts as an arrival, so that no decision about the series as it was before can pass.
            row.arrivals, row.last_arrival_at, row.updated_at = row.arrivals + 1, now, now
            return count

    def allow_again(self, series_id: int, calling_ae: str, actor: str, reason: str, now: datetime) -> None:
        """Let a peer whose instances were dropped send for the series again; raises NotFound and IllegalTransition."""
        with self._database.write() as session:
            row = _known(session, series_id, locked=True)
            allow_again(row, calling_ae)
            said = f"{calling_ae} may send for it again"
            note_series(session, row, actor=actor, reason=f"{said}: {reason}" if reason else said, now=now)

    def take_in_hand(self, series_id: int, name: str) -> None:
        """Note that a process is about to look into a series; should it end meanwhile, that counts as a death."""
        with self._database.write() as session:
            session.execute(update(Series).where(Series.id == series_id).values(in_hand=name, starter=self._starter))

    def put_down(self, series_id: int, *, judged: bool) -> None:
        """Note that a process has looked into a series and lives; one that was judged to the end has no deaths."""
        values: dict[str, object] = {"in_hand": None, **({"deaths": 0, "node_deaths": 0} if judged else {})}
        with self._database.write() as session:
            session.execute(update(Series).where(Series.id == series_id).values(values))

    def count_deaths(self, name: str, now: datetime) -> list[str]:
        """What a former process of this name had in hand when it ended; returns the UIDs of these series.

        A series over which too many processes ended gets a job that is FAILED with that reason.
        """
        with self._database.write() as session:
            rows = session.scalars(select(Series).where(Series.in_hand == name).with_for_update(key_share=True)).all()
            for row in rows:
                row.in_hand = None
                deadly = count_death(row, self._starter, "processes ended while they read it")
                if deadly and row.state in (SeriesState.RECEIVING, SeriesState.COMPLETE):
                    reason = f"{deadly}; it is not read again until its contents change or somebody says so"
                    _fail(session, row, reason, now)
            return [row.series_uid for row in rows]

    def fail(self, series: OpenSeries, facts: SeriesFacts, reason: str, now: datetime) -> bool:
        """RECEIVING -> COMPLETE -> QUEUED with a job that is FAILED at once: nothing may be made of the series.

        False when stale.
        """
        with self._database.write() as session:
            row = _fresh(session, series)
            if row is None:
                return False
            facts.write_to(row)
            _fail(session, row, reason, now)
            return True

    def complete_by_operator(self, series_id: int, actor: str, reason: str, now: datetime) -> None:
        """INCOMPLETE -> COMPLETE: a person confirms that nothing more will come. Geometry is still judged.

        What the node knew to be missing is forgotten.
        """
        with self._database.write() as session:
            row = _known(session, series_id, locked=True)
            if row.state is not SeriesState.INCOMPLETE:
                raise IllegalTransition(f"only an INCOMPLETE series can be completed; this one is {row.state}")
            forget_missing(session, row)
            move_series(session, row, SeriesState.COMPLETE, actor=actor, reason=reason, now=now)

    def judge_again(self, series_id: int, actor: str, reason: str, now: datetime) -> None:
        """SKIPPED -> RECEIVING: a person wants a series judged by the rules of today, with what came of it."""
        with self._database.write() as session:
            row = _known(session, series_id, locked=True)
            if row.state is not SeriesState.SKIPPED:
                raise IllegalTransition(f"only a SKIPPED series can be judged again; this one is {row.state}")
            move_series(session, row, SeriesState.RECEIVING, actor=actor, reason=reason, now=now)
            row.arrivals += 1

    def give_up(self, series_id: int, actor: str, reason: str, now: datetime) -> None:
        """INCOMPLETE -> SKIPPED: a person says that nobody will send the rest. A job of earlier contents is superseded.

        What comes of it later, or `judge_again`, takes that back.
        """
        with self._database.write() as session:
            row = _known(session, series_id, locked=True)
            if row.state is not SeriesState.INCOMPLETE:
                raise IllegalTransition(f"only an INCOMPLETE series can be given up; this one is {row.state}")
            why = f"given up by {actor}" + (f": {reason}" if reason else "") + f" ({row.reason})"
            supersede_live_job(session, row.id, "its series was given up", actor, now)
            move_series(session, row, SeriesState.SKIPPED, actor=actor, reason=why, now=now)


def _open_series(session: Session, row: Series, now: datetime, *, is_open: bool) -> OpenSeries:
    kept = session.scalar(
        select(func.count()).select_from(Instance).where(Instance.series_id == row.id, Instance.is_current)
    )
    return OpenSeries(
        id=row.id,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        calling_ae=row.calling_ae,
        state=row.state,
        arrivals=row.arrivals,
        instances=(kept or 0) + row.ignored,
        association_open=is_open,
        association_quiet_for_s=_association_quiet_for_s(session, row.id, now) if is_open else math.inf,
        ended_badly=_broke_off(session, row.id),
        quiet_for_s=(now - row.last_arrival_at).total_seconds(),
        wait_s=wait_s(session, row.calling_ae, now),
        missing=missing_instances(session, row),
        expected=row.expected,
        certificate=row.certificate,
        called=titles_of(session, row),
    )


def _association_quiet_for_s(session: Session, series_id: int, now: datetime) -> float:
    """Seconds since an open association of the series brought an instance of any series."""
    open_ = (
        select(Association.id)
        .join(AssociationSeries, AssociationSeries.association_id == Association.id)
        .where(AssociationSeries.series_id == series_id, Association.outcome == OPEN)
    )
    last = session.scalar(
        select(func.max(Series.last_arrival_at))
        .join(AssociationSeries, AssociationSeries.series_id == Series.id)
        .where(AssociationSeries.association_id.in_(open_))
    )
    return (now - last).total_seconds() if last is not None else math.inf


def _broke_off(session: Session, series_id: int) -> bool:
    """Whether an association of the series was not released, and none that began after it brought the series again.

    One that ran beside it and was released proves nothing: it had instances of its own to bring.
    """
    of_series = select(AssociationSeries.association_id).where(AssociationSeries.series_id == series_id)
    later = aliased(Association)
    next_try = (
        exists()
        .where(later.id.in_(of_series), later.outcome == RELEASED)
        .where(later.opened_at >= Association.closed_at)
    )
    broken = exists().where(Association.id.in_(of_series), Association.outcome.in_((ABORTED, LOST)), ~next_try)
    return bool(session.scalar(select(broken)))


def _known(session: Session, series_id: int, *, locked: bool = False) -> Series:
    """The row; raises NotFound."""
    row = session.get(Series, series_id, with_for_update={"key_share": True} if locked else None)
    if row is None:
        raise NotFound(f"there is no series {series_id}")
    return row


def _fresh(session: Session, series: OpenSeries) -> Series | None:
    """The row, locked, if nothing arrived and nobody decided since `series` was read."""
    row = session.scalar(select(Series).where(Series.id == series.id).with_for_update(key_share=True))
    if row is None or row.arrivals != series.arrivals or row.state is not series.state:
        return None
    return row


def _with_doubt(session: Session, row: Series, reason: str) -> str:
    """A reason, and that instances of other peers may be it."""
    doubt = doubt_about_owners(session, row)
    return f"{reason}; {doubt}" if doubt else reason


def _complete(session: Session, row: Series, facts: SeriesFacts, now: datetime) -> None:
    facts.write_to(row)
    if row.state is SeriesState.RECEIVING:
        move_series(session, row, SeriesState.COMPLETE, actor="completion", reason="", now=now)


def _fail(session: Session, row: Series, reason: str, now: datetime) -> None:
    """Give a series that was not judged a job that says so; `jobs retry` lets it be judged once more."""
    if row.state is SeriesState.RECEIVING:
        move_series(session, row, SeriesState.COMPLETE, actor="completion", reason="", now=now)
    supersede_live_job(session, row.id, "the series changed and cannot be judged now", "completion", now)
    key = hashlib.sha256(f"not judged {row.series_uid} {uuid4()}".encode()).hexdigest()
    job = add_job(session, row, JobRequest(key, NOT_JUDGED), now, repeat=0)
    move_job(session, job, JobState.FAILED, actor="completion", reason=reason, now=now)
    row.job_id, row.deaths = job.id, 0
    move_series(session, row, SeriesState.QUEUED, actor="completion", reason="", now=now)
