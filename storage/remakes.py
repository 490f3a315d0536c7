"""A result whose files are damaged or gone is made again: under its UIDs where the bytes are the same, else anew.

Its deliveries wait meanwhile: only what is PRODUCED is sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.queueing import JobRequest, add_job, come_again
from storage.states import JobState, Priority
from storage.tables import Delivery, Event, Job, Product, Series
from storage.transitions import last_event, move_job, withdraw_deliveries

OTHER_BYTES = "files of its result were damaged or gone, and made again they have other bytes"


@dataclass(frozen=True)
class Release:
    """Who released a result that was HELD for a doubt, and why; all three stand in its files."""

    doubt: str
    actor: str
    reason: str


class ProductStore:
    """Sends jobs back to the workers whose files are no use."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def times_made_again(self, job_id: int, since: datetime) -> int:
        """How often the result of a job was to be made again since then."""
        again = select(func.count()).where(Event.job_id == job_id, Event.machine == "job", Event.at >= since)
        again = again.where(Event.from_state.in_((JobState.PRODUCED, JobState.HELD)), Event.to_state == JobState.QUEUED)
        with self._database.read() as session:
            return session.scalar(again) or 0

    def make_again(
        self, job_id: int, reason: str, actor: str, now: datetime, *, not_before: datetime | None = None
    ) -> bool:
        """PRODUCED or HELD with files -> QUEUED, its attempts counted anew; False in any other state.

        not_before: when a worker may begin; at once without it.
        """
        with self._database.write() as session:
            job = session.scalar(select(Job).where(Job.id == job_id).with_for_update(key_share=True))
            if job is None or job.product_dir is None or job.state not in (JobState.PRODUCED, JobState.HELD):
                return False
            move_job(session, job, JobState.QUEUED, actor=actor, reason=reason, now=now)
            job.attempts, job.next_attempt_at = 0, not_before or now
            come_again(session, job, now)
            return True

    def release_of(self, job_id: int) -> Release | None:
        """The release that stands in the files of a job; None where there is none."""
        with self._database.read() as session:
            return release_of(session, session.get_one(Job, job_id))


def release_of(session: Session, job: Job) -> Release | None:
    """The release that stands in the files of a result; None where there is none."""
    released = last_event(session, job, JobState.PRODUCED, from_state=JobState.HELD) if job.override else None
    if released is None:
        return None
    held = last_event(session, job, JobState.HELD, from_state=JobState.RUNNING, before=released)
    return Release(held.reason if held is not None else "", released.actor, released.reason)


def was_given_away(session: Session, job: Job) -> bool:
    """Whether the result of a job went into the outbox: then its UIDs belong to its bytes for ever."""
    return bool(session.scalar(select(exists().where(Delivery.job_id == job.id))))


def has_same_bytes(session: Session, job: Job, sha256: Mapping[str, str]) -> bool:
    """Whether these files, by SOP Instance UID, are those that the job was PRODUCED with."""
    rows = session.scalars(select(Product).where(Product.job_id == job.id))
    return {row.sop_instance_uid: row.sha256 for row in rows} == sha256


def claimed_at(session: Session, job: Job) -> datetime | None:
    """When the run was claimed whose result went into the outbox; None where none did.

    The files name this moment, so a later run gives the same bytes only with it.
    """
    if not was_given_away(session, job):
        return None
    events = select(Event).where(Event.job_id == job.id, Event.machine == "job", Event.series_id == job.series_id)
    given = events.where(Event.to_state == JobState.PRODUCED).order_by(Event.id).limit(1)
    if (first := session.scalar(given)) is None:
        return None
    ended = events.where(Event.from_state == JobState.RUNNING, Event.id <= first.id)
    ended = ended.where(Event.to_state.in_((JobState.PRODUCED, JobState.HELD)))
    if (end := session.scalar(ended.order_by(Event.id.desc()).limit(1))) is None:
        return None
    began = events.where(Event.to_state == JobState.RUNNING, Event.id < end.id)
    begin = session.scalar(began.order_by(Event.id.desc()).limit(1))
    return begin.at if begin is not None else None


def succeed(session: Session, job: Job, actor: str, now: datetime) -> Job:
    """RUNNING -> SUPERSEDED, and a new job for the same contents: its result has UIDs and a version of its own."""
    move_job(session, job, JobState.SUPERSEDED, actor=actor, reason=OTHER_BYTES, now=now)
    withdraw_deliveries(session, job, OTHER_BYTES, actor, now)
    session.flush()
    series = session.get_one(Series, job.series_id)
    repeat = session.scalar(select(func.max(Job.repeat)).where(Job.job_key == job.job_key)) or 0
    request = JobRequest(
        job.job_key,
        job.bundle,
        _doubt_about_successor(session, job),
        job.patient,
        job.source_count,
        job.route,
        tuple(job.destinations),
        f"route {job.route}, as the job before it" if job.route else "",
        Priority(job.priority),
    )
    successor = add_job(session, series, request, now, repeat=repeat + 1)
    series.job_id = successor.id
    return successor


def _doubt_about_successor(session: Session, job: Job) -> str:
    """The doubt about the contents, and the release that no longer holds."""
    if (release := release_of(session, job)) is None:
        return job.doubt
    by = f"released by {release.actor} ({release.reason})" if release.reason else f"released by {release.actor}"
    gone = f"an earlier result of these images, {by}, was lost and made again with other bytes; look at this one again"
    return f"{job.doubt}; {gone}" if job.doubt else gone
