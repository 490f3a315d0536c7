"""Only what nobody needs any more may leave the disk; on SQLite and on PostgreSQL alike."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from storage.database import Database
from storage.errors import IllegalTransition
from storage.owners import Credentials, is_foreign
from storage.retention import Ages, RetentionStore
from storage.schema import look_through, upgrade
from storage.series import Recorded
from storage.tables import AssociationSeries, Delivery, Event, Instance, Job, LostInstance, Product, Refusal, Series
from tests.contract.store_bench import FACTS, T0, Bench, arrival, at

DAY = 86400.0
LATE = Ages(at(DAY), at(DAY))


class Keeping(Bench):
    """`strict` asks its destination whether it holds what was sent."""

    def __init__(self, database):
        super().__init__(database)
        self.retention, self.strict = RetentionStore(database), RetentionStore(database, confirming=["tps"])


@pytest.fixture
def bench(database):
    return Keeping(database)


def sent(bench, **options):
    bench.receive()
    bench.queue()
    bench.produce(**options)
    bench.send()


def purge(store, ages=LATE):
    return store.purge(store.with_files(ages, 100), ages, "it is old enough", at(2 * DAY))


def rows(bench, table):
    with bench.database.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_a_sent_series_goes_with_its_sources_and_keeps_its_history(bench):
    sent(bench)
    (removal,) = purge(bench.retention)
    assert removal.folders == ("derived/1-1",)
    assert sorted(removal.received) == [f"received/1.2.3-{n}-a" for n in range(3)]
    assert removal.size_bytes == 30
    case = bench.overview.case("1")
    assert (case.state, case.slices.sent, case.purged_at, case.received_purged_at) == ("SENT", 3, *[at(2 * DAY)] * 2)
    assert bench.overview.events(case)[-1].reason == (
        "removed the result and 3 received files (0.0 MB) from the disk: it is old enough"
    )
    assert purge(bench.retention) == []
    assert rows(bench, Instance) == rows(bench, AssociationSeries) == 0


def test_what_is_younger_stays(bench):
    sent(bench)
    assert purge(bench.retention, Ages(at(19), at(19))) == []
    assert purge(bench.retention, Ages(None, None)) == []
    (removal,) = purge(bench.retention, Ages(at(19), at(DAY)))
    assert (removal.folders, len(removal.received)) == ((), 3)
    (removal,) = purge(bench.retention, Ages(at(DAY), None))
    assert (removal.folders, removal.received) == (("derived/1-1",), ())


def test_what_is_being_sent_again_stays_until_all_of_it_came(bench):
    """Else what was answered as kept would go, and what comes after it would be a series with a gap."""
    sent(bench)
    assert bench.receive([0], now=at(DAY + 1)) == [Recorded.DUPLICATE]
    assert purge(bench.retention) == []
    assert bench.receive([1, 2], now=at(DAY + 2)) == [Recorded.DUPLICATE] * 2
    assert len(purge(bench.retention, Ages(at(2 * DAY), at(2 * DAY)))) == 1


def test_where_a_destination_is_asked_sent_is_not_enough(bench):
    sent(bench)
    assert purge(bench.strict) == []
    assert bench.strict.why_kept(1, 1) == "tps has not confirmed it; it is SENT"
    delivery = bench.outbox.awaiting_confirmation("tps", at(30))
    bench.outbox.confirm(delivery.id, "c", "found", at(30))
    assert len(purge(bench.strict)) == 1


@pytest.mark.parametrize("state", ["RECEIVING", "INCOMPLETE", "QUEUED", "RUNNING", "HELD", "FAILED", "PRODUCED"])
def test_what_a_person_or_a_process_still_needs_never_goes(bench, state):
    bench.receive()
    if state == "INCOMPLETE":
        bench.series.hold_incomplete(bench.open_series(at(10))[0], "slice 2 is missing", at(10))
    elif state != "RECEIVING":
        bench.queue()
    if state in ("RUNNING", "FAILED"):
        job = bench.jobs.claim("w", 60, at(11))
    if state == "FAILED":
        bench.jobs.fail(job.id, "w", "no", at(12))
    if state == "HELD":
        bench.produce(held="doubt")
    if state == "PRODUCED":
        bench.produce(destinations=())
    assert bench.states() == {"1": state}
    assert purge(bench.retention) == []
    case = bench.overview.case("1")
    with pytest.raises(IllegalTransition):
        bench.retention.purge_case(case.series_id, case.job_id, "operator", "r", at(2 * DAY))
    assert rows(bench, Instance) == 3


@pytest.mark.parametrize("step", ["PENDING", "SENDING", "FAILED"])
def test_one_open_delivery_keeps_everything(bench, step):
    bench.receive()
    bench.queue()
    bench.produce(destinations=("tps", "pacs"))
    bench.send()
    if step != "PENDING":
        delivery = bench.outbox.claim("c", "pacs", 60, at(20))
        if step == "FAILED":
            bench.outbox.fail(delivery.id, "c", "it refuses", at(21))
    assert purge(bench.retention) == []
    with pytest.raises(IllegalTransition, match=f"pacs has not accepted it; it is {step}"):
        bench.retention.purge_case(1, 1, "operator", "r", at(2 * DAY))


def test_what_ended_and_what_was_skipped_goes_with_age(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    bench.jobs.cancel(1, "operator", "no", at(30))
    bench.receive(series="1.2.4")
    bench.series.skip(bench.open_series(at(30))[0], FACTS, "it is a localizer", at(30))
    with bench.database.write() as session:  # PostgreSQL keeps the first series behind the second from now on
        session.get(Series, 1).description = "another"
    cancelled, skipped = purge(bench.retention)
    assert (cancelled.folders, len(cancelled.received), len(skipped.received)) == (("derived/1-1",), 3, 3)
    assert bench.overview.case("2").slices.received == 3, "a reader still sees how many came"


def test_a_leftover_at_a_destination_keeps_its_rows_only(bench):
    sent(bench)
    bench.jobs.cancel(1, "operator", "wrong patient", at(30))
    assert len(purge(bench.retention)) == 1
    assert bench.overview.case("1").leftovers == ("tps",)
    assert len(bench.outbox.awaiting_removal("tps", at(DAY)).sop_instance_uids) == 3
    assert bench.retention.forget(at(9 * DAY)) == 0, "what stands at a destination is asked for by its UIDs"


def test_nothing_is_promised_about_files_that_are_gone(bench):
    sent(bench)
    bench.receive(series="1.2.4")
    bench.queue("k4", now=at(30))
    bench.jobs.cancel(2, "operator", "no", at(31))
    purge(bench.retention)
    with pytest.raises(IllegalTransition, match="removed on 2026-02-02; send the series again"):
        bench.jobs.resend(1, ["tps"], "operator", "", at(2 * DAY))
    for verb in (bench.jobs.reopen, bench.jobs.retry):
        with pytest.raises(IllegalTransition, match="its received files were removed"):
            verb(2, "operator", "", at(2 * DAY))


def test_what_another_process_changes_at_this_moment_is_left_for_the_next_time(bench):
    sent(bench)
    if bench.database.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    for table in (Series, Job, Delivery):
        with bench.database.write() as session:
            session.scalars(select(table).with_for_update()).one()
            assert purge(bench.retention) == [], f"a {table.__tablename__} is locked"
    assert len(purge(bench.retention)) == 1


def test_a_folder_of_a_removed_result_is_wanted_by_nobody(bench):
    sent(bench)
    assert bench.jobs.refers_to(1, "derived/1-1")
    purge(bench.retention)
    assert not bench.jobs.refers_to(1, "derived/1-1")


# -- the same series again -----------------------------------------------------------------------------------------


def again(bench, key="k", numbers=range(3)):
    bench.receive(numbers, now=at(3 * DAY))
    bench.queue(key, now=at(3 * DAY + 10))


def test_a_removed_series_that_comes_again_is_made_anew_under_new_uids(bench):
    sent(bench)
    purge(bench.retention)
    again(bench)
    assert bench.states() == {"1-2": "QUEUED", "1": "SUPERSEDED"}
    assert bench.overview.case("1").leftovers == ("tps",), "a person is told what it replaces"
    job = bench.jobs.claim("w", 60, at(3 * DAY + 11))
    assert (job.repeat, job.version, len(job.sources)) == (1, 2, 3)
    assert bench.overview.case("1-2").received_purged_at is None


def test_where_only_the_sources_went_the_result_goes_on_counting(bench):
    sent(bench)
    purge(bench.retention, Ages(None, at(DAY)))
    again(bench)
    assert bench.states() == {"1": "SENT"}
    (removal,) = purge(bench.retention, Ages(None, at(5 * DAY)))
    assert len(removal.received) == 3, "what came again goes again"


def test_one_late_slice_does_not_take_back_what_was_delivered(bench):
    sent(bench)
    purge(bench.retention)
    bench.receive([1], now=at(3 * DAY))
    assert bench.states() == {"1-2": "RECEIVING", "1": "SENT"}
    bench.series.skip(bench.open_series(at(3 * DAY + 10))[0], FACTS, "1 slice", at(3 * DAY + 10))
    assert bench.states() == {"1-2": "SKIPPED", "1": "SENT"}


@pytest.mark.parametrize("verb", ["cancel", "reject"])
def test_what_a_person_stopped_is_made_anew_for_a_person_to_decide(bench, verb):
    bench.receive()
    bench.queue()
    bench.produce(held="doubt")
    getattr(bench.jobs, verb)(1, "operator", "no", at(30))
    purge(bench.retention)
    again(bench)
    job = bench.jobs.claim("w", 60, at(3 * DAY + 11))
    assert job.repeat == 1
    assert job.doubt == f"a person {verb}ed an earlier result of the same images".replace("canceled", "cancelled")


def test_a_person_removes_one_case_and_not_twice(bench):
    sent(bench)
    removal = bench.retention.purge_case(1, 1, "operator x", "asked by the clinic", at(60))
    assert (removal.folders, len(removal.received)) == (("derived/1-1",), 3)
    with pytest.raises(IllegalTransition, match="removed on 2026-01-31 already"):
        bench.retention.purge_case(1, 1, "operator x", "", at(61))


def test_a_person_removes_nothing_of_a_series_that_is_being_sent_again(bench):
    sent(bench)
    association = bench.series.open_association("receiver", "CTSIM", "10.0.0.1", at(60))
    assert bench.series.record(association, "CTSIM", arrival(0), at(60)) == Recorded.DUPLICATE
    with pytest.raises(IllegalTransition, match="are being received at this moment"):
        bench.retention.purge_case(1, 1, "operator x", "", at(61))
    bench.series.close_association(association, released=True, now=at(62))
    assert bench.retention.purge_case(1, 1, "operator x", "", at(63)).folders == ("derived/1-1",)


# -- history and space ---------------------------------------------------------------------------------------------


def test_old_history_goes_and_what_became_of_the_series_stays(bench):
    sent(bench)
    purge(bench.retention)
    assert bench.retention.forget(at(2 * DAY)) == 0
    assert bench.retention.forget(at(3 * DAY)) == 1
    assert bench.retention.forget(at(3 * DAY)) == 0
    assert rows(bench, Event) == rows(bench, Product) == rows(bench, LostInstance) == 0
    assert bench.states() == {"1": "SENT"}
    again(bench)
    assert bench.jobs.claim("w", 60, at(3 * DAY + 11)).repeat == 1, "no UID is ever made twice"


def test_growth_counts_a_translated_slice_twice(bench):
    bench.receive()
    assert bench.retention.growth_bytes_per_h(at(2 * 3600)) == pytest.approx(15)
    bench.queue()
    assert bench.retention.growth_bytes_per_h(at(2 * 3600)) == pytest.approx(30)
    assert bench.retention.growth_bytes_per_h(at(9 * DAY)) == 0


def test_only_a_file_without_a_row_is_unknown(bench):
    bench.receive()
    assert bench.retention.unknown(["received/1.2.3-0-a", "received/x"]) == ["received/x"]


def pragma(database, name):
    with database.read() as session:
        return session.execute(text(f"PRAGMA {name}")).scalar_one()


def fill(database):
    """Ten megabytes that `forget` takes away."""
    with database.write() as session:
        refused = {"calling_ae": "A", "peer_host": "h", "sop_instance_uid": "1", "dimse_status": 1, "reason": "r" * 200}
        rows = [{**refused, "series_uid": f"1.{n}", "count": 1, "first_at": T0, "last_at": T0} for n in range(30_000)]
        session.execute(insert(Refusal), rows)


def test_a_database_that_is_mostly_empty_gives_its_space_back_while_instances_arrive(bench):
    if not bench.database.is_sqlite:
        assert bench.retention.compact(lambda: True) == 0, "PostgreSQL does this by itself"
        return
    fill(bench.database)
    assert bench.retention.compact(lambda: True) == 0, "all of it is used"
    bench.retention.forget(at(1))
    before = pragma(bench.database, "page_count")
    assert pragma(bench.database, "freelist_count") > before / 2
    assert bench.retention.compact(lambda: False) == 0, "there is no time"
    waits_s, ends, receiver = [], threading.Event(), Bench(Database(str(bench.database.url)))

    def arrive():
        while not ends.wait(0.02):
            began_s = time.monotonic()
            receiver.series.open_association("receiver", "CTSIM", "h", T0)  # raises after a second without the database
            waits_s.append(time.monotonic() - began_s)

    with ThreadPoolExecutor() as pool:
        arriving = pool.submit(arrive)
        try:
            freed = bench.retention.compact(lambda: True)
        finally:
            ends.set()
        arriving.result()
    assert freed > before / 2 * 4096
    assert pragma(bench.database, "page_count") < before / 2
    assert len(waits_s) > 20
    assert max(waits_s) < 0.5
    look_through(bench.database)


def test_a_reader_of_the_log_holds_up_nobody(bench):
    if not bench.database.is_sqlite:
        return
    bench.receive()
    with bench.database.read() as session:
        session.scalars(select(Series)).all()
        bench.receive(series="1.2.4")
        began_s = time.monotonic()
        bench.retention.compact(lambda: True)
        assert time.monotonic() - began_s < 1
    bench.retention.compact(lambda: True)
    assert Path(f"{bench.database.location}-wal").stat().st_size == 0


def test_a_store_of_an_earlier_version_shrinks_after_its_upgrade(bench, tmp_path):
    if not bench.database.is_sqlite:
        return
    with closing(sqlite3.connect(bench.database.location)) as old:
        old.execute("PRAGMA auto_vacuum=NONE")
        old.execute("VACUUM INTO ?", (str(tmp_path / "old"),))
    with closing(sqlite3.connect(tmp_path / "old")) as old:
        old.execute("PRAGMA journal_mode=DELETE")
        old.execute("PRAGMA auto_vacuum=NONE")
        old.execute("VACUUM")
    database = Database(f"sqlite:///{tmp_path / 'old'}")
    assert pragma(database, "auto_vacuum") == 0
    fill(database)
    store = RetentionStore(database)
    store.forget(at(1))
    assert store.compact(lambda: True) == 0, "it goes on as it is"
    upgrade(database)
    assert pragma(database, "auto_vacuum") == 2
    assert pragma(database, "freelist_count") == 0
    database.close()


def test_a_removed_series_belongs_to_who_sends_it_next(bench):
    """An archive may send it after years; its result replaces the earlier one only as a leftover that a person sees."""
    sent(bench)
    purge(bench.retention)
    bench.receive(now=at(3 * DAY), calling_ae="ARCHIVE")
    bench.queue("k", now=at(3 * DAY + 10))
    assert bench.states() == {"1-2": "QUEUED", "1": "SUPERSEDED"}
    case = bench.overview.case("1-2")
    assert case.calling_ae == "ARCHIVE"
    assert "the series belongs to ARCHIVE now; of CTSIM nothing is kept" in [
        event.reason for event in bench.overview.events(case)
    ]
    assert bench.overview.case("1").leftovers == ("tps",)
    with bench.database.read() as session:
        assert is_foreign(session, session.scalars(select(Series)).one(), "CTSIM", Credentials())
