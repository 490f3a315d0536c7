"""Turns a transverse volume into the orientation that networks are trained in, and back, without touching a value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Turn:
    """How a volume [z, y, x] of transverse slices becomes head first supine as a scanner writes it.

    There z ascends to the head, rows run to the patient's left and columns to the back. First rows and columns change
    places where `transposed`, then the axes run backwards that `flipped` (z, y, x) names.
    """

    transposed: bool
    flipped: tuple[bool, bool, bool]

    @classmethod
    def of(cls, orientation: Sequence[float]) -> "Turn":
        """The turn for slices with these row and column cosines, which ascend along row x column.

        Raises ValueError where the slices are not transverse.
        """
        row, column = np.rint(orientation[:3]), np.rint(orientation[3:])
        normal = np.cross(row, column)
        if abs(normal[2]) != 1 or row[2] or column[2]:
            raise ValueError("the slices are not transverse")
        transposed = bool(row[0] == 0)
        to_left, to_back = (column[0], row[1]) if transposed else (row[0], column[1])
        return cls(transposed, (bool(normal[2] < 0), bool(to_back < 0), bool(to_left < 0)))

    def forth(self, volume: NDArray[np.float32]) -> NDArray[np.float32]:
        """The volume as the network is to see it; the same array where nothing is to be turned."""
        if self.transposed:
            volume = volume.swapaxes(1, 2)
        return np.ascontiguousarray(volume[self._steps])

    def back(self, volume: NDArray[np.float32]) -> NDArray[np.float32]:
        """The exact inverse of `forth`."""
        volume = volume[self._steps]
        return np.ascontiguousarray(volume.swapaxes(1, 2) if self.transposed else volume)

    def spacing_of(self, spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Spacing (z, y, x) of the turned volume, of that of the volume as it came."""
        z_mm, y_mm, x_mm = spacing_mm
        return (z_mm, x_mm, y_mm) if self.transposed else spacing_mm

    @property
    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if backwards else 1) for backwards in self.flipped)
