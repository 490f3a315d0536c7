"""The dose of a comparison is exact where it can be worked out by hand; gamma agrees with hand-made cases."""

import numpy as np
import pytest

from models.dose.anatomy import NoBreastFields, body_mask, lay_tangents, lung_mask
from models.dose.beam import (
    ATTENUATION_PER_MM,
    BUILD_UP_PER_MM,
    STEP_MM,
    onto_rays,
    ray_grid,
    two_fields,
    water_depth_mm,
)
from models.dose.compare import compare
from models.dose.density import relative_electron_density
from models.dose.gamma import gamma_index, passing

SPACING_MM = (3.0, 2.0, 2.0)


def test_density_is_0_in_air_1_in_water_and_goes_on_with_another_slope() -> None:
    hu = np.array([-2000, -1000, -100, 0, 195, 1950], np.float32)
    assert relative_electron_density(hu).tolist() == pytest.approx([0, 0, 0.9, 1, 1.1, 2])


def test_the_water_depth_of_a_slab_is_exact() -> None:
    density = np.zeros((1, 10, 1), np.float32)
    density[0, 2:6], density[0, 6:8] = 1.0, 0.25
    depth = water_depth_mm(density, 2.0)[0, :, 0]
    assert depth.tolist() == [0, 0, 1, 3, 5, 7, 8.25, 8.75, 9, 9]


def thorax(shape=(9, 128, 128)) -> np.ndarray:
    """An ellipse of water with two lungs, its front up."""
    y, x = np.ogrid[: shape[1], : shape[2]]
    image = np.full(shape[1:], -1000, np.float32)
    image[((y - 64) / 40) ** 2 + ((x - 64) / 56) ** 2 < 1] = 0
    for centre in (40, 88):
        image[((y - 66) / 24) ** 2 + ((x - centre) / 16) ** 2 < 1] = -800
    return np.broadcast_to(image, shape).copy()


def fields_of(hu):
    body = body_mask(hu)
    lungs = lung_mask(hu, body)
    return body, lungs, lay_tangents(hu, body, lungs, SPACING_MM)


def test_tangents_pass_the_left_lung_by_20_mm_and_see_the_front() -> None:
    _, lungs, fields = fields_of(thorax())
    assert fields.side == "left"
    assert fields.outward[0] < 0 < fields.outward[1], "to the front and to the patient's left"
    z, y, x = np.nonzero(lungs[:, :, 64:])
    deepest = (y * 2 * fields.outward[0] + (x + 64) * 2 * fields.outward[1]).max()
    assert deepest - fields.border_mm == pytest.approx(20.0)
    z, y, x = fields.point_zyx
    assert not lungs[z, y, x]
    assert y * 2 * fields.outward[0] + x * 2 * fields.outward[1] > fields.border_mm


def test_without_lungs_no_field_is_laid() -> None:
    with pytest.raises(NoBreastFields):
        fields_of(np.zeros((3, 64, 64), np.float32))


def test_the_dose_of_a_water_block_is_that_of_the_formula() -> None:
    _, _, fields = fields_of(thorax())
    rays = ray_grid((128, 128), (2.0, 2.0), fields)
    density = np.ones((9, *rays.shape), np.float32)
    dose = two_fields(density, rays, fields, 1000.0)  # slices so far apart that the kernel does not reach the next
    middle, outside = rays.shape[0] // 2, rays.shape[1] - 12
    depths = [(middle + 0.5) * STEP_MM, (rays.shape[0] - middle - 0.5) * STEP_MM]
    by_hand = sum(np.exp(-ATTENUATION_PER_MM * d) - np.exp(-BUILD_UP_PER_MM * d) for d in depths)
    assert dose[4, middle, outside] == pytest.approx(by_hand, rel=1e-3)
    assert dose[4, middle, 1] == 0, "behind the border there is nothing but what the kernel brings"


def test_what_goes_onto_rays_keeps_its_place() -> None:
    hu = thorax()
    _, _, fields = fields_of(hu)
    rays = ray_grid((128, 128), (2.0, 2.0), fields)
    density = relative_electron_density(hu)
    turned = onto_rays(density, rays)
    assert turned.sum() * STEP_MM**2 == pytest.approx(density.sum() * 4, rel=0.01), "no tissue is lost or made"


