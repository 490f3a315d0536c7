"""RegGAN: paired translation of misaligned scans, by a registration network that is trained with the generator.

Kong et al., NeurIPS 2021: "NC+R" without cycles, "C+R" with them; "eq." are its equations. The paper's G is
`to_target`, its F `to_source`, its R `registration`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import Tensor, nn

from models.losses import l1, least_squares_per_image, smoothness
from models.methods.inference import SinglePass
from models.methods.method import Batch
from models.methods.optimisation import GENERATORS, SMALL, Parts, Regime
from models.methods.replay import ReplayPool
from models.networks.discriminators import PatchGan, PatchGanConfig
from models.networks.generators import GeneratorConfig, build_generator
from models.networks.registration import RegistrationConfig, RegistrationNetwork, displacement_figures, warp
from models.networks.resnet import ResnetConfig
from models.prediction import predicted_image
from models.together import means


@dataclass(frozen=True, kw_only=True)
class RegGanConfig:
    """Networks, regime, form of the prediction, mode, and the weights beside the adversarial terms of 1.

    `cycle` adds the way back, its discriminator, cycle terms and replay pools (C+R). Too low a `smoothness_weight` lets
    the registration, which sees the true image, explain vessels away; watch "displacement_px" and "folded".

    With `context_mm`, see `models.bundle.BundleCard`, the generator has an input channel for the slice and one for each
    neighbour, whatever its `in_channels` says, and makes the slice alone. With cycles it makes a stack like that which
    it sees, since the way back needs one: each of its slices is registered by itself, and the discriminators judge
    whole stacks, as in `models.methods.cyclegan`.
    """

    regime: Regime
    generator: GeneratorConfig
    discriminator: PatchGanConfig
    registration: RegistrationConfig
    matrix: int = 256
    prediction: str = "image"
    residual_scale: float = 1.0
    context_mm: tuple[float, ...] = ()
    cycle: bool = False
    l1_weight: float = 20.0
    smoothness_weight: float = 10.0
    cycle_weight: float = 10.0
    pool_size: int = 50


_PAPER = RegGanConfig(
    regime=Regime(), generator=ResnetConfig(), discriminator=PatchGanConfig(), registration=RegistrationConfig()
)
_PUBLISHED = replace(_PAPER, regime=Regime(batch_size=1, epochs=80))
_SMALL = RegGanConfig(
    regime=replace(SMALL, epochs=7),
    matrix=128,
    generator=ResnetConfig(blocks=4, base_channels=16),
    discriminator=PatchGanConfig(base_channels=16),
    registration=RegistrationConfig(widths=(4, 8, 8, 16, 16), bottleneck_blocks=1),
    prediction="residual",
    residual_scale=2.0,
)
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
        "small": _SMALL,
        "tiny": _TINY,
        "tiny_cycle": replace(_TINY, cycle=True),
    }
)


class RegGan:
    """Fulfils `models.methods.method.Method`. Networks are named after the contrast they make or discriminate."""

    name = "reggan"
    paired = True

    def __init__(self, config: RegGanConfig) -> None:
        """Build the three networks, five with cycles, from the regime's seed."""
        contrasts = ("target", "source") if config.cycle else ("target",)
        if config.context_mm:
            seen = 1 + len(config.context_mm)
            made = seen if config.cycle else 1
            config = replace(
                config,
                generator=replace(config.generator, in_channels=seen, out_channels=made),
                discriminator=replace(config.discriminator, in_channels=made),
            )

        def networks() -> dict[str, nn.Module]:
            built: dict[str, nn.Module] = {"registration": RegistrationNetwork(config.registration)}
            built |= {f"to_{contrast}": build_generator(config.generator) for contrast in contrasts}
            return built | {f"discriminator_{contrast}": PatchGan(config.discriminator) for contrast in contrasts}

        self.config, self.stacked = config, config.cycle
        self.parts = Parts(
            config.regime,
            networks,
            {
                GENERATORS: [*(f"to_{contrast}" for contrast in contrasts), "registration"],
                "discriminators": [f"discriminator_{contrast}" for contrast in contrasts],
            },
            averaged=["to_target"],
            pools={contrast: ReplayPool(config.pool_size if config.cycle else 0) for contrast in contrasts},
        )
        self.inference = SinglePass(config, self.parts, "to_target")

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One joint step of generators and registration, then one of the discriminators; see `Method`.

        Beside the terms: the mean displacement "displacement_px" and the share "folded" of its folds.
        """
        parts = self.parts
        with parts.step(step):
            with parts.frozen("discriminators"):
                fakes = {"target": self._make("to_target", batch.source)}
                phi = parts.networks["registration"](_apart(fakes["target"]), _apart(batch.target))
                terms = self._generator_terms(batch, fakes, phi)
                losses = parts.descend(GENERATORS, terms) | means(displacement_figures(phi))
            return losses | parts.descend("discriminators", self._discriminator_terms(batch, fakes))

    def _generator_terms(self, batch: Batch, fakes: dict[str, Tensor], phi: Tensor) -> dict[str, Tensor]:
        """Terms of the generators and the registration; with cycles, the fake source joins `fakes`."""
        config, source, target = self.config, batch.source, batch.target
        terms = {
            # L_Corr: |G(x) o R(G(x), y) - y|
            "l1": config.l1_weight * l1(warp(_apart(fakes["target"]), phi), _apart(target)),
            # L_Smooth: |grad R(G(x), y)|^2
            "smoothness": config.smoothness_weight * smoothness(phi),
        }
        if config.cycle:
            fakes["source"] = self._make("to_source", target)
            there, back = self._make("to_target", fakes["source"]), self._make("to_source", fakes["target"])
            # eq. 3: |F(G(x)) - x| + |G(F(y)) - y|
            terms["cycle"] = config.cycle_weight * (l1(back, source) + l1(there, target))
        # eq. 1 for the generators, as least squares
        adversarial = [
            least_squares_per_image(self._discriminate(contrast, fake), 1.0) for contrast, fake in fakes.items()
        ]
        return terms | {"adversarial": sum(adversarial[1:], start=adversarial[0])}

    def _discriminator_terms(self, batch: Batch, fakes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 1 for the discriminators, as least squares."""
        terms = {}
        for contrast, fake in fakes.items():
            real = batch.target if contrast == "target" else batch.source
            shown = self.parts.pools[contrast].exchange(fake)
            of_real, of_fake = self._discriminate(contrast, real), self._discriminate(contrast, shown)
            terms[f"discriminator_{contrast}"] = least_squares_per_image(of_real, 1.0) + least_squares_per_image(
                of_fake, 0.0
            )
        return terms

    def _make(self, network: str, image: Tensor) -> Tensor:
        return predicted_image(self.config, self.parts.networks[network](image), image)

    def _discriminate(self, contrast: str, image: Tensor) -> Tensor:
        logits: Tensor = self.parts.networks[f"discriminator_{contrast}"](image)
        return logits


def _apart(stacks: Tensor) -> Tensor:
    """The slices [N * C, 1, M, M] of stacks [N, C, M, M]."""
    return stacks.flatten(0, 1)[:, None]


def build(config: RegGanConfig) -> RegGan:
    """A fresh method."""
    return RegGan(config)
