"""Promises of the engine: what folding and bfloat16 may cost, on the shipped weights and on the official ones."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import find_bundle, load_bundle
from models.bundle import read_card
from models.context import seen_slices
from models.diffusion import DiffusionConfig, make_schedule, posterior_sample
from models.evaluation.precision import PrecisionLoss, precision_loss
from models.frame import Frame
from models.networks.config import NcsnppConfig
from models.networks.ncsnpp import FirUp, Ncsnpp
from models.phantom import make_patient
from models.translators.engine import Engine, fir_up
from models.translators.slicewise import load_network
from models.translators.syndiff import SeriesNoise, SyndiffTranslator

SPACING_MM = (20.0, 1.9531, 1.9531)

SLICES_MM = 5.0


def random_network(**changes: object) -> Ncsnpp:
    """A small network whose weights are all alive."""
    config = NcsnppConfig.from_mapping(
        {"image_size": 32, "nf": 16, "ch_mult": [1, 2], "num_res_blocks": 2, "nz": 4, "z_emb_dim": 8} | changes
    )
    torch.manual_seed(3)
    network = Ncsnpp(config)
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 16
        torch.nn.init.normal_(parameter, std=fan_in**-0.5)
    return network.requires_grad_(False).eval()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert expected.std() > 0.01  # a network that returns nothing would hide every error
    return float((found - expected).norm() / expected.norm())


def worst_relative_error(network: Ncsnpp, precision: str, *, batch: int = 1) -> float:
    """Of all four steps, over the whole output."""
    torch.manual_seed(5)
    size, channels = network.config.image_size, network.config.num_channels
    images, z = torch.randn(batch, channels, size, size), torch.randn(1, network.config.nz)
    engine = Engine(network, precision)
    return max(relative_error(engine.fold(t, z)(images), network(images, torch.tensor([t]), z)) for t in range(4))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("changes", [{}, {"patch_size": 2, "num_res_blocks": 1}, {"attn_resolutions": []}])
def test_folding_changes_nothing_but_rounding(changes: dict[str, object], batch: int) -> None:
    assert worst_relative_error(random_network(**changes), "fp32", batch=batch) <= 1e-5


def test_folding_the_shipped_network_changes_nothing_but_rounding() -> None:
    path = find_bundle("demo")
    card = read_card(path)
    config = NcsnppConfig.from_mapping({k: v for k, v in card.network.items() if k != "architecture"})
    assert worst_relative_error(load_network(path, card, lambda: Ncsnpp(config)), "fp32") <= 1e-5


def test_bf16_keeps_the_network_recognisable() -> None:
    assert 1e-4 < worst_relative_error(random_network(), "bf16") <= 3e-2


def test_a_latent_for_each_slice_is_refused() -> None:
    with pytest.raises(ValueError, match="one latent"):
        Engine(random_network(), "fp32").fold(0, torch.zeros(2, 4))


def test_folding_leaves_the_network_as_it_was() -> None:
    network = random_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    Engine(network, "fp32").fold(1, torch.ones(1, 4))(torch.ones(1, 2, 32, 32))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 1, 1, 4), (1, 1, 1, 1)])
def test_resampling_at_the_borders_equals_the_plain_filter(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape)
    torch.testing.assert_close(fir_up(images), FirUp()(images))


def test_folded_official_checkpoint_gives_the_official_outputs(parity: Path, official_network: Ncsnpp) -> None:
    arrays = np.load(parity / "syndiff_tiny.npz")
    network = official_network.requires_grad_(False)
    assert worst_relative_error(network, "fp32") <= 1e-5

    engine, schedule = Engine(network, "fp32"), make_schedule(DiffusionConfig())
    given_noise = {name: torch.from_numpy(arrays[name]) for name in ("source", "x_T", "z", "posterior_noise")}
    for n in range(len(arrays["sample"])):
        source, x, z, noise = (
            given_noise[name].narrow(axis, n, 1)
            for name, axis in (("source", -4), ("x_T", -4), ("z", -2), ("posterior_noise", -4))
        )
        for step, t in enumerate((3, 2, 1, 0)):
            output = engine.fold(t, z[step])(torch.cat([x, source], dim=1))
            assert np.abs(output.numpy() - arrays["generator_outputs"][step, [n]]).max() <= 1e-4
            x = posterior_sample(schedule, output[:, :1], x, t, noise[step])
        assert np.abs(x.numpy() - arrays["sample"][[n]]).max() <= 1e-4


@cache
def phantom() -> NDArray[np.float32]:
    """Three slices without contrast, HU."""
    return make_patient(4, slices=3, rows=256, spacing_mm=SPACING_MM).ncct_hu.astype(np.float32)


def plain_translation(translator: SyndiffTranslator) -> NDArray[np.float32]:
    """The same slices, seed and noise through the plain network."""
    card = translator.card
    noise = SeriesNoise.from_seed(7, num_timesteps=4, nz=int(str(card.network["nz"])), matrix=card.matrix)
    native = torch.from_numpy(phantom())
    seen = torch.from_numpy(seen_slices(len(native), card.context_mm, SLICES_MM).T.copy())
    source = Frame.of(card).to_model(native)[seen, 0]
    sample = translator.sample(source.numpy(), noise.x_T, noise.z, noise.posterior_noise)
    return Frame.of(card).to_native(torch.from_numpy(sample) - source[:, :1], native).numpy()


def test_translation_is_the_plain_networks_sample() -> None:
    translator = load_bundle(find_bundle("demo"))
    assert isinstance(translator, SyndiffTranslator)
    plain = plain_translation(translator)
    assert np.abs(plain - np.clip(phantom(), -40, 400)).max() > 50
    assert np.abs(translator.translate(phantom(), 7, spacing_mm=SLICES_MM) - plain).max() <= 0.05


@pytest.mark.parametrize("bundle", ["demo", "demo-1step"])
def test_bf16_stays_within_the_gates_on_the_shipped_weights(bundle: str) -> None:
    loss = precision_loss(find_bundle(bundle))
    assert 0 < loss.mae_hu <= 1
    assert loss.max_hu <= 15
    assert abs(loss.psnr_change_db) <= 0.02
    assert loss.acceptable


@pytest.mark.parametrize("beyond", [(1.1, 15, 0), (1, 15.1, 0), (1, 15, -0.03), (math.nan, 0, 0)])
def test_each_gate_alone_refuses_a_precision(beyond: tuple[float, float, float]) -> None:
    assert PrecisionLoss(1, 15, -0.02).acceptable
    assert not PrecisionLoss(*beyond).acceptable
