"""Each attack does what its name says, to a volume in which that can be counted, and leaves its input alone."""

import numpy as np
import pytest

from models.evaluation.attacks import ATTACKS, Attacked, blurred, moved
from models.phantom.tissues import Label

SPACING_MM = (5.0, 2.0, 2.0)
SHAPE = (48, 60, 60)
MASS = (slice(20, 23), slice(40, 46), slice(10, 16))
VESSEL = (slice(None), slice(25, 35), slice(5, 15))  # on one side only


def case(*, labelled=True):
    source = np.full(SHAPE, 40, np.float32)
    source[:, :, :2] = -1000
    result = source.copy()
    result[VESSEL] += np.linspace(80, 120, SHAPE[0], dtype=np.float32)[:, None, None]
    labels = np.zeros(SHAPE, np.uint8)
    labels[MASS] = Label.LUNG_MASS
    labels[45, 2, 50] = Label.LUNG_MASS  # a smaller one elsewhere
    return Attacked(result, source, SPACING_MM, labels if labelled else None)


def attacked(name, one):
    return ATTACKS[name](one, np.random.default_rng(3))


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("labelled", [True, False])
def test_an_attack_changes_the_result_repeatably_and_not_in_place(name, labelled):
    one = case(labelled=labelled)
    before = one.result_hu.copy(), one.source_hu.copy()
    first, again = attacked(name, one), attacked(name, one)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(one.result_hu, before[0])
    np.testing.assert_array_equal(one.source_hu, before[1])
    assert first.dtype == np.float32
    assert not np.array_equal(first, one.result_hu)


@pytest.mark.parametrize(("name", "offset_hu"), [("everything +100 HU", 100), ("everything -15 HU", -15)])
def test_an_offset_is_everywhere(name, offset_hu):
    one = case()
    np.testing.assert_allclose(attacked(name, one) - one.result_hu, offset_hu, rtol=1e-6)


def test_the_mirrored_enhancement_lies_on_the_other_side():
    change = attacked("enhancement mirrored", case()) - case().source_hu
    assert change[:, 30, 10].max() == 0
    np.testing.assert_allclose(change[:, 30, 59 - 10], case().enhancement_hu[:, 30, 10])


def test_the_shifted_enhancement_is_that_of_20_slices_away():
    change = attacked("enhancement shifted by 20 slices", case()) - case().source_hu
    np.testing.assert_allclose(change[25], case().enhancement_hu[5])


def test_the_largest_mass_is_erased_and_nothing_else():
    differs = attacked("a mass erased", case()) != case().result_hu
    assert differs[MASS].all()
    assert differs.sum() == 3 * 6 * 6


def test_without_labels_a_ball_is_erased():
    differs = attacked("a mass erased", case(labelled=False)) != case().result_hu
    assert differs.sum() > 300


def test_the_invented_ball_is_30_mm_across():
    ball = attacked("a ball of 200 HU invented", case()) == 200
    volume_mm3 = ball.sum() * np.prod(SPACING_MM)
    assert volume_mm3 == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.15)
    assert np.ptp(np.nonzero(ball)[2]) * SPACING_MM[2] <= 30


def test_the_noise_has_the_size_that_it_says():
    noise = attacked("noise of 30 HU", case()) - case().result_hu
    assert noise.std() == pytest.approx(30, rel=0.02)


def test_every_eighth_slice_is_bright():
    result = attacked("every 8th slice at 400 HU", case())
    bright = np.flatnonzero((result == 400).all(axis=(1, 2)))
    assert np.diff(bright).tolist() == [8] * 5


def test_the_inverted_enhancement_darkens_by_what_it_brightened():
    one = case()
    np.testing.assert_allclose(attacked("enhancement inverted", one) - one.source_hu, -one.enhancement_hu)


def test_the_moved_enhancement_lies_20_mm_beside():
    change = moved(case(), np.random.default_rng()) - case().source_hu
    np.testing.assert_allclose(change[:, 30, 10 + 10], case().enhancement_hu[:, 30, 10])


def test_blurring_keeps_even_tissue_and_wears_down_the_vessel():
    result = blurred(case(), np.random.default_rng())
    assert result[10, 50, 50] == pytest.approx(40, abs=0.1)
    assert result[10, 25, 10] < case().result_hu[10, 25, 10] - 20


def test_the_upper_half_loses_its_enhancement():
    one = case()
    result = attacked("half of the series without enhancement", one)
    np.testing.assert_array_equal(result[24:], one.source_hu[24:])
    np.testing.assert_array_equal(result[:24], one.result_hu[:24])


def test_twelve_manipulations_are_tried():
    assert len(ATTACKS) == 12


def test_a_source_without_soft_tissue_has_no_place_for_a_ball():
    air = np.full(SHAPE, -1000, np.float32)
    with pytest.raises(ValueError, match="no soft tissue"):
        attacked("a ball of 200 HU invented", Attacked(air, air, SPACING_MM))
