"""Overview answers what became of every series, and why; it reads every table and writes none."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import CompoundSelect, func, select, union
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import NotFound
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Delivery, DeliveryInstance, Event, Instance, Job, Product, Series

_PAGE = 500
_MAX_DIGITS = 10  # a 32-bit primary key


@dataclass(frozen=True)
class DeliveryView:
    """One destination of a case: how far it is and what the peer said last."""

    destination: str
    state: str
    reason: str
    attempts: int
    next_attempt_at: datetime
    updated_at: datetime
    sent: int
    confirmed: int


@dataclass(frozen=True)
class SliceCounts:
    """Instances received, produced, and accepted or confirmed by every destination."""

    received: int
    produced: int
    sent: int
    confirmed: int


@dataclass(frozen=True)
class Case:
    """One series on its way through the node, from its first slice to its delivery.

    `id` is stable: a series is `12` from its first slice on, and its second job, after its contents changed, `12-2`.
    """

    id: str
    series_id: int
    job_id: int | None
    state: str
    reason: str
    series_uid: str
    derived_series_uid: str | None
    study_uid: str
    calling_ae: str
    description: str
    patient_id: str
    slices: SliceCounts
    bundle: str | None
    attempts: int
    created_at: datetime
    updated_at: datetime
    product_dir: str | None = None
    measurements: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    deliveries: tuple[DeliveryView, ...] = ()


@dataclass(frozen=True)
class EventView:
    """One transition of a series, job or delivery."""

    at: datetime
    machine: str
    from_state: str
    to_state: str
    actor: str
    reason: str


class Overview:
    """Read-only queries for the command line and the status page; works while the node is down."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cases(self, *, states: Sequence[str] = (), series_uid: str = "", limit: int = 200) -> list[Case]:
        """Cases, newest first; `limit` 0 returns all of them."""
        found: list[Case] = []
        with self._database.read() as session:
            for page in _pages(session, states, series_uid, min(limit or _PAGE, _PAGE)):
                for case in _cases(session, page):
                    if not states or case.state in states:
                        found.append(case)
                        if limit and len(found) >= limit:
                            return found
        return found

    def case(self, case_id: str) -> Case:
        """One case by its id; raises NotFound."""
        number, _, run = case_id.partition("-")
        if number.isdecimal() and len(number) < _MAX_DIGITS and (run.isdecimal() or not run):
            with self._database.read() as session:
                row = session.get(Series, int(number))
                for case in _cases(session, [row] if row else []):
                    if case.id == case_id:
                        return case
        raise NotFound(f"there is no job {case_id}; `syncect jobs ls` lists them")

    def events(self, case: Case) -> list[EventView]:
        """The history of a case, oldest first: its series' events and those of its own job and deliveries."""
        with self._database.read() as session:
            rows = session.scalars(
                select(Event)
                .where(Event.series_id == case.series_id)
                .where((Event.job_id == case.job_id) | (Event.job_id.is_(None)))
                .order_by(Event.id)
            )
            return [EventView(row.at, row.machine, row.from_state, row.to_state, row.actor, row.reason) for row in rows]

    def counts(self) -> dict[str, int]:
        """Number of rows per raw state, keyed `machine:STATE`."""
        with self._database.read() as session:
            result: dict[str, int] = {}
            for table, machine in ((Series, "series"), (Job, "job"), (Delivery, "delivery")):
                for state, count in session.execute(select(table.state, func.count()).group_by(table.state)):
                    result[f"{machine}:{state}"] = count
            return result

    def oldest_queued_at(self) -> datetime | None:
        """When the longest waiting job was queued; None with an empty queue."""
        with self._database.read() as session:
            return session.scalar(select(func.min(Job.created_at)).where(Job.state == JobState.QUEUED))

    def last_sent_at(self) -> datetime | None:
        """When a destination last accepted an instance; None if that never happened."""
        with self._database.read() as session:
            return session.scalar(select(func.max(DeliveryInstance.sent_at)))


def _pages(session: Session, states: Sequence[str], series_uid: str, size: int) -> Iterator[Sequence[Series]]:
    """Series that may have cases in `states`, newest first."""
    query = select(Series).order_by(Series.id.desc()).limit(size)
    if series_uid:
        query = query.where(Series.series_uid == series_uid)
    elif states:
        ids = sorted(session.scalars(_candidates(states)), reverse=True)
        for start in range(0, len(ids), size):
            yield session.scalars(query.where(Series.id.in_(ids[start : start + size]))).all()
        return
    page = session.scalars(query).all()
    while page:
        yield page
        page = session.scalars(query.where(Series.id < page[-1].id)).all()


def _candidates(states: Sequence[str]) -> CompoundSelect[tuple[int]]:
    """Ids of all series of which a case may be in one of these reader's states, and of few others.

    The indices on the raw states answer this; to make every case first took 16 s for 20 of 100,000 jobs.
    """
    wanted = set(states)
    # A QUEUED series has a job, whose state it shows. COMPLETE reads as RECEIVING, and a PENDING delivery in two ways.
    series = wanted - {SeriesState.QUEUED} | ({SeriesState.COMPLETE} if SeriesState.RECEIVING in wanted else set())
    deliveries = wanted | ({DeliveryState.PENDING} if wanted & {JobState.PRODUCED, DeliveryState.SENDING} else set())
    of_jobs = select(Job.series_id)
    parts = [
        select(Series.id).where(Series.state.in_([state for state in SeriesState if state in series])),
        of_jobs.where(Job.state.in_([state for state in JobState if state in wanted - {JobState.PRODUCED}])),
        of_jobs.join(Delivery).where(Delivery.state.in_([state for state in DeliveryState if state in deliveries])),
    ]
    if JobState.PRODUCED in wanted:
        parts.append(of_jobs.outerjoin(Delivery).where(Job.state == JobState.PRODUCED, Delivery.id.is_(None)))
    return union(*parts)


