"""What is remembered of the peers: how long a sender pauses within a series, and since when a destination is away."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.database import Database
from storage.entries import Turn
from storage.tables import Delivery, PeerState, Sender

REMEMBERED = timedelta(days=30)
LONGEST_PAUSE_S = 120.0  # a longer one is no pause: something went wrong, or the rest was sent by hand
LONGEST_WAIT_S = 120.0
STANDS = "STANDS"


@dataclass(frozen=True)
class Pause:
    """A pause between two instances that proved to be of one series."""

    calling_ae: str
    pause_s: float
    now: datetime

    @property
    def turn(self) -> tuple[Turn, str]:
        """It waits for the row of its sender."""
        return Turn.SENDER, self.calling_ae

    def record(self, connection: Connection) -> None:
        """Keep the pause where it is the longest that is remembered."""
        with Session(connection, expire_on_commit=False) as session:
            row = session.get(Sender, self.calling_ae, with_for_update=True)
            if row is None:
                session.add(Sender(calling_ae=self.calling_ae, pause_s=self.pause_s, measured_at=self.now))
            elif self.pause_s >= row.pause_s or self.now - row.measured_at > REMEMBERED:
                row.pause_s, row.measured_at = self.pause_s, self.now
            session.flush()


def wait_s(session: Session, calling_ae: str, now: datetime) -> float:
    """How long a silent series of this sender may still go on: twice its longest pause; 0 where none is remembered."""
    row = session.get(Sender, calling_ae)
    if row is None or now - row.measured_at > REMEMBERED:
        return 0.0
    return min(2 * row.pause_s, LONGEST_WAIT_S)


@dataclass(frozen=True)
class PeerView:
    """A destination that was asked for an association: `failing_since` is None where the last one came about."""

    destination: str
    failing_since: datetime | None
    answered_at: datetime | None
    reason: str


class PeerStore:
    """The only writer of what is known about the destinations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def failed(self, destination: str, reason: str, now: datetime) -> None:
        """Note that no association came about, and why; the first moment of an unbroken row of failures is kept."""
        self._note(destination, reason, answered=False, now=now)

    def answered(self, destination: str, now: datetime) -> None:
        """Note that an association came about."""
        self._note(destination, "", answered=True, now=now)

    def _note(self, destination: str, reason: str, *, answered: bool, now: datetime) -> None:
        try:
            self._write(destination, reason, answered=answered, now=now)
        except IntegrityError:
            self._write(destination, reason, answered=answered, now=now)  # another courier made the row meanwhile

    def _write(self, destination: str, reason: str, *, answered: bool, now: datetime) -> None:
        with self._database.write() as session:
            row = session.get(PeerState, destination, with_for_update=True) or PeerState(destination=destination)
            session.add(row)
            row.reason = reason
            if answered:
                row.failing_since, row.answered_at = None, now
            else:
                row.failing_since = row.failing_since or now

    def all(self) -> list[PeerView]:
        """Every destination that was ever asked, by name."""
        with self._database.read() as session:
            rows = session.scalars(select(PeerState).order_by(PeerState.destination))
            return [PeerView(row.destination, row.failing_since, row.answered_at, row.reason) for row in rows]

    def standing(self) -> dict[str, int]:
        """Superseded or cancelled results that a person has to delete, by the destination where they lie."""
        with self._database.read() as session:
            query = select(Delivery.destination, func.count()).where(Delivery.leftover == STANDS)
            return {name: count for name, count in session.execute(query.group_by(Delivery.destination))}
