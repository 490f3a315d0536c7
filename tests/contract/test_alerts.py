"""An alert is opened once, told, reminded of, acknowledged and closed, on SQLite and on PostgreSQL alike."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from storage.alerts import AlertStore, Cause, News
from storage.errors import IllegalTransition, NotFound

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
KINDS = ("peer", "disk")
PEER, DISK = Cause("peer", "tps", "tps cannot be reached"), Cause("disk", "spool", "2 GB are free")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def alerts(database):
    return AlertStore(database)


def ids(news: News) -> tuple[list[int], ...]:
    return tuple([alert.id for alert in group] for group in (news.new, news.reminders, news.over))


def hear(alerts: AlertStore, seconds: float, channel="mail", **options) -> tuple[list[int], ...]:
    """What the channel tells then, and has told."""
    news = alerts.news(channel, at(seconds), **{"remind_s": 600, **options})
    alerts.told(channel, news, at(seconds))
    return ids(news)


def test_a_cause_has_one_open_alert_however_often_it_is_seen(alerts):
    for second in range(3):
        alerts.settle([PEER, DISK, PEER], KINDS, at(second))
    peer, disk = alerts.open()
    assert (peer.kind, peer.subject, peer.text, peer.opened_at) == ("peer", "tps", "tps cannot be reached", at(0))
    assert (disk.closed_at, disk.told_at, disk.acknowledged_at) == (None, None, None)
    alerts.settle([PEER], KINDS, at(5))
    assert [alert.kind for alert in alerts.open()] == ["peer"]
    assert [(alert.kind, alert.closed_at) for alert in alerts.all()] == [("disk", at(5)), ("peer", None)]
    alerts.settle([PEER, DISK], KINDS, at(6))
    assert [alert.id for alert in alerts.open()] == [1, 3]
    assert [alert.id for alert in alerts.all(limit=1)] == [3]


def test_what_nobody_looked_at_stays_open_and_a_text_follows_its_cause(alerts):
    alerts.settle([PEER, DISK], KINDS, at(0))
    alerts.settle([Cause("peer", "tps", "still away")], ["peer"], at(1))
    assert [alert.text for alert in alerts.open()] == ["still away", "2 GB are free"]


def test_many_processes_open_one_alert(alerts):
    threads = [threading.Thread(target=alerts.settle, args=([PEER], KINDS, at(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(alerts.all()) == 1


def test_each_channel_hears_of_it_once_is_reminded_and_hears_of_the_end(alerts):
    assert hear(alerts, 0) == ([], [], [])
    alerts.settle([PEER], KINDS, at(0))
    assert hear(alerts, 1) == ([1], [], [])
    assert hear(alerts, 2) == ([], [], [])
    alerts.settle([PEER, DISK], KINDS, at(3))
    assert hear(alerts, 4) == ([2], [], [])
    assert hear(alerts, 5, "webhook") == ([1, 2], [], [])
    assert hear(alerts, 600) == ([], [], [])
    assert hear(alerts, 602) == ([], [1], [])
    assert hear(alerts, 603) == ([], [], [])
    alerts.settle([DISK], KINDS, at(610))
    assert hear(alerts, 611) == ([], [2], [1])
    assert hear(alerts, 612) == ([], [], [])
    assert alerts.all()[0].told_at == at(611)
    assert alerts.all()[0].notified["mail"]["opened"] == at(4).isoformat()


def test_what_is_over_before_it_was_told_is_no_news(alerts):
    alerts.settle([PEER], KINDS, at(0))
    alerts.settle([], KINDS, at(1))
    assert hear(alerts, 2) == ([], [], [])
    alerts.settle([PEER], KINDS, at(3))
    assert hear(alerts, 4) == ([2], [], [])
    alerts.settle([], KINDS, at(5))
    assert hear(alerts, 5 + 3 * 86400) == ([], [], [])


def test_quiet_kinds_are_kept_and_not_told(alerts):
    alerts.settle([PEER, DISK], KINDS, at(0))
    assert hear(alerts, 1, quiet=["peer"]) == ([2], [], [])
    assert hear(alerts, 9999, quiet=["peer"]) == ([], [2], [])


def test_an_acknowledged_alert_needs_no_reminder_and_its_end_is_told(alerts):
    alerts.settle([PEER, DISK], KINDS, at(0))
    assert hear(alerts, 1) == ([1, 2], [], [])
    alerts.acknowledge(1, "operator me", "the TPS is being updated", at(2))
    assert hear(alerts, 9999) == ([], [2], [])
    first = alerts.open()[0]
    assert (first.acknowledged_by, first.acknowledged_for) == ("operator me", "the TPS is being updated")
    assert first.acknowledged_at == at(2)
    alerts.settle([], KINDS, at(10000))
    assert hear(alerts, 10001) == ([], [], [1, 2])


def test_only_an_open_alert_can_be_acknowledged(alerts):
    with pytest.raises(NotFound, match="no alert 7"):
        alerts.acknowledge(7, "me", "", at(0))
    alerts.settle([PEER], KINDS, at(0))
    alerts.settle([], KINDS, at(1))
    with pytest.raises(IllegalTransition, match="alert 1 is over"):
        alerts.acknowledge(1, "me", "", at(2))
