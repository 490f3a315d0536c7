"""The ResNet generator of CycleGAN, RegGAN and SynDiff's non-diffusive part.

Johnson et al., ECCV 2016, in the form of CycleGAN (Zhu et al., ICCV 2017). The modules are numbered as in the common
state dicts (`model.{i}`), so that foreign weights of this architecture fit without a mapping.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from models.networks.initialisation import normal_gan
from models.networks.layers import require_whole_numbers


@dataclass(frozen=True)
class ResnetConfig:
    """Shape of a ResNet generator: residual `blocks` (9, or 6 in SynDiff) and channels at full resolution."""

    blocks: int = 9
    base_channels: int = 64
    in_channels: int = 1
    out_channels: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be built, in words."""
        require_whole_numbers(self, ("blocks", "base_channels", "in_channels", "out_channels"))

    @property
    def size_multiple(self) -> int:
        """Rows and columns of every input must be a multiple of this (and at least twice it)."""
        return 4


class ResnetGenerator(nn.Module):
    """Two halvings, residual blocks at a quarter of the matrix, two doublings; instance norm without affine part."""

    def __init__(self, config: ResnetConfig) -> None:
        """Build the network with N(0, 0.02) weights from torch's default generator."""
        super().__init__()
        self.config = config
        base = config.base_channels
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_normalised(nn.Conv2d(config.in_channels, base, 7), base),
            *_normalised(nn.Conv2d(base, 2 * base, 3, stride=2, padding=1), 2 * base),
            *_normalised(nn.Conv2d(2 * base, 4 * base, 3, stride=2, padding=1), 4 * base),
            *(InstanceResidual(4 * base) for _ in range(config.blocks)),
            *_normalised(_doubling(4 * base, 2 * base), 2 * base),
            *_normalised(_doubling(2 * base, base), base),
            nn.ReflectionPad2d(3),
            nn.Conv2d(base, config.out_channels, 7),
            nn.Tanh(),
        )
        normal_gan(self)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, in_channels, H, W] in [-1, 1], H and W multiples of 4 -> [N, out_channels, H, W] in [-1, 1]."""
        result: Tensor = self.model(x)
        return result


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


def _normalised(layer: nn.Module, channels: int) -> tuple[nn.Module, ...]:
    return layer, nn.InstanceNorm2d(channels), nn.ReLU()


def _doubling(channels_in: int, channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels_in, channels, 3, stride=2, padding=1, output_padding=1)
