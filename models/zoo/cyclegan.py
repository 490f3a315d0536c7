"""Owns CycleGAN as a method: unpaired translation held together by cycles; must not read data or files.

Zhu et al., ICCV 2017.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from models.losses import l1, least_squares
from models.networks.generators import GeneratorConfig, build_generator
from models.networks.patchgan import PatchGan, PatchGanConfig
from models.networks.resnet import ResnetConfig
from models.zoo.method import Batch, Blueprint
from models.zoo.parts import GENERATORS, Parts
from models.zoo.prediction import predicted_image
from models.zoo.regime import Regime
from models.zoo.replay import ReplayPool
from models.zoo.single_pass import blueprint_of, translate_once


@dataclass(frozen=True)
class CycleGanConfig:
    """Networks, one shape for both directions, regime and the weights beside the adversarial terms of 1."""

    regime: Regime
    generator: GeneratorConfig
    discriminator: PatchGanConfig
    matrix: int = 256
    cycle_weight: float = 10.0
    identity_weight: float = 5.0
    pool_size: int = 50
    prediction: str = "image"
    residual_scale: float = 1.0


PRESETS: Mapping[str, CycleGanConfig] = MappingProxyType(
    {
        "paper": CycleGanConfig(Regime(), ResnetConfig(), PatchGanConfig()),
        "published": CycleGanConfig(
            regime=Regime(lr_generator=2e-4, lr_discriminator=2e-4, batch_size=1, epochs=200, decay="linear"),
            generator=ResnetConfig(),
            discriminator=PatchGanConfig(),
        ),
        "tiny": CycleGanConfig(
            regime=Regime(lr_generator=2e-3, lr_discriminator=1e-3, batch_size=2, epochs=2),
            matrix=16,
            generator=ResnetConfig(blocks=1, base_channels=8),
            discriminator=PatchGanConfig(base_channels=8, strided_layers=2),
            pool_size=3,
        ),
    }
)


class CycleGan:
    """Fulfils `models.zoo.method.Method`. Networks are named after the contrast they make or judge."""

    name = "cyclegan"
    paired = False

    def __init__(self, config: CycleGanConfig) -> None:
        """Build the four networks from the regime's seed."""
        self.config = config
        self.parts = Parts(
            config.regime,
            lambda: {
                "to_target": build_generator(config.generator),
                "to_source": build_generator(config.generator),
                "judge_target": PatchGan(config.discriminator),
                "judge_source": PatchGan(config.discriminator),
            },
            {GENERATORS: ["to_target", "to_source"], "discriminators": ["judge_target", "judge_source"]},
            averaged=["to_target"],
            pools={"target": ReplayPool(config.pool_size), "source": ReplayPool(config.pool_size)},
        )

    @property
    def generator(self) -> nn.Module:
        """See `Method`."""
        return self.parts.final("to_target")

    @property
    def blueprint(self) -> Blueprint:
        """See `Method`."""
        return blueprint_of(self.config)

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of both generators, then one of both discriminators, halved; see `Method`."""
        parts = self.parts
        with parts.step(step):
            with parts.frozen("discriminators"):
                terms, fakes = self._generator_terms(batch)
                losses = parts.descend(GENERATORS, terms)
            return losses | parts.descend("discriminators", self._discriminator_terms(batch, fakes))

    def translate(self, x: Tensor, seed: int) -> Tensor:
        """See `Method`; one pass, so that the seed changes nothing."""
        return translate_once(self.generator, self.config, x)

    def state_dict(self) -> dict[str, Any]:
        """See `Method`."""
        return self.parts.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Method`."""
        self.parts.load_state_dict(state)

    def _generator_terms(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        source, target, config = batch.source, batch.target, self.config
        judges = self.parts.networks
        fakes = {"target": self._make("target", source), "source": self._make("source", target)}
        cycled = l1(self._make("source", fakes["target"]), source) + l1(self._make("target", fakes["source"]), target)
        adversarial = [least_squares(judges[f"judge_{contrast}"](fake), 1.0) for contrast, fake in fakes.items()]
        terms = {"adversarial": adversarial[0] + adversarial[1], "cycle": config.cycle_weight * cycled}
        if config.identity_weight:
            kept = l1(self._make("target", target), target) + l1(self._make("source", source), source)
            terms["identity"] = config.identity_weight * kept
        return terms, fakes

    def _discriminator_terms(self, batch: Batch, fakes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = {}
        for contrast, real in (("target", batch.target), ("source", batch.source)):
            judge, shown = (
                self.parts.networks[f"judge_{contrast}"],
                self.parts.pools[contrast].exchange(fakes[contrast]),
            )
            terms[f"discriminator_{contrast}"] = 0.5 * (
                least_squares(judge(real), 1.0) + least_squares(judge(shown), 0.0)
            )
        return terms

    def _make(self, contrast: str, image: Tensor) -> Tensor:
        return predicted_image(self.config, self.parts.networks[f"to_{contrast}"](image), image)


def build(config: CycleGanConfig) -> CycleGan:
    """A fresh method."""
    return CycleGan(config)
