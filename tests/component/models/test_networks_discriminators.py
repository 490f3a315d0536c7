"""Promises of the discriminators: published sizes and patches, time and neighbours that matter, any batch size."""

import numpy as np
import pytest
import torch

from models.networks.config import ConfigError
from models.networks.discriminators import (
    PatchGan,
    PatchGanConfig,
    TimeDiscriminator,
    TimeDiscriminatorConfig,
    append_minibatch_stddev,
)

SMALL = TimeDiscriminatorConfig(widths=(8, 12, 16), t_emb_dim=8)


def assert_close(a: torch.Tensor | None, b: torch.Tensor, *, atol: float = 1e-5) -> None:
    assert a is not None
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=atol)


def test_patch_discriminator_gives_30_x_30_logits_and_has_the_common_names() -> None:
    network = PatchGan(PatchGanConfig(base_channels=2))
    assert network(torch.zeros(1, 1, 256, 256)).shape == (1, 1, 30, 30)
    assert {int(name.split(".")[1]) for name in network.state_dict()} == {0, 2, 5, 8, 11}


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_patch_logits_see_seventy_pixels(norm: str) -> None:
    network = PatchGan(PatchGanConfig(in_channels=2, base_channels=4, norm=norm)).eval()  # type: ignore[arg-type]
    image = torch.randn(1, 2, 128, 128, requires_grad=True)
    logits = network(image)
    assert logits.shape == (1, 1, 14, 14)
    if norm == "batch":  # statistics of a whole image would let every logit see everything
        logits[0, 0, 7, 7].backward()
        seen = image.grad.abs().sum(dim=(0, 1)).nonzero()  # type: ignore[union-attr]
        assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [70, 70]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 8])
def test_time_discriminator_takes_every_batch_size(count: int) -> None:
    x = torch.randn(count, 1, 16, 16)
    assert TimeDiscriminator(SMALL)(x, torch.arange(count) % 4, x).shape == (count,)


def test_time_and_the_next_image_change_the_verdict() -> None:
    network, x = TimeDiscriminator(SMALL), torch.randn(2, 1, 16, 16)
    for block in network.blocks:
        torch.nn.init.normal_(block.get_parameter("conv_out.weight"), std=0.1)
    verdict = network(x, torch.tensor([1, 1]), x)
    assert (network(x, torch.tensor([1, 3]), x) != verdict).tolist()[1]
    assert (network(x, torch.tensor([1, 1]), x.flip(0)) != verdict).all()


def test_minibatch_stddev_is_the_mean_spread_inside_each_group() -> None:
    x = torch.randn(6, 3, 2, 2)
    out = append_minibatch_stddev(x)
    assert torch.equal(out[:, :3], x)
    for group in (0, 1):  # six images are two groups of three
        spread = x[group::2].std(dim=0, correction=0).mean()
        assert_close(out[group::2, 3], spread.expand(3, 2, 2))


def test_impossible_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least two"):
        TimeDiscriminatorConfig(widths=(8,))
