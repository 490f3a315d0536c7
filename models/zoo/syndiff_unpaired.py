"""Owns SynDiff as a method, unpaired and as published; must not read data or files.

Özbey et al., IEEE TMI 42(12), 2023. For each contrast there are a diffusive generator, which denoises it under the
guidance of the other contrast, a plain (non-diffusive) generator, which translates the other contrast into it and so
makes that guidance, and a discriminator for either. The diffusive generator meets real sources only in `translate`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from models.losses import l1, logistic_fake, logistic_real
from models.networks.config import NcsnppConfig
from models.networks.generators import GeneratorConfig, build_generator
from models.networks.ncsnpp import Ncsnpp
from models.networks.patchgan import PatchGan, PatchGanConfig
from models.networks.resnet import ResnetConfig
from models.networks.time_discriminator import TimeDiscriminator, TimeDiscriminatorConfig
from models.networks.unet import UnetConfig
from models.zoo.denoising import Draw
from models.zoo.method import Batch
from models.zoo.parts import GENERATORS
from models.zoo.prediction import predicted_image
from models.zoo.regime import SMALL, Regime
from models.zoo.trained import DiffusiveConfig, DiffusiveMethod

_OTHER = MappingProxyType({"target": "source", "source": "target"})


@dataclass(frozen=True, kw_only=True)
class SyndiffConfig(DiffusiveConfig):
    """Networks, one shape for both contrasts, regime, schedule and weights beside the adversarial terms of 1.

    `prediction` is how diffusive and plain generators alike change what they are shown of the other contrast.
    """

    plain: GeneratorConfig
    discriminator: PatchGanConfig
    cycle_weight: float = 0.5
    l1_weight: float = 0.5


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
)

# A guide that is not yet an image teaches the diffusive generators to mend what no real source has; hence plain
# generators that start near the copy.
_SMALL = SyndiffConfig(
    regime=replace(SMALL, lr_discriminator=1e-3, betas=(0.5, 0.9), batch_size=1, epochs=3, max_grad_norm=1.0),
    network=NcsnppConfig(
        image_size=128, nf=16, ch_mult=(1, 2, 4), num_res_blocks=1, nz=16, z_emb_dim=32, n_mlp=2, patch_size=4
    ),
    plain=UnetConfig(downs=5, base_channels=8, norm="group", dropout=0.0),
    time_discriminator=TimeDiscriminatorConfig(widths=(4, 8, 16, 32, 32), t_emb_dim=32),
    discriminator=PatchGanConfig(base_channels=16, norm="group"),
    prediction="residual",
)
TINY = SyndiffConfig(
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
    r1_every=5,
)

PRESETS: Mapping[str, SyndiffConfig] = MappingProxyType(
    {
        "paper": _PAPER,
        "published": replace(_PAPER, regime=PUBLISHED_REGIME),
        "small": _SMALL,
        "tiny": TINY,
    }
)


class Syndiff(DiffusiveMethod[SyndiffConfig]):
    """Fulfils `models.zoo.method.Method`. Networks are named after the contrast they make or judge."""

    name = "syndiff"
    paired = False
    translating = "diffusive_target"

    def __init__(self, config: SyndiffConfig) -> None:
        """Build the eight networks from the regime's seed."""

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
        super().__init__(
            config,
            networks,
            {
                GENERATORS: generators,
                "diffusive_discriminators": [f"judge_diffusive_{contrast}" for contrast in _OTHER],
                "plain_discriminators": [f"judge_plain_{contrast}" for contrast in _OTHER],
            },
            averaged=generators,
        )

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """Diffusive discriminators, plain discriminators, then all generators on fresh noise; see `Method`."""
        parts, images = self.parts, {"target": batch.target, "source": batch.source}
        with parts.step(step):
            with torch.no_grad():
                translated = {contrast: self._plain(contrast, images[_OTHER[contrast]]) for contrast in _OTHER}
            terms = self._diffusive_discriminator_terms(images, translated, step)
            losses = parts.descend("diffusive_discriminators", terms)
            losses |= parts.descend("plain_discriminators", self._plain_discriminator_terms(images, translated))
            with parts.frozen("diffusive_discriminators", "plain_discriminators"):
                return losses | parts.descend(GENERATORS, self._generator_terms(images))

    def _diffusive_discriminator_terms(
        self, images: Mapping[str, Tensor], translated: Mapping[str, Tensor], step: int
    ) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for contrast, real in images.items():
            draw = self.draw(real)
            with torch.no_grad():
                fake = draw.step_back(self.schedule, self._denoise(contrast, draw, translated[_OTHER[contrast]]))
            names = f"diffusive_real_{contrast}", f"diffusive_fake_{contrast}", f"r1_{contrast}"
            terms |= self.discriminator_terms(f"judge_diffusive_{contrast}", draw, fake, step=step, names=names)
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
            draw = self.draw(real)
            estimate = self._denoise(contrast, draw, translated[_OTHER[contrast]])
            fake = draw.step_back(self.schedule, estimate)
            cycled = self._plain(contrast, translated[_OTHER[contrast]])
            terms |= {
                f"adversarial_diffusive_{contrast}": logistic_real(
                    draw.judge(networks[f"judge_diffusive_{contrast}"], fake)
                ),
                f"adversarial_plain_{contrast}": logistic_real(
                    networks[f"judge_plain_{contrast}"](translated[contrast])
                ),
                f"cycle_{contrast}": config.cycle_weight * l1(cycled, real),
                f"l1_{contrast}": config.l1_weight * l1(estimate, real),
            }
        return terms

    def _plain(self, contrast: str, other: Tensor) -> Tensor:
        return predicted_image(self.config, self.parts.networks[f"plain_{contrast}"](other), other)

    def _denoise(self, contrast: str, draw: Draw, guidance: Tensor) -> Tensor:
        return draw.estimate(self.parts.networks[f"diffusive_{contrast}"], self.config, guidance)


def build(config: SyndiffConfig) -> Syndiff:
    """A fresh method."""
    return Syndiff(config)
