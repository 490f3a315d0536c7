"""The change from a source to its result on a grid of a few millimetres, and how rough it is at full resolution."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.dicom.pixels import StoredPixels
from node.dicom.volume import CTVolume
from node.translate.blocks import block_mean, block_size
from node.translate.composite import Composite

BLOCK_MM: Final = 4.0  # averages the noise of some 25 pixels away and keeps a vessel of 10 mm
CLIPPED_HU: Final = (-200.0, 300.0)
TISSUE_HU: Final = (0.0, 100.0)
TISSUE_SHARE: Final = 0.95  # of a block's pixels inside the window: no border of lung, fat or bone
ROUGH_SLICES: Final = 24

Grid = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ChangeGrid:
    """All [z, y, x], means of blocks. source_hu: clipped to CLIPPED_HU; change_hu: result - source, 0 outside of the
    window; inside: share 0..1 of the block's pixels in the window. spacing_mm: (z, y, x) of the blocks."""

    source_hu: Grid
    change_hu: Grid
    inside: Grid
    spacing_mm: tuple[float, float, float]

    @property
    def tissue(self) -> Mask:
        """Blocks of soft tissue: muscle, blood, organs."""
        low, high = TISSUE_HU
        return (self.inside > TISSUE_SHARE) & (self.source_hu > low) & (self.source_hu < high)

    @property
    def block_ml(self) -> float:
        """Volume of a block, mL."""
        return float(np.prod(self.spacing_mm)) / 1000


def change_grid(volume: CTVolume, result: Composite) -> ChangeGrid:
    """Average the change of a composited result and its source over blocks of about BLOCK_MM in the plane."""
    z_mm, y_mm, x_mm = volume.spacing_mm
    count, rows, columns = volume.hu.shape
    ky, kx = block_size(BLOCK_MM, (y_mm, x_mm), (rows, columns))
    source, change, inside = (np.empty((count, rows // ky, columns // kx), np.float32) for _ in range(3))
    for z in range(count):
        block_mean(np.clip(volume.hu[z], *CLIPPED_HU), ky, kx, source[z])
        block_mean(change_of_slice(volume, result, z), ky, kx, change[z])
        block_mean(result.inside[z].astype(np.float32), ky, kx, inside[z])
    return ChangeGrid(source, change, inside, (z_mm, y_mm * ky, x_mm * kx))


def change_of_slice(volume: CTVolume, result: Composite, z: int) -> NDArray[np.float32]:
    """Result minus source of one slice, HU, as its readers see it."""
    return _change_hu(volume, z, result.stored[z], volume.stored[z])


def change_inside(volume: CTVolume, result: Composite, z: int) -> NDArray[np.float32]:
    """Result minus source of the pixels of one slice that may change, HU, row by row: mostly an eighth of them."""
    inside = result.inside[z]
    return _change_hu(volume, z, result.stored[z][inside], volume.stored[z][inside])


def _change_hu(volume: CTVolume, z: int, result: StoredPixels, source: StoredPixels) -> NDArray[np.float32]:
    change = np.subtract(result, source, dtype=np.float32)  # exact, as numbers of 16 bits are
    slope = volume.slices[z].header.rescale_slope or 1.0
    return change if slope == 1 else np.multiply(change, np.float32(slope), out=change)


def measure_roughness(volume: CTVolume, result: Composite) -> dict[str, float]:
    """grain_hu: standard deviation of white noise that would make the change as rough from pixel to pixel as it is, HU.
    detail_kept: the share of the source's own differences from pixel to pixel that the result still has, 1 = all.

    Of at most ROUGH_SLICES slices spread over the volume, and there of pixels whose four neighbours may change too.
    """
    count = min(len(volume.slices), ROUGH_SLICES)
    rough, fine = [], []
    for z in np.linspace(0, len(volume.slices) - 1, count).astype(int):
        all_inside = _with_neighbours(result.inside[z])
        rough.append(_beyond_neighbours(change_of_slice(volume, result, z))[all_inside])
        fine.append(_beyond_neighbours(volume.hu[z])[all_inside])
    change, source = np.concatenate(rough), np.concatenate(fine)
    if not change.size:
        return {}
    power = float(np.dot(source, source))
    return {
        "grain_hu": float(np.median(np.abs(change))) * _SD_OF_MEDIAN,
        "detail_kept": 1.0 + (float(np.dot(change, source)) / power if power else 0.0),
    }


# White noise of 1 HU less the mean of its four neighbours has a standard deviation of sqrt(1 + 1/4) HU, and the median
# of its absolute values is the standard deviation over 1.4826.
_SD_OF_MEDIAN: Final = 1.4826 / np.sqrt(1.25)


def _beyond_neighbours(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each inner pixel less the mean of its four neighbours."""
    around = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:]
    return plane[1:-1, 1:-1] - np.float32(0.25) * around


def _with_neighbours(inside: Mask) -> Mask:
    return inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
