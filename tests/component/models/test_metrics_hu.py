"""Promises of the HU metrics: hand-computed values on volumes that one can draw on paper."""

import math

import numpy as np
import pytest

from models.metrics.hu import (
    Change,
    cnr_gains,
    enhancement_agreement,
    eroded,
    false_enhancement,
    hu_error,
    interslice_jump_hu,
    quiet_body,
    robust_noise_hu,
    structure_masks,
    vessel_dice,
    vessel_region,
    vessel_threshold_hu,
)
from models.phantom import Label

WINDOW = (-40.0, 400.0)


def drawn() -> np.ndarray:
    """Two slices of muscle in air with an aorta of 9 x 9 and a node of 4 x 4 pixels."""
    labels = np.full((2, 40, 40), Label.AIR, np.uint8)
    labels[:, 5:35, 5:35] = Label.MUSCLE
    labels[:, 8:17, 8:17] = Label.AORTA
    labels[:, 25:29, 25:29] = Label.LYMPH_NODE
    return labels


def volume(labels: np.ndarray, **hu: float) -> np.ndarray:
    values = np.full(labels.shape, -40, np.float32)
    for name, value in hu.items():
        values[labels == Label[name.upper()]] = value
    return values


def test_structures_lose_two_pixels_and_thin_ones_vanish() -> None:
    masks = structure_masks(drawn())
    # A cross twice from a square of 9 leaves 5 x 5; the aorta belongs to the blood pool too.
    assert masks["aorta"].sum() == masks["blood_pool"].sum() == 2 * 25
    assert "lymph_nodes" not in masks
    assert "liver" not in masks
    touching = np.ones((1, 6, 6), bool)
    assert eroded(touching).sum() == 4
    # What lies apart has its pixels counted, whatever the box around it.
    apart = drawn()
    apart[1, 18:24, 18:24] = Label.LIVER
    apart[0, 30:35, 30:35] = Label.LIVER
    assert np.argwhere(structure_masks(apart)["liver"]).tolist() == [
        [0, 32, 32],
        *([1, y, x] for y in (20, 21) for x in (20, 21)),
    ]


def test_bias_and_mae_are_means_of_signed_and_absolute_error() -> None:
    truth = np.zeros((1, 2, 2), np.float32)
    predicted = np.array([[[10, -4], [0, 900]]], np.float32)
    mask = np.array([[[True, True], [True, False]]])
    error = hu_error(predicted, truth, mask)
    assert error.bias_hu == pytest.approx(2.0)
    assert error.mae_hu == pytest.approx(14 / 3)
    assert error.voxels == 3
    assert error.mean_prediction_hu - error.mean_truth_hu == pytest.approx(2.0)
    with pytest.raises(ValueError, match="no voxel"):
        hu_error(predicted, truth, np.zeros_like(mask))


def test_false_enhancement_is_the_filtered_change_where_nothing_enhances() -> None:
    labels = drawn()
    ncct, enhancement = volume(labels, muscle=50, aorta=40, lymph_node=40), np.zeros(labels.shape, np.float32)
    enhancement[labels == Label.AORTA] = 100
    quiet = quiet_body(labels, ncct, enhancement, WINDOW)
    assert quiet.sum() == 2 * (900 - 81)
    assert false_enhancement(Change.of(ncct - ncct), quiet) == (0.0, 0.0)
    mean, share = false_enhancement(Change.of(np.full_like(ncct, 20)), quiet)
    assert mean == pytest.approx(20.0)
    assert share == 1.0
    # A single pixel of 250 HU spreads over 25 pixels of 10 HU.
    dot = np.zeros_like(ncct)
    dot[0, 20, 30] = 250
    mean, share = false_enhancement(Change.of(dot), quiet)
    assert mean == pytest.approx(250 / quiet.sum(), rel=1e-4)
    assert share == 0.0
    assert math.isnan(false_enhancement(Change.of(dot), np.zeros_like(quiet))[0])


def test_figures_of_a_scaled_and_shifted_enhancement_are_what_the_hand_computes() -> None:
    labels = drawn()
    ncct, enhancement = volume(labels, muscle=50, aorta=40, lymph_node=40), np.zeros(labels.shape, np.float32)
    enhancement[labels == Label.AORTA] = 100
    enhancement[labels == Label.LYMPH_NODE] = 40
    predicted = ncct + np.float32(0.7) * enhancement + np.float32(3)
    blood = hu_error(predicted, ncct + enhancement, structure_masks(labels)["blood_pool"])
    assert (blood.bias_hu, blood.mae_hu) == pytest.approx((-27, 27))
    agreement = enhancement_agreement(Change.of(predicted - ncct), Change.of(enhancement), labels != Label.AIR)
    # 81 and 16 pixels a slice with 0.7 of their enhancement and 3 HU more.
    true = (81 * 100 + 16 * 40) / 97
    assert agreement["slope"] == pytest.approx((0.7 * true + 3) / true)
    assert agreement["enhanced_mae_hu"] == pytest.approx((81 * 27 + 16 * 9) / 97)
    assert agreement["enhancement_correlation"] == pytest.approx(1.0)
    # Nothing but the 3 HU far from what enhances; within two pixels the mean lets some in.
    quiet = np.zeros(labels.shape, bool)
    quiet[:, 20:23, 20:23] = True
    mean_hu, share = false_enhancement(Change.of(predicted - ncct), quiet)
    assert mean_hu == pytest.approx(3)
    assert share == 0


