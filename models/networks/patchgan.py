"""Owns the patch discriminator; must not know which loss its logits enter.

Isola et al., CVPR 2017: with three strided layers every logit sees 70 x 70 pixels. The modules are numbered as in the
common state dicts (`model.{i}`).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from models.networks.initialisation import normal_gan
from models.networks.layers import Norm, make_norm, needs_bias, require_whole_numbers


@dataclass(frozen=True)
class PatchGanConfig:
    """Shape of a patch discriminator: 1 input channel, or 2 where it judges an image beside its source."""

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
