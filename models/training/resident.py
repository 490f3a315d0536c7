"""Slices that a run keeps in the memory of the device it trains on, ready to be changed and shown."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import HU_WINDOW
from models.context import seen_slices
from models.frame import Frame
from models.methods.method import Batch
from models.together import ALL_PROCESSES
from models.training.augment import OPEN_HU, HuBatch, PartOf, augment
from models.training.augmentation import Augmentation
from models.training.slices import BatchPlan, SliceSet

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

    def __init__(self, context_mm: Sequence[float], device: str | torch.device, *, stacked: bool = False) -> None:
        """Hold nothing yet. `context_mm`: the neighbours that are shown, see `models.context`; `stacked`: of the target
        too.
        """
        self._context_mm, self._device, self._stacked = tuple(context_mm), torch.device(device), stacked
        self._arrays: tuple[Tensor, ...] = ()
        self._count = 0

    def __len__(self) -> int:
        """Number of slices."""
        return self._count

    def add(self, packed: Packed, spacing_mm: float) -> None:
        """Take one patient's slices, in their order, `spacing_mm` apart."""
        seen = seen_slices(len(packed[0]), self._context_mm, spacing_mm).T
        depth_mm = ((seen - seen[:, :1]) * spacing_mm).astype(np.float32)
        added = [torch.from_numpy(array) for array in (*packed, seen + self._count, depth_mm)]
        count = self._count + len(seen)
        if not self._arrays or count > len(self._arrays[0]):
            self._grow(added, 2 * count)
        for array, part in zip(self._arrays, added, strict=True):
            array[self._count : count] = part.to(self._device)
        self._count = count

    def _grow(self, like: Sequence[Tensor], capacity: int) -> None:
        """Room for more; doubling it keeps the copies few."""
        larger = tuple(part.new_empty((capacity, *part.shape[1:]), device=self._device) for part in like)
        for new, old in zip(larger, self._arrays, strict=False):
            new[: self._count] = old[: self._count]
        self._arrays = larger

    def batch(
        self,
        numbers: Sequence[int],
        augmentation: Augmentation | None,
        seed: Sequence[int],
        part: PartOf | None = None,
    ) -> Batch:
        """These slices, a batch or `part` of one, as images, changed as `augmentation` says, `seed` decides how."""
        source, opened, change, seen, depth_mm = self._arrays
        index = torch.as_tensor(numbers, device=self._device)
        places = seen[index]
        changes = change[places] if self._stacked else change[index][:, None]
        hu = HuBatch(source[places].float(), opened[places].float(), changes.float(), depth_mm[index])
        if augmentation is not None:
            state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1)
            hu = augment(hu, augmentation, torch.Generator(self._device).manual_seed(int(state)), part)
        return Batch(_to_model(hu.source), _to_model(hu.source[:, : changes.shape[1]] + hu.change))


def hold(slices: SliceSet, matrix: int, device: str | torch.device) -> ResidentSlices:
    """All slices of a set on a device, 6 bytes a pixel of the matrix and slice, numbered as in the set."""
    held = ResidentSlices(slices.context_mm, device, stacked=slices.stacked)
    for source_hu, target_hu, spacing_mm in slices.scans():
        held.add(pack(source_hu, target_hu, matrix), spacing_mm)
    return held


def show_batches(
    slices: ResidentSlices, plan: BatchPlan, epoch: int, start: int, augmentation: Augmentation | None
) -> Iterator[Batch]:
    """The batches of an epoch from number `start` on, changed and then cropped as planned.

    Where no pair is compared, sources and targets are changed each in its own way.
    """
    places = plan.own_places(epoch)
    part = PartOf(places, len(places) * plan.processes)
    for number, pairs in enumerate(plan.batches(epoch)[start:], start):
        sources, targets = zip(*pairs, strict=True)
        seed = (plan.regime.seed, ALL_PROCESSES, epoch, number)
        batch = slices.batch(sources, augmentation, (*seed, 0), part)
        if not plan.paired:
            batch = Batch(batch.source, slices.batch(targets, augmentation, (*seed, 1), part).target)
        yield plan.crop(batch, epoch, number)


def _to_model(hu: Tensor) -> Tensor:
    low, high = HU_WINDOW
    return (hu.clamp(low, high) - (low + high) / 2) / ((high - low) / 2)
