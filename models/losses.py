"""The terms of which the methods' objectives are sums. `logits` are a discriminator's outputs u, without sigmoid."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from models.bundle import HU_WINDOW

_ENHANCED = 15 * 2 / (HU_WINDOW[1] - HU_WINDOW[0])  # 15 HU in model values, whose range is 2


def logistic_real(logits: Tensor) -> Tensor:
    """mean log(1 + e^-u): for a discriminator on real images, for a generator (non-saturating) on its fakes."""
    return F.softplus(-logits).mean()


def logistic_fake(logits: Tensor) -> Tensor:
    """mean log(1 + e^u): for a discriminator on fakes. It is the binary cross entropy of logits with label 0."""
    return F.softplus(logits).mean()


def least_squares(logits: Tensor, label: float) -> Tensor:
    """mean (u - label)^2 over all patches (LSGAN)."""
    return (logits - label).square().mean()


def least_squares_per_image(logits: Tensor, label: float) -> Tensor:
    """mean (mean over an image's patches of u, minus label)^2: RegGAN averages the patches before it squares."""
    return (logits.flatten(1).mean(dim=1) - label).square().mean()


def l1(a: Tensor, b: Tensor) -> Tensor:
    """mean |a - b|."""
    return (a - b).abs().mean()


def r1_penalty(logits: Tensor, x: Tensor) -> Tensor:
    """E ||d logits / d x||^2, the sum over an image's pixels, the mean over images (Mescheder et al., ICML 2018).

    x [N, ...] must require a gradient and logits come from it. The usual factor gamma / 2 is the caller's.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


def logistic_with_r1(
    discriminator: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    *,
    gamma: float | None,
    names: tuple[str, str, str],
) -> dict[str, Tensor]:
    """The discriminator's logistic terms of real and fake, and gamma / 2 times R1 at the real; no R1 for gamma None.

    names: of these three terms, in this order.
    """
    real = real.requires_grad_(gamma is not None)
    logits = discriminator(real)
    r1 = {} if gamma is None else {names[2]: gamma / 2 * r1_penalty(logits, real)}
    return {names[0]: logistic_real(logits), names[1]: logistic_fake(discriminator(fake))} | r1


def enhanced_l1(estimate: Tensor, target: Tensor, source: Tensor, *, weight: float) -> Tensor:
    """mean w |estimate - target|; w is 1 + `weight` where target and source differ by more than 15 HU, else 1."""
    weights = 1 + weight * ((target - source).abs() > _ENHANCED)
    return (weights * (estimate - target).abs()).mean()


def smoothness(phi: Tensor) -> Tensor:
    """mean (d_row phi)^2 + mean (d_column phi)^2 of a displacement [N, 2, H, W] in pixels, forward differences."""
    along_rows, along_columns = phi[:, :, 1:] - phi[:, :, :-1], phi[..., 1:] - phi[..., :-1]
    return along_rows.square().mean() + along_columns.square().mean()
