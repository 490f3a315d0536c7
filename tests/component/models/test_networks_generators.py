"""Promises of the single-pass generators: published sizes, any fitting matrix, names that foreign weights fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from models.networks.config import ConfigError
from models.networks.generators import build_generator, describe_generator, read_generator
from models.networks.resnet import ResnetConfig, ResnetGenerator
from models.networks.unet import UnetConfig, UnetGenerator


def assert_close(a: torch.Tensor | None, b: torch.Tensor, *, atol: float = 1e-5) -> None:
    assert a is not None
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=atol)


def test_resnet_tensors_have_the_common_names_and_shapes() -> None:
    network = ResnetGenerator(ResnetConfig(blocks=6, base_channels=2))
    shapes = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    expected = {1: (2, 1, 7, 7), 4: (4, 2, 3, 3), 7: (8, 4, 3, 3), 16: (8, 4, 3, 3), 19: (4, 2, 3, 3), 23: (1, 2, 7, 7)}
    blocks = {f"model.{i}.conv_block.{k}.weight": (8, 8, 3, 3) for i in range(10, 16) for k in (1, 5)}
    weights = {f"model.{i}.weight": shape for i, shape in expected.items()} | blocks
    assert {name: shape for name, shape in shapes.items() if name.endswith("weight")} == weights
    assert set(shapes) == {name.replace("weight", part) for name in weights for part in ("weight", "bias")}


@pytest.mark.parametrize(
    "config",
    [
        ResnetConfig(blocks=1, base_channels=4),
        UnetConfig(downs=4, base_channels=4),
        UnetConfig(downs=3, base_channels=4, norm="instance"),
        UnetConfig(downs=2, base_channels=4, norm="group"),
    ],
)
def test_generators_keep_the_matrix_and_the_range_and_are_described_in_full(config: ResnetConfig | UnetConfig) -> None:
    network = build_generator(config).eval()
    output = network(torch.randn(3, 1, 16, 32))
    assert output.shape == (3, 1, 16, 32)
    assert 0 < output.abs().max() <= 1
    assert read_generator(describe_generator(config)) == config


def test_an_image_in_use_does_not_see_its_batch() -> None:
    images = torch.randn(4, 1, 16, 16)
    for config in (ResnetConfig(blocks=1, base_channels=4), UnetConfig(downs=4, base_channels=4)):
        network = build_generator(config)
        network(images)  # moves the running statistics, where there are any
        network.eval()
        assert_close(network(images)[2:3], network(images[2:3]))


def test_unet_drops_out_in_the_three_inner_decoder_levels_only() -> None:
    network = UnetGenerator(UnetConfig(base_channels=1))
    rates = [m.p for m in network.decoder.modules() if isinstance(m, nn.Dropout)]
    assert rates == [0, 0.5, 0.5, 0.5, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"architecture": "perceptron"}, "architecture is 'perceptron'"),
        ({"architecture": "resnet", "wings": 2}, "unknown network keys"),
        ({"architecture": "resnet", "blocks": 0}, "blocks is 0"),
        ({"architecture": "unet", "downs": 2.5}, r"downs is 2\.5"),
    ],
)
def test_impossible_generators_are_refused_in_words(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_generator(values)


def test_an_unknown_norm_is_refused() -> None:
    config = replace(UnetConfig(downs=3), norm="layer")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="allowed are batch, instance, group"):
        UnetGenerator(config)
