"""Which slices of a series a network sees beside the one that it translates. This module loads no torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def seen_slices(count: int, context_mm: Sequence[float], spacing_mm: float | None) -> NDArray[np.intp]:
    """Numbers [1 + len(context_mm), count] of the slices shown for each slice: itself first, then its neighbours.

    A neighbour is the slice nearest to its distance, at least one slice away: thick slices show their direct
    neighbours. Positive distances lie towards higher slice numbers (towards the head, as models see a series). At the
    ends of the series the last slice stands for those that are missing. `spacing_mm`: distance of slice centres; raises
    ValueError where it is needed and None or not positive.
    """
    own = np.arange(count)
    if not context_mm:
        return own[None]
    if spacing_mm is None or not spacing_mm > 0:
        raise ValueError(f"spacing_mm is {spacing_mm}; this bundle sees neighbouring slices and needs their distance")
    steps = [int(np.sign(mm)) * max(1, round(abs(mm) / spacing_mm)) for mm in context_mm]
    return np.asarray(np.clip(own + np.array([0, *steps])[:, None], 0, max(count - 1, 0)))
