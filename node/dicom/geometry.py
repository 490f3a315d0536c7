"""The geometry of a stack of parallel slices, in numbers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Cosines: scanners reprint them with 6 digits, so equal orientations differ by up to 1e-6 each.
ORIENTATION_TOLERANCE: Final = 1e-4
# PS3.3 C.7.6.2.1.1: transverse with rows along the patient's left-right axis is |IOP| = [1, 0, 0, 0, 1, 0].
TRANSVERSE_TOLERANCE: Final = 1e-3
PIXEL_SPACING_TOLERANCE_MM: Final = 1e-5
# Scanners print positions with 2 or 3 decimals, so steps of one lattice differ by some 0.01 mm.
SPACING_TOLERANCE_MM: Final = 0.05
DUPLICATE_TOLERANCE_MM: Final = 0.01
# In-plane drift of the slice origin over the whole stack; 1 degree of tilt drifts 1.7 mm over 100 mm.
SHEAR_TOLERANCE_MM: Final = 0.2
# Below this share of occupied places a "lattice" is an accident of two interleaved stacks, not one with slices missing.
LEAST_OCCUPANCY: Final = 0.3


@dataclass(frozen=True, slots=True)
class SlicePlane:
    """Image plane of one slice (PS3.3 C.7.6.2): position and pixel spacing in mm, orientation as two unit vectors."""

    position_mm: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    pixel_spacing_mm: tuple[float, float]
    rows: int
    columns: int


class FlawKind(StrEnum):
    """Why a set of slices is no regular stack."""

    INVALID_PLANE = "invalid_plane"
    MIXED_ORIENTATION = "mixed_orientation"
    MIXED_PIXEL_SPACING = "mixed_pixel_spacing"
    MIXED_SIZE = "mixed_size"
    DUPLICATE_POSITION = "duplicate_position"
    SHEARED = "sheared"
    IRREGULAR_SPACING = "irregular_spacing"
    INTERIOR_GAP = "interior_gap"


@dataclass(frozen=True, slots=True)
class Flaw:
    """One flaw: how many slices it concerns, and where and how large in mm (or degrees for SHEARED)."""

    kind: FlawKind
    count: int = 0
    near_mm: float = 0.0
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class Stack:
    """A gap-free lattice of slices.

    order: indices of the given slices, ascending along the slice normal. spacing_mm: step of the lattice; for one
    slice 0.
    """

    order: tuple[int, ...]
    spacing_mm: float


def slice_normal(orientation: Sequence[float]) -> NDArray[np.float64]:
    """Unit normal, row cosines x column cosines; raises ValueError where they are no orthogonal unit vectors."""
    row, column = np.asarray(orientation[:3], dtype=np.float64), np.asarray(orientation[3:], dtype=np.float64)
    lengths = abs(float(np.linalg.norm(row)) - 1), abs(float(np.linalg.norm(column)) - 1), abs(float(row @ column))
    if max(lengths) > 1e-2:
        raise ValueError("row and column cosines are no orthogonal unit vectors")
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def is_transverse(orientation: Sequence[float]) -> bool:
    """True for axial slices whose rows run along the patient's left-right axis, in either direction."""
    wanted = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    return all(abs(abs(value) - want) <= TRANSVERSE_TOLERANCE for value, want in zip(orientation, wanted, strict=True))


def positions_along_normal(planes: Sequence[SlicePlane]) -> NDArray[np.float64]:
    """Signed distance of each slice from the origin along the first slice's normal, mm."""
    return np.array([plane.position_mm for plane in planes]) @ slice_normal(planes[0].orientation)


def describe_stack(planes: Sequence[SlicePlane]) -> Stack | Flaw:
    """Sort slices by position and check that they form one gap-free lattice; raises ValueError for no slices.

    A flaw that no further slice can mend is named before an interior gap. A gap is one where every step is a whole
    multiple of the smallest step; slices missing at either end cannot be seen.
    """
    if not planes:
        raise ValueError("a stack needs at least one slice")
    if flaw := _plane_flaw(planes):
        return flaw
    along = positions_along_normal(planes)
    order = np.argsort(along, kind="stable")
    positions = along[order]
    steps = np.diff(positions)
    if flaw := _duplicates(positions, steps) or _shear(planes):
        return flaw
    if steps.size == 0:
        return Stack((0,), 0.0)
    if flaw := _step_flaw(positions, steps):
        return flaw
    spacing = float((positions[-1] - positions[0]) / steps.size)
    return Stack(tuple(int(i) for i in order), spacing)


