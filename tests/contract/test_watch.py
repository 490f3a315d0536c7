"""What the store holds becomes alerts and ends them, on SQLite and on PostgreSQL alike."""

from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from node.ops import alert_rules
from node.ops.alert_machine import Silence
from node.ops.alerts import KINDS, Look, Watch, urgency
from storage.alerts import AlertStore, Cause
from storage.errors import StoreUnavailable
from storage.overview import Overview
from storage.peers import PeerStore
from storage.refusals import RefusalStore, RefusedInstance
from storage.tables import Job, Series
from storage.watching import WatchStore
from tests.contract.store_bench import Bench, at
from tests.contract.test_listing import add

DUE_S = 900.0


@pytest.fixture
def bench(database):
    return Bench(database)


@pytest.fixture
def series_causes(bench):
    def find(seconds):
        return list(alert_rules.series(bench.overview, DUE_S, UTC, at(seconds)))

    return find


def kinds(causes):
    return {cause.subject: cause.kind for cause in causes}


# -- series ----------------------------------------------------------------------------------------------------------


def test_a_series_without_a_result_in_time_is_an_alert_that_says_where_it_stands(bench, series_causes):
    add(bench, 1, patient="MRN-1")
    assert series_causes(899) == []
    (cause,) = series_causes(901)
    assert (cause.kind, cause.subject, cause.series_id, cause.job_id) == ("overdue", "1", 1, 1)
    assert cause.text == (
        "1 is QUEUED, and was due at 2026-01-31 12:15 (1 slices from CTSIM); next: `syncect jobs why 1`"
    )
    bench.produce(now=at(1000))
    assert kinds(series_causes(1001)) == {"1": "overdue"}
    bench.send(now=at(1002))
    assert series_causes(1003) == []


def test_retries_without_end_become_an_alert(bench, series_causes):
    add(bench, 1, patient="P")
    bench.produce(now=at(12))
    for second in range(100, 1000, 100):
        delivery = bench.outbox.claim("c", "tps", 60, at(second))
        bench.outbox.postpone(delivery.id, "c", "connection refused", not_before=at(second), now=at(second))
    (cause,) = series_causes(1000)
    assert cause.kind == "overdue"
    assert "1 is SENDING, and was due at 2026-01-31 12:15: tps: connection refused" in cause.text


def test_what_waits_for_a_person_is_an_alert_at_once_and_only_one(bench, series_causes):
    bench.receive()
    bench.series.hold_incomplete(bench.open_series(at(10))[0], "a slice is missing", at(10))
    add(bench, 7, patient="P", now=20)
    bench.produce(held="looks enhanced", now=at(40))
    add(bench, 8, patient="P", now=50)
    bench.jobs.claim("w", 60, at(61))
    bench.jobs.fail(2, "w", "broken", at(62))
    add(bench, 9, patient="P", now=70)
    bench.produce(uid="8", now=at(85))
    bench.outbox.fail(bench.outbox.claim("c", "tps", 60, at(90)).id, "c", "A900", at(91))
    expected = {"1": "incomplete", "2": "held", "3": "failed", "4": "failed"}
    assert kinds(series_causes(100)) == expected
    late = series_causes(9999)
    assert kinds(late) == expected
    assert len(late) == 4
    assert all("and was due at 2026-01-31 12:1" in cause.text for cause in late)
    bench.jobs.reject(1, "operator", "contrast", at(10000))
    assert "2" not in kinds(series_causes(10001))


def test_a_job_that_makes_no_step_is_hung(bench, series_causes):
    add(bench, 1, patient="P")
    bench.jobs.claim("w", 9999, at(20))
    assert series_causes(600) == []
    (cause,) = series_causes(621)
    assert (cause.kind, cause.subject) == ("hung", "1")
    assert "without a step since 2026-01-31 12:00" in cause.text


