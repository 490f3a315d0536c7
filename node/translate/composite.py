"""What of a prediction reaches the derived pixels; everything else keeps the source's stored value."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.dicom.pixels import StoredPixels
from node.dicom.volume import CTVolume


@dataclass(frozen=True, slots=True)
class Composite:
    """Derived pixels on the source's lattice.

    stored: [z, y, x], the source's dtype. inside: bool [z, y, x], where the source lies in the window and is no
    padding; outside it `stored` equals the source bit for bit.
    """

    stored: StoredPixels
    inside: NDArray[np.bool_]


def composite(volume: CTVolume, predicted_hu: NDArray[np.float32], window_hu: tuple[float, float]) -> Composite:
    """Put a prediction into the source where the source's HU lie in the closed window.

    predicted_hu: float32 [z, y, x], HU. It is rounded back through each slice's rescale (PS3.3 C.11.1) and clipped to
    the window and to the range of BitsStored; where it is not finite, or would by chance become a padding value, the
    source's value stays. Raises ValueError for another shape.
    """
    if predicted_hu.shape != volume.hu.shape:
        raise ValueError(f"prediction of shape {predicted_hu.shape} does not fit the source of {volume.hu.shape}")
    low, high = window_hu
    inside = (volume.hu >= low) & (volume.hu <= high)
    if volume.padding is not None:
        inside &= ~volume.padding
    stored = volume.stored.copy()
    for z, source in enumerate(volume.slices):
        header = source.header
        slope, intercept = float(header.rescale_slope or 1.0), float(header.rescale_intercept or 0.0)
        where = np.flatnonzero(inside[z])  # mostly a quarter of the slice or less
        clipped_hu = np.clip(predicted_hu[z].ravel()[where], low, high)
        candidate = np.rint((clipped_hu.astype(np.float64) - intercept) / slope)
        lowest, highest = _stored_range(header.bits_stored or 16, signed=header.pixel_representation == 1)
        take = np.isfinite(candidate)
        if source.padding is not None:
            take &= (candidate < source.padding[0]) | (candidate > source.padding[1])
        stored[z].reshape(-1)[where[take]] = np.clip(candidate[take], lowest, highest).astype(stored.dtype)
    return Composite(stored, inside)


def _stored_range(bits: int, *, signed: bool) -> tuple[int, int]:
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
