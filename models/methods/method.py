"""What one training loop and one evaluation need of every method, and how a method becomes a bundle."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from models.bundle import BundleCard, write_bundle
from models.card_text import render_card
from models.methods.optimisation import Parts, Regime
from models.registry import METHODS


@dataclass(frozen=True)
class Batch:
    """Model values in [-1, 1], float32: NCCT slices [N, C, M, M] and CECT slices [N, 1 or C, M, M].

    C is 1, or more for a network that sees neighbours: the slice itself first, then those in the order of `context_mm`.
    The target has its neighbours for a method with `stacked = True`.
    For a method with `paired = True` the two are the same slice of the same patient; the others compare none.
    """

    source: Tensor
    target: Tensor

    def to(self, device: str | torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(self.source.to(device), self.target.to(device))

    def parts(self, count: int) -> "list[Batch]":
        """The batch in `count` parts of the same size."""
        size = len(self.source) // count
        starts = range(0, size * count, size)
        return [Batch(self.source[start : start + size], self.target[start : start + size]) for start in starts]


@dataclass(frozen=True)
class Blueprint:
    """What a bundle's card says of the network to rebuild; the fields are those of `models.bundle.BundleCard`."""

    network: Mapping[str, object]
    matrix: int
    prediction: str = "image"
    residual_scale: float = 1.0
    diffusion: Mapping[str, object] = field(default_factory=dict)
    context_mm: tuple[float, ...] = ()


class Inference(Protocol):
    """The trained generator of a method; see `models.methods.inference` for its two forms.

    `generator` is what goes into a bundle (the moving average where one is kept), `blueprint` what a card says of it.
    """

    @property
    def generator(self) -> nn.Module: ...
    @property
    def blueprint(self) -> Blueprint: ...

    def translate(self, x: Tensor, seed: int) -> Tensor:
        """Predict target images [N, 1, M, M] from source images [N, C, M, M], all in [-1, 1], without gradients.

        As the bundle's translator does it: noise from the seed, shared by all images.
        """
        ...


class MethodConfig(Protocol):
    """What every method's configuration has; each adds its networks and weights of terms."""

    @property
    def regime(self) -> Regime: ...
    @property
    def matrix(self) -> int: ...
    @property
    def context_mm(self) -> tuple[float, ...]: ...


class Method(Protocol):
    """Networks in training, and the objective that moves them.

    `paired` says whether a batch's two images must show the same slice, `stacked` whether the target comes with its
    neighbours too: a method that also translates back needs them. `parts` holds all that training changes.
    """

    name: str
    paired: bool
    stacked: bool
    parts: Parts

    @property
    def config(self) -> MethodConfig: ...
    @property
    def inference(self) -> Inference: ...

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """Take all optimiser steps of one iteration and return its terms by name.

        step: the global step, counted from 0; with the regime's seed it decides all randomness, so that a run resumed
        from a checkpoint of `parts` goes on as if it had never stopped. Terms include their weights; "l1" is in every
        method that compares an image with its true one.
        """
        ...


def step_in_parts(method: Method, batch: Batch, step: int, count: int) -> dict[str, float]:
    """One training step on a batch that passes in `count` parts; see `Regime` and `Method.training_step`."""
    parts = batch.parts(count)
    return method.parts.descend_in_parts(lambda number: method.training_step(parts[number], step), count)


def make_method(
    name: str, preset: str = "paper", *, regime: Mapping[str, object] | None = None, **changes: Any
) -> Method:
    """Build a fresh method from a preset.

    regime: fields of its `Regime` to replace, such as {"seed": 2, "batch_size": 4}. changes: fields of the method's own
    configuration to replace. Raises KeyError for an unknown name or preset, TypeError for an unknown field.
    """
    config = METHODS[name].presets[preset]
    return build_method(name, replace(config, regime=replace(config.regime, **(regime or {})), **changes))


def build_method(name: str, config: MethodConfig) -> Method:
    """Build a fresh method from its whole configuration; raises KeyError for an unknown name."""
    return cast("Method", import_module(METHODS[name].training).build(config))


def write_method_bundle(method: Method, path: Path, about: BundleCard, *, half: bool = True) -> BundleCard:
    """Write the method's generator as a bundle that `models.load_bundle` loads; returns its card.

    about: the card's words and figures (name, version, hu_window, training, envelope, metrics, limits, ...); what it
    says of method, network and weights is replaced. half stores float16, else float32.
    """
    card = method_card(method, about)
    return write_bundle(path, card, serialise(method.inference.generator, half=half), text=render_card(card))


def method_card(method: Method, about: BundleCard) -> BundleCard:
    """The card of a bundle of this method; weights excepted, it is complete."""
    blueprint = method.inference.blueprint
    return replace(
        about,
        method=method.name,
        network=blueprint.network,
        diffusion=blueprint.diffusion,
        prediction=blueprint.prediction,
        residual_scale=blueprint.residual_scale,
        matrix=blueprint.matrix,
        context_mm=blueprint.context_mm,
    )


def describe_bundle(name: str, version: str, **words: Any) -> BundleCard:
    """A card for `write_method_bundle` with these words and figures, before it knows its network and weights."""
    return BundleCard(name, version, method="", network={}, diffusion={}, weights_sha256="0" * 64, **words)


def serialise(network: nn.Module, *, half: bool) -> bytes:
    """Weights and buffers as safetensors; half stores floating-point tensors as float16."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if half:
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    return save_safetensors(state)
