"""Two versions of the node on one PostgreSQL: who does not know the schema any more writes nothing, and ends."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from sqlalchemy import create_engine, text

from storage.database import Database
from storage.errors import SchemaMismatch
from storage.hosts import free_running
from storage.schema import ONE_AT_A_TIME, alembic_config
from storage.tables import SCHEMA_REVISION
from tests.contract.store_bench import Bench, at

NEWER = "0099"

on_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


def set_revision(database: Database, revision: str) -> None:
    """What the migration of another version leaves."""
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": revision})


@on_postgresql
@pytest.mark.parametrize(("found", "words"), [(NEWER, "newer version"), ("0007", "syncect db upgrade")])
def test_who_meets_another_schema_writes_nothing_more_and_ends(database: Database, found: str, words: str) -> None:
    bench, stop = Bench(database), threading.Event()
    database.guard_schema(stop.set)
    bench.receive()
    assert not stop.is_set()
    database.require_schema()
    set_revision(database, found)
    with pytest.raises(SchemaMismatch, match=words):  # the way of the receiver
        bench.series.open_association("receiver", "CTSIM", "h", at(9))
    assert stop.is_set()
    with pytest.raises(SchemaMismatch, match=words):  # that of all others
        bench.queue()
    with pytest.raises(SchemaMismatch, match=words):
        database.require_schema()
    set_revision(database, SCHEMA_REVISION)
    assert bench.states() == {"1": "RECEIVING"}


@on_postgresql
def test_an_upgrade_waits_for_who_writes_and_who_comes_later_sees_it(database: Database) -> None:
    """An earlier version is one that knows no more than the last revision but one."""
    database.guard_schema(lambda: None)
    Bench(database).receive()
    looked, goes_on = threading.Event(), threading.Event()

    def write() -> None:
        with database.write() as session:
            looked.set()
            assert goes_on.wait(20)
            session.execute(text("UPDATE series SET description = 'before'"))

    with ThreadPoolExecutor(2) as threads:
        writer = threads.submit(write)
        assert looked.wait(20)
        other = Database(database.url.render_as_string(hide_password=False))
        migration = threads.submit(command.downgrade, alembic_config(other.engine), "-1")
        await_locks(database, 1)
        goes_on.set()
        writer.result(20)
        migration.result(20)
    with pytest.raises(SchemaMismatch), database.write():
        pass
    command.upgrade(alembic_config(other.engine), "head")
    other.close()
    with database.write() as session:
        assert session.scalar(text("SELECT description FROM series")) == "before"


def await_locks(database: Database, count: int) -> None:
    """Wait until so many wait for a lock."""
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    engine = create_engine(database.url)
    with engine.connect() as connection:
        while connection.scalar(waiting) != count:
            connection.rollback()  # a transaction sees its first answer again
            threading.Event().wait(0.02)
    engine.dispose()


def test_two_upgrades_at_once_do_it_once(vacant_url: Callable[[str], str]) -> None:
    url = vacant_url("postgresql")
    upgrade = f"from storage import database, schema; schema.upgrade(database.Database({url!r}))"
    database = Database(url)
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})")
        both = [subprocess.Popen([sys.executable, "-c", upgrade]) for _ in range(2)]
        await_locks(database, 2)
    assert [one.wait(60) for one in both] == [0, 0]
    assert database.current_revision() == SCHEMA_REVISION
    database.close()


def test_jobs_of_workers_that_an_upgrade_silenced_are_queued_again_without_a_death(database: Database) -> None:
    bench = Bench(database)
    bench.receive()
    bench.queue()
    job = bench.jobs.claim("old", 60, at(11))
    assert job is not None
    assert free_running(database, at(11), at(30)) == [], "a worker of the new version has it"
    assert free_running(database, at(72), at(72)) == [], "its worker was silent before"
    assert free_running(database, at(20), at(30)) == [job.id]
    again = bench.jobs.claim("new", 60, at(31))
    assert again is not None
    assert (again.id, again.attempt, again.deaths) == (job.id, job.attempt, 0)
