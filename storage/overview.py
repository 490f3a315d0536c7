"""Overview answers what became of every series, and why; it reads every table and writes none."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, union
from sqlalchemy.orm import Session

from storage.cases import Case, DeliveryView, EventView, LinkedIds, NoteView, ProgressView, RefusedView, SliceCounts
from storage.database import Database
from storage.errors import NotFound
from storage.filters import Filters
from storage.jobs import ProducedInstance
from storage.neighbour_tables import RejectionNoteRow
from storage.states import RECALLED, DeliveryState, JobState, Leftover, NoteState, SeriesState, case_id
from storage.tables import (
    AssociationSeries,
    Delivery,
    DeliveryInstance,
    Event,
    Instance,
    Job,
    Product,
    Refusal,
    Series,
)

__all__ = ["Case", "DeliveryView", "EventView", "Overview", "ProgressView", "RefusedView", "SliceCounts"]

_PAGE = 500
_MAX_DIGITS = 10  # a 32-bit primary key
_OLDEST = 50  # series that are looked at for the one that waits longest: a person may have decided about some since
_NEWEST = 3  # deliveries of each state, of which one took the last instance
_MOVES = (JobState.QUEUED, JobState.RUNNING, JobState.PRODUCED, DeliveryState.SENDING)


class Overview:
    """Read-only queries for the command line and the status page; works while the node is down."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cases(
        self,
        *,
        states: Sequence[str] = (),
        series_uid: str = "",
        study_uid: str = "",
        patient: str = "",
        calling_ae: str = "",
        destination: str = "",
        bundle: str = "",
        since: datetime | None = None,
        before: datetime | None = None,
        overdue_since: datetime | None = None,
        troubled_since: datetime | None = None,
        lively_since: datetime | None = None,
        after: str = "",
        limit: int = 200,
    ) -> list[Case]:
        """Cases to which every filter applies, newest first; `limit` 0 returns all of them.

        patient: the whole PatientID in whatever case, with `*` for any characters and `?` for one. bundle: the
        beginning of its label. since and before bound `created_at`, the first included. overdue_since: only what has
        no delivered result and no explained end, and is waited for since before then (`Case.counts_from`).
        troubled_since: only what waits for a person, or is overdue since before then. lively_since: only what is
        unfinished, or changed since then. after: the id of a case; only what the listing has behind it. Raises NotFound
        where `after` is no id.
        """
        wanted = Filters(
            frozenset(states),
            series_uid,
            study_uid,
            patient,
            calling_ae,
            destination,
            bundle,
            since,
            before,
            overdue_since,
            troubled_since,
            lively_since,
        )
        found: list[Case] = []
        behind = _place(after) if after else None
        with self._database.read() as session:
            for page in _pages(session, wanted, min(limit or _PAGE, _PAGE), behind):
                for case in _cases(session, page):
                    if (behind is None or _place(case.id) < behind) and wanted.match(case):
                        found.append(case)
                        if limit and len(found) >= limit:
                            return found
        return found

    def case(self, case_id: str) -> Case:
        """One case by its id; raises NotFound."""
        number, _ = _place(case_id)
        with self._database.read() as session:
            row = session.get(Series, number)
            for case in _cases(session, [row] if row else []):
                if case.id == case_id:
                    return case
        raise _no_case(case_id)

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

    def linked(self, case: Case) -> LinkedIds:
        """What a case is called in the log of each process, beside its own ids."""
        with self._database.read() as session:
            deliveries = session.scalars(select(Delivery.id).where(Delivery.job_id == case.job_id)).all()
            touched = select(AssociationSeries.association_id).where(AssociationSeries.series_id == case.series_id)
            return LinkedIds(frozenset(deliveries), frozenset(session.scalars(touched)))

    def products(self, case: Case) -> list[ProducedInstance]:
        """The derived instances of a case, by file name."""
        with self._database.read() as session:
            query = select(Product).where(Product.job_id == case.job_id).order_by(Product.file_name)
            return [
                ProducedInstance(row.sop_instance_uid, row.source_sop_instance_uid, row.file_name, row.sha256)
                for row in session.scalars(query)
            ]

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
        return max(self.last_sent().values(), default=None)

    def last_sent(self) -> dict[str, datetime]:
        """When each destination last accepted an instance; those that never did are left out."""
        with self._database.read() as session:
            names = session.scalars(select(Delivery.destination).distinct()).all()
            found = {name: _last_accepted(session, name) for name in names}
        return {name: at for name, at in found.items() if at is not None}

    def longest_waiting(self) -> Case | None:
        """The case that has waited longest for the node itself: not for a person, not for the next instance."""
        of_jobs = select(Job.series_id)
        waits = union(
            of_jobs.where(Job.state.in_((JobState.QUEUED, JobState.RUNNING))),
            of_jobs.join(Delivery).where(Delivery.state.in_((DeliveryState.PENDING, DeliveryState.SENDING))),
        )
        with self._database.read() as session:
            oldest = select(Series).where(Series.id.in_(waits)).order_by(Series.last_arrival_at).limit(_OLDEST)
            cases = [case for case in _cases(session, session.scalars(oldest).all()) if case.state in _MOVES]
        return min(cases, key=lambda case: case.counts_from, default=None)

    def refused_since(self, now: datetime, *, hours: float) -> list[RefusedView]:
        """What was refused in the last hours, newest first."""
        with self._database.read() as session:
            query = select(Refusal).where(Refusal.last_at >= now - timedelta(hours=hours))
            return _refusals(session.scalars(query.order_by(Refusal.last_at.desc())).all())

    def refused_of_series(self, series_uid: str) -> list[RefusedView]:
        """What was refused of one series, newest first."""
        with self._database.read() as session:
            query = select(Refusal).where(Refusal.series_uid == series_uid)
            return _refusals(session.scalars(query.order_by(Refusal.last_at.desc())).all())


