"""Promises of the tests between models: right p-values, right correction, right direction of the effect."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from models.metrics import compare_pairs, holm, rank_biserial, wilcoxon_p


def test_wilcoxon_is_the_share_of_sign_patterns_as_extreme() -> None:
    differences = [1.1, -0.4, 2.5, 0.9, 3.3, 1.7]
    ranks = stats.rankdata(np.abs(differences))
    observed = min(
        sum(r for r, d in zip(ranks, differences, strict=True) if d > 0),
        sum(r for r, d in zip(ranks, differences, strict=True) if d < 0),
    )
    sums = [sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=6)]
    extreme = sum(s <= observed or s >= ranks.sum() - observed for s in sums)
    assert wilcoxon_p(differences) == pytest.approx(extreme / 64)


def test_wilcoxon_of_many_ties_is_scipys() -> None:
    rng = np.random.Generator(np.random.Philox(4))
    differences = [*rng.normal(0.3, 1, 70), *[0.5] * 5, 0.0, 0.0]
    kept = [d for d in differences if d]
    assert wilcoxon_p(differences) == pytest.approx(stats.wilcoxon(kept).pvalue)


def test_no_difference_has_p_1_and_no_effect() -> None:
    assert wilcoxon_p([0.0, 0.0]) == 1.0
    assert wilcoxon_p([]) == 1.0
    assert rank_biserial([0.0]) == 0.0


def test_rank_biserial_by_hand() -> None:
    # Ranks 1, 2, 3 with the signs -, +, +: (2 + 3 - 1) / 6.
    assert rank_biserial([-1.0, 2.0, 5.0]) == pytest.approx(4 / 6)
    assert rank_biserial([1.0, 2.0]) == 1.0


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04 times 4 3 2 1, then never falling: .04 .06 .06 .06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_every_pair_is_compared_and_corrected_together() -> None:
    patients = list(range(8))
    values = {
        "identity": [20.0 + p for p in patients],
        "good": [22.0 + 1.1 * p for p in patients],
        "same": [20.0 + p for p in patients],
    }
    found = {(c.first, c.second): c for c in compare_pairs(values)}
    better = found["identity", "good"]
    assert better.p == pytest.approx(2 / 2**8)
    assert better.p_holm == pytest.approx(3 * 2 / 2**8)
    assert better.effect == -1.0
    assert better.median_difference == pytest.approx(-2.35)
    assert found["identity", "same"].p_holm == 1.0
    assert len(found) == 3


def test_pairs_with_a_missing_value_are_left_out() -> None:
    (comparison,) = compare_pairs({"a": [1.0, math.nan, 3.0, math.inf], "b": [0.0, 1.0, math.nan, 2.0]})
    assert comparison.pairs == 1
    assert comparison.median_difference == 1.0
    with pytest.raises(ValueError, match="longer"):
        compare_pairs({"a": [1.0], "b": [1.0, 2.0]})
