"""Times as operators type them, and as they read them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from config.settings import NodeSettings, Settings
from node.operate.texts import NotUnderstood, local_time, moment_before, time_left, zone_of

NOW = datetime(2026, 11, 26, 6, 22, 34, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "hours"),
    [("90s", 0.025), ("30m", 0.5), ("2h", 2), (" 3d ", 72), ("1w", 168), ("0h", 0)],
)
def test_a_span_reaches_back_from_now(text: str, hours: float) -> None:
    assert moment_before(text, NOW, BERLIN) == NOW - timedelta(hours=hours)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-26", "2026-11-25T23:00:00+00:00"),
        ("2026-07-01", "2026-06-30T22:00:00+00:00"),
        ("2026-11-26T08:30", "2026-11-26T07:30:00+00:00"),
        ("2026-11-26 08:30:15", "2026-11-26T07:30:15+00:00"),
        ("2026-11-26T08:30Z", "2026-11-26T08:30:00+00:00"),
        ("2026-11-26T08:30+05:30", "2026-11-26T03:00:00+00:00"),
    ],
)
def test_a_date_is_one_of_the_departments_calendar(text: str, utc: str) -> None:
    assert moment_before(text, NOW, BERLIN).isoformat() == utc


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2x", "h", "-2h", "2026-13-01", "26.11.2026", "2.5h", "0001-01-01T00:00", "999999w"]
)
def test_what_is_no_time_is_told_with_what_is(text: str) -> None:
    with pytest.raises(NotUnderstood, match=r"2h, 3d"):
        moment_before(text, NOW, BERLIN)


def test_times_are_shown_in_the_zone_of_the_settings_with_its_name(monkeypatch) -> None:
    berlin = zone_of(Settings(node=NodeSettings(timezone="Europe/Berlin")))
    assert local_time(NOW, berlin) == "2026-11-26 07:22:34 CET"
    assert local_time(NOW - timedelta(days=120), berlin) == "2026-07-29 08:22:34 CEST"
    assert zone_of(Settings()) is None
    machine = NOW.astimezone()
    assert local_time(NOW, None) == f"{machine:%Y-%m-%d %H:%M:%S %Z}"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "about 1 s"), (40, "about 40 s"), (99, "about 99 s"), (130, "about 2 min"), (9000, "about 2 h")],
)
def test_an_estimate_is_no_more_exact_than_it_can_be(seconds: float, words: str) -> None:
    assert time_left(seconds) == words
