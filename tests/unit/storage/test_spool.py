"""The spool keeps what it accepted under its own names and forgets what was never finished."""

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

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


def test_what_is_published_takes_no_other_result_away(tmp_path):
    """A person tries a job again whose first worker has not yet seen that: both work at the same attempt."""
    spool, names = Spool(tmp_path), []
    for content in (b"first", b"second"):
        staged = spool.stage(7, 1)
        (staged / "0001.dcm").write_bytes(content)
        names.append(spool.publish(staged))
        assert not staged.exists()
    assert [(spool.path(name) / "0001.dcm").read_bytes() for name in names] == [b"first", b"second"]
    assert set(spool.result_folders(older_than=datetime.now(UTC) + timedelta(days=1)).values()) == {7}


def test_a_worker_that_ends_late_leaves_the_unfinished_files_of_its_successor(tmp_path):
    spool = Spool(tmp_path)
    late, successor = spool.stage(7, 1), spool.stage(7, 1)
    spool.unstage(late)
    assert successor.is_dir()


def test_below_the_reserve_the_spool_is_full(tmp_path):
    with pytest.raises(SpoolFull, match="GB free"):
        Spool(tmp_path, min_free_gb=1e9).check_space()
    Spool(tmp_path).check_space()


# -- several associations at once ----------------------------------------------------------------------------------


@pytest.fixture
def _threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_change_often")
@pytest.mark.parametrize("is_in_the_way", [False, True], ids=["nothing there", "a file there"])
def test_the_first_files_of_a_day_stay_where_they_are_however_many_come_at_once(
    tmp_path: Path, is_in_the_way: bool
) -> None:
    """The folder that one association has just made is not taken for a stranger by another."""
    spool, threads, days = Spool(tmp_path / "spool"), 8, 150
    barrier = Barrier(threads)

    def keep(moment: datetime) -> str:
        barrier.wait()
        return spool.keep((b"x",), moment)

    with ThreadPoolExecutor(threads) as pool:
        for day in (NOW + timedelta(days=days) for days in range(days)):
            if is_in_the_way:
                (spool.root / f"received/{day:%Y%m%d}").write_bytes(b"a person's")
            names = list(pool.map(keep, [day] * threads))
            assert [name for name in names if not spool.path(name).is_file()] == []
    aside = list((spool.root / "set-aside").glob("*"))
    assert [entry.read_bytes() for entry in aside] == [b"a person's"] * days * is_in_the_way


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_something_else_by_now_is_not_set_aside(tmp_path: Path, is_folder: bool) -> None:
    spool = Spool(tmp_path / "spool")
    thing = spool.root / "received" / "thing"
    if is_folder:
        thing.write_bytes(b"put there a moment ago")
    else:
        thing.mkdir()
        (thing / "file").write_bytes(b"put there a moment ago")
    with pytest.raises((IsADirectoryError, NotADirectoryError)):
        spool.set_aside(thing, is_folder=is_folder)
    assert (thing if is_folder else thing / "file").read_bytes() == b"put there a moment ago"
    assert list((spool.root / "set-aside").iterdir()) == []
    assert spool.set_aside(thing, is_folder=not is_folder).exists()
