"""Owns the paired SynDiff as a method, beyond the paper: conditioned on the real source; must not read data or files.

The diffusive generator of SynDiff (Özbey et al., IEEE TMI 2023) is trained on what it will meet: the real source. Its
estimate is compared with the true target, where asked for after a registration that forgives the misalignment of the
two scans (RegGAN, Kong et al., NeurIPS 2021), and judged by the time-conditional discriminator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from models.diffusion import DiffusionConfig, make_schedule
from models.losses import logistic_fake, logistic_real, r1_penalty, smoothness
from models.networks.config import NcsnppConfig
from models.networks.ncsnpp import Ncsnpp
from models.networks.registration import RegistrationConfig, RegistrationNetwork, displacement_figures, warp
from models.networks.time_discriminator import TimeDiscriminator, TimeDiscriminatorConfig
from models.zoo.denoising import Draw, sample_from_seed
from models.zoo.method import Batch, Blueprint
from models.zoo.parts import GENERATORS, Parts
from models.zoo.regime import Regime
from models.zoo.syndiff_unpaired import PUBLISHED_REGIME


@dataclass(frozen=True)
class SyndiffPairedConfig:
    """Networks, regime, schedule and weights of the terms.

    `registration` None compares pixel by pixel; `adversarial_weight` 0 leaves the discriminator out. Pixels where the
    target differs from the source by more than `enhanced_above` (model values) weigh 1 + `enhanced_weight` in L1.
    """

    regime: Regime
    network: NcsnppConfig
    time_discriminator: TimeDiscriminatorConfig
    registration: RegistrationConfig | None
    diffusion: DiffusionConfig
    adversarial_weight: float = 1.0
    l1_weight: float = 20.0
    smoothness_weight: float = 10.0
    r1_gamma: float = 1.0
    r1_every: int = 10
    enhanced_weight: float = 0.0
    enhanced_above: float = 15 * 2 / 440
    prediction: str = "residual"
    residual_scale: float = 2.0

    @property
    def matrix(self) -> int:
        """M of the M x M model images."""
        return self.network.image_size


_PAPER = SyndiffPairedConfig(
    regime=Regime(betas=(0.5, 0.9), ema_decay=0.999, ema_young=True, max_grad_norm=1.0),
    network=NcsnppConfig(),
    time_discriminator=TimeDiscriminatorConfig(),
    registration=RegistrationConfig(),
    diffusion=DiffusionConfig(),
)
_DEMO = replace(
    _PAPER,
    regime=Regime(
        lr_generator=1e-3,
        betas=(0.9, 0.99),
        batch_size=8,
        decay="cosine",
        final_lr=1e-5,
        ema_decay=0.998,
        ema_young=True,
        max_grad_norm=1.0,
    ),
    network=NcsnppConfig(nf=16, ch_mult=(1, 2, 4, 6), num_res_blocks=1, nz=16, z_emb_dim=64, n_mlp=2, patch_size=2),
    registration=None,
    adversarial_weight=0.0,
    l1_weight=1.0,
    enhanced_weight=0.5,
)
_TINY = replace(
    _PAPER,
    regime=Regime(
        lr_generator=5e-3,
        lr_discriminator=1e-3,
        betas=(0.5, 0.9),
        batch_size=2,
        epochs=2,
        ema_decay=0.99,
        ema_young=True,
        max_grad_norm=1.0,
    ),
    network=NcsnppConfig(
        image_size=16, nf=8, ch_mult=(1,), num_res_blocks=1, nz=4, z_emb_dim=8, n_mlp=1, attn_resolutions=()
    ),
    time_discriminator=TimeDiscriminatorConfig(widths=(8, 16), t_emb_dim=8),
    registration=RegistrationConfig(widths=(8, 8), bottleneck_blocks=1),
    r1_every=5,
)

# Nobody published this method: "published" is SynDiff's regime with RegGAN's weights. "demo" is L1 alone, in register.
PRESETS: Mapping[str, SyndiffPairedConfig] = MappingProxyType(
    {
        "paper": _PAPER,
        "published": replace(_PAPER, regime=PUBLISHED_REGIME),
        "demo": _DEMO,
        "tiny": _TINY,
        "tiny_demo": replace(_DEMO, regime=_TINY.regime, network=_TINY.network),
    }
)


class SyndiffPaired:
    """Fulfils `models.zoo.method.Method`."""

    name = "syndiff_paired"
    paired = True

    def __init__(self, config: SyndiffPairedConfig) -> None:
        """Build the networks that the weights ask for from the regime's seed."""
        self.config = config
        self._schedule = make_schedule(config.diffusion)

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
        self.parts = Parts(config.regime, networks, groups, averaged=["generator"])

    @property
    def generator(self) -> nn.Module:
        """See `Method`."""
        return self.parts.final("generator")

    @property
    def blueprint(self) -> Blueprint:
        """See `Method`; registration and discriminator are for training only."""
        config = self.config
        network = {"architecture": "ncsnpp", **config.network.to_mapping()}
        return Blueprint(
            network, config.matrix, config.prediction, config.residual_scale, config.diffusion.to_mapping()
        )

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of the discriminator, then one of the generator with the registration, on fresh noise.

        See `Method`. With registration also the mean displacement "displacement_px" and the share "folded" of folds.
        """
        losses: dict[str, float] = {}
        parts, adversarial = self.parts, bool(self.config.adversarial_weight)
        with parts.step(step):
            if adversarial:
                terms = self._discriminator_terms(batch, penalise=step % self.config.r1_every == 0)
                losses = parts.descend("discriminators", terms)
            with parts.frozen(*(["discriminators"] if adversarial else [])):
                draw = self._draw(batch)
                estimate, phi = self._estimate(batch, draw)
                terms = self._generator_terms(batch, draw, estimate, phi)
                losses |= parts.descend(GENERATORS, terms)
        return losses if phi is None else losses | displacement_figures(phi.detach())

    def translate(self, x: Tensor, seed: int) -> Tensor:
        """See `Method`; the whole reverse diffusion."""
        config = self.config
        return sample_from_seed(self.generator, config, self._schedule, x, nz=config.network.nz, seed=seed)

    def state_dict(self) -> dict[str, Any]:
        """See `Method`."""
        return self.parts.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Method`."""
        self.parts.load_state_dict(state)

    def _draw(self, batch: Batch) -> Draw:
        return Draw.of(self._schedule, batch.target, self.config.network.nz)

    def _estimate(self, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Estimate of the target and, with registration, the displacement that was applied to it.

        The displaced estimate also enters the posterior: x_{t+1} is a noisy target, and the discriminator would tell a
        sample that mixes the two scans' geometry at once.
        """
        estimate = draw.estimate(self.parts.networks["generator"], self.config, batch.source)
        if self.config.registration is None:
            return estimate, None
        phi: Tensor = self.parts.networks["registration"](estimate, batch.target)
        return warp(estimate, phi), phi

    def _discriminator_terms(self, batch: Batch, *, penalise: bool) -> dict[str, Tensor]:
        draw = self._draw(batch)
        with torch.no_grad():
            fake = draw.step_back(self._schedule, self._estimate(batch, draw)[0])
        x_t = draw.x_t.requires_grad_(penalise)
        logits = self._judge(draw, x_t)
        terms = {
            "discriminator_real": logistic_real(logits),
            "discriminator_fake": logistic_fake(self._judge(draw, fake)),
        }
        if penalise:
            terms["r1"] = self.config.r1_gamma / 2 * r1_penalty(logits, x_t)
        return terms

    def _generator_terms(self, batch: Batch, draw: Draw, estimate: Tensor, phi: Tensor | None) -> dict[str, Tensor]:
        config = self.config
        weight = 1 + config.enhanced_weight * ((batch.target - batch.source).abs() > config.enhanced_above)
        terms = {"l1": config.l1_weight * (weight * (estimate - batch.target).abs()).mean()}
        if phi is not None:
            terms["smoothness"] = config.smoothness_weight * smoothness(phi)
        if config.adversarial_weight:
            fake = draw.step_back(self._schedule, estimate)
            terms["adversarial"] = config.adversarial_weight * logistic_real(self._judge(draw, fake))
        return terms

    def _judge(self, draw: Draw, x_t: Tensor) -> Tensor:
        logits: Tensor = self.parts.networks["discriminator"](x_t, draw.t, draw.x_next)
        return logits


def build(config: SyndiffPairedConfig) -> SyndiffPaired:
    """A fresh method."""
    return SyndiffPaired(config)
