"""Gross manipulations of a result, to ask gates whether they hold them. Pure functions; nothing changes in place.

Each takes an `Attacked` and a random generator and returns another result, HU [z, y, x], not yet clipped to any window.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from models.phantom.tissues import Label

Volume = NDArray[np.float32]  # HU [z, y, x]

SHIFT_HU: Final = 100.0
OFFSET_HU: Final = -15.0
SHIFT_SLICES: Final = 20
BALL_HU: Final = 200.0
BALL_MM: Final = 30.0
NOISE_HU: Final = 30.0
BRIGHT_HU: Final = 400.0
EVERY: Final = 8
BLUR_MM: Final = 5.0
MOVE_MM: Final = 20.0
FAT_HU: Final = -100.0
MASSES: Final = (Label.LUNG_MASS, Label.METASTATIC_NODE, Label.ATELECTASIS, Label.PLEURAL_EFFUSION)
"""What `erased_mass` takes away, the first of them that is there."""

_TISSUE_HU: Final = (0.0, 80.0)
_TRIES: Final = 200


@dataclass(frozen=True)
class Attacked:
    """What an attack may look at.

    result_hu, source_hu: HU [z, y, x], what the node would send and what it got. labels: values of
    models.phantom.Label, or None where nobody knows them. spacing_mm: (z, y, x).
    """

    result_hu: Volume
    source_hu: Volume
    spacing_mm: tuple[float, float, float]
    labels: NDArray[np.uint8] | None = None

    @property
    def enhancement_hu(self) -> Volume:
        """result - source."""
        return self.result_hu - self.source_hu


Attack = Callable[[Attacked, np.random.Generator], Volume]


def brighter(case: Attacked, _rng: np.random.Generator) -> Volume:
    """Everything 100 HU brighter."""
    return case.result_hu + np.float32(SHIFT_HU)


def mirrored(case: Attacked, _rng: np.random.Generator) -> Volume:
    """The enhancement left and right exchanged."""
    return case.source_hu + case.enhancement_hu[:, :, ::-1]


def shifted(case: Attacked, _rng: np.random.Generator) -> Volume:
    """The enhancement of a slice 20 slices further, or half the series further where it is shorter than 40."""
    count = len(case.source_hu)
    return case.source_hu + np.roll(case.enhancement_hu, min(SHIFT_SLICES, count // 2), axis=0)


def erased_mass(case: Attacked, rng: np.random.Generator) -> Volume:
    """A mass replaced by fat: the largest one of MASSES, or a ball of 30 mm in soft tissue where none is labelled."""
    return np.where(_mass(case, rng), np.float32(FAT_HU), case.result_hu)


def invented_ball(case: Attacked, rng: np.random.Generator) -> Volume:
    """A ball of 200 HU and 30 mm across in soft tissue."""
    return np.where(_ball_in_tissue(case, rng), np.float32(BALL_HU), case.result_hu)


def noisy(case: Attacked, rng: np.random.Generator) -> Volume:
    """White noise of 30 HU on top."""
    return case.result_hu + np.float32(NOISE_HU) * rng.standard_normal(case.result_hu.shape, dtype=np.float32)


def bright_slices(case: Attacked, _rng: np.random.Generator) -> Volume:
    """Every 8th slice at 400 HU."""
    result = case.result_hu.copy()
    result[EVERY // 2 :: EVERY] = BRIGHT_HU
    return result


def darker(case: Attacked, _rng: np.random.Generator) -> Volume:
    """Everything 15 HU darker."""
    return case.result_hu + np.float32(OFFSET_HU)


def inverted(case: Attacked, _rng: np.random.Generator) -> Volume:
    """The enhancement subtracted instead of added."""
    return case.source_hu - case.enhancement_hu


def moved(case: Attacked, _rng: np.random.Generator) -> Volume:
    """The enhancement 20 mm to the side, as of a patient who moved."""
    return case.source_hu + np.roll(case.enhancement_hu, round(MOVE_MM / case.spacing_mm[2]), axis=2)


def blurred(case: Attacked, _rng: np.random.Generator) -> Volume:
    """Every slice smoothed with a Gaussian of 5 mm: anatomy is lost."""
    sigma = [0.0, *(BLUR_MM / step for step in case.spacing_mm[1:])]
    return np.asarray(gaussian_filter(case.result_hu, sigma), dtype=np.float32)


def half_missing(case: Attacked, _rng: np.random.Generator) -> Volume:
    """No enhancement in the upper half of the series, as of a model that gave up."""
    result = case.result_hu.copy()
    middle = len(result) // 2
    result[middle:] = case.source_hu[middle:]
    return result


ATTACKS: Final[dict[str, Attack]] = {
    "everything +100 HU": brighter,
    "enhancement mirrored": mirrored,
    "enhancement shifted by 20 slices": shifted,
    "a mass erased": erased_mass,
    "a ball of 200 HU invented": invented_ball,
    "noise of 30 HU": noisy,
    "every 8th slice at 400 HU": bright_slices,
    "everything -15 HU": darker,
    "enhancement inverted": inverted,
    "enhancement moved by 20 mm": moved,
    "blurred by 5 mm": blurred,
    "half of the series without enhancement": half_missing,
}
"""By the names in which reports speak of them."""


def _mass(case: Attacked, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Where a mass is, the largest connected one of the first kind that is labelled."""
    for kind in MASSES if case.labels is not None else ():
        pieces, count = label(case.labels == kind)
        if count:
            return np.asarray(pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax()))
    return _ball_in_tissue(case, rng)


def _ball_in_tissue(case: Attacked, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A ball of 30 mm where most of the source is soft tissue; of 200 places tried, the one with most of it."""
    smooth = gaussian_filter(case.source_hu, [0.0, 2.0, 2.0])
    tissue = (smooth > _TISSUE_HU[0]) & (smooth < _TISSUE_HU[1])
    places = np.argwhere(tissue)
    if not len(places):
        raise ValueError("the source holds no soft tissue in which a ball could lie")
    best, most = places[0], -1
    for place in places[rng.integers(len(places), size=_TRIES)]:
        box, ball = _ball(case, place)
        inside = int((tissue[box] & ball).sum())
        if inside > most:
            best, most = place, inside
    mask = np.zeros(case.source_hu.shape, bool)
    box, ball = _ball(case, best)
    mask[box] = ball
    return mask


def _ball(case: Attacked, place: NDArray[np.intp]) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
    """The box of a ball around a voxel as far as it lies in the volume, and the ball inside this box."""
    box, offsets_mm = [], []
    for middle, size, step in zip(place, case.source_hu.shape, case.spacing_mm, strict=True):
        reach = int(BALL_MM / 2 / step)
        box.append(slice(max(0, int(middle) - reach), min(size, int(middle) + reach + 1)))
        offsets_mm.append((np.arange(box[-1].start, box[-1].stop) - middle) * step)
    z, y, x = np.meshgrid(*offsets_mm, indexing="ij", sparse=True)
    return tuple(box), z**2 + y**2 + x**2 <= (BALL_MM / 2) ** 2
