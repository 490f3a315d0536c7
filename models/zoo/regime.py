"""Owns the optimisation settings that all methods share; must not build an optimiser."""

import math
from dataclasses import dataclass
from typing import Literal

Decay = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Regime:
    """How a method is optimised, whatever its networks; the defaults are the study's: Adam 1e-4, batch 16, 100 epochs.

    `decay` of the learning rates by epoch: "constant"; "linear", constant for the first half of the epochs, then down
    to 0 (Pix2Pix, CycleGAN); "cosine", a half cosine from the start down to `final_lr` (SynDiff).
    `ema_decay` None keeps no moving average; `ema_young` lets a young average forget its first weights faster.
    `max_grad_norm` clips each optimiser's gradients. `seed` decides the first weights and all noise of training.
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

    def rate_at(self, rate: float, epoch: float) -> float:
        """Learning rate in this epoch, counted from 0, for one that started at `rate`; fractions are allowed."""
        if self.decay == "linear":
            constant = self.epochs // 2
            return rate * max(0.0, 1 - max(0.0, epoch + 1 - constant) / (self.epochs - constant + 1))
        if self.decay == "cosine":
            share = min(epoch / self.epochs, 1.0)
            return self.final_lr + (rate - self.final_lr) * (1 + math.cos(math.pi * share)) / 2
        return rate

    def average_decay(self, updates: int) -> float:
        """Decay of the moving average at its `updates`-th update, counted from 1."""
        decay = self.ema_decay or 0.0
        return min(decay, (1 + updates) / (10 + updates)) if self.ema_young else decay
