"""How a checkpoint of the official SynDiff code becomes a bundle; every guess is written into its card.

Official files are state dicts of one generator, `gen_diffusive_1_EPOCH.pth` and `gen_diffusive_2_EPOCH.pth`, written
through one or two data-parallel wrappers. They are opened with `weights_only=True`, so that no code in them can run.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.bundle import HU_WINDOW, BundleCard, BundleError, parse_card, write_bundle
from models.card_text import render_card
from models.diffusion import DiffusionConfig
from models.methods.method import serialise
from models.networks.config import ConfigError, NcsnppConfig
from models.networks.ncsnpp import Ncsnpp
from models.networks.ncsnpp_keys import from_official, official_keys
from models.networks.ncsnpp_shapes import infer_config

LICENCE_UNKNOWN = (
    "not known; weights trained with the official SynDiff code may be under its non-commercial terms (NVIDIA Source "
    "Code License for Denoising Diffusion GAN), so ask the people who trained them"
)
INTENDED_USE = "Research until commissioned: nothing about this model was measured when it was imported."

_LIMITS = (
    "Not commissioned, and not for clinical use: no figure of this model was measured on any data.",
    "The checkpoint states neither its training data nor what it makes out of what. SynDiff's gen_diffusive_1 makes "
    "its contrast 1 from contrast 2, gen_diffusive_2 the reverse: that this one makes contrast-enhanced CT from "
    "non-contrast CT was stated by the person who imported it.",
    "HU window, matrix and number of reverse steps are not in the checkpoint either; a wrong one gives plausible but "
    "wrong images.",
    "The envelope in this card is a default, not a finding.",
)
_PREFIX = "module."
_INPUTS = 2  # x_{t+1} and the non-contrast slice
_OFFICIAL_NAMES = {"num_channels_dae": "nf"}
# Options of the official network that shapes do not show, at the values that ours is built with.
_FIXED: Mapping[str, object] = {
    "architecture": "ncsnpp",
    "embedding_type": "positional",
    "conditional": True,
    "resamp_with_conv": True,
    "fir": True,
    "fir_kernel": [1, 3, 3, 1],
    "skip_rescale": True,
    "resblock_type": "biggan",
    "progressive": "none",
    "progressive_input": "residual",
    "progressive_combine": "sum",
    "not_use_tanh": False,
    "centered": True,
    "use_geometric": False,
}
_WITHOUT_EFFECT = ("t_emb_dim", "dropout", "fourier_scale")  # unused by this network, or in training only


class FolderTaken(BundleError):
    """The folder to write exists and is not empty; an importer never overwrites."""


def import_syndiff(
    file: Path,
    out: Path,
    *,
    name: str,
    version: str,
    config: NcsnppConfig | None = None,
    image_size: int = 256,
    diffusion: DiffusionConfig = DiffusionConfig(),  # noqa: B008 - immutable
    hu_window: tuple[float, float] = HU_WINDOW,
    licence: str = LICENCE_UNKNOWN,
    intended_use: str = INTENDED_USE,
) -> BundleCard:
    """Write the generator of an official checkpoint as the bundle `out`, in float32; returns its card.

    file: `gen_diffusive_*.pth`. Without `config` the network is inferred from the tensors, for images of image_size x
    image_size; with it, image_size is not used. diffusion and hu_window: as in training, for the file holds neither.
    The same file and arguments give the same bundle to the byte. Raises FolderTaken, and BundleError for a file that is
    no such checkpoint or does not fit the network; then nothing is written.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise FolderTaken(f"{out} exists and is not overwritten.")
    data = _read(file)
    try:
        state = _checked_state(_load(data))
        config = config or infer_config({key: tuple(t.shape) for key, t in state.items()}, image_size=image_size)
        network = _fitted_network(state, config)
    except (ConfigError, BundleError) as error:
        raise BundleError(f"{file} cannot be imported: {str(error).rstrip('.')}.") from error
    card = BundleCard(
        name=name,
        version=version,
        method="syndiff",
        network=config.to_card(),
        diffusion=diffusion.to_mapping(),
        weights_sha256="0" * 64,
        hu_window=hu_window,
        matrix=config.image_size,
        training={
            "data": "not stated in the checkpoint",
            "origin": "a checkpoint in the official SynDiff layout, imported",
            "checkpoint_sha256": hashlib.sha256(data).hexdigest(),
        },
        licence=licence,
        intended_use=intended_use,
        limits=_LIMITS,
    )
    parse_card(card.to_mapping())
    try:
        return write_bundle(out, card, serialise(network, half=False), text=render_card(card))
    except OSError as error:
        raise BundleError(f"{out} cannot be written: {error.strerror}.") from error


