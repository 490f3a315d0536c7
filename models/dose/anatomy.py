"""What a plan needs of the anatomy, from HU alone: the body, the lungs, and the tangents of one breast."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, binary_opening, label

from models.errors import ModelsError

Volume = NDArray[np.float32]  # HU [z, y, x]; y towards the back, x towards the patient's left
Mask = NDArray[np.bool_]

LUNG_IN_FIELD_MM: Final = 20.0
"""Largest depth of lung behind the chest wall that a field may reach: the field border is put there."""
MARGIN_Z: Final = 0.15
_SKIN_HU: Final = -300.0
_LUNG_HU: Final = -400.0
_BESIDE_MIDLINE_MM: Final = 10.0


class NoBreastFields(ModelsError):
    """The anatomy of a scan does not let two tangents be laid: no lung, no body."""


@dataclass(frozen=True)
class Tangents:
    """Two opposed parallel fields in the transverse plane, one behind the other along `along`.

    along: unit vector (y, x) from the medial to the lateral side. outward: unit vector (y, x) across it, towards the
    breast. border_mm: place of the posterior border along `outward`, from the first pixel. slices: (first, last + 1).
    point_zyx: the voxel to which doses are normalised. side: "left" or "right". gantry_deg: angle of the medial field
    with the straight-ahead direction, degrees.
    """

    along: tuple[float, float]
    outward: tuple[float, float]
    border_mm: float
    slices: tuple[int, int]
    point_zyx: tuple[int, int, int]
    side: str
    gantry_deg: float


def body_mask(hu: Volume) -> Mask:
    """The patient in each slice, lungs included: the largest connected piece denser than -300 HU, filled."""
    found = np.zeros(hu.shape, bool)
    for z, image in enumerate(hu):
        dense = binary_opening(image > _SKIN_HU, iterations=2)  # a couch that touches the skin is cut off
        pieces, count = label(dense)
        if count:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            found[z] = binary_fill_holes(pieces == sizes.argmax())
    return found


def lung_mask(hu: Volume, body: Mask) -> Mask:
    """Air inside the body in pieces of more than 50 mL-like size: each slice's voxels under -400 HU, opened."""
    cross = np.zeros((3, 3, 3), bool)
    cross[1, 1], cross[1, :, 1] = True, True
    return np.asarray(binary_opening(body & (hu < _LUNG_HU), cross, iterations=2))


def lay_tangents(hu: Volume, body: Mask, lungs: Mask, spacing_mm: tuple[float, float, float]) -> Tangents:
    """Tangents of the left breast, or of the right one where there is no left lung; raises NoBreastFields.

    The direction joins the skin beside the midline with the skin half-way between front and back on the side. The
    posterior border, the same for both fields, lies where the lung reaches 20 mm into the field at most.
    """
    if not body.any() or not lungs.any():
        raise NoBreastFields("no body with lungs was found in the scan")
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    middle = int(columns[0] + columns[-1]) // 2
    halves = {"left": lungs[:, :, middle:].sum(), "right": lungs[:, :, :middle].sum()}
    side = "left" if halves["left"] >= 0.2 * halves["right"] else "right"
    lung = lungs.copy()
    lung[:, :, :middle] &= side == "right"
    lung[:, :, middle:] &= side == "left"
    z = int(lung.sum(axis=(1, 2)).argmax())
    medial, lateral = _entries(body[z], middle, spacing_mm, side)
    step = (lateral[0] - medial[0], lateral[1] - medial[1])
    length = math.hypot(*step)
    along = (step[0] / length, step[1] / length)
    outward = (-along[1], along[0]) if along[1] > 0 else (along[1], -along[0])
    if outward[0] > 0:  # towards the front, which is up in the picture
        outward = (-outward[0], -outward[1])
    y, x = np.nonzero(lung[z])
    reach_mm = float((y * spacing_mm[1] * outward[0] + x * spacing_mm[2] * outward[1]).max())
    border_mm = reach_mm - LUNG_IN_FIELD_MM
    with_lung = np.flatnonzero(lung.any(axis=(1, 2)))
    trim = int(MARGIN_Z * len(with_lung))
    slices = (int(with_lung[trim]), int(with_lung[-1 - trim]) + 1)
    point = _point(body[z] & ~lungs[z], outward, border_mm, spacing_mm)
    angle = math.degrees(math.atan2(along[0], abs(along[1])))
    return Tangents(along, outward, border_mm, slices, (z, *point), side, angle)


def _entries(
    body: Mask, middle: int, spacing_mm: tuple[float, float, float], side: str
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Skin beside the midline in front, and skin at the side, in mm (y, x)."""
    sign = 1 if side == "left" else -1
    column = middle + sign * round(_BESIDE_MIDLINE_MM / spacing_mm[2])
    rows = np.flatnonzero(body[:, column])
    if not rows.size:
        raise NoBreastFields("no skin was found beside the midline")
    half_way = int(rows[0] + rows[-1]) // 2
    across = np.flatnonzero(body[half_way])
    edge = across[-1] if side == "left" else across[0]
    return (rows[0] * spacing_mm[1], column * spacing_mm[2]), (half_way * spacing_mm[1], edge * spacing_mm[2])


def _point(
    tissue: Mask, outward: tuple[float, float], border_mm: float, spacing_mm: tuple[float, float, float]
) -> tuple[int, int]:
    """The pixel of the tissue in the field that is nearest to its centre."""
    y, x = np.nonzero(tissue)
    inside = y * spacing_mm[1] * outward[0] + x * spacing_mm[2] * outward[1] > border_mm
    if not inside.any():
        raise NoBreastFields("no tissue lies in front of the field border")
    y, x = y[inside], x[inside]
    nearest = int(((y - y.mean()) ** 2 + (x - x.mean()) ** 2).argmin())
    return int(y[nearest]), int(x[nearest])
