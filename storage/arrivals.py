"""ArrivalStore records associations and the instances that they bring, several in one transaction.

The usual arrival, a slice nobody has seen of a series that is being received, takes two statements. Everything else
(first slices, duplicates, other contents, late slices, what is thrown away) goes through the ORM and the state
machines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Table, bindparam, exists, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.column_types import Prepared
from storage.entries import Entry, Turn
from storage.errors import StoreUnavailable
from storage.owners import UNKNOWN_CREDENTIALS, Credentials, is_foreign, may_share, named, note_foreign, own
from storage.sources import SourceStore
from storage.states import SeriesState
from storage.tables import Association, AssociationSeries, Instance, Job, Series
from storage.titles import note_other_title
from storage.transitions import begin_series, move_series, note_that_it_came_again, supersede_live_job

T = TypeVar("T")

OPEN, RELEASED, ABORTED, LOST = "OPEN", "RELEASED", "ABORTED", "LOST"


_SERIES, _INSTANCE, _LINK, _ASSOCIATION = (
    cast(Table, kind.__table__) for kind in (Series, Instance, AssociationSeries, Association)
)

# It counts and locks the series in one, and touches nothing but the usual.
_COUNT = Prepared(
    update(_SERIES)
    .where(
        _SERIES.c.series_uid == bindparam("uid"),
        _SERIES.c.state == SeriesState.RECEIVING,
        _SERIES.c.calling_ae == bindparam("ae"),
        _SERIES.c.certificate == bindparam("certificate"),
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


@dataclass(frozen=True)
class Identifiers:
    """The UIDs of one instance as read from its dataset, and the transfer syntax that it came in."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class Arrival(Identifiers):
    """One instance as it lies in the spool; `sha256` over the file's bytes."""

    sha256: str
    spool_name: str
    size_bytes: int


class Recorded(Enum):
    """What an arrival meant."""

    NEW = "new"
    DUPLICATE = "duplicate"  # same UID, same bytes: the file just written is not referenced and can go
    REPLACED = "replaced"  # same UID, other bytes: the newest counts, the series is judged again
    FOREIGN = "foreign"  # the series belongs to another peer: nothing is kept, and the file just written can go
    BARRED = "barred"  # a person dropped what this peer sent of the series: as with FOREIGN, nothing is kept


@dataclass(frozen=True)
class Opening:
    """An accepted association that has something to store; recording it gives its id.

    called_ae: the AE title by which the peer called this node, "" where nobody knows it.
    """

    receiver: str
    calling_ae: str
    peer_host: str
    now: datetime
    called_ae: str = ""

    @property
    def turn(self) -> tuple[Turn, str]:
        """It waits for no row."""
        return Turn.OPENING, ""

    def record(self, connection: Connection) -> int:
        """Insert the association."""
        result = connection.execute(
            _ADD_ASSOCIATION,
            {
                "receiver": self.receiver,
                "calling_ae": self.calling_ae,
                "called_ae": self.called_ae,
                "peer_host": self.peer_host,
                "outcome": OPEN,
                "opened_at": self.now,
            },
        )
        (association_id,) = result.inserted_primary_key or (0,)
        return int(association_id)


@dataclass(frozen=True)
class Closing:
    """How an association ended."""

    association_id: int
    released: bool
    now: datetime

    @property
    def turn(self) -> tuple[Turn, str]:
        """It waits for no row: only one receiver writes of an association."""
        return Turn.CLOSING, ""

    def record(self, connection: Connection) -> None:
        """Update the association, unless its end is known already."""
        ended = RELEASED if self.released else ABORTED
        connection.execute(_CLOSE, {"closed": self.association_id, "ended": ended, "now": self.now})


