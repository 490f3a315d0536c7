"""A received file that is damaged or gone is known to be missing; the same instance, sent again, makes that good.

An instance of which no row is current is one that the spool lost: its series waits for it like for one that never came.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, exists, func, select
from sqlalchemy.orm import Session, aliased

from storage.database import Database
from storage.entries import Turn
from storage.states import NOT_JUDGED, JobState, SeriesState
from storage.tables import Instance, Job, LostInstance, Series
from storage.transitions import judge_again, move_job, move_series, note_series

MAX_EVENTS = 20  # of one loss; the rest is counted

_WORDS = {"gone": "gone from the spool after it had been received", "damaged": "damaged in the spool afterwards"}
_NEEDS_SOURCES = (JobState.QUEUED, JobState.RUNNING, JobState.FAILED)


@dataclass(frozen=True)
class SourceFile:
    """One received instance as it was kept; `sha256` is that of its file, hex, which has `size_bytes`."""

    sop_instance_uid: str
    sop_class_uid: str
    spool_name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Restored:
    """An instance whose file was damaged or gone came again, and lies in its place; its series goes on by itself."""

    series_uid: str
    sop_instance_uid: str
    was: str
    now: datetime

    @property
    def turn(self) -> tuple[Turn, str]:
        """It waits for its series, and its job."""
        return Turn.SERIES, self.series_uid

    def record(self, connection: Connection) -> None:
        """Say so in the history; what ended for want of the file is judged, or tried, again."""
        with Session(connection, expire_on_commit=False) as session:
            series = session.scalars(
                select(Series).where(Series.series_uid == self.series_uid).with_for_update(key_share=True)
            ).one()
            reason = f"instance {self.sop_instance_uid} was {self.was} in the spool and came again"
            note_series(session, series, actor="receiver", reason=reason, now=self.now)
            if series.state in (SeriesState.SKIPPED, SeriesState.INCOMPLETE):
                move_series(session, series, SeriesState.RECEIVING, actor="receiver", reason=reason, now=self.now)
                series.arrivals, series.last_arrival_at = series.arrivals + 1, self.now
            job = _job_of(session, series)
            if job is not None and job.state is JobState.FAILED and job.bundle == NOT_JUDGED:
                judge_again(session, job, series, actor="receiver", reason=reason, now=self.now)
            elif job is not None and job.state is JobState.FAILED:
                _queue(session, job, "receiver", reason, self.now)
            session.flush()


class SourceStore:
    """The only writer of what became of received files.

    starter: what started this process; others that the same started go on when one of them ends (`storage.deaths`).
    """

    def __init__(self, database: Database, starter: str = "") -> None:
        self._database, self._starter = database, starter

    def sources(self, series_id: int) -> list[SourceFile]:
        """The current instances of a series."""
        with self._database.read() as session:
            return current_sources(session, series_id)

    def lost_sources(self, series_id: int) -> list[SourceFile]:
        """The newest file of each instance that the spool lost and nobody sent again."""
        with self._database.read() as session:
            return [_source_file(row) for row in _lost_rows(session, series_id)]

    def lose_sources(self, series_id: int, lost: Mapping[str, str], actor: str, now: datetime) -> int:
        """These files (by spool name, with their `Condition`) are no use: the series waits for a resend of them.

        A series whose job still needs its files becomes INCOMPLETE, and its job is QUEUED until they came again.
        Returns how many instances are missing of it; 0, with nothing written, where none of the files is current any
        more or the job has its result, which needs no source.
        """
        with self._database.write() as session:
            series = session.scalars(select(Series).where(Series.id == series_id).with_for_update(key_share=True)).one()
            job = _job_of(session, series)
            current = select(Instance).where(Instance.series_id == series_id, Instance.is_current)
            rows = session.scalars(current.where(Instance.spool_name.in_(lost))).all()
            if not rows or (job is not None and not _needs_sources(job)):
                return 0
            _write_lost(session, series, rows, lost, actor=actor, now=now)
            missing = len(_lost_rows(session, series_id))
            _wait_for_resend(session, series, job, missing, actor=actor, now=now)
            return missing

    def find_sources(self, series_id: int, spool_names: Sequence[str], actor: str, now: datetime) -> int:
        """Files that were lost are there again, intact: they count, and the series is judged anew; returns how many."""
        with self._database.write() as session:
            series = session.scalars(select(Series).where(Series.id == series_id).with_for_update(key_share=True)).one()
            rows = [row for row in _lost_rows(session, series_id) if row.spool_name in spool_names]
            for row in rows:
                row.is_current = True
            if rows:
                reason = f"{_images(len(rows))} that had been lost are there again"
                if series.state is not SeriesState.RECEIVING:
                    move_series(session, series, SeriesState.RECEIVING, actor=actor, reason=reason, now=now)
                series.arrivals, series.updated_at = series.arrivals + 1, now
            return len(rows)


def current_sources(session: Session, series_id: int) -> list[SourceFile]:
    """The current instances of a series."""
    rows = session.scalars(select(Instance).where(Instance.series_id == series_id, Instance.is_current))
    return [_source_file(row) for row in rows]


def _needs_sources(job: Job) -> bool:
    if job.bundle == NOT_JUDGED:
        return False
    return job.state in _NEEDS_SOURCES or (job.state is JobState.HELD and job.product_dir is None)


def _write_lost(
    session: Session, series: Series, rows: Sequence[Instance], lost: Mapping[str, str], *, actor: str, now: datetime
) -> None:
    for number, row in enumerate(rows):
        row.is_current = False
        words = _WORDS.get(lost[row.spool_name], lost[row.spool_name])
        known = session.scalar(
            select(LostInstance).where(
                LostInstance.series_uid == series.series_uid, LostInstance.sop_instance_uid == row.sop_instance_uid
            )
        )
        if known is None:
            known = LostInstance(series_uid=series.series_uid, sop_instance_uid=row.sop_instance_uid)
            session.add(known)
        known.association_id, known.reason, known.at = None, words, now
        if number < MAX_EVENTS:
            reason = f"instance {row.sop_instance_uid} is {words}"
            note_series(session, series, actor=actor, reason=reason, now=now)
    session.flush()


def _wait_for_resend(
    session: Session, series: Series, job: Job | None, missing: int, *, actor: str, now: datetime
) -> None:
    # It counts as an arrival, so that no decision about the series as it was before can pass.
    series.arrivals, series.updated_at = series.arrivals + 1, now
    reason = f"waits for a resend of {_images(missing)} that came and were damaged or lost in the spool"
    if job is not None and job.state is not JobState.QUEUED:
        _queue(session, job, actor, reason, now)
    elif job is not None:
        job.reason, job.attempts = reason, 0
    if series.state is SeriesState.QUEUED:
        move_series(session, series, SeriesState.INCOMPLETE, actor=actor, reason=reason, now=now)
    elif series.state is SeriesState.INCOMPLETE:
        series.reason = reason
    elif series.state is SeriesState.COMPLETE:
        move_series(session, series, SeriesState.RECEIVING, actor=actor, reason=reason, now=now)


def _queue(session: Session, job: Job, actor: str, reason: str, now: datetime) -> None:
    move_job(session, job, JobState.QUEUED, actor=actor, reason=reason, now=now)
    job.attempts, job.next_attempt_at = 0, now


def _job_of(session: Session, series: Series) -> Job | None:
    """The job of a decided series, locked."""
    if series.state is not SeriesState.QUEUED or series.job_id is None:
        return None
    return session.scalar(select(Job).where(Job.id == series.job_id).with_for_update(key_share=True))


def _lost_rows(session: Session, series_id: int) -> Sequence[Instance]:
    current = aliased(Instance)
    newest = (
        select(func.max(Instance.id))
        .where(Instance.series_id == series_id)
        .where(
            ~exists().where(
                current.series_id == series_id,
                current.sop_instance_uid == Instance.sop_instance_uid,
                current.is_current,
            )
        )
        .where(
            exists().where(
                LostInstance.series_uid == Series.series_uid,
                Series.id == series_id,
                LostInstance.sop_instance_uid == Instance.sop_instance_uid,
            )
        )
        .group_by(Instance.sop_instance_uid)
    )
    return session.scalars(select(Instance).where(Instance.id.in_(newest)).order_by(Instance.id)).all()


def _source_file(row: Instance) -> SourceFile:
    return SourceFile(row.sop_instance_uid, row.sop_class_uid, row.spool_name, row.sha256, row.size_bytes)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
