"""Errors in HU where anatomy and true enhancement are known.

All arrays are [z, y, x] at the native matrix. Predictions and truths are HU clipped to the model's window, since a
model cannot answer outside it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, find_objects, uniform_filter

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
    "lung_mass": (Label.LUNG_MASS,),
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
_SD_PER_MAD = 1.4826
_CROSS = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)  # in plane


@dataclass(frozen=True)
class VesselRegion:
    """Where vessels are looked for, and which of these voxels are labelled as vessels, both [z, y, x]."""

    searched: Mask
    vessels: Mask


@dataclass(frozen=True)
class Change:
    """What a scan or a prediction adds to the NCCT, and its 5 x 5 mean in plane: both HU [z, y, x]."""

    hu: Volume
    smooth_hu: Volume

    @classmethod
    def of(cls, hu: Volume) -> "Change":
        """A change and its mean."""
        return cls(hu, np.asarray(uniform_filter(hu, size=(1, 5, 5))))


@dataclass(frozen=True)
class HuError:
    """Error inside one mask: mean (prediction - truth), mean of its absolute value, both means, and how many voxels."""

    bias_hu: float
    mae_hu: float
    mean_prediction_hu: float
    mean_truth_hu: float
    voxels: int


def structure_masks(labels: NDArray[np.uint8]) -> dict[str, Mask]:
    """Masks [z, y, x] of STRUCTURES, each slice eroded with a cross twice; those with no voxel left out.

    Erosion keeps partial volume and blur at the border out of the figures; it also removes what is thinner than five
    pixels, so that the thinnest vessels and nodes have no figure at all rather than a misleading one.
    """
    boxes = find_objects(labels, max_label=max(Label))
    masks = {}
    for name, members in STRUCTURES.items():
        box = _union([boxes[label - 1] for label in members])
        if box is not None:
            inner = eroded(_labelled(labels[box], members))
            if inner.any():
                masks[name] = np.zeros(labels.shape, bool)
                masks[name][box] = inner
    return masks


def eroded(mask: Mask) -> Mask:
    """The mask [z, y, x] eroded twice in plane with a cross; what touches the picture's edge erodes too."""
    return np.asarray(binary_erosion(mask, _CROSS, iterations=_EROSION_PX))


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
    inside = (ncct_hu > low) & (ncct_hu < high) & ~_labelled(labels, _NO_TISSUE)
    return np.asarray(inside & (enhancement_hu < _QUIET_HU))


def false_enhancement(change: Change, quiet: Mask) -> tuple[float, float]:
    """Mean |change| in HU after a 5 x 5 mean filter over quiet voxels, and the share of them over 15 HU.

    `change`: prediction - NCCT, both clipped to the window. Not a number where no voxel is quiet.
    """
    if not quiet.any():
        return math.nan, math.nan
    size = np.abs(change.smooth_hu[quiet]).astype(np.float64)
    return float(size.mean()), float((size > _NOTICEABLE_HU).mean())


def cnr(image_hu: Volume, target: Mask, background: Mask, noise_hu: float) -> float:
    """Contrast-to-noise ratio: (mean of target - mean of background) / noise.

    The noise is given and must be the same for all that is compared: a model that only smooths would otherwise gain.
    """
    return (_mean(image_hu, target) - _mean(image_hu, background)) / noise_hu


def cnr_gains(
    prediction_hu: Volume, source_hu: Volume, masks: Mapping[str, Mask], unclipped_hu: Volume
) -> dict[str, float]:
    """Gain of CNR over the source, blood pool against muscle ("vessel") and nodes against fat ("node").

    prediction_hu and source_hu are clipped to the window. In units of the background's noise in the scan as it was
    taken, `unclipped_hu`: fat lies below the window, where clipping leaves no noise at all. Not a number where a
    structure is missing or the background has no noise.
    """
    gains = {}
    for name, (target, background) in {"vessel": ("blood_pool", "muscle"), "node": ("lymph_nodes", "fat")}.items():
        gains[name] = math.nan
        if target in masks and background in masks:
            noise_hu = robust_noise_hu(unclipped_hu[masks[background]])
            if noise_hu > 0:
                before, after = (cnr(v, masks[target], masks[background], noise_hu) for v in (source_hu, prediction_hu))
                gains[name] = after - before
    return gains


