"""RefusalStore counts the instances that the receiver refused, by caller, series, status and reason.

`Overview` shows them.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from storage.database import Database
from storage.tables import Refusal

MAX_ROWS = 10_000  # a peer that goes wrong every night must not fill the database


@dataclass(frozen=True)
class RefusedInstance:
    """Why instances of one series were refused; UIDs are empty where the receiver did not learn them."""

    calling_ae: str
    peer_host: str
    series_uid: str
    sop_instance_uid: str
    dimse_status: int
    reason: str


class RefusalStore:
    """The only writer of refusals."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, refused: RefusedInstance, now: datetime) -> None:
        """Count one more instance; the oldest rows go when there are more than `MAX_ROWS`."""
        try:
            self._record(refused, now)
        except IntegrityError:
            self._record(refused, now)  # another association made the row meanwhile

    def _record(self, refused: RefusedInstance, now: datetime) -> None:
        with self._database.write() as session:
            row = session.scalar(
                select(Refusal)
                .where(
                    Refusal.calling_ae == refused.calling_ae,
                    Refusal.peer_host == refused.peer_host,
                    Refusal.series_uid == refused.series_uid,
                    Refusal.dimse_status == refused.dimse_status,
                    Refusal.reason == refused.reason,
                )
                .with_for_update()
            )
            if row is None:
                row = Refusal(
                    calling_ae=refused.calling_ae,
                    peer_host=refused.peer_host,
                    series_uid=refused.series_uid,
                    dimse_status=refused.dimse_status,
                    reason=refused.reason,
                    count=0,
                    first_at=now,
                )
                session.add(row)
            row.sop_instance_uid, row.count, row.last_at = refused.sop_instance_uid, row.count + 1, now
            session.flush()
            session.execute(delete(Refusal).where(Refusal.id <= row.id - MAX_ROWS))
