"""Owns what methods share: configuration, checkpoint, blueprint, translation; must not weigh terms or step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from models.diffusion import DiffusionConfig, Schedule, make_schedule
from models.losses import logistic_fake, logistic_real, r1_penalty
from models.networks.config import NcsnppConfig
from models.networks.generators import GeneratorConfig, describe_generator
from models.networks.patchgan import PatchGanConfig
from models.networks.time_discriminator import TimeDiscriminatorConfig
from models.zoo.denoising import Draw, sample_from_seed
from models.zoo.method import Blueprint, MethodConfig
from models.zoo.parts import Parts, evaluating
from models.zoo.prediction import predicted_image
from models.zoo.regime import Regime
from models.zoo.replay import ReplayPool


@dataclass(frozen=True, kw_only=True)
class SinglePassConfig:
    """What methods with generators of one pass have in common; every direction has the same shape of networks."""

    regime: Regime
    generator: GeneratorConfig
    discriminator: PatchGanConfig
    matrix: int = 256
    prediction: str = "image"
    residual_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DiffusiveConfig:
    """What methods with a diffusive generator have in common.

    R1 acts on the time-conditional discriminators at every `r1_every`-th step, from step 0, with the weight
    r1_gamma / 2.
    """

    regime: Regime
    network: NcsnppConfig
    time_discriminator: TimeDiscriminatorConfig
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    r1_gamma: float = 1.0
    r1_every: int = 10
    prediction: str = "image"
    residual_scale: float = 1.0

    @property
    def matrix(self) -> int:
        """M of the M x M model images."""
        return self.network.image_size


ConfigT = TypeVar("ConfigT", bound=MethodConfig)
SinglePassT = TypeVar("SinglePassT", bound=SinglePassConfig)
DiffusiveT = TypeVar("DiffusiveT", bound=DiffusiveConfig)


class TrainedMethod(Generic[ConfigT]):
    """A `models.zoo.method.Method` without its objective. `translating` names the network that a bundle holds."""

    name: str
    paired: bool
    translating: str

    def __init__(
        self,
        config: ConfigT,
        build: Callable[[], Mapping[str, nn.Module]],
        groups: Mapping[str, Sequence[str]],
        *,
        averaged: Sequence[str] = (),
        pools: Mapping[str, ReplayPool] | None = None,
    ) -> None:
        """Build the networks from the regime's seed; see `Parts`. `averaged` is `translating` alone if left out."""
        self.config = config
        self.parts = Parts(config.regime, build, groups, averaged=averaged or [self.translating], pools=pools)

    @property
    def generator(self) -> nn.Module:
        """See `Method`."""
        return self.parts.final(self.translating)

    def state_dict(self) -> dict[str, Any]:
        """See `Method`."""
        return self.parts.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Method`."""
        self.parts.load_state_dict(state)


class SinglePassMethod(TrainedMethod[SinglePassT]):
    """A method whose generator translates in one pass."""

    @property
    def blueprint(self) -> Blueprint:
        """See `Method`."""
        config = self.config
        network = describe_generator(config.generator)
        return Blueprint(network, config.matrix, config.prediction, config.residual_scale)

    def make(self, network: str, image: Tensor) -> Tensor:
        """What this network, in training, makes of images [N, 1, M, M]."""
        return predicted_image(self.config, self.parts.networks[network](image), image)

    def translate(self, x: Tensor, seed: int) -> Tensor:
        """See `Method`; one pass of the generator alone, without dropout, so that the seed changes nothing."""
        network = self.generator
        with evaluating(network):
            return predicted_image(self.config, network(x), x)


class DiffusiveMethod(TrainedMethod[DiffusiveT]):
    """A method whose generator translates by reverse diffusion, conditioned on the real source."""

    @cached_property
    def schedule(self) -> Schedule:
        """Noise levels of the diffusion."""
        return make_schedule(self.config.diffusion)

    @property
    def blueprint(self) -> Blueprint:
        """See `Method`."""
        config = self.config
        network = config.network.to_card()
        return Blueprint(
            network, config.matrix, config.prediction, config.residual_scale, config.diffusion.to_mapping()
        )

    def draw(self, images: Tensor) -> Draw:
        """Time steps and noise to train with on true images [N, 1, M, M]."""
        return Draw.of(self.schedule, images, self.config.network.nz)

    def discriminator_terms(
        self, network: str, draw: Draw, fake: Tensor, *, step: int, names: tuple[str, str, str]
    ) -> dict[str, Tensor]:
        """What this time-conditional discriminator wants of a draw and of a fake x_t, and R1 at its steps.

        names: how to call the terms of the real x_t, of the fake, and R1.
        """
        config, judge = self.config, self.parts.networks[network]
        penalised = step % config.r1_every == 0
        x_t = draw.x_t.requires_grad_(penalised)
        logits = draw.judge(judge, x_t)
        terms = {names[0]: logistic_real(logits), names[1]: logistic_fake(draw.judge(judge, fake))}
        if penalised:
            terms[names[2]] = config.r1_gamma / 2 * r1_penalty(logits, x_t)
        return terms

    def translate(self, x: Tensor, seed: int) -> Tensor:
        """See `Method`; the whole reverse diffusion."""
        nz = self.config.network.nz
        return sample_from_seed(self.generator, self.config, self.schedule, x, nz=nz, seed=seed)
