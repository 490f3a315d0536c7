"""Doubt from two looks: nothing for equal looks or displaced edges, a mask for a planted disagreement."""

from functools import reduce

import numpy as np
import pytest
import scipy
from numpy.typing import NDArray

from models.doubt import doubtful, figures_of, limit_hu, measure_doubt

SPACING_MM = (3.0, 1.0, 1.0)
SHAPE = (7, 61, 80)


def looks() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    first = np.full(SHAPE, 40.0, np.float32)
    first[:, 20:40, 20:40] = 140.0
    return first, first.copy(), np.ones(SHAPE, bool)


def test_equal_looks_leave_no_doubt() -> None:
    first, second, inside = looks()
    doubt = measure_doubt(first, second, inside, SPACING_MM)
    assert doubt.shape == SHAPE
    assert doubt.dtype == np.float32
    assert not doubt.any()


def test_planted_disagreement_is_measured_where_it_is() -> None:
    first, second, inside = looks()
    second[2:5, 20:40, 20:40] = 90.0  # the second look lights it half
    doubt = measure_doubt(first, second, inside, SPACING_MM)
    mask = doubtful(doubt, 16.5, SPACING_MM)
    assert mask[3, 22:38, 22:38].all()
    assert not mask[:, :, 60:].any()
    assert not mask[6].any()
    assert 30 < doubt[3, 30, 30] < 51


def test_an_edge_that_lies_a_pixel_aside_does_not_count() -> None:
    first, second, inside = looks()
    second = np.roll(second, 1, axis=2)  # 100 HU at each edge
    assert not doubtful(measure_doubt(first, second, inside, SPACING_MM), 16.5, SPACING_MM).any()


def test_what_lies_outside_soft_tissue_counts_nothing() -> None:
    first, second, inside = looks()
    inside[:, :, 50:] = False
    second[:, :, 50:] = 400.0
    assert not measure_doubt(first, second, inside, SPACING_MM).any()


def test_specks_leave_the_mask() -> None:
    doubt = np.zeros(SHAPE, np.float32)
    doubt[1, 2:5, 2:5] = 90.0  # 27 mm3
    doubt[3:5, 30:50, 30:50] = 90.0  # 2.4 mL
    mask = doubtful(doubt, 16.5, SPACING_MM)
    assert np.count_nonzero(mask) == 800
    assert not mask[1].any()


def test_figures_tell_how_much_and_where() -> None:
    first, second, inside = looks()
    first[5:] = 40.0  # only the second look lights it there
    source = np.full(SHAPE, 40.0, np.float32)
    mask = np.zeros(SHAPE, bool)
    mask[4, 20:40, 20:40] = True
    mask[5, 20:30, 50:60] = True  # not brightened
    found = figures_of(mask, first, second, source, inside=inside, spacing_mm=SPACING_MM)
    assert found.doubtful_ml == pytest.approx(1.5)
    assert found.brightened_ml == pytest.approx(8.4)
    assert found.doubtful_share == pytest.approx(1 / 7)
    assert found.fullest_slice == 4
    nothing = figures_of(np.zeros(SHAPE, bool), source, source, source, inside=inside, spacing_mm=SPACING_MM)
    assert (nothing.doubtful_ml, nothing.doubtful_share, nothing.fullest_slice) == (0.0, 0.0, None)


def test_limit_follows_the_level_that_blood_is_drawn_with() -> None:
    assert limit_hu(200.0) == 2 * limit_hu(100.0)
    assert limit_hu(None) > 0


def test_other_shapes_are_refused() -> None:
    first, second, inside = looks()
    with pytest.raises(ValueError, match="differ"):
        measure_doubt(first, second[:3], inside, SPACING_MM)


@pytest.mark.parametrize(
    "body", [np.s_[:, :, :], np.s_[4:9, 21:50, 30:61], np.s_[5:, :33, 40:], np.s_[6:7, 50:51, 3:4]]
)
def test_looking_only_where_the_body_is_changes_no_bit(body: tuple[slice, slice, slice]) -> None:
    random = np.random.default_rng(7)
    shape, spacing_mm = (12, 61, 83), (3.0, 0.9766, 0.7)
    inside = np.zeros(shape, bool)
    inside[body] = random.random(inside[body].shape) > 0.3
    first, second = (random.normal(40, 60, shape).astype(np.float32) for _ in range(2))
    doubt = measure_doubt(first, second, inside, spacing_mm)
    whole = doubt_of_the_whole(first, second, inside, spacing_mm)
    assert whole.any()
    np.testing.assert_array_equal(doubt, whole)
    limit = float(np.median(whole[inside]))
    np.testing.assert_array_equal(doubtful(doubt, limit, (80.0, 1.0, 1.0)), pieces_of_the_whole(whole, limit, 7))


def doubt_of_the_whole(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.float32]:
    """The same measure with filters over the whole volume, in the product's block sizes for these spacings."""
    z_mm, y_mm, x_mm = spacing_mm
    ky, kx = round(2 / y_mm), round(2 / x_mm)

    def blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = np.pad(values, ((0, 0), (0, -values.shape[1] % ky), (0, -values.shape[2] % kx)))
        lines = reduce(np.add, (padded[:, y::ky] for y in range(ky)))
        return np.asarray(reduce(np.add, (lines[..., x::kx] for x in range(kx))) / np.float32(ky * kx), np.float32)

    def around(values: NDArray[np.float32], in_plane_mm: float, along_z_mm: float) -> NDArray[np.float32]:
        sigma = (along_z_mm / z_mm, in_plane_mm / (ky * y_mm), in_plane_mm / (kx * x_mm))
        return np.asarray(scipy.ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=3.0), np.float32)

    weight, least = blocks(inside.astype(np.float32)), np.float32(0.05)
    total = blocks(np.where(inside, second - first, np.float32(0)))
    mean = np.asarray(around(total, 3, 0) / np.maximum(around(weight, 3, 0), least), np.float32)
    square = around(mean * mean * weight, 6, 3) / np.maximum(around(weight, 6, 3), least)
    large = np.sqrt(np.maximum(square, 0)).repeat(ky, axis=1).repeat(kx, axis=2)
    return np.where(inside, large[:, : inside.shape[1], : inside.shape[2]], np.float32(0))


def pieces_of_the_whole(doubt: NDArray[np.float32], limit: float, voxels: int) -> NDArray[np.bool_]:
    """Connected pieces of at least so many voxels."""
    pieces, _ = scipy.ndimage.label(doubt > limit)
    large = np.bincount(pieces.ravel()) >= voxels
    large[0] = False
    return np.asarray(large[pieces])
