"""Owns RegGAN as a method: paired translation that forgives misalignment by registration; must not read data or files.

Kong et al., NeurIPS 2021: "NC+R" without cycles, "C+R" with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from models.losses import l1, least_squares_per_image, smoothness
from models.networks.generators import GeneratorConfig, build_generator
from models.networks.patchgan import PatchGan, PatchGanConfig
from models.networks.registration import (
    RegistrationConfig,
    RegistrationNetwork,
    displacement_figures,
    warp,
)
from models.networks.resnet import ResnetConfig
from models.zoo.method import Batch, Blueprint
from models.zoo.parts import GENERATORS, Parts
from models.zoo.prediction import predicted_image
from models.zoo.regime import Regime
from models.zoo.replay import ReplayPool
from models.zoo.single_pass import blueprint_of, translate_once


@dataclass(frozen=True)
class RegGanConfig:
    """Networks, regime, mode and the weights beside the adversarial terms of 1.

    `cycle` adds the way back, its discriminator, cycle terms and replay pools (C+R). Too low a `smoothness_weight` lets
    the registration, which sees the true image, explain vessels away; watch "displacement_px" and "folded".
    """

    regime: Regime
    generator: GeneratorConfig
    discriminator: PatchGanConfig
    registration: RegistrationConfig
    matrix: int = 256
    cycle: bool = False
    l1_weight: float = 20.0
    smoothness_weight: float = 10.0
    cycle_weight: float = 10.0
    pool_size: int = 50
    prediction: str = "image"
    residual_scale: float = 1.0


_PAPER = RegGanConfig(Regime(), ResnetConfig(), PatchGanConfig(), RegistrationConfig())
_PUBLISHED = replace(_PAPER, regime=Regime(batch_size=1, epochs=80))
_TINY = RegGanConfig(
    regime=Regime(lr_generator=2e-3, lr_discriminator=1e-3, batch_size=2, epochs=2),
    matrix=16,
    generator=ResnetConfig(blocks=1, base_channels=8),
    discriminator=PatchGanConfig(base_channels=8, strided_layers=2),
    registration=RegistrationConfig(widths=(8, 8), bottleneck_blocks=1),
    pool_size=3,
)

PRESETS: Mapping[str, RegGanConfig] = MappingProxyType(
    {
        "paper": _PAPER,
        "paper_cycle": replace(_PAPER, cycle=True),
        "published": _PUBLISHED,
        "published_cycle": replace(_PUBLISHED, cycle=True),
        "tiny": _TINY,
        "tiny_cycle": replace(_TINY, cycle=True),
    }
)


class RegGan:
    """Fulfils `models.zoo.method.Method`. Networks are named after the contrast they make or judge."""

    name = "reggan"
    paired = True

    def __init__(self, config: RegGanConfig) -> None:
        """Build the three networks, five with cycles, from the regime's seed."""
        self.config = config
        contrasts = ("target", "source") if config.cycle else ("target",)

        def networks() -> dict[str, nn.Module]:
            built: dict[str, nn.Module] = {"registration": RegistrationNetwork(config.registration)}
            built |= {f"to_{contrast}": build_generator(config.generator) for contrast in contrasts}
            return built | {f"judge_{contrast}": PatchGan(config.discriminator) for contrast in contrasts}

        self.parts = Parts(
            config.regime,
            networks,
            {
                GENERATORS: [*(f"to_{contrast}" for contrast in contrasts), "registration"],
                "discriminators": [f"judge_{contrast}" for contrast in contrasts],
            },
            averaged=["to_target"],
            pools={contrast: ReplayPool(config.pool_size if config.cycle else 0) for contrast in contrasts},
        )

    @property
    def generator(self) -> nn.Module:
        """See `Method`."""
        return self.parts.final("to_target")

    @property
    def blueprint(self) -> Blueprint:
        """See `Method`; registration is for training only."""
        return blueprint_of(self.config)

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One joint step of generators and registration, then one of the discriminators; see `Method`.

        Beside the terms: the mean displacement "displacement_px" and the share "folded" of its folds.
        """
        parts = self.parts
        with parts.step(step):
            with parts.frozen("discriminators"):
                fakes = {"target": self._make("target", batch.source)}
                phi = parts.networks["registration"](fakes["target"], batch.target)
                terms = self._generator_terms(batch, fakes, phi)
                losses = parts.descend(GENERATORS, terms) | displacement_figures(phi.detach())
            return losses | parts.descend("discriminators", self._discriminator_terms(batch, fakes))

    def translate(self, x: Tensor, seed: int) -> Tensor:
        """See `Method`; one pass of the generator alone, so that the seed changes nothing."""
        return translate_once(self.generator, self.config, x)

    def state_dict(self) -> dict[str, Any]:
        """See `Method`."""
        return self.parts.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Method`."""
        self.parts.load_state_dict(state)

    def _generator_terms(self, batch: Batch, fakes: dict[str, Tensor], phi: Tensor) -> dict[str, Tensor]:
        """Terms of the generators and the registration; with cycles, the fake source joins `fakes`."""
        config, source, target = self.config, batch.source, batch.target
        terms = {
            "l1": config.l1_weight * l1(warp(fakes["target"], phi), target),
            "smoothness": config.smoothness_weight * smoothness(phi),
        }
        if config.cycle:
            fakes["source"] = self._make("source", target)
            there, back = self._make("target", fakes["source"]), self._make("source", fakes["target"])
            terms["cycle"] = config.cycle_weight * (l1(back, source) + l1(there, target))
        judged = [least_squares_per_image(self._judge(contrast, fake), 1.0) for contrast, fake in fakes.items()]
        return terms | {"adversarial": sum(judged[1:], start=judged[0])}

    def _discriminator_terms(self, batch: Batch, fakes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = {}
        for contrast, fake in fakes.items():
            real = batch.target if contrast == "target" else batch.source
            shown = self.parts.pools[contrast].exchange(fake)
            judged = self._judge(contrast, real), self._judge(contrast, shown)
            terms[f"discriminator_{contrast}"] = least_squares_per_image(judged[0], 1.0) + least_squares_per_image(
                judged[1], 0.0
            )
        return terms

    def _judge(self, contrast: str, image: Tensor) -> Tensor:
        logits: Tensor = self.parts.networks[f"judge_{contrast}"](image)
        return logits

    def _make(self, contrast: str, image: Tensor) -> Tensor:
        return predicted_image(self.config, self.parts.networks[f"to_{contrast}"](image), image)


def build(config: RegGanConfig) -> RegGan:
    """A fresh method."""
    return RegGan(config)
