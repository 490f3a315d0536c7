"""The way between native HU slices and the model's square images in [-1, 1]."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.bundle import BundleCard


@dataclass(frozen=True)
class Frame:
    """HU window (low, high) and matrix M of a model's images."""

    hu_window: tuple[float, float]
    matrix: int

    @classmethod
    def of(cls, card: BundleCard) -> "Frame":
        """The frame of a bundle."""
        return cls(card.hu_window, card.matrix)

    def sees(self, hu: NDArray[np.float32]) -> bool:
        """Whether any pixel of HU [...] lies in the closed window; where none does, a prediction changes nothing."""
        low, high = self.hu_window
        return bool(((hu >= low) & (hu <= high)).any())

    def to_model(self, hu: Tensor) -> Tensor:
        """Native HU [N, H, W] -> model values [N, 1, M, M] in [-1, 1].

        Clipped to the window, padded to a square with the window's lower end so that anatomy keeps its proportions,
        and averaged over areas where the matrix shrinks by a whole number, else interpolated with antialiasing.
        """
        low, high = self.hu_window
        rows, columns = hu.shape[-2:]
        square = F.pad(hu.clamp(low, high)[:, None], _square_padding(rows, columns), value=low)
        size = square.shape[-1]
        if size % self.matrix == 0:
            small = F.avg_pool2d(square, size // self.matrix)
        else:
            target = (self.matrix, self.matrix)
            small = F.interpolate(square, size=target, mode="bilinear", align_corners=False, antialias=True)
        # Divided, not multiplied by a reciprocal: the window's ends become -1 and 1 to the last bit. CUDA multiplies
        # wherever the divisor is a plain number.
        return (small - (low + high) / 2) / small.new_full((), (high - low) / 2)

    def to_native(self, difference: Tensor, hu: Tensor) -> Tensor:
        """Add a difference of model values [N, 1, M, M] to native HU [N, H, W]; returns HU [N, H, W] in the window.

        The difference is interpolated bilinearly (align_corners=False) and added to the source clipped to the window,
        so that detail of the native matrix survives and a difference of zero changes no bit.
        """
        low, high = self.hu_window
        rows, columns = hu.shape[-2:]
        left, _, top, _ = _square_padding(rows, columns)
        side = max(rows, columns)
        large = F.interpolate(difference * ((high - low) / 2), size=(side, side), mode="bilinear", align_corners=False)
        return (hu.clamp(low, high) + large[:, 0, top : top + rows, left : left + columns]).clamp(low, high)


def _square_padding(rows: int, columns: int) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) pixels that make a centred square."""
    side = max(rows, columns)
    left, top = (side - columns) // 2, (side - rows) // 2
    return left, side - columns - left, top, side - rows - top


def all_finite(values: Tensor) -> bool:
    """Whether no value is infinite or not a number."""
    return bool(torch.isfinite(values).all())
