"""judge_result: which results a person must look at, and why."""

from pathlib import Path

import numpy as np
import pytest

from node.dicom.volume import CTVolume, read_volume
from node.translate.composite import Composite, composite
from node.translate.quality import judge_result
from tests.builders import make_series

WINDOW = (-40.0, 400.0)


@pytest.fixture
def volume(tmp_path: Path) -> CTVolume:
    return read_volume(make_series(tmp_path, slices=3))


def verdict(volume: CTVolume, change: np.ndarray | float) -> tuple[str | None, dict[str, float]]:
    predicted = (volume.hu + change).astype(np.float32)
    judged = judge_result(volume, predicted, composite(volume, predicted, WINDOW), level_hu=None)
    return judged.reason, judged.measurements


def test_a_plausible_enhancement_passes_with_its_figures(volume: CTVolume) -> None:
    reason, measured = verdict(volume, 50.0)
    assert reason is None
    assert measured["mean_shift_hu"] == pytest.approx(50.0)
    assert measured["changed_share"] == 1.0
    assert measured["max_abs_shift_hu"] == 50.0
    assert measured["changed_outside_voxels"] == measured["not_finite_voxels"] == measured["darkened_share"] == 0
    assert 0 < measured["inside_share"] < 1


@pytest.mark.parametrize(
    ("change", "says"), [(0.0, "unchanged"), (0.2, "unchanged"), (250.0, "on average"), (-30.0, "on average")]
)
def test_implausible_changes_are_held(volume: CTVolume, change: float, says: str) -> None:
    reason, _ = verdict(volume, change)
    assert reason is not None
    assert says in reason


def test_darkening_in_many_places_is_held_though_the_mean_is_fine(volume: CTVolume) -> None:
    stripes = np.where(np.arange(volume.hu.shape[2]) % 2, 110.0, -70.0)
    reason, _ = verdict(volume, np.broadcast_to(stripes, volume.hu.shape))
    assert reason is not None
    assert "darker" in reason


def test_values_that_are_no_numbers_are_held(volume: CTVolume) -> None:
    change = np.full(volume.hu.shape, 40.0)
    change[1, 3, 3] = np.nan
    reason, measured = verdict(volume, change)
    assert reason is not None
    assert "no numbers" in reason
    assert measured["not_finite_voxels"] == 1


def test_a_change_outside_the_window_is_held(volume: CTVolume) -> None:
    predicted = (volume.hu + 40).astype(np.float32)
    result = composite(volume, predicted, WINDOW)
    tampered = result.stored.copy()
    tampered[0, 0, 0] += 1
    reason = judge_result(volume, predicted, Composite(tampered, result.inside), level_hu=None).reason
    assert reason is not None
    assert "outside the window" in reason
