"""The registration network of RegGAN and the spatial transformer.

Kong et al., NeurIPS 2021. A displacement field phi [N, 2, H, W] is in pixels, channel 0 along rows, channel 1 along
columns; warping looks up the image at (row + phi_0, column + phi_1). Written from the paper and a description.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.config import ConfigError
from models.networks.layers import require_whole_numbers
from models.networks.resnet import InstanceResidual


@dataclass(frozen=True)
class RegistrationConfig:
    """Shape of the registration network: `widths` of its levels, each halving the matrix, and bottleneck blocks."""

    widths: tuple[int, ...] = (32, 64, 64, 64, 64, 64, 64)
    bottleneck_blocks: int = 3

    def __post_init__(self) -> None:
        """Refuse what cannot be built, in words."""
        require_whole_numbers(self, ("bottleneck_blocks",))
        if not self.widths or min(self.widths) < 1:
            raise ConfigError(f"widths is {self.widths!r}; it must be at least one whole number of at least 1")

    @property
    def size_multiple(self) -> int:
        """Rows and columns of every input must be a multiple of this, and at least twice it."""
        return int(2 ** len(self.widths))


class RegistrationNetwork(nn.Module):
    """Residual U-Net from a pair of images to the displacement that brings the first onto the second."""

    def __init__(self, config: RegistrationConfig) -> None:
        """Build the network with fresh weights; its first fields are zero to about 1e-4 px."""
        super().__init__()
        self.config = config
        widths = config.widths
        inputs, deepest = (2, *widths[:-1]), widths[-1]
        self.downs = nn.ModuleList(
            nn.Sequential(_convolution(a, b), InstanceResidual(b)) for a, b in zip(inputs, widths, strict=True)
        )
        self.bottleneck = nn.Sequential(
            _convolution(deepest, 2 * deepest, size=1),
            *(InstanceResidual(2 * deepest) for _ in range(config.bottleneck_blocks)),
            _convolution(2 * deepest, deepest, size=1),
        )
        ups = []
        channels = deepest
        for width in reversed(widths):
            ups.append(_convolution(channels + width, width))
            channels = width
        self.ups = nn.ModuleList(ups)
        self.refine = nn.Sequential(InstanceResidual(channels), _convolution(channels, channels, size=1))
        self.out = nn.Conv2d(channels, 2, 3, padding=1)
        nn.init.normal_(self.out.weight, 0.0, 1e-5)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Both [N, 1, H, W] -> displacement [N, 2, H, W] in pixels (rows, columns), for `warp(moving, phi)`."""
        h = torch.cat([moving, fixed], dim=1)
        skips = []
        for down in self.downs:
            h = down(h)
            skips.append(h)
            h = F.max_pool2d(h, 2)
        h = self.bottleneck(h)
        for up in self.ups:
            large = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
            h = up(torch.cat([large, skips.pop()], dim=1))
        phi: Tensor = self.out(self.refine(h))
        return phi


def warp(image: Tensor, phi: Tensor) -> Tensor:
    """Look up image [N, C, H, W] at every position plus phi [N, 2, H, W] px (rows, columns); bilinear, borders held.

    Positions, and so the result, are float32 at least: bfloat16 has no numbers between 128 and 129.
    """
    dtype = torch.promote_types(image.dtype, torch.float32)
    image, phi = image.to(dtype), phi.to(dtype)
    rows, columns = image.shape[-2:]
    row = torch.arange(rows, device=image.device, dtype=dtype)[:, None] + phi[:, 0]
    column = torch.arange(columns, device=image.device, dtype=dtype)[None] + phi[:, 1]
    # grid_sample wants (x, y), the centres of the outer pixels being -1 and 1.
    grid = torch.stack([2 * column / (columns - 1) - 1, 2 * row / (rows - 1) - 1], dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def jacobian_determinant(phi: Tensor) -> Tensor:
    """Determinant [N, H-1, W-1] of position + phi by forward differences; 1 is no change, at most 0 is a fold."""
    along_rows = (phi[:, :, 1:] - phi[:, :, :-1])[..., :-1]
    along_columns = (phi[..., 1:] - phi[..., :-1])[:, :, :-1]
    stretch = (1 + along_rows[:, 0]) * (1 + along_columns[:, 1])
    return stretch - along_rows[:, 1] * along_columns[:, 0]


def displacement_figures(phi: Tensor) -> dict[str, Tensor]:
    """What to watch in training: mean length "displacement_px" of phi [N, 2, H, W], and the share "folded" of folds."""
    folded = (jacobian_determinant(phi) <= 0).float().mean()
    return {"displacement_px": phi.norm(dim=1).mean(), "folded": folded}


def _convolution(channels_in: int, channels: int, *, size: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, size, padding=size // 2), nn.LeakyReLU(0.2))
