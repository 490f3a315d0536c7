"""Owns the pool of phantom slices that a small training run draws from; must not train."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.frame import Frame
from models.phantom import make_patient

_LOG = logging.getLogger(__name__)

TARGETS = ("enhanced_source", "cect")
_STEPS_PER_UNIT = 8192  # model values are stored as int16


@dataclass(frozen=True)
class SlicePool:
    """Pairs of model images [N, M, M] as int16, `_STEPS_PER_UNIT` steps to one unit of [-1, 1]."""

    source: NDArray[np.int16]
    target: NDArray[np.int16]

    def batch(self, index: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Source and target [B, 1, M, M] float32 in [-1, 1] of these slices."""
        pair = (torch.from_numpy(array[index].astype(np.float32)) for array in (self.source, self.target))
        source, target = (tensor[:, None] / _STEPS_PER_UNIT for tensor in pair)
        return source, target

    def save(self, file: Path) -> None:
        """Write the pool; `load` reads it back."""
        np.savez(file, source=self.source, target=self.target)

    @classmethod
    def load(cls, file: Path) -> "SlicePool":
        """Read a pool that `save` wrote."""
        with np.load(file) as arrays:
            return cls(arrays["source"], arrays["target"])


def make_pool(
    frame: Frame, *, patients: int, slices: int, first_seed: int, target: str = "enhanced_source"
) -> SlicePool:
    """Make `slices` slices each of `patients` phantom patients with the seeds from `first_seed` on.

    Patients differ in level (abdomen to shoulders), slice thickness and field of view. `target` is what to predict:
    "cect", the second scan with its own noise, or "enhanced_source", the first scan plus the true enhancement, which
    only a phantom knows and which teaches to leave everything else alone.
    """
    if target not in TARGETS:
        raise ValueError(f"target is {target!r}; allowed are {', '.join(TARGETS)}")
    pairs: list[tuple[NDArray[np.int16], NDArray[np.int16]]] = []
    for seed in range(first_seed, first_seed + patients):
        rng = np.random.Generator(np.random.Philox([seed, 1]))
        pixel_mm = float(rng.uniform(0.8, 1.17))
        patient = make_patient(
            seed,
            slices=slices,
            spacing_mm=(float(rng.choice([3.0, 5.0])), pixel_mm, pixel_mm),
            centre_z_mm=float(rng.uniform(-125, 75)),
        )
        second = patient.cect_hu if target == "cect" else patient.ncct_hu + patient.enhancement_hu
        pairs.append((_stored(frame, patient.ncct_hu), _stored(frame, second)))
        _LOG.debug("phantom patient %d of %d", len(pairs), patients)
    return SlicePool(np.concatenate([s for s, _ in pairs]), np.concatenate([t for _, t in pairs]))


def _stored(frame: Frame, hu: NDArray[np.float32]) -> NDArray[np.int16]:
    values = frame.to_model(torch.from_numpy(hu))[:, 0] * _STEPS_PER_UNIT
    return values.round().to(torch.int16).numpy()
