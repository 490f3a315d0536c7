"""Owns the optimisation settings that all methods share; must not build an optimiser."""

import math
from dataclasses import dataclass
from typing import Literal

Decay = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Regime:
    """How a method is optimised, whatever its networks; the defaults are the study's: Adam 1e-4, batch 16, 100 epochs.

    `decay` of the learning rates: "constant"; "linear", constant for the first half of the epochs, then down to 0 in
    one stair an epoch (Pix2Pix, CycleGAN); "cosine", a half cosine from the start down to `final_lr` (SynDiff).
    `warmup_steps` is over how many steps of the optimisers the rates first rise, linearly, to that plan.
    `ema_decay` None keeps no moving average; `ema_young` lets a young average forget its first weights faster.
    `max_grad_norm` clips each optimiser's gradients. `seed` decides the first weights and all noise of training.
    The first `crop_share` (0 to 1) of the epochs see random crops of `crop` x `crop` pixels in batches of `crop_batch`
    (None: `batch_size`), the others whole slices in batches of `batch_size`.
    """

    lr_generator: float = 1e-4
    lr_discriminator: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    batch_size: int = 16
    epochs: int = 100
    decay: Decay = "constant"
    final_lr: float = 0.0
    ema_decay: float | None = None
    ema_young: bool = False
    max_grad_norm: float | None = None
    seed: int = 1
    warmup_steps: int = 0
    crop: int | None = None
    crop_share: float = 0.0
    crop_batch: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no run can follow, in words; raises ValueError."""
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; it must be at least 0")
        if not 0 <= self.crop_share <= 1:
            raise ValueError(f"crop_share is {self.crop_share}; it must be from 0 to 1")
        for name in ("crop", "crop_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1, or None")
        if self.crop_share and self.crop is None:
            raise ValueError(f"crop_share is {self.crop_share}; it needs the size of the crops in crop")

    def rate_at(self, rate: float, epoch: float, step: int) -> float:
        """Learning rate for one that starts at `rate`, at this epoch (with its fraction) and step, both from 0."""
        return self._planned(rate, epoch) * min(1.0, (step + 1) / max(self.warmup_steps, 1))

    def _planned(self, rate: float, epoch: float) -> float:
        if self.decay == "linear":
            constant = self.epochs // 2
            beyond = max(0, math.floor(epoch) + 1 - constant)
            return rate * max(0.0, 1 - beyond / (self.epochs - constant + 1))
        if self.decay == "cosine":
            share = min(epoch / self.epochs, 1.0)
            return self.final_lr + (rate - self.final_lr) * (1 + math.cos(math.pi * share)) / 2
        return rate

    def average_decay(self, updates: int) -> float:
        """Decay of the moving average at its `updates`-th update, counted from 1."""
        decay = self.ema_decay or 0.0
        return min(decay, (1 + updates) / (10 + updates)) if self.ema_young else decay


SMALL = Regime(
    lr_generator=1e-3,
    lr_discriminator=2e-4,
    batch_size=2,
    decay="cosine",
    final_lr=1e-5,
    ema_decay=0.99,
    ema_young=True,
)
"""Of the "small" presets: a few minutes on one CPU core with some 200 slices of 128 x 128. They predict a residual, as
so short a run would otherwise spend much of itself on learning to copy the source."""
