"""The disk stays flat, and nothing that anybody needs leaves it, wherever the process is killed."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from config.settings import RetentionSettings
from node.ops.retention import Retention
from storage.database import Database
from storage.jobs import JobStore
from storage.retention import RetentionStore
from storage.spool import Spool
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import (
    Association,
    AssociationSeries,
    Delivery,
    DeliveryInstance,
    Event,
    Instance,
    Job,
    Product,
    Series,
)
from tests.departments import START

Rows = dict[type, list[dict[str, object]]]
SERIES = 10_000 if os.environ.get("SYNCECT_RETENTION") == "long" else 500
PER_DAY = SERIES // 100
LATER = timedelta(days=40)


def retention(node, *, clock=lambda: START + LATER, **settings):
    return Retention(node.retention, node.jobs, node.spool, RetentionSettings(**settings), clock=clock)


def put_received(department, case_id):
    """The received files of a series, which the department only writes into the store."""
    paths = [department.node.spool.root / "received" / f"{case_id}-{n}.dcm" for n in range(3)]
    for path in paths:
        path.write_bytes(b"slice")
    return paths


def folder_of(department, case_id) -> Path:
    return department.node.spool.path(department.node.overview.case(case_id).product_dir)


# -- the tick ------------------------------------------------------------------------------------------------------


def test_by_default_everything_stays(department) -> None:
    received, folder = put_received(department, department.sent()), folder_of(department, "1")
    assert retention(department.node).tick() == 0
    assert folder.exists()
    assert all(path.exists() for path in received)


def test_what_is_delivered_and_old_goes_and_the_rest_stays(department) -> None:
    received, waiting = put_received(department, department.sent()), department.held()
    gone, kept = folder_of(department, "1"), folder_of(department, waiting)
    assert retention(department.node, days=41).tick() == 0
    assert retention(department.node, days=39).tick() == 1
    assert not gone.exists()
    assert not any(path.exists() for path in received)
    assert kept.exists()


def test_a_full_disk_takes_the_oldest_first_and_only_what_may_go(department, monkeypatch) -> None:
    for day in (0, 1, 2):
        department.sent(at=START - timedelta(days=9 - day))
    held = department.held()
    folders = [folder_of(department, case_id) for case_id in "123"]
    free = {0: 5.0, 1: 9.0}  # GB, by the number of results that are gone
    monkeypatch.setattr(Spool, "free_bytes", lambda _: free.get(sum(not f.exists() for f in folders), 11.0) * 1024**3)
    monkeypatch.setattr("node.ops.retention.BATCH", 1)
    assert retention(department.node, target_free_gb=10, days=365).tick() == 2
    assert [folder.exists() for folder in folders] == [False, False, True]
    assert folder_of(department, held).exists()


def test_what_ended_a_moment_ago_stays_even_on_a_full_disk(department) -> None:
    department.sent()
    now = START + timedelta(minutes=30)
    assert retention(department.node, clock=lambda: now, target_free_gb=1e6, min_free_gb=0).tick() == 0


def test_what_a_killed_process_left_is_swept_by_a_later_tick(department, monkeypatch) -> None:
    received, folder = put_received(department, department.sent()), folder_of(department, "1")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(Spool, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            retention(department.node, days=39).tick()
    assert folder.exists(), "the rows say that it is gone, the files are still there"
    assert department.node.overview.case("1").purged_at is not None
    old = (START - timedelta(days=1)).timestamp()
    for path in (folder, *received):
        os.utime(path, (old, old))
    retention(department.node, days=39).tick()
    assert not folder.exists()


def test_a_received_file_without_a_row_goes_after_a_month_and_not_before(department) -> None:
    known = department.node.spool.path(department.node.spool.keep((b"x",), START))
    young = department.node.spool.path(department.node.spool.keep((b"x",), START))
    for path, days in ((known, 31), (young, 29)):
        moment = (START + LATER - timedelta(days=days)).timestamp()
        os.utime(path, (moment, moment))
    retention(department.node).tick()
    assert not known.exists()
    assert young.exists()


# -- by hand -------------------------------------------------------------------------------------------------------


def test_a_person_removes_what_nobody_needs(run, department) -> None:
    case_id = department.sent()
    received, folder = put_received(department, case_id), folder_of(department, case_id)
    assert "would be purged" in run("jobs", "purge", case_id, "--dry-run")[2]
    assert folder.exists()
    code, _, err = run("jobs", "purge", case_id, "--yes", "-m", "asked by the clinic")
    assert (code, "1: purged; 0.0 MB are free again" in err) == (0, True)
    assert not folder.exists()
    assert not any(path.exists() for path in received)
    assert "removed on" in run("jobs", "show", case_id)[1]
    assert "asked by the clinic" in json.loads(run("jobs", "events", case_id, "--json")[1])[-1]["reason"]
    assert json.loads(run("jobs", "show", case_id, "--json")[1])["purged_at"]
    assert "Its files were removed on" in run("jobs", "why", case_id)[1]
    code, _, err = run("jobs", "resend", case_id)
    assert (code, "its files were removed on" in err) == (4, True)
    assert run("jobs", "purge", case_id, "--yes")[0] == 4


@pytest.mark.parametrize("state", ["held", "failed", "sending", "send_failed", "incomplete", "running"])
def test_what_is_needed_is_refused(run, department, state) -> None:
    case_id = getattr(department, state)()
    code, _, err = run("jobs", "purge", case_id, "--yes")
    assert (code, case_id in err) == (4, True)


def test_all_that_is_older_goes_at_once(run, department, monkeypatch) -> None:
    department.sent()
    department.held()
    department.skipped()
    monkeypatch.setattr("node.bootstrap.store.Node.now", lambda _node: START + LATER)
    assert "2 purged" in run("jobs", "purge", "--older-than", 30, "--yes")[2]
    assert run("jobs", "purge", "--older-than", 30, "--yes")[0] == 0


def test_a_purge_needs_ids_or_an_age(run, department) -> None:
    assert run("jobs", "purge", "--yes")[0] == 2
    assert run("jobs", "purge", "1", "--older-than", "3", "--yes")[0] == 2
    assert run("jobs", "purge", "--older-than", "999999999", "--dry-run")[0] == 2


def test_a_closed_case_without_files_is_not_told_to_be_reopened(run, department) -> None:
    case_id = department.held()
    run("jobs", "reject", case_id, "--yes")
    run("jobs", "purge", case_id, "--yes")
    assert "reopen" not in run("jobs", "why", case_id)[1]
    assert run("jobs", "reopen", case_id)[0] == 4


def test_the_status_says_how_long_the_disk_lasts_and_what_goes_next(run, department) -> None:
    department.sent()
    facts = json.loads(run("status", "--json")[1])["retention"]
    assert facts["next_id"] == "1"
    assert facts["below_target"] is False
    assert "the files of 1 go first" in run("status")[1]


def test_what_was_set_aside_goes_after_thirty_days(department) -> None:
    """Counted from the move: what is set aside is old already."""
    spool, now = department.node.spool, datetime.now(UTC)
    stray = spool.root / "received" / "stray.dcm"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"x")
    os.utime(stray, (0, 0))
    aside = spool.set_aside(stray, is_folder=False)
    (aside.parent / "folder").mkdir()
    for days, stays in ((29, True), (31, False)):
        retention(department.node, clock=lambda days=days: now + timedelta(days=days)).tick()
        assert aside.exists() is stays
    assert list(aside.parent.iterdir()) == []


# -- thousands -----------------------------------------------------------------------------------------------------


class Years:
    """A store that gets so many delivered series a day, written as they are at the end of their way."""

    def __init__(self, folder: Path, sqlite_file: Path) -> None:
        self.file, self.database = sqlite_file, Database(f"sqlite:///{sqlite_file}")
        self.spool = Spool(folder / "spool")
        self.now, self._made = datetime(2026, 1, 1, 12, tzinfo=UTC), 0
        self.retention = Retention(
            RetentionStore(self.database),
            JobStore(self.database),
            self.spool,
            RetentionSettings(days=10, history_days=20),
            clock=lambda: self.now,
        )

    def day(self, count: int) -> None:
        """One day of `count` series of two slices with their results, and what retention does at its end."""
        rows: Rows = {}
        for number in range(self._made + 1, self._made + count + 1):
            self._deliver(number, rows)
        with self.database.write() as session:
            for table, values in rows.items():
                session.execute(insert(table), values)
        self._made += count
        self.now += timedelta(days=1)
        while self.retention.tick():
            pass

    def _deliver(self, number: int, rows: Rows) -> None:
        now, uid = self.now, f"1.2.3.{number}"

        def add(table: type, **values: object) -> None:
            rows.setdefault(table, []).append(values)

        times = {"created_at": now, "updated_at": now}
        named = {"series_uid": uid, "study_uid": f"1.2.{number}", "calling_ae": "CTSIM", "patient_id": f"P{number}"}
        add(
            Series,
            id=number,
            state=SeriesState.QUEUED,
            job_id=number,
            arrivals=2,
            last_arrival_at=now,
            **named,
            **times,
        )
        peer = {"receiver": "r", "calling_ae": "CTSIM", "peer_host": "h"}
        add(Association, id=number, outcome="RELEASED", opened_at=now, closed_at=now, **peer)
        add(AssociationSeries, series_id=number, association_id=number)
        folder = self.spool.root / "derived" / f"{number}-1"
        job = {"job_key": f"{number:064}", "bundle": "demo 1 (abcdefabcdef)", "measurements": {"share": 0.25}}
        add(
            Job,
            **{"id": number, "series_id": number, "run": 1, "state": JobState.PRODUCED, "source_count": 2},
            **{"product_dir": f"derived/{folder.name}", "derived_series_uid": f"9.{number}", "next_attempt_at": now},
            **job,
            **times,
        )
        add(
            Delivery,
            **{"id": number, "job_id": number, "destination": "tps", "state": DeliveryState.SENT},
            next_attempt_at=now,
            **times,
        )
        folder.mkdir()
        for n in range(2):
            name = self.spool.root / "received" / f"{now:%Y%m%d}" / f"{number}-{n}.dcm"
            name.parent.mkdir(exist_ok=True)
            name.write_bytes(b"s" * 1000)
            (folder / f"{n}.dcm").write_bytes(b"r" * 1000)
            product = 2 * number + n
            of = {"sop_class_uid": "1.2", "transfer_syntax_uid": "1.2", "sha256": f"{product:064}", "size_bytes": 1000}
            file = {"spool_name": str(name.relative_to(self.spool.root)), "is_current": True, "received_at": now}
            add(Instance, series_id=number, sop_instance_uid=f"{uid}.{n}", **of, **file)
            made = {"sop_instance_uid": f"9.{number}.{n}", "source_sop_instance_uid": f"{uid}.{n}"}
            add(Product, id=product, job_id=number, file_name=f"{n}.dcm", sha256=f"{product:064}", **made)
            add(DeliveryInstance, delivery_id=number, product_id=product, dimse_status=0, sent_at=now)
        for step in ("RECEIVING", "COMPLETE", "QUEUED"):
            add(Event, at=now, series_id=number, machine="series", from_state="", to_state=step, actor="receiver")

    def spool_files(self) -> int:
        return sum(path.is_file() for path in self.spool.root.rglob("*"))

    def database_bytes(self) -> int:
        with self.database.engine.connect() as connection:
            pages, spare, size = (
                int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
                for name in ("page_count", "freelist_count", "page_size")
            )
        return (pages - spare) * size


def test_the_disk_is_flat_after_thousands_of_series(tmp_path, sqlite_file) -> None:
    years = Years(tmp_path, sqlite_file)
    files, sizes = [], []
    for day in range(SERIES // PER_DAY):
        years.day(PER_DAY)
        if day % 10 == 9:
            files.append(years.spool_files())
            sizes.append(years.database_bytes())
    print(f"{SERIES} series: files {files}, database {[size // 1024 for size in sizes]} kB")  # noqa: T201
    assert set(files[2:]) == {9 * PER_DAY * 4}, "the files of the last days, and no other"
    stay_bytes = (sizes[-1] - sizes[3]) / (PER_DAY * 60)
    assert stay_bytes < 3000, "of a series nothing stays but its rows in `jobs ls`"
    years.database.close()
