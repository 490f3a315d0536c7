"""Dose of two opposed parallel photon fields: attenuation along the ray, build-up, and a lateral Gaussian kernel.

This is a comparison of two CTs under one simple algorithm. It is no clinical dose: no spectrum, no divergence, no
wedge, no contamination, no scatter from outside the slice's kernel.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from models.dose.anatomy import Tangents

Volume = NDArray[np.float32]  # [z, y, x]

STEP_MM: Final = 2.5
"""Side of the dose grid in the plane; along z it is that of the slices."""
ATTENUATION_PER_MM: Final = 0.0050
BUILD_UP_PER_MM: Final = 0.27
"""With the attenuation above, the largest dose in water lies at 15 mm, as for 6 MV."""
KERNEL_MM: Final = 4.0
"""Standard deviation of the lateral kernel in water; it is divided by the local density, down to a third of water's."""
_STRETCHES: Final = (1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Rays:
    """The grid on which rays run along the first axis of a slice: how to get there and back, in pixels of a slice."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    shape: tuple[int, int]
    first_outward_mm: float


def ray_grid(shape: tuple[int, int], spacing_mm: tuple[float, float], fields: Tangents) -> Rays:
    """The grid that covers a slice of `shape`: axis 0 along the fields, axis 1 outwards, steps of STEP_MM."""
    axes = np.array([fields.along, fields.outward])  # rows: unit vectors (y, x)
    corners = np.array([(y, x) for y in (0, shape[0] - 1) for x in (0, shape[1] - 1)]) * np.array(spacing_mm)
    placed = corners @ axes.T
    low, high = placed.min(axis=0), placed.max(axis=0)
    count = np.ceil((high - low) / STEP_MM).astype(int) + 1
    matrix = (axes.T * STEP_MM) / np.array(spacing_mm)[:, None]
    offset = (low @ axes) / np.array(spacing_mm)
    return Rays(matrix, offset, (int(count[0]), int(count[1])), float(low[1]))


def onto_rays(image: Volume, rays: Rays) -> Volume:
    """A volume [z, y, x] on the grid of the rays [z, along, outward], linear, 0 outside."""
    out = np.empty((len(image), *rays.shape), np.float32)
    for z, plane in enumerate(image):
        affine_transform(plane, rays.matrix, rays.offset, rays.shape, out[z], order=1, mode="constant", cval=0.0)
    return out


def water_depth_mm(density: Volume, step_mm: float) -> Volume:
    """Water-equivalent depth of the middle of each voxel along axis 1, mm; the ray enters at index 0."""
    return np.asarray((np.cumsum(density, axis=1) - density / 2) * step_mm, dtype=np.float32)


def two_fields(density: Volume, rays: Rays, fields: Tangents, spacing_z_mm: float) -> Volume:
    """Dose of both fields, not yet normalised, on the grid of the rays; density: relative to water, on that grid."""
    opening = np.zeros(density.shape, np.float32)
    place_mm = rays.first_outward_mm + STEP_MM * np.arange(density.shape[2])
    opening[fields.slices[0] : fields.slices[1], :, place_mm > fields.border_mm] = 1
    total = np.zeros(density.shape, np.float32)
    for reverse in (slice(None), slice(None, None, -1)):
        depth = water_depth_mm(density[:, reverse], STEP_MM)[:, reverse]
        total += opening * (np.exp(-ATTENUATION_PER_MM * depth) - np.exp(-BUILD_UP_PER_MM * depth))
    return _spread(total, density, spacing_z_mm)


def _spread(energy: Volume, density: Volume, spacing_z_mm: float) -> Volume:
    """The lateral kernel, wider where the density is lower; in air there is no dose."""
    blurred = [
        gaussian_filter(energy, [stretch * KERNEL_MM / side for side in (spacing_z_mm, STEP_MM, STEP_MM)], truncate=3)
        for stretch in _STRETCHES
    ]
    wanted = np.clip(1 / np.maximum(density, 1 / _STRETCHES[-1]), _STRETCHES[0], _STRETCHES[-1])
    share = wanted - 1  # 0 to 2
    first, second = np.clip(1 - share, 0, 1), np.clip(share - 1, 0, 1)
    dose = first * blurred[0] + (1 - first - second) * blurred[1] + second * blurred[2]
    return np.asarray(np.where(density > 0.01, dose, 0), dtype=np.float32)
