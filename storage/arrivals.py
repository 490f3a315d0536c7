"""Records arrivals, and the associations that bring them, inside a transaction of the caller; it commits nothing.

The usual arrival, a slice nobody has seen of a series that is being received, takes two statements. Everything else
(first slices, duplicates, other contents, late slices) goes through the ORM and the state machines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, cast

from sqlalchemy import Connection, Table, bindparam, exists, insert, select, update
from sqlalchemy.orm import Session

from storage.database import Prepared
from storage.states import SeriesState
from storage.tables import Association, AssociationSeries, Event, Instance, Series
from storage.transitions import move_series, supersede_live_job

OPEN, RELEASED, ABORTED, LOST = "OPEN", "RELEASED", "ABORTED", "LOST"


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


@dataclass(frozen=True)
class Opening:
    """An accepted association that has something to store."""

    receiver: str
    calling_ae: str
    peer_host: str
    now: datetime


@dataclass(frozen=True)
class Closing:
    """How an association ended."""

    association_id: int
    released: bool
    now: datetime


class Recorded(Enum):
    """What an arrival meant."""

    NEW = "new"
    DUPLICATE = "duplicate"  # same UID, same bytes: the file just written is not referenced and can go
    REPLACED = "replaced"  # same UID, other bytes: the newest counts, the series is judged again


Entry = Opening | Receipt | Closing
Written = int | Recorded | None

_SERIES, _INSTANCE, _LINK, _ASSOCIATION = (
    cast(Table, kind.__table__) for kind in (Series, Instance, AssociationSeries, Association)
)

# It counts and locks the series in one, and touches nothing but the usual.
_COUNT = Prepared(
    update(_SERIES)
    .where(
        _SERIES.c.series_uid == bindparam("uid"),
        _SERIES.c.state == SeriesState.RECEIVING,
        ~exists().where(_INSTANCE.c.series_id == _SERIES.c.id, _INSTANCE.c.sop_instance_uid == bindparam("instance")),
    )
    .values(arrivals=_SERIES.c.arrivals + 1, last_arrival_at=bindparam("now"), updated_at=bindparam("now"))
    .returning(
        _SERIES.c.id,
        exists()
        .where(_LINK.c.series_id == _SERIES.c.id, _LINK.c.association_id == bindparam("association"))
        .label("linked"),
    )
)
_ADD_INSTANCE = Prepared(
    insert(_INSTANCE).values({column.name: bindparam(column.name) for column in _INSTANCE.c if column.name != "id"})
)
_ADD_LINK, _ADD_ASSOCIATION = insert(_LINK), insert(_ASSOCIATION)
_CLOSE = (
    update(_ASSOCIATION)
    .where(_ASSOCIATION.c.id == bindparam("closed"), _ASSOCIATION.c.outcome == OPEN)
    .values(outcome=bindparam("ended"), closed_at=bindparam("now"))
)


def record_entry(connection: Connection, entry: Entry) -> Written:
    """Record one entry in the connection's transaction; several may follow each other in one."""
    if isinstance(entry, Opening):
        return record_opening(connection, entry)
    if isinstance(entry, Closing):
        record_closing(connection, entry)
        return None
    return record_arrival(connection, entry)


def record_opening(connection: Connection, opening: Opening) -> int:
    """Record an accepted association and return its id."""
    result = connection.execute(
        _ADD_ASSOCIATION,
        {
            "receiver": opening.receiver,
            "calling_ae": opening.calling_ae,
            "peer_host": opening.peer_host,
            "outcome": OPEN,
            "opened_at": opening.now,
        },
    )
    (association_id,) = result.inserted_primary_key or (0,)
    return int(association_id)


def record_closing(connection: Connection, closing: Closing) -> None:
    """Record how an association ended, unless that is known already."""
    ended = RELEASED if closing.released else ABORTED
    connection.execute(_CLOSE, {"closed": closing.association_id, "ended": ended, "now": closing.now})


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
    found: Sequence[Any] | None = _COUNT.execute(
        connection,
        {
            "uid": arrival.series_uid,
            "instance": arrival.sop_instance_uid,
            "association": receipt.association_id,
            "now": receipt.now,
        },
    ).first()
    if found is None:
        return False
    series_id, linked = found
    if not linked:
        connection.execute(_ADD_LINK, {"series_id": series_id, "association_id": receipt.association_id})
    _ADD_INSTANCE.execute(connection, _instance_values(series_id, receipt))
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
