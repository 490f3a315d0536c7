"""In which hours jobs begin off peak, by the clock on the wall."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from config.queue import QueueSettings, hours_of

BERLIN = ZoneInfo("Europe/Berlin")


def has(hours, *moments, zone=BERLIN):
    found = hours_of(hours)
    assert found is not None
    return [found.has(datetime.fromisoformat(moment).replace(tzinfo=UTC), zone) for moment in moments]


def test_hours_over_midnight_have_their_beginning_and_not_their_end():
    # In January Berlin is an hour before UTC.
    times = ("2026-01-31T18:59", "2026-01-31T19:00", "2026-01-31T23:00", "2026-02-01T04:59", "2026-02-01T05:00")
    assert has("20:00-06:00", *times) == [False, True, True, True, False]


def test_hours_of_one_day():
    times = ("2026-01-31T10:59", "2026-01-31T11:00", "2026-01-31T11:59", "2026-01-31T12:00", "2026-01-31T23:00")
    assert has("12:00-13:00", *times) == [False, True, True, False, False]


def test_the_night_in_which_the_clock_is_put_forward_is_an_hour_shorter():
    """On 2026-03-29 the hour from 02:00 is left out: 01:59 is followed by 03:00."""
    assert has("02:00-03:00", "2026-03-29T00:59", "2026-03-29T01:00", "2026-03-29T01:30") == [False, False, False]
    assert has("20:00-06:00", "2026-03-29T03:59", "2026-03-29T04:00") == [True, False]


def test_the_hour_that_comes_twice_counts_twice():
    """On 2026-10-25 the clock is put back from 03:00 to 02:00."""
    assert has("02:00-03:00", "2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T02:00") == [True, True, False]


@pytest.mark.parametrize("wrong", ["20-6", "20:00-20:00", "24:00-06:00", "20:00-06:60", "20:00 - 06:00", "٢٠:00-06:00"])
def test_what_is_no_span_of_hours_is_refused(wrong):
    with pytest.raises(ValidationError, match="two different times"):
        QueueSettings(off_peak=wrong)


def test_without_hours_there_are_none():
    assert hours_of("") is None
