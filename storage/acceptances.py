"""AcceptanceStore keeps who said of which bundle that it may be used for patients, or no longer; nothing is removed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Select, select

from storage.database import Database
from storage.errors import NotFound
from storage.people_tables import AcceptanceRow

ACCEPTED: Final = "ACCEPTED"
WITHDRAWN: Final = "WITHDRAWN"


@dataclass(frozen=True)
class AcceptanceView:
    """One decision about a bundle; decision is ACCEPTED or WITHDRAWN.

    bundle: its label, for people. bundle_digest: hex, which model it is. report_sha256: hex, of the report that was
    signed, "" for a withdrawal.
    """

    at: datetime
    bundle: str
    bundle_digest: str
    decision: str
    who: str
    report_sha256: str
    note: str

    @property
    def is_valid(self) -> bool:
        """Whether the bundle may be used."""
        return self.decision == ACCEPTED


class AcceptanceStore:
    """The only writer of acceptances; the newest decision about a digest counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def accept(self, bundle: str, digest: str, *, who: str, report_sha256: str, note: str, now: datetime) -> None:
        """A person accepts a bundle on the report with this SHA-256."""
        with self._database.write() as session:
            session.add(
                AcceptanceRow(
                    at=now,
                    bundle=bundle,
                    bundle_digest=digest,
                    decision=ACCEPTED,
                    who=who,
                    report_sha256=report_sha256,
                    note=note,
                )
            )

    def withdraw(self, digest: str, *, who: str, note: str, now: datetime) -> None:
        """A person withdraws a bundle that is accepted; raises NotFound where it is not."""
        with self._database.write() as session:
            newest = session.scalars(_decisions(digest)).first()
            if newest is None or newest.decision != ACCEPTED:
                raise NotFound(f"the bundle with the digest {digest[:12]} is not accepted: nothing can be withdrawn")
            session.add(
                AcceptanceRow(
                    at=now,
                    bundle=newest.bundle,
                    bundle_digest=digest,
                    decision=WITHDRAWN,
                    who=who,
                    report_sha256="",
                    note=note,
                )
            )

    def newest(self, digest: str) -> AcceptanceView | None:
        """The decision that counts for a bundle, None where nobody decided."""
        with self._database.read() as session:
            row = session.scalars(_decisions(digest)).first()
            return None if row is None else _view(row)

    def history(self) -> list[AcceptanceView]:
        """All decisions, oldest first."""
        with self._database.read() as session:
            return [_view(row) for row in session.scalars(select(AcceptanceRow).order_by(AcceptanceRow.id))]


def _decisions(digest: str) -> Select[AcceptanceRow]:
    """By id, not by time: a clock that was set back must not make an older decision the newest."""
    return select(AcceptanceRow).where(AcceptanceRow.bundle_digest == digest).order_by(AcceptanceRow.id.desc()).limit(1)


def _view(row: AcceptanceRow) -> AcceptanceView:
    return AcceptanceView(row.at, row.bundle, row.bundle_digest, row.decision, row.who, row.report_sha256, row.note)