def test_equal_scans_have_equal_doses_and_denser_ones_less_behind() -> None:
    hu = thorax()
    same = compare(hu, {"same": hu.copy()}, SPACING_MM, {})
    assert same.scans["same"].gamma_passing == 1.0
    assert same.scans["same"].rows[0].mean_percent == 0
    denser = hu + np.float32(100) * (hu == 0)
    found = compare(hu, {"denser": denser}, SPACING_MM, {}).scans["denser"]
    tissue = next(row for row in found.rows if row.structure == "breast and chest wall in the field")
    assert tissue.mean_percent < -0.1


# -- gamma ---------------------------------------------------------------------------------------------------------


def edge(shift_mm: float) -> np.ndarray:
    """A field with a steep edge, moved along x."""
    x = np.arange(60) * 1.0
    profile = 1 / (1 + np.exp(-(x - 30 - shift_mm) / 0.5))
    return np.broadcast_to(profile.astype(np.float32), (3, 8, 60)).copy()


UNIT_MM = (1.0, 1.0, 1.0)


def test_a_shift_of_1_mm_passes_and_3_mm_fails_at_the_edge() -> None:
    assert passing(gamma_index(edge(0), edge(1), UNIT_MM)) == 1.0
    gamma = gamma_index(edge(0), edge(3), UNIT_MM)
    assert passing(gamma) < 0.97
    assert np.nanmax(gamma[:, :, 28:34]) > 1.2
    assert np.nanmax(gamma[:, :, 45:]) < 0.1, "far from the edge nothing changed"


@pytest.mark.parametrize(("offset", "passed"), [(0.015, 1.0), (0.03, 0.0)])
def test_an_offset_of_3_percent_fails_everywhere(offset: float, passed: float) -> None:
    flat = np.ones((3, 8, 8), np.float32)
    gamma = gamma_index(flat, flat * (1 + offset), UNIT_MM)
    assert passing(gamma) == passed
    assert gamma[1, 4, 4] == pytest.approx(offset / 0.02, rel=1e-4)


def test_what_lies_under_the_cutoff_does_not_count() -> None:
    gamma = gamma_index(edge(0), edge(0), UNIT_MM)
    assert np.isnan(gamma[:, :, :25]).all()
    assert np.isfinite(gamma[:, :, 35:]).all()


def test_gamma_agrees_with_pymedphys() -> None:
    pymedphys = pytest.importorskip("pymedphys", reason="the oracle is not installed")
    z, y, x = np.mgrid[:8, :16, :24].astype(np.float32)
    reference = np.exp(-(((z - 4) / 4) ** 2) - ((y - 8) / 6) ** 2) / (1 + np.exp((x - 14) / 1.5))
    evaluated = np.asarray(np.roll(reference, 2, axis=2) * 1.01, dtype=np.float32)
    axes = tuple(np.arange(side) * step for side, step in zip(reference.shape, (2.0, 1.5, 1.5), strict=True))
    options = {"lower_percent_dose_cutoff": 10, "max_gamma": 2, "interp_algo": "scipy"}
    theirs = pymedphys.gamma(axes, reference, axes, evaluated, 2, 2, **options)
    ours = gamma_index(reference, evaluated, (2.0, 1.5, 1.5))
    assert (np.isfinite(ours) == np.isfinite(theirs)).all(), "the same voxels count"
    counted = np.isfinite(ours)
    counted[:, :, :4] = False  # what was rolled round, and searched over the border of the grid
    assert np.ptp(theirs[counted]) > 0.8, "there is something to agree about"
    difference = (ours - theirs)[counted]
    telling = theirs[counted] > 0.5  # a small gamma in a steep gradient comes out too large
    assert np.abs(difference[telling]).max() < 0.2, "both search in steps of a tenth of the distance, on other lines"
    assert difference.min() > -0.2
    assert np.abs(difference).mean() < 0.05
    assert passing(ours[:, :, 4:]) == pytest.approx((theirs[:, :, 4:][counted[:, :, 4:]] <= 1).mean(), abs=0.01)
