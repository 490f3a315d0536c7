"""How a job comes to be: what is asked for, and the row that is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from config.queue import TARGET_S
from storage.states import LIVE_JOB_STATES, JobState, Priority, SeriesState
from storage.tables import Delivery, Event, Instance, Job, Series
from storage.transitions import begin_job

TODAY: Final = timedelta(hours=24)
"""What is made again of a series whose last instance is older than this is not for a patient of today."""


@dataclass(frozen=True)
class JobRequest:
    """A job to queue; `key` is unique per (source contents, bundle, processing).

    doubt: why a person must look at the result before it is sent, whatever the gates say of it; "" where nothing is
    known. patient: the identity that the images carry, by DICOM keyword. slices: how many its instances hold, a
    multi-frame one many; 0 where nobody read them, so that each counts as one. route, destinations: as in `Job`;
    why: why this route was taken, a clause for the history. target_s: the result is wanted so many seconds from now.
    """

    key: str
    bundle: str
    doubt: str = ""
    patient: Mapping[str, str] = field(default_factory=dict)
    slices: int = 0
    route: str = ""
    destinations: tuple[str, ...] = ()
    why: str = ""
    priority: Priority = Priority.ROUTINE
    target_s: float = TARGET_S


def add_job(session: Session, series: Series, request: JobRequest, now: datetime, *, repeat: int) -> Job:
    """A job in QUEUED for the present contents of a series, after those that it has.

    One of an old series comes off peak where it is not the first, or the series is judged once more, by a person or
    after the store was rebuilt: a re-run of an archive delays no patient of today. What only waited, as while the node
    was down, keeps its priority.
    """
    runs = session.scalar(select(func.count()).select_from(Job).where(Job.series_id == series.id)) or 0
    count = session.scalar(
        select(func.count()).select_from(Instance).where(Instance.series_id == series.id, Instance.is_current)
    )
    earlier_results = session.scalar(
        select(func.count()).select_from(Job).where(Job.series_id == series.id, Job.product_dir.is_not(None))
    )
    job = Job(
        series_id=series.id,
        run=runs + 1,
        job_key=request.key,
        repeat=repeat,
        bundle=request.bundle,
        source_count=request.slices or count or 0,
        version=(earlier_results or 0) + 1,
        doubt=request.doubt,
        patient=dict(request.patient),
        route=request.route,
        destinations=list(request.destinations),
        priority=_priority_of(session, series, request, runs, now),
        due_at=now + timedelta(seconds=request.target_s),
    )
    reason = f"bundle {request.bundle}" if request.bundle else "for a series that cannot be judged"
    begin_job(session, job, actor="eligibility", reason=f"{reason}; {request.why}" if request.why else reason, now=now)
    return job


def come_again(session: Session, job: Job, now: datetime) -> None:
    """What is made or sent again of an old series takes its turn after all of today, and is wanted from now on."""
    priority = priority_again(session.get_one(Series, job.series_id), job.priority, now)
    if priority != job.priority or priority is Priority.OFF_PEAK:
        job.priority, job.due_at = priority, max(job.due_at, now)


def _priority_of(session: Session, series: Series, request: JobRequest, runs: int, now: datetime) -> Priority:
    again = priority_again(series, request.priority, now)
    if again == request.priority or runs or not series.calling_ae:  # which no rebuilt store knows
        return again
    skipped = exists().where(
        Event.series_id == series.id, Event.machine == "series", Event.to_state == SeriesState.SKIPPED
    )
    return again if session.scalar(select(skipped)) else request.priority


def priority_again(series: Series, priority: int, now: datetime) -> Priority:
    """The priority of what is made again of a series: off peak where it is not of today, unless it is urgent."""
    is_old = now - series.last_arrival_at > TODAY
    return Priority.OFF_PEAK if is_old and priority != Priority.URGENT else Priority(priority)


def take_route(session: Session, job: Job, request: JobRequest) -> None:
    """Let a cancelled job whose contents came again take the route of today, and its doubt, should it be reopened.

    A job that lives, or whose result was given away, keeps the one that it was queued with.
    """
    given_away = select(exists().where(Delivery.job_id == job.id))
    if job.state is JobState.CANCELLED and not session.scalar(given_away):
        doubts = dict.fromkeys(doubt for doubt in (*job.doubt.split("; "), *request.doubt.split("; ")) if doubt)
        job.route, job.destinations, job.doubt = request.route, list(request.destinations), "; ".join(doubts)


def why_replaced(session: Session, series: Series, request: JobRequest, removed: bool) -> str:
    """Why the present job of a series gives way to another one."""
    if removed:
        return "the series came again after its result was removed"
    present = session.scalar(
        select(Job.bundle).where(Job.series_id == series.id, Job.state.in_(LIVE_JOB_STATES)).limit(1)
    )
    if present is not None and present != request.bundle:
        return f"the series came again, and its bundle is {request.bundle} by now"
    return "the contents of the series or the device settings changed"
