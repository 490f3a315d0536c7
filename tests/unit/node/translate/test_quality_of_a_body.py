"""judge_result on a body with lungs, heart, aorta and spine: which rule holds which gross fault."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.evaluation.attacks import ATTACKS, Attacked
from node.dicom.volume import CTVolume, read_volume
from node.translate.composite import composite
from node.translate.quality import QualityVerdict, judge_result
from tests.builders import make_series

WINDOW = (-40.0, 400.0)
SPACING_MM = (5.0, 3.0, 3.0)
SHAPE = (16, 96, 112)
LEVEL_HU = 110.0
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


def ellipse(y_mm: float, x_mm: float, half_y_mm: float, half_x_mm: float, grows: float = 0.0) -> Mask:
    """In every slice; (0, 0) is the middle of the image. grows: by which share it is larger in the last slice."""
    count, rows, columns = SHAPE
    y = (np.arange(rows) - (rows - 1) / 2)[:, None] * SPACING_MM[1]
    x = (np.arange(columns) - (columns - 1) / 2)[None, :] * SPACING_MM[2]
    size = 1 + grows * np.arange(count)[:, None, None] / (count - 1)
    return ((y - y_mm) / half_y_mm) ** 2 + ((x - x_mm) / half_x_mm) ** 2 <= size**2


AORTA = ellipse(48, 28, 13, 13)
BLOOD = ellipse(-15, 25, 25, 30, grows=0.8) | AORTA
MUSCLE = ellipse(0, 0, 118, 152) & ~ellipse(0, 0, 96, 130)
SPINE = ellipse(62, 0, 20, 20)
LEFT = np.broadcast_to(np.arange(SHAPE[2]) > 85, SHAPE)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> CTVolume:
    hu = np.full(SHAPE, -1000, np.float32)
    for where, value in (
        (ellipse(0, 0, 130, 160), -100),
        (MUSCLE, 55),
        (ellipse(0, 0, 96, 130), -800),
        (ellipse(20, 15, 70, 45, grows=0.3), -100),
        (BLOOD, 42),
        (SPINE, 200),
    ):
        hu[where] = value
    hu += np.random.default_rng(1).normal(0, 8, SHAPE).astype(np.float32)
    return read_volume(make_series(tmp_path_factory.mktemp("body"), hu=np.rint(hu), spacing_mm=SPACING_MM))


@pytest.fixture(scope="module")
def clean_hu(volume: CTVolume) -> Image:
    """Blood enhances by the level, muscle by a few HU, and all of it smoothly, as a model draws it."""
    change = gaussian_filter(np.where(BLOOD, LEVEL_HU, 0) + np.where(MUSCLE, 7.0, 0), [0, 0.7, 0.7])
    return np.asarray(sent(volume, volume.hu + change.astype(np.float32)))


def sent(volume: CTVolume, predicted_hu: Image) -> Image:
    inside = (volume.hu >= WINDOW[0]) & (volume.hu <= WINDOW[1])
    return np.where(inside, np.rint(np.clip(predicted_hu, *WINDOW)), volume.hu).astype(np.float32)


def judge(volume: CTVolume, predicted_hu: NDArray[np.floating], level_hu: float | None = LEVEL_HU) -> QualityVerdict:
    return judge_result(volume, predicted_hu, composite(volume, predicted_hu, WINDOW), level_hu=level_hu)


def test_a_clean_enhancement_passes_with_all_figures(volume: CTVolume, clean_hu: Image) -> None:
    verdict = judge(volume, clean_hu)
    assert (verdict.reason, verdict.broken) == (None, ())
    measured = verdict.measurements
    assert measured["quiet_tissue_hu"] == pytest.approx(7, abs=1)
    assert measured["untouched_share"] < 0.02
    assert measured["darkened_blob_ml"] == measured["bright_blob_ml"] == measured["blood_gap_ml"] == 0
    assert measured["grain_hu"] < 1
    assert measured["detail_kept"] == pytest.approx(1, abs=0.05)
    assert measured["placement_fit"] > 0.4
    assert measured["placement_elsewhere"] < -0.1


EXPECTED = {
    "everything +100 HU": ("quiet_tissue_hu", "muscle and other quiet tissue"),
    "enhancement mirrored": ("placement_elsewhere", "when it is left and right exchanged"),
    "enhancement shifted by 20 slices": ("placement_elsewhere", "slices (fit"),
    "a mass erased": ("darkened_blob_ml", "became darker by more than 25 HU"),
    "a ball of 200 HU invented": ("bright_blob_ml", "brighter than the bundle's level"),
    "noise of 30 HU": ("grain_hu", "holds noise of"),
    "every 8th slice at 400 HU": ("slice_step_hu", "quiet tissue of one slice"),
    "everything -15 HU": ("quiet_tissue_hu", "muscle and other quiet tissue"),
    "enhancement inverted": ("darkened_blob_ml", "contrast medium never does"),
    "enhancement moved by 20 mm": ("placement_elsewhere", "along its rows"),
    "blurred by 5 mm": ("detail_kept", "of the scan's fine detail"),
    "half of the series without enhancement": ("untouched_slice_share", "did not change by even 1 HU"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_each_gross_manipulation_is_held_by_its_rule(volume: CTVolume, clean_hu: Image, name: str) -> None:
    case = Attacked(clean_hu, volume.hu, SPACING_MM)
    verdict = judge(volume, ATTACKS[name](case, np.random.default_rng(3)))
    figure, words = EXPECTED[name]
    assert figure in verdict.broken
    assert words in (verdict.reason or "")


def test_a_side_that_lights_up_alone_is_held(volume: CTVolume, clean_hu: Image) -> None:
    verdict = judge(volume, clean_hu + np.where(MUSCLE & LEFT, np.float32(90), 0))
    assert verdict.broken == ("side_difference_hu",)
    assert "one side of the body" in (verdict.reason or "")


def test_blood_that_lights_up_above_and_below_a_gap_is_held_with_its_place(volume: CTVolume, clean_hu: Image) -> None:
    dark = clean_hu.copy()
    dark[9:11] = np.minimum(clean_hu, volume.hu + 7)[9:11]
    verdict = judge(volume, dark)
    assert verdict.broken == ("blood_gap_ml",)
    assert verdict.measurements["blood_gap_z_mm"] in {z_mm(volume, z) for z in (9, 10)}


def test_the_place_of_what_is_wrong_is_named(volume: CTVolume, clean_hu: Image) -> None:
    ball = np.zeros(SHAPE, bool)
    ball[4:7, 30:38, 3:11] = MUSCLE[4:7, 30:38, 3:11]
    verdict = judge(volume, np.where(ball, np.float32(-40), clean_hu))
    assert verdict.broken == ("darkened_blob_ml",)
    assert f"most of it at z = {z_mm(volume, 5):.1f} mm" in (verdict.reason or "")


def test_every_broken_rule_is_said(volume: CTVolume, clean_hu: Image) -> None:
    noise = np.random.default_rng(2).normal(0, 30, SHAPE).astype(np.float32)
    verdict = judge(volume, clean_hu - 30 + noise)
    assert {"quiet_tissue_hu", "grain_hu"} <= set(verdict.broken)
    assert (verdict.reason or "").count("; ") >= len(verdict.broken) - 1


def test_a_bundle_without_a_level_may_draw_brighter_blood(volume: CTVolume, clean_hu: Image) -> None:
    bright = clean_hu + np.where(BLOOD, np.float32(60), 0)
    assert judge(volume, bright).broken == ("bright_blob_ml",)
    assert "bright_blob_ml" not in judge(volume, bright, level_hu=None).broken


def test_a_scan_with_hardly_any_tissue_is_judged_by_the_first_rules_alone(volume: CTVolume) -> None:
    hu = np.where(AORTA, volume.hu, np.float32(-1000))
    verdict = judge(replace(volume, hu=hu), hu + 50)
    assert "quiet_tissue_hu" not in verdict.measurements
    assert verdict.reason is None


def z_mm(volume: CTVolume, z: int) -> float:
    position_mm = volume.headers[z].image_position_mm
    assert position_mm is not None
    return position_mm[2]