def _place(case_id: str) -> tuple[int, int]:
    """Number and run of a case, by which a listing is ordered; raises NotFound for what is no id."""
    number, _, run = case_id.partition("-")
    if not all(part.isascii() and part.isdecimal() and len(part) < _MAX_DIGITS for part in (number, run or "1")):
        raise _no_case(case_id)
    return int(number), int(run or 1)


def _no_case(case_id: str) -> NotFound:
    return NotFound(f"there is no job {case_id}; `syncect jobs ls` lists them")


def _last_accepted(session: Session, destination: str) -> datetime | None:
    """Found by the newest deliveries: to look at every instance ever sent took seconds in an old store."""
    ids: list[int] = []
    for state in DeliveryState:
        newest = select(Delivery.id).where(Delivery.destination == destination, Delivery.state == state)
        ids += session.scalars(newest.order_by(Delivery.updated_at.desc()).limit(_NEWEST))
    return session.scalar(select(func.max(DeliveryInstance.sent_at)).where(DeliveryInstance.delivery_id.in_(ids)))


def _pages(session: Session, wanted: Filters, size: int, behind: tuple[int, int] | None) -> Iterator[Sequence[Series]]:
    """Series that may have wanted cases, newest first."""
    conditions, candidates = wanted.conditions(), wanted.candidates()
    if behind is not None:
        conditions.append(Series.id <= behind[0])
    query = select(Series).order_by(Series.id.desc()).limit(size)
    if candidates is not None:
        found = select(Series.id).where(Series.id.in_(candidates), *conditions) if conditions else candidates
        ids = sorted(session.scalars(found), reverse=True)
        for start in range(0, len(ids), size):
            yield session.scalars(query.where(Series.id.in_(ids[start : start + size]))).all()
        return
    query = query.where(*conditions)
    page = session.scalars(query).all()
    while page:
        yield page
        page = session.scalars(query.where(Series.id < page[-1].id)).all()


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
    decided = _decided(session, ids)
    for series in page:
        counts_from = max(series.last_arrival_at, decided.get(series.id, series.last_arrival_at))
        if series.state is not SeriesState.QUEUED:
            came = received.get(series.id, 0) or (series.arrivals if series.purged_at else series.ignored)
            yield _series_case(series, len(jobs[series.id]) + 1, came, counts_from)
        for job in jobs[series.id]:
            yield _job_case(series, job, produced.get(job.id, 0), deliveries[job.id], counts_from)


def _decided(session: Session, ids: Sequence[int]) -> dict[int, datetime]:
    """When a person last decided something about each of these series, where anyone did."""
    query = select(Event.series_id, func.max(Event.at)).where(Event.series_id.in_(ids), Event.actor.like("operator%"))
    query = query.where(Event.machine != "turn")  # who gives a job another turn waits as long as before
    return {key: at for key, at in session.execute(query.group_by(Event.series_id))}


def _count(session: Session, column: Any, ids: Sequence[int], *conditions: Any) -> dict[int, int]:
    query = select(column, func.count()).where(column.in_(ids), *conditions).group_by(column)
    return {key: count for key, count in session.execute(query)}