def _plane_flaw(planes: Sequence[SlicePlane]) -> Flaw | None:
    first = planes[0]
    invalid = sum(1 for plane in planes if not _is_valid(plane))
    if invalid:
        return Flaw(FlawKind.INVALID_PLANE, count=invalid)
    orientations = np.array([plane.orientation for plane in planes])
    turned = int((np.abs(orientations - orientations[0]).max(axis=1) > ORIENTATION_TOLERANCE).sum())
    if turned:
        return Flaw(FlawKind.MIXED_ORIENTATION, count=turned)
    resized = sum(1 for plane in planes if (plane.rows, plane.columns) != (first.rows, first.columns))
    if resized:
        return Flaw(FlawKind.MIXED_SIZE, count=resized)
    spacings = np.array([plane.pixel_spacing_mm for plane in planes])
    rescaled = int((np.abs(spacings - spacings[0]).max(axis=1) > PIXEL_SPACING_TOLERANCE_MM).sum())
    return Flaw(FlawKind.MIXED_PIXEL_SPACING, count=rescaled) if rescaled else None


def _is_valid(plane: SlicePlane) -> bool:
    try:
        slice_normal(plane.orientation)
    except ValueError:
        return False
    return min(plane.pixel_spacing_mm) > 0 and min(plane.rows, plane.columns) > 0


def _duplicates(positions: NDArray[np.float64], steps: NDArray[np.float64]) -> Flaw | None:
    same = np.flatnonzero(steps <= DUPLICATE_TOLERANCE_MM)
    return Flaw(FlawKind.DUPLICATE_POSITION, int(same.size), float(positions[same[0]])) if same.size else None


def _shear(planes: Sequence[SlicePlane]) -> Flaw | None:
    """A tilted gantry moves the origin in the image plane while the table moves along z (PS3.3 C.8.2.1.1.4)."""
    points = np.array([plane.position_mm for plane in planes])
    normal = slice_normal(planes[0].orientation)
    offsets = points - points[0]
    across = offsets - np.outer(offsets @ normal, normal)
    drifts = np.linalg.norm(across, axis=1)
    worst = int(drifts.argmax())
    if drifts[worst] <= SHEAR_TOLERANCE_MM:
        return None
    angle = float(np.degrees(np.arctan2(drifts[worst], abs(float(offsets[worst] @ normal)))))
    return Flaw(FlawKind.SHEARED, count=len(planes), size=angle)


def _step_flaw(positions: NDArray[np.float64], steps: NDArray[np.float64]) -> Flaw | None:
    """Irregular spacing or an interior gap: a gap is where every step is a whole multiple of the smallest."""
    smallest = float(steps[steps <= steps.min() + SPACING_TOLERANCE_MM].mean())
    multiples = np.maximum(np.round(steps / smallest), 1)
    # The smallest step alone is uncertain by the rounding of two positions, the sum of all steps hardly at all.
    base = float(steps.sum() / multiples.sum())
    multiples = np.maximum(np.round(steps / base), 1)
    deviations = np.abs(steps - multiples * base)
    places = steps.size + 1
    missing = int((multiples - 1).sum())
    worst = int(deviations.argmax())
    if deviations[worst] > SPACING_TOLERANCE_MM or places < LEAST_OCCUPANCY * (places + missing):
        irregular = max(1, int((deviations > SPACING_TOLERANCE_MM).sum()))
        return Flaw(FlawKind.IRREGULAR_SPACING, irregular, float(positions[worst]), float(steps[worst]))
    if missing == 0:
        return None
    first = int(np.flatnonzero(multiples > 1)[0])
    middle = float(positions[first] + steps[first] / 2)
    return Flaw(FlawKind.INTERIOR_GAP, missing, middle, float(steps[first]))
