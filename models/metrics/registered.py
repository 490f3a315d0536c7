"""Figures that need no labels: where the second scan, in register, is brighter than the first, and where it is not.

What they can show is bounded by the registration and by noise: hold bundles against each other and against the two
baselines, which know no model, not against 0.
"""

import math
from typing import Final

import numpy as np
from scipy.ndimage import uniform_filter

from models.metrics.hu import Mask, Volume, eroded

ENHANCED_HU: Final = 40.0
QUIET_HU: Final = 10.0
SOFT_TISSUE_HU: Final = (0.0, 100.0)
FIGURES: Final = ("enhanced_error_hu", "quiet_error_hu", "contrast_gain")

_BOX_PX: Final = 5


class RegisteredDifference:
    """CECT - NCCT of one patient, in register, and where it says that something enhances or that nothing does.

    Both masks are taken from 5 x 5 means in plane, so that noise does not choose voxels, and lose two pixels of their
    rim, where organs that moved would count. `enhanced`: a difference above ENHANCED_HU. `quiet`: a difference below
    QUIET_HU in size, in soft tissue (SOFT_TISSUE_HU). Only voxels that both scans show inside the window count.
    """

    def __init__(self, ncct_hu: Volume, cect_hu: Volume, window_hu: tuple[float, float]) -> None:
        """Both scans in HU [z, y, x] as they were taken."""
        low, high = window_hu
        self._source_hu, self._truth_hu = np.clip(ncct_hu, low, high), np.clip(cect_hu, low, high)
        inside = (ncct_hu > low) & (ncct_hu < high) & (cect_hu > low) & (cect_hu < high)
        difference = _smooth(self._truth_hu - self._source_hu)
        tissue = _smooth(self._source_hu)
        soft = inside & (tissue > SOFT_TISSUE_HU[0]) & (tissue < SOFT_TISSUE_HU[1])
        # Noise takes single voxels out of the window; eroding afterwards would eat what lies around each.
        self.enhanced: Mask = eroded(difference > ENHANCED_HU) & inside
        self.quiet: Mask = eroded((np.abs(difference) < QUIET_HU) & (tissue > SOFT_TISSUE_HU[0])) & soft

    def figures(self, prediction_hu: Volume) -> dict[str, float]:
        """FIGURES of a prediction [z, y, x] clipped to the window; not a number where a mask is empty.

        `enhanced_error_hu`, `quiet_error_hu`: mean of prediction - CECT in each mask. `contrast_gain`: how much more
        the prediction brightens what enhances than what is quiet, over how much more the CECT does: 1 is right, 0 is
        what the source has.
        """
        enhanced, quiet = (_mean(prediction_hu - self._truth_hu, mask) for mask in (self.enhanced, self.quiet))
        got, true = (
            _mean(image - self._source_hu, self.enhanced) - _mean(image - self._source_hu, self.quiet)
            for image in (prediction_hu, self._truth_hu)
        )
        return dict(zip(FIGURES, (enhanced, quiet, got / true), strict=True))


def _smooth(image_hu: Volume) -> Volume:
    return np.asarray(uniform_filter(image_hu, size=(1, _BOX_PX, _BOX_PX)))


def _mean(image_hu: Volume, mask: Mask) -> float:
    return float(image_hu[mask].mean(dtype=np.float64)) if mask.any() else math.nan
