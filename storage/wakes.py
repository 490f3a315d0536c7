"""What wakes a process that waits for work: a notification of PostgreSQL; on SQLite, a look every half second.

A notification is sent by the transaction that makes the work (`storage.transitions`), and comes with its commit. It is
no more than a reason to look: one that is lost, or whose server was restarted, delays work by `SLOW_S` at most.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import Select, func, select

from storage.database import Database
from storage.neighbour_tables import RejectionNoteRow
from storage.outage import Outage
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Delivery, Job, Series
from storage.transitions import CHANNEL, Topic

if TYPE_CHECKING:
    from psycopg import Connection

log = logging.getLogger(__name__)

SLOW_S: Final = 5.0  # the longest time between two looks at a PostgreSQL server that says nothing
POLL_S: Final = 0.5  # between two looks at SQLite, which tells nobody
_LISTEN_S: Final = 0.2  # how often the listener sees that it is to end
_ASK_EVERY_S: Final = 15.0  # whether the server is still there: a firewall may drop a silent connection without a word


class Bell(Protocol):
    """What one thread waits for between two looks for work."""

    def listen(self) -> None:
        """A look for work begins: what rings from now on is news."""

    def wait(self, stop: threading.Event) -> None:
        """Wait for the time of the next look, or until `stop` is set. Raises StoreUnavailable."""

    def is_due(self) -> bool:
        """Whether it is time to look, for who does not wait here."""

    def rest(self) -> None:
        """A look for work is over: reckon when the next is due at the latest. Raises StoreUnavailable."""


class Polling:
    """A look every so many seconds, whatever happens."""

    def __init__(self, every_s: float = POLL_S) -> None:
        self._every_s = every_s

    def listen(self) -> None:
        """Nothing tells of work."""

    def wait(self, stop: threading.Event) -> None:
        """Wait."""
        stop.wait(self._every_s)

    def is_due(self) -> bool:
        """Always."""
        return True

    def rest(self) -> None:
        """Nothing has to be reckoned."""


class _Rung:
    """A look when the listener rings, when something comes due (`due_in_s`), and every `SLOW_S` at the latest."""

    def __init__(self, due_in_s: Callable[[], float]) -> None:
        self._due_in_s, self._rung, self._next_s = due_in_s, threading.Event(), 0.0

    def ring(self) -> None:
        self._rung.set()

    def listen(self) -> None:
        self._rung.clear()

    def rest(self) -> None:
        self._next_s = time.monotonic() + max(0.0, min(SLOW_S, self._due_in_s()))

    def is_due(self) -> bool:
        return self._rung.is_set() or time.monotonic() >= self._next_s

    def wait(self, stop: threading.Event) -> None:
        if self._rung.is_set() or stop.is_set():
            return
        self.rest()
        if not stop.is_set():  # once it is, the listener rings
            self._rung.wait(max(0.0, self._next_s - time.monotonic()))


class Wakes:
    """The bells of a process, and on PostgreSQL the thread that rings them, with a connection of its own."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock
        self._bells: list[tuple[Topic, _Rung]] = []
        self.listens = threading.Event()  # from when on no notification is missed

    def completion(self) -> Bell:
        """Rings for a series that came to be judged; while one is not yet judged, it is due at every tick."""
        return self._bell(Topic.COMPLETE, lambda: 0.0 if self._has(_UNDECIDED) else SLOW_S)

    def worker(self) -> Bell:
        """Rings for a queued job, and is due when the next one may be tried again."""
        return self._bell(Topic.WORK, lambda: self._due_in_s(_JOBS))

    def courier(self, destination: str) -> Bell:
        """Rings for a delivery, and is due when something about one to this destination comes due."""
        there = Delivery.destination == destination
        notes = _NOTES.where(there)
        return self._bell(Topic.DELIVER, lambda: min(self._due_in_s(_DELIVERIES.where(there)), self._due_in_s(notes)))

    def _bell(self, topic: Topic, due_in_s: Callable[[], float]) -> Bell:
        if self._database.is_sqlite:
            return Polling()
        bell = _Rung(due_in_s)
        self._bells.append((topic, bell))
        return bell

    def _has(self, query: Select[Any]) -> bool:
        with self._database.read() as session:
            return bool(session.scalar(select(query.exists())))

    def _due_in_s(self, query: Select[Any]) -> float:
        """Seconds until the first instant of a query that lies ahead; SLOW_S where none lies so near."""
        now = self._clock()
        (at,) = query.selected_columns
        near = query.where(at > now, at <= now + timedelta(seconds=SLOW_S)).with_only_columns(func.min(at))
        with self._database.read() as session:
            first = session.scalar(near)
        return SLOW_S if first is None else (first - now).total_seconds()

    # -- the listener ------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Listen until `stop` is set, whatever becomes of the server; then ring all bells once more."""
        from psycopg import Error

        from storage.postgresql import own_connection

        outage = Outage("what wakes this process")
        while not stop.is_set():
            try:
                with own_connection(self._database.engine) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    outage.over()
                    self._ring(*Topic)  # what came while nobody listened
                    self.listens.set()
                    self._follow(connection, stop)
            except Error as error:
                self.listens.clear()
                stop.wait(outage.failed(self._database.unavailable(error)))
        self._ring(*Topic)

    def _follow(self, connection: "Connection[Any]", stop: threading.Event) -> None:
        asked_s = time.monotonic()
        while not stop.is_set():
            for message in connection.notifies(timeout=_LISTEN_S):
                with suppress(ValueError):  # a topic of a newer version
                    self._ring(Topic(message.payload))
            if time.monotonic() - asked_s > _ASK_EVERY_S:
                connection.execute("SELECT 1")
                asked_s = time.monotonic()

    def _ring(self, *topics: Topic) -> None:
        for topic, bell in tuple(self._bells):
            if topic in topics:
                bell.ring()


@contextmanager
def waking(database: Database, stop: threading.Event, clock: Callable[[], datetime]) -> Iterator[Wakes]:
    """The bells of a process; its listener ends when `stop` is set, which the block must see to."""
    wakes = Wakes(database, clock)
    if database.is_sqlite:
        yield wakes
        return
    threading.Thread(target=wakes.run, args=(stop,), name="wakes", daemon=True).start()
    yield wakes


_UNDECIDED = select(Series.id).where(Series.state.in_((SeriesState.RECEIVING, SeriesState.COMPLETE)))
_JOBS = select(Job.next_attempt_at).where(Job.state == JobState.QUEUED)
_DELIVERIES = select(Delivery.next_attempt_at).where(Delivery.state.in_(list(DeliveryState)))  # so that it has an index
_NOTES = select(RejectionNoteRow.next_attempt_at).join(Delivery, Delivery.id == RejectionNoteRow.delivery_id)
