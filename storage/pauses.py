"""PauseStore keeps which stages a person paused, on which hosts; what takes work asks here, in its own transaction."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.scale_tables import PauseRow
from storage.states import Stage
from storage.transitions import Topic, wake


@dataclass(frozen=True)
class Pause:
    """A stage that takes nothing new: on one host, or on all where `host` is "". drains: the host is being emptied."""

    stage: Stage
    host: str
    drains: bool
    actor: str
    reason: str
    at: datetime

    @property
    def where(self) -> str:
        """On which host, in words."""
        return f"on {self.host}" if self.host else "on all hosts"


class PauseStore:
    """The only writer of pauses. Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Pause]:
        """Every pause, in the order of the stages, those of all hosts first."""
        with self._database.read() as session:
            return _sorted(session.scalars(select(PauseRow)))

    def of(self, stage: Stage, host: str) -> Pause | None:
        """The oldest pause that keeps this stage of this host from taking anything new; None where there is none."""
        with self._database.read() as session:
            row = session.scalars(_rows(stage, host)).first()
            return None if row is None else _pause(row)

    def pause(
        self, stages: Iterable[Stage], host: str, actor: str, reason: str, now: datetime, *, drains: bool = False
    ) -> list[Stage]:
        """Pause these stages; returns those that were not paused so before. Nothing is claimed once it returned.

        One that is paused already keeps who paused it, when and why; it drains from now on where that is asked for.
        """
        changed = []
        with self._database.write() as session:
            self._await_claims(session)
            known = {row.stage: row for row in session.scalars(select(PauseRow).where(PauseRow.host == host))}
            for stage in stages:
                row = known.get(stage.value)
                if row is None:
                    row = PauseRow(stage=stage.value, host=host, drains=drains, actor=actor, reason=reason, at=now)
                    session.add(row)
                    changed.append(stage)
                elif drains and not row.drains:
                    row.drains = True
                    changed.append(stage)
        return changed

    def resume(self, stages: Iterable[Stage], host: str) -> list[Pause]:
        """End the pauses of these stages for exactly this host ("" for those of all hosts); returns what they were."""
        names = [stage.value for stage in stages]
        with self._database.write() as session:
            rows = session.scalars(
                select(PauseRow).where(PauseRow.host == host, PauseRow.stage.in_(names)).with_for_update()
            ).all()
            for row in rows:
                session.delete(row)
            wake(session, [Topic.WORK, Topic.DELIVER] if rows else [])
            return _sorted(rows)

    def _await_claims(self, session: Session) -> None:
        # The mode conflicts with the FOR KEY SHARE of `is_paused`, and with no reader. SQLite has one writer at a time.
        if not self._database.is_sqlite:
            session.connection().exec_driver_sql(f"LOCK TABLE {PauseRow.__tablename__} IN EXCLUSIVE MODE")


def is_paused(session: Session, stage: Stage, host: str) -> bool:
    """Whether a stage of a host may take nothing. `pause` waits for the end of this transaction."""
    return session.scalars(_rows(stage, host).with_for_update(read=True, key_share=True)).first() is not None


def host_of(process: str) -> str:
    """The host in the name of a process, as `work-1@gpu1` stands in leases; "" where it names none."""
    return process.partition("@")[2]


def _rows(stage: Stage, host: str) -> Select[PauseRow]:
    return select(PauseRow).where(PauseRow.stage == stage.value, PauseRow.host.in_(("", host))).order_by(PauseRow.at)


def _sorted(rows: Iterable[PauseRow]) -> list[Pause]:
    order = list(Stage)
    return sorted(map(_pause, rows), key=lambda one: (order.index(one.stage), one.host))


def _pause(row: PauseRow) -> Pause:
    return Pause(Stage(row.stage), row.host, row.drains, row.actor, row.reason, row.at)
