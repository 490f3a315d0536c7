"""Owns errors in HU where anatomy and true enhancement are known; must not know models or files.

All arrays are [z, y, x] at the native matrix. Predictions and truths are HU clipped to the model's window, since a
model cannot answer outside it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, uniform_filter

from models.phantom.tissues import BLOOD_POOL, Label

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

STRUCTURES: dict[str, tuple[Label, ...]] = {
    "blood_pool": BLOOD_POOL,
    "aorta": (Label.AORTA,),
    "pulmonary_artery": (Label.PULMONARY_ARTERY,),
    "svc": (Label.SVC,),
    "brachiocephalic_veins": (Label.BRACHIOCEPHALIC_VEIN,),
    "subclavian_axillary": (Label.SUBCLAVIAN_ARTERY, Label.SUBCLAVIAN_VEIN),
    "lymph_nodes": (Label.LYMPH_NODE, Label.METASTATIC_NODE),
    "myocardium": (Label.MYOCARDIUM,),
    "thyroid": (Label.THYROID,),
    "liver": (Label.LIVER,),
    "spleen": (Label.SPLEEN,),
    "muscle": (Label.MUSCLE,),
    "gland": (Label.GLAND,),
    "fat": (Label.FAT,),
}
"""What planners contour or must not see change, by the labels of the phantom."""

_VESSELS = (
    *BLOOD_POOL,
    Label.SVC,
    Label.BRACHIOCEPHALIC_VEIN,
    Label.IVC,
    Label.SUBCLAVIAN_ARTERY,
    Label.SUBCLAVIAN_VEIN,
    Label.CAROTID,
    Label.AZYGOS,
)
_NO_TISSUE = (Label.AIR, Label.COUCH_SHELL, Label.COUCH_FOAM, Label.COUCH_RAIL, Label.AIRWAY, Label.LUNG)
_HARD = (Label.CORTICAL_BONE, Label.RIB_MARROW, Label.VERTEBRA, Label.DISC, Label.CARTILAGE)
_QUIET_HU = 5.0
_NOTICEABLE_HU = 15.0
_EROSION_PX = 2


@dataclass(frozen=True)
class HuError:
    """Error inside one mask: mean (prediction - truth), mean of its absolute value, both means, and how many voxels."""

    bias_hu: float
    mae_hu: float
    mean_prediction_hu: float
    mean_truth_hu: float
    voxels: int


def structure_masks(labels: NDArray[np.uint8], *, erosion_px: int = _EROSION_PX) -> dict[str, Mask]:
    """Masks [z, y, x] of STRUCTURES, each slice eroded with a cross `erosion_px` times; those with no voxel left out.

    Erosion keeps partial volume and blur at the border out of the figures; it also removes what is thinner than five
    pixels, so that the thinnest vessels and nodes have no figure at all rather than a misleading one.
    """
    masks = {name: eroded(np.isin(labels, members), erosion_px) for name, members in STRUCTURES.items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def eroded(mask: Mask, pixels: int = _EROSION_PX) -> Mask:
    """The mask [z, y, x] eroded `pixels` times in plane with a cross; what touches the picture's edge erodes too."""
    cross = np.zeros((3, 3, 3), bool)
    cross[1, 1, :] = cross[1, :, 1] = True
    return np.asarray(binary_erosion(mask, cross, iterations=pixels)) if pixels else mask


def hu_error(prediction_hu: Volume, truth_hu: Volume, mask: Mask) -> HuError:
    """Error of the prediction inside a mask, all [z, y, x]; raises ValueError for an empty mask."""
    predicted, true = (a[mask].astype(np.float64) for a in (prediction_hu, truth_hu))
    if not predicted.size:
        raise ValueError("no voxel in the mask")
    error = predicted - true
    return HuError(
        float(error.mean()), float(np.abs(error).mean()), float(predicted.mean()), float(true.mean()), error.size
    )


def quiet_body(
    labels: NDArray[np.uint8], ncct_hu: Volume, enhancement_hu: Volume, window_hu: tuple[float, float]
) -> Mask:
    """Body voxels strictly inside the window whose true enhancement is under 5 HU: nothing may light up there."""
    low, high = window_hu
    inside = (ncct_hu > low) & (ncct_hu < high) & ~np.isin(labels, _NO_TISSUE)
    return np.asarray(inside & (enhancement_hu < _QUIET_HU))


def false_enhancement(prediction_hu: Volume, ncct_hu: Volume, quiet: Mask) -> tuple[float, float]:
    """Mean |prediction - NCCT| in HU after a 5 x 5 mean filter over quiet voxels, and the share of them over 15 HU.

    Both volumes clipped to the window. Not a number where no voxel is quiet.
    """
    if not quiet.any():
        return math.nan, math.nan
    change = np.abs(uniform_filter(prediction_hu - ncct_hu, size=(1, 5, 5)))[quiet].astype(np.float64)
    return float(change.mean()), float((change > _NOTICEABLE_HU).mean())


