"""Owns what training a diffusive generator needs of chance, and its whole chain from a seed; must not hold weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.diffusion import Schedule, forward_pair, posterior_sample_each, reverse_sample
from models.zoo.parts import evaluating
from models.zoo.prediction import Prediction
from models.zoo.syndiff import SeriesNoise, estimate_x0


@dataclass(frozen=True)
class Draw:
    """One image per time step drawn for training: t [N], x_t, x_next = x_{t+1} and noise [N, 1, M, M], z [N, nz]."""

    t: Tensor
    x_t: Tensor
    x_next: Tensor
    z: Tensor
    noise: Tensor

    @classmethod
    def of(cls, schedule: Schedule, x_0: Tensor, nz: int) -> "Draw":
        """Draw t uniformly and all noise from torch's default generator."""
        count = len(x_0)
        t = torch.randint(0, schedule.num_timesteps, (count,), device=x_0.device)
        e_1, e_2, noise = (torch.randn_like(x_0) for _ in range(3))
        x_t, x_next = forward_pair(schedule, x_0, t, e_1, e_2)
        return cls(t, x_t, x_next, torch.randn(count, nz, device=x_0.device), noise)

    def estimate(self, network: nn.Module, kind: Prediction, source: Tensor) -> Tensor:
        """The generator's x_0 from x_{t+1} and the conditioning source [N, 1, M, M]; uses output channel 0 only."""
        return estimate_x0(network, kind, x_next=self.x_next, source=source, t=self.t, z=self.z)

    def judge(self, discriminator: nn.Module, x_t: Tensor) -> Tensor:
        """The time-conditional discriminator's logits [N] of a true or a made x_t [N, 1, M, M]."""
        logits: Tensor = discriminator(x_t, self.t, self.x_next)
        return logits

    def step_back(self, schedule: Schedule, x_0: Tensor) -> Tensor:
        """A sample of x_t from the posterior, given an estimate of x_0."""
        return posterior_sample_each(schedule, x_0, self.x_next, self.t, self.noise)


def sample_from_seed(
    network: nn.Module, kind: Prediction, schedule: Schedule, source: Tensor, *, nz: int, seed: int
) -> Tensor:
    """Run the whole reverse diffusion for sources [N, 1, M, M] with one noise for all, as the bundle's translator."""
    drawn = SeriesNoise.from_seed(seed, num_timesteps=schedule.num_timesteps, nz=nz, matrix=source.shape[-1])
    x_T, z, noise = (torch.from_numpy(a).to(source.device) for a in (drawn.x_T, drawn.z, drawn.posterior_noise))

    def predict_x0(x: Tensor, t: int, latent: Tensor) -> Tensor:
        step = torch.full((1,), t, device=source.device)
        return estimate_x0(network, kind, x_next=x.expand_as(source), source=source, t=step, z=latent)

    with evaluating(network):
        return reverse_sample(schedule, predict_x0, x_T, z, noise)
