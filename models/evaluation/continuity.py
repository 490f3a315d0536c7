"""Does a vessel light up evenly along its course, from slice to slice?"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.evaluation.regions import Track, Volume, changes_inside, mean_or_nan

DROPOUT_HU: Final = 40.0


@dataclass(frozen=True)
class TrackRow:
    """One track measured.

    `changes_hu`: mean change of each circle, HU, from the lowest slice; not a number where no pixel counts. `mean_hu`:
    their mean. `rms_step_hu`: root mean square of the steps between circles in neighbouring slices; not a number
    without any. `dropouts`: slices that light up by less than DROPOUT_HU, or of which no pixel counts.
    """

    track: Track
    changes_hu: tuple[float, ...]
    mean_hu: float
    rms_step_hu: float
    dropouts: int


def measure_track(source_hu: Volume, result_hu: Volume, track: Track) -> TrackRow:
    """Follow one track through a result; raises RegionError where a circle lies outside the volume."""
    changes = np.array([mean_or_nan(changes_inside(source_hu, result_hu, circle)) for circle in track.circles])
    neighbours = np.diff([circle.slice for circle in track.circles]) == 1
    steps = np.diff(changes)[neighbours]
    steps = steps[np.isfinite(steps)]
    rms = float(np.sqrt((steps**2).mean())) if steps.size else math.nan
    lit = int((changes >= DROPOUT_HU).sum())
    return TrackRow(track, tuple(changes.tolist()), mean_or_nan(changes), rms, len(changes) - lit)
