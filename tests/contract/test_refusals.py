"""What the receiver refused is counted by reason, on SQLite and on PostgreSQL alike."""

import threading
from datetime import UTC, datetime, timedelta

from storage.overview import Overview
from storage.refusals import RefusalStore, RefusedInstance

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def refused(reason="no UID", *, series="1.2.3", instance="1.2.3.4"):
    return RefusedInstance("CTSIM", "10.0.0.1", series, instance, 0xC000, reason)


def test_refusals_are_counted_by_reason_and_found_by_time_and_by_series(database):
    store = RefusalStore(database)
    for number in range(3):
        store.record(refused(instance=f"1.{number}"), at(number))
    store.record(refused("too large", series=""), at(3600))
    newest, counted = Overview(database).refused_since(at(3700), hours=24)
    assert (newest.reason, newest.count, newest.series_uid) == ("too large", 1, "")
    assert (counted.count, counted.sop_instance_uid, counted.status) == (3, "1.2", "C000")
    assert (counted.first_at, counted.last_at) == (at(0), at(2))
    assert Overview(database).refused_of_series("1.2.3") == [counted]
    assert Overview(database).refused_since(at(3700), hours=0.5) == [newest]


def test_refusals_do_not_fill_the_database(database, monkeypatch):
    monkeypatch.setattr("storage.refusals.MAX_ROWS", 3)
    store = RefusalStore(database)
    for number in range(6):
        store.record(refused(series=f"1.{number}"), at(number))
    assert [row.series_uid for row in Overview(database).refused_since(at(10), hours=1)] == ["1.5", "1.4", "1.3"]


def test_many_associations_count_one_refusal(database):
    store = RefusalStore(database)
    threads = [threading.Thread(target=store.record, args=(refused(), at(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.count for row in Overview(database).refused_of_series("1.2.3")] == [8]


def test_the_refusals_of_a_day_are_counted_with_those_of_unknown_series(database):
    store = RefusalStore(database)
    assert Overview(database).refused_since(at(0), hours=24) == []
    store.record(refused(series=""), at(0))
    assert [row.count for row in Overview(database).refused_since(at(60), hours=24)] == [1]
    store.record(refused(series=""), at(60))
    store.record(refused("too large"), at(60))
    assert sum(row.count for row in Overview(database).refused_since(at(60), hours=24)) == 3
    assert Overview(database).refused_since(at(2 * 86400), hours=24) == []
