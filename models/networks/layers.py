"""Choices that several networks make in the same way while they are built: norms, biases, checks of sizes."""

from typing import Literal

from torch import nn

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


def require_whole_numbers(config: object, names: tuple[str, ...]) -> None:
    """Check that these fields are whole numbers of at least 1; raises ConfigError naming the field."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1")
