"""What waits in each stage and what is in hand on each host, for readers; it writes nothing."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, case, func, select

from storage.arrivals import OPEN
from storage.database import Database
from storage.hosts import HostStore
from storage.pauses import host_of
from storage.states import DeliveryState, JobState, SeriesState, Stage, State
from storage.tables import Association, Delivery, Job, Series
from storage.turns import TURNS, full_senders


@dataclass(frozen=True)
class Waiting:
    """What waits in one stage, of one priority, from one sender or for one destination.

    priority: a `storage.states.Priority`, None while a series is received. sender: a calling AE title, destination: its
    name, "" where the stage has none. in_hand: how many are worked at now. late: how many of both are overdue. due_at:
    when the first of them is wanted.
    """

    stage: Stage
    priority: int | None
    sender: str
    destination: str
    waiting: int
    in_hand: int
    late: int
    due_at: datetime | None


@dataclass(frozen=True)
class InHand:
    """What a host works at: jobs that are translated, deliveries that are sent, associations that send to it."""

    jobs: int = 0
    deliveries: int = 0
    associations: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether the host can be switched off without anything being done again."""
        return not (self.jobs or self.deliveries or self.associations)


class WaitingReader:
    """Read-only; each question is answered by indexed queries over what is unfinished."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rows(self, now: datetime) -> list[Waiting]:
        """What waits or is in hand, by stage, priority, sender and destination, in the order of turns."""
        with self._database.read() as session:
            received = session.execute(_received()).all()
            translated = session.execute(_translated(now)).all()
            sent = session.execute(_sent(now)).all()
        return [
            *(Waiting(Stage.RECEIVE, None, ae, "", count, 0, 0, None) for ae, count in received),
            *(Waiting(Stage.TRANSLATE, row[0], row[1], "", *row[2:]) for row in translated),
            *(Waiting(Stage.SEND, row[0], "", row[1], *row[2:]) for row in sent),
        ]

    def before(self, job_ids: Collection[int]) -> dict[int, int]:
        """How many waiting jobs have their turn before each of these, of those that wait themselves."""
        place = func.row_number().over(order_by=TURNS)
        queue = select(Job.id, place.label("place")).where(Job.state == JobState.QUEUED).subquery()
        with self._database.read() as session:
            found = session.execute(select(queue.c.id, queue.c.place).where(queue.c.id.in_(job_ids)))
            return {job_id: number - 1 for job_id, number in found}

    def full_senders(self, limit: int) -> Collection[str]:
        """The calling AE titles of which so many jobs run."""
        with self._database.read() as session:
            return full_senders(session, limit)

    def in_hand(self) -> dict[str, InHand]:
        """What each host works at, by its name; hosts whose processes are known and idle have an empty entry."""
        with self._database.read() as session:
            jobs = session.scalars(select(Job.worker).where(Job.state == JobState.RUNNING)).all()
            couriers = session.scalars(select(Delivery.courier).where(Delivery.state == DeliveryState.SENDING)).all()
            receivers = session.scalars(select(Association.receiver).where(Association.outcome == OPEN)).all()
        hosts = HostStore(self._database).all()
        silent = {name for host in hosts for name in host.silent}  # what a killed receiver had open ended with it
        receivers = [name for name in receivers if name not in silent]
        counts = [_by_host(names) for names in (jobs, couriers, receivers)]
        known = {*(host.name for host in hosts), *(host for count in counts for host in count)} - {""}
        return {host: InHand(*(count[host] for count in counts)) for host in sorted(known)}


def _by_host(names: Iterable[str | None]) -> Counter[str]:
    return Counter(host_of(name or "") for name in names)


def _received() -> Select[str, int]:
    return (
        select(Series.calling_ae, func.count())
        .where(Series.state == SeriesState.RECEIVING)
        .group_by(Series.calling_ae)
        .order_by(Series.calling_ae)
    )


def _translated(now: datetime) -> Select[Any]:
    jobs = _in_turn(now, Job.state, JobState.QUEUED, JobState.RUNNING, Series.calling_ae)
    return jobs.select_from(Job).join(Series, Series.id == Job.series_id)


def _sent(now: datetime) -> Select[Any]:
    deliveries = _in_turn(now, Delivery.state, DeliveryState.PENDING, DeliveryState.SENDING, Delivery.destination)
    return deliveries.select_from(Delivery).join(Job, Job.id == Delivery.job_id)


def _in_turn(now: datetime, state: Any, waits: State, in_hand: State, peer: Any) -> Select[Any]:
    """By priority and peer: how many wait, are in hand and are late, and when the first of them is wanted."""
    conditions = (state == waits, state == in_hand, Job.due_at < now)
    counts = (func.sum(case((condition, 1), else_=0)) for condition in conditions)
    return (
        select(Job.priority, peer, *counts, func.min(Job.due_at))
        .where(state.in_((waits, in_hand)))
        .group_by(Job.priority, peer)
        .order_by(Job.priority, func.min(Job.due_at))
    )
