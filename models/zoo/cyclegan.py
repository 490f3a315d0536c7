"""Owns CycleGAN as a method: unpaired translation held together by cycles; must not read data or files.

Zhu et al., ICCV 2017.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import Tensor

from models.losses import l1, least_squares
from models.networks.generators import build_generator
from models.networks.patchgan import PatchGan, PatchGanConfig
from models.networks.resnet import ResnetConfig
from models.networks.unet import UnetConfig
from models.zoo.method import Batch
from models.zoo.parts import GENERATORS
from models.zoo.regime import SMALL, Regime
from models.zoo.replay import ReplayPool
from models.zoo.trained import SinglePassConfig, SinglePassMethod


@dataclass(frozen=True, kw_only=True)
class CycleGanConfig(SinglePassConfig):
    """Networks, one shape for both directions, regime and the weights beside the adversarial terms of 1."""

    cycle_weight: float = 10.0
    identity_weight: float = 5.0
    pool_size: int = 50


# With the published weights, instance norm and a lower rate of the discriminators, a short run ended at the copy of the
# source, the discriminators at chance.
_SMALL = CycleGanConfig(
    regime=replace(SMALL, lr_discriminator=1e-3, epochs=6),
    matrix=128,
    generator=UnetConfig(downs=5, base_channels=16, norm="group", dropout=0.0),
    discriminator=PatchGanConfig(base_channels=16, norm="group"),
    cycle_weight=5.0,
    identity_weight=1.0,
    prediction="residual",
)

PRESETS: Mapping[str, CycleGanConfig] = MappingProxyType(
    {
        "paper": CycleGanConfig(regime=Regime(), generator=ResnetConfig(), discriminator=PatchGanConfig()),
        "published": CycleGanConfig(
            regime=Regime(lr_generator=2e-4, lr_discriminator=2e-4, batch_size=1, epochs=200, decay="linear"),
            generator=ResnetConfig(),
            discriminator=PatchGanConfig(),
        ),
        "small": _SMALL,
        "tiny": CycleGanConfig(
            regime=Regime(lr_generator=2e-3, lr_discriminator=1e-3, batch_size=2, epochs=2),
            matrix=16,
            generator=ResnetConfig(blocks=1, base_channels=8),
            discriminator=PatchGanConfig(base_channels=8, strided_layers=2),
            pool_size=3,
        ),
    }
)


class CycleGan(SinglePassMethod[CycleGanConfig]):
    """Fulfils `models.zoo.method.Method`. Networks are named after the contrast they make or judge."""

    name = "cyclegan"
    paired = False
    translating = "to_target"

    def __init__(self, config: CycleGanConfig) -> None:
        """Build the four networks from the regime's seed."""
        super().__init__(
            config,
            lambda: {
                "to_target": build_generator(config.generator),
                "to_source": build_generator(config.generator),
                "judge_target": PatchGan(config.discriminator),
                "judge_source": PatchGan(config.discriminator),
            },
            {GENERATORS: ["to_target", "to_source"], "discriminators": ["judge_target", "judge_source"]},
            pools={"target": ReplayPool(config.pool_size), "source": ReplayPool(config.pool_size)},
        )

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of both generators, then one of both discriminators, halved; see `Method`."""
        parts = self.parts
        with parts.step(step):
            with parts.frozen("discriminators"):
                terms, fakes = self._generator_terms(batch)
                losses = parts.descend(GENERATORS, terms)
            return losses | parts.descend("discriminators", self._discriminator_terms(batch, fakes))

    def _generator_terms(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        source, target, config = batch.source, batch.target, self.config
        judges = self.parts.networks
        fakes = {"target": self.make("to_target", source), "source": self.make("to_source", target)}
        cycled = l1(self.make("to_source", fakes["target"]), source) + l1(
            self.make("to_target", fakes["source"]), target
        )
        adversarial = [least_squares(judges[f"judge_{contrast}"](fake), 1.0) for contrast, fake in fakes.items()]
        terms = {"adversarial": adversarial[0] + adversarial[1], "cycle": config.cycle_weight * cycled}
        if config.identity_weight:
            kept = l1(self.make("to_target", target), target) + l1(self.make("to_source", source), source)
            terms["identity"] = config.identity_weight * kept
        return terms, fakes

    def _discriminator_terms(self, batch: Batch, fakes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = {}
        for contrast, real in (("target", batch.target), ("source", batch.source)):
            judge, shown = (
                self.parts.networks[f"judge_{contrast}"],
                self.parts.pools[contrast].exchange(fakes[contrast]),
            )
            judged = least_squares(judge(real), 1.0) + least_squares(judge(shown), 0.0)
            terms[f"discriminator_{contrast}"] = 0.5 * judged
        return terms


def build(config: CycleGanConfig) -> CycleGan:
    """A fresh method."""
    return CycleGan(config)
