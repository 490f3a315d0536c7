"""Averages over blocks of pixels: what gates look at instead of every pixel."""

from functools import reduce

import numpy as np
from numpy.typing import NDArray


def block_mean(plane: NDArray[np.float32], rows: int, columns: int, out: NDArray[np.float32]) -> None:
    """Write to `out` the mean of each block of rows x columns pixels of a plane; what fills no block is left out.

    Sums of strided planes: five times as fast as numpy's mean over two short axes, and equal to the last bit.
    """
    tall, wide = out.shape
    blocks = plane[: tall * rows, : wide * columns].reshape(tall, rows, wide, columns)
    lines = reduce(np.add, (blocks[..., x] for x in range(columns)))
    np.divide(reduce(np.add, (lines[:, y] for y in range(rows))), np.float32(rows * columns), out=out)


def block_size(wanted_mm: float, spacing_mm: tuple[float, float], shape: tuple[int, int]) -> tuple[int, int]:
    """How many pixels (y, x) make a block of about `wanted_mm`: at least one, and at most the plane."""
    y, x = (min(max(1, round(wanted_mm / step)), size) for step, size in zip(spacing_mm, shape, strict=True))
    return y, x
