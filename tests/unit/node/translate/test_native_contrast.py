"""find_native_contrast: enhanced blood is seen, bone of the same brightness is not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from node.dicom.volume import CTVolume
from node.translate.native_contrast import find_native_contrast


def thorax(
    *, heart_hu: float, noise_hu: float = 12.0, spacing_mm: tuple[float, float, float] = (4.0, 2.0, 2.0)
) -> CTVolume:
    """Muscle with a heart of 80 mm and a vertebra (spongy bone of 160 HU in a cortex of 600 HU)."""
    y, x = np.mgrid[-120:120:2, -160:160:2].astype(np.float64)
    plane = np.full(y.shape, -1000.0)
    plane[(x / 150) ** 2 + (y / 110) ** 2 < 1] = 45.0
    plane[x**2 + (y + 40) ** 2 < 40**2] = heart_hu
    plane[x**2 + (y - 60) ** 2 < 20**2] = 600.0
    plane[x**2 + (y - 60) ** 2 < 16**2] = 160.0
    noise = np.random.default_rng(3).normal(0, noise_hu, (10, *plane.shape))
    return volume_of((plane + noise).astype(np.float32), (4.0, 2.0, 2.0))


def volume_of(hu: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> CTVolume:
    return CTVolume(hu, hu.astype(np.int16), None, (), spacing_mm)


@pytest.mark.parametrize("noise_hu", [0.0, 12.0, 40.0])
def test_a_scan_without_contrast_is_not_enhanced(noise_hu: float) -> None:
    assert not find_native_contrast(thorax(heart_hu=42.0, noise_hu=noise_hu)).is_enhanced


@pytest.mark.parametrize(("heart_hu", "noise_hu"), [(110.0, 12.0), (131.0, 40.0), (300.0, 12.0)])
def test_an_enhanced_heart_is_seen_and_measured(heart_hu: float, noise_hu: float) -> None:
    found = find_native_contrast(thorax(heart_hu=heart_hu, noise_hu=noise_hu))
    assert found.is_enhanced
    assert found.mean_hu == pytest.approx(heart_hu, abs=10)
    assert found.enhanced_ml < np.pi * 4**2 * 4


def test_the_vertebra_alone_does_not_count() -> None:
    assert find_native_contrast(thorax(heart_hu=45.0, noise_hu=0.0)).enhanced_ml == 0.0


def test_air_alone() -> None:
    found = find_native_contrast(volume_of(np.full((8, 32, 32), -1000, np.float32), (3.0, 1.0, 1.0)))
    assert (found.enhanced_ml, found.mean_hu) == (0.0, 0.0)


def test_an_image_that_is_smaller_than_a_working_pixel() -> None:
    found = find_native_contrast(volume_of(np.full((8, 32, 32), 40, np.float32), (3.0, 0.01, 0.01)))
    assert not found.is_enhanced


def test_the_slice_with_most_of_it_is_named() -> None:
    hu = thorax(heart_hu=45.0, noise_hu=0.0).hu.copy()
    y, x = np.mgrid[-120:120:2, -160:160:2]
    for z, radius_mm in enumerate((20, 24, 28, 32, 36, 40, 44, 40, 36, 32)):
        hu[z][x**2 + (y + 40) ** 2 < radius_mm**2] = 130.0
    assert find_native_contrast(volume_of(hu, (4.0, 2.0, 2.0))).fullest_slice == 6
    assert find_native_contrast(thorax(heart_hu=45.0, noise_hu=0.0)).fullest_slice is None
