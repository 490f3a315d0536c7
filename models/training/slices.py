"""Which slices a step is given, in which order, and as which images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.cohort import CohortError, CohortPatient
from models.context import seen_slices
from models.frame import Frame
from models.methods.method import Batch
from models.methods.optimisation import Regime
from models.together import ALL_PROCESSES
from models.training.accelerated import OfOneProcess
from models.training.options import TrainingError

Pair = tuple[int, int]

_ORDER, _PARTNER, _CROP = 1, 2, 3  # streams of random numbers, so that one does not depend on how often another is read


class UnreadableSlice(CohortError):
    """An array of the cohort cannot be read any more; of several processes one may meet it alone."""


class SliceSet(Dataset[tuple[Tensor, Tensor]]):
    """All slices of some patients, in their order, as model images; item (i, j) is (source i, target j).

    A source is [C, M, M], the slice and its neighbours at `context_mm`; so is a target where `stacked`, else [1, M, M].
    Read from the memory-mapped arrays when asked for: a cohort may be larger than the memory.
    """

    def __init__(
        self,
        patients: Sequence[CohortPatient],
        frame: Frame,
        target: str,
        *,
        context_mm: Sequence[float] = (),
        stacked: bool = False,
        blood_level_hu: float | None = None,
    ) -> None:
        """Look the slices up; raises TrainingError where a patient lacks what this target or this level needs."""
        needed = {"enhanced_source": "enhancement"}.get(target, target)
        if lacking := [p.id for p in patients if not p.has(needed)]:
            raise TrainingError(
                f"patient {lacking[0]} has no {needed}; this cohort cannot be trained towards {target}."
            )
        if blood_level_hu is not None and (unknown := [p.id for p in patients if not p.record.e_hu]):
            raise TrainingError(
                f"patient {unknown[0]} has no e_hu, the true enhancement of its blood, so that nothing says how "
                "much to change it for blood_level_hu."
            )
        self.context_mm, self.stacked = tuple(context_mm), stacked
        self._frame, self._target, self._level_hu, self._patients = frame, target, blood_level_hu, patients
        self._places = [(patient, shown) for patient in patients for shown in self._seen(patient)]

    def __len__(self) -> int:
        """Number of slices."""
        return len(self._places)

    def __getitem__(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """The source image of one slice and the target image of one, the same or another."""
        source, target = pair
        return self._image(source, "ncct", whole=True), self._image(target, self._target, whole=self.stacked)

    def scans(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], float]]:
        """Of each patient, whole: source and target in HU [slices, H, W], and the distance of the slices in mm."""
        for patient in self._patients:
            source, target = (self._hu(patient, name, slice(None)) for name in ("ncct", self._target))
            yield source, target, patient.record.spacing_mm[0]

    def spread(self, count: int) -> Batch:
        """`count` slices (or all) as a batch of true pairs, evenly spread over the set."""
        picks = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int))
        sources, targets = zip(*(self[int(k), int(k)] for k in picks), strict=True)
        return Batch(torch.stack(sources), torch.stack(targets))

    def _seen(self, patient: CohortPatient) -> list[list[int]]:
        slices, _, _ = patient.record.shape
        numbers: list[list[int]] = seen_slices(slices, self.context_mm, patient.record.spacing_mm[0]).T.tolist()
        return numbers

    def _image(self, index: int, name: str, *, whole: bool) -> Tensor:
        patient, shown = self._places[index]
        images = [self._hu(patient, name, slice(z, z + 1)) for z in (shown if whole else shown[:1])]
        return self._frame.to_model(torch.from_numpy(np.concatenate(images)))[:, 0]

    def _hu(self, patient: CohortPatient, name: str, part: slice) -> NDArray[np.float32]:
        if name != "enhanced_source":
            return patient.hu(name, part)
        factor = 1.0 if self._level_hu is None else self._level_hu / (patient.record.e_hu or 1.0)
        return patient.hu("ncct", part) + np.float32(factor) * patient.hu("enhancement", part)


@dataclass(frozen=True)
class BatchPlan:
    """Which pairs each step sees, from the regime's seed and the epoch alone, so that a run can go on anywhere.

    An epoch shows every source slice once, but for the rest that fills no batch. For methods that compare no pair the
    targets come in an order of their own. Each of the regime's `accumulate` parts of a batch is divided among
    `processes`, so that a part is the same whoever holds it.
    """

    slices: int
    regime: Regime
    paired: bool
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        """Refuse batches that cannot be filled or divided."""
        for size in {self._batch_size(epoch) for epoch in (0, self.regime.epochs - 1)}:
            if size > self.slices:
                raise TrainingError(f"a batch of {size} needs as many slices; the split train has {self.slices}.")
            if size % self.processes:
                raise TrainingError(f"a batch of {size} cannot be divided among {self.processes} processes.")
            if size // self.processes % self.regime.accumulate:
                parts = self.regime.accumulate
                raise TrainingError(f"a batch of {size // self.processes} cannot be divided into {parts} parts.")

    def steps_in(self, epoch: int) -> int:
        """Number of steps of this epoch."""
        return self.slices // self._batch_size(epoch)

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole run."""
        return sum(self.steps_in(epoch) for epoch in range(self.regime.epochs))

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, steps taken in it) after `step` steps."""
        epoch = 0
        while epoch < self.regime.epochs and step >= self.steps_in(epoch):
            step -= self.steps_in(epoch)
            epoch += 1
        return epoch, step

    def own_places(self, epoch: int) -> list[int]:
        """Which places of every whole batch of the epoch are this process's."""
        size, parts = self._batch_size(epoch), self.regime.accumulate
        part, share = size // parts, size // parts // self.processes
        starts = (number * part + self.process * share for number in range(parts))
        return [place for start in starts for place in range(start, start + share)]

    def batches(self, epoch: int) -> list[list[Pair]]:
        """This process's share of every batch of the epoch."""
        order = self._rng(_ORDER, epoch).permutation(self.slices)
        partners = order if self.paired else self._rng(_PARTNER, epoch).permutation(self.slices)
        pairs = [(int(i), int(j)) for i, j in zip(order, partners, strict=True)]
        size = self._batch_size(epoch)
        places = self.own_places(epoch)
        return [[pairs[k * size + place] for place in places] for k in range(self.steps_in(epoch))]

    def crop(self, batch: Batch, epoch: int, number: int) -> Batch:
        """The batch itself, or in epochs of crops a random place of each image, for both of a pair the same."""
        side, matrix = self.regime.crop, batch.source.shape[-1]
        if side is None or not self._crops(epoch) or side >= matrix:
            return batch
        # Bodies lie in the middle; crops of the outer border would hold only air.
        border = (matrix - side) // 8
        rng = self._rng(_CROP, epoch, number, ALL_PROCESSES)
        corners = rng.integers(border, matrix - side - border + 1, (self._batch_size(epoch), 2))[self.own_places(epoch)]

        def cut(images: Tensor) -> Tensor:
            return torch.stack([x[:, r : r + side, c : c + side] for x, (r, c) in zip(images, corners, strict=True)])

        return Batch(cut(batch.source), cut(batch.target))

    def _crops(self, epoch: int) -> bool:
        return self.regime.crop is not None and epoch < self.regime.crop_share * self.regime.epochs

    def _batch_size(self, epoch: int) -> int:
        return (self.regime.crop_batch if self._crops(epoch) else None) or self.regime.batch_size

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.regime.seed, *numbers])))


def read_batches(slices: SliceSet, plan: BatchPlan, epoch: int, start: int, *, workers: int = 0) -> Iterator[Batch]:
    """The batches of an epoch from number `start` on, cropped as planned, read here or ahead by worker processes.

    Raises UnreadableSlice; OfOneProcess where a worker process ended.
    """
    batches = plan.batches(epoch)[start:]
    loader: DataLoader[list[Tensor]] = DataLoader(slices, batch_sampler=batches, num_workers=workers)  # type: ignore[arg-type]
    for number, (source, target) in enumerate(_loaded(loader), start):
        yield plan.crop(Batch(source, target), epoch, number)


def _loaded(loader: DataLoader[list[Tensor]]) -> Iterator[list[Tensor]]:
    try:
        yield from loader
    except CohortError as error:
        # From a worker process torch brings its traceback as the message, the last line of which is the error's own.
        raise UnreadableSlice(
            str(error).rstrip().rpartition("\n")[2].partition("CohortError: ")[2] or str(error)
        ) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise OfOneProcess(
            "a process that reads slices ended, perhaps for want of memory or of shared memory (/dev/shm); "
            "fewer workers need less."
        ) from error
