"""ConstancyStore keeps what constancy runs found, and which series are theirs: those go to one destination only.

A run names its series here before it is sent. The UID is drawn at random by the run, so that no scanner can know it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select

from storage.database import Database
from storage.errors import NotFound
from storage.tables import ConstancyRow
from storage.transitions import constancy_run_of

RUNNING, PASSED, FAILED = "RUNNING", "PASSED", "FAILED"
THROUGH_NODE, OFFLINE = "node", "offline"

_OF_RUN: Final = ("way", "series_uid", "destination")


@dataclass(frozen=True)
class ConstancyView:
    """One run. outcome: RUNNING, PASSED or FAILED. way: "node" through a running node, "offline" without one.

    environment: what may change a result, by name. figures: what was measured, by name; empty for a run that came to no
    result. series_uid, destination: of the phantom series, "" offline.
    """

    id: int
    at: datetime
    bundle: str
    bundle_digest: str
    outcome: str
    reason: str
    way: str
    series_uid: str
    destination: str
    environment: Mapping[str, str]
    figures: Mapping[str, Any]


class ConstancyStore:
    """The only writer of constancy runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self, bundle: str, bundle_digest: str, now: datetime, *, series_uid: str = "", destination: str = ""
    ) -> int:
        """A run begins; returns its id. series_uid: of the series that goes through the node, "" for a run without."""
        way = THROUGH_NODE if series_uid else OFFLINE
        with self._database.write() as session:
            row = ConstancyRow(
                at=now,
                bundle=bundle,
                bundle_digest=bundle_digest,
                environment={},
                outcome=RUNNING,
                measurements={"way": way, "series_uid": series_uid, "destination": destination},
            )
            session.add(row)
            session.flush()
            return row.id

    def translated(
        self, series_uid: str, bundle: str, bundle_digest: str, environment: Mapping[str, str]
    ) -> ConstancyView | None:
        """The worker that takes the series says what it works with; None where the series is of no run."""
        with self._database.write() as session:
            row = session.scalars(constancy_run_of(series_uid)).first()
            if row is None:
                return None
            if row.outcome == RUNNING:
                row.bundle, row.bundle_digest, row.environment = bundle, bundle_digest, dict(environment)
            return _view(row)

    def bundle_of(self, series_uid: str) -> str | None:
        """The digest of the bundle that the run of a series is about; None where the series is of no run."""
        with self._database.read() as session:
            row = session.scalars(constancy_run_of(series_uid)).first()
            return None if row is None else row.bundle_digest

    def finish(
        self, run_id: int, outcome: str, reason: str, environment: Mapping[str, str], figures: Mapping[str, Any]
    ) -> ConstancyView:
        """RUNNING -> PASSED or FAILED with what was measured. Raises NotFound."""
        with self._database.write() as session:
            row = session.get(ConstancyRow, run_id)
            if row is None:
                raise NotFound(f"there is no constancy run {run_id}")
            row.outcome, row.reason, row.environment = outcome, reason, dict(environment)
            row.measurements = {**{key: row.measurements[key] for key in _OF_RUN}, **figures}
            return _view(row)

    def view(self, run_id: int) -> ConstancyView:
        """One run. Raises NotFound."""
        with self._database.read() as session:
            row = session.get(ConstancyRow, run_id)
            if row is None:
                raise NotFound(f"there is no constancy run {run_id}")
            return _view(row)

    def views(self) -> list[ConstancyView]:
        """All runs, oldest first."""
        with self._database.read() as session:
            return [_view(row) for row in session.scalars(select(ConstancyRow).order_by(ConstancyRow.id))]

    def last(self) -> ConstancyView | None:
        """The newest run that ended."""
        query = select(ConstancyRow).where(ConstancyRow.outcome != RUNNING).order_by(ConstancyRow.id.desc()).limit(1)
        with self._database.read() as session:
            row = session.scalars(query).first()
            return None if row is None else _view(row)

    def counts(self) -> dict[str, int]:
        """How many runs ended in each way, by outcome."""
        query = select(ConstancyRow.outcome, func.count()).group_by(ConstancyRow.outcome)
        with self._database.read() as session:
            return {outcome: count for outcome, count in session.execute(query) if outcome != RUNNING}

    def ended(self, bundle_digest: str) -> list[ConstancyView]:
        """The runs with a bundle that PASSED or FAILED, in any environment, oldest first."""
        query = select(ConstancyRow).where(ConstancyRow.bundle_digest == bundle_digest, ConstancyRow.outcome != RUNNING)
        with self._database.read() as session:
            return [_view(row) for row in session.scalars(query.order_by(ConstancyRow.id))]


def _view(row: ConstancyRow) -> ConstancyView:
    figures = dict(row.measurements)
    way, series_uid, destination = (str(figures.pop(key)) for key in _OF_RUN)
    return ConstancyView(
        row.id,
        row.at,
        row.bundle,
        row.bundle_digest,
        row.outcome,
        row.reason,
        way,
        series_uid,
        destination,
        row.environment,
        figures,
    )
