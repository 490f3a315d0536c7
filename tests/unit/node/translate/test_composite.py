"""composite: a prediction reaches only the window, and everything else stays bit-identical."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from node.dicom.elements import put
from node.dicom.synthetic_scan import put_number
from node.dicom.volume import CTVolume, read_volume
from node.translate.composite import composite
from tests.builders import make_series, put_raw

WINDOW = (-40.0, 400.0)


def volume_of(folder: Path, hu: list[float], **series: object) -> CTVolume:
    """Two slices of one row that hold these HU."""
    values = np.array([[hu], [hu]], dtype=np.float32)
    return read_volume(make_series(folder, hu=values, **series))  # type: ignore[arg-type]


def predict(volume: CTVolume, hu: float) -> np.ndarray:
    return np.full(volume.hu.shape, hu, dtype=np.float32)


def test_window_is_closed_and_the_rest_is_untouched(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, [-1000, -41, -40, 0, 400, 401, 3000])
    result = composite(volume, predict(volume, 123.4), WINDOW)
    np.testing.assert_array_equal(result.stored[0, 0] - 1024.0, [-1000, -41, 123, 123, 123, 401, 3000])
    np.testing.assert_array_equal(result.inside[0, 0], [False, False, True, True, True, False, False])
    assert result.stored.dtype == volume.stored.dtype


def test_an_unchanged_prediction_changes_nothing(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, [-1000, -40, 17, 52, 400, 900])
    np.testing.assert_array_equal(composite(volume, volume.hu, WINDOW).stored, volume.stored)


def test_prediction_is_clipped_to_the_window_and_nonsense_leaves_the_source(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, [10, 20, 30, 40, 50])
    predicted = predict(volume, 0)
    predicted[..., :5] = [1e6, -1e6, np.nan, np.inf, -np.inf]
    np.testing.assert_array_equal(composite(volume, predicted, WINDOW).stored[0, 0] - 1024.0, [400, -40, 30, 400, -40])


def test_rounding_goes_back_through_the_slices_own_rescale(tmp_path: Path) -> None:
    def rescale(ds: Dataset, z: int) -> None:
        put(ds, "RescaleSlope", "2.5" if z else "1")
        put(ds, "RescaleIntercept", "-1000.5")
        put_raw(ds, "PixelData", np.array([[400 if z else 1000]], "<u2").tobytes())

    volume = volume_of(tmp_path, [0.0], edit=rescale)
    result = composite(volume, predict(volume, 99.5), WINDOW)
    assert result.stored[0, 0, 0] == 1100
    assert result.stored[1, 0, 0] == 440


def test_stored_values_stay_in_the_range_of_bits_stored(tmp_path: Path) -> None:
    def narrow(ds: Dataset, _z: int) -> None:
        put(ds, "RescaleIntercept", "-4000")
        put_raw(ds, "PixelData", np.array([[4000]], "<u2").tobytes())

    volume = volume_of(tmp_path, [0.0], edit=narrow)
    assert composite(volume, predict(volume, 400), WINDOW).stored[0, 0, 0] == 4095


def test_padding_stays_and_is_never_made(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, [76, 10, 20], edit=lambda ds, _z: put_number(ds, "PixelPaddingValue", 1100))
    result = composite(volume, predict(volume, 76), WINDOW)
    np.testing.assert_array_equal(result.stored[0, 0], [1100, 1099, 1099])
    result = composite(volume, predict(volume, 76.3), WINDOW)
    np.testing.assert_array_equal(result.stored[0, 0], [1100, 1101, 1101])
    result = composite(volume, predict(volume, 77), WINDOW)
    np.testing.assert_array_equal(result.stored[0, 0], [1100, 1101, 1101])


@pytest.mark.parametrize(
    ("padding", "limit", "predicted_hu", "stored"),
    [
        (984, None, -40, 985),  # the lower end of the window: there is nothing below
        (1424, None, 400, 1423),  # the upper end
        (1090, 1110, 70, 1089),
        (1090, 1110, 85, 1111),
        (900, 1100, 10, 1101),
        (1090, 2000, 399, 1089),
        (900, 2000, 50, 1044),  # the whole window is padding: the source stays
    ],
)
def test_a_prediction_that_would_be_padding_becomes_the_nearest_value_that_is_none(
    tmp_path: Path, padding: int, limit: int | None, predicted_hu: float, stored: int
) -> None:
    """The pixel of 20 HU in the middle is surrounded, so that it is no padding itself."""

    def pad(ds: Dataset, _z: int) -> None:
        put_number(ds, "PixelPaddingValue", padding)
        if limit is not None:
            put_number(ds, "PixelPaddingRangeLimit", limit)

    hu = np.full((2, 3, 3), -1000, np.float32)
    hu[:, 1, 1] = 20
    volume = read_volume(make_series(tmp_path, hu=hu, edit=pad))
    assert composite(volume, predict(volume, predicted_hu), WINDOW).stored[0, 1, 1] == stored


def test_no_black_dots_in_even_tissue_whose_value_is_called_padding(tmp_path: Path) -> None:
    """Water of 0 HU with noise, in air; stored 1024, the padding value, is 0 HU."""
    hu = np.full((3, 64, 64), -1000, np.float32)
    hu[:, 8:56, 8:56] = np.random.default_rng(1).normal(0, 3, (3, 48, 48)).round()
    volume = read_volume(make_series(tmp_path, hu=hu, edit=lambda ds, _z: put_number(ds, "PixelPaddingValue", 1024)))
    assert (volume.stored[:, 8:56, 8:56] == 1024).sum() > 500
    stored = composite(volume, volume.hu + 60, WINDOW).stored[:, 8:56, 8:56]
    np.testing.assert_array_equal(stored, volume.stored[:, 8:56, 8:56] + 60)
    fallen = composite(volume, volume.hu - 5, WINDOW).stored[:, 8:56, 8:56]
    assert np.abs(fallen.astype(int) - (volume.stored[:, 8:56, 8:56].astype(int) - 5)).max() == 1
    assert (fallen != 1024).all()


def test_each_slice_keeps_to_its_own_bits_stored(tmp_path: Path) -> None:
    def narrow(ds: Dataset, z: int) -> None:
        put(ds, "RescaleIntercept", "-4000")
        put_number(ds, "BitsStored", 12 + z)
        put_number(ds, "HighBit", 11 + z)
        put_raw(ds, "PixelData", np.array([[4000]], "<u2").tobytes())

    volume = volume_of(tmp_path, [0.0], edit=narrow)
    assert composite(volume, predict(volume, 400), WINDOW).stored[:, 0, 0].tolist() == [4095, 4400]


def test_another_shape_is_refused(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, [10, 20])
    with pytest.raises(ValueError, match="does not fit"):
        composite(volume, np.zeros((2, 1, 3), np.float32), WINDOW)
