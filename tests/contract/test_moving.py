"""A store is moved to another database with every row, or it is not moved at all."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, text

from node.cli import run_command
from node.ops.processes import process_lock
from storage.copies import Told, is_vacant
from storage.database import Database
from storage.digests import TableDigest, digests
from storage.errors import MoveRefused
from storage.mark import mark_of_store, mismatch, write_mark
from storage.moving import Compared, move
from storage.scale_tables import PauseRow, ProcessRow, TallyRow
from storage.schema import alembic_config, upgrade
from storage.series import SeriesStore
from storage.tables import Delivery, Job
from tests.contract.test_migrations import EARLIER, ROWS, Rows, assert_full, contents

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
MARK = "2.25.77"  # of the rows
Vacant = Callable[[str], str]
Syncect = Callable[..., tuple[int, str, str]]


@pytest.fixture
def source(database: Database) -> Database:
    """A store with rows in every table, of a node that ended long ago."""
    with database.write() as session:
        connection = session.connection()
        if not database.is_sqlite:
            connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")  # the instants of the rows name no zone
        for statement in ROWS[EARLIER[-1]].split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        session.add(PauseRow(stage="send", host="a", drains=True, actor="operator kim", reason="night", at=NOW))
        session.add(TallyRow(name="rows", counts={"job:PRODUCED": 1}, at=NOW))
        seen = {"started_at": NOW - timedelta(days=2), "seen_at": NOW - timedelta(days=1)}
        session.add(ProcessRow(name="a-worker", host="a", role="worker", pid=7, beats=[{"b": 0.1, "a": "ü"}], **seen))
    return database


from_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
from_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
def target(source: Database, vacant_url: Vacant) -> Iterator[Database]:
    """An empty database of the other kind."""
    database = Database(vacant_url("postgresql" if source.is_sqlite else "sqlite"))
    yield database
    database.close()


@pytest.fixture
def syncect(
    source: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Syncect:
    """The command of a node with this store; gives exit code, output and what it said."""
    settings, url = tmp_path / "node.toml", source.url.render_as_string(hide_password=False)
    settings.write_text(f'[node]\ndata_dir = "{tmp_path / "data"}"\ndatabase_url = "{url}"\n')
    (tmp_path / "data").mkdir()
    write_mark(tmp_path / "data" / "spool", MARK)
    monkeypatch.setenv("SYNCECT_CONFIG", str(settings))

    def call(*arguments: str) -> tuple[int, str, str]:
        source.close()
        monkeypatch.setattr("sys.argv", ["syncect", *arguments])
        code = run_command()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def rows_of(database: Database) -> Rows:
    """Every row of every table, with instants that compare across databases."""

    def aware(value: Any) -> Any:
        return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value

    found = contents(database)
    return {name: [{key: aware(value) for key, value in row.items()} for row in rows] for name, rows in found.items()}


def unmarked(rows: Rows) -> Rows:
    """The rows without what a move writes into the old store."""
    return {**rows, "store_mark": [{**row, "moved_to": "", "moved_at": None} for row in rows["store_mark"]]}


def assert_not_moved(source: Database, before: Rows) -> None:
    assert rows_of(source) == before


def test_every_row_of_every_table_comes_to_the_other_kind_of_database(source: Database, target: Database) -> None:
    before = rows_of(source)
    assert_full({name: rows for name, rows in before.items() if name != "store_mark"})
    compared = move(source, target, NOW)
    assert all(one.is_equal for one in compared)
    assert {one.table: one.source.rows for one in compared} == {name: len(rows) for name, rows in before.items()}
    assert rows_of(target) == before
    assert unmarked(rows_of(source)) == before


def test_new_rows_are_numbered_behind_the_copied_ones(source: Database, target: Database) -> None:
    move(source, target, NOW)
    before = {row["id"] for row in rows_of(target)["association"]}
    assert SeriesStore(target).open_association("r", "CTSIM", "h", NOW) == max(before) + 1


@from_sqlite
def test_a_moved_store_says_where_it_went_and_is_taken_back(
    source: Database, target: Database, syncect: Syncect, tmp_path: Path
) -> None:
    code, out, err = syncect("db", "move", target.url.render_as_string(hide_password=False))
    assert code == 0, err
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert {row[2] for row in lines.values()} == {"yes"}
    assert lines["series"][0] == "5"
    assert "database_url = " in err
    assert mismatch(target, tmp_path / "data" / "spool") is None
    code, _, err = syncect("jobs", "ls")
    assert code == 1
    assert f"was moved to {target.location} at " in err
    assert "syncect db adopt" in err
    code, _, err = syncect("db", "move", target.url.render_as_string(hide_password=False))
    assert (code, "already" in err) == (4, True)
    assert syncect("db", "adopt")[0] == 0
    assert mark_of_store(source) == MARK
    assert syncect("jobs", "ls")[0] == 0


@from_postgresql
def test_the_default_file_needs_no_url_in_the_settings(source: Database, syncect: Syncect, tmp_path: Path) -> None:
    place = tmp_path / "data" / "syncect.sqlite3"
    code, out, err = syncect("db", "move", f"sqlite:///{place}", "--json")
    told = json.loads(out)
    assert (code, told["equal"], told["database_url"]) == (0, True, "")
    assert 'database_url = ""' in err
    assert all(one["sha256"] == one["target_sha256"] for one in told["tables"])
    assert place.stat().st_mode & 0o777 == 0o600


@from_sqlite
@pytest.mark.parametrize("name", ["vacant", "no-such-database"])
def test_the_password_of_the_url_is_never_shown(
    source: Database, target: Database, syncect: Syncect, name: str
) -> None:
    url = target.url.set(password="geheim", database=name).render_as_string(hide_password=False)
    code, out, err = syncect("db", "move", url)
    assert "geheim" in url
    assert code == (0 if name == "vacant" else 1), err
    source.close()
    assert "geheim" not in out + err + str(rows_of(source))


@from_sqlite
def test_a_store_in_which_an_earlier_version_kept_what_is_no_number_can_be_moved(
    source: Database, target: Database
) -> None:
    with source.write() as session:
        odd = text("UPDATE job SET measurements = :kept WHERE id = 1")
        session.execute(odd, {"kept": '{"mae_hu": 1.5, "ssim": NaN, "parts": [Infinity]}'})
    assert all(one.is_equal for one in move(source, target, NOW))
    with target.read() as session:
        assert session.get_one(Job, 1).measurements == {"mae_hu": 1.5, "parts": [None]}


@from_sqlite
def test_a_damaged_copy_is_found_and_the_old_store_stays_the_one_to_use(
    source: Database, target: Database, syncect: Syncect, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(source)

    def corrupt_first(connection: Connection, told: Told) -> dict[str, TableDigest]:
        with target.write() as session:
            session.execute(text("UPDATE delivery_instance SET dimse_status = 1 WHERE delivery_id = 2"))
        return digests(connection, told)

    monkeypatch.setattr("storage.moving.digests", corrupt_first)
    code, out, err = syncect("db", "move", target.url.render_as_string(hide_password=False))
    assert code == 1
    assert [line.split()[0] for line in out.splitlines() if line.split()[-1] == "NO"] == ["delivery_instance"]
    assert "NOT the same as the store: delivery_instance." in err
    assert "database_url" not in err
    assert_not_moved(source, before)


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from storage.database import Database
from storage.moving import move
calls = 0
def told(table, rows):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
move(Database(sys.argv[1]), Database(sys.argv[2]), datetime.now(UTC), told)
"""


