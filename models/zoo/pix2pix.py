"""Owns Pix2Pix as a method: a conditional GAN on registered pairs; must not read data or files.

Isola et al., CVPR 2017.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from models.losses import l1, logistic_fake, logistic_real
from models.networks.generators import build_generator
from models.networks.patchgan import PatchGan, PatchGanConfig
from models.networks.unet import UnetConfig
from models.zoo.method import Batch
from models.zoo.parts import GENERATORS
from models.zoo.regime import SMALL, Regime
from models.zoo.trained import SinglePassConfig, SinglePassMethod


@dataclass(frozen=True, kw_only=True)
class Pix2PixConfig(SinglePassConfig):
    """Networks, regime and the weight of L1 beside the adversarial term of 1."""

    l1_weight: float = 100.0


_SMALL = Pix2PixConfig(
    regime=replace(SMALL, batch_size=4, epochs=16),
    matrix=128,
    generator=UnetConfig(downs=7, base_channels=24, norm="group", dropout=0.0),
    discriminator=PatchGanConfig(in_channels=2, base_channels=16, norm="batch"),
    prediction="residual",
    residual_scale=2.0,
)

# The published batch holds one image, whose batch statistics are instance statistics, at test time too.
PRESETS: Mapping[str, Pix2PixConfig] = MappingProxyType(
    {
        "paper": Pix2PixConfig(
            regime=Regime(),
            generator=UnetConfig(),
            discriminator=PatchGanConfig(in_channels=2, norm="batch"),
        ),
        "published": Pix2PixConfig(
            regime=Regime(lr_generator=2e-4, lr_discriminator=2e-4, batch_size=1, epochs=200, decay="linear"),
            generator=UnetConfig(norm="instance"),
            discriminator=PatchGanConfig(in_channels=2, norm="instance"),
        ),
        "small": _SMALL,
        "tiny": Pix2PixConfig(
            regime=Regime(lr_generator=1e-2, lr_discriminator=1e-3, batch_size=2, epochs=2),
            matrix=16,
            generator=UnetConfig(downs=4, base_channels=8, dropout=0.1),
            discriminator=PatchGanConfig(in_channels=2, base_channels=8, strided_layers=2, norm="batch"),
        ),
    }
)


class Pix2Pix(SinglePassMethod[Pix2PixConfig]):
    """Fulfils `models.zoo.method.Method`."""

    name = "pix2pix"
    paired = True
    translating = "generator"

    def __init__(self, config: Pix2PixConfig) -> None:
        """Build both networks from the regime's seed."""
        super().__init__(
            config,
            lambda: {"generator": build_generator(config.generator), "discriminator": PatchGan(config.discriminator)},
            {GENERATORS: ["generator"], "discriminators": ["discriminator"]},
        )

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of the discriminator, halved, then one of the generator; see `Method`."""
        parts, source = self.parts, batch.source
        with parts.step(step):
            fake = self.make("generator", source)
            terms = {
                "discriminator_real": 0.5 * logistic_real(self._judge(source, batch.target)),
                "discriminator_fake": 0.5 * logistic_fake(self._judge(source, fake.detach())),
            }
            losses = parts.descend("discriminators", terms)
            with parts.frozen("discriminators"):
                terms = {
                    "adversarial": logistic_real(self._judge(source, fake)),
                    "l1": self.config.l1_weight * l1(fake, batch.target),
                }
                return losses | parts.descend(GENERATORS, terms)

    def _judge(self, source: Tensor, image: Tensor) -> Tensor:
        logits: Tensor = self.parts.networks["discriminator"](torch.cat([source, image], dim=1))
        return logits


def build(config: Pix2PixConfig) -> Pix2Pix:
    """A fresh method."""
    return Pix2Pix(config)
