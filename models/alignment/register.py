"""One scan of a patient is brought onto the grid of another. SimpleITK is loaded only when that is done."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.alignment.quality import LEAST_COVERAGE, AlignmentQuality, Fit, fit_of
from models.alignment.search import (
    AlignmentError,
    Grid,
    Scan,
    find_bend,
    find_rigid,
    identity_about,
    one_thread,
    resampled,
    simpleitk,
)

Volume = NDArray[np.float32]

OUTSIDE_HU = -1024.0
_SMALLEST = (4, 24, 24)  # voxels (z, y, x) of a scan that can be registered
# A placing moves pixels, which costs some of the noise: it must be worth it.
_LEAST_GAIN = 0.001


@dataclass(frozen=True)
class Alignment:
    """The moving scan on the fixed grid.

    `registered_hu` float32 [z, y, x]: interpolated with cubic B-splines, within the range of the moving scan, and
    OUTSIDE_HU where `covered` bool [z, y, x] is False because the place lies outside the moving scan.
    """

    registered_hu: Volume
    covered: NDArray[np.bool_]
    quality: AlignmentQuality


def align(fixed_hu: Volume, moving_hu: Volume, fixed: Grid, moving: Grid, *, deformable: bool = False) -> Alignment:
    """Register the moving scan to the fixed one, both HU [z, y, x] on their grids; the same input gives the same bits.

    A rigid transform is found by mutual information, so that enhancement does not matter, inside the body, so that the
    couch does not; it starts from the positions as stated and from body on body, and the better of the two goes on.
    `deformable` adds a B-spline with nodes about 40 mm apart. Each step is kept only if it improves the overlap that
    AlignmentQuality defines, else what was there before, so that a pair already in register is not touched.

    Cubic B-splines interpolate the result because linear interpolation takes up to 45 % of the noise between two
    voxels, which a network would learn as a property of enhanced scans; splines take about 12 %. Their price is some
    ringing from slice to slice at steep edges.

    Raises ValueError for arrays or grids that make no sense, AlignmentError for scans that cannot be registered, and
    ImportError without SimpleITK.
    """
    _check(fixed_hu, fixed, "fixed")
    _check(moving_hu, moving, "moving")
    with one_thread():
        return _align(fixed_hu, moving_hu, fixed, moving, deformable=deformable)


@dataclass(frozen=True)
class _Placing:
    name: str
    transform: Any
    fit: Fit


def _check(hu: Volume, grid: Grid, which: str) -> None:
    if hu.ndim != 3 or not np.isfinite(hu).all():
        raise ValueError(f"the {which} scan is no volume [z, y, x] of finite HU but {hu.shape}")
    if not all(map(math.isfinite, (*grid.origin_mm, *grid.spacing_mm))) or min(grid.spacing_mm) <= 0:
        raise ValueError(f"the {which} scan has no usable grid: {grid}")
    if any(length < least for length, least in zip(hu.shape, _SMALLEST, strict=True)):
        raise AlignmentError(f"the {which} scan of {hu.shape} voxels is too small to be registered")


def _align(fixed_hu: Volume, moving_hu: Volume, fixed: Grid, moving: Grid, *, deformable: bool) -> Alignment:
    still, mobile = Scan.of(fixed_hu, fixed, "fixed"), Scan.of(moving_hu, moving, "moving")
    best = before = _placing("identity", still, mobile, identity_about(still))
    steps = [("rigid", find_rigid), ("deformable", find_bend)] if deformable else [("rigid", find_rigid)]
    for name, step in steps:
        found = _placing(name, still, mobile, step(still, mobile, best.transform))
        if _is_better(found.fit, best.fit):
            best = found
    registered = _final(still, mobile, best)
    covered = np.isfinite(registered)
    registered = np.clip(registered, np.float32(moving_hu.min()), np.float32(moving_hu.max()))
    registered[~covered] = OUTSIDE_HU
    return Alignment(registered, covered, _quality(still, before.fit, best))


def _placing(name: str, still: Scan, mobile: Scan, transform: Any) -> _Placing:
    placed = resampled(mobile.work, still.work, transform)
    return _Placing(name, transform, fit_of(still.hu, still.body, placed, still.spacing_mm))


def _is_better(found: Fit, best: Fit) -> bool:
    # Of two slices that happen to meet a high overlap says nothing.
    enough = found.coverage >= LEAST_COVERAGE
    if enough != (best.coverage >= LEAST_COVERAGE):
        return enough
    return found.overlap > best.overlap + _LEAST_GAIN


def _final(still: Scan, mobile: Scan, placing: _Placing) -> Volume:
    same_grid = still.full.IsSameImageGeometryAs(mobile.full)
    if placing.name == "identity" and same_grid:
        values: Volume = simpleitk().GetArrayFromImage(mobile.full)
        return values
    return resampled(mobile.full, still.full, placing.transform)


def _quality(still: Scan, before: Fit, placing: _Placing) -> AlignmentQuality:
    sitk = simpleitk()
    bent = placing.name == "deformable"
    rigid = sitk.Euler3DTransform(placing.transform.GetNthTransform(0) if bent else placing.transform)
    turn = np.reshape(rigid.GetMatrix(), (3, 3))
    size = still.work.GetSize(), still.work.GetOrigin(), still.work.GetSpacing()
    field = sitk.TransformToDisplacementField(placing.transform, sitk.sitkVectorFloat64, *size)
    lengths = np.linalg.norm(sitk.GetArrayFromImage(field), axis=-1)[still.body]
    folded = 0.0
    if bent:
        determinant = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field))
        folded = float((determinant[still.body] <= 0).mean())
    return AlignmentQuality(
        translation_mm=math.hypot(*rigid.GetTranslation()),
        rotation_deg=math.degrees(math.acos(min(1.0, max(-1.0, (float(np.trace(turn)) - 1) / 2)))),
        displacement_mm=float(np.percentile(lengths, 95)),
        folded_share=folded,
        overlap_before=before.overlap,
        overlap_after=placing.fit.overlap,
        residual_before_hu=before.residual_hu,
        residual_after_hu=placing.fit.residual_hu,
        coverage=placing.fit.coverage,
        kept=placing.name,
    )
