"""Displacement fields: their nodes, how they are interpolated, how they move a volume.

A field u [3, z, y, x] has components (z, y, x) in mm and pulls back: the moved volume shows at p what lay at p + u(p).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Volume = NDArray[np.float32]


def node_count(length: int, step_px: int) -> int:
    """Nodes along a side of `length` pixels, the first on the first pixel, the last on or after the last."""
    return -(-(length - 1) // step_px) + 1


def upsample_field(nodes: Volume, rows: int, columns: int, step_px: int) -> Volume:
    """Linear interpolation in plane of nodes [3, z, n, m], `step_px` apart, to a field [3, z, rows, columns]."""
    if step_px == 1:
        return nodes
    across, down = _hat_weights(columns, nodes.shape[3], step_px), _hat_weights(rows, nodes.shape[2], step_px)
    return np.asarray(down @ nodes @ across.T, dtype=np.float32)


def warp(volume: Volume, field_mm: Volume, spacing_mm: tuple[float, float, float], *, first_slice: int = 0) -> Volume:
    """Move a volume [z, y, x] by a field [3, n, y, x]; returns [n, y, x].

    The field's first slice lies on the volume's slice `first_slice`, so that a volume with a margin can supply what
    moves in from outside. Trilinear; beyond the volume its border is repeated. Raises ValueError where shapes differ.
    """
    count, rows, columns = field_mm.shape[1:]
    if volume.shape[1:] != (rows, columns) or first_slice < 0 or first_slice + count > volume.shape[0]:
        raise ValueError(f"a field of {field_mm.shape[1:]} does not lie inside a volume of {volume.shape}")
    z, y, x = (np.arange(n, dtype=np.float32) for n in (count, rows, columns))
    places = field_mm / np.asarray(spacing_mm, dtype=np.float32)[:, None, None, None]
    places += np.stack(np.broadcast_arrays((z + first_slice)[:, None, None], y[:, None], x))
    return np.asarray(map_coordinates(volume, places, order=1, mode="nearest"), dtype=np.float32)


def _hat_weights(length: int, nodes: int, step_px: int) -> Volume:
    distance = np.abs(np.arange(length)[:, None] / step_px - np.arange(nodes)[None])
    return np.asarray(np.maximum(1 - distance, 0), dtype=np.float32)
