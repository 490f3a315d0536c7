"""Gauges count what the store holds, for monitoring: cheap enough to be asked every few seconds at 100,000 jobs."""

from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, case, func, literal, select
from sqlalchemy.orm import Session

from storage.case_rows import DELIVERY_ORDER
from storage.database import Database
from storage.filters import is_held
from storage.states import RECALLED, DeliveryState, JobState, SeriesState
from storage.tables import Delivery, DeliveryInstance, Job, Series
from storage.tallies import CASES, SETTLED_JOBS, UNSETTLED_JOBS, UNSETTLED_SERIES, keep_counts, kept_counts

STATES: Final = tuple(
    dict.fromkeys(
        str(state)
        for state in (*SeriesState, *JobState, *DeliveryState, RECALLED)
        if state not in (SeriesState.COMPLETE, DeliveryState.PENDING)
    )
)
"""Every state of a case, as a reader calls it."""

_UNSENT: Final = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.FAILED)
_SENT: Final = (DeliveryState.SENT, DeliveryState.CONFIRMED)
_NOT_SENT: Final = [state for state in DeliveryState if state not in _SENT]
_NEWEST: Final = 50
_HELD: Final = -1  # in place of a place in DELIVERY_ORDER


class Gauges:
    """Read-only; a state is a reader's (`Case.state`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cases(self) -> Counter[str]:
        """How many cases are in each state; of a large store what is settled was counted before."""
        with self._database.read() as session:
            found = Counter(dict.fromkeys(STATES, 0))
            kept = kept_counts(session, CASES, datetime.now(UTC))
            found.update(kept if kept is not None else settled_cases(session))
            found[RECALLED] = session.scalar(select(func.count()).where(Job.recalled_at.is_not(None))) or 0
            for state, count in _grouped(session, Series, Series.state.in_(UNSETTLED_SERIES)):
                found["RECEIVING" if state is SeriesState.COMPLETE else state.value] += count
            for job_state, count in _grouped(session, Job, Job.recalled_at.is_(None), Job.state.in_(UNSETTLED_JOBS)):
                found[job_state.value] += count
            found.update(_produced(session, _is_unsettled()))
            return found

    def keep(self, now: datetime) -> None:
        """Count what is settled of a large store, for those who ask in the next minutes; for the watch, every tick."""
        keep_counts(self._database, now, settled_cases)

    def unsent(self, destinations: Collection[str]) -> Counter[tuple[str, str]]:
        """How many deliveries to each of these destinations wait, are under way or failed, by destination and state."""
        query = select(Delivery.destination, Delivery.state, func.count()).where(Delivery.state.in_(_UNSENT))
        found: Counter[tuple[str, str]] = Counter(
            {(name, state.value): 0 for name in destinations for state in _UNSENT}
        )
        with self._database.read() as session:
            for name, state, count in session.execute(query.group_by(Delivery.destination, Delivery.state)):
                if name in destinations:
                    found[name, state.value] = count
        return found

    def oldest(self) -> dict[str, datetime]:
        """When the last instance came of the series that has been longest in each state without a delivered result."""
        last = func.min(Series.last_arrival_at)
        undecided = (SeriesState.RECEIVING, SeriesState.COMPLETE, SeriesState.INCOMPLETE)
        waiting = (JobState.QUEUED, JobState.RUNNING, JobState.HELD, JobState.FAILED)
        of_jobs = select(Job.state, last).join(Series, Series.id == Job.series_id).where(Job.state.in_(waiting))
        of_deliveries = (
            select(Delivery.state, last)
            .join(Job, Job.id == Delivery.job_id)
            .join(Series, Series.id == Job.series_id)
            .where(Delivery.state.in_(_UNSENT), Job.state == JobState.PRODUCED)
        )
        held = select(literal(JobState.HELD.value), last).select_from(Delivery).join(Job, Job.id == Delivery.job_id)
        held = held.join(Series, Series.id == Job.series_id).where(*is_held(), Job.state == JobState.PRODUCED)
        found: dict[str, datetime] = {}
        with self._database.read() as session:
            for query in (
                select(Series.state, last).where(Series.state.in_(undecided)).group_by(Series.state),
                of_jobs.group_by(Job.state),
                of_deliveries.where(~and_(*is_held())).group_by(Delivery.state),
                held.having(func.count() > 0),
            ):
                for state, moment in session.execute(query):
                    name = _READ_AS.get(state, str(state))
                    found[name] = min(found.get(name, moment), moment)
        return found

    def last_sent_at(self) -> datetime | None:
        """When a destination last accepted an instance of one of the newest deliveries that are SENT or CONFIRMED."""
        newest = select(Delivery.id).where(Delivery.state.in_(_SENT)).order_by(Delivery.id.desc()).limit(_NEWEST)
        query = select(func.max(DeliveryInstance.sent_at)).where(DeliveryInstance.delivery_id.in_(newest))
        with self._database.read() as session:
            return session.scalar(query)


_READ_AS: Final[dict[Any, str]] = {SeriesState.COMPLETE: "RECEIVING", DeliveryState.PENDING: "PRODUCED"}


def _grouped(session: Session, table: type[Series] | type[Job], *conditions: Any) -> Any:
    return session.execute(select(table.state, func.count()).where(*conditions).group_by(table.state))


def settled_cases(session: Session) -> Counter[str]:
    """How many cases are in a state in which nearly all of a store are for ever; it reads one row for each delivery."""
    found: Counter[str] = Counter()
    skipped = select(func.count()).where(Series.state == SeriesState.SKIPPED)
    found[SeriesState.SKIPPED.value] = session.scalar(skipped) or 0
    ended = [state for state in SETTLED_JOBS if state is not JobState.PRODUCED]
    for state, count in _grouped(session, Job, Job.recalled_at.is_(None), Job.state.in_(ended)):
        found[state.value] = count
    found.update(_produced(session, ~_is_unsettled()))
    return found


def _is_unsettled() -> ColumnElement[bool]:
    """A job has a delivery that is neither SENT nor CONFIRMED."""
    return Job.id.in_(select(Delivery.job_id).where(Delivery.state.in_(_NOT_SENT)))


def _produced(session: Session, which: ColumnElement[bool]) -> Counter[str]:
    """Cases with a result, by their slowest or worst destination; PRODUCED where there is none."""
    rank = case({state: place for place, state in enumerate(DELIVERY_ORDER)}, value=Delivery.state)
    # A result that waits for its destinations is SENDING once one of them was tried, and PRODUCED before.
    waits, tried = DELIVERY_ORDER.index(DeliveryState.PENDING), DELIVERY_ORDER.index(DeliveryState.SENDING)
    worst = (
        select(
            case(
                (func.max(case((and_(*is_held()), 1), else_=0)) > 0, _HELD),
                (
                    (func.min(rank) == waits) & ((func.max(Delivery.attempts) > 0) | (func.max(rank) > waits)),
                    tried,
                ),
                else_=func.min(rank),
            ).label("place")
        )
        .select_from(Job)
        .outerjoin(Delivery, Delivery.job_id == Job.id)
        .where(Job.state == JobState.PRODUCED, which)
        .group_by(Job.id)
        .subquery()
    )
    found: Counter[str] = Counter()
    for place, count in session.execute(select(worst.c.place, func.count()).group_by(worst.c.place)):
        state = {None: JobState.PRODUCED, _HELD: JobState.HELD}.get(place) or DELIVERY_ORDER[place]
        found[_READ_AS.get(state, state.value)] += count
    return found
