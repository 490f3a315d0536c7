"""Figures of the change from a source to its composited result, which the gate on results judges. See quality.py.

All are measured on blocks of some millimetres, so that 200 slices take about a second.
"""

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy  # loads scipy.ndimage when it is first used: most processes never do
from numpy.typing import NDArray

from node.dicom.volume import CTVolume
from node.translate.change_grid import ChangeGrid, Grid, Mask, change_grid, measure_roughness
from node.translate.composite import Composite
from node.translate.placement import find_placement

LEAST_TISSUE_ML: Final = 200.0
"""Less soft tissue than this is no body in which tissues could be told apart: then nothing of this is measured."""
LEAST_OF_SLICE_CM2: Final = 20.0
UNTOUCHED_HU: Final = 1.0
QUIET_PERCENTILE: Final = 25
DARK_HU: Final = -25.0
DARK_SMOOTHING_MM: Final = 4.0
BRIGHTER_THAN_BLOOD_HU: Final = 75.0  # unenhanced blood, liver and spleen have at most so many HU
LIT_SHARE: Final = 0.4
GAP_MM: Final = 25.0
SIDE_SHARE: Final = 0.2

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Change:
    """figures: by name, units in the names; those that end in _z_mm say where the figure of that name is worst, and
    what cannot be measured is left out. better_where: how the enhancement was moved where it fits best, in words."""

    figures: Figures
    better_where: str = ""


def measure_change(volume: CTVolume, result: Composite, level_hu: float) -> Change:
    """Measure a composited result. level_hu: the most by which blood is meant to enhance, HU."""
    grid = change_grid(volume, result)
    tissue = grid.tissue
    if float(tissue.sum()) * grid.block_ml < LEAST_TISSUE_ML:
        return Change({})
    figures = {
        "quiet_tissue_hu": float(np.percentile(grid.change_hu[tissue], QUIET_PERCENTILE)),
        "untouched_share": float((np.abs(grid.change_hu[tissue]) < UNTOUCHED_HU).mean()),
        **_of_slices(volume, grid, tissue),
        **_blobs(volume, grid, level_hu),
        **_sides(grid, tissue),
        **measure_roughness(volume, result),
    }
    placement = find_placement(grid, level_hu)
    if placement is None:
        return Change(figures)
    figures |= {"placement_fit": placement.fit, "placement_elsewhere": placement.elsewhere - placement.fit}
    return Change(figures, placement.where)


def _of_slices(volume: CTVolume, grid: ChangeGrid, tissue: Mask) -> Figures:
    """The slice that differs most from the whole in its quiet tissue, and the one of which most did not change."""
    area_cm2 = tissue.sum(axis=(1, 2)) * grid.block_ml / grid.spacing_mm[0] * 10
    numbers = np.flatnonzero(area_cm2 >= LEAST_OF_SLICE_CM2)
    if not numbers.size:
        return {}
    changes = [grid.change_hu[z][tissue[z]] for z in numbers]
    quiet = np.array([np.percentile(change, QUIET_PERCENTILE) for change in changes])
    untouched = np.array([(np.abs(change) < UNTOUCHED_HU).mean() for change in changes])
    step = np.abs(quiet - np.median(quiet))
    odd, still = int(step.argmax()), int(untouched.argmax())
    return {
        "slice_step_hu": float(step[odd]),
        "slice_step_z_mm": _z_mm(volume, int(numbers[odd])),
        "untouched_slice_share": float(untouched[still]),
        "untouched_slice_z_mm": _z_mm(volume, int(numbers[still])),
    }