def read_network_file(file: Path) -> tuple[NcsnppConfig, DiffusionConfig]:
    """Read network and noise schedule from a JSON object, or its member `config`; raises BundleError.

    Keys are those of NcsnppConfig and DiffusionConfig or the official names; a key that is absent has its default. An
    official option at a value that this network has not is refused.
    """
    try:
        values = json.loads(_read(file))
    except ValueError as error:
        raise BundleError(f"{file} is no JSON: {error}.") from error
    values = values.get("config", values) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise BundleError(f"{file} must hold one JSON object.")
    for key, wanted in _FIXED.items():
        if values.get(key, wanted) != wanted:
            raise BundleError(f"{file}: {key} is {values[key]!r}; only {wanted!r} can be imported.")
    known: dict[str, object] = {_OFFICIAL_NAMES.get(str(key), str(key)): value for key, value in values.items()}
    known = {key: value for key, value in known.items() if key not in (*_FIXED, *_WITHOUT_EFFECT)}
    noise = {key: known.pop(key) for key in DiffusionConfig().to_mapping() if key in known}
    try:
        return NcsnppConfig.from_mapping(known), DiffusionConfig.from_mapping(noise)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{file}: {error}.") from error


def parameter_count(card: BundleCard) -> int:
    """Weights of the network that an imported bundle's card describes."""
    config = NcsnppConfig.from_card(card.network)
    return sum(parameter.numel() for parameter in _without_weights(config).parameters())


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}.") from error


def _load(data: bytes) -> object:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise BundleError("it is no PyTorch checkpoint, or it is cut short")
    try:
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged or foreign file can end in any of them
        raise BundleError(
            "it is damaged, or holds Python objects, which are not opened because they can run code. content.pth holds "
            "some: take gen_diffusive_1_EPOCH.pth or gen_diffusive_2_EPOCH.pth"
        ) from error


def _checked_state(loaded: object) -> dict[str, Tensor]:
    """The tensors by official key, without the wrappers' prefix."""
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(key, str) for key in loaded):
        raise BundleError("it holds no tensors by name")
    state: dict[str, Tensor] = dict(loaded)
    while all(key.startswith(_PREFIX) for key in state):
        state = {key.removeprefix(_PREFIX): value for key, value in state.items()}
    if not any(key.startswith("all_modules.") for key in state):
        raise BundleError(
            f"it is not the diffusive generator of SynDiff: no all_modules.0.weight, but {next(iter(state))}. Take "
            "gen_diffusive_1_EPOCH.pth or gen_diffusive_2_EPOCH.pth"
        )
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or not tensor.is_floating_point():
            raise BundleError(f"{key} is no table of floating-point numbers")
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{key} holds a value that is not finite")
    return state


def _fitted_network(state: Mapping[str, Tensor], config: NcsnppConfig) -> Ncsnpp:
    """The network with these weights in float32, after every tensor's place and shape were checked."""
    if config.num_channels != _INPUTS:
        raise BundleError(f"the network takes {config.num_channels} images at once, not {_INPUTS}")
    network, places = _without_weights(config), official_keys(config)
    wanted = {}
    for name, tensor in network.state_dict().items():
        place = places[name]
        wanted[place.name] = tuple(tensor.shape[::-1] if place.transposed else tensor.shape)
    for key, shape in wanted.items():
        if key not in state:
            raise BundleError(f"{key} is missing, which a network of this configuration has")
        if tuple(state[key].shape) != shape:
            raise BundleError(f"{key} has the shape {tuple(state[key].shape)}, and the network {shape}")
    if extra := [key for key in state if key not in wanted]:
        raise BundleError(f"{extra[0]} is there, which a network of this configuration has not")
    weights = {name: tensor.float().clone() for name, tensor in from_official(state, config).items()}
    network.load_state_dict(weights, assign=True)
    return network


def _without_weights(config: NcsnppConfig) -> Ncsnpp:
    with torch.device("meta"):
        return Ncsnpp(config)
