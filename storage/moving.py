"""Moves a store to another database: every row in one transaction, then a digest of every table on both sides.

From its first read until its end nobody can write to the old store. Only when every digest is equal the old store says
where it went, so that no node begins on it; until then a killed process leaves the old store as it was, and the new
database without a row, or full and refused as such.
"""

import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from storage.copies import Told, copy_tables, is_vacant, not_written, tables_of
from storage.database import Database
from storage.digests import TableDigest, digests
from storage.errors import MoveRefused
from storage.mark import new_mark, note_move
from storage.scale_tables import ProcessRow
from storage.schema import make_schema, patience
from storage.states import DeliveryState, JobState
from storage.tables import SCHEMA_REVISION, Base, Delivery, Job, StoreMark

_SEEN_WITHIN: Final = timedelta(minutes=2)  # a process reports itself several times a minute
_LOCK_WAIT_MS: Final = 2000
_NONE: Final = TableDigest(0, "")


@dataclass(frozen=True)
class Compared:
    """One table on both sides after the move."""

    table: str
    source: TableDigest
    target: TableDigest

    @property
    def is_equal(self) -> bool:
        """Whether both have the same rows."""
        return self.source == self.target


def move(source: Database, target: Database, now: datetime, told: Told = lambda _table, _rows: None) -> list[Compared]:
    """Copy every table of `source` to `target`, which is empty, and compare both; the old store is marked if equal.

    told: called for every batch that is copied or read. Raises MoveRefused, and StoreUnavailable; the source is as it
    was then.
    """
    _refuse_schema(source)
    with patience(source), patience(target), source.write() as session:
        reading = session.connection()
        _lock(reading)
        _refuse_moved(session, source)
        _refuse_in_use(session, source, now)
        _refuse_occupied(target)
        make_schema(target, SCHEMA_REVISION)
        _copy(reading, target, told)
        compared = _compare(reading, target, told)
        if all(one.is_equal for one in compared):
            note_move(session, new_mark(), target.location, now)
    return compared


def _copy(reading: Connection, target: Database, told: Told) -> None:
    try:
        with target.write() as session:
            writing = session.connection()
            if strange := sorted(_columns(reading) ^ _columns(writing)):
                raise MoveRefused(f"both have schema {SCHEMA_REVISION}, but {strange[0]} is only in one of them")
            copy_tables(reading, writing, told)
    except DBAPIError as error:
        raise not_written(target, error) from error


def _compare(reading: Connection, target: Database, told: Told) -> list[Compared]:
    """Read both sides, the target through a new connection: what it has committed."""
    target.close()
    with target.engine.connect() as copied:
        there = digests(copied, told)
    here = digests(reading, told)
    return [
        Compared(name, here.get(name, _NONE), there.get(name, _NONE)) for name in sorted(here.keys() | there.keys())
    ]


def _columns(connection: Connection) -> set[str]:
    return {f"{table.name}.{column.name}" for table in tables_of(connection) for column in table.columns}


# -- what is refused ---------------------------------------------------------------------------------------------------


def _refuse_schema(source: Database) -> None:
    found = source.known_revision()
    if found is None:
        raise MoveRefused(f"there is no store at {source.location}: there is nothing to move")
    if found != SCHEMA_REVISION:
        raise MoveRefused(
            f"the store {source.location} has schema {found}, this version moves schema {SCHEMA_REVISION} only: "
            "run `syncect db upgrade` first"
        )


def _lock(reading: Connection) -> None:
    """Let nobody else write until the end of the transaction; SQLite's began with that."""
    if reading.dialect.name != "postgresql":
        return
    names = ", ".join(sorted(table for table in inspect(reading).get_table_names() if table in Base.metadata.tables))
    reading.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_WAIT_MS}")
    reading.exec_driver_sql(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")


def _refuse_moved(session: Session, source: Database) -> None:
    place = session.scalar(select(StoreMark.moved_to).where(StoreMark.moved_to != ""))
    if place is not None:
        raise MoveRefused(
            f"the store {source.location} was moved to {place} already; `syncect db adopt` takes that back, without "
            "what happened there since"
        )


def _refuse_in_use(session: Session, source: Database, now: datetime) -> None:
    if not source.is_sqlite:
        now = session.execute(text("SELECT clock_timestamp()")).scalar_one()  # the hosts measure by the server's clock
    if why := _working(session, now) or ("" if source.is_sqlite else _connected(session)):
        raise MoveRefused(f"the store {source.location} is in use: {why}. Stop the node on every host first")


def _working(session: Session, now: datetime) -> str:
    """Which process works with the store at the moment, by what it wrote; "" for none."""
    seen = session.execute(
        select(ProcessRow.name, ProcessRow.host).where(ProcessRow.seen_at > now - _SEEN_WITHIN)
    ).first()
    if seen is not None:
        name, host = seen
        here = " (this host)" if host == socket.gethostname() else ""
        return f"{name} on {host}{here} reported itself within the last {_SEEN_WITHIN.seconds // 60} minutes"
    leased = session.execute(
        select(Job.worker, Job.lease_until)
        .where(Job.state == JobState.RUNNING, Job.lease_until > now)
        .union_all(
            select(Delivery.courier, Delivery.lease_until).where(
                Delivery.state == DeliveryState.SENDING, Delivery.lease_until > now
            )
        )
    ).first()
    if leased is None:
        return ""
    holder, until = leased
    return f"{holder} has work in its hands until {until:%H:%M:%S} UTC, unless it ended without giving it back"


def _connected(session: Session) -> str:
    """Which other program is connected to the same PostgreSQL database; "" for none."""
    found = session.execute(
        text(
            "SELECT pid, coalesce(host(client_addr), 'the server itself') FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            " AND leader_pid IS NULL ORDER BY backend_start LIMIT 1"
        )
    ).first()
    if found is None:
        return ""
    return f"another program is connected to this database (server process {found[0]}, from {found[1]})"


def _refuse_occupied(target: Database) -> None:
    revision = target.current_revision()
    if revision not in (None, SCHEMA_REVISION):
        raise MoveRefused(
            f"the database {target.location} has schema {revision}, this version needs {SCHEMA_REVISION}: "
            "name a database without tables"
        )
    if not is_vacant(target):
        raise MoveRefused(
            f"the database {target.location} is not empty. If an earlier `syncect db move` was interrupted, nothing "
            "was lost and the old store is still the one to use: drop that database, make it anew, and give the "
            "command again. Otherwise name another one"
        )