def _blobs(volume: CTVolume, grid: ChangeGrid, level_hu: float) -> Figures:
    """The largest connected pieces of what contrast medium cannot do, mL."""
    sigma = [0.0, *(DARK_SMOOTHING_MM / step for step in grid.spacing_mm[1:])]
    source, change = _three_by_three(grid.source_hu), _three_by_three(grid.change_hu)
    may_be_blood = (source < BRIGHTER_THAN_BLOOD_HU + 25) & (_three_by_three(grid.inside) > 0.95)
    wanted = {
        "darkened_blob": scipy.ndimage.gaussian_filter(grid.change_hu, sigma) < DARK_HU,
        "bright_blob": may_be_blood & (source + change > level_hu + BRIGHTER_THAN_BLOOD_HU),
        "blood_gap": _gaps(grid, level_hu),
    }
    figures: Figures = {}
    for name, mask in wanted.items():
        voxels, z = _largest(mask)
        figures[f"{name}_ml"] = voxels * grid.block_ml
        if voxels:
            figures[f"{name}_z_mm"] = _z_mm(volume, z)
    return figures


def _gaps(grid: ChangeGrid, level_hu: float) -> Mask:
    """Soft tissue between two slices at most GAP_MM apart which are both lit there, and which is not."""
    lit = (grid.change_hu > LIT_SHARE * level_hu) & (grid.inside > 0.5)
    reach = max(1, int(GAP_MM / grid.spacing_mm[0] / 2))
    between = ~lit & grid.tissue & _closed_along_z(lit, reach)
    # Opened by squares of 2 x 2: what belongs to one that is set as a whole.
    squares = between[:, 1:, 1:] & between[:, :-1, 1:] & between[:, 1:, :-1] & between[:, :-1, :-1]
    opened = np.zeros_like(between)
    for y, x in itertools.product((slice(1, None), slice(None, -1)), repeat=2):
        opened[:, y, x] |= squares
    return opened


def _closed_along_z(mask: Mask, reach: int) -> Mask:
    """Closed by 2 reach + 1 slices, of which the first and the last repeat: equal to scipy's binary_closing."""
    padded = np.pad(mask, ((2 * reach, 2 * reach), (0, 0), (0, 0)), mode="edge")
    return _over_slices(np.logical_and, _over_slices(np.logical_or, padded, 2 * reach + 1), 2 * reach + 1)


def _over_slices(join: np.ufunc, mask: Mask, count: int) -> Mask:
    """Each slice joined with the count - 1 that follow it, as far as there are all of them; in doubled steps."""
    size = 1
    while size < count:
        step = min(size, count - size)
        mask = join(mask[:-step], mask[step:])
        size += step
    return mask


def _sides(grid: ChangeGrid, tissue: Mask) -> Figures:
    """How much more the outer fifth of the body changed on one side than on the other: muscle of chest wall and arm."""
    body = np.flatnonzero((grid.source_hu > _BODY_HU).any(axis=(0, 1)))
    if not body.size:
        return {}
    width = int(SIDE_SHARE * (body[-1] - body[0] + 1))
    sides = (slice(body[0], body[0] + width), slice(body[-1] + 1 - width, body[-1] + 1))
    means = [grid.change_hu[..., side][tissue[..., side]] for side in sides]
    if any(mean.size * grid.block_ml < LEAST_TISSUE_ML / 10 for mean in means):
        return {}
    return {"side_difference_hu": float(abs(means[0].mean() - means[1].mean()))}


_BODY_HU: Final = -150.0


def _largest(mask: Mask) -> tuple[int, int]:
    """Voxels of the largest connected piece, and the slice that holds most of it."""
    if not mask.any():
        return 0, 0
    pieces, _ = scipy.ndimage.label(mask)
    sizes = np.bincount(pieces[mask])
    largest = int(sizes.argmax())
    return int(sizes[largest]), int((pieces == largest).sum(axis=(1, 2)).argmax())


def _three_by_three(values: Grid) -> NDArray[np.float32]:
    return np.asarray(scipy.ndimage.uniform_filter(values, (1, 3, 3)))


def _z_mm(volume: CTVolume, z: int) -> float:
    position_mm = volume.headers[z].image_position_mm
    assert position_mm is not None  # a slice without has no place in a volume
    return position_mm[2]
