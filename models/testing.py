"""Helpers for tests of other packages only: a valid bundle that is made in no time."""

from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from models.bundle import BundleCard, write_bundle
from models.networks.config import NcsnppConfig
from models.networks.ncsnpp import Ncsnpp

_TINY = NcsnppConfig(nf=8, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), nz=4, z_emb_dim=8, n_mlp=1)


def write_tiny_bundle(path: Path, *, matrix: int = 32, seed: int = 0, live: bool = True) -> BundleCard:
    """Write a SynDiff bundle with a tiny random network and return its card.

    live=True changes soft tissue visibly, by some 20 HU and a few more or less: the gates of the node let it pass.
    live=False leaves every pixel inside the window as it is (to far less than 0.01 HU). `matrix` must be even.
    """
    config = NcsnppConfig.from_mapping(_TINY.to_mapping() | {"image_size": matrix})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Ncsnpp(config)
        if live:
            _enliven(network)
    card = BundleCard(
        name="tiny",
        version=str(seed),
        method="syndiff_paired",
        network=config.to_card(),
        diffusion={"num_timesteps": 4, "beta_min": 0.1, "beta_max": 20.0},
        prediction="residual",
        residual_scale=0.3,
        matrix=matrix,
        weights_sha256="0" * 64,
        intended_use="Tests only; the weights are random.",
    )
    weights = save_safetensors({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    return write_bundle(path, card, weights, text="# tiny\n\nRandom weights for tests.\n")


def _enliven(network: Ncsnpp) -> None:
    """Give the layers that start at almost nothing real weights, and the output a bias that makes it positive."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and float(module.weight.detach().abs().max()) < 1e-3:
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        network.out_conv.weight.mul_(0.15)
        nn.init.constant_(cast("Tensor", network.out_conv.bias), 0.3)
