"""What the doctor and the support bundle ask the database about itself; nothing is changed."""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text

import storage.neighbour_tables
import storage.people_tables
import storage.scale_tables  # noqa: F401 - so do these
from storage.database import Database
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Base, Delivery, Event, Job, Refusal, Series

_STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's virtual machine: some milliseconds
_PATIENT_IDS = ("PatientID", "IssuerOfPatientID", "PatientBirthDate")
_ASKED_OF_POSTGRESQL = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "max_connections")
_UNFINISHED_SERIES = (SeriesState.RECEIVING, SeriesState.COMPLETE, SeriesState.INCOMPLETE)
_UNFINISHED_JOBS = (JobState.QUEUED, JobState.RUNNING, JobState.HELD, JobState.FAILED)
_UNFINISHED_DELIVERIES = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.FAILED)


@dataclass(frozen=True)
class PatientTexts:
    """What the store knows of its patients, each text once. ids: dates of birth too. typed: reasons of people."""

    ids: frozenset[str]
    names: frozenset[str]
    descriptions: frozenset[str]
    typed: frozenset[str]


class Inspection:
    """Read-only queries about the database as a whole."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_whole(self, limit_s: float) -> bool:
        """Whether SQLite found its file sound; False where it did not come to an end within `limit_s` seconds.

        Raises StoreUnavailable where the file is damaged. True for PostgreSQL, which keeps checksums of its own.
        """
        if not self._database.is_sqlite:
            return True
        until_s, is_late = time.monotonic() + limit_s, False

        def look() -> int:
            nonlocal is_late
            is_late = time.monotonic() > until_s
            return int(is_late)

        with self._database.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(look, _STEPS_BETWEEN_LOOKS)
            try:
                (answer,) = driver.execute("PRAGMA quick_check(1)").fetchone()
            except sqlite3.Error as error:
                if is_late:
                    return False
                raise self._database.unavailable(error) from error
            finally:
                driver.set_progress_handler(None, 0)
        if answer != "ok":
            words = " ".join(str(answer).split())
            raise self._database.unavailable(sqlite3.DatabaseError(f"it is damaged ({words})"))
        return True

    def journal_mode(self) -> str:
        """How SQLite protects a transaction, such as `wal`; "" for PostgreSQL."""
        if not self._database.is_sqlite:
            return ""
        with self._database.engine.connect() as connection:
            return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())

    def file_sizes(self) -> dict[str, int]:
        """Bytes of the SQLite file and of those beside it, by what they are called; empty for PostgreSQL."""
        if not self._database.is_sqlite or not self._database.url.database:
            return {}
        names = {"database": "", "wal": "-wal"}
        files = {name: Path(f"{self._database.url.database}{suffix}") for name, suffix in names.items()}
        return {name: file.stat().st_size for name, file in files.items() if file.exists()}

    def server_settings(self) -> dict[str, str]:
        """Version and what decides about durability at a PostgreSQL server; empty for SQLite."""
        if self._database.is_sqlite:
            return {}
        with self._database.read() as session:
            found = {name: str(session.scalar(text(f"SHOW {name}"))) for name in _ASKED_OF_POSTGRESQL}
            found["connections"] = str(session.scalar(text("SELECT count(*) FROM pg_stat_activity")))
            return found

    def server_time(self) -> datetime | None:
        """What a PostgreSQL server takes for the present time, UTC; None for SQLite, which has no clock of its own."""
        return None if self._database.is_sqlite else self._database.now()

    def table_sizes(self) -> dict[str, dict[str, int]]:
        """Rows of every table, and its bytes with its indexes where the database tells them."""
        found: dict[str, dict[str, int]] = {}
        with self._database.read() as session:
            for table in Base.metadata.sorted_tables:
                found[table.name] = {"rows": session.scalar(select(func.count()).select_from(table)) or 0}
                if not self._database.is_sqlite:
                    size = select(func.pg_total_relation_size(table.name))
                    found[table.name]["bytes"] = session.scalar(size) or 0
        return dict(sorted(found.items()))

    def patient_texts(self) -> PatientTexts:
        """Every patient ID, name and description of the store, and what people typed as a reason."""
        with self._database.read() as session:
            rows = session.execute(select(Series.patient_id, Series.description)).all()
            kept = session.execute(select(Job.patient, Job.series_description, Job.override)).all()
            typed = session.scalars(select(Event.reason).where(Event.actor.like("operator%")).distinct()).all()
        patients: list[Mapping[str, Any]] = [row[0] for row in kept]
        known = {str(one.get(key) or "") for one in patients for key in _PATIENT_IDS}
        return PatientTexts(
            ids=frozenset({row[0] for row in rows} | known) - {""},
            names=frozenset(str(one.get("PatientName") or "") for one in patients) - {""},
            descriptions=frozenset({row[1] for row in rows} | {row[1] for row in kept}) - {""},
            typed=frozenset([*typed, *(row[2] for row in kept)]) - {""},
        )

    def events_of_unfinished(self, limit: int) -> Iterator[dict[str, Any]]:
        """The newest events of series that are not at their end, oldest first, at most `limit` of them."""
        going_out = select(Delivery.job_id).where(Delivery.state.in_(_UNFINISHED_DELIVERIES))
        jobs = select(Job.series_id).where(Job.state.in_(_UNFINISHED_JOBS) | Job.id.in_(going_out))
        unfinished = select(Series.id).where(Series.state.in_(_UNFINISHED_SERIES) | Series.id.in_(jobs))
        query = select(Event).where(Event.series_id.in_(unfinished)).order_by(Event.id.desc()).limit(limit)
        with self._database.read() as session:
            rows = session.scalars(query).all()
        for row in reversed(rows):
            yield {
                "at": row.at,
                "series": row.series_id,
                "machine": row.machine,
                "from": row.from_state,
                "to": row.to_state,
                "actor": row.actor,
                "reason": row.reason,
            }

    def refusals(self, limit: int) -> list[dict[str, Any]]:
        """What was refused, by whom and how often, the newest first, at most `limit` of them."""
        with self._database.read() as session:
            rows = session.scalars(select(Refusal).order_by(Refusal.last_at.desc()).limit(limit)).all()
        return [
            {
                "calling_ae": row.calling_ae,
                "series_uid": row.series_uid,
                "status": f"{row.dimse_status:04X}",
                "reason": row.reason,
                "count": row.count,
                "first_at": row.first_at,
                "last_at": row.last_at,
            }
            for row in rows
        ]
