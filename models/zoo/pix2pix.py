"""Owns Pix2Pix as a method: a conditional GAN on registered pairs; must not read data or files.

Isola et al., CVPR 2017.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from models.losses import l1, logistic_fake, logistic_real
from models.networks.generators import GeneratorConfig, build_generator
from models.networks.patchgan import PatchGan, PatchGanConfig
from models.networks.unet import UnetConfig
from models.zoo.method import Batch, Blueprint
from models.zoo.parts import GENERATORS, Parts
from models.zoo.prediction import predicted_image
from models.zoo.regime import Regime
from models.zoo.single_pass import blueprint_of, translate_once


@dataclass(frozen=True)
class Pix2PixConfig:
    """Networks, regime and the weight of L1 beside the adversarial term of 1."""

    regime: Regime
    generator: GeneratorConfig
    discriminator: PatchGanConfig
    matrix: int = 256
    l1_weight: float = 100.0
    prediction: str = "image"
    residual_scale: float = 1.0


# The published batch holds one image, whose batch statistics are instance statistics, at test time too.
PRESETS: Mapping[str, Pix2PixConfig] = MappingProxyType(
    {
        "paper": Pix2PixConfig(Regime(), UnetConfig(), PatchGanConfig(in_channels=2, norm="batch")),
        "published": Pix2PixConfig(
            regime=Regime(lr_generator=2e-4, lr_discriminator=2e-4, batch_size=1, epochs=200, decay="linear"),
            generator=UnetConfig(norm="instance"),
            discriminator=PatchGanConfig(in_channels=2, norm="instance"),
        ),
        "tiny": Pix2PixConfig(
            regime=Regime(lr_generator=1e-2, lr_discriminator=1e-3, batch_size=2, epochs=2),
            matrix=16,
            generator=UnetConfig(downs=4, base_channels=8, dropout=0.1),
            discriminator=PatchGanConfig(in_channels=2, base_channels=8, strided_layers=2, norm="batch"),
        ),
    }
)


class Pix2Pix:
    """Fulfils `models.zoo.method.Method`."""

    name = "pix2pix"
    paired = True

    def __init__(self, config: Pix2PixConfig) -> None:
        """Build both networks from the regime's seed."""
        self.config = config
        self.parts = Parts(
            config.regime,
            lambda: {"generator": build_generator(config.generator), "discriminator": PatchGan(config.discriminator)},
            {GENERATORS: ["generator"], "discriminators": ["discriminator"]},
            averaged=["generator"],
        )

    @property
    def generator(self) -> nn.Module:
        """See `Method`."""
        return self.parts.final("generator")

    @property
    def blueprint(self) -> Blueprint:
        """See `Method`."""
        return blueprint_of(self.config)

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of the discriminator, halved, then one of the generator; see `Method`."""
        parts, source = self.parts, batch.source
        with parts.step(step):
            fake = predicted_image(self.config, parts.networks["generator"](source), source)
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

    def translate(self, x: Tensor, seed: int) -> Tensor:
        """See `Method`; one pass, without dropout, so that the seed changes nothing."""
        return translate_once(self.generator, self.config, x)

    def state_dict(self) -> dict[str, Any]:
        """See `Method`."""
        return self.parts.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Method`."""
        self.parts.load_state_dict(state)

    def _judge(self, source: Tensor, image: Tensor) -> Tensor:
        logits: Tensor = self.parts.networks["discriminator"](torch.cat([source, image], dim=1))
        return logits


def build(config: Pix2PixConfig) -> Pix2Pix:
    """A fresh method."""
    return Pix2Pix(config)