def _deliveries(session: Session, job_ids: Sequence[int]) -> dict[int, list[DeliveryView]]:
    query = (
        select(
            Delivery,
            func.count(DeliveryInstance.product_id),
            func.count(DeliveryInstance.confirmed_at),
            func.max(DeliveryInstance.sent_at),
        )
        .outerjoin(DeliveryInstance, DeliveryInstance.delivery_id == Delivery.id)
        .where(Delivery.job_id.in_(job_ids))
        .group_by(Delivery.id)
        .order_by(Delivery.id)
    )
    views: dict[int, list[DeliveryView]] = defaultdict(list)
    of_jobs = select(Delivery.id).where(Delivery.job_id.in_(job_ids))
    rows = select(RejectionNoteRow).where(RejectionNoteRow.delivery_id.in_(of_jobs)).order_by(RejectionNoteRow.id)
    notes = {row.delivery_id: row for row in session.scalars(rows)}  # the newest of each delivery
    for row, sent, confirmed, accepted_at in session.execute(query):
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
                created_at=row.created_at,
                last_accepted_at=accepted_at,
                leftover=row.leftover,
                held_for=row.held_for,
                override=row.override,
                note=_note(notes[row.id]) if row.id in notes else None,
            )
        )
    return views


def _note(row: RejectionNoteRow) -> NoteView:
    return NoteView(row.state, row.code, row.reason, row.attempts, row.sop_instance_uid, row.updated_at)


def _series_case(series: Series, run: int, received: int, counts_from: datetime) -> Case:
    """A series that has no job for its present contents (yet)."""
    # COMPLETE lasts for one transaction, or until the next tick after `jobs complete`.
    state = SeriesState.RECEIVING if series.state is SeriesState.COMPLETE else series.state
    return Case(
        id=case_id(series.id, run),
        series_id=series.id,
        job_id=None,
        state=state.value,
        reason=series.reason,
        series_uid=series.series_uid,
        derived_series_uid=None,
        study_uid=series.study_uid,
        calling_ae=series.calling_ae,
        called_ae=series.called_ae,
        description=series.description,
        patient_id=series.patient_id,
        facts=series.facts,
        slices=SliceCounts(received, 0, 0, 0),
        bundle=None,
        attempts=0,
        created_at=series.created_at,
        updated_at=series.updated_at,
        moved_at=series.updated_at,
        purged_at=series.purged_at,
        received_purged_at=series.purged_at,
        counts_from=counts_from,
    )


def _job_case(series: Series, job: Job, produced: int, deliveries: list[DeliveryView], counts_from: datetime) -> Case:
    state, reason = _reader_state(job, deliveries)
    if job.state in (JobState.CANCELLED, JobState.REJECTED, JobState.SUPERSEDED):
        reason = _reason_of_the_end(series, job, deliveries, produced)
    return Case(
        id=case_id(series.id, job.run),
        series_id=series.id,
        job_id=job.id,
        state=state,
        reason=reason,
        series_uid=series.series_uid,
        derived_series_uid=job.derived_series_uid,
        study_uid=series.study_uid,
        calling_ae=series.calling_ae,
        called_ae=series.called_ae,
        description=series.description,
        patient_id=series.patient_id,
        facts=series.facts,
        slices=SliceCounts(
            received=job.source_count,
            produced=produced,
            sent=min((view.sent for view in deliveries), default=0),
            confirmed=min((view.confirmed for view in deliveries), default=0),
        ),
        bundle=job.bundle,
        route=job.route,
        destinations=tuple(job.destinations),
        priority=job.priority,
        due_at=job.due_at,
        attempts=job.attempts,
        created_at=series.created_at if job.run == 1 else job.created_at,
        updated_at=max([job.updated_at, *(view.updated_at for view in deliveries)]),
        moved_at=max([job.updated_at, *(_moved_at(view) for view in deliveries)]),
        counts_from=counts_from,
        product_dir=job.product_dir,
        version=job.version,
        repeat=job.repeat,
        series_number=job.series_number,
        series_description=job.series_description,
        doubt=job.doubt,
        override=job.override,
        remarks=tuple(job.remarks),
        job_state=job.state.value,
        is_present=series.state is SeriesState.QUEUED and series.job_id in (None, job.id),
        purged_at=job.purged_at,
        received_purged_at=series.purged_at,
        progress=_progress(job.progress) if job.state is JobState.RUNNING and job.progress else None,
        leftovers=tuple(view.destination for view in deliveries if view.leftover == Leftover.STANDS),
        measurements=job.measurements,
        deliveries=tuple(deliveries),
        recalled_at=job.recalled_at,
    )


