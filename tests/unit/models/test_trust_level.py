"""Levels of blood against lines whose slope is known."""

import math

import numpy as np
import pytest

from models.evaluation.level import LevelPatient, fit_level, measure_levels, measure_requests, measure_small_vessels
from models.phantom.tissues import Label

WINDOW_HU = (-40.0, 400.0)
SPACING_MM = (5.0, 1.0, 1.0)


def patient(name, level_hu, hospital="internal"):
    """A square of aorta in muscle, in two slices."""
    labels = np.full((2, 40, 40), Label.MUSCLE, np.uint8)
    labels[:, 10:30, 10:30] = Label.AORTA
    enhancement = np.where(labels == Label.AORTA, np.float32(level_hu), np.float32(0))
    return LevelPatient(name, hospital, SPACING_MM, np.full(labels.shape, 40, np.float32), labels, enhancement)


PATIENTS = [patient("a", 60), patient("b", 100), patient("c", 160, "external")]
BLOOD = PATIENTS[0].labels == Label.AORTA


def draw(level_of, beside_hu=0.0):
    """A translator that lights the square by a level that it makes of the asked one."""

    def translate(hu, spacing_mm, level_hu):
        assert spacing_mm == SPACING_MM
        return hu + np.where(BLOOD, np.float32(level_of(level_hu)), np.float32(beside_hu))

    return translate


def test_a_bundle_that_obeys_has_slope_one_and_no_bias():
    rows = measure_levels(PATIENTS, draw(lambda level: level), WINDOW_HU, takes_level=True)
    assert [(row.patient, row.hospital, row.expected_hu, row.predicted_hu) for row in rows] == [
        ("a", "internal", 60, 60),
        ("b", "internal", 100, 100),
        ("c", "external", 160, 160),
    ]
    fit = fit_level(*zip(*((row.expected_hu, row.predicted_hu) for row in rows), strict=True))
    assert (fit.slope, fit.intercept_hu, fit.variance_ratio) == pytest.approx((1, 0, 1))


def test_a_bundle_that_draws_the_mean_for_everybody_is_seen_through():
    rows = measure_levels(PATIENTS, draw(lambda level: 103 if level is None else 0), WINDOW_HU, takes_level=False)
    fit = fit_level([row.expected_hu for row in rows], [row.predicted_hu for row in rows])
    assert (fit.slope, fit.intercept_hu, fit.variance_ratio) == pytest.approx((0, 103, 0))


def test_requests_are_measured_against_what_was_asked_not_against_the_truth():
    rows = measure_requests(PATIENTS[:2], draw(lambda level: level / 2 + 10), WINDOW_HU, (50.0, 150.0))
    assert [(row.expected_hu, row.predicted_hu) for row in rows] == 2 * [(50, 35), (150, 85)]
    assert fit_level([50, 150, 50, 150], [row.predicted_hu for row in rows]).slope == pytest.approx(0.5)


def test_light_outside_vessels_is_false_enhancement_and_outside_the_window_nothing_changes():
    rows = measure_levels(PATIENTS[:1], draw(lambda _: 60, beside_hu=12), WINDOW_HU, takes_level=False)
    assert 12 < rows[0].false_hu < 20  # beside the square the 5 x 5 mean also sees blood
    bright = PATIENTS[0].ncct_hu + 500
    dense = LevelPatient("d", "internal", SPACING_MM, bright, PATIENTS[0].labels, PATIENTS[0].enhancement_hu)
    (row,) = measure_levels([dense], draw(lambda _: 60), WINDOW_HU, takes_level=False)
    assert row.predicted_hu == 0


def test_the_confidence_interval_holds_the_slope_and_grows_with_scatter():
    levels = [40.0, 80, 120, 160, 200]
    fits = [fit_level(levels, (np.array(levels) + np.array([1, -1, 1, -1, 1]) * size).tolist()) for size in (1.0, 10.0)]
    near, far = (fit.slope_high - fit.slope_low for fit in fits)
    assert far == pytest.approx(10 * near)
    assert fits[0].slope_low < fits[0].slope < fits[0].slope_high
    # By hand: residuals of the line through these five points, t(0.975, 3) = 3.182.
    assert near / 2 == pytest.approx(3.182 * math.sqrt(4.8 / 3 / 16000), rel=1e-3)


def test_equal_levels_or_two_patients_tell_no_slope():
    assert math.isnan(fit_level([100, 100, 100], [1, 2, 3]).slope)
    assert math.isnan(fit_level([100, 120], [1, 2]).slope)


def test_small_vessels_that_stay_dark_are_seen_and_patients_without_any_are_left_out():
    labels = np.full((2, 40, 40), Label.MUSCLE, np.uint8)
    labels[:, 10:16, 10:16], labels[:, 20:26, 20:26] = Label.SUBCLAVIAN_VEIN, Label.CAROTID
    true_hu = np.where(labels == Label.MUSCLE, np.float32(0), np.float32(90))
    shoulder = LevelPatient("s", "teaching", SPACING_MM, np.full(labels.shape, 40, np.float32), labels, true_hu)

    def half(hu, spacing_mm, level_hu):
        assert level_hu == 90
        return hu + np.where(labels == Label.CAROTID, np.float32(level_hu), np.float32(0))

    shares = measure_small_vessels([shoulder, PATIENTS[0]], half, WINDOW_HU, takes_level=True)
    assert shares == [pytest.approx(0.5)]