def robust_noise_hu(values_hu: NDArray[np.float32]) -> float:
    """Noise of one tissue, HU: 1.4826 times the median distance from its median, the SD of values that are normal.

    Vessels and glands that lie in the fat of a mask do not move it, as they would an SD. Not a number without values.
    """
    if not values_hu.size:
        return math.nan
    values = values_hu.astype(np.float64)
    return float(_SD_PER_MAD * np.median(np.abs(values - np.median(values))))


def vessel_threshold_hu(masks: Mapping[str, Mask], truth_hu: Volume) -> float:
    """Middle between the true mean HU of the blood pool and of muscle (masks of STRUCTURES); not a number where one is
    missing."""
    if "blood_pool" not in masks or "muscle" not in masks:
        return math.nan
    return (_mean(truth_hu, masks["blood_pool"]) + _mean(truth_hu, masks["muscle"])) / 2


def vessel_region(labels: NDArray[np.uint8]) -> VesselRegion:
    """Soft tissue [z, y, x] more than 3 px away from bone, cartilage and airways, where a window would show vessels."""
    hard = _labelled(labels, (*_HARD, Label.AIRWAY, Label.AIRWAY_WALL))
    searched = ~binary_dilation(hard, _CROSS, iterations=3) & ~_labelled(labels, _NO_TISSUE)
    return VesselRegion(searched, _labelled(labels, _VESSELS) & searched)


def vessel_dice(prediction_hu: Volume, region: VesselRegion, threshold_hu: float) -> float:
    """Dice overlap of labelled vessels with what exceeds a threshold in the 3 x 3 mean of the prediction.

    The threshold must be the same for every row compared (`vessel_threshold_hu`); not a number where it is none, or
    where there is no vessel.
    """
    vessels = region.vessels
    if math.isnan(threshold_hu) or not vessels.any():
        return math.nan
    found = (uniform_filter(prediction_hu, size=(1, 3, 3)) > threshold_hu) & region.searched
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


def enhancement_agreement(change: Change, enhancement: Change, visible: Mask) -> dict[str, float]:
    """How a change (prediction - NCCT) follows the true enhancement in visible voxels; not a number where undefined.

    `slope`: predicted over true enhancement in voxels with more than 15 HU of it. `enhanced_mae_hu`: mean
    |predicted - true enhancement| there. `enhancement_correlation`: Pearson's, over all visible voxels, both 5 x 5
    means. `visible` leaves out what the window hides: there both scans are clipped alike.
    """
    enhanced = visible & (enhancement.hu > _NOTICEABLE_HU)
    figures = dict.fromkeys(("slope", "enhanced_mae_hu", "enhancement_correlation"), math.nan)
    if enhanced.any():
        got, true = change.hu[enhanced].astype(np.float64), enhancement.hu[enhanced].astype(np.float64)
        figures["slope"] = float(got.mean() / true.mean())
        figures["enhanced_mae_hu"] = float(np.abs(got - true).mean())
    got, true = (v.smooth_hu[visible].astype(np.float64) for v in (change, enhancement))
    if got.size > 1 and got.std() > 0 and true.std() > 0:
        figures["enhancement_correlation"] = float(np.corrcoef(got, true)[0, 1])
    return figures


def _labelled(labels: NDArray[np.uint8], members: Sequence[Label]) -> Mask:
    """Voxels with one of these labels."""
    table = np.zeros(256, bool)
    table[list(members)] = True
    return np.asarray(table[labels])


def _union(boxes: Iterable[tuple[slice, ...] | None]) -> tuple[slice, ...] | None:
    """The smallest box around boxes, None around none."""
    present = [box for box in boxes if box is not None]
    axes = zip(*present, strict=True)
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in axes) or None
