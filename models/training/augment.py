"""Changes of a batch while it is trained on: what differs between scans of one patient, and must not change a result.

There is no flip: heart, arch and liver tell left from right, and a mirrored patient exists once in ten thousand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.bundle import HU_WINDOW
from models.training.augmentation import Augmentation

OPEN_HU = (-250.0, 500.0)
"""Range of HU that is kept for noise to be added to: what lies outside stays outside the window under any noise."""
_AIR_HU, _TISSUE_HU = -150.0, -30.0
_PIXEL_MM = 2.0  # of lesions, whose size need not be exact


@dataclass(frozen=True)
class HuBatch:
    """Slices at the model's matrix in HU, float32.

    `source` [N, C, M, M]: each slice and its neighbours, clipped to the window before they were averaged; `opened`: the
    same clipped to OPEN_HU. `change` [N, 1 or C, M, M]: target minus source. `depth_mm` [N, C]: of the slices above
    the first.
    """

    source: Tensor
    opened: Tensor
    change: Tensor
    depth_mm: Tensor


@dataclass(frozen=True)
class PartOf:
    """A whole batch of `images`, and at which `places` of it the images at hand stand."""

    places: Sequence[int]
    images: int


def augment(batch: HuBatch, how: Augmentation, random: torch.Generator, part: PartOf | None = None) -> HuBatch:
    """A changed copy; `random` lies on the batch's device and decides everything.

    A `part` of a batch is changed as it is in the whole.
    """
    draw = _Draw(random, part or PartOf(range(len(batch.source)), len(batch.source)))
    batch = _moved(batch, how, draw)
    if how.lesions:
        batch = _with_lesions(batch, how.lesions, draw)
    source, opened = _sharpened(batch.source, batch.opened, draw.between(*how.sharpen))
    added = how.shift_hu * draw.normal()[:, None, None, None] + _noise(source, how, draw)
    low, high = HU_WINDOW
    noisy = (source + (opened + added).clamp(low, high) - opened.clamp(low, high)).clamp(low, high)
    change = batch.change * draw.between(*how.level)[:, None, None, None]
    return HuBatch(noisy, opened + added, change, batch.depth_mm)


@dataclass(frozen=True)
class _Draw:
    """Random numbers for each slice, on the generator's device; drawn for the whole batch, and those of a part kept."""

    random: torch.Generator
    part: PartOf

    def uniform(self) -> Tensor:
        return self._own(torch.rand(self.part.images, generator=self.random, device=self.random.device))

    def between(self, low: float, high: float) -> Tensor:
        return low + (high - low) * self.uniform()

    def normal(self, *shape: int) -> Tensor:
        return self._own(torch.randn((self.part.images, *shape), generator=self.random, device=self.random.device))

    def place_in(self, mask: Tensor) -> Tensor:
        """The number of one pixel of each mask [N, P], every set one as likely; any pixel where none is set."""
        # What torch.multinomial does for one draw, which cannot be told to draw for more images than it sees.
        waiting = torch.empty((self.part.images, mask.shape[1]), device=self.random.device)
        waiting.exponential_(generator=self.random)
        return ((mask.float() + 1e-12) / self._own(waiting)).argmax(dim=1)

    def _own(self, whole: Tensor) -> Tensor:
        return whole if len(self.part.places) == self.part.images else whole[list(self.part.places)]


def _moved(batch: HuBatch, how: Augmentation, draw: _Draw) -> HuBatch:
    """Rotated, magnified and moved, slice and neighbours alike; what comes in from outside is air."""
    if not (how.rotate_deg or how.move_px) and how.scale == (1.0, 1.0):
        return batch
    side = batch.source.shape[-1]
    angle, size = torch.deg2rad(how.rotate_deg * draw.normal()), draw.between(*how.scale)
    cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
    move_x, move_y = (how.move_px * draw.normal() * 2 / side for _ in range(2))
    theta = torch.stack([torch.stack([cosine, -sine, move_x], 1), torch.stack([sine, cosine, move_y], 1)], 1)
    grid = F.affine_grid(theta, [len(theta), 1, side, side], align_corners=False)

    def seen(images: Tensor, outside: float) -> Tensor:
        return F.grid_sample(images - outside, grid, align_corners=False) + outside

    low = HU_WINDOW[0]
    return HuBatch(seen(batch.source, low), seen(batch.opened, OPEN_HU[0]), seen(batch.change, 0.0), batch.depth_mm)


