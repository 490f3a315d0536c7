"""Owns the one-step student of a trained SynDiff as a method; must not train its teacher.

The student has the teacher's network and a diffusion of one step. It starts as the teacher's first step, to the bit:
the bias of the time embedding is moved so that time 0 means to it what time T - 1 meant to the teacher. It then learns
the mean of the teacher's samples, which one step can say and four steps draw from, and the target itself, and may be
judged at the one time step left. Distillation of few-step models by regression and an adversarial term: Sauer et al.,
ECCV 2024; one regression step for translation: Graf et al. (YODA), 2025.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from models.bundle import BundleCard, BundleError, read_card
from models.diffusion import DiffusionConfig, make_schedule
from models.losses import l1
from models.networks.config import NcsnppConfig
from models.networks.layers import sinusoid
from models.networks.ncsnpp import Ncsnpp
from models.zoo.denoising import Draw, sample_from_seed
from models.zoo.method import Batch
from models.zoo.regime import SMALL, Regime
from models.zoo.slicewise import load_network
from models.zoo.syndiff_paired import PRESETS as PAIRED
from models.zoo.syndiff_paired import SyndiffPaired, SyndiffPairedConfig


@dataclass(frozen=True, kw_only=True)
class SyndiffStudentConfig(SyndiffPairedConfig):
    """A paired SynDiff of one step beside its teacher, a bundle folder of method syndiff or syndiff_paired.

    Network, prediction and diffusion are the teacher's whatever the preset says. `teacher_samples` are averaged for
    each batch; `teacher_weight` is that of L1 to their mean.
    """

    teacher: str = ""
    teacher_samples: int = 2
    teacher_weight: float = 20.0


def _student_of(paired: SyndiffPairedConfig, **changes: object) -> SyndiffStudentConfig:
    values = {name: getattr(paired, name) for name in paired.__dataclass_fields__}
    return SyndiffStudentConfig(**values | {"registration": None} | changes)


# The teacher's mean forgives misaligned targets already, hence no registration and a small weight of the target.
PRESETS: Mapping[str, SyndiffStudentConfig] = MappingProxyType(
    {
        "paper": _student_of(PAIRED["paper"], l1_weight=1.0),
        "demo": _student_of(
            PAIRED["demo"],
            regime=Regime(
                lr_generator=2e-4,
                betas=(0.9, 0.99),
                batch_size=3,
                epochs=2,
                decay="cosine",
                final_lr=1e-6,
                ema_decay=0.99,
                ema_young=True,
                max_grad_norm=1.0,
            ),
            l1_weight=0.5,
            teacher_weight=1.0,
        ),
        "small": _student_of(
            PAIRED["small"],
            regime=replace(SMALL, lr_generator=2e-4, betas=(0.9, 0.99), epochs=2, max_grad_norm=1.0),
            l1_weight=1.0,
        ),
        "tiny": _student_of(PAIRED["tiny"], l1_weight=1.0),
    }
)


class SyndiffStudent(SyndiffPaired):
    """Fulfils `models.zoo.method.Method`."""

    name = "syndiff_student"

    def __init__(self, config: SyndiffStudentConfig) -> None:
        """Load the teacher and copy it; raises BundleError where there is none or where it is no SynDiff."""
        self.teacher_card, network = _teacher(config.teacher)
        card, samples = self.teacher_card, config.teacher_samples
        if samples < 1:
            raise BundleError(f"teacher_samples is {samples}; it must be at least 1.")
        diffusion = DiffusionConfig.from_mapping(card.diffusion)
        self._samples, self._teacher_weight = samples, config.teacher_weight
        self._teacher, self._teacher_schedule = network, make_schedule(diffusion)
        config = replace(
            config,
            network=network.config,
            diffusion=replace(diffusion, num_timesteps=1),
            prediction=card.prediction,
            residual_scale=card.residual_scale,
        )
        super().__init__(config)
        for student in (self.parts.networks["generator"], *self.parts.averages.values()):
            student.load_state_dict(_as_first_step(network, diffusion.num_timesteps - 1))

    def _generator_terms(self, batch: Batch, draw: Draw, estimate: Tensor, phi: Tensor | None) -> dict[str, Tensor]:
        terms = super()._generator_terms(batch, draw, estimate, phi)
        return terms | {"teacher": self._teacher_weight * l1(estimate, self._teacher_mean(batch.source))}

    def _teacher_mean(self, source: Tensor) -> Tensor:
        """Mean of the teacher's samples for these sources; their seeds come from the step's own random stream."""
        network = self._teacher.to(source.device)
        samples = [
            sample_from_seed(
                network, self.teacher_card, self._teacher_schedule, source, nz=network.config.nz, seed=int(seed)
            )
            for seed in torch.randint(0, 2**31, (self._samples,))
        ]
        return torch.stack(samples).mean(dim=0)


def _teacher(folder: str) -> tuple[BundleCard, Ncsnpp]:
    if not folder:
        raise BundleError("a student needs a teacher: the folder of a SynDiff bundle.")
    path = Path(folder)
    card = read_card(path)
    if card.network.get("architecture") != "ncsnpp":
        raise BundleError(f"{path} is no SynDiff but {card.method}: it cannot teach one step.")
    config = NcsnppConfig.from_card(card.network)
    return card, load_network(path, card, lambda: Ncsnpp(config)).eval()


@torch.no_grad()
def _as_first_step(teacher: Ncsnpp, last: int) -> dict[str, Tensor]:
    """The teacher's weights with the time embedding's first bias moved from time `last` to time 0."""
    state = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    then, now = sinusoid(torch.tensor([last, 0]), teacher.config.nf)
    first: nn.Module = teacher.time_mlp[0]
    assert isinstance(first, nn.Linear)
    state["time_mlp.0.bias"] += first.weight @ (then - now)
    return state


def build(config: SyndiffStudentConfig) -> SyndiffStudent:
    """A fresh method."""
    return SyndiffStudent(config)
