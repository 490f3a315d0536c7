"""Promises of registration: pixels, rows first, no change at the start, and it can find a shift."""

import numpy as np
import pytest
import torch

from models.losses import smoothness
from models.networks.config import ConfigError
from models.networks.registration import (
    RegistrationConfig,
    RegistrationNetwork,
    displacement_figures,
    jacobian_determinant,
    warp,
)

SMALL = RegistrationConfig(widths=(8, 8), bottleneck_blocks=1)


def assert_close(a: torch.Tensor | None, b: torch.Tensor, *, atol: float = 1e-5) -> None:
    assert a is not None
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=atol)


def blob(row: float, column: float) -> torch.Tensor:
    r, c = torch.meshgrid(torch.arange(24.0), torch.arange(16.0), indexing="ij")
    return torch.exp(-((r - row) ** 2 + (c - column) ** 2) / 12)[None, None]


def test_a_new_network_moves_nothing_and_fits_the_matrix() -> None:
    phi = RegistrationNetwork(SMALL)(torch.randn(3, 1, 24, 16), torch.randn(3, 1, 24, 16))
    assert phi.shape == (3, 2, 24, 16)
    assert phi.abs().max() < 1e-3


def test_warp_looks_up_rows_then_columns_in_pixels_and_holds_the_border() -> None:
    image = torch.randn(2, 1, 24, 16)
    phi = torch.zeros(2, 2, 24, 16)
    assert_close(warp(image, phi), image)
    phi[:, 0], phi[:, 1] = 3, -2
    moved = warp(image, phi)
    assert_close(moved[..., :-3, 2:], image[..., 3:, :-2])
    assert_close(moved[..., -3:, 2:], image[..., -1:, :-2].expand(-1, -1, 3, -1))
    phi[:, 0], phi[:, 1] = 0.5, 0
    assert_close(warp(image, phi)[..., :-1, :], (image[..., 1:, :] + image[..., :-1, :]) / 2)


def test_warp_keeps_parts_of_a_pixel_in_training_with_bfloat16() -> None:
    ramp = (torch.arange(256.0) / 255)[:, None].expand(1, 1, 256, 256)
    phi = torch.full((1, 2, 256, 256), 0.25, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = warp(ramp.bfloat16(), phi)
    # The image itself is rounded to 8 bits of mantissa; positions must not be.
    exact = warp(ramp.bfloat16().float(), phi.float())
    assert_close(moved.float(), exact)


def test_a_displacement_can_be_learned_through_the_warp() -> None:
    torch.manual_seed(0)
    moving, fixed = blob(11, 8), blob(12.5, 6)
    network = RegistrationNetwork(SMALL)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    before = float((moving - fixed).abs().mean())
    for _ in range(30):
        phi = network(moving, fixed)
        loss = (warp(moving, phi) - fixed).abs().mean() + 0.01 * smoothness(phi)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (warp(moving, network(moving, fixed)) - fixed).abs().mean() < 0.4 * before


def test_smoothness_and_jacobian_of_known_fields() -> None:
    r, c = torch.meshgrid(torch.arange(5.0), torch.arange(4.0), indexing="ij")
    shear = torch.stack([0.5 * c, torch.zeros_like(c)])[None]
    assert smoothness(torch.ones(1, 2, 5, 4)) == 0
    assert smoothness(shear) == pytest.approx(0.25 / 2)  # the mean runs over both channels
    stretch = torch.stack([0.5 * r, -0.25 * c])[None]
    assert_close(jacobian_determinant(stretch), torch.full((1, 4, 3), 1.5 * 0.75))
    fold = torch.stack([-2.0 * r, torch.zeros_like(c)])[None]
    assert {name: float(value) for name, value in displacement_figures(fold).items()} == {
        "displacement_px": 4.0,
        "folded": 1.0,
    }
    assert displacement_figures(shear)["folded"] == 0


def test_impossible_levels_are_refused() -> None:
    with pytest.raises(ConfigError, match="widths"):
        RegistrationConfig(widths=())
