"""A store is used only with the spool that it belongs to, and never begins empty beside one that holds files."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete

from storage.database import Database
from storage.errors import StoreUnavailable, WrongStore
from storage.mark import adopt_mark, mark_of_spool, mark_of_store, settle_mark, write_mark
from storage.series import SeriesStore
from storage.tables import StoreMark

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
OTHER = "2.25.1"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def fill(spool: Path) -> None:
    (spool / "received" / "20260131").mkdir(parents=True)
    (spool / "received" / "20260131" / "a.dcm").touch()


def receive(database: Database) -> None:
    from storage.losses import Loss

    store = SeriesStore(database)
    association = store.open_association("receiver", "CTSIM", "h", NOW)
    store.record_group([Loss(association, "CTSIM", "1.2", "1.2.3", "1.2.3.4", "refused", NOW)])


def test_a_new_pair_gets_one_mark_and_keeps_it(database: Database, spool: Path) -> None:
    mark = settle_mark(database, spool, NOW)
    assert mark == mark_of_spool(spool) == mark_of_store(database) == settle_mark(database, spool, NOW)
    assert mark.startswith("2.25.")
    assert (spool / "store.json").stat().st_mode & 0o777 == 0o600


def test_an_upgraded_store_without_a_mark_gets_one_beside_its_files(database: Database, spool: Path) -> None:
    receive(database)
    fill(spool)
    assert settle_mark(database, spool, NOW) == mark_of_spool(spool)


def test_an_empty_store_beside_files_is_refused_and_names_both_ways_out(database: Database, spool: Path) -> None:
    fill(spool)
    with pytest.raises(WrongStore, match=r"holds files.*restore its backup.*syncect db rebuild"):
        settle_mark(database, spool, NOW)
    assert mark_of_spool(spool) is mark_of_store(database) is None


def test_the_store_of_another_spool_is_refused(database: Database, spool: Path) -> None:
    settle_mark(database, spool, NOW)
    write_mark(spool, OTHER, replace=True)
    with pytest.raises(WrongStore, match="belongs to another spool"):
        settle_mark(database, spool, NOW)


def test_a_spool_whose_disk_is_not_mounted_is_refused_until_a_person_says_so(database: Database, spool: Path) -> None:
    mark = settle_mark(database, spool, NOW)
    receive(database)
    (spool / "store.json").unlink()
    with pytest.raises(WrongStore, match=r"is its disk mounted\?.*syncect db adopt"):
        settle_mark(database, spool, NOW)
    assert adopt_mark(database, spool, NOW) == settle_mark(database, spool, NOW) == mark


def test_a_crash_between_the_two_writes_is_taken_up(database: Database, spool: Path) -> None:
    mark = settle_mark(database, spool, NOW)
    with database.write() as session:
        session.execute(delete(StoreMark))
    assert settle_mark(database, spool, NOW) == mark


def test_a_damaged_mark_is_told_with_the_way_out(database: Database, spool: Path) -> None:
    settle_mark(database, spool, NOW)
    (spool / "store.json").write_text("{")
    with pytest.raises(StoreUnavailable, match="damaged; remove it and run `syncect db adopt`"):
        settle_mark(database, spool, NOW)
