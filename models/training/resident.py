"""Slices that a run keeps in the memory of the device it trains on, ready to be changed and shown."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import HU_WINDOW
from models.context import seen_slices
from models.frame import Frame
from models.methods.method import Batch
from models.training.augment import OPEN_HU, Augmentation, HuBatch, augment

Packed = tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]]
"""Source in the window, source in OPEN_HU, and target minus source, each [slices, M, M] in HU."""


def pack(source_hu: NDArray[np.float32], target_hu: NDArray[np.float32], matrix: int) -> Packed:
    """What is kept of native slices [slices, H, W]; half precision keeps 0.25 HU at the window's upper end."""

    def framed(hu: NDArray[np.float32], window_hu: tuple[float, float]) -> NDArray[np.float32]:
        low, high = window_hu
        values = Frame(window_hu, matrix).to_model(torch.from_numpy(np.asarray(hu, dtype=np.float32)))[:, 0]
        return ((values + 1) * ((high - low) / 2) + low).numpy()

    source = framed(source_hu, HU_WINDOW)
    change = framed(target_hu, HU_WINDOW) - source
    opened = framed(source_hu, OPEN_HU)
    return source.astype(np.float16), opened.astype(np.float16), change.astype(np.float16)


class ResidentSlices:
    """Slices of patients that may still be added to; a slice's number never changes."""

    def __init__(self, context_mm: Sequence[float], device: str | torch.device) -> None:
        """Hold nothing yet. `context_mm`: the neighbours that are shown, see `models.context`."""
        self._context_mm, self._device = tuple(context_mm), torch.device(device)
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []
        self._whole: tuple[Tensor, ...] = ()
        self._count = 0

    def __len__(self) -> int:
        """Number of slices."""
        return self._count

    def add(self, packed: Packed, spacing_mm: float) -> None:
        """Take one patient's slices, in their order, `spacing_mm` apart."""
        seen = seen_slices(len(packed[0]), self._context_mm, spacing_mm).T
        depth_mm = (seen - seen[:, :1]) * spacing_mm
        tensors = [torch.from_numpy(array).to(self._device) for array in packed]
        places = torch.from_numpy(seen + self._count).to(self._device)
        depths = torch.from_numpy(depth_mm.astype(np.float32)).to(self._device)
        self._parts.append((tensors[0], tensors[1], tensors[2], places, depths))
        self._count += len(packed[0])

    def settle(self) -> None:
        """Make what was added since the last call ready to be shown."""
        if self._parts:
            older = [self._whole] if self._whole else []
            self._whole = tuple(torch.cat(parts) for parts in zip(*older, *self._parts, strict=True))
            self._parts = []

    def batch(self, numbers: Sequence[int], augmentation: Augmentation | None, seed: Sequence[int]) -> Batch:
        """These slices as model images, changed as `augmentation` says; `seed` decides how."""
        self.settle()
        source, opened, change, seen, depth_mm = self._whole
        index = torch.as_tensor(numbers, device=self._device)
        places = seen[index]
        hu = HuBatch(source[places].float(), opened[places].float(), change[index][:, None].float(), depth_mm[index])
        if augmentation is not None:
            state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1)
            hu = augment(hu, augmentation, torch.Generator(self._device).manual_seed(int(state)))
        return Batch(_to_model(hu.source), _to_model(hu.source[:, :1] + hu.change))


def _to_model(hu: Tensor) -> Tensor:
    low, high = HU_WINDOW
    return (hu.clamp(low, high) - (low + high) / 2) / ((high - low) / 2)
