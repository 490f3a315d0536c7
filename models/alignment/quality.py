"""How well two scans on one grid lie on each other, by the tissues that contrast medium does not change.

Arrays are [z, y, x] on a working grid of about 2.5 mm, where noise is averaged out.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_fill_holes, binary_opening, label

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

SKIN_HU = -300.0
GAS_HU = -400.0
BONE_HU = 400.0
"""Enhanced blood stays below, but for the few millilitres of a vein into which the medium runs undiluted."""
FAT_HU = (-150.0, -50.0)

# After the rigid step ten phantom patients, moved as models.phantom.misregistration draws it, had overlaps of 0.77 to
# 0.91 and residuals of 17 to 36 HU; nine pairs of different patients had 0.53 to 0.64 and 52 to 172 HU.
LEAST_OVERLAP = 0.70
LARGEST_RESIDUAL_HU = 45.0
# Judgement: less leaves too little to tell a right placing from a wrong one, and nobody lies that askew.
LEAST_COVERAGE = 0.25
LARGEST_ROTATION_DEG = 10.0
# Tissue does not fold; a few voxels at the edge of the body may.
LARGEST_FOLDED_SHARE = 0.001

_LARGEST_DIFFERENCE_HU = 200.0
_OPENING_MM = 6.0
_SMALLEST_STRUCTURE_ML = 5.0


@dataclass(frozen=True)
class Fit:
    """How one placing of the moving scan fits: overlap, residual and coverage as AlignmentQuality defines them."""

    overlap: float
    residual_hu: float
    coverage: float


@dataclass(frozen=True)
class AlignmentQuality:
    """How a moving scan was placed on a fixed one, and how well it lies there.

    `kept`: the placing that was chosen, "identity" (positions as the scans state them), "rigid" or "deformable".
    `translation_mm`, `rotation_deg`: size of its rigid part, the translation being that of the body's centre.
    `displacement_mm`: 95th percentile in the body of the length of the whole displacement.
    `folded_share`: share of body voxels where the displacement's Jacobian determinant is not positive, 0 if rigid.

    `overlap_before` (identity) and `overlap_after`: mean Dice overlap, where the moving scan shows something, of three
    structures of each scan: the body without the couch, the gas in it (under GAS_HU: lung, airways, bowel gas) and the
    bone in it (over BONE_HU). What has under 5 ml in both scans is left out; 0 where nothing can be compared.
    `residual_before_hu`, `residual_after_hu`: mean |moving - fixed| in HU over the fat of the fixed scan (FAT_HU,
    inside the body), each difference capped at 200 HU so that a little gas does not outweigh the rest. Fat takes up no
    medium: what differs there is noise, or muscle, a vessel, gas or bone that now lies where fat was. Not a number
    without fat.
    `coverage`: share of the fixed scan's body of which the moving scan shows a counterpart.
    """

    translation_mm: float
    rotation_deg: float
    displacement_mm: float
    folded_share: float
    overlap_before: float
    overlap_after: float
    residual_before_hu: float
    residual_after_hu: float
    coverage: float
    kept: str = "rigid"

    @property
    def reason(self) -> str:
        """Why the pair is not good enough, as one sentence; empty where it is."""
        if self.coverage < LEAST_COVERAGE:
            return f"only {self.coverage:.0%} of the patient lies in both scans"
        if self.overlap_after < LEAST_OVERLAP:
            return f"outline, lung and bone of the scans overlap by {self.overlap_after:.2f}, under {LEAST_OVERLAP}"
        if self.residual_after_hu > LARGEST_RESIDUAL_HU:
            return f"fat differs by {self.residual_after_hu:.0f} HU between the scans, over {LARGEST_RESIDUAL_HU:.0f}"
        if self.rotation_deg > LARGEST_ROTATION_DEG:
            return f"the scans are rotated by {self.rotation_deg:.0f} degrees, over {LARGEST_ROTATION_DEG:.0f}"
        if self.folded_share > LARGEST_FOLDED_SHARE:
            return f"the displacement folds {self.folded_share:.1%} of the body, over {LARGEST_FOLDED_SHARE:.1%}"
        return ""

    @property
    def acceptable(self) -> bool:
        """Whether there is no reason against the pair."""
        return not self.reason

    def to_mapping(self) -> dict[str, float | str | None]:
        """The figures as JSON values: mm and degrees to 0.01, HU to 0.1, shares to 0.0001, None for not a number."""
        figures: dict[str, float | str | None] = {"kept": self.kept}
        for name, value in vars(self).items():
            if name != "kept":
                digits = 2 if name.endswith(("_mm", "_deg")) else 1 if name.endswith("_hu") else 4
                figures[name] = round(value, digits) if math.isfinite(value) else None
        return figures


def body_mask(hu: Volume, spacing_mm: Spacing) -> Mask:
    """The patient without the couch: the largest component over SKIN_HU after an opening in plane, each slice filled.

    The opening takes away what is thinner than about 12 mm, such as the couch's shell and what joins it to the skin.
    All False where nothing is left.
    """
    parts, count = label(binary_opening(hu > SKIN_HU, _disc(_OPENING_MM, spacing_mm)))
    if not count:
        return np.zeros(hu.shape, bool)
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return np.stack([binary_fill_holes(plane) for plane in largest]).astype(bool)


def dilated(mask: Mask, distance_mm: float, spacing_mm: Spacing) -> Mask:
    """The mask and what lies within a distance of it in plane."""
    return np.asarray(binary_dilation(mask, _disc(distance_mm, spacing_mm)))


def fit_of(fixed_hu: Volume, fixed_body: Mask, placed_hu: Volume, spacing_mm: Spacing) -> Fit:
    """How a placed scan fits the fixed one, all [z, y, x]; `placed_hu` is not a number where it shows nothing."""
    seen = np.isfinite(placed_hu)
    placed = np.where(seen, placed_hu, np.float32(-1024))
    smallest = _SMALLEST_STRUCTURE_ML * 1000 / math.prod(spacing_mm)
    overlaps = []
    pairs = zip(_structures(fixed_hu, fixed_body), _structures(placed, body_mask(placed, spacing_mm)), strict=True)
    for structure, counterpart in pairs:
        sizes = int((structure & seen).sum()), int((counterpart & seen).sum())
        if max(sizes) >= smallest:
            overlaps.append(2 * int((structure & counterpart & seen).sum()) / sum(sizes))
    fat = fixed_body & seen & (fixed_hu > FAT_HU[0]) & (fixed_hu < FAT_HU[1])
    difference = np.minimum(np.abs(placed[fat] - fixed_hu[fat]), np.float32(_LARGEST_DIFFERENCE_HU))
    return Fit(
        overlap=float(np.mean(overlaps)) if overlaps else 0.0,
        residual_hu=float(difference.mean(dtype=np.float64)) if difference.size else math.nan,
        coverage=float(seen[fixed_body].mean()),
    )


def _structures(hu: Volume, body: Mask) -> tuple[Mask, Mask, Mask]:
    return body, body & (hu < GAS_HU), body & (hu > BONE_HU)


def _disc(radius_mm: float, spacing_mm: Spacing) -> Mask:
    """A disc in plane [1, y, x], at least one pixel in radius."""
    rows, columns = (max(1, round(radius_mm / step)) for step in spacing_mm[1:])
    y, x = np.mgrid[-rows : rows + 1, -columns : columns + 1]
    return np.asarray(((y / rows) ** 2 + (x / columns) ** 2 <= 1)[None])