def _sharpened(source: Tensor, opened: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Detail, which is the image minus its mean over 3 x 3 pixels, times 1 + share."""
    factor = share[:, None, None, None]

    def seen(images: Tensor) -> Tensor:
        return images + factor * (images - F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False))

    return (source, opened) if not bool(share.any()) else (seen(source), seen(opened))


def _noise(like: Tensor, how: Augmentation, draw: _Draw) -> Tensor:
    """Noise in HU of the images' shape [N, C, M, M], independent from slice to slice."""
    if not how.noise_hu[1]:
        return like.new_zeros(())
    sd_hu = draw.between(*how.noise_hu) * (draw.uniform() < how.noise_share)
    f0 = draw.between(*how.noise_f0)[:, None, None, None]
    side = like.shape[-1]
    f_y, f_x = torch.fft.fftfreq(side, device=like.device), torch.fft.rfftfreq(side, device=like.device)
    radial = torch.sqrt(f_y[:, None] ** 2 + f_x[None] ** 2)
    amplitude = torch.sqrt(radial * torch.exp(-((radial / f0) ** 2)))
    white = draw.normal(*like.shape[1:])
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(side, side))
    scaled: Tensor = noise / noise.std(dim=(-2, -1), keepdim=True) * sd_hu[:, None, None, None]
    return scaled


def _with_lesions(batch: HuBatch, mean_count: float, draw: _Draw) -> HuBatch:
    """Soft ellipsoids, HU 0 to 60, where lung was; some touch its border, and what they cover does not enhance."""
    side, device = batch.source.shape[-1], batch.source.device
    lung = _lung(batch.opened[:, :1])
    line = torch.arange(side, device=device, dtype=torch.float32)
    source, opened, change = batch.source.clone(), batch.opened.clone(), batch.change.clone()
    for _ in range(max(1, math.ceil(2 * mean_count))):
        wanted = (draw.uniform() < mean_count / max(1, math.ceil(2 * mean_count))) & lung.flatten(1).any(1)
        places = draw.place_in(lung.flatten(1))
        row, column = (places // side).float(), (places % side).float()
        radius_mm = 3 + 27 * draw.uniform() ** 2
        stretch = draw.between(0.7, 1.4)
        dy = (line[None, :, None] - row[:, None, None]) * _PIXEL_MM * stretch[:, None, None]
        dx = (line[None, None] - column[:, None, None]) * _PIXEL_MM / stretch[:, None, None]
        above_mm = radius_mm * draw.between(-0.8, 0.8)
        squared = (dy**2 + dx**2)[:, None] + (batch.depth_mm - above_mm[:, None])[:, :, None, None] ** 2
        inside = torch.sigmoid((radius_mm[:, None, None, None] - squared.sqrt()) / _PIXEL_MM * 2)
        inside = inside * wanted[:, None, None, None] * (batch.opened < _TISSUE_HU)
        hu = draw.between(0, 60)[:, None, None, None]
        source, opened = source + inside * (hu - source).clamp(min=0), opened + inside * (hu - opened).clamp(min=0)
        change = change * (1 - inside[:, : change.shape[1]])
    return HuBatch(source, opened, change, batch.depth_mm)


def _lung(opened: Tensor) -> Tensor:
    """Air [N, 1, M, M] with tissue on all four sides, bool."""
    tissue = (opened > _TISSUE_HU).int()
    around = torch.ones_like(tissue, dtype=torch.bool)
    for axis in (-2, -1):
        around &= (tissue.cumsum(axis) > 3) & (tissue.flip(axis).cumsum(axis).flip(axis) > 3)
    return around & (opened < _AIR_HU)
