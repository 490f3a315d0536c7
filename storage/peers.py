"""PeerStore remembers since when a destination cannot be reached, and what still lies there that should not."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from storage.database import Database
from storage.tables import Delivery, PeerState

STANDS = "STANDS"


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