def cnr(image_hu: Volume, target: Mask, background: Mask, noise_hu: float) -> float:
    """Contrast-to-noise ratio: (mean of target - mean of background) / noise.

    The noise is given and must be the same for all that is compared: a model that only smooths would otherwise gain.
    """
    return (_mean(image_hu, target) - _mean(image_hu, background)) / noise_hu


def cnr_gains(prediction_hu: Volume, ncct_hu: Volume, masks: Mapping[str, Mask]) -> dict[str, float]:
    """Gain of CNR over the NCCT, blood pool against muscle ("vessel") and nodes against fat ("node").

    In units of the NCCT's SD in the background. Not a number where a structure is missing.
    """
    gains = {}
    for name, (target, background) in {"vessel": ("blood_pool", "muscle"), "node": ("lymph_nodes", "fat")}.items():
        gains[name] = math.nan
        if target in masks and background in masks:
            noise_hu = float(ncct_hu[masks[background]].std(dtype=np.float64))
            if noise_hu > 0:
                before, after = (cnr(v, masks[target], masks[background], noise_hu) for v in (ncct_hu, prediction_hu))
                gains[name] = after - before
    return gains


def vessel_threshold_hu(labels: NDArray[np.uint8], truth_hu: Volume) -> float:
    """Middle between the true mean HU of the eroded blood pool and of muscle; not a number where one is missing."""
    means = [_mean(truth_hu, eroded(np.isin(labels, members))) for members in (BLOOD_POOL, (Label.MUSCLE,))]
    return (means[0] + means[1]) / 2


def vessel_dice(prediction_hu: Volume, labels: NDArray[np.uint8], threshold_hu: float) -> float:
    """Dice overlap of labelled vessels with what exceeds a threshold in the 3 x 3 mean of the prediction.

    Looked for in soft tissue more than 3 px away from bone, cartilage and airways, where a window would show vessels.
    The threshold must be the same for every row compared (`vessel_threshold_hu`); not a number where it is none, or
    where there is no vessel.
    """
    cross = np.zeros((1, 3, 3), bool)
    cross[0, 1, :] = cross[0, :, 1] = True
    hard = binary_dilation(np.isin(labels, (*_HARD, Label.AIRWAY, Label.AIRWAY_WALL)), cross, iterations=3)
    region = ~hard & ~np.isin(labels, _NO_TISSUE)
    vessels = np.isin(labels, _VESSELS) & region
    if math.isnan(threshold_hu) or not vessels.any():
        return math.nan
    found = (uniform_filter(prediction_hu, size=(1, 3, 3)) > threshold_hu) & region
    return float(2 * (found & vessels).sum() / (found.sum() + vessels.sum()))


def interslice_jump_hu(prediction_hu: Volume, truth_hu: Volume, mask: Mask) -> float:
    """Inconsistency between neighbouring slices: RMS step, slice to slice, of the mean error inside a mask.

    A volume that is wrong by the same amount everywhere has none; one that flickers has. Only slices with at least 20
    voxels of the mask count; not a number without two such neighbours.
    """
    counts = mask.sum(axis=(1, 2))
    sums = np.where(mask, prediction_hu - truth_hu, np.float32(0)).sum(axis=(1, 2), dtype=np.float64)
    means = np.where(counts >= 20, sums / np.maximum(counts, 1), np.nan)
    steps = np.diff(means)
    steps = steps[np.isfinite(steps)]
    return float(np.sqrt((steps**2).mean())) if steps.size else math.nan


def _mean(image_hu: Volume, mask: Mask) -> float:
    return float(image_hu[mask].mean(dtype=np.float64)) if mask.any() else math.nan


def enhancement_agreement(
    prediction_hu: Volume, ncct_hu: Volume, enhancement_hu: Volume, visible: Mask
) -> dict[str, float]:
    """How predicted enhancement follows the true one over visible voxels; each not a number where undefined.

    `slope`: predicted over true enhancement in voxels with more than 15 HU of it. `enhanced_mae_hu`: mean
    |predicted - true enhancement| there. `enhancement_correlation`: Pearson's, over all visible voxels, both 5 x 5
    means. `visible` leaves out what the window hides: there both scans are clipped alike.
    """
    change = prediction_hu - ncct_hu
    enhanced = visible & (enhancement_hu > _NOTICEABLE_HU)
    figures = dict.fromkeys(("slope", "enhanced_mae_hu", "enhancement_correlation"), math.nan)
    if enhanced.any():
        got, true = change[enhanced].astype(np.float64), enhancement_hu[enhanced].astype(np.float64)
        figures["slope"] = float(got.mean() / true.mean())
        figures["enhanced_mae_hu"] = float(np.abs(got - true).mean())
    got, true = (uniform_filter(v, size=(1, 5, 5))[visible].astype(np.float64) for v in (change, enhancement_hu))
    if got.size > 1 and got.std() > 0 and true.std() > 0:
        figures["enhancement_correlation"] = float(np.corrcoef(got, true)[0, 1])
    return figures
