"""Records the instances that the node knows of and does not have, and says which of them a series still lacks.

A sender often goes on after a refusal, and releases its association as if nothing had happened: what it lost stands
only here.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Exists, delete, exists, func, select
from sqlalchemy.orm import Session

from storage.arrivals import Closing, Opening, link_series, reopen, series_row
from storage.entries import Turn
from storage.owners import UNKNOWN_CREDENTIALS, Credentials, is_foreign, named, note_foreign
from storage.tables import AssociationSeries, Instance, LostInstance, Series
from storage.transitions import note_series

MAX_ROWS = 10_000  # a peer that goes wrong every night must not fill the database
MAX_EVENTS = 20  # of one series
UNKNOWN = "?"  # what a UID begins with that stands for one that cannot be kept


@dataclass(frozen=True)
class MissingInstance:
    """An instance that a series lacks.

    `reason` completes "1 instance of this series was ...". With `of_this_series` False the node only knows that it came
    in an association of the series.
    """

    sop_instance_uid: str
    reason: str
    of_this_series: bool

    @property
    def name(self) -> str:
        """The UID as it may be shown."""
        return _name(self.sop_instance_uid)


@dataclass(frozen=True)
class Loss:
    """An instance that was refused or cut off; `series_uid` and `study_uid` are "" where nobody knows them.

    `sop_instance_uid` begins with `UNKNOWN` where it is no UID. `reason` completes "1 instance of this series was ...".
    """

    association_id: int
    calling_ae: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    reason: str
    now: datetime
    shown: Credentials = UNKNOWN_CREDENTIALS

    @property
    def turn(self) -> tuple[Turn, str]:
        """It waits for its series, where that is known, and for a row about the same instance."""
        if self.series_uid:
            return Turn.SERIES, self.series_uid
        return Turn.LOSS_OF_NO_SERIES, self.sop_instance_uid

    def record(self, connection: Connection) -> None:
        """Write the row; its series, where it is known, is received again until the instance comes.

        What another peer than the owner lost of a series is nothing that the series lacks: it is an event of it only.
        """
        with Session(connection, expire_on_commit=False) as session:
            if not self.series_uid or self._concerns_series(session):
                self._write(session)
            session.flush()

    def _concerns_series(self, session: Session) -> bool:
        """Make or reopen the series; False where it has the instance already, or belongs to another peer."""
        row = session.scalar(select(Series).where(Series.series_uid == self.series_uid).with_for_update(key_share=True))
        if row is not None and is_foreign(session, row, self.calling_ae, self.shown):
            who = named(row, self.calling_ae, self.shown)
            note_foreign(session, row, f"{who} failed to send an instance", self.now)
            return False
        if row is not None and session.scalar(select(_stored(row.id, self.sop_instance_uid))):
            return False
        row = row or series_row(session, self.study_uid, self.series_uid, self.calling_ae, self.now)
        link_series(session, row, self.association_id)
        reason = f"instance {_name(self.sop_instance_uid)} was {self.reason}"
        reopen(session, row, reason, self.now)
        lost = select(func.count()).select_from(LostInstance).where(LostInstance.series_uid == self.series_uid)
        if (session.scalar(lost) or 0) < MAX_EVENTS:
            note_series(session, row, actor="receiver", reason=reason, now=self.now)
        # It counts as an arrival, so that no decision about the series as it was before can pass.
        row.arrivals, row.last_arrival_at, row.updated_at = row.arrivals + 1, self.now, self.now
        return True

    def _write(self, session: Session) -> None:
        row = session.scalar(
            select(LostInstance).where(
                LostInstance.series_uid == self.series_uid, LostInstance.sop_instance_uid == self.sop_instance_uid
            )
        )
        if row is None:
            row = LostInstance(series_uid=self.series_uid, sop_instance_uid=self.sop_instance_uid)
            session.add(row)
        row.association_id, row.reason, row.at = self.association_id, self.reason[:200], self.now
        session.flush()
        session.execute(delete(LostInstance).where(LostInstance.id <= row.id - MAX_ROWS))


@dataclass(frozen=True)
class LateLoss:
    """A loss that the database could not take when it happened; `opening` where its association has no row either."""

    loss: Loss
    opening: Opening | None

    @property
    def turn(self) -> tuple[Turn, str]:
        """That of the loss."""
        return self.loss.turn

    def record(self, connection: Connection) -> None:
        """Write the row, below an association of its own where there is no other."""
        if self.opening is None:
            self.loss.record(connection)
            return
        association_id = self.opening.record(connection)
        replace(self.loss, association_id=association_id).record(connection)
        Closing(association_id, released=False, now=self.loss.now).record(connection)


def missing_instances(session: Session, series: Series) -> tuple[MissingInstance, ...]:
    """What a series lacks by what the node knows, oldest first."""
    own = session.scalars(
        select(LostInstance)
        .where(LostInstance.series_uid == series.series_uid)
        .where(~_stored(series.id, LostInstance.sop_instance_uid))
        .order_by(LostInstance.id)
    ).all()
    # Only what arrived in a series that was touched since can be the instance; the index on its UID begins with these.
    came = exists().where(
        Instance.sop_instance_uid == LostInstance.sop_instance_uid,
        Instance.series_id.in_(select(Series.id).where(Series.last_arrival_at >= LostInstance.at)),
    )
    of_associations = select(AssociationSeries.association_id).where(AssociationSeries.series_id == series.id)
    others = session.scalars(
        select(LostInstance)
        .where(LostInstance.series_uid == "", LostInstance.association_id.in_(of_associations))
        .where(~came)
        .order_by(LostInstance.id)
    ).all()
    return tuple(
        MissingInstance(row.sop_instance_uid, row.reason, of_this_series=bool(row.series_uid))
        for row in (*own, *others)
    )


def forget_missing(session: Session, series: Series) -> None:
    """A person says that nothing more of a series will come."""
    session.execute(delete(LostInstance).where(LostInstance.series_uid == series.series_uid))


def _name(sop_instance_uid: str) -> str:
    return "with a malformed UID" if sop_instance_uid.startswith(UNKNOWN) else sop_instance_uid


def _stored(series_id: int, sop_instance_uid: Any) -> Exists:
    # Not one that was taken out of the series again, or that the spool lost.
    return exists().where(
        Instance.series_id == series_id, Instance.sop_instance_uid == sop_instance_uid, Instance.is_current
    )
