"""The noise schedule of few-step diffusion, what training draws from it, and the sampler.

Variance-preserving schedule and Gaussian posterior of denoising diffusion GANs (Xiao et al., ICLR 2022), as SynDiff
(Özbey et al., IEEE TMI 42(12), 2023) uses them with T = 4. "DDPM eq." are equations of Ho et al., NeurIPS 2020, whose
alpha-bar is A here; theirs count time from 1, ours from 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.prediction import Prediction, predicted_image
from models.together import drawn


@dataclass(frozen=True)
class DiffusionConfig:
    """Number of reverse steps T and the ends of the linear variance rate."""

    num_timesteps: int = 4
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        """Refuse a schedule that does not exist; raises ValueError."""
        if not isinstance(self.num_timesteps, int) or self.num_timesteps < 1:
            raise ValueError(f"num_timesteps is {self.num_timesteps!r}; it must be a whole number of at least 1")
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"beta_min {self.beta_min} and beta_max {self.beta_max} must satisfy 0 < min < max")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> "DiffusionConfig":
        """Read the `diffusion` object of a bundle.json; raises ValueError."""
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(f"unknown diffusion keys {sorted(unknown)}; known are {sorted(known)}")
        return cls(**values)  # type: ignore[arg-type]

    def to_mapping(self) -> dict[str, object]:
        """The configuration as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Schedule:
    """Coefficients of forward process and posterior, float64.

    `beta` [T + 1], `signal` = sqrt(A_k) [T + 1] and `noise` = sqrt(1 - A_k) [T + 1] describe q(x_k | x_0), k = 0..T.
    `c1`, `c2`, `variance` [T] describe q(x_t | x_{t+1}, x_0) = N(c1_t x_0 + c2_t x_{t+1}, variance_t), t = 0..T-1.
    """

    beta: NDArray[np.float64]
    signal: NDArray[np.float64]
    noise: NDArray[np.float64]
    c1: NDArray[np.float64]
    c2: NDArray[np.float64]
    variance: NDArray[np.float64]

    @property
    def num_timesteps(self) -> int:
        """T, the number of reverse steps."""
        return len(self.c1)


def make_schedule(config: DiffusionConfig) -> Schedule:
    """Compute the coefficients for T steps (variance-preserving, tau from 1e-3 to 1)."""
    tau = 1e-3 + (1 - 1e-3) * np.arange(config.num_timesteps + 1) / config.num_timesteps
    a_bar = np.exp(-(tau**2) * (config.beta_max - config.beta_min) / 2 - tau * config.beta_min)
    beta = np.concatenate([[1e-8], 1 - a_bar[1:] / a_bar[:-1]])
    A = np.cumprod(1 - beta)
    # The posterior leaves beta_0 out of its products, so that its last step returns x_0 exactly.
    b = beta[1:]
    C = np.cumprod(1 - b)
    C_before = np.concatenate([[1.0], C[:-1]])
    # c1, c2 and variance: DDPM eq. 7
    return Schedule(
        beta=beta,
        signal=np.sqrt(A),
        noise=np.sqrt(1 - A),
        c1=b * np.sqrt(C_before) / (1 - C),
        c2=(1 - C_before) * np.sqrt(1 - b) / (1 - C),
        variance=b * (1 - C_before) / (1 - C),
    )


def forward_pair(schedule: Schedule, x_0: Tensor, t: Tensor, e_1: Tensor, e_2: Tensor) -> tuple[Tensor, Tensor]:
    """Draw (x_t, x_{t+1}) for training from standard normal e_1, e_2.

    x_0, e_1, e_2 [N, 1, H, W]; t [N] integer in 0..T-1. Returns two tensors of x_0's shape.
    """

    def pick(values: NDArray[np.float64], index: Tensor) -> Tensor:
        table = torch.as_tensor(values, dtype=x_0.dtype, device=x_0.device)
        return table[index][:, None, None, None]

    x_t = pick(schedule.signal, t) * x_0 + pick(schedule.noise, t) * e_1  # DDPM eq. 4
    beta = pick(schedule.beta, t + 1)  # DDPM eq. 2
    return x_t, torch.sqrt(1 - beta) * x_t + torch.sqrt(beta) * e_2


