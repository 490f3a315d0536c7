"""Paired tests between models."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, wilcoxon


@dataclass(frozen=True)
class Comparison:
    """Paired comparison of two rows over `pairs` patients (or slices), differences being first - second.

    `p`: two-sided Wilcoxon signed-rank; `p_holm`: after Holm's correction over all comparisons of its family.
    `effect`: matched-pairs rank-biserial correlation, from -1 (second always larger) to 1.
    """

    first: str
    second: str
    pairs: int
    median_difference: float
    p: float
    p_holm: float
    effect: float


def wilcoxon_p(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; zeros are dropped, and without any difference p is 1.

    Exact up to 50 differences without ties, else by the normal approximation (scipy's "auto").
    """
    values = _nonzero(differences)
    return float(wilcoxon(values, zero_method="wilcox").pvalue) if values.size else 1.0


def rank_biserial(differences: Sequence[float]) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014): (sum of positive - negative ranks) / (sum of all ranks)."""
    values = _nonzero(differences)
    if not values.size:
        return 0.0
    ranks = rankdata(np.abs(values))
    return float((ranks * np.sign(values)).sum() / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def compare_pairs(values: Mapping[str, Sequence[float]]) -> list[Comparison]:
    """Compare every two rows, one family for Holm; values of a row are in the same order of patients in all rows.

    A pair in which either value is no number or infinite is left out. Raises ValueError for unequal lengths.
    """
    results: list[Comparison] = []
    for first, second in itertools.combinations(values, 2):
        differences = _finite_differences(values[first], values[second])
        median = float(np.median(differences)) if differences else math.nan
        p, effect = wilcoxon_p(differences), rank_biserial(differences)
        results.append(Comparison(first, second, len(differences), median, p, p, effect))
    adjusted = holm([c.p for c in results])
    return [
        Comparison(c.first, c.second, c.pairs, c.median_difference, c.p, q, c.effect)
        for c, q in zip(results, adjusted, strict=True)
    ]


def _finite_differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return [a - b for a, b in pairs]


def _nonzero(differences: Sequence[float]) -> NDArray[np.float64]:
    values = np.asarray(differences, dtype=np.float64)
    return np.asarray(values[values != 0])
