"""The gate on a result: is it a plausible enhancement of its source? Nothing is changed here."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.dicom.volume import CTVolume
from node.translate.composite import Composite

# What a plausible result keeps to; shares are of the voxels inside the window, shifts are in HU. Contrast medium
# brightens: tissue by up to some 200 HU and blood the most, muscle and fat by next to nothing, and it darkens nothing.
# The bounds leave room for a model that also smooths noise.
MIN_CHANGED_SHARE: Final = 0.001
MEAN_SHIFT_HU: Final = (-20.0, 120.0)
MAX_DARKENED_SHARE: Final = 0.30
DARKENED_HU: Final = -40.0


@dataclass(frozen=True, slots=True)
class QualityVerdict:
    """reason: None where the result may be sent, else a sentence for the person who decides. measurements: named."""

    reason: str | None
    measurements: dict[str, float]


def judge_result(volume: CTVolume, predicted_hu: NDArray[np.float32], result: Composite) -> QualityVerdict:
    """Compare a composited result with its source; the first broken rule is the reason.

    predicted_hu: float32 [z, y, x], what the model returned before compositing.
    """
    measured = _measure_change(volume, predicted_hu, result)
    low, high = MEAN_SHIFT_HU
    mean_shift = measured["mean_shift_hu"]
    checks = (
        (measured["not_finite_voxels"] > 0, "the model returned values that are no numbers"),
        (
            measured["changed_outside_voxels"] > 0,
            "pixels outside the window (bone, lung, air) were changed",
        ),
        (measured["inside_share"] == 0, "no pixel of the scan lies in the soft-tissue window"),
        (
            measured["changed_share"] < MIN_CHANGED_SHARE,
            f"the model left the scan unchanged ({100 * measured['changed_share']:.2f} % of soft tissue changed)",
        ),
        (
            not low <= mean_shift <= high,
            f"soft tissue changed by {mean_shift:+.0f} HU on average (plausible: {low:+.0f} to {high:+.0f})",
        ),
        (
            measured["darkened_share"] > MAX_DARKENED_SHARE,
            f"{100 * measured['darkened_share']:.0f} % of soft tissue became darker by more than "
            f"{-DARKENED_HU:.0f} HU, which contrast medium never does",
        ),
    )
    reason = next((words for broken, words in checks if broken), None)
    return QualityVerdict(reason, measured)


def _measure_change(volume: CTVolume, predicted_hu: NDArray[np.float32], result: Composite) -> dict[str, float]:
    """Figures of the change from source to result: shares 0..1 of the window's voxels, shifts in HU, counts."""
    inside_total, changed, darkened, outside_changed, not_finite = 0, 0, 0, 0, 0
    shift_sum, largest = 0.0, 0.0
    for z, source in enumerate(volume.slices):
        inside = result.inside[z]
        difference = result.stored[z][inside].astype(np.int32) - volume.stored[z][inside].astype(np.int32)
        shift = difference * float(source.header.rescale_slope or 1.0)
        inside_total += shift.size
        changed += int(np.count_nonzero(shift))
        darkened += int((shift < DARKENED_HU).sum())
        outside_changed += int(np.count_nonzero((result.stored[z] != volume.stored[z]) & ~inside))
        not_finite += int((~np.isfinite(predicted_hu[z])).sum())
        shift_sum += float(shift.sum())
        largest = max(largest, float(np.abs(shift).max(initial=0.0)))
    share = 1.0 / inside_total if inside_total else 0.0
    return {
        "inside_share": inside_total / volume.hu.size,
        "changed_share": changed * share,
        "mean_shift_hu": shift_sum * share,
        "max_abs_shift_hu": largest,
        "darkened_share": darkened * share,
        "changed_outside_voxels": float(outside_changed),
        "not_finite_voxels": float(not_finite),
    }
