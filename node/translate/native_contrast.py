"""Whether a "non-contrast" scan holds contrast medium: its pixels decide, whatever the headers say."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import scipy  # loads scipy.ndimage when it is first used: most processes never do
from numpy.typing import NDArray

from node.dicom.sandbox import SANDBOX, DecoderStopped
from node.dicom.volume import CTVolume, read_volume
from node.errors import Permanent
from node.translate.blocks import block_mean, block_size

WORKING_PIXEL_MM: Final = 2.0
CLIPPED_HU: Final = (-200.0, 1000.0)
SMOOTHING_MM: Final = 2.5  # standard deviation; brings the noise of a sharp lung kernel below that of a soft one
HOMOGENEITY_BOX_MM: Final = 12.0
HOMOGENEOUS_SD_HU: Final = 15.0
ENHANCED_HU: Final = (85.0, 450.0)  # blood without contrast medium has 35 to 60 HU, liver up to 75
BRIGHTER_RIM_HU: Final = 30.0
BRIGHTER_RIM_SHARE: Final = 0.25
SMALLEST_BLOB_ML: Final = 0.5
ENHANCED_LIMIT_ML: Final = 25.0
SAMPLED_SLICES: Final = 30
MAX_DECODING_S: Final = 10.0
MAX_SLOW_DECODING_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class NativeContrast:
    """enhanced_ml: volume of homogeneous bright soft tissue, mL; mean_hu: its mean HU, 0 where there is none.

    fullest_slice: the z index of the slice with most of it, None where there is none or the slices form no volume.
    """

    enhanced_ml: float
    mean_hu: float
    fullest_slice: int | None = None

    @property
    def is_enhanced(self) -> bool:
        """True where there is more of it than a scan without contrast medium shows."""
        return self.enhanced_ml > ENHANCED_LIMIT_ML

    @property
    def reason(self) -> str:
        """What a person reads of a scan that looks enhanced."""
        return (
            f"the scan looks as if contrast agent had been given: {self.enhanced_ml:.0f} mL of even tissue at "
            f"{self.mean_hu:.0f} HU"
        )


def find_native_contrast(volume: CTVolume) -> NativeContrast:
    """Measure how much of the volume looks like blood or organs filled with contrast medium.

    Enhanced heart, great vessels and organs are large blobs of 85 to 450 HU with little variation inside. Spongy bone
    is as bright and often as even, but it lies in a cortex: a blob whose rim is brighter than itself is bone. Measured
    in mL of such tissue, limit 25. Without contrast medium: Philips chest 2.0, Siemens chest 0, three phantoms 0 to
    0.7. With it: GE abdomen 1539 (122 HU), three phantoms 159 to 247, and the Siemens chest whose header names no
    contrast agent 334 (120 HU; only 30 of its slices exist, so they were set 30 mm apart). Vessels thinner than
    the box of 12 mm, and so a scan of neck or extremity, are not seen.
    """
    hu, spacing_mm = _shrink(volume.hu, volume.spacing_mm)
    with ThreadPoolExecutor(1) as beside:  # SciPy's filters release the GIL
        lightly_smoothed = beside.submit(
            scipy.ndimage.gaussian_filter, hu, [0.0, 1.0 / spacing_mm[1], 1.0 / spacing_mm[2]]
        )
        even, mean = _even_tissue(hu, spacing_mm)
        rim_hu = lightly_smoothed.result()
    labels, _ = scipy.ndimage.label(even)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    voxels, total_hu = np.zeros(len(hu), np.int64), 0.0
    for number, box_slices in enumerate(scipy.ndimage.find_objects(labels), start=1):
        around = _grow(box_slices, hu.shape)
        blob = labels[around] == number
        count = int(blob.sum())
        if count * voxel_ml < SMALLEST_BLOB_ML or _has_brighter_rim(blob, mean[around], rim_hu[around]):
            continue
        voxels[around[0]] += np.count_nonzero(blob, axis=(1, 2))
        total_hu += float(mean[around][blob].sum())
    found = int(voxels.sum())
    return (
        NativeContrast(found * voxel_ml, total_hu / found, int(voxels.argmax())) if found else NativeContrast(0.0, 0.0)
    )


def why_enhanced(paths: Sequence[Path]) -> str | None:
    """Why a series that forms no volume looks as if contrast agent had been given, or None where it does not.

    Sums what `find_native_contrast` sees in single slices, at most 30 of them spread over `paths`; slices that cannot
    be read alone count nothing. None too where their decoding takes more than `MAX_DECODING_S`, or more than
    `MAX_SLOW_DECODING_S` for those that fail or are slow: the series then waits for its missing slices. Measured, limit
    25 mL: the Siemens chest with contrast medium, of which 30 slices with gaps exist, 321 mL at 119 HU; the Philips
    chest without, all 64 slices, 4.9 mL.
    """
    count = min(len(paths), SAMPLED_SLICES)
    found = []
    with SANDBOX.budget(total_s=MAX_DECODING_S, slow_s=MAX_SLOW_DECODING_S):
        for path in (paths[k * len(paths) // count] for k in range(count)):
            try:
                found.append(find_native_contrast(read_volume([path])))
            except DecoderStopped:  # the other slices may take as much; the job, if there is one, says why
                return None
            except Permanent:
                continue
    volume_ml = sum(one.enhanced_ml for one in found)
    weighted_hu = sum(one.enhanced_ml * one.mean_hu for one in found)
    seen = NativeContrast(volume_ml, weighted_hu / volume_ml if volume_ml else 0.0)
    return seen.reason if seen.is_enhanced else None


def _even_tissue(
    hu: NDArray[np.float32], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Where the HU are those of enhanced tissue with little variation, and the mean HU around every pixel."""
    smooth = scipy.ndimage.gaussian_filter(hu, [SMOOTHING_MM / step for step in spacing_mm])
    box = (1, _odd(HOMOGENEITY_BOX_MM / spacing_mm[1]), _odd(HOMOGENEITY_BOX_MM / spacing_mm[2]))
    mean = scipy.ndimage.uniform_filter(smooth, box)
    variance = scipy.ndimage.uniform_filter(smooth * smooth, box) - mean * mean
    even = (mean > ENHANCED_HU[0]) & (mean < ENHANCED_HU[1]) & (variance < HOMOGENEOUS_SD_HU**2)
    return even, mean


