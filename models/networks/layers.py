"""What several networks are built of in the same way: norms, dropout, biases, checks of sizes."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import together
from models.networks.config import ConfigError

Norm = Literal["batch", "instance", "group"]


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Normalisation of [N, channels, H, W]: batch and group with an affine part, instance without (its usual form)."""
    if norm == "batch":
        return BatchNorm(channels)
    if norm == "group":
        return nn.GroupNorm(group_count(channels), channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels)
    raise ConfigError(f"norm is {norm!r}; allowed are batch, instance, group")


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of the whole batch, of which this process may hold a part."""

    def forward(self, x: Tensor) -> Tensor:
        """See `torch.nn.BatchNorm2d`."""
        if not self.training or together.is_alone():
            return super().forward(x)
        values = x.float()
        count = x.numel() // x.shape[1] * together.processes()
        mean = together.summed(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = together.summed(centred.square().sum(dim=(0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * (variance + self.eps).rsqrt()[:, None, None]
        return (scaled * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as torch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class Dropout(nn.Dropout):
    """Dropout whose mask is this process's part of that of the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        """See `torch.nn.Dropout`."""
        if not self.training or together.is_alone():
            return super().forward(x)

        def mask(images: int) -> Tensor:
            return F.dropout(x.new_ones((images, *x.shape[1:])), self.p)

        return x * together.drawn(len(x), mask)


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