def _cases(session: Session, page: Sequence[Series]) -> Iterable[Case]:
    ids = [row.id for row in page]
    jobs: dict[int, list[Job]] = defaultdict(list)
    for job in session.scalars(select(Job).where(Job.series_id.in_(ids)).order_by(Job.run.desc())):
        jobs[job.series_id].append(job)
    job_ids = [job.id for group in jobs.values() for job in group]
    undecided = [row.id for row in page if row.state is not SeriesState.QUEUED]  # the others' jobs know their count
    received = _count(session, Instance.series_id, undecided, Instance.is_current)
    produced = _count(session, Product.job_id, job_ids)
    deliveries = _deliveries(session, job_ids)
    for series in page:
        if series.state is not SeriesState.QUEUED:
            yield _series_case(series, len(jobs[series.id]) + 1, received.get(series.id, 0) or series.ignored)
        for job in jobs[series.id]:
            yield _job_case(series, job, produced.get(job.id, 0), deliveries[job.id])


def _count(session: Session, column: Any, ids: Sequence[int], *conditions: Any) -> dict[int, int]:
    query = select(column, func.count()).where(column.in_(ids), *conditions).group_by(column)
    return {key: count for key, count in session.execute(query)}


def _deliveries(session: Session, job_ids: Sequence[int]) -> dict[int, list[DeliveryView]]:
    query = (
        select(Delivery, func.count(DeliveryInstance.product_id), func.count(DeliveryInstance.confirmed_at))
        .outerjoin(DeliveryInstance, DeliveryInstance.delivery_id == Delivery.id)
        .where(Delivery.job_id.in_(job_ids))
        .group_by(Delivery.id)
        .order_by(Delivery.id)
    )
    views: dict[int, list[DeliveryView]] = defaultdict(list)
    for row, sent, confirmed in session.execute(query):
        views[row.job_id].append(
            DeliveryView(
                destination=row.destination,
                state=row.state.value,
                reason=row.reason,
                attempts=row.attempts,
                next_attempt_at=row.next_attempt_at,
                updated_at=row.updated_at,
                sent=sent,
                confirmed=confirmed,
            )
        )
    return views


def _case_id(series: Series, run: int) -> str:
    return str(series.id) if run == 1 else f"{series.id}-{run}"


def _series_case(series: Series, run: int, received: int) -> Case:
    """A series that has no job for its present contents (yet)."""
    # COMPLETE lasts for one transaction, or until the next tick after `jobs complete`.
    state = SeriesState.RECEIVING if series.state is SeriesState.COMPLETE else series.state
    return Case(
        id=_case_id(series, run),
        series_id=series.id,
        job_id=None,
        state=state.value,
        reason=series.reason,
        series_uid=series.series_uid,
        derived_series_uid=None,
        study_uid=series.study_uid,
        calling_ae=series.calling_ae,
        description=series.description,
        patient_id=series.patient_id,
        slices=SliceCounts(received, 0, 0, 0),
        bundle=None,
        attempts=0,
        created_at=series.created_at,
        updated_at=series.updated_at,
    )


def _job_case(series: Series, job: Job, produced: int, deliveries: list[DeliveryView]) -> Case:
    state, reason = _reader_state(job, deliveries)
    return Case(
        id=_case_id(series, job.run),
        series_id=series.id,
        job_id=job.id,
        state=state,
        reason=reason,
        series_uid=series.series_uid,
        derived_series_uid=job.derived_series_uid,
        study_uid=series.study_uid,
        calling_ae=series.calling_ae,
        description=series.description,
        patient_id=series.patient_id,
        slices=SliceCounts(
            received=job.source_count,
            produced=produced,
            sent=min((view.sent for view in deliveries), default=0),
            confirmed=min((view.confirmed for view in deliveries), default=0),
        ),
        bundle=job.bundle,
        attempts=job.attempts,
        created_at=series.created_at if job.run == 1 else job.created_at,
        updated_at=max([job.updated_at, *(view.updated_at for view in deliveries)]),
        product_dir=job.product_dir,
        measurements=job.measurements,
        remarks=tuple(job.remarks),
        deliveries=tuple(deliveries),
    )


def _reader_state(job: Job, deliveries: list[DeliveryView]) -> tuple[str, str]:
    """The one state that matters: a produced job is as far as its slowest or worst destination."""
    if job.state is not JobState.PRODUCED or not deliveries:
        return job.state.value, job.reason
    worst = min(deliveries, key=lambda view: _DELIVERY_ORDER.index(DeliveryState(view.state)))
    reason = f"{worst.destination}: {worst.reason}" if worst.reason else job.reason
    if worst.state == DeliveryState.PENDING:
        started = worst.attempts > 0 or any(view.state != DeliveryState.PENDING for view in deliveries)
        return (DeliveryState.SENDING.value if started else JobState.PRODUCED.value), reason
    return worst.state, reason


_DELIVERY_ORDER = [
    DeliveryState.FAILED,
    DeliveryState.CANCELLED,
    DeliveryState.PENDING,
    DeliveryState.SENDING,
    DeliveryState.SENT,
    DeliveryState.CONFIRMED,
]
