"""Does the enhancement lie where the soft tissue of the source is, or would it fit better somewhere else?"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy  # loads scipy.ndimage when it is first used: most processes never do

from node.translate.change_grid import ChangeGrid, Grid

BLOOD_LIKE_HU: Final = (-40.0, 10.0, 90.0, 130.0)  # 0 below, rising to 1, 1, falling to 0 above: neither fat nor bone
FINE_MM, COARSE_MM = 4.0, 16.0  # standard deviations; borders of vessels and heart lie between them
NEAR_MM: Final = 9.0
FAR_MM: Final = 45.0
NEAR_Z_MM: Final = 20.0  # of thin slices many neighbours look alike


@dataclass(frozen=True)
class Placement:
    """fit: correlation of the enhancement with the borders of the source's soft tissue, -1..1, where it lies.
    elsewhere: the best of the same after moving it; where: how it was moved for that, in words."""

    fit: float
    elsewhere: float
    where: str


def find_placement(grid: ChangeGrid, level_hu: float) -> Placement | None:
    """Try the enhancement moved in the plane (NEAR_MM to FAR_MM), left for right, and along z; None without any."""
    drawn = _borders(np.clip(grid.change_hu, 0, level_hu), grid)
    tissue = _borders(_blood_like(grid.source_hu), grid)
    size = float(np.linalg.norm(drawn)) * float(np.linalg.norm(tissue))
    if not size:
        return None
    in_plane = _all_moves(drawn, tissue) / size
    fits = [
        _best_in_plane(in_plane, grid),
        (float(_all_moves(drawn[:, :, ::-1], tissue).max()) / size, "left and right exchanged"),
        *_along_z(drawn, tissue, size, grid),
    ]
    elsewhere, where = max(fits)
    return Placement(float(in_plane[0, 0]), elsewhere, where)


def _blood_like(source_hu: Grid) -> Grid:
    """1 where a block of the source may be blood, muscle or an organ, 0 where it is fat, lung or bone."""
    low, from_hu, to_hu, high = BLOOD_LIKE_HU
    rising = np.clip((source_hu - low) / (from_hu - low), 0, 1)
    return np.asarray(rising * np.clip((high - source_hu) / (high - to_hu), 0, 1), np.float32)


def _borders(values: Grid, grid: ChangeGrid) -> Grid:
    """What of it changes over some millimetres of the plane."""
    fine, coarse = (
        scipy.ndimage.gaussian_filter(values, [0.0, *(sigma_mm / step for step in grid.spacing_mm[1:])])
        for sigma_mm in (FINE_MM, COARSE_MM)
    )
    return np.asarray(fine - coarse, np.float32)


def _all_moves(drawn: Grid, tissue: Grid) -> Grid:
    """Sum of products for every move in the plane, those to the left and up at the end of their axis."""
    spectrum = (np.conj(scipy.fft.rfft2(drawn)) * scipy.fft.rfft2(tissue)).sum(axis=0)
    return np.asarray(scipy.fft.irfft2(spectrum, s=drawn.shape[1:]))


def _best_in_plane(fits: Grid, grid: ChangeGrid) -> tuple[float, str]:
    y_mm, x_mm = (
        np.fft.fftfreq(count, 1 / count) * step for count, step in zip(fits.shape, grid.spacing_mm[1:], strict=True)
    )
    far = np.hypot(y_mm[:, None], x_mm[None, :])
    allowed = np.where((far >= NEAR_MM) & (far <= FAR_MM), fits, -1.0)
    y, x = np.unravel_index(int(allowed.argmax()), fits.shape)
    return float(allowed[y, x]), f"moved by {x_mm[x]:+.0f} mm along its rows and {y_mm[y]:+.0f} mm along its columns"


def _along_z(drawn: Grid, tissue: Grid, size: float, grid: ChangeGrid) -> list[tuple[float, str]]:
    """Moved along z by at least NEAR_Z_MM; what leaves at one end enters at the other."""
    count = len(drawn)
    products = tissue.reshape(count, -1) @ drawn.reshape(count, -1).T
    rows = np.arange(count)
    near = math.ceil(NEAR_Z_MM / grid.spacing_mm[0])
    fits = []
    for move in range(near, count - near + 1):
        fit = float(products[rows, (rows - move) % count].sum()) / size
        fits.append((fit, f"moved by {move if 2 * move <= count else move - count:+d} slices"))
    return fits
