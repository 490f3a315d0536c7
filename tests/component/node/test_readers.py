"""Readers create, change and lock nothing: where there is no store, on a read-only folder, and beside a live node."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from config.load import load_settings
from node.bootstrap.store import read_store
from storage.database import Database
from storage.errors import SchemaMismatch, StoreUnavailable
from storage.overview import Overview
from storage.schema import alembic_config, ensure_schema
from storage.series import SeriesStore
from storage.tables import Series

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOBODY = 65534
READERS = [
    ("jobs", "ls"),
    ("jobs", "show", "1"),
    ("jobs", "why", "1"),
    ("jobs", "events", "1"),
    ("status",),
    ("peers", "ls"),
    ("config", "show"),
    ("db", "current"),
    ("series", "check", "1.2.3"),
]


def code_of(command: tuple[str, ...]) -> int:
    """No process runs in these tests, which `status` calls down."""
    return 2 if command == ("status",) else 0


Run = Callable[..., tuple[int, str, str]]


@contextmanager
def not_allowed_to_write(folder: Path) -> Iterator[None]:
    """Nobody may write in the folder, this process included, also where it is root's."""
    root = os.geteuid() == 0
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    if root:
        os.seteuid(NOBODY)
    try:
        with pytest.raises(PermissionError):
            (folder / "probe").touch()
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="syncect-readers-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def store_with_a_job(config: Path, folder: Path) -> Path:
    """The data folder of the `held` store, moved to where every user may read it; returns its settings file."""
    data = config.parent / "syncect-data"
    shutil.copytree(data, folder / "data")
    target = folder / "node.toml"
    target.write_text('[node]\ndata_dir = "data"\n')
    return target


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with its size and the time of its last change."""
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


# -- where there is no store -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_in_an_empty_folder_nothing_is_created(run: Run, folder: Path, monkeypatch, command: tuple[str, ...]) -> None:
    monkeypatch.delenv("SYNCECT_CONFIG", raising=False)
    monkeypatch.chdir(folder)
    code, _, err = run(*command)
    assert list(folder.iterdir()) == []
    names_a_job = {"1", "1.2.3"} & set(command)
    assert code == (3 if names_a_job else code_of(command))
    assert (f"{folder}/syncect-data/syncect.sqlite3" in err.replace("\n", "")) == (
        command[0] in ("jobs", "status", "series")
    )


def test_without_a_store_the_list_is_empty_and_a_sentence_says_where_it_looked(
    run: Run, folder: Path, monkeypatch
) -> None:
    monkeypatch.delenv("SYNCECT_CONFIG", raising=False)
    monkeypatch.chdir(folder)
    code, out, err = run("jobs", "ls", "--json")
    assert (code, json.loads(out)) == (0, [])
    assert err.startswith("there is no store at ")
    assert "--config" in err
    assert run("db", "backup", str(folder / "copy"))[0] == 3
    assert list(folder.iterdir()) == []


# -- on a folder that cannot be written ------------------------------------------------------------------------


@pytest.mark.parametrize("command", READERS[:-1], ids=" ".join)
def test_readers_work_where_nobody_may_write(
    run: Run, config: Path, held: None, folder: Path, command: tuple[str, ...]
) -> None:
    settings = store_with_a_job(config, folder)
    before = tree(folder)
    with not_allowed_to_write(folder):
        code, out, _ = run("--config", str(settings), *command)
    assert code == code_of(command)
    assert "HELD" in out or command[0] in ("peers", "config", "db", "status")
    assert tree(folder) == before


def test_what_a_killed_node_left_is_read_where_nobody_may_write(
    run: Run, config: Path, held: None, folder: Path
) -> None:
    live = Database(f"sqlite:///{config.parent / 'syncect-data' / 'syncect.sqlite3'}")
    SeriesStore(live).open_association("r", "CTSIM", "h", T0)
    settings = store_with_a_job(config, folder)  # with -wal and -shm, as a killed process leaves them
    live.close()
    assert (folder / "data" / "syncect.sqlite3-wal").stat().st_size > 0
    with not_allowed_to_write(folder):
        code, out, _ = run("--config", str(settings), "jobs", "ls", "--json")
    assert (code, [row["state"] for row in json.loads(out)]) == (0, ["HELD"])


def test_a_copy_that_lacks_a_file_is_refused_where_nobody_may_write(
    run: Run, config: Path, held: None, folder: Path
) -> None:
    live = Database(f"sqlite:///{config.parent / 'syncect-data' / 'syncect.sqlite3'}")
    SeriesStore(live).open_association("r", "CTSIM", "h", T0)
    settings = store_with_a_job(config, folder)
    live.close()
    (folder / "data" / "syncect.sqlite3-shm").unlink()
    with not_allowed_to_write(folder):
        code, _, err = run("--config", str(settings), "jobs", "ls")
    assert code == 1
    assert "cannot be read" in err


def test_a_folder_that_may_not_be_entered_is_told(run: Run, config: Path, held: None, folder: Path) -> None:
    settings = store_with_a_job(config, folder)
    with not_allowed_to_write(folder):
        if os.geteuid() == NOBODY:
            os.seteuid(0)
            (folder / "data").chmod(0o700)
            os.seteuid(NOBODY)
        else:
            (folder / "data").chmod(0o000)
        code, _, err = run("--config", str(settings), "jobs", "ls")
    assert (code, "Permission denied" in err) == (1, True)


def test_readers_leave_nothing_where_they_may_write(run: Run, config: Path, held: None) -> None:
    before = tree(config.parent)
    for reader in READERS[:-1]:
        assert run(*reader)[0] == code_of(reader)
    assert tree(config.parent) == before


# -- beside a live node ----------------------------------------------------------------------------------------


def test_readers_see_what_is_committed_while_the_node_writes(run: Run, config: Path, held: None) -> None:
    live = Database(f"sqlite:///{config.parent / 'syncect-data' / 'syncect.sqlite3'}")
    try:
        with live.write() as session:
            session.get_one(Series, 1).description = "committed"
        with live.write() as session:
            session.get_one(Series, 1).description = "not committed"
            session.flush()
            _, out, _ = run("jobs", "ls", "--json", "--phi")
            assert json.loads(out)[0]["description"] == "committed"
        assert json.loads(run("jobs", "ls", "--json", "--phi")[1])[0]["description"] == "not committed"
    finally:
        live.close()


def test_a_store_that_changes_under_a_reader_is_told(config: Path, held: None) -> None:
    settings = load_settings(config)

    def start_and_stop_a_node() -> None:
        live = Database(settings.node.url())
        SeriesStore(live).open_association("r", "CTSIM", "h", T0)
        live.close()  # the last one to close brings the -wal into the file

    with read_store(settings) as node, pytest.raises(StoreUnavailable, match="again"), node.database.read():
        start_and_stop_a_node()


# -- schema and rights -----------------------------------------------------------------------------------------


def test_a_reader_never_migrates_and_a_backup_comes_before_the_upgrade(
    run: Run, config: Path, held: None, tmp_path: Path
) -> None:
    live = Database(f"sqlite:///{config.parent / 'syncect-data' / 'syncect.sqlite3'}")
    command.downgrade(alembic_config(live.engine), "-1")
    live.close()
    before = tree(config.parent)
    for reader in (("jobs", "ls"), ("status",)):
        code, out, err = run(*reader)
        assert (code, "syncect db upgrade" in out + err) == (code_of(reader) or 1, True)
    assert tree(config.parent) == before
    assert run("db", "backup", str(tmp_path / "copy.sqlite3"))[0] == 0
    assert run("db", "upgrade")[0] == 0
    assert run("jobs", "ls")[0] == 0


def test_the_database_refuses_to_write_for_a_reader(database: Database) -> None:
    reader = Database(database.url.render_as_string(hide_password=False), read_only=True)
    try:
        assert reader.has_schema()
        with pytest.raises((DBAPIError, StoreUnavailable)):  # SQLite and PostgreSQL say it in their own ways
            SeriesStore(reader).open_association("r", "CTSIM", "h", T0)
        assert Overview(reader).cases() == []
    finally:
        reader.close()


def test_a_reader_makes_no_table_on_postgresql(postgres_url: str, monkeypatch) -> None:
    database = Database(postgres_url)
    with database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    monkeypatch.setenv("SYNCECT_NODE__DATABASE_URL", postgres_url)
    with read_store(load_settings()) as node:
        assert (node.is_new, node.overview.cases()) == (True, [])
    assert database.current_revision() is None
    ensure_schema(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(SchemaMismatch, match="syncect db upgrade"), read_store(load_settings()):
        pass
    database.close()


def test_a_database_that_does_not_answer_is_told_in_one_sentence(run: Run, monkeypatch, folder: Path) -> None:
    monkeypatch.setenv("SYNCECT_NODE__DATABASE_URL", f"postgresql+psycopg://me:secret@/db?host={folder}")
    code, _, err = run("jobs", "ls")
    assert (code, "cannot be read" in err, "secret" in err) == (1, True, False)
