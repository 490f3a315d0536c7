"""How a configuration is read out of the shapes of an official SynDiff state dict.

The layout is that of `ncsnpp_keys.py`. What shapes cannot say (the matrix, the time steps, which filter resamples) is
given by the person who imports.
"""

from collections.abc import Mapping, Sequence

from models.networks.config import ConfigError, NcsnppConfig

Shapes = Mapping[str, tuple[int, ...]]

_KINDS = {"Conv_0.weight": "residual", "NIN_0.W": "attention", "Conv2d_0.weight": "pyramid", "weight": "plain"}
_LEVELS_START = 3  # after two layers of the time embedding and the first convolution


def infer_config(shapes: Shapes, *, image_size: int) -> NcsnppConfig:
    """Read the configuration of a network for images of image_size x image_size from its tensors' shapes.

    shapes: by official key, without DDP's prefix. The result is what the shapes suggest; whether every tensor fits is
    for the caller to check. Raises ConfigError where they suggest no network.
    """
    kinds = _kinds_in_order(shapes)
    # A level ends with its step of the input pyramid; the first residual block of the next one has the new width.
    starts = [_LEVELS_START, *(i + 1 for i, kind in enumerate(kinds) if kind == "pyramid")]
    nf, num_channels, *_ = _shape(shapes, "all_modules.2.weight", rank=4)
    attends = [kinds[i + 1 : i + 2] == ["attention"] for i in starts]
    return NcsnppConfig(
        image_size=image_size,
        num_channels=num_channels,
        nf=nf,
        ch_mult=tuple(_multiple(shapes, f"all_modules.{i}.Conv_0.weight", nf) for i in starts),
        num_res_blocks=_blocks_per_level(kinds, len(starts)),
        attn_resolutions=tuple(image_size // 2**level for level, attend in enumerate(attends) if attend),
        nz=_shape(shapes, "z_transform.1.weight", rank=2)[1],
        z_emb_dim=_shape(shapes, "z_transform.1.weight", rank=2)[0],
        n_mlp=sum(name.startswith("z_transform.") and name.endswith(".weight") for name in shapes) - 1,
    )


def _kinds_in_order(shapes: Shapes) -> list[str]:
    """What each layer of the official list is, without a gap from the first to the last."""
    kinds: list[str] = []
    while kind := next((k for part, k in _KINDS.items() if f"all_modules.{len(kinds)}.{part}" in shapes), None):
        kinds.append(kind)
    places = {name.split(".")[1] for name in shapes if name.startswith("all_modules.")}
    if len(places) > len(kinds):
        raise ConfigError(f"all_modules.{len(kinds)} is incomplete, missing or no layer of SynDiff's generator")
    return kinds


def _blocks_per_level(kinds: Sequence[str], levels: int) -> int:
    """Undo the count: n blocks down and n + 1 up per level, two in the middle, two to resample between levels."""
    blocks, rest = divmod(kinds.count("residual") - 3 * levels, 2 * levels)
    if rest or blocks < 1:
        raise ConfigError(f"{kinds.count('residual')} residual blocks on {levels} levels are no generator of SynDiff")
    return blocks


def _multiple(shapes: Shapes, name: str, nf: int) -> int:
    width = _shape(shapes, name, rank=4)[0]
    if nf < 1 or width % nf:
        raise ConfigError(f"{name} has {width} channels, which is no multiple of the first convolution's {nf}")
    return width // nf


def _shape(shapes: Shapes, name: str, *, rank: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None:
        raise ConfigError(f"{name} is missing")
    if len(shape) != rank:
        raise ConfigError(f"{name} has {len(shape)} dimensions, not {rank}")
    return shape
