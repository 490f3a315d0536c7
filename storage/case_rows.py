"""How a case reads: its one state, its reason and its counts, from the rows of a series, its jobs and deliveries."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.cases import Case, DeliveryView, NoteView, ProgressView, SliceCounts
from storage.neighbour_tables import RejectionNoteRow
from storage.states import RECALLED, DeliveryState, JobState, Leftover, NoteState, SeriesState, case_id
from storage.tables import Delivery, DeliveryInstance, Event, Instance, Job, Product, Series

DELIVERY_ORDER = [
    DeliveryState.FAILED,
    DeliveryState.CANCELLED,
    DeliveryState.PENDING,
    DeliveryState.SENDING,
    DeliveryState.SENT,
    DeliveryState.CONFIRMED,
]
"""Of several deliveries of a result, the one in the first of these states tells how the case reads."""


def cases_of(session: Session, page: Sequence[Series]) -> Iterable[Case]:
    """Every case of these series, in their order, the newest of a series first."""
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