@dataclass(frozen=True)
class Receipt:
    """An arrival, the association that brought it, and when.

    takes_foreign: what another peer than the owner adds to a series becomes part of it, and a person is asked.
    """

    association_id: int
    calling_ae: str
    arrival: Arrival
    now: datetime
    shown: Credentials = UNKNOWN_CREDENTIALS
    takes_foreign: bool = False

    @property
    def turn(self) -> tuple[Turn, str]:
        """It waits for its series, its job and the deliveries of that."""
        return Turn.SERIES, self.arrival.series_uid

    def record(self, connection: Connection) -> Recorded:
        """Insert the instance, and its series where it is the first of it."""
        if _record_usual(connection, self):
            return Recorded.NEW
        # A session of its own for each: rows that one kept would be stale after the next usual arrival.
        with Session(connection, expire_on_commit=False) as session:
            recorded = _record_any(session, self)
            session.flush()
        return recorded


@dataclass(frozen=True)
class Discard:
    """An instance that was accepted and thrown away; `why` is a clause that names its SOP class."""

    association_id: int
    calling_ae: str
    study_uid: str
    series_uid: str
    why: str
    now: datetime
    shown: Credentials = UNKNOWN_CREDENTIALS

    @property
    def turn(self) -> tuple[Turn, str]:
        """It waits for its series."""
        return Turn.SERIES, self.series_uid

    def record(self, connection: Connection) -> Recorded:
        """Count the instance; a series of which nothing is kept is SKIPPED at once, any other is judged without it.

        FOREIGN or BARRED, and only an event of the series, where this peer may not send for it; else NEW.
        """
        with Session(connection, expire_on_commit=False) as session:
            row = series_row(session, self.study_uid, self.series_uid, self.calling_ae, self.now)
            if is_foreign(session, row, self.calling_ae, self.shown):
                who = named(row, self.calling_ae, self.shown)
                note_foreign(session, row, f"{who} sent what is no CT image for it", self.now)
                session.flush()
                return _refused(row, self.calling_ae)
            link_series(session, row, self.association_id)
            row.ignored, row.updated_at = row.ignored + 1, self.now
            count = "1 instance" if row.ignored == 1 else f"{row.ignored} instances"
            if row.arrivals:
                row.last_arrival_at = self.now
            elif row.state is SeriesState.SKIPPED:
                row.reason = f"{self.why} ({count})"
            else:
                move_series(session, row, SeriesState.COMPLETE, actor="receiver", reason="", now=self.now)
                reason = f"{self.why} ({count})"
                move_series(session, row, SeriesState.SKIPPED, actor="receiver", reason=reason, now=self.now)
            session.flush()
        return Recorded.NEW


