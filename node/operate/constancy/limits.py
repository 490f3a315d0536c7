"""The tolerances of a constancy run, in one table, and the judgement by them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Against(StrEnum):
    """What a figure is held against.

    ITSELF: the figure has a limit of its own. BASELINE: the first run that PASSED with this bundle in this environment,
    or, where there is none, in another one. SAME: that baseline in this environment only.
    """

    ITSELF = "itself"
    BASELINE = "baseline"
    SAME = "baseline of this environment"


@dataclass(frozen=True)
class Limit:
    """A figure with its tolerance. words: what it is called; why: the reason for the tolerance.

    low, high: the closed range of the figure, or of its difference from the baseline's. factor: the figure may be so
    many times the baseline's and `high` more, in place of a difference.
    """

    figure: str
    words: str
    unit: str
    against: Against
    low: float
    high: float
    why: str
    factor: float = 0.0

    @property
    def tolerance(self) -> str:
        """The tolerance as a reader sees it."""
        unit = f" {self.unit}" if self.unit else ""
        if self.factor:
            return f"at most {self.factor:g} times the baseline and {self.high:g}{unit}"
        if self.against is Against.BASELINE:
            return f"within {self.high:g}{unit} of the baseline"
        if math.isinf(self.high):
            return f"at least {self.low:g}{unit}"
        return f"at most {self.high:g}{unit}{' in the same environment' if self.against is Against.SAME else ''}"


_EXACT: Final = "geometry is exact, or a contour lies at another place"
_DRAW: Final = "a difference that a planner can see in the planning window is several HU"

LIMITS: Final[Sequence[Limit]] = (
    Limit("missing_slices", "slices that are missing", "", Against.ITSELF, 0, 0, _EXACT),
    Limit("moved_slices", "slices at another place", "", Against.ITSELF, 0, 0, _EXACT),
    Limit(
        "changed_outside_voxels",
        "voxels that changed outside the window",
        "",
        Against.ITSELF,
        0,
        0,
        "lung, air and bone keep their values bit by bit",
    ),
    Limit(
        "gain_hu",
        "how much nearer to the truth the result is than the scan",
        "HU",
        Against.ITSELF,
        0.0,
        math.inf,
        "a result that is worse than no change at all is no use",
    ),
    Limit(
        "different_voxels",
        "voxels that differ from the baseline",
        "",
        Against.SAME,
        0,
        0,
        "the same bundle, device and software give the same bits",
    ),
    Limit(
        "largest_difference_hu",
        "largest difference of a voxel",
        "HU",
        Against.ITSELF,
        0.0,
        10.0,
        "bf16 in place of fp32 changes a voxel by 4.3 HU at most",
    ),
    Limit(
        "mean_difference_hu",
        "mean difference of the voxels",
        "HU",
        Against.ITSELF,
        0.0,
        0.1,
        "bf16 in place of fp32 changes them by 0.013 HU",
    ),
    Limit("blood_enhancement_hu", "mean enhancement of blood", "HU", Against.BASELINE, -1.0, 1.0, _DRAW),
    Limit("false_enhancement_hu", "mean false enhancement", "HU", Against.BASELINE, -0.5, 0.5, _DRAW),
    Limit("muscle_change_hu", "mean change of muscle", "HU", Against.BASELINE, -0.5, 0.5, _DRAW),
    Limit("fat_change_hu", "mean change of fat", "HU", Against.BASELINE, -0.5, 0.5, _DRAW),
    Limit("mae_hu", "mean absolute error in the window", "HU", Against.BASELINE, -0.5, 0.5, _DRAW),
    Limit("psnr_db", "PSNR in the window", "dB", Against.BASELINE, -0.2, 0.2, "0.2 dB are 2 % of the error"),
    Limit(
        "result_s",
        "time from the scan to the result",
        "s",
        Against.SAME,
        0.0,
        60.0,
        "a queue before it is no fault; a device that became ten times slower is one",
        factor=3.0,
    ),
)


@dataclass(frozen=True)
class Reference:
    """The figures of a baseline. is_same: whether it was made in the environment of the run that is judged."""

    figures: Mapping[str, float]
    is_same: bool


def faults(figures: Mapping[str, float], reference: Reference | None) -> list[str]:
    """A clause for each figure out of tolerance. A figure that was not measured, or is no number, is one.

    `compare`'s figures are not asked for where there is no baseline, and times not of a run that has none.
    """
    found = []
    for limit in LIMITS:
        if not _is_asked(limit, figures, reference):
            continue
        value, base = figures.get(limit.figure, math.nan), _base(limit, reference)
        if not is_within(limit, value, base):
            beside = f", the baseline has {base:.4g}" if base is not None else ""
            unit = f" {limit.unit}" if limit.unit else ""
            found.append(f"{limit.words}: {value:.4g}{unit}{beside}; tolerance {limit.tolerance}")
    return found


def is_within(limit: Limit, value: float, base: float | None) -> bool:
    """Whether a figure is in tolerance; base: the baseline's where the limit needs one, else None."""
    if not math.isfinite(value):
        return False
    if limit.factor:
        return base is not None and value <= limit.factor * base + limit.high
    return limit.low <= value - (base or 0.0) <= limit.high


def _is_asked(limit: Limit, figures: Mapping[str, float], reference: Reference | None) -> bool:
    if limit.figure in _OF_PAIRS and reference is None:
        return False
    if limit.against is Against.ITSELF:
        return True
    if reference is None or (limit.against is Against.SAME and not reference.is_same):
        return False
    return limit.figure != "result_s" or {limit.figure} <= figures.keys() & reference.figures.keys()


def _base(limit: Limit, reference: Reference | None) -> float | None:
    if reference is None or (limit.against is not Against.BASELINE and not limit.factor):
        return None
    return reference.figures.get(limit.figure, math.nan)


_OF_PAIRS: Final = frozenset({"different_voxels", "largest_difference_hu", "mean_difference_hu"})
