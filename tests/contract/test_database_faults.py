"""What a writer meets when the database is locked, restarted or full: one kind of error, soon, and no value in it."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from storage.database import Database
from storage.errors import StoreUnavailable
from storage.outage import TELL_EVERY_S, Outage
from storage.series import SeriesStore
from storage.tables import Association

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SOON_S = 4.5  # under load too; sqlite3 by itself waits 5 s, and psycopg for ever


def open_one(database: Database) -> int:
    return SeriesStore(database).open_association("receiver", "CTSIM", "h", NOW)


@contextmanager
def locked_by_another(database: Database) -> Iterator[None]:
    """Another connection holds what a writer needs."""
    other = create_engine(database.url)
    with other.connect() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("LOCK TABLE association IN ACCESS EXCLUSIVE MODE"))
        yield
    other.dispose()


def test_a_lock_is_waited_for_no_longer_than_a_sender_waits(database: Database) -> None:
    open_one(database)
    with locked_by_another(database):
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"cannot be used: .*lock"):
            open_one(database)
        assert time.monotonic() - began_s < SOON_S
    assert open_one(database) > 0


def test_who_has_to_answer_a_person_waits_no_longer_than_he_was_told(database: Database) -> None:
    database.wait_at_most(0.5)
    with locked_by_another(database):
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"locked|did not answer for 0\.5 s"), database.write() as session:
            session.add(Association(receiver="receiver", calling_ae="A", peer_host="h", outcome="OPEN", opened_at=NOW))
        assert time.monotonic() - began_s < SOON_S


def test_many_who_look_at_once_do_not_wait_for_each_other(database: Database) -> None:
    """Where a server is silent they would wait one after the other, each for seconds."""
    all_there = threading.Barrier(20, timeout=60)

    def look(_number: int) -> int:
        with database.read() as session:
            session.execute(text("SELECT 1"))
            return all_there.wait()

    with ThreadPoolExecutor(20) as threads:
        assert sorted(threads.map(look, range(20))) == list(range(20))


def test_a_commit_that_was_given_up_is_waited_for(database: Database) -> None:
    series = SeriesStore(database)
    series.await_commits()
    if database.is_sqlite:
        return  # nothing commits for a process that gave up
    with database.engine.connect() as connection:
        connection.execute(text("DELETE FROM instance"))
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable, match="lock"):
            series.await_commits()
        assert time.monotonic() - began_s < SOON_S
        connection.commit()
        series.await_commits()


def test_a_restarted_server_is_found_again_without_help(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no server")
    open_one(database)
    other = create_engine(database.url)
    with other.connect() as connection:
        ended = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'test'"
        )
        connection.execute(text(ended))
    other.dispose()
    assert open_one(database) > 0


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_standby_takes_nothing_until_it_is_promoted(database: Database) -> None:
    standby = Database(f"{database.url.render_as_string()}&options=-c default_transaction_read_only=on")
    with pytest.raises(StoreUnavailable, match=r"takes no writes.*: cannot execute INSERT in a read-only transaction"):
        open_one(standby)
    with pytest.raises(StoreUnavailable, match="read-only transaction"), standby.write() as session:
        session.add(Association(receiver="r", calling_ae="A", peer_host="h", outcome="OPEN", opened_at=NOW))
    for reader in (standby, Database(standby.url.render_as_string(), read_only=True)):
        with pytest.raises(StoreUnavailable, match="takes no writes: it is a standby"):
            reader.check_writable()
        reader.close()
    database.check_writable()
    assert open_one(database) > 0


def test_a_server_without_a_free_connection_is_waited_for_like_one_that_is_down(postgres_url: str) -> None:
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    crowded = Database(postgres_url.replace("//test@", "//crowded@"))
    with server.connect() as connection:
        connection.execute(text("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0"))
        try:
            with pytest.raises(StoreUnavailable, match="too many connections"):
                open_one(crowded)
            connection.execute(text("ALTER ROLE crowded CONNECTION LIMIT 1"))
            assert crowded.current_revision() is None
        finally:
            crowded.close()
            connection.execute(text("DROP ROLE crowded"))
    server.dispose()


def test_the_server_tells_its_time(postgres_url: str) -> None:
    database = Database(postgres_url)
    assert abs((database.now() - datetime.now(UTC)).total_seconds()) < 5
    database.close()


def test_a_server_that_is_down_is_told_at_once() -> None:
    down = Database("postgresql+psycopg://me:secret@127.0.0.1:1/db")
    began_s = time.monotonic()
    with pytest.raises(StoreUnavailable) as told:
        open_one(down)
    assert time.monotonic() - began_s < SOON_S
    assert "secret" not in str(told.value)


def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hole = Database(f"postgresql+psycopg://me@127.0.0.1:{silent.getsockname()[1]}/db")
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable, match="timeout"):
            open_one(hole)
        assert time.monotonic() - began_s < SOON_S


def test_no_error_of_the_database_quotes_a_value(database: Database) -> None:
    values = {"receiver": "CANARY", "calling_ae": "CANARY", "peer_host": None, "outcome": "OPEN", "opened_at": NOW}
    with pytest.raises(SQLAlchemyError) as told, database.write() as session:
        session.add(Association(**values))
    assert "CANARY" not in str(told.value)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_an_outage_takes_a_line_a_minute_and_one_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outage = Outage("the courier", clock)
    pauses = []
    for _ in range(130):
        pauses.append(outage.failed(StoreUnavailable("the store is gone")))
        clock.now_s += 1.0
    assert pauses[:5] == [0.5, 1.0, 2.0, 5.0, 5.0]
    assert len(caplog.messages) == 1 + int(129 // TELL_EVERY_S)
    assert caplog.messages[0] == "the courier waits for the database: the store is gone"
    assert caplog.messages[1].endswith("(failed 61 times in 60 s)")
    outage.over()
    outage.over()
    assert caplog.messages[-1] == "the courier: the database can be used again after 130 s"
    assert len(caplog.messages) == 4
