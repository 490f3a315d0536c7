"""A folder as a place: what `put` has returned from is there after a power cut, with every folder above it."""

import errno
from pathlib import Path

import pytest

from node.bootstrap import places
from node.bootstrap.places import Folder


def test_the_entries_of_new_folders_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(places, "fsync_directory", synced.append)
    root = tmp_path / "out"
    place = Folder(root)
    place.put("series/1.2.3/0001.dcm", b"1")
    assert {tmp_path, root, root / "series", root / "series" / "1.2.3"} <= set(synced)
    synced.clear()
    assert place.put_new("begun/key/me", b"")
    assert {root, root / "begun", root / "begun" / "key"} <= set(synced)
    synced.clear()
    place.put("series/1.2.3/0002.dcm", b"2")
    assert synced == [root / "series" / "1.2.3"], "nothing else is new"


def test_a_disk_that_is_full_keeps_nothing_of_what_did_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("node.bootstrap.places.os.fsync", full)
    for put in (Folder(tmp_path).put, Folder(tmp_path).put_new):
        with pytest.raises(OSError, match="No space left"):
            put("0001.dcm", b"1")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
