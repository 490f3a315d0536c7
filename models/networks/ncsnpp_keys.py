"""The mapping between official SynDiff state-dict keys and our module tree.

The official network keeps every layer in one list, `all_modules.{i}`, numbered in the order of construction, and the
latent mapping in `z_transform`. Our tree has names instead. NIN layers store their weight as [in, out]; ours are Linear
layers, [out, in], hence the transposition.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from models.networks.config import NcsnppConfig

_RESIDUAL = {
    "norm_in.style": "GroupNorm_0.style",
    "conv_in": "Conv_0",
    "time": "Dense_0",
    "norm_out.style": "GroupNorm_1.style",
    "conv_out": "Conv_1",
    "shortcut": "Conv_2",
}
_ATTENTION = {"query": "NIN_0", "key": "NIN_1", "value": "NIN_2", "out": "NIN_3"}


@dataclass(frozen=True)
class OfficialKey:
    """Where one of our tensors lies in an official state dict, and whether it is stored transposed."""

    name: str
    transposed: bool = False


def official_keys(config: NcsnppConfig) -> dict[str, OfficialKey]:
    """Map every key of our state dict to its official place; shortcuts that a block lacks are listed too."""
    keys: dict[str, OfficialKey] = {}
    for index, (ours, kind) in enumerate(_modules_in_order(config)):
        keys |= _keys_of(ours, f"all_modules.{index}", kind)
    for layer in range(config.n_mlp + 1):
        keys |= _plain(f"latent_mlp.{layer}", f"z_transform.{2 * layer + 1}")
    return keys


def from_official(state: Mapping[str, Tensor], config: NcsnppConfig) -> dict[str, Tensor]:
    """Rename an official state dict to our keys, with or without DDP's `module.` prefix.

    Raises KeyError with the first official key that is neither expected nor an optional shortcut.
    """
    bare = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    ours = {}
    for name, official in official_keys(config).items():
        tensor = bare.pop(official.name, None)
        if tensor is not None:
            ours[name] = tensor.t().contiguous() if official.transposed else tensor
    if bare:
        raise KeyError(f"the checkpoint has {sorted(bare)[0]}, which a network of this configuration has not")
    return ours


def _modules_in_order(config: NcsnppConfig) -> Iterator[tuple[str, str]]:
    """Our module names with their kind, in the order in which the official network constructs its list."""
    levels = len(config.ch_mult)
    attends = [config.image_size // config.patch_size // 2**i in config.attn_resolutions for i in range(levels)]
    yield from (("time_mlp.0", "plain"), ("time_mlp.1", "plain"), ("stem", "plain"))
    for level in range(levels):
        for block in range(config.num_res_blocks):
            yield f"encoder.{level}.blocks.{block}", "residual"
            if attends[level]:
                yield f"encoder.{level}.attentions.{block}", "attention"
        if level < levels - 1:
            yield f"encoder.{level}.down", "residual"
            yield f"encoder.{level}.pyramid.conv", "pyramid"
    yield from (("middle_in", "residual"), ("middle_attention", "attention"), ("middle_out", "residual"))
    for position, level in enumerate(reversed(range(levels))):
        for block in range(config.num_res_blocks + 1):
            yield f"decoder.{position}.blocks.{block}", "residual"
        if attends[level]:
            yield f"decoder.{position}.attention", "attention"
        if level > 0:
            yield f"decoder.{position}.up", "residual"
    yield from (("out_norm", "plain"), ("out_conv", "plain"))


def _keys_of(ours: str, official: str, kind: str) -> dict[str, OfficialKey]:
    if kind == "plain":
        return _plain(ours, official)
    if kind == "pyramid":
        return _plain(ours, f"{official}.Conv2d_0")
    if kind == "residual":
        return {k: v for a, b in _RESIDUAL.items() for k, v in _plain(f"{ours}.{a}", f"{official}.{b}").items()}
    keys = _plain(f"{ours}.norm", f"{official}.GroupNorm_0")
    for a, b in _ATTENTION.items():
        keys[f"{ours}.{a}.weight"] = OfficialKey(f"{official}.{b}.W", transposed=True)
        keys[f"{ours}.{a}.bias"] = OfficialKey(f"{official}.{b}.b")
    return keys


def _plain(ours: str, official: str) -> dict[str, OfficialKey]:
    return {f"{ours}.{part}": OfficialKey(f"{official}.{part}") for part in ("weight", "bias")}
