"""The spool keeps what it accepted under its own names and forgets what was never finished."""

import re
from datetime import UTC, datetime

import pytest

from storage.errors import SpoolFull
from storage.spool import Spool

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_an_accepted_file_lies_under_a_name_of_our_own(tmp_path):
    spool = Spool(tmp_path)
    name = spool.keep((b"data", b"set"), NOW)
    spool.settle([name])
    assert re.fullmatch(r"received/20260131/[0-9a-f]{32}\.dcm", name)
    assert spool.path(name).read_bytes() == b"dataset"
    assert list(spool.incoming.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    spool = Spool(tmp_path)

    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        spool.keep((b"dataset",), NOW)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_name_outside_the_spool_is_refused(tmp_path):
    spool = Spool(tmp_path / "spool")
    for name in ("../etc/passwd", "/etc/passwd", "received/../../x"):
        with pytest.raises(ValueError, match="outside"):
            spool.path(name)


def test_unfinished_files_and_folders_are_swept(tmp_path):
    spool = Spool(tmp_path)
    (spool.incoming / "a").write_bytes(b"half")
    (spool.incoming / "b").mkdir()
    assert spool.sweep_incoming() == 2
    assert list(spool.incoming.iterdir()) == []


def test_publishing_again_after_a_crash_replaces_what_nobody_saw(tmp_path):
    spool = Spool(tmp_path)
    for content in (b"first", b"second"):
        staged = spool.stage(7, 1)
        (staged / "0001.dcm").write_bytes(content)
        name = spool.publish(staged)
    assert (spool.path(name) / "0001.dcm").read_bytes() == b"second"
    assert not staged.exists()


def test_below_the_reserve_the_spool_is_full(tmp_path):
    with pytest.raises(SpoolFull, match="GB free"):
        Spool(tmp_path, min_free_gb=1e9).check_space()
    Spool(tmp_path).check_space()
