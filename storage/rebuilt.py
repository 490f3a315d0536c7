"""Writes into a new store what a spool holds: the received instances, and the results with their jobs' old numbers.

What only the old store knew is gone: who sent a series, what was refused of it, what a person decided, what was sent.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from storage.arrivals import Arrival, ArrivalStore, Receipt, series_row
from storage.database import Database
from storage.jobs import ProducedSeries
from storage.series import JobRequest, SeriesFacts
from storage.states import JobState, SeriesState
from storage.tables import Instance, Job, Product, Series
from storage.transitions import begin_job, move_job, move_series

ACTOR = "rebuild"
UNKNOWN_SENDER = ""
REASON = (
    "the store was rebuilt from the spool, and whether this result was sent, rejected or recalled is not known: look "
    "at the destination, then release it (it is sent) or reject it (it stays here)"
)
DOUBT = (
    "the store was rebuilt from the spool, and whether slices of the series were refused, or a person cancelled it, is "
    "not known"
)
_BATCH = 500


@dataclass(frozen=True)
class FoundResult:
    """A folder of a result: the number of its job, and when it was made. `request` where its job's key is known."""

    job_id: int
    made_at: datetime
    product: ProducedSeries
    request: JobRequest | None = None


class RebuiltStore:
    """The only writer of a store that is being rebuilt; nothing else may use it meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_empty(self) -> bool:
        """Whether no series is known."""
        with self._database.read() as session:
            return session.scalar(select(Series.id).limit(1)) is None

    def receive(self, found: Sequence[tuple[Arrival, datetime]], now: datetime) -> None:
        """Record instances with the moments at which they came, oldest first."""
        arrivals = ArrivalStore(self._database)
        association = arrivals.open_association(ACTOR, UNKNOWN_SENDER, "", now)
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            receipts = [Receipt(association, UNKNOWN_SENDER, arrival, at) for arrival, at in batch]
            for answer in arrivals.record_group(receipts):
                if isinstance(answer, BaseException):
                    raise answer
        arrivals.close_association(association, released=True, now=now)

    def source_of(self, series_uid: str) -> list[str]:
        """Spool names of the current instances of a series; none where retention removed them."""
        query = select(Instance.spool_name).join(Series, Series.id == Instance.series_id)
        with self._database.read() as session:
            return list(session.scalars(query.where(Series.series_uid == series_uid, Instance.is_current)))

    def add_results(
        self, study_uid: str, series_uid: str, facts: SeriesFacts, results: Sequence[FoundResult], now: datetime
    ) -> None:
        """The results of a source series, oldest first: the last is HELD, each one before it SUPERSEDED."""
        with self._database.write() as session:
            series = series_row(session, study_uid, series_uid, UNKNOWN_SENDER, now)
            facts.write_to(series)
            for to in (SeriesState.COMPLETE, SeriesState.QUEUED):
                move_series(session, series, to, actor=ACTOR, reason="", now=now)
            for run, result in enumerate(results, start=1):
                job = _add_job(session, series, result, run, now)
                if run < len(results):
                    reason = "a later result of the series exists"
                    move_job(session, job, JobState.SUPERSEDED, actor=ACTOR, reason=reason, now=now)
                    session.flush()
                else:
                    series.job_id = job.id

    def settle_numbers(self) -> None:
        """Let PostgreSQL count on behind the numbers that were given here; SQLite does so by itself."""
        if self._database.is_sqlite:
            return
        with self._database.write() as session:
            session.execute(text("SELECT setval(pg_get_serial_sequence('job', 'id'), (SELECT max(id) FROM job))"))

    def counts(self) -> dict[str, int]:
        """How many series are in each state."""
        with self._database.read() as session:
            rows = session.execute(select(Series.state, func.count()).group_by(Series.state))
            return {str(state): count for state, count in rows}


def _add_job(session: Session, series: Series, result: FoundResult, run: int, now: datetime) -> Job:
    product, request = result.product, result.request
    key = request.key if request is not None else hashlib.sha256(f"rebuilt {result.job_id}".encode()).hexdigest()
    job = Job(
        id=result.job_id,
        series_id=series.id,
        run=run,
        job_key=key,
        bundle=request.bundle if request is not None else "another bundle",
        source_count=len(product.instances),
        version=run,
        patient=dict(request.patient) if request is not None else {},
        route=request.route if request is not None else "",
        destinations=list(request.destinations) if request is not None else [],
    )
    begin_job(session, job, actor=ACTOR, reason=f"found {product.product_dir}", now=result.made_at)
    move_job(session, job, JobState.RUNNING, actor=ACTOR, reason="", now=result.made_at)
    job.derived_series_uid, job.product_dir = product.series_uid, product.product_dir
    job.series_number, job.series_description = product.series_number, product.series_description
    for made in product.instances:
        session.add(Product(job_id=job.id, **vars(made)))
    move_job(session, job, JobState.HELD, actor=ACTOR, reason=REASON, now=now)
    return job