def test_texts_hold_nothing_of_a_patient_and_nothing_that_acts(bench, series_causes):
    add(bench, 1, patient="DOE^JANE", ae="CT\x1b[1m")
    bench.jobs.claim("w", 60, at(20))
    bench.jobs.fail(1, "w", "two\nlines " + "x" * 999, at(21))
    (cause,) = series_causes(30)
    assert "DOE" not in cause.text
    assert "Thorax" not in cause.text
    assert cause.text.isprintable()
    assert len(cause.text) < 400


def test_what_a_destination_never_confirmed_is_told_for_a_week(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    sent, watching = bench.send(), WatchStore(bench.database)
    assert list(alert_rules.unconfirmed(watching, at(90_000))) == []
    bench.outbox.postpone_confirmation(sent.id, "c", "not confirmed within 24 h", not_before=None, now=at(86_500))
    (cause,) = alert_rules.unconfirmed(watching, at(90_000))
    assert (cause.kind, cause.subject) == ("unconfirmed", "tps")
    assert cause.text.startswith("1 sent results were not confirmed by tps, which is asked no more")
    assert list(alert_rules.unconfirmed(watching, at(8 * 86_400))) == []


def test_ended_processes_and_a_failing_device_are_named_with_their_job(bench):
    add(bench, 1, patient="P")
    add(bench, 2, patient="P", now=20, queue=False)
    watching = WatchStore(bench.database)
    assert list(alert_rules.deaths(watching, at(0))) == []
    with bench.database.write() as session:
        session.get_one(Job, 1).deaths, session.get_one(Job, 1).device_faults = 1, 2
    (cause,) = alert_rules.deaths(watching, at(0))
    assert (cause.kind, cause.subject) == ("deaths", "1")
    assert cause.text.startswith(
        "a process ended once and the device failed 2 times (out of memory, lost or hung) while 1"
    )
    with bench.database.write() as session:
        session.get_one(Series, 2).deaths = 1
    assert [one.subject for one in alert_rules.deaths(watching, at(0))] == ["1", "2"]


# -- peers and refusals ----------------------------------------------------------------------------------------------


def test_a_peer_is_an_alert_after_five_minutes_until_it_answers(database):
    peers = PeerStore(database)
    find = partial(alert_rules.peers, peers, ["tps"], UTC)
    peers.failed("tps", "connection refused", at(0))
    peers.failed("gone", "no longer a destination", at(0))
    assert list(find(at(299))) == []
    (cause,) = find(at(300))
    assert (cause.kind, cause.subject) == ("peer", "tps")
    assert cause.text.startswith("tps cannot be reached since 2026-01-31 12:00: connection refused; next: ")
    peers.answered("tps", at(301))
    assert list(find(at(302))) == []


def test_refused_instances_are_one_alert_a_caller_for_a_quarter_of_an_hour(database):
    store = RefusalStore(database)
    for number in range(30):
        ae = "CTSIM" if number < 5 else f"AE{number}"
        store.record(RefusedInstance(ae, "10.0.0.1", f"1.{number}", "1.2.3.4", 0xC000, "no UID"), at(number))
    find = partial(alert_rules.refused, Overview(database), UTC)
    assert len(find(at(60))) == alert_rules.MOST_CALLERS
    assert [cause.subject for cause in find(at(25 + 900))][-1] == "AE25"
    assert "of AE29 are refused, the last at 2026-01-31 12:00: status C000, no UID" in find(at(60))[0].text
    assert find(at(960)) == []


# -- silence ---------------------------------------------------------------------------------------------------------

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 4, 2, 12, tzinfo=BERLIN)  # a Thursday; the clocks were put forward on March 29


def came(bench, *moments):
    for moment in moments:
        number = len(bench.states()) + 1
        add(bench, number, patient="P", now=(moment - at(0)).total_seconds(), queue=False)


