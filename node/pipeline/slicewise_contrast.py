"""Owns the look into the pixels of a series that forms no volume: is it enhanced, so that waiting for it is idle?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from node.dicom.volume import read_volume
from node.errors import Permanent
from node.pipeline.native_contrast import NativeContrast, find_native_contrast

SAMPLED_SLICES: Final = 30


def find_slicewise_contrast(paths: Sequence[Path]) -> NativeContrast:
    """Sum what `find_native_contrast` sees in single slices, at most 30 of them spread over `paths`, mL and HU.

    Slices that cannot be read alone count nothing. Measured, limit 25 mL: the Siemens chest with contrast medium, of
    which 30 slices with gaps exist, 321 mL at 119 HU; the Philips chest without, all 64 slices, 4.9 mL.
    """
    count = min(len(paths), SAMPLED_SLICES)
    found = []
    for path in (paths[k * len(paths) // count] for k in range(count)):
        try:
            found.append(find_native_contrast(read_volume([path])))
        except Permanent:
            continue
    volume_ml = sum(one.enhanced_ml for one in found)
    weighted_hu = sum(one.enhanced_ml * one.mean_hu for one in found)
    return NativeContrast(volume_ml, weighted_hu / volume_ml if volume_ml else 0.0)
