"""Which silence within a series is a pause of its sender."""

from datetime import UTC, datetime, timedelta

import pytest

from storage import intake
from storage.intake import Pauses

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)


def measure(*arrivals, known=None):
    """The pauses that are worth keeping; an arrival is (second, series, association, caller)."""
    known = known or Pauses()
    found = []
    for second, series, association, caller in arrivals:
        found.append(known.arrived(series, association, caller, T0 + timedelta(seconds=second)))
    return [pause for pause in found if pause is not None]


def test_slices_that_follow_each_other_are_no_pause():
    assert measure(*((second / 10, "1", 1, "CT") for second in range(20))) == []


@pytest.mark.parametrize("second", [1, 8, 120])
@pytest.mark.parametrize("association", [1, 2], ids=["one association", "two associations"])
def test_a_pause_counts_within_an_association_and_between_two(second, association):
    assert measure((0, "1", 1, "CT"), (second, "1", association, "CT")) == [second]


@pytest.mark.parametrize(
    "later",
    [(121, "1", 2, "CT"), (8, "2", 2, "CT"), (8, "1", 2, "PACS")],
    ids=["too long", "another series", "another sender"],
)
def test_what_is_no_pause_of_the_sender(later):
    assert measure((0, "1", 1, "CT"), later) == []


def test_the_next_try_after_a_failure_is_no_pause():
    known = Pauses()
    measure((0, "1", 1, "CT"), (0, "2", 2, "CT"), known=known)
    known.broke_off(1)
    known.interrupted("2")
    assert measure((30, "1", 3, "CT"), (30, "2", 3, "CT"), known=known) == []


def test_only_a_longer_pause_is_news_until_the_next_day():
    assert measure(*((second, "1", 1, "CT") for second in (0, 8, 12, 21))) == [8, 9]
    day = 2 * 86400
    assert measure((0, "1", 1, "CT"), (9, "1", 1, "CT"), (day, "2", 2, "CT"), (day + 5, "2", 2, "CT")) == [9, 5]


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(intake, "_MAX_SERIES", 2)
    assert measure((0, "1", 1, "CT"), (1, "2", 1, "CT"), (2, "3", 1, "CT"), (9, "1", 1, "CT")) == []
