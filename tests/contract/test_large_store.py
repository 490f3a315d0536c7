"""What is asked all the time reads a few rows of a store, and not its tables, however many jobs it holds.

5,000 jobs are enough to see it: PostgreSQL says itself how many rows each step of a query visited. It would read so
small a table as a whole; told not to, it visits as many rows as it must, and that is all where no index leads to fewer.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from bench.scaled.large_store import QUEUED, fill
from storage import tallies
from storage.alerts import AlertStore
from storage.database import Database
from storage.gauges import Gauges
from storage.jobs import JobStore
from storage.outbox import OutboxStore
from storage.overview import Overview
from storage.retention import Ages, RetentionStore
from storage.series import SeriesStore
from storage.watching import WatchStore

JOBS = 5_000
MOST = 2 * QUEUED + 1_000  # all that is on its way, and some pages of a listing; 5,000 would be a whole table


@pytest.fixture
def filled(_postgres_store: Any) -> Iterator[Database]:
    _postgres_store.empty()
    database = Database(_postgres_store.url)
    fill(database, JOBS)
    yield database
    database.close()


@contextmanager
def visited(database: Database) -> Iterator[dict[str, int]]:
    """The SELECTs that the block executes, each with the greatest number of rows that one of its steps visited."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    found: dict[str, int] = {}
    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    with database.engine.connect() as connection:
        for statement, parameters in asked:
            rows = min(_visits(connection, statement, parameters, avoid) for avoid in _AVOIDED)
            found[statement] = max(found.get(statement, 0), rows)


_AVOIDED = (["seqscan"], ["seqscan", "hashjoin", "mergejoin"])


def _visits(connection: Connection, statement: str, parameters: Any, avoid: list[str]) -> int:
    for way in avoid:
        connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
    told = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
    connection.rollback()
    return _most((json.loads(told) if isinstance(told, str) else told)[0]["Plan"])


def _most(step: dict[str, Any]) -> int:
    removed = step.get("Rows Removed by Filter", 0) + step.get("Rows Removed by Index Recheck", 0)
    here = (step["Actual Rows"] + removed) * step["Actual Loops"]
    return max([int(here), *(_most(one) for one in step.get("Plans", ()))])


def ask_everything(database: Database) -> dict[str, Callable[[], Any]]:
    now, overview, retention = datetime.now(UTC), Overview(database), RetentionStore(database)
    month = now - timedelta(days=30)
    return {
        "jobs ls": overview.cases,
        "jobs ls --state": lambda: overview.cases(states=["FAILED", "HELD", "QUEUED"]),
        "jobs ls --state SENT": lambda: overview.cases(states=["SENT"]),
        "jobs ls --patient": lambda: overview.cases(patient="pat77"),
        "jobs ls --patient, beginning": lambda: overview.cases(patient="PAT77*"),
        "jobs show": lambda: overview.events(overview.case("1001")),
        "claim": lambda: JobStore(database).claim("w", 60, now),
        "claim of a delivery": lambda: OutboxStore(database).claim("c", "tps", 60, now),
        "completion": lambda: SeriesStore(database).undecided(now, 5),
        "counts": overview.counts,
        "last sent": overview.last_sent,
        "gauges": lambda: (Gauges(database).cases(), Gauges(database).oldest()),
        "retention": lambda: retention.with_files(Ages(month, None), 20),
        "alerts": lambda: (AlertStore(database).open(), WatchStore(database).harms()),
    }


def test_no_question_reads_a_whole_table(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "LARGE", JOBS)
    with filled.write() as session:  # what is old has no files any more, as in every old store
        session.execute(text("UPDATE job SET purged_at = now() WHERE id < 4000"))
        session.execute(text("DELETE FROM instance WHERE series_id < 4000"))
    with filled.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    Gauges(filled).keep(datetime.now(UTC))
    for name, ask in ask_everything(filled).items():
        with visited(filled) as found:
            ask()
        assert found, name
        too_many = {statement: rows for statement, rows in found.items() if rows > MOST}
        assert not too_many, name


def test_what_the_lights_ask_is_few_statements_over_few_rows(filled: Database) -> None:
    """Here every series has its files: which go next is found among the oldest, and not among all."""
    with filled.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    now = datetime.now(UTC)
    for ask in (lambda: RetentionStore(filled).first_to_go(Ages(now, now)), Overview(filled).last_sent):
        with visited(filled) as found:
            assert ask()
        assert len(found) <= 6, list(found)  # alike ones count as one
        assert max(found.values()) <= 500, found


def test_what_was_counted_before_and_what_is_counted_now_are_the_same(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    overview, gauges, now = Overview(filled), Gauges(filled), datetime.now(UTC)
    rows, cases = overview.counts(), gauges.cases()
    gauges.keep(now)
    with filled.read() as session:
        assert tallies.kept_counts(session, tallies.ROWS, now) is None  # a small store is always counted
    monkeypatch.setattr(tallies, "LARGE", JOBS)
    gauges.keep(now)
    with filled.read() as session:
        assert tallies.kept_counts(session, tallies.ROWS, now) is not None
        assert tallies.kept_counts(session, tallies.ROWS, now + timedelta(minutes=16)) is None  # no watch runs
    assert (overview.counts(), gauges.cases()) == (rows, cases)
    assert sum(count for key, count in rows.items() if key.startswith("series:")) == JOBS


def test_a_listing_is_the_same_however_far_it_walks(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    overview = Overview(filled)
    whole = {state: overview.cases(states=[state], limit=0) for state in ("SENT", "SUPERSEDED", "HELD")}
    assert [case.state for case in whole["HELD"]].count("HELD") == len(whole["HELD"])
    behind = overview.cases(states=["SENT"], limit=10, after="900")
    monkeypatch.setattr("storage.overview._WALKED", 2)
    assert {state: overview.cases(states=[state], limit=0) for state in whole} == whole
    assert overview.cases(states=["SENT"], limit=10, after="900") == behind
