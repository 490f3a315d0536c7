"""Forecast says when a result will stand at its destinations, from the queue and from what was measured before.

What was never measured is not guessed: a bundle or a destination without a finished series gives no time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from storage.cases import Case
from storage.database import Database
from storage.filters import is_expected
from storage.states import DeliveryState, JobState
from storage.tables import Delivery, DeliveryInstance, Event, Job
from storage.turns import TURNS

MEASURED: Final = 20  # the newest finished jobs, or deliveries, that count


@dataclass(frozen=True)
class Expected:
    """When a result is due, and when it will probably be there; None where none is waited for, or nobody can tell.

    is_late: whether it is due already.
    """

    due_at: datetime | None = None
    eta_at: datetime | None = None
    is_late: bool = False


class Forecast:
    """Read-only; each question is answered for a whole listing at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def expected(self, cases: Sequence[Case], now: datetime, due_s: float) -> dict[str, Expected]:
        """By case id, of each of these cases; a result is due as its job says.

        Where there is no job yet, it is `due_s` after the case began to wait for one.
        """
        ends = self.ends(cases, now)
        found = {}
        for case in cases:
            due_at = (case.due_at or case.counts_from + timedelta(seconds=due_s)) if is_expected(case) else None
            found[case.id] = Expected(due_at, ends.get(case.id), due_at is not None and due_at < now)
        return found

    def ends(self, cases: Sequence[Case], now: datetime) -> dict[str, datetime]:
        """When the last destination will have each of these cases, by case id; those that nobody can tell are left out.

        Told are QUEUED, RUNNING, PRODUCED and SENDING, not after a failed attempt: how long a peer stays away is not
        measured.
        """
        moving = [case for case in cases if case.state in _MOVING and case.attempts <= 1]
        if not moving:
            return {}
        with self._database.read() as session:
            queue = _Queue(session, now)
            pace = _Pace(session)
            ends = {case.id: _end(case, queue, pace, now) for case in moving}
        return {case_id: end for case_id, end in ends.items() if end is not None}


_MOVING: Final = ("QUEUED", "RUNNING", "PRODUCED", "SENDING")


def _end(case: Case, queue: "_Queue", pace: "_Pace", now: datetime) -> datetime | None:
    if case.job_id in queue.jobs:
        produced = queue.produced_at(case.job_id, pace)
        names, slices = pace.usual_destinations(), case.slices.received
    elif case.deliveries and all(view.attempts <= 1 for view in case.deliveries):
        produced, slices = now, case.slices.produced - case.slices.sent
        names = [view.destination for view in case.deliveries if view.state in _OPEN]
    else:
        return None
    sending = [pace.sending_s(name) for name in names]
    if produced is None or None in sending:
        return None
    return produced + timedelta(seconds=slices * max((one for one in sending if one is not None), default=0.0))


_OPEN: Final = (DeliveryState.PENDING, DeliveryState.SENDING)


class _Queue:
    """Every job that is computed or waits for it, in the order in which the workers take them."""

    def __init__(self, session: Session, now: datetime) -> None:
        query = select(Job).where(Job.state.in_((JobState.RUNNING, JobState.QUEUED)))
        rows = session.scalars(query.order_by(*TURNS)).all()
        self.jobs = {row.id: row for row in rows}
        self._order = sorted(rows, key=lambda row: row.state is not JobState.RUNNING)
        self._workers = max(1, len({row.worker for row in rows if row.state is JobState.RUNNING}))
        self._now = now
        self._started = _started(session, [row.id for row in rows if row.state is JobState.RUNNING])

    def produced_at(self, job_id: int | None, pace: "_Pace") -> datetime | None:
        """When a worker will have made it; None where the pace of its bundle, or of one before it, is not known."""
        ahead_s = 0.0
        for row in self._order:
            seconds = self._left_s(row, pace)
            if seconds is None:
                return None
            if row.id == job_id:
                waits_s = 0.0 if row.state is JobState.RUNNING else ahead_s / self._workers
                start = max(self._now, row.next_attempt_at) if row.state is JobState.QUEUED else self._now
                return start + timedelta(seconds=waits_s + seconds)
            ahead_s += seconds
        return None

    def _left_s(self, row: Job, pace: "_Pace") -> float | None:
        per_slice_s = pace.translating_s(row.bundle)
        if per_slice_s is None:
            return None
        whole_s = per_slice_s * row.source_count
        started = self._started.get(row.id)
        return max(0.0, whole_s - (self._now - started).total_seconds()) if started is not None else whole_s


