"""`syncect backup` and `syncect restore`: a node is destroyed and comes back, on and between all databases."""

import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from config.load import load_settings
from node.bootstrap.store import Node, open_store
from storage.database import Database
from storage.jobs import JobStore
from storage.mark import mark_of_spool, mark_of_store
from storage.pauses import PauseStore
from storage.scale_tables import ProcessRow
from storage.states import Stage
from storage.tables import Association
from tests.departments import START
from tests.restorable import STATES, destroy, files, populate, rows, set_up

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a node on each database."""
    return set_up(tmp_path / "node.toml", database, monkeypatch, populate)


@pytest.fixture
def data_dir(config: Path) -> Path:
    return config.parent / "syncect-data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def test_the_rows_of_these_tests_are_in_every_state(config: Path, database: Database) -> None:
    found = rows(database)
    assert {name: {row["state"] for row in found[name]} for name in STATES} == STATES
    assert set(found) >= {"product", "event", "delivery_instance", "store_mark"}


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_a_destroyed_node_comes_back_with_every_row_and_every_file(
    run: Call,
    config: Path,
    data_dir: Path,
    database: Database,
    folder: Path,
    vacant_url: Callable[[str], str],
    into: str,
) -> None:
    before, kept = rows(database), files(data_dir)
    identity = (data_dir / "installation.json").read_bytes()
    assert run("backup", folder)[0] == 0
    url = vacant_url(into)
    destroy(config, data_dir, url)
    code, _, err = run("restore", folder)
    assert code == 0, err
    after = rows(Database(url))
    assert set(after) == set(before)
    assert [name for name in after if after[name] != settled(name, before[name])] == []
    assert needed(kept, before) == files(data_dir)
    assert (data_dir / "installation.json").read_bytes() == identity
    assert run("spool", "verify") == (0, "", f"{len(files(data_dir))} files read; nothing differs\n")
    with open_store(load_settings(config)) as node:
        assert mark_of_store(node.database) == mark_of_spool(node.spool.root) is not None
        assert goes_on(node)


def settled(name: str, found: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{**row, "in_hand": None} for row in found] if name == "series" else found


def needed(kept: dict[str, str], before: dict[str, list[dict[str, object]]]) -> dict[str, str]:
    """Without the results of superseded jobs, which no row needs."""
    gone = {row["product_dir"] for row in before["job"] if row["state"] == "SUPERSEDED"}
    assert gone
    return {name: digest for name, digest in kept.items() if name.rpartition("/")[0] not in gone}


def goes_on(node: Node) -> bool:
    """New rows get numbers that no row had (PostgreSQL has to be told where to go on), and what was open goes out."""
    with node.database.read() as session:
        (last,) = session.scalars(select(Association.id).order_by(Association.id.desc()).limit(1))
    association = node.series.open_association("r", "CTSIM", "h", START)
    node.series.close_association(association, released=True, now=START)
    later = START + timedelta(minutes=5)
    JobStore(node.database).release_expired(later)
    node.outbox.release_expired(later)
    sent = [node.outbox.claim("c", "tps", 60, later), node.outbox.claim("c", "tps", 60, later)]
    jobs = [node.jobs.claim("w", 60, later), node.jobs.claim("w", 60, later)]
    return association == last + 1 and None not in sent and None not in jobs


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_pause_comes_back_and_is_told_and_no_process_counts_as_one_that_runs(
    run: Call, config: Path, data_dir: Path, database: Database, folder: Path, vacant_url: Callable[[str], str]
) -> None:
    PauseStore(database).pause([Stage.SEND], "gpu2", "anna", "new card", START)
    with database.write() as session:  # as those of a node on PostgreSQL do
        session.add(ProcessRow(name="work@gpu2", host="gpu2", role="work", pid=1, started_at=START, seen_at=START))
    assert run("backup", folder)[0] == 0
    url = vacant_url("sqlite")
    destroy(config, data_dir, url)
    told = " ".join(run("restore", folder)[2].split())
    assert "as before, sending is paused on gpu2 by anna since " in told
    assert "new card; it ends with `syncect queue resume --stage send --host gpu2`" in told
    assert [one.host for one in PauseStore(Database(url)).all()] == ["gpu2"]
    assert rows(Database(url))["process"] == []


def test_only_its_owner_may_read_a_backup(run: Call, config: Path, folder: Path) -> None:
    assert run("backup", folder)[0] == 0
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_second_backup_copies_only_what_is_new_and_leaves_nothing_old(
    run: Call, config: Path, data_dir: Path, folder: Path
) -> None:
    assert run("backup", folder)[0] == 0
    first = {path.name: path.stat().st_ino for path in (folder / "files").rglob("*") if path.is_file()}
    with open_store(load_settings(config)) as node:
        node.spool.path("received/1-0.dcm").unlink()  # the spool lost one that the backup has
    code, _, err = run("backup", folder)
    assert (code, "; 0 of them were new" in err) == (0, True)
    assert "1 files are only in the backup any more" in err
    assert {path.name: path.stat().st_ino for path in (folder / "files").rglob("*") if path.is_file()} == first
    assert len(list(folder.glob("snapshot-*"))) == 1


def test_what_neither_spool_nor_backup_has_is_named_and_no_success(
    run: Call, config: Path, data_dir: Path, folder: Path, database: Database, vacant_url: Callable[[str], str]
) -> None:
    (data_dir / "spool" / "received" / "1-0.dcm").unlink()
    (data_dir / "spool" / "received" / "1-1.dcm").write_bytes(b"x")
    code, _, err = run("backup", folder)
    assert code == 1
    assert "THE BACKUP IS NOT WHOLE: 2 files" in err
    assert "received/1-0.dcm is gone" in err
    assert "received/1-1.dcm is damaged" in err
    destroy(config, data_dir, vacant_url("sqlite"))
    code, _, err = run("restore", folder)
    assert (code, "2 files that the store needs were not in the backup" in err) == (0, True)
    code, out, _ = run("spool", "verify")
    assert (code, out.count("gone")) == (1, 2)
