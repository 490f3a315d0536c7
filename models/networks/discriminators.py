"""The discriminators: PatchGAN, and the time-conditional one of denoising diffusion GANs. Both return logits.

PatchGAN: Isola et al., CVPR 2017: with three strided layers every logit sees 70 x 70 pixels. Its modules are numbered
as in the common state dicts (`model.{i}`).
The time-conditional one: Xiao et al., ICLR 2022, the "large" size: whether x_t can have led to x_{t+1}.
Written from the papers and a description of the layout.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.config import ConfigError
from models.networks.initialisation import normal_gan, uniform_fan_average
from models.networks.layers import Norm, make_norm, needs_bias, require_whole_numbers
from models.networks.ncsnpp import FirDown, sinusoid
from models.together import of_whole_batch

_STDDEV_GROUP = 4


@dataclass(frozen=True)
class PatchGanConfig:
    """Shape of a patch discriminator: 1 input channel, 2 where it is given an image beside its source, or a stack's."""

    in_channels: int = 1
    base_channels: int = 64
    strided_layers: int = 3
    norm: Norm = "instance"

    def __post_init__(self) -> None:
        """Refuse what cannot be built, in words."""
        require_whole_numbers(self, ("in_channels", "base_channels", "strided_layers"))


class PatchGan(nn.Module):
    """4 x 4 convolutions: strided ones that double the channels up to 8x, one of stride 1, one to a single channel."""

    def __init__(self, config: PatchGanConfig) -> None:
        """Build the network with N(0, 0.02) weights from torch's default generator."""
        super().__init__()
        self.config = config
        bias, width = needs_bias(config.norm), config.base_channels
        layers: list[nn.Module] = [nn.Conv2d(config.in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i in range(1, config.strided_layers + 1):
            before, width = width, config.base_channels * min(2**i, 8)
            stride = 2 if i < config.strided_layers else 1
            layers += [
                nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=bias),
                make_norm(config.norm, width),
                nn.LeakyReLU(0.2),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))
        normal_gan(self)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, in_channels, H, W] -> logits [N, 1, H/2**s - 2, W/2**s - 2], s strided layers (30 x 30 from 256)."""
        result: Tensor = self.model(x)
        return result


@dataclass(frozen=True)
class TimeDiscriminatorConfig:
    """Widths after the first 1 x 1 convolution and after each halving (six: 256 -> 4), and of the time embedding."""

    widths: tuple[int, ...] = (128, 256, 512, 512, 512, 512, 512)
    t_emb_dim: int = 256

    def __post_init__(self) -> None:
        """Refuse what cannot be built, in words."""
        require_whole_numbers(self, ("t_emb_dim",))
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ConfigError(f"widths is {self.widths!r}; it must be at least two whole numbers of at least 1")


class TimeDiscriminator(nn.Module):
    """Residual halvings with the time as a bias, a minibatch-stddev channel, and the sum over all positions."""

    def __init__(self, config: TimeDiscriminatorConfig) -> None:
        """Build the network with fresh weights from torch's default generator."""
        super().__init__()
        self.config = config
        width, last = config.t_emb_dim, config.widths[-1]
        self.time_mlp = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
        self.start = nn.Conv2d(2, config.widths[0], 1)  # of x_t and x_{t+1}
        self.blocks = nn.ModuleList(_DownBlock(a, b, width) for a, b in pairwise(config.widths))
        self.final_conv = nn.Conv2d(last + 1, last, 3, padding=1)
        self.final_linear = nn.Linear(last, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                uniform_fan_average(module, scale=1.0)
        for block in self.blocks:
            uniform_fan_average(block.conv_out, scale=1e-10)  # type: ignore[arg-type]

    def forward(self, x_t: Tensor, t: Tensor, x_next: Tensor) -> Tensor:
        """x_t and x_next = x_{t+1} [N, 1, H, W], t [N] integer -> logits [N]; H, W multiples of 2**halvings.

        The batch may have any size: the stddev groups are the largest of at most four images that divide it.
        """
        temb = sinusoid(t, self.config.t_emb_dim)
        for layer in self.time_mlp:
            temb = F.leaky_relu(layer(temb), 0.2)
        h = self.start(torch.cat([x_t, x_next], dim=1))
        for block in self.blocks:
            h = block(h, temb)
        h = F.leaky_relu(self.final_conv(append_minibatch_stddev(h)), 0.2)
        logits: Tensor = self.final_linear(h.sum(dim=(2, 3)))[:, 0]
        return logits


class _DownBlock(nn.Module):
    """[N, channels_in, H, W] -> [N, channels, H/2, W/2]; (branch + shortcut) / sqrt(2)."""

    def __init__(self, channels_in: int, channels: int, t_emb_dim: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.time = nn.Linear(t_emb_dim, channels)
        self.down = FirDown()
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels, 1, bias=False)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.conv_in(F.leaky_relu(x, 0.2)) + self.time(temb)[:, :, None, None]
        h = self.conv_out(self.down(F.leaky_relu(h, 0.2)))
        result: Tensor = (h + self.shortcut(self.down(x))) / math.sqrt(2)
        return result


def append_minibatch_stddev(x: Tensor) -> Tensor:
    """Append one channel, constant per image, with the mean spread inside the image's group (StyleGAN2).

    x [N, C, H, W] -> [N, C + 1, H, W]. Image n of the whole batch, of which this process may hold a part, belongs to
    group n modulo the number of groups.
    """
    return of_whole_batch(x, _with_stddev)


def _with_stddev(x: Tensor) -> Tensor:
    count, channels, rows, columns = x.shape
    size = next(size for size in range(min(_STDDEV_GROUP, count), 0, -1) if count % size == 0)
    groups = x.reshape(size, count // size, channels, rows, columns)
    spread = (groups.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return torch.cat([x, spread.repeat(size)[:, None, None, None].expand(-1, 1, rows, columns)], dim=1)