class _Pace:
    """Seconds per slice of the newest finished jobs and deliveries; each is measured once, when it is asked for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._translating: dict[str, float | None] = {}
        self._sending: dict[str, float | None] = {}
        self._usual: list[str] | None = None

    def translating_s(self, bundle: str) -> float | None:
        """From the claim of a job until its result; None where this bundle has made none yet."""
        if bundle not in self._translating:
            query = select(Job.id, Job.source_count).where(Job.bundle == bundle, Job.state == JobState.PRODUCED)
            rows = self._session.execute(query.order_by(Job.updated_at.desc()).limit(MEASURED)).all()
            counts = {job_id: count for job_id, count in rows}
            self._translating[bundle] = _per_slice(_spans(self._session, list(counts)), counts)
        return self._translating[bundle]

    def sending_s(self, destination: str) -> float | None:
        """From the result until the last accepted instance; None where this destination has got nothing yet."""
        if destination not in self._sending:
            sent = (DeliveryState.SENT, DeliveryState.CONFIRMED)
            newest = select(Delivery.id).where(
                Delivery.destination == destination, Delivery.state.in_(sent), Delivery.attempts <= 1
            )
            query = (
                select(Delivery.created_at, func.max(DeliveryInstance.sent_at), func.count())
                .join(DeliveryInstance, DeliveryInstance.delivery_id == Delivery.id)
                .where(Delivery.id.in_(newest.order_by(Delivery.id.desc()).limit(MEASURED)))
                .group_by(Delivery.id)
            )
            rows = self._session.execute(query).all()
            spans = {n: (end - begin).total_seconds() for n, (begin, end, _) in enumerate(rows)}
            self._sending[destination] = _per_slice(spans, {n: count for n, (_, _, count) in enumerate(rows)})
        return self._sending[destination]

    def usual_destinations(self) -> list[str]:
        """Where the newest job with deliveries went: a job that is not made yet has none of its own."""
        if self._usual is None:
            newest = self._session.scalar(select(func.max(Delivery.job_id)))
            query = select(Delivery.destination).where(Delivery.job_id == newest)
            self._usual = list(self._session.scalars(query))
        return self._usual


def _per_slice(spans_s: dict[int, float], counts: dict[int, int]) -> float | None:
    slices = sum(counts[key] for key in spans_s)
    return sum(max(0.0, span) for span in spans_s.values()) / slices if slices else None


def _started(session: Session, job_ids: Sequence[int]) -> dict[int, datetime]:
    """When each job was last claimed."""
    return _last_event(session, job_ids, Event.to_state == JobState.RUNNING)


def _spans(session: Session, job_ids: Sequence[int]) -> dict[int, float]:
    """Seconds between the last claim of each job and its result."""
    begun = _started(session, job_ids)
    ended = _last_event(session, job_ids, Event.from_state == JobState.RUNNING)
    return {key: (ended[key] - begun[key]).total_seconds() for key in begun if key in ended}


def _last_event(session: Session, job_ids: Sequence[int], condition: ColumnElement[bool]) -> dict[int, datetime]:
    series = select(Job.series_id).where(Job.id.in_(job_ids))  # events are found by their series
    query = select(Event.job_id, func.max(Event.at)).where(
        Event.series_id.in_(series), Event.job_id.in_(job_ids), Event.machine == "job", condition
    )
    return {key: at for key, at in session.execute(query.group_by(Event.job_id)) if key is not None}