@from_sqlite
@pytest.mark.parametrize("moment", ["copying", "comparing"])
def test_killed_at_any_moment_the_old_store_is_as_it_was(source: Database, target: Database, moment: str) -> None:
    before = rows_of(source)
    calls = len(before) // 2 + (len(before) if moment == "comparing" else 0)
    urls = [one.url.render_as_string(hide_password=False) for one in (source, target)]
    ended = subprocess.run([sys.executable, "-c", KILLED, *urls, str(calls)], check=False, env=dict(os.environ))
    assert ended.returncode == -9
    assert_not_moved(source, before)
    if moment == "copying":
        assert is_vacant(target)
        assert all(one.is_equal for one in move(source, target, NOW))
    else:
        with pytest.raises(MoveRefused, match=r"is not empty. If an earlier.*drop that database"):
            move(source, target, NOW)
        assert_not_moved(source, before)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_store_in_use_is_refused(source: Database, target: Database) -> None:
    def refused(words: str) -> None:
        with pytest.raises(MoveRefused, match=words):
            move(source, target, datetime.now(UTC))
        assert is_vacant(target)

    now = datetime.now(UTC)
    with source.write() as session:
        session.add(ProcessRow(name="b-worker", host="b", role="worker", pid=1, started_at=now, seen_at=now))
    refused(r"b-worker on b reported itself.*Stop the node on every host")
    with source.write() as session:
        session.execute(text("DELETE FROM process WHERE name = 'b-worker'"))
        job = session.get_one(Job, 1)
        session.execute(text("UPDATE delivery SET state = 'PENDING'"))
        session.get_one(Delivery, 1).lease_until = job.lease_until = now + timedelta(minutes=5)
        session.execute(text("UPDATE delivery SET state = 'SENDING' WHERE id = 1"))
    refused("node-1-courier has work in its hands until")


