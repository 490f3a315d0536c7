"""The paired SynDiff, beyond the paper: the diffusive generator is trained on the real source.

The diffusive generator of SynDiff (Özbey et al., IEEE TMI 42(12), 2023) is so trained on what it translates later. Its
estimate is compared with the true target, where asked for after a registration that removes the misalignment of the
two scans (RegGAN, Kong et al., NeurIPS 2021), and the time-conditional discriminator compares x_t.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from models.diffusion import DiffusionConfig, Draw, make_schedule
from models.losses import enhanced_l1, logistic_real, logistic_with_r1, smoothness
from models.methods.inference import ReverseDiffusion
from models.methods.method import Batch
from models.methods.optimisation import GENERATORS, SMALL, Parts, Regime
from models.methods.syndiff import PUBLISHED_REGIME, TINY
from models.networks.config import NcsnppConfig
from models.networks.discriminators import TimeDiscriminator, TimeDiscriminatorConfig
from models.networks.ncsnpp import Ncsnpp
from models.networks.registration import RegistrationConfig, RegistrationNetwork, displacement_figures, warp
from models.together import means


@dataclass(frozen=True, kw_only=True)
class SyndiffPairedConfig:
    """Networks, regime, schedule and weights of the terms.

    R1 acts as in `models.methods.syndiff`. `registration` None compares pixel by pixel; `adversarial_weight` 0 leaves
    the discriminator out. Pixels where the target differs from the source by more than 15 HU weigh
    1 + `enhanced_weight` in L1. With `context_mm`, see `models.bundle.BundleCard`, the network has a channel more for
    each neighbour, whatever its `num_channels` says.
    """

    regime: Regime
    network: NcsnppConfig
    time_discriminator: TimeDiscriminatorConfig
    registration: RegistrationConfig | None
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    r1_gamma: float = 1.0
    r1_every: int = 10
    adversarial_weight: float = 1.0
    l1_weight: float = 20.0
    smoothness_weight: float = 10.0
    enhanced_weight: float = 0.0
    prediction: str = "residual"
    residual_scale: float = 2.0
    context_mm: tuple[float, ...] = ()

    @property
    def matrix(self) -> int:
        """M of the M x M model images."""
        return self.network.image_size


_PAPER = SyndiffPairedConfig(
    regime=Regime(betas=(0.5, 0.9), ema_decay=0.999, ema_young=True, max_grad_norm=1.0),
    network=NcsnppConfig(),
    time_discriminator=TimeDiscriminatorConfig(),
    registration=RegistrationConfig(),
)
_DEMO = replace(
    _PAPER,
    regime=Regime(
        lr_generator=1e-3,
        betas=(0.9, 0.99),
        batch_size=3,
        decay="cosine",
        final_lr=1e-5,
        ema_decay=0.998,
        ema_young=True,
        max_grad_norm=1.0,
        warmup_steps=100,
        crop=128,
        crop_share=0.6,
        crop_batch=8,
    ),
    network=NcsnppConfig(nf=16, ch_mult=(1, 2, 4, 6), num_res_blocks=1, nz=16, z_emb_dim=64, n_mlp=2, patch_size=2),
    registration=None,
    adversarial_weight=0.0,
    l1_weight=1.0,
    enhanced_weight=0.5,
)
_SMALL = replace(
    _PAPER,
    regime=replace(SMALL, betas=(0.9, 0.99), epochs=6, max_grad_norm=1.0),
    network=NcsnppConfig(
        image_size=128, nf=16, ch_mult=(1, 2, 4), num_res_blocks=1, nz=16, z_emb_dim=32, n_mlp=2, patch_size=2
    ),
    time_discriminator=TimeDiscriminatorConfig(widths=(4, 8, 16, 32, 64), t_emb_dim=32),
    registration=RegistrationConfig(widths=(4, 8, 8, 16), bottleneck_blocks=1),
)
_TINY = replace(
    _PAPER,
    regime=replace(TINY.regime, lr_generator=5e-3, max_grad_norm=1.0),
    network=TINY.network,
    time_discriminator=TINY.time_discriminator,
    registration=RegistrationConfig(widths=(8, 8), bottleneck_blocks=1),
    r1_every=TINY.r1_every,
)

# Nobody published this method: "published" is SynDiff's regime with RegGAN's weights. "demo" is L1 alone, in register.
PRESETS: Mapping[str, SyndiffPairedConfig] = MappingProxyType(
    {
        "paper": _PAPER,
        "published": replace(_PAPER, regime=PUBLISHED_REGIME),
        "demo": _DEMO,
        "small": _SMALL,
        "tiny": _TINY,
        "tiny_demo": replace(_DEMO, regime=_TINY.regime, network=_TINY.network),
    }
)


class SyndiffPaired:
    """Fulfils `models.methods.method.Method`; registration and discriminator are for training only."""

    name = "syndiff_paired"
    paired = True
    stacked = False

    def __init__(self, config: SyndiffPairedConfig) -> None:
        """Build the networks that the weights ask for from the regime's seed."""
        if config.context_mm:
            config = replace(config, network=replace(config.network, num_channels=2 + len(config.context_mm)))

        def networks() -> dict[str, nn.Module]:
            built: dict[str, nn.Module] = {"generator": Ncsnpp(config.network)}
            if config.registration is not None:
                built["registration"] = RegistrationNetwork(config.registration)
            if config.adversarial_weight:
                built["discriminator"] = TimeDiscriminator(config.time_discriminator)
            return built

        registration = ["registration"] if config.registration is not None else []
        groups = {GENERATORS: ["generator", *registration]}
        if config.adversarial_weight:
            groups["discriminators"] = ["discriminator"]
        self.config = config
        self.schedule = make_schedule(config.diffusion)
        self.parts = Parts(config.regime, networks, groups, averaged=["generator"])
        self.inference = ReverseDiffusion(config, self.parts, "generator", self.schedule)

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of the discriminator, then one of the generator with the registration, on fresh noise.

        See `Method`. With registration also the mean displacement "displacement_px" and the share "folded" of folds.
        """
        losses: dict[str, float] = {}
        parts, adversarial = self.parts, bool(self.config.adversarial_weight)
        with parts.step(step):
            if adversarial:
                losses = parts.descend("discriminators", self._discriminator_terms(batch, step))
            with parts.frozen(*(["discriminators"] if adversarial else [])):
                draw = self._draw(batch.target)
                estimate, phi = self._estimate_x0(batch, draw)
                losses |= parts.descend(GENERATORS, self._generator_terms(batch, draw, estimate, phi))
            return losses if phi is None else losses | means(displacement_figures(phi))

    def _discriminator_terms(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """L of D_theta in SynDiff: logistic terms of real and fake x_t given x_{t+1}, and R1 at the real one."""
        draw = self._draw(batch.target)
        with torch.no_grad():
            fake = draw.sample_x_t(self.schedule, self._estimate_x0(batch, draw)[0])
        gamma = self.config.r1_gamma if step % self.config.r1_every == 0 else None
        discriminator = partial(draw.logits, self.parts.networks["discriminator"])
        names = ("discriminator_real", "discriminator_fake", "r1")
        return logistic_with_r1(discriminator, draw.x_t, fake, gamma=gamma, names=names)

    def _generator_terms(self, batch: Batch, draw: Draw, estimate: Tensor, phi: Tensor | None) -> dict[str, Tensor]:
        """L1 (with registration RegGAN's L_Corr), RegGAN's L_Smooth, and SynDiff's adversarial term of G_theta."""
        config = self.config
        compared = enhanced_l1(estimate, batch.target, batch.source[:, :1], weight=config.enhanced_weight)
        terms = {"l1": config.l1_weight * compared}
        if phi is not None:
            terms["smoothness"] = config.smoothness_weight * smoothness(phi)
        if config.adversarial_weight:
            fake = draw.sample_x_t(self.schedule, estimate)
            logits = draw.logits(self.parts.networks["discriminator"], fake)
            terms["adversarial"] = config.adversarial_weight * logistic_real(logits)
        return terms

    def _draw(self, target: Tensor) -> Draw:
        return Draw.of(self.schedule, target, self.config.network.nz)

    def _estimate_x0(self, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Estimate of the target and, with registration, the displacement that was applied to it.

        The displaced estimate also enters the posterior: x_{t+1} is a noisy target, and the discriminator would tell a
        sample that mixes the two scans' geometry at once.
        """
        estimate = draw.estimate_x0(self.parts.networks["generator"], self.config, batch.source)
        if self.config.registration is None:
            return estimate, None
        phi: Tensor = self.parts.networks["registration"](estimate, batch.target)
        return warp(estimate, phi), phi


def build(config: SyndiffPairedConfig) -> SyndiffPaired:
    """A fresh method."""
    return SyndiffPaired(config)
