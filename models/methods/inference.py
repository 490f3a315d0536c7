"""How the trained generator of a method translates and is described: in one pass, or by the whole reverse diffusion."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from models.diffusion import DiffusionConfig, Schedule, estimate_x0, reverse_sample
from models.methods.method import Blueprint
from models.methods.optimisation import Parts, evaluating
from models.networks.config import NcsnppConfig
from models.networks.generators import GeneratorConfig, describe_generator
from models.prediction import Prediction, predicted_image
from models.translators.syndiff import SeriesNoise


class SinglePassConfig(Prediction, Protocol):
    """What the configurations of methods with generators of one pass have in common."""

    @property
    def generator(self) -> GeneratorConfig: ...
    @property
    def matrix(self) -> int: ...
    @property
    def context_mm(self) -> tuple[float, ...]: ...


class DiffusiveConfig(Prediction, Protocol):
    """What the configurations of methods with a diffusive generator have in common."""

    @property
    def network(self) -> NcsnppConfig: ...
    @property
    def diffusion(self) -> DiffusionConfig: ...
    @property
    def context_mm(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class SinglePass:
    """The network called `name`; it translates without dropout, so that the seed changes nothing."""

    config: SinglePassConfig
    parts: Parts
    name: str

    @property
    def generator(self) -> nn.Module:
        """See `models.methods.method.Inference`."""
        return self.parts.final(self.name)

    @property
    def blueprint(self) -> Blueprint:
        """See `models.methods.method.Inference`."""
        config = self.config
        network = describe_generator(config.generator)
        kind = config.prediction, config.residual_scale
        return Blueprint(network, config.matrix, *kind, context_mm=config.context_mm)

    def translate(self, x: Tensor, seed: int) -> Tensor:
        """See `models.methods.method.Inference`."""
        network = self.generator
        with evaluating(network):
            return predicted_image(self.config, network(x)[:, :1], x)


@dataclass(frozen=True)
class ReverseDiffusion:
    """The diffusive generator called `name`, conditioned on the real source."""

    config: DiffusiveConfig
    parts: Parts
    name: str
    schedule: Schedule

    @property
    def generator(self) -> nn.Module:
        """See `models.methods.method.Inference`."""
        return self.parts.final(self.name)

    @property
    def blueprint(self) -> Blueprint:
        """See `models.methods.method.Inference`."""
        config = self.config
        matrix, diffusion = config.network.image_size, config.diffusion.to_mapping()
        return Blueprint(
            config.network.to_card(),
            matrix,
            config.prediction,
            config.residual_scale,
            diffusion,
            config.context_mm,
        )

    def translate(self, x: Tensor, seed: int) -> Tensor:
        """See `models.methods.method.Inference`."""
        nz = self.config.network.nz
        return sample_from_seed(self.generator, self.config, self.schedule, x, nz=nz, seed=seed)


def sample_from_seed(
    network: nn.Module, kind: Prediction, schedule: Schedule, source: Tensor, *, nz: int, seed: int
) -> Tensor:
    """Run the whole reverse diffusion for sources [N, C, M, M] with one noise for all, as the bundle's translator."""
    drawn = SeriesNoise.from_seed(seed, num_timesteps=schedule.num_timesteps, nz=nz, matrix=source.shape[-1])
    x_T, z, noise = (torch.from_numpy(a).to(source.device) for a in (drawn.x_T, drawn.z, drawn.posterior_noise))

    def predict_x0(x: Tensor, t: int, latent: Tensor) -> Tensor:
        step = torch.full((1,), t, device=source.device)
        return estimate_x0(network, kind, x_next=x.expand_as(source[:, :1]), source=source, t=step, z=latent)

    with evaluating(network):
        return reverse_sample(schedule, predict_x0, x_T, z, noise)
