"""Slice positions along one line: do they lie on one evenly spaced lattice, and where not."""

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Scanners and converters print positions with one decimal, and one step may be off by 0.1 mm where z crosses zero.
POSITION_TOLERANCE_MM: Final = 0.15
# Of a step no more than this is ever tolerated, so that very thin slices are judged as well.
_SHARE_OF_A_STEP: Final = 0.25
# Still less where places are empty: almost any positions lie near some lattice that is fine enough.
_SHARE_WITH_GAPS: Final = 0.1
# Below this share of occupied places a "lattice" is an accident of two interleaved stacks, not one with slices missing.
_LEAST_OCCUPANCY: Final = 0.3
# So many equal steps in a row were planned; one or two larger ones are slices that got lost.
_PLANNED_STEPS: Final = 3


class Unevenness(Enum):
    """In which way steps are uneven."""

    IRREGULAR = "irregular"  # a step that is no whole multiple of the others
    CHANGED = "changed"  # runs of equal steps, wider towards an end of the stack: nothing is missing
    GAP = "gap"  # places of the lattice without a slice


@dataclass(frozen=True, slots=True)
class Uneven:
    """What is uneven first: `step` is the index of the step after slice `step`; both lengths are in mm.

    step_mm: length of that step. usual_mm: step of the lattice, or for CHANGED that of the run before. missing: number
    of places without a slice (GAP), else the number of steps that do not fit.
    """

    kind: Unevenness
    step: int
    step_mm: float
    usual_mm: float
    missing: int


def find_unevenness(positions_mm: NDArray[np.float64], tolerance_mm: float) -> Uneven | None:
    """None where the ascending positions are one lattice without a gap.

    tolerance_mm: how far any position may lie from the lattice that fits all of them best (least squares). Two
    positions or one are always even.
    """
    steps = np.diff(positions_mm)
    if steps.size < 2:
        return None
    base, multiples = _fit(steps)
    missing = int((multiples - 1).sum())
    allowed = min(tolerance_mm, (_SHARE_WITH_GAPS if missing else _SHARE_OF_A_STEP) * base)
    off = _deviations(positions_mm, multiples)
    fits = off.max() <= allowed and steps.size + 1 >= _LEAST_OCCUPANCY * (steps.size + 1 + missing)
    if fits and missing == 0:
        return None
    if changed := _changed_spacing(steps, tolerance_mm, is_multiple=fits):
        return changed
    if fits:
        first = int(np.flatnonzero(multiples > 1)[0])
        return Uneven(Unevenness.GAP, first, float(steps[first]), base, missing)
    return _irregular(steps, multiples, base, allowed)


def _fit(steps: NDArray[np.float64]) -> tuple[float, NDArray[np.int64]]:
    """Step of the lattice, mm, and how many of it each step is, at least 1."""
    smallest = float(steps[steps < 1.5 * steps.min()].mean())
    multiples = _multiples(steps, smallest)
    # The smallest steps alone are uncertain by the rounding of their positions, the sum of all steps hardly at all.
    base = float(steps.sum() / multiples.sum())
    return base, _multiples(steps, base)


def _multiples(steps: NDArray[np.float64], base: float) -> NDArray[np.int64]:
    return np.maximum(np.round(steps / base), 1).astype(np.int64)


def _deviations(positions: NDArray[np.float64], multiples: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distance of each position from the straight line through all of them over their places, mm."""
    places = np.concatenate(([0], np.cumsum(multiples))).astype(np.float64)
    x, y = places - places.mean(), positions - positions.mean()
    return np.asarray(np.abs(y - x * float(x @ y) / float(x @ x)))


def _irregular(steps: NDArray[np.float64], multiples: NDArray[np.int64], base: float, allowed: float) -> Uneven:
    """The step that differs most from what most steps are."""
    usual = float(np.median(steps))
    away = np.abs(steps - usual)
    misfits = int((np.abs(steps - multiples * base) > allowed).sum())
    worst = int(away.argmax())
    return Uneven(Unevenness.IRREGULAR, worst, float(steps[worst]), usual, max(1, misfits))


def _changed_spacing(steps: NDArray[np.float64], tolerance_mm: float, *, is_multiple: bool) -> Uneven | None:
    """A stack of several runs of equal steps, each long enough to have been planned; None for any other.

    Where the wider steps are whole multiples of the narrow ones they could also be slices that got lost, so they must
    lie at the ends: a plan is fine in the middle and coarse beyond, and no sender loses every second slice of an end.
    """
    runs = _runs(steps, 2 * tolerance_mm)
    if len(runs) < 2 or min(end - start for start, end in runs) < _PLANNED_STEPS:
        return None
    means = [float(steps[start:end].mean()) for start, end in runs]
    finest = means.index(min(means))
    is_nested = all(a > b for a, b in pairwise(means[: finest + 1])) and all(a < b for a, b in pairwise(means[finest:]))
    if is_multiple and not is_nested:
        return None
    start = runs[1][0]
    return Uneven(Unevenness.CHANGED, start, means[1], means[0], len(runs) - 1)


def _runs(steps: NDArray[np.float64], tolerance_mm: float) -> list[tuple[int, int]]:
    """(start, end) of the longest stretches of steps that stay within `tolerance_mm` of their first one."""
    runs = []
    start = 0
    for index in range(1, steps.size + 1):
        if index == steps.size or abs(steps[index] - steps[start]) > tolerance_mm:
            runs.append((start, index))
            start = index
    return runs
