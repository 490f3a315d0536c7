"""Gamma index of two doses on one grid (Low et al., Medical Physics 25 (1998) 656-661), global."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Volume = NDArray[np.float32]

FRACTION: Final = 0.02
DISTANCE_MM: Final = 2.0
CUTOFF: Final = 0.10
LARGEST: Final = 2.0
"""Larger values are not told apart."""
_NO_DOSE: Final = 1e9  # outside the grid nothing is known, and nothing is found there
_STEPS: Final = 10  # of the search within one distance


def gamma_index(
    reference: Volume,
    evaluated: Volume,
    spacing_mm: tuple[float, float, float],
    *,
    fraction: float = FRACTION,
    distance_mm: float = DISTANCE_MM,
    cutoff: float = CUTOFF,
) -> Volume:
    """Gamma of each voxel of the reference [z, y, x], at most LARGEST; not a number under the cutoff.

    fraction and cutoff: of the largest reference dose. The evaluated dose is interpolated linearly between voxels, and
    searched in steps of a tenth of the distance, so that a small gamma in a steep gradient comes out too large by up
    to 0.3. A voxel is left as soon as no farther point can lower its gamma.
    """
    largest = float(reference.max())
    gamma = np.full(reference.shape, np.nan, np.float32)
    counted = reference >= cutoff * largest
    if largest <= 0 or not counted.any():
        return gamma
    places = np.argwhere(counted).astype(np.float64)
    wanted = reference[counted].astype(np.float64)
    found = (evaluated[counted] - wanted) / (fraction * largest)
    squares = found**2
    offsets_mm = _offsets(distance_mm)
    sides = np.array(spacing_mm)
    for offset in offsets_mm:
        far = float((offset**2).sum()) / distance_mm**2
        open_ = np.flatnonzero(squares > far)
        if not open_.size:
            break
        there = places[open_] + offset / sides
        dose = map_coordinates(evaluated, there.T, order=1, mode="constant", cval=_NO_DOSE, output=np.float64)
        squares[open_] = np.minimum(squares[open_], ((dose - wanted[open_]) / (fraction * largest)) ** 2 + far)
    gamma[counted] = np.minimum(np.sqrt(squares), LARGEST)
    return gamma


def passing(gamma: Volume) -> float:
    """Share of the counted voxels with a gamma of at most 1; not a number where none counts."""
    counted = np.isfinite(gamma)
    return float((gamma[counted] <= 1).mean()) if counted.any() else float("nan")


def _offsets(distance_mm: float) -> NDArray[np.float64]:
    """All steps within LARGEST distances, nearest first; the first is no step at all, and is left out."""
    reach = round(LARGEST * _STEPS)
    line = np.arange(-reach, reach + 1) * (distance_mm / _STEPS)
    grid = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    squares = (grid**2).sum(axis=1)
    order = np.argsort(squares, kind="stable")
    keep = order[squares[order] <= (LARGEST * distance_mm) ** 2 + 1e-9]
    return np.asarray(grid[keep][1:])
