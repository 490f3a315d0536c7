"""The one-step student of a trained SynDiff.

The student has the teacher's network and a diffusion of one step. It starts as the teacher's first step, to the bit:
the bias of the time embedding is moved so that time 0 means to it what time T - 1 meant to the teacher. It then learns
the mean of the teacher's samples, which one step can predict and four steps draw from, and the target itself, and a
discriminator may compare x_t at the one time step left. Distillation of few-step models by regression and an
adversarial term: Sauer et al., ECCV 2024; one regression step for translation: Graf et al. (YODA), 2025.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from models.bundle import BundleCard, BundleError, read_card
from models.diffusion import DiffusionConfig, Draw, make_schedule
from models.losses import enhanced_l1, l1, logistic_real, logistic_with_r1
from models.methods.inference import ReverseDiffusion, sample_from_seed
from models.methods.method import Batch
from models.methods.optimisation import GENERATORS, SMALL, Parts, Regime
from models.methods.syndiff_paired import PRESETS as PAIRED
from models.methods.syndiff_paired import SyndiffPairedConfig
from models.networks.config import NcsnppConfig
from models.networks.discriminators import TimeDiscriminator, TimeDiscriminatorConfig
from models.networks.ncsnpp import Ncsnpp, sinusoid
from models.translators.slicewise import load_network


@dataclass(frozen=True, kw_only=True)
class SyndiffStudentConfig:
    """Settings of a paired SynDiff without registration, of one step, beside its teacher.

    `teacher` is a bundle folder of method syndiff or syndiff_paired; network, prediction, neighbours and diffusion
    become the teacher's whatever the preset says. `teacher_samples` are averaged for each batch; `teacher_weight` is
    that of L1 to their mean.
    """

    regime: Regime
    network: NcsnppConfig
    time_discriminator: TimeDiscriminatorConfig
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    r1_gamma: float = 1.0
    r1_every: int = 10
    adversarial_weight: float
    l1_weight: float
    enhanced_weight: float
    prediction: str
    residual_scale: float
    context_mm: tuple[float, ...] = ()
    teacher: str = ""
    teacher_samples: int = 2
    teacher_weight: float = 20.0

    @property
    def matrix(self) -> int:
        """M of the M x M model images."""
        return self.network.image_size


def _student_of(paired: SyndiffPairedConfig, **changes: object) -> SyndiffStudentConfig:
    """The settings that both have; a student has no registration."""
    names = SyndiffStudentConfig.__dataclass_fields__.keys() & paired.__dataclass_fields__.keys()
    return SyndiffStudentConfig(**{name: getattr(paired, name) for name in names} | changes)


# The teacher's mean is right for misaligned targets already, hence no registration and a small weight of the target.
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


class SyndiffStudent:
    """Fulfils `models.methods.method.Method`; the discriminator is for training only."""

    name = "syndiff_student"
    paired = True
    stacked = False

    def __init__(self, config: SyndiffStudentConfig) -> None:
        """Load the teacher and copy it; raises BundleError where there is none or where it is no SynDiff."""
        card, teacher = load_teacher(config.teacher)
        if config.teacher_samples < 1:
            raise BundleError(f"teacher_samples is {config.teacher_samples}; it must be at least 1.")
        diffusion = DiffusionConfig.from_mapping(card.diffusion)
        self.teacher_card, self._teacher, self._teacher_schedule = card, teacher, make_schedule(diffusion)
        self.config = replace(
            config,
            network=teacher.config,
            diffusion=replace(diffusion, num_timesteps=1),
            prediction=card.prediction,
            residual_scale=card.residual_scale,
            context_mm=card.context_mm,
        )
        self.schedule = make_schedule(self.config.diffusion)

        def networks() -> dict[str, nn.Module]:
            built: dict[str, nn.Module] = {"generator": Ncsnpp(teacher.config)}
            if config.adversarial_weight:
                built["discriminator"] = TimeDiscriminator(config.time_discriminator)
            return built

        groups = {GENERATORS: ["generator"]}
        if config.adversarial_weight:
            groups["discriminators"] = ["discriminator"]
        self.parts = Parts(config.regime, networks, groups, averaged=["generator"])
        for student in (self.parts.networks["generator"], *self.parts.averages.values()):
            student.load_state_dict(as_first_step(teacher, diffusion.num_timesteps - 1))
        self.inference = ReverseDiffusion(self.config, self.parts, "generator", self.schedule)

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of the discriminator, then one of the generator, on fresh noise; see `Method`."""
        losses: dict[str, float] = {}
        parts, adversarial = self.parts, bool(self.config.adversarial_weight)
        with parts.step(step):
            if adversarial:
                losses = parts.descend("discriminators", self._discriminator_terms(batch, step))
            with parts.frozen(*(["discriminators"] if adversarial else [])):
                return losses | parts.descend(GENERATORS, self._generator_terms(batch))

    def _discriminator_terms(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """L of D_theta in SynDiff: logistic terms of real and fake x_t given x_{t+1}, and R1 at the real one."""
        draw = Draw.of(self.schedule, batch.target, self.config.network.nz)
        with torch.no_grad():
            estimate = draw.estimate_x0(self.parts.networks["generator"], self.config, batch.source)
            fake = draw.sample_x_t(self.schedule, estimate)
        gamma = self.config.r1_gamma if step % self.config.r1_every == 0 else None
        discriminator = partial(draw.logits, self.parts.networks["discriminator"])
        names = ("discriminator_real", "discriminator_fake", "r1")
        return logistic_with_r1(discriminator, draw.x_t, fake, gamma=gamma, names=names)

    def _generator_terms(self, batch: Batch) -> dict[str, Tensor]:
        """L1 to the target, SynDiff's adversarial term of G_theta, and L1 to the mean of the teacher's samples."""
        config = self.config
        draw = Draw.of(self.schedule, batch.target, config.network.nz)
        estimate = draw.estimate_x0(self.parts.networks["generator"], config, batch.source)
        compared = enhanced_l1(estimate, batch.target, batch.source[:, :1], weight=config.enhanced_weight)
        terms = {"l1": config.l1_weight * compared}
        if config.adversarial_weight:
            fake = draw.sample_x_t(self.schedule, estimate)
            logits = draw.logits(self.parts.networks["discriminator"], fake)
            terms["adversarial"] = config.adversarial_weight * logistic_real(logits)
        return terms | {"teacher": config.teacher_weight * l1(estimate, self._teacher_mean(batch.source))}

    def _teacher_mean(self, source: Tensor) -> Tensor:
        """Mean of the teacher's samples for these sources; their seeds come from the step's own random stream."""
        network, card, schedule = self._teacher.to(source.device), self.teacher_card, self._teacher_schedule
        samples = [
            sample_from_seed(network, card, schedule, source, nz=network.config.nz, seed=int(seed))
            for seed in torch.randint(0, 2**31, (self.config.teacher_samples,))
        ]
        return torch.stack(samples).mean(dim=0)


def load_teacher(folder: str) -> tuple[BundleCard, Ncsnpp]:
    """Card and frozen network of a SynDiff bundle; raises BundleError where there is none or where it is another."""
    if not folder:
        raise BundleError("a student needs a teacher: the folder of a SynDiff bundle.")
    path = Path(folder)
    card = read_card(path)
    if card.network.get("architecture") != "ncsnpp":
        raise BundleError(f"{path} is no SynDiff but {card.method}: it cannot teach one step.")
    config = NcsnppConfig.from_card(card.network)
    return card, load_network(path, card, lambda: Ncsnpp(config)).eval()


@torch.no_grad()
def as_first_step(teacher: Ncsnpp, last: int) -> dict[str, Tensor]:
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