def test_smoothing_gains_no_contrast_to_noise_and_contrast_does() -> None:
    labels = drawn()
    noise = np.random.Generator(np.random.Philox(2)).normal(0, 10, labels.shape).astype(np.float32)
    clean = volume(labels, muscle=50, aorta=50)
    masks = structure_masks(labels)
    source = clean + noise
    sd = robust_noise_hu(source[masks["muscle"]])
    assert sd == pytest.approx(10, rel=0.1)
    assert cnr_gains(clean, source, masks, source)["vessel"] == pytest.approx(0, abs=0.5)
    gain = cnr_gains(volume(labels, muscle=50, aorta=150) + noise, source, masks, source)["vessel"]
    assert gain == pytest.approx(100 / sd, rel=1e-4)
    assert math.isnan(cnr_gains(clean, source, masks, source)["node"])


def test_the_noise_of_fat_is_that_before_clipping_and_vessels_in_it_do_not_move_it() -> None:
    noise = np.random.Generator(np.random.Philox(3)).normal(0, 12, (2, 60, 60)).astype(np.float32)
    labels = np.full(noise.shape, Label.FAT, np.uint8)
    labels[:, 20:30, 20:30] = Label.LYMPH_NODE
    taken = np.where(labels == Label.FAT, np.float32(-100), np.float32(40)) + noise
    taken[:, 40:44, :] += 140  # unlabelled vessels
    source, masks = np.clip(taken, *WINDOW), structure_masks(labels)
    assert source[masks["fat"]].std() > 20  # what an SD of it, clipped or not, would be
    lit = source + np.where(labels == Label.LYMPH_NODE, np.float32(30), np.float32(0))
    assert cnr_gains(lit, source, masks, taken)["node"] == pytest.approx(30 / 12, rel=0.15)


def test_noise_without_values_or_without_noise_has_no_gain() -> None:
    assert math.isnan(robust_noise_hu(np.zeros(0, np.float32)))
    labels = drawn()
    even = volume(labels, muscle=50, aorta=50)
    assert math.isnan(cnr_gains(even, even, structure_masks(labels), even)["vessel"])


def test_agreement_of_half_the_enhancement() -> None:
    labels = drawn()
    enhancement = np.zeros(labels.shape, np.float32)
    enhancement[labels == Label.AORTA] = 100
    everywhere = labels != Label.AIR
    true = Change.of(enhancement)
    half = enhancement_agreement(Change.of(np.float32(0.5) * enhancement), true, everywhere)
    assert half["slope"] == pytest.approx(0.5)
    assert half["enhanced_mae_hu"] == pytest.approx(50)
    assert half["enhancement_correlation"] == pytest.approx(1.0)
    nothing = enhancement_agreement(Change.of(np.zeros_like(enhancement)), true, everywhere)
    assert nothing["slope"] == 0
    assert math.isnan(nothing["enhancement_correlation"])


def test_dice_of_thresholded_vessels() -> None:
    labels = drawn()
    truth = volume(labels, muscle=60, aorta=160, lymph_node=60)
    masks, region = structure_masks(labels), vessel_region(labels)
    threshold = vessel_threshold_hu(masks, truth)
    assert threshold == pytest.approx(110)
    assert math.isnan(vessel_threshold_hu({"muscle": masks["muscle"]}, truth))
    assert vessel_dice(truth, region, threshold) > 0.9  # corners of the square fall to the 3 x 3 mean
    assert vessel_dice(volume(labels, muscle=60, aorta=60), region, threshold) == 0
    # 9 x 9 of vessel among 30 x 30 of everything called vessel, but for the rim that the mean takes away.
    everything = vessel_dice(np.full(labels.shape, 200, np.float32), region, threshold)
    assert everything == pytest.approx(2 * 81 / (81 + 900))
    assert math.isnan(vessel_dice(truth, region, math.nan))
    labels[:, 8:17, 18:20] = Label.VERTEBRA  # three columns beside bone are not searched, one lies between
    assert vessel_region(labels).vessels.sum() == 2 * 9 * 7


def test_jumps_between_slices_count_and_a_constant_error_does_not() -> None:
    truth = np.zeros((3, 10, 10), np.float32)
    mask = np.ones_like(truth, bool)
    steady, flicker = truth + np.float32(25), truth.copy()
    flicker[1] += 6
    assert interslice_jump_hu(steady, truth, mask) == 0
    assert interslice_jump_hu(flicker, truth, mask) == pytest.approx(6)
    assert math.isnan(interslice_jump_hu(flicker[:1], truth[:1], mask[:1]))
    mask[1, 2:] = False  # 20 voxels are enough
    assert interslice_jump_hu(flicker, truth, mask) == pytest.approx(6)
    mask[1, 1:] = False  # 10 are not, and the others have no neighbour then
    assert math.isnan(interslice_jump_hu(flicker, truth, mask))
