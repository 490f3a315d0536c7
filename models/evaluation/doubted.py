"""Whether the doubt of a result lies where a model is wrong, and not where it is right."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.evaluation.regions import WRONG, Circle, Region, Volume, counted_pixels, measure_regions

WRONGLY_LIT_HU: Final = 20.0
MARKED_SHARE: Final = 0.25
"""A region counts as marked where so much of its pixels lies in the mask."""


@dataclass(frozen=True)
class Doubted:
    """One region: the median doubt of its pixels, HU, and whether the mask marks it."""

    region: Region
    doubt_hu: float
    marked: bool


def doubted_regions(
    source_hu: Volume, result_hu: Volume, doubt_hu: Volume, mask: NDArray[np.bool_], regions: Iterable[Region]
) -> tuple[list[Doubted], list[Doubted]]:
    """Regions of one series that light and should not, by more than WRONGLY_LIT_HU, and its vessels."""
    wrong, vessels = list[Doubted](), list[Doubted]()
    for row in measure_regions(source_hu, result_hu, regions):
        lights_wrongly = row.region.kind in WRONG and row.change_hu > WRONGLY_LIT_HU
        if not (lights_wrongly or row.region.kind == "vessel") or not row.pixels:
            continue
        circle = row.region.circle
        median_hu = float(np.median(doubt_hu[circle.slice][counted_pixels(source_hu, circle)]))
        (wrong if lights_wrongly else vessels).append(
            Doubted(row.region, median_hu, is_marked(source_hu, mask, circle))
        )
    return wrong, vessels


def is_marked(source_hu: Volume, mask: NDArray[np.bool_], circle: Circle) -> bool:
    """Whether the mask covers at least MARKED_SHARE of a circle's soft tissue."""
    counted = counted_pixels(source_hu, circle)
    return bool(counted.any()) and float(mask[circle.slice][counted].mean()) >= MARKED_SHARE
