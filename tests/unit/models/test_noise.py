"""The noise of a scan is measured where its soft tissue is, and to the last bit as over whole slices."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from models.noise import measure_noise_hu


@pytest.mark.parametrize("body", [np.s_[:, :], np.s_[:50, :70], np.s_[30:100, 20:80], np.s_[60:, 50:]])
def test_measuring_only_where_soft_tissue_is_changes_no_bit(body: tuple[slice, slice]) -> None:
    random = np.random.default_rng(3)
    plane = np.full((110, 97), -1000, np.float32)
    plane[body] = random.normal(45, 11, plane[body].shape) + (random.random(plane[body].shape) > 0.998) * 500
    soft = ((plane > -60) & (plane < 160)).astype(np.float32)
    exact = plane.astype(np.float64)
    mean = uniform_filter(exact, 9)
    variance = uniform_filter(exact * exact, 9) - mean * mean
    boxes = variance[(uniform_filter(soft, 9) > 0.999) & (mean > 0) & (mean < 100) & (variance > 1e-3)]
    assert boxes.size >= 300
    assert measure_noise_hu(plane[None]) == float(np.sqrt(np.percentile(boxes, 25)))
