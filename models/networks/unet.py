"""The U-Net generator of Pix2Pix.

Isola et al., CVPR 2017: halvings by 4 x 4 convolutions down to one pixel, skips by concatenation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.initialisation import normal_gan
from models.networks.layers import Dropout, Norm, make_norm, needs_bias, require_whole_numbers


@dataclass(frozen=True)
class UnetConfig:
    """Shape of a U-Net: `downs` halvings (8 reach one pixel from 256), channels doubling from `base_channels` up to 8x.

    `norm` "batch" is the published one; with batches of one image "instance" is what its batch statistics amount to.
    `dropout` acts in the inner decoder levels whose width no longer grows (three of them where downs is 8).
    """

    downs: int = 8
    base_channels: int = 64
    norm: Norm = "batch"
    dropout: float = 0.5
    in_channels: int = 1
    out_channels: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be built, in words."""
        require_whole_numbers(self, ("downs", "base_channels", "in_channels", "out_channels"))

    @property
    def size_multiple(self) -> int:
        """Rows and columns of every input must be a multiple of this."""
        return int(2**self.downs)


class UnetGenerator(nn.Module):
    """Encoder and decoder of 4 x 4 convolutions with stride 2; the outermost and the innermost encoder have no norm."""

    def __init__(self, config: UnetConfig) -> None:
        """Build the network with N(0, 0.02) weights from torch's default generator."""
        super().__init__()
        self.config = config
        widths = [config.base_channels * min(2**i, 8) for i in range(config.downs)]
        inputs = [config.in_channels, *widths[:-1]]
        last = config.downs - 1
        self.encoder = nn.ModuleList(
            _Half(a, b, config.norm if 0 < i < last else None, bias=needs_bias(config.norm))
            for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
        # Decoder levels run from the innermost outwards; all but the innermost also take the skip of their level.
        self.decoder = nn.ModuleList(
            _Double(
                widths[i] * (1 if i == last else 2),
                widths[i - 1] if i else config.out_channels,
                config.norm if i else None,
                dropout=config.dropout if 0 < i < last and widths[i - 1] == widths[i] else 0.0,
            )
            for i in reversed(range(config.downs))
        )
        normal_gan(self)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, in_channels, H, W] in [-1, 1], H and W multiples of 2**downs -> [N, out_channels, H, W] in [-1, 1]."""
        skips = []
        h = x
        for level, half in enumerate(self.encoder):
            h = half(h if level == 0 else F.leaky_relu(h, 0.2))
            skips.append(h)
        h = self.decoder[0](F.relu(skips.pop()))
        for double in list(self.decoder)[1:]:
            h = double(F.relu(torch.cat([skips.pop(), h], dim=1)))
        return torch.tanh(h)


class _Half(nn.Module):
    """[N, channels_in, H, W] -> [N, channels, H/2, W/2]."""

    def __init__(self, channels_in: int, channels: int, norm: Norm | None, *, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 4, stride=2, padding=1, bias=bias)
        self.norm = nn.Identity() if norm is None else make_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.conv(x))
        return result


class _Double(nn.Module):
    """[N, channels_in, H, W] -> [N, channels, 2H, 2W]; without a norm it is the outermost level and has a bias."""

    def __init__(self, channels_in: int, channels: int, norm: Norm | None, *, dropout: float) -> None:
        super().__init__()
        bias = norm is None or needs_bias(norm)
        self.conv = nn.ConvTranspose2d(channels_in, channels, 4, stride=2, padding=1, bias=bias)
        self.norm = nn.Identity() if norm is None else make_norm(norm, channels)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.dropout(self.norm(self.conv(x)))
        return result
