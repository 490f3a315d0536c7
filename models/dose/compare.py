"""The same two fields on the plain scan and on others of the same patient: how much would a plan differ?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.dose.anatomy import Tangents, body_mask, lay_tangents, lung_mask
from models.dose.beam import STEP_MM, onto_rays, ray_grid, two_fields, water_depth_mm
from models.dose.density import relative_electron_density
from models.dose.gamma import gamma_index, passing

Volume = NDArray[np.float32]  # [z, y, x]
Mask = NDArray[np.bool_]

LEVELS_PERCENT: Final = tuple(float(level) for level in range(0, 121, 2))
"""Doses, in percent of that at the point, at which the volume histogram is counted."""
_AIR_HU: Final = np.float32(-1000)


@dataclass(frozen=True)
class DoseRow:
    """Difference of dose, other scan minus plain scan, in one structure, in percent of the plain dose at the point.

    depth_mm: mean difference of the water-equivalent depth along the medial field, mm. volume_percent: of the
    structure at each of LEVELS_PERCENT or above, on the plain scan and on the other one. near_max_percent: dose that
    2 % of the structure reach or exceed, on both.
    """

    structure: str
    voxels: int
    mean_percent: float
    sd_percent: float
    largest_percent: float
    depth_mm: float
    plain_mean_percent: float
    near_max_percent: tuple[float, float]
    volume_percent: tuple[tuple[float, ...], tuple[float, ...]] = field(repr=False)


@dataclass(frozen=True)
class ScanDose:
    """One other scan. dose: on the grid of the rays, in percent; gamma: the same grid."""

    rows: tuple[DoseRow, ...]
    gamma_passing: float
    gamma_mean: float
    dose: Volume = field(repr=False)
    depth_mm: Volume = field(repr=False)


@dataclass(frozen=True)
class DoseComparison:
    """Dose and water depth of the plain scan on the grid of the rays, [z, along, outward], and each other scan."""

    fields: Tangents
    density: Volume = field(repr=False)
    dose: Volume = field(repr=False)
    depth_mm: Volume = field(repr=False)
    scans: Mapping[str, ScanDose] = field(default_factory=dict)


def compare(
    plain_hu: Volume,
    others_hu: Mapping[str, Volume],
    spacing_mm: tuple[float, float, float],
    labelled: Mapping[str, Mask],
) -> DoseComparison:
    """Lay tangents on the plain scan and compute both fields on all scans [z, y, x], whose x grows to the left.

    Air outside the body of the plain scan counts as air in all scans, so that couch and clothes do not differ. All
    doses are in percent of the plain one at one point: equal monitor units. `labelled`: further structures by name.
    Raises NoBreastFields.
    """
    body = body_mask(plain_hu)
    lungs = lung_mask(plain_hu, body)
    fields = lay_tangents(plain_hu, body, lungs, spacing_mm)
    rays = ray_grid(plain_hu.shape[1:], spacing_mm[1:], fields)
    density, dose = {}, {}
    for name, hu in {"": plain_hu, **others_hu}.items():
        density[name] = onto_rays(relative_electron_density(np.where(body, hu, _AIR_HU)), rays)
        dose[name] = two_fields(density[name], rays, fields, spacing_mm[0])
    point = _on_rays(fields.point_zyx, rays.matrix, rays.offset)
    scale = np.float32(100 / float(dose[""][point]))
    place_mm = rays.first_outward_mm + STEP_MM * np.arange(rays.shape[1])
    open_ = np.zeros((len(plain_hu), 1, rays.shape[1]), bool)
    open_[fields.slices[0] : fields.slices[1], :, place_mm > fields.border_mm] = True
    masks = {
        name: onto_rays(mask.astype(np.float32), rays) > 0.5
        for name, mask in _structures(body, lungs, labelled).items()
    }
    tissue = masks["body"] & ~masks["lungs"]
    masks = {
        "body in the field": masks["body"] & open_,
        "breast and chest wall in the field": tissue & open_,
        "lung in the field": masks["lungs"] & open_,
        **{name: mask for name, mask in masks.items() if name not in ("body", "lungs")},
    }
    depths = {name: water_depth_mm(one, STEP_MM) for name, one in density.items()}
    plain = dose[""] * scale
    grid_mm = (spacing_mm[0], STEP_MM, STEP_MM)
    scans = {name: _scan(plain, dose[name] * scale, (depths[""], depths[name]), masks, grid_mm) for name in others_hu}
    return DoseComparison(fields, density[""], plain, depths[""], scans)


def _structures(body: Mask, lungs: Mask, labelled: Mapping[str, Mask]) -> dict[str, Mask]:
    return {"body": body, "lungs": lungs, **labelled}


def _on_rays(point: tuple[int, int, int], matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> tuple[int, ...]:
    there = np.linalg.solve(matrix, np.array(point[1:]) - offset)
    return point[0], *(round(float(value)) for value in there)


def _scan(
    plain: Volume,
    other: Volume,
    depths: tuple[Volume, Volume],
    masks: Mapping[str, Mask],
    grid_mm: tuple[float, float, float],
) -> ScanDose:
    rows = tuple(_row(name, mask, plain, other, depths) for name, mask in masks.items() if mask.any())
    gamma = gamma_index(plain, other, grid_mm)
    return ScanDose(rows, passing(gamma), float(np.nanmean(gamma)), other, depths[1])


def _row(name: str, mask: Mask, plain: Volume, other: Volume, depths: tuple[Volume, Volume]) -> DoseRow:
    first, second = plain[mask], other[mask]
    difference = second - first
    return DoseRow(
        name,
        int(mask.sum()),
        float(difference.mean()),
        float(difference.std()),
        float(np.abs(difference).max()),
        float((depths[1][mask] - depths[0][mask]).mean()),
        float(first.mean()),
        (float(np.percentile(first, 98)), float(np.percentile(second, 98))),
        (_histogram(first), _histogram(second)),
    )


def _histogram(dose: Volume) -> tuple[float, ...]:
    ordered = np.sort(dose)
    below = np.searchsorted(ordered, LEVELS_PERCENT, side="left")
    return tuple((100 * (1 - below / len(ordered))).tolist())