def wall(weeks, hours=0.0):
    """The same hour of the wall clock, weeks ago."""
    return (NOON.replace(tzinfo=None) - timedelta(weeks=weeks, hours=-hours)).replace(tzinfo=BERLIN)


@pytest.fixture
def silent(bench):
    """The cause at a moment, as the watch would find it; each look is the first one."""
    alerts = AlertStore(bench.database)

    def find(moment):
        causes = Silence(WatchStore(bench.database), alerts, BERLIN).find(moment)
        alerts.settle(causes, ["silence"], moment)
        return causes

    return find


def test_silence_where_there_always_was_something_is_an_alert_until_something_comes(bench, silent):
    came(bench, *(wall(week, -3.9) for week in (1, 2, 3)))
    (cause,) = silent(NOON)
    assert "nothing was received for 4 h" in cause.text
    assert "the last came at 2026-03-26 08:06" in cause.text
    assert silent(NOON + timedelta(hours=9)) == [cause]  # the busy hours are over, the silence is not
    came(bench, NOON + timedelta(hours=10))
    assert silent(NOON + timedelta(hours=10, minutes=1)) == []


@pytest.mark.parametrize(
    "moments",
    [
        [],
        [wall(1, -1), wall(2, -1)],
        [wall(1, -1), wall(2, -1), wall(4, -1)],
        [wall(0, -1), wall(1, -1), wall(2, -1), wall(3, -1)],
        [wall(1, -1), wall(2, -1), wall(3, -5)],
        [wall(week, 24) for week in (1, 2, 3, 4)],
    ],
    ids=["nothing yet", "two weeks", "a holiday", "something came", "other hours", "other weekday"],
)
def test_silence_that_is_not_unusual_is_none(bench, silent, moments):
    came(bench, *sorted(moments))
    assert silent(NOON) == []


# -- the watch -------------------------------------------------------------------------------------------------------


def test_a_look_that_fails_leaves_its_alerts_and_stops_no_other(database):
    alerts, now = AlertStore(database), [at(0)]
    found: dict[str, list[Cause] | None] = {
        "peer": [Cause("peer", "tps", "away")],
        "disk": [Cause("disk", "spool", "full")],
    }

    def find(kind, _now):
        if found[kind] is None:
            raise RuntimeError("broken")
        return found[kind]

    watch = Watch([Look(frozenset({kind}), partial(find, kind)) for kind in found], alerts, clock=lambda: now[0])
    watch.tick()
    assert sorted(alert.kind for alert in alerts.open()) == ["disk", "peer"]
    found |= {"peer": None, "disk": []}
    watch.tick()
    assert [alert.kind for alert in alerts.open()] == ["peer"]


def test_looks_that_need_a_database_that_is_away_are_told_once_and_by_the_tick_alone(database, caplog):
    alerts, trouble = AlertStore(database), StoreUnavailable("the server is away")
    alerts.settle([Cause("peer", "tps", "away")], KINDS, at(0))

    def away(*_arguments):
        raise trouble

    lost: Any = SimpleNamespace(settle=away)
    looks = [Look(frozenset({kind}), away) for kind in ("peer", "host")] + [Look(frozenset(), away)]
    Watch(looks, alerts, clock=lambda: at(1)).tick()  # it was back before the alerts were kept
    (line,) = caplog.messages
    assert line == "the watch could not look for host, peer: the server is away"
    assert [alert.kind for alert in alerts.open()] == ["peer"]
    caplog.clear()
    with pytest.raises(StoreUnavailable):  # whoever ticks tells it once a minute
        Watch(looks, lost, clock=lambda: at(2)).tick()
    assert caplog.messages == []


def test_the_most_urgent_alert_comes_first(database):
    alerts = AlertStore(database)
    alerts.settle([Cause(kind, "x", "x") for kind in ("leftover", "overdue", "process")], KINDS, at(0))
    assert [alert.kind for alert in sorted(alerts.open(), key=urgency)] == ["process", "overdue", "leftover"]
