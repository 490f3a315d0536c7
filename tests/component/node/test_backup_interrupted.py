"""A backup and a restore that are killed at any step, and a backup that is not what was written."""

import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.load import load_settings
from node.bootstrap.backup import back_up
from node.bootstrap.backup_folder import FILES, STORE, BackupFolder, member_of
from node.bootstrap.restore import restore
from node.bootstrap.store import open_store
from node.ops.processes import process_lock
from storage.database import Database
from storage.errors import WrongStore
from tests.departments import START, Department
from tests.restorable import destroy, dies_at, files, fill, one_result, rows, set_up, write_settings

Call = Callable[..., tuple[int, str, str]]
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def database(sqlite_file: Path) -> Iterator[Database]:
    """How files are copied does not depend on the database; `test_backup.py` and one test here look at both."""
    database = Database(f"sqlite:///{sqlite_file}")
    yield database
    database.close()


@pytest.fixture
def config(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with one series and its result, which is to be sent."""
    return set_up(tmp_path / "node.toml", database, monkeypatch, one_result)


@pytest.fixture
def data_dir(config: Path) -> Path:
    return config.parent / "syncect-data"


@pytest.fixture
def folder(run: Call, config: Path, tmp_path: Path) -> Path:
    """A backup of it."""
    assert run("backup", tmp_path / "backup")[0] == 0
    return tmp_path / "backup"


def the_object(folder: Path) -> Path:
    """One file of the backup."""
    return min(path for path in (folder / "files").rglob("*") if path.is_file())


def names_of_usable(folder: Path) -> set[str]:
    """Every file of the backup in a folder, each of which is whole."""
    backup = BackupFolder(folder)
    manifest = backup.manifest()
    assert manifest is not None
    entries = backup.entries(backup.members(manifest)[FILES])
    assert all(backup.is_intact(one.sha256, one.size_bytes) for one in entries)
    return {one.name for one in entries}


def test_a_backup_that_is_killed_at_any_step_leaves_the_one_before_or_is_whole(
    config: Path, data_dir: Path, folder: Path
) -> None:
    before = set(files(data_dir))
    settings = load_settings(config)
    with open_store(settings) as node:
        department = Department(node)
        department._arrived = 1
        department.held()
        fill(node)
        (first, *_) = sorted(node.spool.root.glob("derived/1-1/*"))
        first.write_bytes(b"damaged")  # the backup has it
    after = set(files(data_dir))
    assert before < after
    seen = []
    for count in itertools.count(1):
        if not dies_at(
            count, lambda step: back_up(settings, config, folder, datetime.now(UTC), verify=True, step=step)
        ):
            break
        seen.append(names_of_usable(folder))
    assert seen[0] == before
    assert {frozenset(one) for one in seen} == {frozenset(before), frozenset(after)}
    assert names_of_usable(folder) == after
    assert len(list(folder.glob("snapshot-*"))) == 1
    assert [path for path in folder.rglob(".draft-*")] == []


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_a_restore_that_is_killed_at_any_step_is_ended_by_the_same_command(
    run: Call,
    config: Path,
    data_dir: Path,
    database: Database,
    folder: Path,
    vacant_url: Callable[[str], str],
    into: str,
) -> None:
    before, kept = rows(database), files(data_dir)
    url = vacant_url(into)
    destroy(config, data_dir, url)
    settings = load_settings(config)
    for count in itertools.count(1):
        if not dies_at(count, lambda step: restore(settings, config, folder, NOW, step=step)):
            break
        with pytest.raises(WrongStore, match="run the same `syncect restore` again"), open_store(settings):
            pass
        code, out, err = run("jobs", "ls")
        assert (code, out, "is not at its end" in err) == (1, "", True)
    assert count > len(kept)
    assert rows(Database(url)) == before
    assert files(data_dir) == kept
    with open_store(settings):
        pass


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [change_a_byte, Path.unlink], ids=["changed", "missing"])
@pytest.mark.parametrize("member", ["store.sqlite3", "files.tsv", "installation.json", "manifest.json", "an image"])
def test_a_damaged_backup_is_named_and_nothing_is_put_in_place(
    run: Call, config: Path, data_dir: Path, folder: Path, vacant_url: Callable[[str], str], member: str, damage
) -> None:
    (path,) = [the_object(folder)] if member == "an image" else folder.rglob(member)
    damage(path)
    destroy(config, data_dir, vacant_url("sqlite"))
    code, _, err = run("restore", folder)
    assert code == (3 if (member, damage) == ("manifest.json", Path.unlink) else 1)
    assert (str(folder) if code == 3 else str(path)) in err.replace("\n", " ")
    assert files(data_dir) == {}
    assert not (data_dir / "restore.json").exists()
    assert not (data_dir.parent / "vacant.sqlite3").exists()
    if member == "an image":
        code, _, err = run("restore", folder, "--leave-out-damaged")
        assert (code, "1 files that the store needs were not in the backup" in err) == (0, True)
        assert run("spool", "verify")[0] == 1


def test_a_truncated_manifest_is_no_backup_and_a_new_backup_does_not_guess(
    run: Call, config: Path, folder: Path
) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:200])
    for command in ("restore", "backup"):
        code, _, err = run(command, folder)
        assert (code, "manifest.json is damaged" in err) == (1, True)


def test_verify_finds_what_became_of_a_copied_file_and_copies_it_again(run: Call, config: Path, folder: Path) -> None:
    change_a_byte(the_object(folder))
    assert run("backup", folder)[0] == 0
    with pytest.raises(AssertionError):
        names_of_usable(folder)
    code, _, err = run("backup", folder, "--verify")
    assert (code, "; 1 of them were new" in err) == (0, True)
    assert names_of_usable(folder)


def test_a_list_that_names_a_place_outside_the_spool_is_refused(config: Path, folder: Path) -> None:
    listing = folder / "list"
    for name in ("../../etc/passwd", "/etc/passwd", "received/../../x", "store.json"):
        listing.write_text(f"{'a' * 64}\t1\t{name}\n")
        with pytest.raises(Exception, match="names a file that no spool has"):
            BackupFolder(folder).entries(listing)


def test_foreign_files_are_named_and_left_where_they_are(
    run: Call, config: Path, data_dir: Path, folder: Path, vacant_url: Callable[[str], str]
) -> None:
    strange = folder / "files" / "Thumbs.db"
    strange.touch()
    code, _, err = run("backup", folder)
    assert (code, "files/Thumbs.db" in err, strange.exists()) == (0, True, True)
    destroy(config, data_dir, vacant_url("sqlite"))
    code, _, err = run("restore", folder)
    assert (code, "files/Thumbs.db" in err, list(data_dir.rglob("Thumbs.db"))) == (0, True, [])


def test_a_backup_goes_into_no_folder_that_is_not_its_own(
    run: Call, config: Path, data_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").touch()
    (tmp_path / "link").symlink_to(data_dir)
    for place in (data_dir, data_dir / "backup", tmp_path / "link" / "backup", tmp_path / "home"):
        code, _, err = run("backup", place)
        assert (code, err.startswith("syncect: ")) == (4, True), place
    assert not (data_dir / "backup").exists()


def test_a_backup_takes_no_link_in_its_folder(run: Call, config: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "files").rename(tmp_path / "elsewhere")
    (folder / "files").symlink_to(tmp_path / "elsewhere")
    assert run("backup", folder)[0] == 4


def test_the_backup_of_another_store_is_not_replaced(
    run: Call, config: Path, data_dir: Path, folder: Path, vacant_url: Callable[[str], str]
) -> None:
    kept = (folder / "manifest.json").read_bytes()
    destroy(config, data_dir, vacant_url("sqlite"))
    with open_store(load_settings(config)):
        pass
    code, _, err = run("backup", folder)
    assert (code, "holds the backup of another store" in err) == (4, True)
    assert (folder / "manifest.json").read_bytes() == kept


def test_a_restore_replaces_nothing(
    run: Call, config: Path, data_dir: Path, folder: Path, vacant_url: Callable[[str], str]
) -> None:
    code, _, err = run("restore", folder)
    assert (code, "holds a store already" in err) == (4, True)
    write_settings(config, vacant_url("sqlite"))
    code, _, err = run("restore", folder)
    assert (code, "holds files already" in err, "syncect db load" in err) == (4, True, True)
    destroy(config, data_dir, vacant_url("sqlite"))
    with process_lock(data_dir / "run", "receive", "1"):
        code, _, err = run("restore", folder)
    assert (code, "receive is running" in err) == (4, True)


def test_a_restore_that_another_began_is_not_mixed_with_it(
    run: Call, config: Path, data_dir: Path, folder: Path, vacant_url: Callable[[str], str]
) -> None:
    destroy(config, data_dir, vacant_url("sqlite"))
    data_dir.mkdir()
    (data_dir / "restore.json").write_text(json.dumps({"backup": "another"}))
    code, _, err = run("restore", folder)
    assert (code, "the restore of another backup was begun" in err) == (4, True)


def test_the_database_alone_comes_back_beside_its_files(
    run: Call, config: Path, database: Database, folder: Path, vacant_url: Callable[[str], str]
) -> None:
    before, url = rows(database), vacant_url("sqlite")
    write_settings(config, url)
    (copy,) = folder.rglob("store.sqlite3")
    assert run("db", "load", copy)[0] == 0
    assert rows(Database(url)) == before
    assert run("spool", "verify")[0] == 0
    assert run("db", "load", copy)[0] == 4
    assert run("db", "load", folder / "none")[0] == 3


def test_a_full_disk_leaves_the_backup_of_before(
    run: Call, config: Path, data_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = names_of_usable(folder)
    with open_store(load_settings(config)) as node:
        department = Department(node)
        department._arrived = 1
        department.held()
        fill(node)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("node.bootstrap.backup_folder.os.fsync", full)
    code, _, err = run("backup", folder)
    assert (code, "No space left" in err) == (1, True)
    monkeypatch.undo()
    assert names_of_usable(folder) == names


def test_files_that_retention_removes_meanwhile_are_no_part_of_the_backup(config: Path, tmp_path: Path) -> None:
    settings = load_settings(config)
    with open_store(settings) as node:
        sent = Department(node)
        sent._arrived = 1
        node.outbox.claim("c", "tps", 60, START)
        case = node.overview.case(sent.sent())
        fill(node)
        steps = itertools.count()

        def step() -> None:
            if next(steps) == 1:  # the store was copied, and no file
                removal = node.retention.purge_case(case.series_id, case.job_id, "op", "old", NOW)
                node.spool.remove(removal.received, removal.folders)

        made = back_up(settings, config, tmp_path / "backup", datetime.now(UTC), step=step)
        kept = set(files(node.settings.node.data_dir))
    assert made.missing == {}
    assert names_of_usable(tmp_path / "backup") == kept
    assert len(kept) == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_restores_belongs_to_the_owner_of_the_data_folder(
    run: Call, config: Path, data_dir: Path, folder: Path, vacant_url: Callable[[str], str]
) -> None:
    destroy(config, data_dir, vacant_url("sqlite"))
    data_dir.mkdir()
    os.chown(data_dir, 65534, 65534)
    assert run("restore", folder)[0] == 0
    assert {path.stat().st_uid for path in (*data_dir.rglob("*"), data_dir.parent / "vacant.sqlite3")} == {65534}


def test_the_backup_of_a_newer_version_is_refused_before_anything_is_put_in_place(
    run: Call, config: Path, data_dir: Path, folder: Path, vacant_url: Callable[[str], str]
) -> None:
    backup = BackupFolder(folder)
    manifest = backup.manifest()
    assert manifest is not None
    store = folder / manifest.snapshot / STORE
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
        connection.commit()
    backup.publish(replace(manifest, members={**manifest.members, STORE: member_of(store)}))
    destroy(config, data_dir, vacant_url("sqlite"))
    code, _, err = run("restore", folder)
    assert (code, "was made by a newer version of syncect" in err) == (1, True)
    assert not data_dir.exists()
