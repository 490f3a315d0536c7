"""Figures of the change that are counted by shortcuts equal those by scipy's filters over everything."""

import numpy as np
import pytest
import scipy

from node.translate.change import _gaps, _largest
from node.translate.change_grid import ChangeGrid

LEVEL_HU = 110.0


@pytest.mark.parametrize("z_mm", [1.0, 3.0, 5.0, 30.0])
def test_gaps_are_those_of_binary_closing_and_opening(z_mm: float) -> None:
    random = np.random.default_rng(5)
    shape = (40, 30, 25)
    change_hu = np.where(random.random(shape) > 0.85, LEVEL_HU, 0).astype(np.float32)
    grid = ChangeGrid(np.full(shape, 50, np.float32), change_hu, np.ones(shape, np.float32), (z_mm, 4.0, 4.0))
    lit, reach = change_hu > 0, max(1, int(12.5 / z_mm))
    padded = np.pad(lit, ((reach, reach), (0, 0), (0, 0)), mode="edge")
    closed = scipy.ndimage.binary_closing(padded, np.ones((2 * reach + 1, 1, 1), bool))[reach:-reach]
    gaps = scipy.ndimage.binary_opening(closed & ~lit & grid.tissue, np.ones((1, 2, 2), bool))
    assert gaps.any() == (z_mm < 30)
    np.testing.assert_array_equal(_gaps(grid, LEVEL_HU), gaps)


def test_largest_piece_is_counted_and_placed() -> None:
    mask = np.zeros((5, 8, 8), bool)
    assert _largest(mask) == (0, 0)
    mask[1, 1:3, 1:3] = True
    mask[3:, 5:, 5:] = mask[2, 5, 5] = True
    assert _largest(mask) == (19, 3)