def posterior_sample(schedule: Schedule, x_0: Tensor, x_next: Tensor, t: int, noise: Tensor) -> Tensor:
    """Draw x_t from q(x_t | x_{t+1} = x_next, x_0), DDPM eq. 6, with standard normal noise; at t = 0 that is x_0."""
    if t == 0:
        return x_0
    mean = float(schedule.c1[t]) * x_0 + float(schedule.c2[t]) * x_next
    return mean + float(np.sqrt(schedule.variance[t])) * noise


def posterior_sample_each(schedule: Schedule, x_0: Tensor, x_next: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """`posterior_sample` with a time step of its own for every image, for training: t [N] integer in 0..T-1."""

    def pick(values: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(values, dtype=x_0.dtype, device=x_0.device)[t][:, None, None, None]

    return pick(schedule.c1) * x_0 + pick(schedule.c2) * x_next + pick(np.sqrt(schedule.variance)) * noise


def reverse_sample(
    schedule: Schedule,
    predict_x0: Callable[[Tensor, int, Tensor], Tensor],
    x_T: Tensor,
    z: Tensor,
    posterior_noise: Tensor,
) -> Tensor:
    """Run the T reverse steps and return x_0 [N, 1, H, W].

    `predict_x0(x, t, z)` estimates x_0 from x_{t+1}. x_T [N or 1, 1, H, W]; z [T, N or 1, nz]; posterior_noise
    [T, N or 1, 1, H, W]: both in the order of consumption, the last time step first. Nothing is clipped between steps.
    """
    x = x_T
    for step, t in enumerate(reversed(range(schedule.num_timesteps))):
        x = posterior_sample(schedule, predict_x0(x, t, z[step]), x, t, posterior_noise[step])
    return x


def estimate_x0(
    network: nn.Module, kind: Prediction, *, x_next: Tensor, source: Tensor, t: Tensor, z: Tensor
) -> Tensor:
    """Estimate x_0 [N, 1, M, M] from x_{t+1} [N, 1, M, M] and the conditioning source [N, C, M, M], model values.

    The source's first channel is the slice itself, the others are its neighbours where the network sees some.

    Channel 0 of the network's output is x_0 itself or, for `prediction = "residual"`, the change from the source.
    """
    output: Tensor = network(torch.cat([x_next, source], dim=1), t, z)[:, :1]
    return predicted_image(kind, output, source)


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
        count, device = len(x_0), x_0.device

        def normal(*shape: int) -> Tensor:
            return drawn(count, lambda images: torch.randn(images, *shape, dtype=x_0.dtype, device=device))

        t = drawn(count, lambda images: torch.randint(0, schedule.num_timesteps, (images,), device=device))
        e_1, e_2, noise = (normal(*x_0.shape[1:]) for _ in range(3))
        x_t, x_next = forward_pair(schedule, x_0, t, e_1, e_2)
        return cls(t, x_t, x_next, normal(nz), noise)

    def estimate_x0(self, generator: nn.Module, kind: Prediction, source: Tensor) -> Tensor:
        """The diffusive generator's x_0 from x_{t+1} and the conditioning source [N, C, M, M]."""
        return estimate_x0(generator, kind, x_next=self.x_next, source=source, t=self.t, z=self.z)

    def logits(self, discriminator: nn.Module, x_t: Tensor) -> Tensor:
        """The time-conditional discriminator's D(x_t, t, x_{t+1}) [N] of a real or a fake x_t [N, 1, M, M]."""
        logits: Tensor = discriminator(x_t, self.t, self.x_next)
        return logits

    def sample_x_t(self, schedule: Schedule, x_0: Tensor) -> Tensor:
        """A fake x_t from the posterior q(x_t | x_{t+1}, x_0), given an estimate of x_0."""
        return posterior_sample_each(schedule, x_0, self.x_next, self.t, self.noise)