@from_postgresql
def test_another_connection_to_the_same_server_is_refused(source: Database, target: Database) -> None:
    with Database(source.url.render_as_string()).engine.connect() as other:
        other.exec_driver_sql("SELECT 1")
        with pytest.raises(MoveRefused, match="another program is connected"):
            move(source, target, NOW)
        other.invalidate()


@from_sqlite
def test_the_command_is_refused_while_a_process_of_the_node_runs(
    source: Database, target: Database, syncect: Syncect, tmp_path: Path
) -> None:
    with process_lock(tmp_path / "data" / "run", "worker", "a-worker"):
        code, _, err = syncect("db", "move", target.url.render_as_string())
    assert (code, "worker is running" in err) == (4, True)
    assert mismatch(source, tmp_path / "data" / "spool") is None


@from_sqlite
def test_a_place_that_cannot_be_right_is_refused(source: Database, syncect: Syncect, tmp_path: Path) -> None:
    here = source.url.render_as_string()
    assert "already" in syncect("db", "move", here)[2]
    assert syncect("db", "move", "sqlite:///store.sqlite3")[0] == 4
    assert syncect("db", "move", f"sqlite:///{tmp_path / 'no' / 'store.sqlite3'}")[0] == 2
    assert syncect("db", "move", "mysql://root:geheim@h/x")[0] == 2
    assert not any((tmp_path / name).exists() for name in ("no", "store.sqlite3-wal"))


@from_sqlite
def test_other_schemas_are_refused_on_either_side(source: Database, target: Database) -> None:
    target.make_file()
    command.upgrade(alembic_config(target.engine), EARLIER[-1])
    with pytest.raises(MoveRefused, match=f"has schema {EARLIER[-1]}"):
        move(source, target, NOW)
    command.upgrade(alembic_config(target.engine), "head")
    with target.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job ADD COLUMN strange INTEGER")
    with pytest.raises(MoveRefused, match=r"job.strange is only in one of them"):
        move(source, target, NOW)
    assert is_vacant(target)


@from_sqlite
def test_an_older_store_is_upgraded_first(source: Database, target: Database) -> None:
    command.downgrade(alembic_config(source.engine), "-1")
    with pytest.raises(MoveRefused, match="db upgrade"):
        move(source, target, NOW)
    upgrade(source)
    assert all(one.is_equal for one in move(source, target, NOW))


# -- size --------------------------------------------------------------------------------------------------------------

MEASURED = """
import resource, sys
from datetime import UTC, datetime
from storage.database import Database
from storage.moving import move
def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
begun_mb = peak_mb()
compared = move(Database(sys.argv[1]), Database(sys.argv[2]), datetime.now(UTC))
assert all(one.is_equal for one in compared)
print(max(one.source.rows for one in compared), peak_mb() - begun_mb)
"""


@from_postgresql
def test_100_000_rows_are_moved_in_bounded_memory(database: Database, vacant_url: Vacant) -> None:
    with database.write() as session:
        made = "SELECT 'p' || n, now(), now(), repeat('x', 500) FROM generate_series(1, 100000) n"
        session.execute(text(f"INSERT INTO peer_state {made}"))
    database.close()
    urls = database.url.render_as_string(), vacant_url("sqlite")
    ended = subprocess.run([sys.executable, "-c", MEASURED, *urls], check=True, capture_output=True, text=True)
    rows, grown_mb = ended.stdout.split()
    assert int(rows) == 100_000
    assert float(grown_mb) < 40  # all of them at once take more than 200 MB


def test_a_table_that_one_side_lacks_is_not_equal() -> None:
    assert not Compared("job", TableDigest(0, ""), TableDigest(0, "a")).is_equal
