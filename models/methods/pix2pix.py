"""Pix2Pix: a conditional GAN on registered pairs.

Isola et al., CVPR 2017; "eq." are its equations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from models.losses import l1, logistic_fake, logistic_real
from models.methods.inference import SinglePass
from models.methods.method import Batch
from models.methods.optimisation import GENERATORS, SMALL, Parts, Regime
from models.networks.discriminators import PatchGan, PatchGanConfig
from models.networks.generators import GeneratorConfig, build_generator
from models.networks.unet import UnetConfig
from models.prediction import predicted_image


@dataclass(frozen=True, kw_only=True)
class Pix2PixConfig:
    """Networks, regime, form of the prediction, and the weight lambda of L1 beside the adversarial term of 1.

    With `context_mm`, see `models.bundle.BundleCard`, the generator has an input channel for the slice and one for each
    neighbour, whatever its `in_channels` says; the discriminator sees the slice alone.
    """

    regime: Regime
    generator: GeneratorConfig
    discriminator: PatchGanConfig
    matrix: int = 256
    prediction: str = "image"
    residual_scale: float = 1.0
    context_mm: tuple[float, ...] = ()
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


class Pix2Pix:
    """Fulfils `models.methods.method.Method`: x is the source, y the target, G(x) the fake."""

    name = "pix2pix"
    paired = True
    stacked = False

    def __init__(self, config: Pix2PixConfig) -> None:
        """Build both networks from the regime's seed."""
        if config.context_mm:
            generator = replace(config.generator, in_channels=1 + len(config.context_mm))
            config = replace(config, generator=generator)
        self.config = config
        self.parts = Parts(
            config.regime,
            lambda: {"generator": build_generator(config.generator), "discriminator": PatchGan(config.discriminator)},
            {GENERATORS: ["generator"], "discriminators": ["discriminator"]},
            averaged=["generator"],
        )
        self.inference = SinglePass(config, self.parts, "generator")

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of the discriminator, then one of the generator; see `Method`."""
        parts, config = self.parts, self.config
        x, y = batch.source, batch.target
        with parts.step(step):
            fake = predicted_image(config, parts.networks["generator"](x), x)
            # eq. 1 for D, divided by 2 (section 3.3)
            terms = {
                "discriminator_real": 0.5 * logistic_real(self._discriminate(x, y)),
                "discriminator_fake": 0.5 * logistic_fake(self._discriminate(x, fake.detach())),
            }
            losses = parts.descend("discriminators", terms)
            with parts.frozen("discriminators"):
                # eq. 4 for G: eq. 1 in its non-saturating form, and lambda times eq. 3
                terms = {
                    "adversarial": logistic_real(self._discriminate(x, fake)),
                    "l1": config.l1_weight * l1(fake, y),
                }
                return losses | parts.descend(GENERATORS, terms)

    def _discriminate(self, x: Tensor, image: Tensor) -> Tensor:
        """D(x, image): the discriminator sees both."""
        logits: Tensor = self.parts.networks["discriminator"](torch.cat([x[:, :1], image], dim=1))
        return logits


def build(config: Pix2PixConfig) -> Pix2Pix:
    """A fresh method."""
    return Pix2Pix(config)
