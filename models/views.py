"""Views: the same image moved, turned and scaled a little, and a prediction for it moved back."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class View:
    """One small motion of an image about its centre.

    turn_deg: degrees. right, down: shift of the sampling point as a share of the image's side. scale: above 1 the
    anatomy becomes smaller.
    """

    turn_deg: float
    right: float
    down: float
    scale: float

    def matrix(self) -> Tensor:
        """[3, 3] float64, from places in the view to places in the image; both run from -1 to 1."""
        angle = math.radians(self.turn_deg)
        cosine, sine = self.scale * math.cos(angle), self.scale * math.sin(angle)
        rows = [[cosine, -sine, 2 * self.right], [sine, cosine, 2 * self.down], [0.0, 0.0, 1.0]]
        return torch.tensor(rows, dtype=torch.float64)


VIEWS: Final = (
    View(10.0, 0.025, 0.0, 1.0),
    View(-10.0, -0.025, 0.0, 1.0),
    View(0.0, 0.031, 0.044, 1.12),
    View(0.0, -0.012, -0.016, 0.92),
    View(6.0, -0.044, 0.031, 1.08),
    View(-6.0, 0.02, -0.015, 0.94),
    View(-8.0, 0.038, 0.025, 1.04),
)
"""The views that consecutive slices are seen through in turn: slice z through VIEWS[z % 7].

Half as large, they leave less room for a limit between vessels and tissue that lights wrongly; left and right exchanged
is too much: heart and aorta on the other side are doubted as much as anything.
"""


def through_view(predict: Callable[[Tensor], Tensor], source: Tensor, numbers: Sequence[int]) -> Tensor:
    """The difference [B, 1, M, M] that `predict` makes of moved images, moved back to where it belongs.

    source: model values [B, C, M, M] in [-1, 1]; all C images of a slice move together. numbers: which slice of its
    series each one is. `predict` as in `translators.slicewise`. The difference fades to that of the border where a view
    shows what lies outside the image.
    """
    forth = torch.stack([VIEWS[z % len(VIEWS)].matrix() for z in numbers])
    seen = warp(source, forth).clamp(-1.0, 1.0)
    return warp(predict(seen) - seen[:, :1], torch.linalg.inv(forth))


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Images [B, C, M, M] sampled bicubically where matrices [B, 3, 3] say; outside, the border goes on."""
    grid = F.affine_grid(matrices[:, :2].float(), list(images.shape), align_corners=False).to(images.device)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)
