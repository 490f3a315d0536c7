"""Figures without labels, on a difference that one can draw on paper."""

import math

import numpy as np
import pytest

from models.metrics.registered import RegisteredDifference
from models.phantom import make_patient

WINDOW = (-40.0, 400.0)
VESSEL = (slice(None), slice(10, 30), slice(10, 30))


def scans(enhancement_hu: float = 100, drift_hu: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """Even tissue of 40 HU with a vessel in it, and the same later."""
    native = np.full((2, 60, 60), 40, np.float32)
    native[:, :3] = -1000
    later = native + np.float32(drift_hu)
    later[VESSEL] += enhancement_hu
    return native, later


def test_a_perfect_prediction_has_no_error_and_the_source_has_all_of_it() -> None:
    native, later = scans()
    difference = RegisteredDifference(native, later, WINDOW)
    perfect = difference.figures(np.clip(later, *WINDOW))
    assert perfect == {"enhanced_error_hu": 0, "quiet_error_hu": 0, "contrast_gain": 1}
    still = difference.figures(np.clip(native, *WINDOW))
    assert still["enhanced_error_hu"] == pytest.approx(-100)
    assert (still["quiet_error_hu"], still["contrast_gain"]) == (0, 0)


def test_light_everywhere_is_no_contrast() -> None:
    native, later = scans()
    figures = RegisteredDifference(native, later, WINDOW).figures(np.clip(native + 100, *WINDOW))
    assert figures["quiet_error_hu"] == pytest.approx(100)
    assert figures["contrast_gain"] == pytest.approx(0)


def test_the_masks_keep_away_from_borders_and_from_what_the_window_hides() -> None:
    native, later = scans()
    native[0, 20, 20] = 500
    difference = RegisteredDifference(native, later, WINDOW)
    assert not difference.enhanced[0, 20, 20]
    assert difference.enhanced[1, 20, 20]
    assert not (difference.enhanced | difference.quiet)[:, 20, 8:12].any()  # both sides of the vessel's edge
    assert not difference.quiet[:, :5].any()
    assert difference.quiet[:, 50, 50].all()


def test_a_pair_without_enhancement_has_no_figure_of_it() -> None:
    figures = RegisteredDifference(*scans(enhancement_hu=20), WINDOW).figures(scans()[0])
    assert math.isnan(figures["enhanced_error_hu"])
    assert math.isnan(figures["contrast_gain"])


def test_on_a_phantom_the_noise_chooses_next_to_nothing() -> None:
    """The noise-free truth has an error of a few HU only where masks were made of noisy scans."""
    patient = make_patient(7, slices=3, rows=256, spacing_mm=(5.0, 1.9, 1.9))
    difference = RegisteredDifference(patient.ncct_hu, patient.cect_hu, WINDOW)
    found = difference.figures(np.clip(patient.cect_clean_hu, *WINDOW))
    assert abs(found["enhanced_error_hu"]) < 5
    assert abs(found["quiet_error_hu"]) < 5
    assert found["contrast_gain"] == pytest.approx(1, abs=0.05)
    still = difference.figures(np.clip(patient.ncct_clean_hu, *WINDOW))
    assert still["enhanced_error_hu"] < -50