class ArrivalStore(SourceStore):
    """The only writer of instances and associations."""

    def open_association(
        self, receiver: str, calling_ae: str, peer_host: str, now: datetime, *, called_ae: str = ""
    ) -> int:
        """Record an accepted association and return its id."""
        return self._record_alone(Opening(receiver, calling_ae, peer_host, now, called_ae))

    def close_association(self, association_id: int, *, released: bool, now: datetime) -> None:
        """Record how an association ended; an abort makes completion wait for the sender's next try."""
        self._record_alone(Closing(association_id, released, now))

    def lose_associations(self, receiver: str, now: datetime) -> int:
        """Close what a killed receiver of this name left open; returns how many there were."""
        with self._database.write() as session:
            lost = session.scalars(
                update(Association)
                .where(Association.receiver == receiver, Association.outcome == OPEN)
                .values(outcome=LOST, closed_at=now)
                .returning(Association.id)
            )
            return len(lost.all())

    def record(self, association_id: int, calling_ae: str, arrival: Arrival, now: datetime) -> Recorded:
        """Record one instance durably. Only after this returns may the receiver answer 0x0000.

        A late slice, or other bytes under a known SOP Instance UID, reopens the series. A new slice supersedes the
        live job at once; other bytes under a known UID may still be the same image in another encoding, so the job
        only pauses until completion compares the contents.
        """
        return self._record_alone(Receipt(association_id, calling_ae, arrival, now))

    def record_group(self, entries: Sequence[Entry[object]]) -> list[object]:
        """Record many arrivals and ends of associations in one transaction, each in its `turn`: one sync for all.

        Those of one series keep their order. The answers are in the order of the entries. Where one cannot be recorded,
        nothing of the transaction remains and each is tried by itself, so that the exception is the answer of that one
        only.
        """
        if len(entries) > 1:
            try:
                with self._database.write_plain() as connection:
                    in_turn = sorted(range(len(entries)), key=lambda number: entries[number].turn)
                    answers = {number: entries[number].record(connection) for number in in_turn}
                return [answers[number] for number in range(len(entries))]
            except StoreUnavailable:
                raise  # the database is locked, full or gone: another try of each would fail too
            except Exception:  # noqa: S110 - the attempts below say which entry it was
                pass
        return [self._attempt(entry) for entry in entries]

    def _attempt(self, entry: Entry[object]) -> object:
        try:
            return self._record_alone(entry)
        except Exception as error:
            return error

    def _record_alone(self, entry: Entry[T]) -> T:
        """Record one entry in a transaction of its own."""
        try:
            with self._database.write_plain() as connection:
                return entry.record(connection)
        except IntegrityError:
            # Two associations brought the first slices of a series at once; the other one made its row.
            with self._database.write_plain() as connection:
                return entry.record(connection)

    def file_of(self, series_uid: str, sop_instance_uid: str, sha256: str) -> str | None:
        """Spool name of the instance with this content; None where it is not known."""
        query = select(Instance.spool_name).join(Series, Series.id == Instance.series_id)
        with self._database.read() as session:
            return session.scalar(
                query.where(
                    Series.series_uid == series_uid,
                    Instance.sop_instance_uid == sop_instance_uid,
                    Instance.sha256 == sha256,
                )
            )

    def await_commits(self) -> None:
        """Wait until no instance is in a transaction that has not ended; raises StoreUnavailable after a second."""
        self._database.await_writers(_INSTANCE)

    def is_referenced(self, spool_name: str) -> bool:
        """Whether a row refers to a spooled file; after a commit whose outcome is unknown, only this may say no."""
        with self._database.read() as session:
            return session.scalar(select(Instance.id).where(Instance.spool_name == spool_name)) is not None


