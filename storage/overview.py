"""Overview answers what became of every series, and why; it reads every table and writes none."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Subquery, func, select, union, union_all
from sqlalchemy.orm import Session

from storage.case_rows import cases_of
from storage.cases import Case, DeliveryView, EventView, LinkedIds, ProgressView, RefusedView, SliceCounts
from storage.database import Database
from storage.errors import NotFound
from storage.filters import Filters
from storage.jobs import ProducedInstance
from storage.states import DeliveryState, JobState
from storage.tables import (
    AssociationSeries,
    Delivery,
    DeliveryInstance,
    Event,
    Job,
    Product,
    Refusal,
    Series,
)
from storage.tallies import row_counts

__all__ = ["Case", "DeliveryView", "EventView", "Overview", "ProgressView", "RefusedView", "SliceCounts"]

_PAGE = 500
_FEW = (
    20_000  # candidates that are sorted; of more the newest pages are looked through first, where most wanted cases are
)
_WALKED = 20  # pages that are looked through for what most cases are, before all of that is listed by an index
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
                for case in cases_of(session, page):
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
            for case in cases_of(session, [row] if row else []):
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
        """Number of rows per raw state, keyed `machine:STATE`; of a large store what is settled was counted before."""
        with self._database.read() as session:
            return row_counts(session, datetime.now(UTC))

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
            newest = [_newest(name, state) for name in _destinations(session) for state in DeliveryState]
            if not newest:
                return {}
            few = union_all(*(select(one.c.destination, one.c.id) for one in newest)).subquery()
            query = select(few.c.destination, func.max(DeliveryInstance.sent_at))
            query = query.join(DeliveryInstance, DeliveryInstance.delivery_id == few.c.id)
            return {name: at for name, at in session.execute(query.group_by(few.c.destination))}

    def longest_waiting(self) -> Case | None:
        """The case that has waited longest for the node itself: not for a person, not for the next instance."""
        of_jobs = select(Job.series_id)
        waits = union(
            of_jobs.where(Job.state.in_((JobState.QUEUED, JobState.RUNNING))),
            of_jobs.join(Delivery).where(Delivery.state.in_((DeliveryState.PENDING, DeliveryState.SENDING))),
        )
        with self._database.read() as session:
            oldest = select(Series).where(Series.id.in_(waits)).order_by(Series.last_arrival_at).limit(_OLDEST)
            cases = [case for case in cases_of(session, session.scalars(oldest).all()) if case.state in _MOVES]
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


def _destinations(session: Session) -> Iterator[str]:
    """Each destination that ever had a delivery, by one step in an index: DISTINCT reads every delivery."""
    first = select(func.min(Delivery.destination))
    name = session.scalar(first)
    while name is not None:
        yield name
        name = session.scalar(first.where(Delivery.destination > name))


def _newest(destination: str, state: DeliveryState) -> Subquery:
    """Deliveries of which one took the last instance: every instance ever sent is too many in an old store."""
    of_state = select(Delivery.id, Delivery.destination)
    of_state = of_state.where(Delivery.destination == destination, Delivery.state == state)
    return of_state.order_by(Delivery.updated_at.desc()).limit(_NEWEST).subquery()


def _pages(session: Session, wanted: Filters, size: int, behind: tuple[int, int] | None) -> Iterator[Sequence[Series]]:
    """Series that may have wanted cases, newest first."""
    conditions, candidates = wanted.conditions(), wanted.candidates()
    if behind is not None:
        conditions.append(Series.id <= behind[0])
    query = select(Series).order_by(Series.id.desc()).limit(size)
    if candidates is None or wanted.asks_for_much():
        walk, walked = query.where(*conditions), 0
        page = session.scalars(walk).all()
        while page and (candidates is None or walked < _WALKED):
            yield page
            below, walked = Series.id < page[-1].id, walked + 1
            page = session.scalars(walk.where(below)).all()
        if candidates is None or not page:
            return
        conditions.append(Series.id <= page[0].id)
    found = select(Series.id).where(Series.id.in_(candidates), *conditions) if conditions else candidates
    ids = sorted(set(session.scalars(found)), reverse=True)
    for start in range(0, len(ids), size):
        yield session.scalars(query.where(Series.id.in_(ids[start : start + size]))).all()


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
