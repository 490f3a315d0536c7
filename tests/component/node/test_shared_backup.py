"""Backup, restore and `db rebuild` of a node whose files lie in a bucket: this host has some of them, or none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from config.load import load_settings
from node.bootstrap.rebuild import rebuild
from node.bootstrap.store import Node, open_store
from node.errors import Refused
from storage.errors import ObjectsUnavailable, WrongStore
from tests.builders import make_series
from tests.component.node import test_shared_objects
from tests.component.node.test_rebuild import LATER, instances, keep
from tests.component.node.test_shared_objects import down, host
from tests.component.node.test_spool_commands import Kept
from tests.object_stores import FaultyStore

bucket, kept = test_shared_objects.bucket, test_shared_objects.kept
Run = Callable[..., tuple[int, str, str]]
Lost = tuple[Path, set[tuple[str, str, str, str]]]


def without_cache(node: Node) -> None:
    """As if other hosts had received and made everything."""
    for path in node.spool.root.rglob("*.dcm"):
        path.unlink()


def test_a_backup_fetches_what_this_host_lacks_and_a_restore_fills_an_empty_bucket(
    kept: Kept, config: Path, bucket: FaultyStore, run: Run, tmp_path: Path
) -> None:
    kept.produced()
    own, folder = str(host(config)), tmp_path / "backup"
    assert run("--config", own, "backup", folder)[0] == 0
    kept.produced()
    without_cache(kept.node)
    bucket.before = down
    code, _, said = run("--config", own, "backup", folder)
    assert (code, "object store cannot be used" in said) == (1, True), said
    bucket.before = lambda _verb, _key: None
    code, _, said = run("--config", own, "backup", folder)
    assert (code, "12 files" in said, "6 of them were new" in said, "only in the backup" in said) == (
        0,
        True,
        True,
        False,
    )

    keys = {key for key in bucket.all_keys() if key.endswith(".dcm")}
    bucket.open.delete(bucket.all_keys())
    other = tmp_path / "other.toml"
    other.write_text('[node]\ndata_dir = "other"\n[spool]\nurl = "s3://department/spool"\n' + config.read_text())
    code, _, said = run("--config", str(other), "restore", folder)
    assert (code, "`syncect spool share` puts the files" in said) == (0, True), said
    with pytest.raises(WrongStore, match="syncect spool share"), open_store(load_settings(other)):
        pass
    assert run("--config", str(other), "spool", "share")[0] == 0
    with open_store(load_settings(other)) as node:
        assert len(node.overview.cases()) == 2
    assert {key for key in bucket.all_keys() if key.endswith(".dcm")} == keys


def test_a_host_that_has_never_served_makes_whole_backups_and_may_serve_afterwards(
    kept: Kept, config: Path, bucket: FaultyStore, run: Run, tmp_path: Path
) -> None:
    kept.produced()
    new, folder = str(host(config, "b")), tmp_path / "backup"
    for _ in range(2):
        code, _, said = run("--config", new, "backup", folder)
        assert code == 0, said
    (identity,) = folder.glob("snapshot-*/installation.json")
    assert identity.read_bytes() == (kept.node.settings.node.data_dir / "installation.json").read_bytes()
    with open_store(load_settings(Path(new))) as node:
        assert len(node.overview.cases()) == 1


@pytest.fixture
def lost(config: Path, bucket: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lost:
    """Settings of a new host after database and disk were lost, and the instances that were acknowledged."""
    monkeypatch.setattr("node.bootstrap.rebuild.objects_of", lambda _settings: bucket.open)
    with open_store(load_settings(host(config))) as node:
        keep(node, make_series(tmp_path / "series"))
        had = instances(node)
    bucket.open.put("derived/7-1-abcd/0001.dcm", b"its worker was killed before the manifest")
    path = tmp_path / "new.toml"
    path.write_text('[node]\ndata_dir = "new"\n[spool]\nurl = "s3://department/spool"\n' + config.read_text())
    return path, had


def test_a_store_is_rebuilt_of_what_only_the_bucket_has(
    lost: Lost, bucket: FaultyStore, run: Run, config: Path
) -> None:
    new, had = lost
    with pytest.raises(WrongStore, match="syncect db rebuild"), open_store(load_settings(new)):
        pass
    code, _, said = run("--config", str(new), "db", "rebuild", "--dry-run")
    assert (code, "10 files (0.0 GB) are only in s3://department/spool" in said) == (0, True), said
    assert not list(new.parent.glob("new/spool/received/*/*.dcm"))
    code, _, said = run("--config", str(new), "db", "rebuild", "--yes")
    assert (code, "found 10 received files and 0 results, 0" in said, "10 of them were fetched" in said) == (
        0,
        True,
        True,
    )
    with open_store(load_settings(new)) as node:
        assert instances(node) == had
        assert [case.slices.received for case in node.overview.cases()] == [10]
    with pytest.raises(WrongStore, match="marks differ"), open_store(load_settings(host(config, "b"))):
        pass  # a host that would go on with the database that was lost


def test_a_rebuild_begins_with_nothing_where_the_bucket_is_away_or_does_not_fit(
    lost: Lost, bucket: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, _ = lost
    settings = load_settings(new)
    for words, error, before, free in (
        ("cannot be used", ObjectsUnavailable, down, 1 << 40),
        ("need .* GB below .* and 0.0 GB are free", Refused, lambda _verb, _key: None, 1000),
    ):
        bucket.before = before
        monkeypatch.setattr("storage.spool.Spool.free_bytes", lambda _self, free=free: free)
        with pytest.raises(error, match=words):
            rebuild(settings, LATER)
        assert not (settings.node.data_dir / "syncect.sqlite3").exists()
