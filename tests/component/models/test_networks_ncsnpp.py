"""Promises of the NCSN++ generator: the published size, and the official implementation's numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import BundleCard
from models.diffusion import DiffusionConfig, make_schedule
from models.networks.config import ConfigError, NcsnppConfig
from models.networks.layers import group_count
from models.networks.ncsnpp import FirDown, FirUp, Ncsnpp
from models.networks.ncsnpp_keys import from_official, official_keys
from models.translators.slicewise import Runtime
from models.translators.syndiff import SyndiffTranslator

TINY = NcsnppConfig(image_size=32, nf=8, ch_mult=(1, 2), num_res_blocks=1, nz=4, z_emb_dim=8, n_mlp=1)


def test_published_configuration_has_the_published_number_of_parameters() -> None:
    network = Ncsnpp(NcsnppConfig())
    assert sum(parameter.numel() for parameter in network.parameters()) == 39_725_250
    assert len(network.state_dict()) == 548


def test_official_checkpoint_and_recorded_noise_give_the_official_sample(
    parity: Path, official_network: Ncsnpp
) -> None:
    arrays = np.load(parity / "syndiff_tiny.npz")
    network = official_network
    outputs: list[torch.Tensor] = []
    network.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    card = BundleCard("parity", "1", "syndiff", {}, {}, "0" * 64, matrix=32)
    schedule = make_schedule(DiffusionConfig())
    translator = SyndiffTranslator(card, network, schedule, Runtime("cpu", "fp32", 1))

    sample = translator.sample(*(arrays[name] for name in ("source", "x_T", "z", "posterior_noise")))

    assert np.abs(arrays["sample"]).std() > 0.1  # live weights: a wrong network could not hide
    assert np.abs(sample - arrays["sample"]).max() <= 1e-4
    assert np.abs(torch.stack(outputs).numpy() - arrays["generator_outputs"]).max() <= 1e-4


def test_a_checkpoint_of_another_network_is_refused() -> None:
    state = {official.name: torch.zeros(1) for official in official_keys(TINY).values()}
    with pytest.raises(KeyError, match="Conv_9"):
        from_official(state | {"module.all_modules.3.Conv_9.weight": torch.zeros(1)}, TINY)


def test_every_key_of_the_network_has_an_official_place() -> None:
    assert set(Ncsnpp(TINY).state_dict()) <= set(official_keys(TINY))


def test_shared_latent_and_time_equal_repeated_ones() -> None:
    torch.manual_seed(0)
    network = Ncsnpp(TINY)
    torch.nn.init.normal_(network.out_conv.weight)
    images, z = torch.randn(3, 2, 32, 32), torch.randn(1, 4)
    shared = network(images, torch.tensor([2]), z)
    repeated = network(images, torch.full((3,), 2), z.expand(3, -1))
    assert shared.std() > 0.1
    assert torch.allclose(shared, repeated, atol=1e-5)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_new_network_returns_almost_nothing_in_the_shape_of_its_input(patch_size: int) -> None:
    config = NcsnppConfig.from_mapping(TINY.to_mapping() | {"patch_size": patch_size})
    output = Ncsnpp(config)(torch.randn(2, 2, 32, 48), torch.tensor([0, 3]), torch.randn(2, 4))
    assert output.shape == (2, 2, 32, 48)
    assert output.abs().max() < 1e-3


def test_fir_filters_match_their_definition() -> None:
    taps = np.array([1.0, 3.0, 3.0, 1.0])
    line = np.array([2.0, -1.0, 0.5, 4.0])
    image = torch.from_numpy(np.outer(line, line)).float()[None, None]
    padded = np.pad(line, 1)
    down = np.array([taps @ padded[i : i + 4] / 8 for i in (0, 2)])
    before, after = padded[:-2], padded[2:]
    up = np.stack([(before + 3 * line) / 4, (3 * line + after) / 4], axis=1).ravel()
    np.testing.assert_allclose(FirDown()(image)[0, 0], np.outer(down, down), rtol=1e-6)
    np.testing.assert_allclose(FirUp()(image)[0, 0], np.outer(up, up), rtol=1e-6)


def test_groups_always_divide_the_channels() -> None:
    assert [group_count(c) for c in (16, 64, 128, 512)] == [4, 16, 32, 32]
    assert 144 % group_count(144) == 0


@pytest.mark.parametrize(
    ("key", "value"), [("nf", 0), ("nf", 6), ("ch_mult", []), ("ch_mult", [1, 0]), ("image_size", 31), ("wings", 2)]
)
def test_impossible_configurations_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        NcsnppConfig.from_mapping(TINY.to_mapping() | {key: value})
