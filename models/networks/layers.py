"""Owns the small pieces that several networks share; must not hold a whole network."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from models.networks.config import ConfigError

Norm = Literal["batch", "instance", "group"]


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Normalisation of [N, channels, H, W]: batch and group with an affine part, instance without (its usual form)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(group_count(channels), channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels)
    raise ConfigError(f"norm is {norm!r}; allowed are batch, instance, group")


def group_count(channels: int) -> int:
    """Groups of a normalisation: min(C/4, 32) as published, or the next lower number that divides C."""
    most = max(1, min(channels // 4, 32))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def needs_bias(norm: Norm) -> bool:
    """Whether a convolution before this norm has a bias: an affine norm brings its own."""
    return norm == "instance"


def sinusoid(t: Tensor, width: int) -> Tensor:
    """Sines, then cosines of integer times t [N] at width / 2 geometric rates from 1 to 1e-4; [N, width] float32."""
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * (-math.log(10000) / (half - 1)))
    angles = t.float()[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class InstanceResidual(nn.Module):
    """Residual block of the ResNet generators: x + IN(conv(relu(IN(conv(x))))), 3 x 3, reflected borders."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [N, channels, H, W], H and W at least 2 -> the same shape."""
        result: Tensor = x + self.conv_block(x)
        return result


def require_whole_numbers(config: object, names: tuple[str, ...]) -> None:
    """Check that these fields are whole numbers of at least 1; raises ConfigError naming the field."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1")
