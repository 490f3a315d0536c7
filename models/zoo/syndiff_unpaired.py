"""Owns SynDiff as a method, unpaired and as published; must not read data or files.

Özbey et al., IEEE TMI 42(12), 2023. For each contrast there are a diffusive generator, which denoises it under the
guidance of the other contrast, a plain (non-diffusive) generator, which translates the other contrast into it and so
makes that guidance, and a discriminator for either. The diffusive generator meets real sources only in `translate`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from models.diffusion import DiffusionConfig, make_schedule
from models.losses import l1, logistic_fake, logistic_real, r1_penalty
from models.networks.config import NcsnppConfig
from models.networks.generators import GeneratorConfig, build_generator
from models.networks.ncsnpp import Ncsnpp
from models.networks.patchgan import PatchGan, PatchGanConfig
from models.networks.resnet import ResnetConfig
from models.networks.time_discriminator import TimeDiscriminator, TimeDiscriminatorConfig
from models.zoo.denoising import Draw, sample_from_seed
from models.zoo.method import Batch, Blueprint
from models.zoo.parts import GENERATORS, Parts
from models.zoo.regime import Regime

_OTHER = MappingProxyType({"target": "source", "source": "target"})


@dataclass(frozen=True)
class SyndiffConfig:
    """Networks, one shape for both contrasts, regime, schedule and weights beside the adversarial terms of 1.

    R1 acts on the diffusive discriminators at every `r1_every`-th step, from step 0, with the weight r1_gamma / 2.
    """

    regime: Regime
    network: NcsnppConfig
    plain: GeneratorConfig
    time_discriminator: TimeDiscriminatorConfig
    discriminator: PatchGanConfig
    diffusion: DiffusionConfig
    cycle_weight: float = 0.5
    l1_weight: float = 0.5
    r1_gamma: float = 1.0
    r1_every: int = 10
    prediction: str = "image"
    residual_scale: float = 1.0

    @property
    def matrix(self) -> int:
        """M of the M x M model images."""
        return self.network.image_size


PUBLISHED_REGIME = Regime(
    lr_generator=1.6e-4,
    lr_discriminator=1e-4,
    betas=(0.5, 0.9),
    batch_size=1,
    epochs=500,
    decay="cosine",
    final_lr=1e-5,
    ema_decay=0.999,
)
_PAPER = SyndiffConfig(
    regime=Regime(betas=(0.5, 0.9), ema_decay=0.999),
    network=NcsnppConfig(),
    plain=ResnetConfig(blocks=6),
    time_discriminator=TimeDiscriminatorConfig(),
    discriminator=PatchGanConfig(),
    diffusion=DiffusionConfig(),
)

PRESETS: Mapping[str, SyndiffConfig] = MappingProxyType(
    {
        "paper": _PAPER,
        "published": replace(_PAPER, regime=PUBLISHED_REGIME),
        "tiny": SyndiffConfig(
            regime=Regime(
                lr_generator=1e-2,
                lr_discriminator=1e-3,
                betas=(0.5, 0.9),
                batch_size=2,
                epochs=2,
                ema_decay=0.99,
                ema_young=True,
            ),
            network=NcsnppConfig(
                image_size=16, nf=8, ch_mult=(1,), num_res_blocks=1, nz=4, z_emb_dim=8, n_mlp=1, attn_resolutions=()
            ),
            plain=ResnetConfig(blocks=1, base_channels=8),
            time_discriminator=TimeDiscriminatorConfig(widths=(8, 16), t_emb_dim=8),
            discriminator=PatchGanConfig(base_channels=8, strided_layers=2),
            diffusion=DiffusionConfig(),
            r1_every=5,
        ),
    }
)


class Syndiff:
    """Fulfils `models.zoo.method.Method`. Networks are named after the contrast they make or judge."""

    name = "syndiff"
    paired = False

    def __init__(self, config: SyndiffConfig) -> None:
        """Build the eight networks from the regime's seed."""
        self.config = config
        self._schedule = make_schedule(config.diffusion)

        def networks() -> dict[str, nn.Module]:
            built: dict[str, nn.Module] = {}
            for contrast in _OTHER:
                built |= {
                    f"diffusive_{contrast}": Ncsnpp(config.network),
                    f"plain_{contrast}": build_generator(config.plain),
                    f"judge_diffusive_{contrast}": TimeDiscriminator(config.time_discriminator),
                    f"judge_plain_{contrast}": PatchGan(config.discriminator),
                }
            return built

        generators = [f"{kind}_{contrast}" for kind in ("diffusive", "plain") for contrast in _OTHER]
        self.parts = Parts(
            config.regime,
            networks,
            {
                GENERATORS: generators,
                "diffusive_discriminators": [f"judge_diffusive_{contrast}" for contrast in _OTHER],
                "plain_discriminators": [f"judge_plain_{contrast}" for contrast in _OTHER],
            },
            averaged=generators,
        )

    @property
    def generator(self) -> nn.Module:
        """See `Method`; the diffusive generator of the target."""
        return self.parts.final("diffusive_target")

    @property
    def blueprint(self) -> Blueprint:
        """See `Method`."""
        config = self.config
        network = {"architecture": "ncsnpp", **config.network.to_mapping()}
        return Blueprint(
            network, config.matrix, config.prediction, config.residual_scale, config.diffusion.to_mapping()
        )

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """Diffusive discriminators, plain discriminators, then all generators on fresh noise; see `Method`."""
        parts, images = self.parts, {"target": batch.target, "source": batch.source}
        with parts.step(step):
            with torch.no_grad():
                translated = {contrast: self._plain(contrast, images[_OTHER[contrast]]) for contrast in _OTHER}
            terms = self._diffusive_discriminator_terms(images, translated, penalise=step % self.config.r1_every == 0)
            losses = parts.descend("diffusive_discriminators", terms)
            losses |= parts.descend("plain_discriminators", self._plain_discriminator_terms(images, translated))
            with parts.frozen("diffusive_discriminators", "plain_discriminators"):
                return losses | parts.descend(GENERATORS, self._generator_terms(images))

    def translate(self, x: Tensor, seed: int) -> Tensor:
        """See `Method`; the whole reverse diffusion, conditioned on the real source."""
        config = self.config
        return sample_from_seed(self.generator, config, self._schedule, x, nz=config.network.nz, seed=seed)

    def state_dict(self) -> dict[str, Any]:
        """See `Method`."""
        return self.parts.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Method`."""
        self.parts.load_state_dict(state)

    def _diffusive_discriminator_terms(
        self, images: Mapping[str, Tensor], translated: Mapping[str, Tensor], *, penalise: bool
    ) -> dict[str, Tensor]:
        terms = {}
        for contrast, real in images.items():
            draw = Draw.of(self._schedule, real, self.config.network.nz)
            with torch.no_grad():
                fake = draw.step_back(self._schedule, self._denoise(contrast, draw, translated[_OTHER[contrast]]))
            x_t = draw.x_t.requires_grad_(penalise)
            logits = self._judge(contrast, draw, x_t)
            terms[f"diffusive_real_{contrast}"] = logistic_real(logits)
            terms[f"diffusive_fake_{contrast}"] = logistic_fake(self._judge(contrast, draw, fake))
            if penalise:
                terms[f"r1_{contrast}"] = self.config.r1_gamma / 2 * r1_penalty(logits, x_t)
        return terms

    def _plain_discriminator_terms(
        self, images: Mapping[str, Tensor], translated: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        terms = {}
        for contrast, real in images.items():
            judge = self.parts.networks[f"judge_plain_{contrast}"]
            terms[f"plain_real_{contrast}"] = logistic_real(judge(real))
            terms[f"plain_fake_{contrast}"] = logistic_fake(judge(translated[contrast]))
        return terms

    def _generator_terms(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradients of the diffusive terms flow through the guidance into the plain generators."""
        config, networks = self.config, self.parts.networks
        translated = {contrast: self._plain(contrast, images[_OTHER[contrast]]) for contrast in _OTHER}
        terms: dict[str, Tensor] = {}
        for contrast, real in images.items():
            draw = Draw.of(self._schedule, real, config.network.nz)
            estimate = self._denoise(contrast, draw, translated[_OTHER[contrast]])
            fake = draw.step_back(self._schedule, estimate)
            cycled = self._plain(contrast, translated[_OTHER[contrast]])
            terms |= {
                f"adversarial_diffusive_{contrast}": logistic_real(self._judge(contrast, draw, fake)),
                f"adversarial_plain_{contrast}": logistic_real(
                    networks[f"judge_plain_{contrast}"](translated[contrast])
                ),
                f"cycle_{contrast}": config.cycle_weight * l1(cycled, real),
                f"l1_{contrast}": config.l1_weight * l1(estimate, real),
            }
        return terms

    def _plain(self, contrast: str, other: Tensor) -> Tensor:
        image: Tensor = self.parts.networks[f"plain_{contrast}"](other)
        return image

    def _denoise(self, contrast: str, draw: Draw, guidance: Tensor) -> Tensor:
        return draw.estimate(self.parts.networks[f"diffusive_{contrast}"], self.config, guidance)

    def _judge(self, contrast: str, draw: Draw, x_t: Tensor) -> Tensor:
        logits: Tensor = self.parts.networks[f"judge_diffusive_{contrast}"](x_t, draw.t, draw.x_next)
        return logits


def build(config: SyndiffConfig) -> Syndiff:
    """A fresh method."""
    return Syndiff(config)
