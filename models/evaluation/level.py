"""Does a model know how much a patient's blood enhances, or does it draw the same level for everybody?

Nothing in a scan without contrast medium tells the level. A bundle that takes it as an input is held against what was
asked for; any other against the truth, where an honest slope is 0 and only the mean can be right.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import linregress
from scipy.stats import t as student_t

from models.metrics.hu import Change, Mask, false_enhancement, quiet_body, structure_masks
from models.phantom.tissues import Label

Volume = NDArray[np.float32]  # HU [z, y, x]
Translate = Callable[[Volume, tuple[float, float, float], float | None], Volume]
"""translate(hu, spacing_mm, level_hu): predicted HU [z, y, x]. spacing_mm: (z, y, x). level_hu: the enhancement of
blood that is asked for, HU, or None for the bundle's own convention."""

CONFIDENCE = 0.95
SMALL_VESSELS = (
    Label.SUBCLAVIAN_ARTERY,
    Label.SUBCLAVIAN_VEIN,
    Label.INTERNAL_MAMMARY,
    Label.CAROTID,
    Label.JUGULAR,
)
"""Those that a planner of breast and neck looks for; axillary vessels are the ends of the subclavian ones."""
_LEAST_VOXELS = 50


@dataclass(frozen=True)
class LevelPatient:
    """A phantom whose truth is known: scan, labels (models.phantom.Label) and true enhancement, HU, all [z, y, x]."""

    id: str
    hospital: str
    spacing_mm: tuple[float, float, float]
    ncct_hu: Volume
    labels: NDArray[np.uint8]
    enhancement_hu: Volume


@dataclass(frozen=True)
class LevelRow:
    """Blood of one patient: asked or true enhancement and predicted one, HU, and false enhancement, HU."""

    patient: str
    hospital: str
    expected_hu: float
    predicted_hu: float
    false_hu: float


@dataclass(frozen=True)
class LevelFit:
    """A straight line, predicted over expected level.

    `slope_low`, `slope_high`: 95 % confidence interval of the slope. `variance_ratio`: variance of the predicted levels
    over that of the expected ones. Not a number where fewer than three patients, or equal expected levels, say nothing.
    """

    patients: int
    slope: float
    slope_low: float
    slope_high: float
    intercept_hu: float
    variance_ratio: float


def fit_level(expected_hu: Sequence[float], predicted_hu: Sequence[float]) -> LevelFit:
    """Fit predicted over expected levels, one of each for a patient."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (expected_hu, predicted_hu))
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if x.size < 3 or np.ptp(x) == 0:
        return LevelFit(int(x.size), *(math.nan,) * 5)
    line = linregress(x, y)
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, x.size - 2) * line.stderr)
    slope = float(line.slope)
    ratio = float(y.var(ddof=1) / x.var(ddof=1))
    return LevelFit(int(x.size), slope, slope - reach, slope + reach, float(line.intercept), ratio)


def measure_levels(
    patients: Iterable[LevelPatient],
    translate: Translate,
    window_hu: tuple[float, float],
    *,
    takes_level: bool,
) -> list[LevelRow]:
    """One row a patient with blood in its slices: predicted against true level, which is asked for if that is possible.

    The same composite as in the node: only pixels inside the closed window change.
    """
    rows = []
    for patient in patients:
        blood = structure_masks(patient.labels).get("blood_pool")
        if blood is None:
            continue
        true_hu = float(patient.enhancement_hu[blood].mean(dtype=np.float64))
        change = _change(patient, translate, window_hu, true_hu if takes_level else None)
        rows.append(_row(patient, change, blood, true_hu, window_hu))
    return rows


def measure_requests(
    patients: Sequence[LevelPatient], translate: Translate, window_hu: tuple[float, float], levels_hu: Sequence[float]
) -> list[LevelRow]:
    """One row a patient and level: predicted against requested level, of a bundle that takes one."""
    rows = []
    for patient in patients:
        blood = structure_masks(patient.labels).get("blood_pool")
        if blood is None:
            continue
        for level_hu in levels_hu:
            change = _change(patient, translate, window_hu, level_hu)
            rows.append(_row(patient, change, blood, level_hu, window_hu))
    return rows


def measure_small_vessels(
    patients: Iterable[LevelPatient], translate: Translate, window_hu: tuple[float, float], *, takes_level: bool
) -> list[float]:
    """Predicted over true enhancement, summed over the vessels of shoulder, axilla and neck; one share a patient.

    1 is all of it, 0 a vessel that stays dark. Patients without such vessels are left out.
    """
    shares = []
    for patient in patients:
        small = np.isin(patient.labels, SMALL_VESSELS)
        if small.sum() < _LEAST_VOXELS:
            continue
        # What fills its voxels enhances like blood; most of these vessels are too thin for that.
        level_hu = float(np.percentile(patient.enhancement_hu[small], 95))
        change = _change(patient, translate, window_hu, level_hu if takes_level else None)
        true_hu = patient.enhancement_hu[small].sum(dtype=np.float64)
        shares.append(float(change[small].sum(dtype=np.float64) / true_hu))
    return shares


def _change(
    patient: LevelPatient, translate: Translate, window_hu: tuple[float, float], level_hu: float | None
) -> Volume:
    low, high = window_hu
    source = patient.ncct_hu
    predicted = np.clip(translate(source, patient.spacing_mm, level_hu), low, high)
    return np.where((source >= low) & (source <= high), predicted - source, np.float32(0))


def _row(
    patient: LevelPatient, change: Volume, blood: Mask, expected_hu: float, window_hu: tuple[float, float]
) -> LevelRow:
    quiet = quiet_body(patient.labels, patient.ncct_hu, patient.enhancement_hu, window_hu)
    false_hu, _ = false_enhancement(Change.of(change), quiet)
    return LevelRow(patient.id, patient.hospital, expected_hu, float(change[blood].mean(dtype=np.float64)), false_hu)
