"""RetentionStore decides which files may leave the disk, and says so in the rows before anything is removed.

The order is always the same: a transaction takes the rows of the received files away and marks the result as removed,
and only then its caller removes the files. What a crash leaves in between are files to which no row refers. Everything
is judged again inside that transaction, with the rows locked, so that a resend, a reopened job or a new slice comes
either before it, and is seen, or after it, and is told that the files are gone.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, and_, case, delete, exists, func, or_, select, text, update
from sqlalchemy.orm import Session

from storage.arrivals import OPEN
from storage.database import Database
from storage.errors import IllegalTransition, NotFound
from storage.neighbour_tables import CommitmentRow
from storage.people_tables import AuditRow
from storage.schema import empty_log
from storage.states import DeliveryState, JobState, Leftover, SeriesState, case_id
from storage.tables import (
    Alert,
    Association,
    AssociationSeries,
    Delivery,
    DeliveryInstance,
    Event,
    Instance,
    Job,
    LostInstance,
    Product,
    Refusal,
    Series,
    Shadow,
)
from storage.transitions import note_series

_SETTLED_SERIES = (SeriesState.QUEUED, SeriesState.SKIPPED)
_ENDED = (JobState.CANCELLED, JobState.REJECTED, JobState.SUPERSEDED)
_UNSETTLED_JOBS = [state for state in JobState if state not in (JobState.PRODUCED, *_ENDED)]
_UNSENT = [state for state in DeliveryState if state not in (DeliveryState.SENT, DeliveryState.CONFIRMED)]
_MIN_SPARE_PAGES = 2_500  # 10 MB at the usual 4 kB: less is used again before long
_STEP_PAGES = 250
_GROWTH = timedelta(days=3)
_STEP_PAUSE_S = 0.05  # an instance that arrives must find the database free in between


@dataclass(frozen=True)
class Ages:
    """Since when a thing must have been settled, so that its files may go; None where they stay whatever their age."""

    results: datetime | None
    sources: datetime | None


@dataclass(frozen=True)
class Removal:
    """What no row refers to any more: names in the spool, and the size of the received files in bytes."""

    series_id: int
    received: tuple[str, ...]
    folders: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True)
class _Whole:
    """Everything that is known of one series, locked. came_at: when an instance that is here came for the last time."""

    series: Series
    jobs: Sequence[Job]
    deliveries: Sequence[Delivery]
    came_at: datetime | None

    def of(self, job: Job) -> list[Delivery]:
        return [row for row in self.deliveries if row.job_id == job.id]


class _Busy(Exception):
    """Another process changes the series at this moment."""


class RetentionStore:
    """The only writer of `purged_at`.

    confirming: the destinations that are asked whether they hold what was sent; at any other SENT is the last word.
    """

    def __init__(self, database: Database, confirming: Collection[str] = ()) -> None:
        self._database, self._confirming = database, frozenset(confirming)

    # -- what may go ---------------------------------------------------------------------------------------------------

    def with_files(self, ages: Ages, limit: int, *, after: int = 0) -> list[int]:
        """Ids above `after` of series whose files may be old enough and needed by nobody, the oldest ones first.

        It is a first look; `purge` judges each. Both queries give their ids in order by an index and end at the limit.
        """
        wanted = []
        if ages.results is not None:
            wanted.append(_with_old_results(ages.results, after).limit(limit))
        if ages.sources is not None:
            wanted.append(_with_old_sources(ages.sources, after).limit(limit))
        with self._database.read() as session:
            return sorted({series_id for query in wanted for series_id in session.scalars(query)})[:limit]

    def why_kept(self, series_id: int, job_id: int | None) -> str:
        """Why the files of a job, or of a series without one, are needed; "" where a person may remove them."""
        with self._database.read() as session:
            series = session.get(Series, series_id)
            if series is None:
                raise NotFound(f"there is no series {series_id}")
            return _why_coming(session, series) or self._why_kept(_whole(session, series), job_id)

    def old_cases(self, before: datetime) -> list[str]:
        """Case ids of all jobs, and series without one, whose files are needed by nobody since `before`."""
        ages, after, found = Ages(before, before), 0, []
        while ids := self.with_files(ages, 500, after=after):
            after = ids[-1]
            with self._database.read() as session:
                rows = session.scalars(select(Series).where(Series.id.in_(ids)).order_by(Series.id)).all()
                for whole in _wholes(session, rows):
                    runs = [job.run for job in whole.jobs if self._may_go(whole, job, before)]
                    if not whole.jobs and _settled_at(whole, ()) <= before and not self._why_sources_stay(whole):
                        runs = [1]
                    found += [case_id(whole.series.id, run) for run in runs]
        return found

    def first_to_go(self, ages: Ages) -> tuple[str, datetime] | None:
        """The case whose files go next, and since when it is settled; None where nothing may go, whatever its age.

        Looked for among the oldest 20 series with files; `ages` says of which kind.
        """
        with self._database.read() as session:
            ids = self.with_files(ages, 20)
            wholes = _wholes(session, session.scalars(select(Series).where(Series.id.in_(ids))).all())
        free = [one for one in wholes if not self._why_sources_stay(one)]
        at, series_id = min(((_settled_at(one, one.jobs), one.series.id) for one in free), default=(None, 0))
        return None if at is None else (str(series_id), at)

    # -- removal -------------------------------------------------------------------------------------------------------

    def purge(self, series_ids: Iterable[int], ages: Ages, reason: str, now: datetime) -> list[Removal]:
        """Mark what of these series is old enough and needed by nobody, in one transaction; its files may go then."""
        with self._database.write() as session:
            query = select(Series).where(Series.id.in_(list(series_ids))).order_by(Series.id)
            rows = session.scalars(query.with_for_update(key_share=True, skip_locked=True)).all()
            found = [self._purge(session, row, ages, reason, now) for row in rows]
            return [removal for removal in found if removal is not None]

    def purge_case(self, series_id: int, job_id: int | None, actor: str, reason: str, now: datetime) -> Removal:
        """Mark the files of one job, or of a series without one, as removed by a person, whatever their age.

        The received files go too unless another job of the series needs them. Raises NotFound, and IllegalTransition
        with the reason where the files are needed.
        """
        with self._database.write() as session:
            series = session.scalar(select(Series).where(Series.id == series_id).with_for_update(key_share=True))
            if series is None:
                raise NotFound(f"there is no series {series_id}")
            try:
                whole = _locked(session, series)
            except _Busy as error:
                raise IllegalTransition("it is being changed at this moment; try again") from error
            if why := _why_coming(session, series) or self._why_kept(whole, job_id):
                raise IllegalTransition(why)
            jobs = [job for job in whole.jobs if job.id == job_id and job.product_dir and job.purged_at is None]
            sources = not self._why_sources_stay(whole)
            return _mark(session, whole, jobs, sources=sources, actor=actor, reason=reason, now=now)

    def _purge(self, session: Session, series: Series, ages: Ages, reason: str, now: datetime) -> Removal | None:
        try:
            whole = _locked(session, series)
        except _Busy:
            return None
        jobs = [job for job in whole.jobs if self._may_go(whole, job, ages.results)]
        is_old = ages.sources is not None and _settled_at(whole, whole.jobs) <= ages.sources
        sources = is_old and not self._why_sources_stay(whole) and _has_files(session, series)
        if not jobs and not sources:
            return None
        return _mark(session, whole, jobs, sources=sources, actor="retention", reason=reason, now=now)

    def _may_go(self, whole: _Whole, job: Job, before: datetime | None) -> bool:
        if before is None or job.product_dir is None or job.purged_at is not None:
            return False
        return _settled_at(whole, [job]) <= before and not self._why_result_stays(whole, job)

    def _why_kept(self, whole: _Whole, job_id: int | None) -> str:
        job = next((job for job in whole.jobs if job.id == job_id), None)
        if job is not None and job.purged_at is not None:
            return f"its files were removed on {job.purged_at:%Y-%m-%d} already"
        if job is not None and job.product_dir is not None:
            return self._why_result_stays(whole, job)
        return self._why_sources_stay(whole) or ("" if whole.series.purged_at is None else "its files were removed")

    def _why_result_stays(self, whole: _Whole, job: Job) -> str:
        """A clause that says who still needs the result; "" where nobody does."""
        deliveries = whole.of(job)
        if job.state in _ENDED:
            in_hand = any(row.courier is not None for row in deliveries)
            return "a courier still has it in its hands" if in_hand else ""
        if job.state is not JobState.PRODUCED:
            return f"it is {job.state}"
        if whole.series.state not in _SETTLED_SERIES:
            return f"its series is {whole.series.state} again"
        if not deliveries:
            return "it was sent nowhere, so this node has the only copy; cancel it first if nobody wants it"
        open_ = [row for row in deliveries if not self._is_final(row)]
        return (
            f"{open_[0].destination} has not {self._expected_of(open_[0])} it; it is {open_[0].state}" if open_ else ""
        )

    def _why_sources_stay(self, whole: _Whole) -> str:
        """A clause that says what still needs the received files; "" where nothing does."""
        if whole.series.state not in _SETTLED_SERIES:
            return f"its series is {whole.series.state}"
        needing = [(job, self._why_result_stays(whole, job)) for job in whole.jobs if job.purged_at is None]
        return next((why for _, why in needing if why), "")

    def _is_final(self, row: Delivery) -> bool:
        if row.state is DeliveryState.SENT:
            return row.destination not in self._confirming
        return row.state is DeliveryState.CONFIRMED

    def _expected_of(self, row: Delivery) -> str:
        return "confirmed" if row.destination in self._confirming else "accepted"

    # -- files and rows that belong to nothing -------------------------------------------------------------------------

    def unknown(self, spool_names: Sequence[str]) -> list[str]:
        """Those of these received files to which no row refers."""
        with self._database.read() as session:
            known = set(session.scalars(select(Instance.spool_name).where(Instance.spool_name.in_(spool_names))))
        return [name for name in spool_names if name not in known]

    def forget(self, before: datetime, limit: int = 200) -> int:
        """Remove the history of series of which nothing happened since `before` and no file is left; their number.

        The rows of the series, its jobs and its deliveries stay for ever: they tell what became of it, and that a UID
        was used. Events, single instances, closed alerts, ended associations, old refusals and audit rows go.
        """
        with self._database.write() as session:
            # Locked, so that a series that comes again at this moment loses nothing of its new history.
            found = _forgettable(before).limit(limit).with_for_update(key_share=True, skip_locked=True, of=Series)
            ids = list(session.scalars(found))
            jobs = select(Job.id).where(Job.series_id.in_(ids))
            deliveries = select(Delivery.id).where(Delivery.job_id.in_(jobs))
            session.execute(delete(DeliveryInstance).where(DeliveryInstance.delivery_id.in_(deliveries)))
            session.execute(delete(CommitmentRow).where(CommitmentRow.delivery_id.in_(deliveries)))
            session.execute(delete(Product).where(Product.job_id.in_(jobs)))
            session.execute(delete(Shadow).where(Shadow.job_id.in_(jobs)))
            session.execute(delete(Event).where(Event.series_id.in_(ids)))
            session.execute(delete(Alert).where(Alert.closed_at < before))
            session.execute(delete(Refusal).where(Refusal.last_at < before))
            session.execute(delete(AuditRow).where(AuditRow.at < before))
            missing = select(LostInstance.association_id).where(LostInstance.association_id.is_not(None))
            unused = delete(Association).where(Association.closed_at < before, Association.id.not_in(missing))
            session.execute(unused.where(Association.id.not_in(select(AssociationSeries.association_id))))
            return len(ids)

    # -- space ---------------------------------------------------------------------------------------------------------

    def growth_bytes_per_h(self, now: datetime) -> float:
        """How fast the spool grew on average over the last three days; a translated slice counts twice, for its result.

        Where the node is younger than that, over the time since its first slice, at least an hour.
        """
        since = now - _GROWTH
        with self._database.read() as session:
            weight = case((Series.job_id.is_not(None), 2), else_=1)
            size, first = session.execute(
                select(func.sum(Instance.size_bytes * weight), func.min(Instance.received_at))
                .join(Series, Series.id == Instance.series_id)
                .where(Instance.received_at >= since)
            ).one()
        if not size:
            return 0.0
        return float(size) / max(1.0, (now - first).total_seconds() / 3600)

    def compact(self, has_time: Callable[[], bool]) -> int:
        """Give the file system back what a SQLite database does not use; returns the bytes of that.

        It begins where that is more than a quarter of the file, and ends when nothing is left or `has_time` says no.
        Each step takes the database from others for some thousandths of a second. PostgreSQL does this by itself.
        """
        if not self._database.is_sqlite:
            return 0
        freed = 0
        if self._spare_pages() > max(_MIN_SPARE_PAGES, self._pragma("page_count") // 4):
            before = self._pragma("page_count")
            while self._spare_pages() and has_time():
                with self._database.write() as session:
                    for _ in range(_STEP_PAGES):  # the driver asks for the first page only, whatever the number
                        session.connection().exec_driver_sql("PRAGMA incremental_vacuum(1)")
                time.sleep(_STEP_PAUSE_S)
            freed = (before - self._pragma("page_count")) * self._pragma("page_size")
        empty_log(self._database)
        return freed

    def _spare_pages(self) -> int:
        """Pages that can be given back; a store of an earlier version that `db upgrade` did not change keeps its."""
        return self._pragma("freelist_count") if self._pragma("auto_vacuum") else 0

    def _pragma(self, name: str) -> int:
        with self._database.read() as session:
            return int(session.scalar(text(f"PRAGMA {name}")) or 0)


def _with_old_results(before: datetime, after: int) -> Select[int]:
    """Ids of series, by the index of the jobs that have files: nearly all of an old store have none any more."""
    of_job = Delivery.job_id == Job.id
    open_ = exists().where(of_job, Delivery.state.in_(_UNSENT))
    # Asked as EXISTS, PostgreSQL may collect the jobs of all deliveries first, where it expects to need many of them.
    any_ = select(Delivery.id).where(of_job).limit(1).correlate(Job).scalar_subquery()
    is_sent = and_(Job.state == JobState.PRODUCED, any_.is_not(None), ~open_)
    return (
        select(Job.series_id)
        .join(Series, Job.series_id == Series.id)
        .where(Series.state.in_(_SETTLED_SERIES), Job.series_id > after)
        .where(Job.product_dir.is_not(None), Job.purged_at.is_(None), Job.updated_at <= before)
        .where(or_(Job.state.in_(_ENDED), is_sent))
        .distinct()
        .order_by(Job.series_id)
    )


def _with_old_sources(before: datetime, after: int) -> Select[int]:
    """Ids of series, by the index of the instances: an old store has none of most series any more."""
    received = select(Instance.series_id).where(Instance.series_id > after).distinct().subquery()
    waiting = exists().where(Job.series_id == received.c.series_id, Job.state.in_(_UNSETTLED_JOBS))
    return (
        select(received.c.series_id)
        .join(Series, Series.id == received.c.series_id)
        .where(Series.updated_at <= before, Series.state.in_(_SETTLED_SERIES), ~waiting)
        .order_by(received.c.series_id)
    )


def _whole(session: Session, series: Series) -> _Whole:
    return _wholes(session, [series])[0]


def _wholes(session: Session, rows: Sequence[Series]) -> list[_Whole]:
    """Each of these series with its jobs and deliveries, in two queries for all of them."""
    ids = [row.id for row in rows]
    jobs, deliveries = defaultdict[int, list[Job]](list), defaultdict[int, list[Delivery]](list)
    for job in session.scalars(select(Job).where(Job.series_id.in_(ids)).order_by(Job.run)):
        jobs[job.series_id].append(job)
    of_series = select(Delivery, Job.series_id).join(Job, Job.id == Delivery.job_id).where(Job.series_id.in_(ids))
    for delivery, series_id in session.execute(of_series):
        deliveries[series_id].append(delivery)
    last = select(Instance.series_id, func.max(Instance.received_at)).where(Instance.series_id.in_(ids))
    came_at = {series_id: at for series_id, at in session.execute(last.group_by(Instance.series_id))}
    return [_Whole(row, jobs[row.id], deliveries[row.id], came_at.get(row.id)) for row in rows]


def _locked(session: Session, series: Series) -> _Whole:
    """All of a locked series, its rows locked as well; raises _Busy, because others lock a job before its series."""
    jobs = select(Job.id).where(Job.series_id == series.id)
    deliveries = select(Delivery.id).where(Delivery.job_id.in_(jobs))
    for query in (jobs, deliveries):
        every = session.scalars(query).all()
        if len(session.scalars(query.with_for_update(key_share=True, skip_locked=True)).all()) < len(every):
            raise _Busy
    return _whole(session, series)


def _settled_at(whole: _Whole, jobs: Sequence[Job]) -> datetime:
    """When these jobs and their deliveries last changed; of all jobs, also when the series did.

    It did when what is here came again as well: its sender has the answer that it is kept, and is still sending.
    """
    moments = [job.updated_at for job in jobs]
    moments += [row.updated_at for job in jobs for row in whole.of(job)]
    if len(jobs) == len(whole.jobs):
        moments += [whole.series.updated_at, whole.series.last_arrival_at, whole.came_at or whole.series.updated_at]
    return max(moments)


def _why_coming(session: Session, series: Series) -> str:
    """What keeps a series that is being sent again: its sender has the answer that what came is kept; "" for others."""
    touched = select(AssociationSeries.association_id).where(AssociationSeries.series_id == series.id)
    is_coming = session.scalar(select(exists().where(Association.id.in_(touched), Association.outcome == OPEN)))
    return "its images are being received at this moment; try again when their sender has ended" if is_coming else ""


def _has_files(session: Session, series: Series) -> bool:
    return bool(session.scalar(select(exists().where(Instance.series_id == series.id))))


def _mark(
    session: Session, whole: _Whole, jobs: Sequence[Job], *, sources: bool, actor: str, reason: str, now: datetime
) -> Removal:
    """Write down that these results, and the received files, are gone; returns what may be removed then."""
    series, names, size_bytes = whole.series, [], 0
    said = []
    if jobs:
        session.execute(update(Job).where(Job.id.in_([job.id for job in jobs])).values(purged_at=now))
        said.append(f"the results of {len(jobs)} jobs" if len(jobs) > 1 else "the result")
    if sources:
        rows = session.execute(
            select(Instance.spool_name, Instance.size_bytes).where(Instance.series_id == series.id)
        ).all()
        names, size_bytes = [name for name, _ in rows], sum(size for _, size in rows)
        # What is said of instances belongs to them: the series begins anew when it comes again.
        session.execute(delete(Instance).where(Instance.series_id == series.id))
        session.execute(delete(AssociationSeries).where(AssociationSeries.series_id == series.id))
        session.execute(delete(LostInstance).where(LostInstance.series_uid == series.series_uid))
        series.purged_at = now
        said.append(f"{len(names)} received files ({size_bytes / 1e6:.1f} MB)")
    if said:
        text = f"removed {' and '.join(said)} from the disk: {reason}"
        note_series(session, series, actor=actor, reason=text, now=now)
    return Removal(series.id, tuple(names), tuple(job.product_dir for job in jobs if job.product_dir), size_bytes)


def _forgettable(before: datetime) -> Select[int]:
    """Series without a file of which nothing happened since."""
    has_received = exists().where(Instance.series_id == Series.id)
    has_result = exists().where(Job.series_id == Series.id, Job.product_dir.is_not(None), Job.purged_at.is_(None))
    young_job = exists().where(Job.series_id == Series.id, or_(Job.updated_at >= before, Job.purged_at >= before))
    stands = exists().where(Job.series_id == Series.id, Delivery.job_id == Job.id, Delivery.leftover == Leftover.STANDS)
    return (
        select(Series.id)
        .where(Series.purged_at < before, Series.updated_at < before)
        .where(Series.state.in_(_SETTLED_SERIES))
        .where(~has_received, ~has_result, ~young_job, ~stands)
        .where(exists().where(Event.series_id == Series.id))
        .order_by(Series.id)
    )
