"""Promises of the image metrics: they are the published ones, to the digits of the libraries that have them."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from models.metrics import FsimMeter, fsim, ms_ssim, nmae, psnr_db, ssim, vif

Picture = NDArray[np.float32]


def pair(side: int) -> tuple[Picture, Picture]:
    """Discs and a grid in clipped background, and a noisy, brighter version of them."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    disc = 0.4 * (x**2 + y**2 < 0.12) + 0.3 * ((x - 0.1) ** 2 + y**2 < 0.02) + 0.1 * np.sin(40 * x) * (y > 0)
    rng = np.random.Generator(np.random.Philox(3))
    truth = np.clip(disc, 0, 1).astype(np.float32)
    noisy = np.clip(truth * 1.1 + rng.normal(0, 0.03, truth.shape), 0, 1).astype(np.float32)
    return noisy, truth


def test_psnr_and_nmae_of_a_constant_error_are_what_the_hand_computes() -> None:
    truth = np.full((16, 16), 0.5, np.float64)
    assert nmae(truth + 0.1, truth) == pytest.approx(0.1)
    assert psnr_db(truth + 0.1, truth) == pytest.approx(20.0)
    half_wrong = truth.copy()
    half_wrong[:8] += 0.2
    assert nmae(half_wrong, truth) == pytest.approx(0.1)
    assert psnr_db(half_wrong, truth) == pytest.approx(-10 * math.log10(0.02))
    assert psnr_db(truth, truth) == math.inf


def test_nmae_of_44_hu_in_a_window_of_440_is_a_tenth() -> None:
    hu = np.array([[10.0, 54.0]])
    assert nmae((hu + 44 + 40) / 440, (hu + 40) / 440) == pytest.approx(0.1)


def test_ssim_equals_its_definition_in_a_plain_loop() -> None:
    x, y = (a.astype(np.float64) for a in pair(24))
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    values = []
    for r in range(5, 19):
        for c in range(5, 19):
            a, b = x[r - 5 : r + 6, c - 5 : c + 6], y[r - 5 : r + 6, c - 5 : c + 6]
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            over = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
            values.append(over / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
    assert ssim(x, y) == pytest.approx(np.mean(values), abs=1e-12)


def test_ssim_and_psnr_are_those_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    x, y = (a.astype(np.float64) for a in pair(96))
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    assert ssim(x, y) == pytest.approx(metrics.structural_similarity(x, y, **settings), abs=1e-10)
    assert psnr_db(x, y) == pytest.approx(metrics.peak_signal_noise_ratio(y, x, data_range=1), abs=1e-10)


def test_ms_ssim_and_vif_are_those_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    torch = pytest.importorskip("torch")
    x, y = pair(192)
    a, b = (torch.from_numpy(v.astype(np.float64))[None, None] for v in (x, y))
    theirs = functional.multiscale_structural_similarity_index_measure(a, b, data_range=1.0)
    assert ms_ssim(x, y) == pytest.approx(float(theirs), abs=1e-6)
    assert vif(x, y) == pytest.approx(float(functional.visual_information_fidelity(255 * a, 255 * b)), abs=1e-6)


def test_equal_slices_have_the_best_value_and_noise_a_worse_one() -> None:
    noisy, truth = pair(192)
    for metric in (ssim, ms_ssim, vif, fsim):
        assert metric(truth, truth) == pytest.approx(1.0, abs=1e-6)
        assert metric(noisy, truth) < 0.99


def test_small_slices_have_no_ms_ssim_and_no_vif() -> None:
    noisy, truth = pair(32)
    assert math.isnan(ms_ssim(noisy, truth))
    assert math.isnan(vif(noisy, truth))
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(noisy[:8, :8], truth[:8, :8])


def test_vif_of_doubled_contrast_exceeds_1() -> None:
    _, truth = pair(64)
    assert vif(truth, truth / 2) > 1.0


@pytest.mark.parametrize(("side", "published"), [(64, 0.882911), (192, 0.811277)])
def test_fsim_is_that_of_another_implementation(side: int, published: float) -> None:
    """Figures of piq 0.8.0, fsim(chromatic=False, data_range=1), which needs too much to be installed here."""
    assert fsim(*pair(side)) == pytest.approx(published, abs=5e-5)


def test_fsim_is_symmetric_and_falls_with_noise() -> None:
    noisy, truth = pair(64)
    rng = np.random.Generator(np.random.Philox(1))
    noisier = np.clip(noisy + rng.normal(0, 0.1, noisy.shape).astype(np.float32), 0, 1)
    assert fsim(noisy, truth) == pytest.approx(fsim(truth, noisy), abs=1e-7)
    assert fsim(noisier, truth) < fsim(noisy, truth) - 0.05
    empty = np.zeros((64, 64), np.float32)
    assert fsim(empty, empty) == 1.0


def test_phase_congruency_knows_edges_whatever_their_height() -> None:
    step = np.zeros((64, 64), np.float32)
    step[:, 20:44] = 1
    meter = FsimMeter((64, 64))
    low, high = (meter.features(step * height).congruency for height in (0.2, 0.8))
    assert high.max() <= 1.0
    assert low[32].max() == pytest.approx(high[32].max(), abs=0.02)
    assert np.abs(int(high[32, 10:32].argmax()) + 10 - 20) <= 1
    assert high[32, 8] < 0.2  # far from edges there is none


def test_a_meter_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match="made for"):
        FsimMeter((64, 64)).features(np.zeros((32, 32), np.float32))
