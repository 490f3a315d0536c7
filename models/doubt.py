"""Doubt per voxel: how far a model's second look at a series differs from its first. Pure arrays, no torch."""

from dataclasses import dataclass, field
from functools import reduce
from typing import Final

import numpy as np
import scipy  # loads scipy.ndimage when it is first used
from numpy.typing import NDArray

Image = NDArray[np.float32]  # HU [z, y, x]
Mask = NDArray[np.bool_]  # [z, y, x]

LIMIT_OF_LEVEL: Final = 0.10
"""The doubt that counts, as a share of the enhancement of blood that results are drawn with."""
USUAL_LEVEL_HU: Final = 110.0
"""Stands for the level of a bundle that was taught none."""
SMALLEST_ML: Final = 0.5
BRIGHTENED_HU: Final = 20.0

_WORKING_PIXEL_MM: Final = 2.0
_SMOOTHING_MM: Final = 3.0  # both looks interpolate edges in other places; over so many mm that averages out
_LENDING_MM: Final = 6.0
_LENDING_BETWEEN_SLICES_MM: Final = 3.0
_LEAST_SHARE: Final = 0.05  # of soft tissue around a voxel, below which there is too little to compare


@dataclass(frozen=True, slots=True)
class DoubtFigures:
    """What a result's doubt amounts to.

    doubtful_ml: volume of the mask. brightened_ml: soft tissue that either look made brighter by more than
    BRIGHTENED_HU. doubtful_share: part of it that is in the mask, 0 to 1. fullest_slice: the z index of the slice with
    most of the mask, None where it is empty.
    """

    doubtful_ml: float
    brightened_ml: float
    doubtful_share: float
    fullest_slice: int | None = field(default=None)


def limit_hu(level_hu: float | None) -> float:
    """The doubt from which a voxel may count as doubtful, HU; level_hu as `Translator.level_hu`."""
    return LIMIT_OF_LEVEL * (USUAL_LEVEL_HU if level_hu is None else level_hu)


def measure_doubt(first_hu: Image, second_hu: Image, inside: Mask, spacing_mm: tuple[float, float, float]) -> Image:
    """The local size of the difference of two looks, float32 HU [z, y, x], 0 where not `inside`.

    inside: where a result may differ from its source. spacing_mm: (z, y, x). The difference is averaged over some 3 mm
    in the plane, so that an edge that only lies a pixel aside does not count; its RMS is then taken over some 6 mm in
    the plane and 3 mm along z, because neighbouring slices were seen through other views. Blocks of about 2 mm share
    one value. Raises ValueError for arrays of different shapes.
    """
    if not first_hu.shape == second_hu.shape == inside.shape:
        raise ValueError(f"shapes {first_hu.shape}, {second_hu.shape} and {inside.shape} differ")
    z_mm, y_mm, x_mm = spacing_mm
    _, rows, columns = inside.shape
    ky, kx = (min(max(1, round(_WORKING_PIXEL_MM / step)), size) for step, size in ((y_mm, rows), (x_mm, columns)))
    doubt = np.zeros(inside.shape, np.float32)
    box = _box_of(inside, (1, ky, kx))
    if box is None:
        return doubt
    first, second, where = first_hu[box], second_hu[box], inside[box]
    sigma = [(0.0, _SMOOTHING_MM / (ky * y_mm), _SMOOTHING_MM / (kx * x_mm))]
    sigma += [(_LENDING_BETWEEN_SLICES_MM / z_mm, _LENDING_MM / (ky * y_mm), _LENDING_MM / (kx * x_mm))]
    weight = np.empty((len(where), -(-where.shape[1] // ky), -(-where.shape[2] // kx)), np.float32)
    square = np.empty_like(weight)
    for z, here in enumerate(where):  # slice by slice: what a processor keeps near is filtered fastest
        total = _block_means(np.where(here, second[z] - first[z], np.float32(0)), ky, kx)
        weight[z] = _block_means(here.astype(np.float32), ky, kx)
        mean = _around(total, sigma[0][1:]) / np.maximum(_around(weight[z], sigma[0][1:]), np.float32(_LEAST_SHARE))
        square[z] = mean * mean * weight[z]
    square = _around(square, sigma[1]) / np.maximum(_around(weight, sigma[1]), np.float32(_LEAST_SHARE))
    for z, here in enumerate(where):
        large = np.sqrt(np.maximum(square[z], 0)).repeat(ky, axis=0).repeat(kx, axis=1)
        np.copyto(doubt[box][z], large[: here.shape[0], : here.shape[1]], where=here)
    return doubt


def doubtful(doubt_hu: Image, limit: float, spacing_mm: tuple[float, float, float]) -> Mask:
    """Where the doubt exceeds `limit`, HU, without pieces smaller than SMALLEST_ML."""
    above = doubt_hu > limit
    box = _box_of(above, (1, 1, 1))
    if box is None:
        return above
    near = above[box]
    pieces, count = scipy.ndimage.label(near)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    of_piece = pieces[near]  # few voxels of a scan, where the rest would only be counted as no piece
    large = np.bincount(of_piece, minlength=count + 1) * voxel_ml >= SMALLEST_ML
    near[near] = large[of_piece]
    return above


def _box_of(mask: Mask, blocks: tuple[int, int, int]) -> tuple[slice, slice, slice] | None:
    """The box of all that is set, from border to border of blocks of (z, y, x) voxels, with one empty block around it
    where the volume goes on: filters see the same inside it as in the whole. None where nothing is set."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not slices.size:
        return None
    plane: Mask = np.asarray(mask[slices[0] : slices[-1] + 1].any(axis=0))
    rows, columns = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
    z, y, x = (
        slice(max(0, int(found[0]) // block - 1) * block, min(whole, (int(found[-1]) // block + 2) * block))
        for found, block, whole in zip((slices, rows, columns), blocks, mask.shape, strict=True)
    )
    return z, y, x


def _around(values: Image, sigma: tuple[float, ...]) -> Image:
    """Weighted means around each value; `sigma` in values along each axis."""
    return np.asarray(scipy.ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=3.0), np.float32)


def figures_of(
    mask: Mask,
    first_hu: Image,
    second_hu: Image,
    source_hu: Image,
    *,
    inside: Mask,
    spacing_mm: tuple[float, float, float],
) -> DoubtFigures:
    """Measure a mask against what both looks made of their source; all shapes are equal."""
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    count, agreed = 0, 0
    for z, where in enumerate(inside):
        brightened = where & (np.maximum(first_hu[z], second_hu[z]) - source_hu[z] > BRIGHTENED_HU)
        count += int(np.count_nonzero(brightened))
        agreed += int(np.count_nonzero(brightened & ~mask[z]))
    by_slice = np.count_nonzero(mask, axis=(1, 2))
    return DoubtFigures(
        doubtful_ml=int(by_slice.sum()) * voxel_ml,
        brightened_ml=count * voxel_ml,
        doubtful_share=(count - agreed) / count if count else 0.0,
        fullest_slice=int(by_slice.argmax()) if by_slice.any() else None,
    )


def _block_means(values: Image, ky: int, kx: int) -> Image:
    """Means [ceil(y / ky), ceil(x / kx)] of blocks of one slice; the last ones are filled up with zeros."""
    rows, columns = values.shape
    plane = np.pad(values, ((0, -rows % ky), (0, -columns % kx)))
    lines = reduce(np.add, (plane[y::ky] for y in range(ky)))
    return np.asarray(reduce(np.add, (lines[:, x::kx] for x in range(kx))) / np.float32(ky * kx), np.float32)
