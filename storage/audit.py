"""AuditStore keeps what people did and looked at on the status page; no patient data enters it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from storage.database import Database
from storage.people_tables import AuditRow


@dataclass(frozen=True)
class AuditEntry:
    """One deed. who: the name that was given, "" where none was; case_id: as `jobs ls` shows it, or "".

    action: one word such as `login` or `release`; outcome: `ok`, `refused`, `locked` or `failed`.
    """

    at: datetime
    who: str
    address: str
    action: str
    outcome: str
    case_id: str = ""
    detail: str = ""


class AuditStore:
    """The only writer of the audit trail; retention removes old rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, entry: AuditEntry) -> None:
        """Keep it. Raises StoreUnavailable."""
        with self._database.write() as session:
            session.add(
                AuditRow(
                    at=entry.at,
                    who=entry.who[:64],
                    address=entry.address[:64],
                    action=entry.action[:32],
                    outcome=entry.outcome[:16],
                    case_id=entry.case_id[:32],
                    detail=entry.detail,
                )
            )

    def newest(self, *, since: datetime | None = None, who: str = "", limit: int = 0) -> list[AuditEntry]:
        """The newest entries first; since: not before; who: of this person alone; limit: 0 for all."""
        query = select(AuditRow).order_by(AuditRow.id.desc())
        if since is not None:
            query = query.where(AuditRow.at >= since)
        if who:
            query = query.where(AuditRow.who == who)
        with self._database.read() as session:
            return [_entry(row) for row in session.scalars(query.limit(limit) if limit else query)]


def _entry(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        at=row.at,
        who=row.who,
        address=row.address,
        action=row.action,
        outcome=row.outcome,
        case_id=row.case_id,
        detail=row.detail,
    )
