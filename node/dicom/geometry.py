"""The geometry of a stack of parallel slices, in numbers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.dicom.lattice import Unevenness, find_unevenness

# Cosines: scanners reprint them with 6 digits, so equal orientations differ by up to 1e-6 each.
ORIENTATION_TOLERANCE: Final = 1e-4
# PS3.3 C.7.6.2.1.1: transverse with rows along the patient's left-right axis is |IOP| = [1, 0, 0, 0, 1, 0].
TRANSVERSE_TOLERANCE: Final = 1e-3
# Of the spacing itself: pixel spacing printed with 4 or with 10 digits moves the far end of 500 mm by less than 0.1 mm.
PIXEL_SPACING_TOLERANCE: Final = 2e-4
PIXEL_SPACING_LIMITS_MM: Final = (0.01, 100.0)  # no CT scanner is near either; filters take room for 1 / spacing
FARTHEST_MM: Final = 1e6  # of a slice from the origin; beyond, no step of a lattice can be told from its neighbours
DUPLICATE_TOLERANCE_MM: Final = 0.01
# In-plane drift of the slice origin over the whole stack; 1 degree of tilt drifts 1.7 mm over 100 mm.
SHEAR_TOLERANCE_MM: Final = 0.2


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
    SHIFTED = "shifted"
    SHEARED = "sheared"
    IRREGULAR_SPACING = "irregular_spacing"
    CHANGED_SPACING = "changed_spacing"
    INTERIOR_GAP = "interior_gap"


_OF_SPACING: Final = frozenset({FlawKind.IRREGULAR_SPACING, FlawKind.CHANGED_SPACING})


@dataclass(frozen=True, slots=True)
class Flaw:
    """One flaw of a set of slices.

    reason: what was measured, a clause for a person. count: how many slices it concerns, or are missing. between_mm:
    patient z of the two neighbouring slices where it shows first, mm; (0, 0) for a flaw that lies between no slices.
    size: mm, or degrees for SHEARED.
    """

    kind: FlawKind
    reason: str
    count: int = 0
    between_mm: tuple[float, float] = (0.0, 0.0)
    size: float = 0.0

    @property
    def more_slices_could_mend_it(self) -> bool:
        """True where slices that are still to come may fill what looks uneven now."""
        return self.kind in _OF_SPACING or self.kind is FlawKind.INTERIOR_GAP


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


def why_not_transverse(orientation: Sequence[float]) -> str:
    """How far slices are from transverse, as a clause; "" for axial slices whose rows run along the patient's
    left-right or front-back axis, in either direction. Raises ValueError where `slice_normal` does.
    """
    along_x, along_y = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 1.0, 0.0, 0.0)
    for wanted in (along_x, along_y):
        if all(abs(abs(v) - want) <= TRANSVERSE_TOLERANCE for v, want in zip(orientation, wanted, strict=True)):
            return ""
    tilt_deg = _degrees(abs(float(slice_normal(orientation)[2])))
    turn_deg = _degrees(max(abs(orientation[0]), abs(orientation[1])))
    if tilt_deg > turn_deg:
        return f"their normal is {tilt_deg:.1f} degrees off the patient's head-feet axis"
    return f"their rows are {turn_deg:.1f} degrees off the patient's left-right or front-back axis"


def _degrees(cosine: float) -> float:
    return float(np.degrees(np.arccos(min(cosine, 1.0))))


def positions_along_normal(planes: Sequence[SlicePlane]) -> NDArray[np.float64]:
    """Signed distance of each slice from the origin along the first slice's normal, mm."""
    return np.array([plane.position_mm for plane in planes]) @ slice_normal(planes[0].orientation)


def describe_stack(planes: Sequence[SlicePlane], position_tolerance_mm: float) -> Stack | Flaw:
    """Sort slices by position and check that they form one gap-free lattice; raises ValueError for no slices.

    position_tolerance_mm: how far a slice may lie from the lattice along the normal. A flaw that no further slice can
    mend is named before an interior gap. A gap is one where every step is a whole multiple of the smallest step and the
    wider ones are no run of equal steps at an end; slices missing at either end cannot be seen.
    """
    if not planes:
        raise ValueError("a stack needs at least one slice")
    if flaw := _plane_flaw(planes):
        return flaw
    along = positions_along_normal(planes)
    order = np.argsort(along, kind="stable")
    positions = along[order]
    z_mm = np.array([plane.position_mm[2] for plane in planes])[order]
    if (
        flaw := _duplicates(positions, z_mm)
        or _sideways(planes, order)
        or _uneven(positions, z_mm, position_tolerance_mm)
    ):
        return flaw
    steps = len(planes) - 1
    spacing = float(positions[-1] - positions[0]) / steps if steps else 0.0
    return Stack(tuple(int(i) for i in order), spacing)