def _record_usual(connection: Connection, receipt: Receipt) -> bool:
    """Record an unknown instance of a series in RECEIVING; False, with nothing written, where it is not that."""
    arrival = receipt.arrival
    found: Sequence[Any] | None = _COUNT.execute(
        connection,
        {
            "uid": arrival.series_uid,
            "instance": arrival.sop_instance_uid,
            "association": receipt.association_id,
            "ae": receipt.calling_ae,
            "certificate": receipt.shown.certificate,
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
    series = series_row(session, arrival.study_uid, arrival.series_uid, receipt.calling_ae, now)
    known = session.scalars(
        select(Instance).where(Instance.series_id == series.id, Instance.sop_instance_uid == arrival.sop_instance_uid)
    ).all()
    same = next((row for row in known if row.sha256 == arrival.sha256), None)
    # Without TLS the AE title is all that a peer shows: where it is the owner's there is nothing to judge.
    if series.calling_ae != receipt.calling_ae or receipt.shown.certificate:
        settled = _settle_owner(session, series, receipt, next((row for row in known if row.is_current), None))
        if settled is not None:
            return settled
    is_retitled = link_series(session, series, receipt.association_id)
    if same is not None:
        same.received_at, same.calling_ae = now, receipt.calling_ae
    if same is not None and same.is_current:
        _note_duplicate(session, series, now, judge_again=is_retitled)
        return Recorded.DUPLICATE
    replaces = any(row.is_current for row in known)
    for row in known:
        row.is_current = False
    session.flush()
    if same is not None:
        same.is_current = True
    else:
        session.add(Instance(**_instance_values(series.id, receipt)))
    if known:
        how = "arrived with other contents" if replaces else "came again"
        reopen(session, series, f"instance {arrival.sop_instance_uid} {how}", now)
    else:
        # A series whose received files were removed begins anew: only the whole of it says what its result is worth.
        anew = series.purged_at is not None
        if series.state is not SeriesState.RECEIVING and not anew:
            supersede_live_job(session, series.id, "a late slice arrived", "receiver", now)
        reason = "it came again after its files were removed" if anew else f"late slice {arrival.sop_instance_uid}"
        reopen(session, series, reason, now)
    series.last_arrival_at, series.arrivals, series.updated_at = now, series.arrivals + 1, now
    return Recorded.DUPLICATE if same is not None else (Recorded.REPLACED if known else Recorded.NEW)


def _settle_owner(session: Session, series: Series, receipt: Receipt, present: Instance | None) -> Recorded | None:
    """Whose the series is; what becomes of an instance of another peer, None where it becomes part of the series.

    The same bytes harm nobody. Nothing replaces what another peer sent, and an AE title of the owner with another
    certificate adds nothing either: its instances could not be told from the owner's.
    """
    if not is_foreign(session, series, receipt.calling_ae, receipt.shown):
        own(session, series, receipt.calling_ae, receipt.shown, receipt.now)
        return None
    who = named(series, receipt.calling_ae, receipt.shown)
    if present is not None and present.sha256 == receipt.arrival.sha256:
        note_foreign(session, series, f"{who} sent instances again that are here already", receipt.now)
        return Recorded.DUPLICATE
    is_free = present is None or present.calling_ae == receipt.calling_ae
    if receipt.takes_foreign and is_free and may_share(series, receipt.calling_ae):
        note_foreign(session, series, f"{who} added instances, so a person is to look at the result", receipt.now)
        return None
    note_foreign(session, series, f"{who} was refused an instance", receipt.now)
    return _refused(series, receipt.calling_ae)


def _refused(series: Series, calling_ae: str) -> Recorded:
    """Why a peer may not send for a series, where `is_foreign` says so."""
    return Recorded.BARRED if calling_ae in series.barred else Recorded.FOREIGN


def _note_duplicate(session: Session, series: Series, now: datetime, *, judge_again: bool) -> None:
    """The owner sent an instance again that is here."""
    if judge_again or series.state in (SeriesState.RECEIVING, SeriesState.INCOMPLETE):
        reopen(session, series, "the sender tried again", now)
        series.last_arrival_at, series.arrivals = now, series.arrivals + 1
    elif series.state is SeriesState.QUEUED and series.job_id is not None:
        note_that_it_came_again(session, series, session.get_one(Job, series.job_id), now)


def series_row(session: Session, study_uid: str, series_uid: str, calling_ae: str, now: datetime) -> Series:
    """The row of a series, locked; made in RECEIVING where there is none."""
    row = session.scalar(select(Series).where(Series.series_uid == series_uid).with_for_update(key_share=True))
    if row is None:
        row = Series(series_uid=series_uid, study_uid=study_uid, calling_ae=calling_ae, last_arrival_at=now)
        begin_series(session, row, actor="receiver", reason=f"first instance from {calling_ae}", now=now)
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
        "calling_ae": receipt.calling_ae,
        "received_at": receipt.now,
    }


def link_series(session: Session, series: Series, association_id: int) -> bool:
    """Note that an association touched a series, so that completion waits for its end, and by which title it came.

    True where another title counts from now on for a series that was decided about.
    """
    if session.get(AssociationSeries, (series.id, association_id)) is not None:
        return False
    session.add(AssociationSeries(series_id=series.id, association_id=association_id))
    association = session.get(Association, association_id)
    if association is None or association.called_ae in ("", series.called_ae):
        return False
    if not series.called_ae:
        series.called_ae = association.called_ae
        return False
    return note_other_title(session, series, association)


def reopen(session: Session, series: Series, reason: str, now: datetime) -> None:
    """Back to RECEIVING, unless it is there."""
    if series.state is not SeriesState.RECEIVING:
        move_series(session, series, SeriesState.RECEIVING, actor="receiver", reason=reason, now=now)
