"""What of a prediction reaches the derived pixels; everything else keeps the source's stored value."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.dicom.pixels import StoredPixels
from node.dicom.volume import CTVolume, stored_range


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
    the window and to the range of BitsStored; where it is not finite, the source's value stays. A prediction that would
    by chance become a padding value becomes the next value that is none. Raises ValueError for another shape.
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
        exact = (clipped_hu.astype(np.float64) - intercept) / slope
        lowest, highest = stored_range(header.bits_stored or 16, signed=header.pixel_representation == 1)
        take = np.isfinite(exact)
        where, exact = where[take], exact[take]
        candidate = np.clip(np.rint(exact), lowest, highest)
        if source.padding is not None:
            lowest = max(lowest, int(np.ceil((low - intercept) / slope)))
            highest = min(highest, int(np.floor((high - intercept) / slope)))
            where, candidate = _beside_padding(where, exact, candidate, source.padding, (lowest, highest))
        stored[z].reshape(-1)[where] = candidate.astype(stored.dtype)
    return Composite(stored, inside)


def _beside_padding(
    where: NDArray[np.intp],
    exact: NDArray[np.float64],
    candidate: NDArray[np.float64],
    padding: tuple[int, int],
    allowed: tuple[int, int],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Move stored values out of the closed range of padding, to its nearer side that is `allowed`.

    Where neither side is allowed the pixel is left out, so that it keeps the source's value.
    """
    below, above = padding[0] - 1, padding[1] + 1
    hit = (candidate > below) & (candidate < above)
    if not hit.any():
        return where, candidate
    can_fall, can_rise = below >= allowed[0], above <= allowed[1]
    if not (can_fall or can_rise):
        return where[~hit], candidate[~hit]
    rise = np.full(exact.shape, can_rise) if not (can_fall and can_rise) else above - exact < exact - below
    return where, np.where(hit, np.where(rise, above, below), candidate)
