"""Remembers how long the senders pause within a series, so that the next series of one is waited for longer."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from storage.tables import Sender

REMEMBERED = timedelta(days=30)
LONGEST_PAUSE_S = 120.0  # a longer one is no pause: something went wrong, or the rest was sent by hand
LONGEST_WAIT_S = 120.0


@dataclass(frozen=True)
class Pause:
    """A pause between two instances that proved to be of one series."""

    calling_ae: str
    pause_s: float
    now: datetime

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