def _reader_state(job: Job, deliveries: list[DeliveryView]) -> tuple[str, str]:
    """The one state that matters: a produced job is as far as its slowest or worst destination, a held one first."""
    if job.recalled_at is not None:
        return RECALLED, job.reason
    if job.state is not JobState.PRODUCED or not deliveries:
        return job.state.value, job.reason
    if held := [view for view in deliveries if view.is_held]:
        return JobState.HELD.value, _said_by(held[0])
    worst = min(deliveries, key=lambda view: DELIVERY_ORDER.index(DeliveryState(view.state)))
    reason = _said_by(worst) or job.reason
    if worst.state == DeliveryState.PENDING:
        started = (
            worst.attempts > 0 or worst.sent > 0 or any(view.state != DeliveryState.PENDING for view in deliveries)
        )
        return (DeliveryState.SENDING.value if started else JobState.PRODUCED.value), reason
    return worst.state, reason


def _said_by(view: DeliveryView) -> str:
    named = not view.reason or view.reason.startswith(f"{view.destination} ")
    return view.reason if named else f"{view.destination}: {view.reason}"


def _moved_at(view: DeliveryView) -> datetime:
    """When a delivery last got further: not at an attempt that failed."""
    if view.state not in (DeliveryState.PENDING, DeliveryState.SENDING) or not view.attempts:
        return view.updated_at
    return view.last_accepted_at or view.created_at


def _progress(kept: Mapping[str, Any]) -> ProgressView:
    times = {key: datetime.fromisoformat(kept[key]) for key in ("started_at", "at")}
    return ProgressView(kept["stage"], kept["done"], kept["total"], **times)


def _reason_of_the_end(series: Series, job: Job, deliveries: list[DeliveryView], total: int) -> str:
    """Why a job ended, after what a person has to do about it and what destinations have of its result."""
    said = []
    if standing := [view.destination for view in deliveries if view.leftover == Leftover.STANDS]:
        name = job.series_number if job.series_number is not None else job.derived_series_uid
        said += _to_do(name, [view for view in deliveries if view.destination in standing])
    if series.reason and series.job_id == job.id:
        said.append(series.reason)
    said += [f"gone from {view.destination}" for view in deliveries if view.leftover == Leftover.GONE]
    there = [
        view
        for view in deliveries
        if view.leftover in (Leftover.STANDS, Leftover.ACKNOWLEDGED) or (view.sent and view.leftover != Leftover.GONE)
    ]
    end = f"{job.closed_as} afterwards: {job.reason}" if there else job.reason
    parts = [f"{f'{view.sent}/{total}' if view.sent else 'an unknown part'} to {view.destination}" for view in there]
    if parts:
        end = f"delivered {', '.join(parts)}, {end}"
    return "; ".join([*said, end]).rstrip(": ")


def _to_do(name: int | str | None, standing: list[DeliveryView]) -> list[str]:
    """What a person has to do about what stands at destinations, or may leave to a rejection note."""
    asked = [view for view in standing if view.note is not None and view.note.state == NoteState.PENDING]
    told = [view for view in standing if view.note is not None and view.note.state == NoteState.SENT]
    by_hand = [view for view in standing if view not in asked and view not in told]
    said = []
    if by_hand:
        said.append(f"needs a person: delete series {name} at {', '.join(view.destination for view in by_hand)}")
        refused = [view for view in by_hand if view.note is not None]
        said += [f"{view.destination} took no rejection note: {view.note.reason}" for view in refused if view.note]
    if told:
        names = ", ".join(view.destination for view in told)
        said.append(f"needs a person: look whether series {name} is gone from {names}, which took the rejection note")
    for view in asked:
        why = f" ({view.note.reason})" if view.note and view.note.reason else ""
        said.append(f"a rejection note about series {name} is on its way to {view.destination}{why}")
    return said


def _refusals(rows: Sequence[Refusal]) -> list[RefusedView]:
    return [
        RefusedView(
            calling_ae=row.calling_ae,
            peer_host=row.peer_host,
            series_uid=row.series_uid,
            sop_instance_uid=row.sop_instance_uid,
            status=f"{row.dimse_status:04X}",
            reason=row.reason,
            count=row.count,
            first_at=row.first_at,
            last_at=row.last_at,
        )
        for row in rows
    ]


DELIVERY_ORDER = [
    DeliveryState.FAILED,
    DeliveryState.CANCELLED,
    DeliveryState.PENDING,
    DeliveryState.SENDING,
    DeliveryState.SENT,
    DeliveryState.CONFIRMED,
]