_RIM_INNER_PX: Final = 2
_RIM_OUTER_PX: Final = 6
_IN_PLANE: Final = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], dtype=np.bool_)


def _has_brighter_rim(blob: NDArray[np.bool_], mean: NDArray[np.float32], hu: NDArray[np.float32]) -> bool:
    """True where a ring of 4 to 12 mm around the blob is in part clearly brighter: the cortex around spongy bone.

    Measured shares of brighter rim: vertebrae 0.33 to 0.47, enhanced heart, vessels and liver 0.01 to 0.12.
    """
    rim = scipy.ndimage.binary_dilation(blob, _IN_PLANE, iterations=_RIM_OUTER_PX)
    rim &= ~scipy.ndimage.binary_dilation(blob, _IN_PLANE, iterations=_RIM_INNER_PX)
    if not rim.any():
        return False
    return float((hu[rim] > mean[blob].mean() + BRIGHTER_RIM_HU).mean()) > BRIGHTER_RIM_SHARE


def _shrink(
    hu: NDArray[np.float32], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """Clip, and average blocks of pixels to about WORKING_PIXEL_MM in the plane."""
    z_mm, y_mm, x_mm = spacing_mm
    count, rows, columns = hu.shape
    ky, kx = block_size(WORKING_PIXEL_MM, (y_mm, x_mm), (rows, columns))
    small = np.empty((count, rows // ky, columns // kx), np.float32)
    for plane, out in zip(hu, small, strict=True):
        block_mean(np.clip(plane, *CLIPPED_HU), ky, kx, out)
    return small, (z_mm, y_mm * ky, x_mm * kx)


def _odd(pixels: float) -> int:
    return max(3, 2 * int(pixels / 2) + 1)


def _grow(box: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    """A blob's bounding box, wide enough in the plane for its rim."""
    z, y, x = box
    margin = _RIM_OUTER_PX + 2
    return (
        z,
        slice(max(0, y.start - margin), min(shape[1], y.stop + margin)),
        slice(max(0, x.start - margin), min(shape[2], x.stop + margin)),
    )
