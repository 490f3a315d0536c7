"""Records arrivals inside a transaction that the caller opened; it commits nothing and decides nothing.

The usual arrival, a slice nobody has seen of a series that is being received, takes three statements. Everything else
(first slices, duplicates, other contents, late slices) goes through the ORM and the state machines.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import cast

from sqlalchemy import Connection, Table, and_, bindparam, insert, select, update
from sqlalchemy.orm import Session

from storage.states import SeriesState
from storage.tables import AssociationSeries, Event, Instance, Series
from storage.transitions import move_series, supersede_live_job


@dataclass(frozen=True)
class Arrival:
    """One instance as it lies in the spool; UIDs as read from the dataset, `sha256` over the file's bytes."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    spool_name: str
    size_bytes: int


@dataclass(frozen=True)
class Receipt:
    """An arrival, the association that brought it, and when."""

    association_id: int
    calling_ae: str
    arrival: Arrival
    now: datetime


class Recorded(Enum):
    """What an arrival meant."""

    NEW = "new"
    DUPLICATE = "duplicate"  # same UID, same bytes: the file just written is not referenced and can go
    REPLACED = "replaced"  # same UID, other bytes: the newest counts, the series is judged again


_SERIES, _INSTANCE, _LINK = (cast(Table, kind.__table__) for kind in (Series, Instance, AssociationSeries))

_LOOK_UP = (
    select(_SERIES.c.id, _SERIES.c.state, _INSTANCE.c.id, _LINK.c.association_id)
    .select_from(
        _SERIES.outerjoin(
            _INSTANCE,
            and_(_INSTANCE.c.series_id == _SERIES.c.id, _INSTANCE.c.sop_instance_uid == bindparam("sop_instance_uid")),
        ).outerjoin(
            _LINK, and_(_LINK.c.series_id == _SERIES.c.id, _LINK.c.association_id == bindparam("association_id"))
        )
    )
    .where(_SERIES.c.series_uid == bindparam("series_uid"))
    .limit(1)
    .with_for_update(of=_SERIES)
)
_TOUCH = (
    update(_SERIES)
    .where(_SERIES.c.id == bindparam("touched"))
    .values(arrivals=_SERIES.c.arrivals + 1, last_arrival_at=bindparam("now"), updated_at=bindparam("now"))
)
_ADD_INSTANCE, _ADD_LINK = insert(_INSTANCE), insert(_LINK)


def record_arrival(connection: Connection, receipt: Receipt) -> Recorded:
    """Record one arrival in the connection's transaction; several may follow each other in one.

    Raises IntegrityError where another transaction made the same row meanwhile; the transaction is spoilt then.
    """
    if _record_usual(connection, receipt):
        return Recorded.NEW
    # A session of its own for each: rows that one kept would be stale after the next usual arrival.
    with Session(connection, expire_on_commit=False) as session:
        recorded = _record_any(session, receipt)
        session.flush()
    return recorded


def _record_usual(connection: Connection, receipt: Receipt) -> bool:
    """Record an unknown instance of a series in RECEIVING; False, with nothing written, where it is not that."""
    arrival = receipt.arrival
    found = connection.execute(
        _LOOK_UP,
        {
            "series_uid": arrival.series_uid,
            "sop_instance_uid": arrival.sop_instance_uid,
            "association_id": receipt.association_id,
        },
    ).first()
    if found is None:
        return False
    series_id, state, known, linked = found
    if state is not SeriesState.RECEIVING or known is not None:
        return False
    if linked is None:
        connection.execute(_ADD_LINK, {"series_id": series_id, "association_id": receipt.association_id})
    connection.execute(_ADD_INSTANCE, _instance_values(series_id, receipt))
    connection.execute(_TOUCH, {"touched": series_id, "now": receipt.now})
    return True


def _record_any(session: Session, receipt: Receipt) -> Recorded:
    arrival, now = receipt.arrival, receipt.now
    series = _series_row(session, receipt)
    _link(session, series.id, receipt.association_id)
    known = session.scalars(
        select(Instance).where(Instance.series_id == series.id, Instance.sop_instance_uid == arrival.sop_instance_uid)
    ).all()
    same = next((row for row in known if row.sha256 == arrival.sha256), None)
    if same is not None and same.is_current:
        if series.state in (SeriesState.RECEIVING, SeriesState.INCOMPLETE):
            _reopen(session, series, "the sender tried again", now)
            series.last_arrival_at, series.arrivals = now, series.arrivals + 1
        return Recorded.DUPLICATE
    for row in known:
        row.is_current = False
    session.flush()
    if same is not None:
        same.is_current = True
    else:
        session.add(Instance(**_instance_values(series.id, receipt)))
    if known:
        _reopen(session, series, f"instance {arrival.sop_instance_uid} arrived with other contents", now)
    else:
        if series.state is not SeriesState.RECEIVING:
            supersede_live_job(session, series.id, "a late slice arrived", "receiver", now)
        _reopen(session, series, f"late slice {arrival.sop_instance_uid}", now)
    series.last_arrival_at, series.arrivals, series.updated_at = now, series.arrivals + 1, now
    return Recorded.DUPLICATE if same is not None else (Recorded.REPLACED if known else Recorded.NEW)


def _series_row(session: Session, receipt: Receipt) -> Series:
    arrival, now = receipt.arrival, receipt.now
    row = session.scalar(select(Series).where(Series.series_uid == arrival.series_uid).with_for_update())
    if row is None:
        row = Series(
            series_uid=arrival.series_uid,
            study_uid=arrival.study_uid,
            state=SeriesState.RECEIVING,
            reason="",
            calling_ae=receipt.calling_ae,
            patient_id="",
            description="",
            arrivals=0,
            last_arrival_at=now,
            created_at=now,
            updated_at=now,
        )
        session.add(row)
        session.flush()
        session.add(
            Event(
                at=now,
                series_id=row.id,
                machine="series",
                from_state="",
                to_state=SeriesState.RECEIVING,
                actor="receiver",
                reason=f"first instance from {receipt.calling_ae}",
            )
        )
    return row


def _instance_values(series_id: int, receipt: Receipt) -> dict[str, object]:
    arrival = receipt.arrival
    return {
        "series_id": series_id,
        "sop_instance_uid": arrival.sop_instance_uid,
        "sop_class_uid": arrival.sop_class_uid,
        "transfer_syntax_uid": arrival.transfer_syntax_uid,
        "sha256": arrival.sha256,
        "spool_name": arrival.spool_name,
        "size_bytes": arrival.size_bytes,
        "is_current": True,
        "received_at": receipt.now,
    }


def _link(session: Session, series_id: int, association_id: int) -> None:
    if session.get(AssociationSeries, (series_id, association_id)) is None:
        session.add(AssociationSeries(series_id=series_id, association_id=association_id))


def _reopen(session: Session, series: Series, reason: str, now: datetime) -> None:
    if series.state is not SeriesState.RECEIVING:
        move_series(session, series, SeriesState.RECEIVING, actor="receiver", reason=reason, now=now)
