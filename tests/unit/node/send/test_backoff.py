"""The pauses between attempts."""

import random

import pytest

from node.send.courier import BACKOFF_CAP_S, BACKOFF_START_S, backoff_s


@pytest.mark.parametrize(("attempt", "whole_s"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (10_000, 60)])
def test_pauses_double_up_to_the_cap_and_spread_over_half_of_it(attempt: int, whole_s: float) -> None:
    pauses = [backoff_s(attempt, random.Random(seed)) for seed in range(200)]
    assert whole_s / 2 <= min(pauses) < whole_s * 0.6
    assert whole_s * 0.9 < max(pauses) <= whole_s


def test_the_documented_bounds_hold() -> None:
    assert (BACKOFF_START_S, BACKOFF_CAP_S) == (5, 60)