def _plane_flaw(planes: Sequence[SlicePlane]) -> Flaw | None:
    first = planes[0]
    if invalid := sum(1 for plane in planes if not _is_valid(plane)):
        reason = "an image has an impossible position, orientation, pixel spacing or size"
        return Flaw(FlawKind.INVALID_PLANE, reason, count=invalid)
    orientations = np.array([plane.orientation for plane in planes])
    away = np.abs(orientations - orientations[0]).max(axis=1)
    if turned := int((away > ORIENTATION_TOLERANCE).sum()):
        angle_deg = _angle_between(orientations[0], orientations[int(away.argmax())])
        reason = f"the images do not all have the same orientation (they differ by up to {angle_deg:.3g} degrees)"
        return Flaw(FlawKind.MIXED_ORIENTATION, reason, count=turned)
    if resized := sum(1 for plane in planes if (plane.rows, plane.columns) != (first.rows, first.columns)):
        reason = "the images do not all have the same number of rows and columns"
        return Flaw(FlawKind.MIXED_SIZE, reason, count=resized)
    spacings = np.array([plane.pixel_spacing_mm for plane in planes])
    other = np.abs(spacings / spacings[0] - 1).max(axis=1) > PIXEL_SPACING_TOLERANCE
    if rescaled := int(other.sum()):
        one, two = spacings[0], spacings[int(other.argmax())]
        axis = int(np.abs(two / one - 1).argmax())
        reason = f"the images do not all have the same pixel spacing ({one[axis]:g} and {two[axis]:g} mm)"
        return Flaw(FlawKind.MIXED_PIXEL_SPACING, reason, count=rescaled)
    return None


def _angle_between(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The larger of the angles between the row and between the column cosines of two slices, degrees."""
    chord = float(np.linalg.norm((one - other).reshape(2, 3), axis=1).max())
    return float(np.degrees(2 * np.arcsin(min(chord / 2, 1.0))))


def _is_valid(plane: SlicePlane) -> bool:
    try:
        slice_normal(plane.orientation)
    except ValueError:
        return False
    smallest_mm, largest_mm = PIXEL_SPACING_LIMITS_MM
    is_plausible = all(smallest_mm <= step <= largest_mm for step in plane.pixel_spacing_mm)
    is_near = all(abs(value) <= FARTHEST_MM for value in plane.position_mm)
    return is_plausible and is_near and min(plane.rows, plane.columns) > 0


def _duplicates(positions: NDArray[np.float64], z_mm: NDArray[np.float64]) -> Flaw | None:
    same = np.flatnonzero(np.diff(positions) <= DUPLICATE_TOLERANCE_MM)
    if not same.size:
        return None
    between = float(z_mm[same[0]]), float(z_mm[same[0] + 1])
    reason = (
        f"several images lie at the same position (first at z = {_mm(between[0])} mm): the series mixes acquisitions "
        "or phases"
    )
    return Flaw(FlawKind.DUPLICATE_POSITION, reason, int(same.size), between)


def _sideways(planes: Sequence[SlicePlane], order: NDArray[np.intp]) -> Flaw | None:
    """Origins that move in the image plane: at one place, as where two acquisitions were joined, or evenly."""
    points = np.array([plane.position_mm for plane in planes])[order]
    normal = slice_normal(planes[0].orientation)
    offsets = points - points[0]
    along = offsets @ normal
    across = offsets - np.outer(along, normal)
    drift_mm = float(np.linalg.norm(across, axis=1).max())
    if drift_mm <= SHEAR_TOLERANCE_MM:
        return None
    slope = along @ across / float(along @ along)
    if float(np.linalg.norm(across - np.outer(along, slope), axis=1).max()) > SHEAR_TOLERANCE_MM:
        return _jump(np.linalg.norm(np.diff(across, axis=0), axis=1), points[:, 2])
    angle = float(np.degrees(np.arctan(np.linalg.norm(slope))))
    reason = (
        f"the images are shifted sideways evenly, by {drift_mm:.1f} mm over {abs(float(along[-1])):.1f} mm of "
        f"the stack ({angle:.1f} degrees)"
    )
    return Flaw(FlawKind.SHEARED, reason, count=len(planes), size=angle)


def _jump(shifts_mm: NDArray[np.float64], z_mm: NDArray[np.float64]) -> Flaw:
    worst = int(shifts_mm.argmax())
    size, between = float(shifts_mm[worst]), (float(z_mm[worst]), float(z_mm[worst + 1]))
    reason = f"the images are shifted sideways by {size:.1f} mm between the slices at {_places(between)}"
    return Flaw(FlawKind.SHIFTED, reason, int((shifts_mm > SHEAR_TOLERANCE_MM).sum()), between, size)


def _uneven(positions: NDArray[np.float64], z_mm: NDArray[np.float64], tolerance_mm: float) -> Flaw | None:
    """Irregular or changed spacing, or an interior gap; the text is of the slices between which it lies."""
    found = find_unevenness(positions, tolerance_mm)
    if found is None:
        return None
    between = float(z_mm[found.step]), float(z_mm[found.step + 1])
    places = _places(between)
    if found.kind is Unevenness.GAP:
        are = "1 image is" if found.missing == 1 else f"{found.missing} images are"
        reason = (
            f"{are} missing inside the series, the first between {places}, where the distance is "
            f"{found.step_mm:.2f} mm instead of {found.usual_mm:.2f} mm"
        )
        return Flaw(FlawKind.INTERIOR_GAP, reason, found.missing, between, found.step_mm)
    if found.kind is Unevenness.CHANGED:
        reason = (
            f"the distance between the images changes from {found.usual_mm:.2f} mm to {found.step_mm:.2f} mm between "
            f"{places}"
        )
        return Flaw(FlawKind.CHANGED_SPACING, reason, found.missing, between, found.step_mm)
    reason = (
        f"the distance between the images is irregular: {found.step_mm:.2f} mm between {places}, elsewhere mostly "
        f"{found.usual_mm:.2f} mm"
    )
    return Flaw(FlawKind.IRREGULAR_SPACING, reason, found.missing, between, found.step_mm)


def _places(between_mm: tuple[float, float]) -> str:
    return f"z = {_mm(between_mm[0])} and z = {_mm(between_mm[1])} mm"


def _mm(value: float) -> str:
    """With 1 decimal, or as many as are needed, up to 3."""
    text = f"{value:.3f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text
