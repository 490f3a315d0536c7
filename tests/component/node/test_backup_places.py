"""Where a backup lies and where it is brought back: disks of their own, full ones, and when the last one was made."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from config.load import load_settings
from node.bootstrap.backup import back_up
from node.bootstrap.store import open_store
from node.operate.doctor.report import Line, Mark
from node.operate.doctor.store import backup as look_at_backup
from storage.database import Database
from tests.restorable import destroy, files, one_result, rows, set_up

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def database(sqlite_file: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{sqlite_file}")
    yield database
    database.close()


@pytest.fixture
def config(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with one series and its result."""
    return set_up(tmp_path / "node.toml", database, monkeypatch, one_result)


@pytest.fixture
def data_dir(config: Path) -> Path:
    return config.parent / "syncect-data"


@pytest.fixture
def folder(run: Call, config: Path, tmp_path: Path) -> Path:
    assert run("backup", tmp_path / "backup")[0] == 0
    return tmp_path / "backup"


# -- where it is brought back ------------------------------------------------------------------------------------------


@pytest.fixture(params=["link", "mount"])
def other_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Puts the spool of a node, which is not there yet, on another disk."""
    mounted: list[Path] = []

    def place(spool: Path) -> None:
        if request.param == "link":
            (tmp_path / "disk").mkdir()
            spool.symlink_to(tmp_path / "disk")
            return
        spool.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(spool)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a file system can only be mounted by root")
        mounted.append(spool)
        (spool / "lost+found").mkdir()

    yield place
    for spool in mounted:
        subprocess.run(["umount", "-l", str(spool)], check=False)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_spool_on_a_disk_of_its_own_comes_back_there(
    run: Call,
    config: Path,
    data_dir: Path,
    database: Database,
    folder: Path,
    vacant_url: Callable[[str], str],
    other_disk: Callable[[Path], None],
    damaged: bool,
) -> None:
    before, kept = rows(database), files(data_dir)
    url = vacant_url("sqlite")
    destroy(config, data_dir, url)
    data_dir.mkdir()
    other_disk(data_dir / "spool")
    disk = (data_dir / "spool").stat()
    if damaged:  # the first try puts nothing in place, and the second one has the same place
        path = min(path for path in (folder / "files").rglob("*") if path.is_file())
        path.rename(path.with_name("aside"))
        assert run("restore", folder)[0] == 1
        assert files(data_dir) == {}
        path.with_name("aside").rename(path)
    code, _, err = run("restore", folder)
    assert code == 0, err
    assert (rows(Database(url)), files(data_dir)) == (before, kept)
    assert ((data_dir / "spool").stat().st_dev, (data_dir / "spool").stat().st_ino) == (disk.st_dev, disk.st_ino)
    with open_store(load_settings(config)):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_restores_behind_a_link_belongs_to_the_nodes_user_too(
    run: Call, config: Path, data_dir: Path, folder: Path, tmp_path: Path, vacant_url: Callable[[str], str]
) -> None:
    destroy(config, data_dir, vacant_url("sqlite"))
    data_dir.mkdir()
    os.chown(data_dir, 65534, 65534)
    (tmp_path / "disk").mkdir()
    (data_dir / "spool").symlink_to(tmp_path / "disk")
    assert run("restore", folder)[0] == 0
    assert {path.stat().st_uid for path in (tmp_path / "disk").rglob("*")} == {65534}


def test_a_restore_begins_only_where_there_is_room_on_the_disk_of_the_spool(
    run: Call,
    config: Path,
    data_dir: Path,
    folder: Path,
    tmp_path: Path,
    vacant_url: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    destroy(config, data_dir, vacant_url("sqlite"))
    data_dir.mkdir()
    (tmp_path / "disk").mkdir()
    (data_dir / "spool").symlink_to(tmp_path / "disk")
    real = shutil.disk_usage

    def full(path: Path) -> object:
        return real(path)._replace(free=1 if path == tmp_path / "disk" else 1 << 40)

    monkeypatch.setattr("node.bootstrap.restore.shutil.disk_usage", full)
    monkeypatch.setattr("node.bootstrap.restore._disk_of", lambda path: path)  # as if the link led to another disk
    code, _, err = run("restore", folder)
    assert (code, f"in {tmp_path / 'disk'}, and 0.0 GB are free" in err.replace("\n", " ")) == (4, True)
    assert not (data_dir / "restore.json").exists()


# -- the folder of the backup ------------------------------------------------------------------------------------------


def test_backups_that_fail_every_night_do_not_fill_the_disk(
    config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    settings = load_settings(config)
    with monkeypatch.context() as broken:
        broken.setattr("node.bootstrap.backup_folder.os.fsync", full)
        for night in range(3):
            with pytest.raises(OSError, match="No space left"):
                back_up(settings, config, folder, datetime.now(UTC) + timedelta(days=night), verify=True)
    assert len(list(folder.glob("snapshot-*"))) <= 2


def test_a_copy_that_a_person_made_of_a_snapshot_stays(run: Call, config: Path, folder: Path) -> None:
    (snapshot,) = folder.glob("snapshot-*")
    shutil.copytree(snapshot, folder / "snapshot-before-the-upgrade")
    code, _, err = run("backup", folder)
    assert (code, "snapshot-before-the-upgrade" in err) == (0, True)
    assert (folder / "snapshot-before-the-upgrade" / "store.sqlite3").is_file()


def test_a_backup_says_that_it_lies_on_the_disk_of_the_node(run: Call, config: Path, folder: Path) -> None:
    assert "is on the same file system as the node" in run("backup", folder)[2]


# -- when the last one was made ----------------------------------------------------------------------------------------


class Told(NamedTuple):
    state: Mark
    found: str


def told(config: Path) -> Told:
    with open_store(load_settings(config)) as node:
        (line,) = look_at_backup(node)
    assert isinstance(line, Line)
    assert line.remedy or line.state is Mark.OK
    return Told(line.state, line.found)


def test_the_doctor_says_when_the_last_backup_was_made(run: Call, config: Path, tmp_path: Path) -> None:
    settings, now = load_settings(config), datetime.now(UTC)
    assert told(config) == (Mark.WARN, "none is known of this node")
    back_up(settings, config, tmp_path / "backup", now - timedelta(days=3))
    state, found = told(config)
    assert (state, re.sub("of .* UTC", "of TIME", found)) == (
        Mark.WARN,
        f"the last one is of TIME, 3 d ago, in {tmp_path / 'backup'}",
    )
    back_up(settings, config, tmp_path / "backup", now)
    assert told(config).state is Mark.OK
    (tmp_path / "backup" / "syncect-backup.lock").rename(tmp_path / "lock")
    assert run("backup", tmp_path / "backup")[0] == 4
    assert told(config).state is Mark.OK  # that one is still there
    back_up(settings, config, tmp_path / "other", now + timedelta(days=3))
    assert told(config).state is Mark.WARN


def test_the_doctor_says_that_the_last_backup_is_not_whole(config: Path, data_dir: Path, tmp_path: Path) -> None:
    next(iter((data_dir / "spool" / "received").rglob("*.dcm"))).unlink()
    back_up(load_settings(config), config, tmp_path / "backup", datetime.now(UTC))
    state, found = told(config)
    assert (state, "lacks 1 files" in found) == (Mark.WARN, True)


def test_a_note_that_cannot_be_written_or_read_is_said_and_spoils_nothing(
    run: Call, config: Path, data_dir: Path, tmp_path: Path
) -> None:
    (data_dir / "backup.json").mkdir()
    code, _, err = run("backup", tmp_path / "backup")
    assert (code, "`syncect doctor` does not know of this backup" in err) == (0, True)
    (data_dir / "backup.json").rmdir()
    for text in ("", "{}", "[]", '{"made_at": "x", "folder": "", "missing": 0}'):
        (data_dir / "backup.json").write_text(text)
        assert told(config).state is Mark.WARN
