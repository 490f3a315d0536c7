"""CycleGAN: unpaired translation in both directions, held together by cycles.

Zhu et al., ICCV 2017; "eq." are its equations. The paper's G is `to_target`, its F `to_source`; D_Y and D_X are the
discriminators of target and source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import Tensor

from models.losses import l1, least_squares
from models.methods.inference import SinglePass
from models.methods.method import Batch
from models.methods.optimisation import GENERATORS, SMALL, Parts, Regime
from models.methods.replay import ReplayPool
from models.networks.discriminators import PatchGan, PatchGanConfig
from models.networks.generators import GeneratorConfig, build_generator
from models.networks.resnet import ResnetConfig
from models.networks.unet import UnetConfig
from models.prediction import predicted_image


@dataclass(frozen=True, kw_only=True)
class CycleGanConfig:
    """Networks, one shape for both directions, regime, form of the prediction, and the weights beside the
    adversarial terms of 1; `pool_size` is the number of earlier fakes that the discriminators are shown again.

    With `context_mm`, see `models.bundle.BundleCard`, all networks work on stacks, a slice and its neighbours, whatever
    their channels say: a stack is translated into a stack, since the way back needs one, and the discriminators judge
    whole stacks. In a neighbour that nobody judged a generator could hide the source, and every cycle would close.
    """

    regime: Regime
    generator: GeneratorConfig
    discriminator: PatchGanConfig
    matrix: int = 256
    prediction: str = "image"
    residual_scale: float = 1.0
    context_mm: tuple[float, ...] = ()
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


class CycleGan:
    """Fulfils `models.methods.method.Method`. Networks are named after the contrast they make or discriminate."""

    name = "cyclegan"
    paired = False
    stacked = True

    def __init__(self, config: CycleGanConfig) -> None:
        """Build the four networks from the regime's seed."""
        if config.context_mm:
            channels = 1 + len(config.context_mm)
            config = replace(
                config,
                generator=replace(config.generator, in_channels=channels, out_channels=channels),
                discriminator=replace(config.discriminator, in_channels=channels),
            )
        self.config = config
        self.parts = Parts(
            config.regime,
            lambda: {
                "to_target": build_generator(config.generator),
                "to_source": build_generator(config.generator),
                "discriminator_target": PatchGan(config.discriminator),
                "discriminator_source": PatchGan(config.discriminator),
            },
            {
                GENERATORS: ["to_target", "to_source"],
                "discriminators": ["discriminator_target", "discriminator_source"],
            },
            averaged=["to_target"],
            pools={"target": ReplayPool(config.pool_size), "source": ReplayPool(config.pool_size)},
        )
        self.inference = SinglePass(config, self.parts, "to_target")

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of both generators, then one of both discriminators, halved; see `Method`."""
        parts = self.parts
        with parts.step(step):
            with parts.frozen("discriminators"):
                terms, fakes = self._generator_terms(batch)
                losses = parts.descend(GENERATORS, terms)
            return losses | parts.descend("discriminators", self._discriminator_terms(batch, fakes))

    def _generator_terms(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Eq. 3 for the generators, with least squares for the adversarial terms (section 4)."""
        source, target, config = batch.source, batch.target, self.config
        networks = self.parts.networks
        fakes = {"target": self._make("to_target", source), "source": self._make("to_source", target)}
        # eq. 2: |F(G(x)) - x| + |G(F(y)) - y|
        cycled = l1(self._make("to_source", fakes["target"]), source) + l1(
            self._make("to_target", fakes["source"]), target
        )
        # eq. 1 for both directions, as least squares
        adversarial = [
            least_squares(networks[f"discriminator_{contrast}"](fake), 1.0) for contrast, fake in fakes.items()
        ]
        terms = {"adversarial": adversarial[0] + adversarial[1], "cycle": config.cycle_weight * cycled}
        if config.identity_weight:
            # L_identity (section 5.2): |G(y) - y| + |F(x) - x|
            kept = l1(self._make("to_target", target), target) + l1(self._make("to_source", source), source)
            terms["identity"] = config.identity_weight * kept
        return terms, fakes

    def _discriminator_terms(self, batch: Batch, fakes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 1 as least squares for both discriminators, which see fakes from the pools (section 4)."""
        terms = {}
        for contrast, real in (("target", batch.target), ("source", batch.source)):
            discriminator = self.parts.networks[f"discriminator_{contrast}"]
            shown = self.parts.pools[contrast].exchange(fakes[contrast])
            both = least_squares(discriminator(real), 1.0) + least_squares(discriminator(shown), 0.0)
            terms[f"discriminator_{contrast}"] = 0.5 * both
        return terms

    def _make(self, network: str, image: Tensor) -> Tensor:
        return predicted_image(self.config, self.parts.networks[network](image), image)


def build(config: CycleGanConfig) -> CycleGan:
    """A fresh method."""
    return CycleGan(config)
