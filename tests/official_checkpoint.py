"""Checkpoints in the layout of the official SynDiff code, with random weights of any configuration."""

import torch

from models.networks.config import NcsnppConfig
from models.networks.ncsnpp import Ncsnpp
from models.networks.ncsnpp_keys import official_keys

TINY = NcsnppConfig(image_size=32, nf=8, ch_mult=(1, 2), num_res_blocks=1, nz=4, z_emb_dim=8, n_mlp=1)


def official_state(config: NcsnppConfig = TINY, *, prefix: str = "", device: str = "cpu") -> dict[str, torch.Tensor]:
    """What torch.save wrote of a generator; on the device "meta" it has shapes and costs nothing."""
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Ncsnpp(config)
    places = official_keys(config)
    return {
        prefix + places[name].name: tensor.t().contiguous() if places[name].transposed else tensor
        for name, tensor in network.state_dict().items()
    }
