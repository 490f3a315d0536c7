"""A database that cannot be used is answered with 0xA700 at once, and never with a 0x0000 for a row nobody can read."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from storage.database import Database
from storage.tables import StoreMark
from tests.peers.conftest import MakeCt, StartReceiver, Store
from tests.peers.test_receiver_storing import association, store_one

AT_ONCE_S = 2.5  # the turn and the lock are waited for, together for a second, at most twice
BACK_S = 15.0
Mend = Callable[[], object]


def beside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}*"))


def moved_away(path: Path) -> Mend:
    away = path.with_name("away.sqlite3")
    path.rename(away)
    return lambda: away.rename(path)


def deleted(path: Path) -> Mend:
    """All of it; a backup from before is put back."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", (str(path.with_name("backup")),))
    for file in beside(path):
        file.unlink(missing_ok=True)  # the receiver may have closed the last connection meanwhile
    return lambda: path.with_name("backup").rename(path)


def overwritten(path: Path) -> Mend:
    whole = path.with_name("backup")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", (str(whole),))
    path.write_bytes(b"this is no database" * 1000)

    def mend() -> None:
        for file in beside(path):
            file.unlink(missing_ok=True)  # the receiver may have closed the last connection meanwhile
        whole.rename(path)

    return mend


def truncated(path: Path) -> Mend:
    mend = overwritten(path)
    os.truncate(path, 0)
    return mend


def replaced(path: Path) -> Mend:
    """By the store of another node."""
    away = path.with_name("away.sqlite3")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", (str(path.with_name("other")),))
    with closing(sqlite3.connect(path.with_name("other"))) as connection:
        connection.execute("UPDATE store_mark SET uid = '2.25.2'")
        connection.commit()
    path.rename(away)
    path.with_name("other").rename(path)
    return lambda: away.replace(path)


def locked(path: Path) -> Mend:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


@pytest.fixture
def marked(store: Store) -> Store:
    with store.database.write() as session:
        session.add(StoreMark(uid="2.25.1", made_at=datetime.now(UTC)))
    store.database.expect("2.25.1")
    return store


def rows_that_readers_see(path: Path) -> int:
    database = Database(f"sqlite:///{path}", read_only=True)
    try:
        with database.read() as session:
            return int(session.scalar(text("SELECT count(*) FROM instance WHERE is_current")) or 0)
    finally:
        database.close()


def send_until_stored(receiver: Any, ds: Any) -> None:
    deadline = time.monotonic() + BACK_S
    while store_one(receiver, ds).Status != 0x0000:
        assert time.monotonic() < deadline, "the receiver did not go on"
        time.sleep(0.2)


@pytest.mark.parametrize("fault", [moved_away, deleted, overwritten, truncated, replaced, locked])
def test_a_fault_of_the_database_is_answered_at_once_and_ends_by_itself(
    marked: Store,
    start_receiver: StartReceiver,
    make_ct: MakeCt,
    sqlite_file: Path,
    fault: Callable[[Path], Mend],
    caplog,
) -> None:
    receiver = start_receiver()
    with association(receiver) as link:
        assert link.send_c_store(make_ct(instance=1)).Status == 0x0000
        mend = fault(sqlite_file)
        for instance in (2, 3):
            began_s = time.monotonic()
            answer = link.send_c_store(make_ct(instance=instance))
            assert time.monotonic() - began_s < AT_ONCE_S
            assert answer.Status == 0xA700
            assert answer.ErrorComment == "the database cannot be used; try again"
    mend()
    for instance in (2, 3):
        send_until_stored(receiver, make_ct(instance=instance))
    assert rows_that_readers_see(sqlite_file) == 3
    assert "Traceback" not in caplog.text


def test_a_refused_slice_is_remembered_until_the_database_is_back(
    marked: Store, start_receiver: StartReceiver, make_ct: MakeCt, sqlite_file: Path
) -> None:
    receiver = start_receiver()
    ds = make_ct(instance=1)
    with association(receiver) as link:
        assert link.send_c_store(ds).Status == 0x0000
    mend = locked(sqlite_file)
    assert store_one(receiver, make_ct(instance=2)).Status == 0xA700
    mend()
    deadline = time.monotonic() + BACK_S
    while not (missing := [m.name for s in _undecided(marked) for m in s.missing]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert missing == [make_ct(instance=2).SOPInstanceUID]


def test_a_database_that_cannot_grow_is_answered_at_once_and_ends_by_itself(
    store: Store, start_receiver: StartReceiver, make_ct: MakeCt, sqlite_file: Path, caplog: Any
) -> None:
    with closing(sqlite3.connect(sqlite_file)) as connection:
        pages = int(connection.execute("PRAGMA page_count").fetchone()[0])
    room = {"pages": pages + 2}  # as on a file system of that size

    @event.listens_for(store.database.engine, "checkout")
    def limit(connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={room['pages']}").close()

    receiver = start_receiver()
    stored, answer = 0, None
    with association(receiver) as link:
        while (answer := link.send_c_store(make_ct(instance=stored + 1))).Status == 0x0000:
            stored += 1
            assert stored < 500, "the database did not get full"
        for instance in (stored + 1, stored + 2):
            began_s = time.monotonic()
            answer = link.send_c_store(make_ct(instance=instance))
            assert time.monotonic() - began_s < AT_ONCE_S
            assert (answer.Status, answer.ErrorComment) == (0xA700, "the database cannot be used; try again")
    assert "database or disk is full" in caplog.text
    assert rows_that_readers_see(sqlite_file) == stored
    room["pages"] = 10**6
    for instance in (stored + 1, stored + 2):
        send_until_stored(receiver, make_ct(instance=instance))
    assert rows_that_readers_see(sqlite_file) == stored + 2
    assert "Traceback" not in caplog.text


def _undecided(store: Store) -> list[Any]:
    return store.series.undecided(datetime.now(UTC), 0.0)
