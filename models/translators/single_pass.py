"""Translation with a bundle whose generator needs one pass of its network."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import BundleCard, BundleError, read_card
from models.context import seen_slices
from models.frame import Frame
from models.networks.config import ConfigError
from models.networks.generators import build_generator, read_generator
from models.prediction import predicted_image
from models.translator import Device, Precision, Progress
from models.translators.slicewise import Loaded, Runtime, check_level, check_slices, load_network, translate_slices


class SinglePassTranslator(Loaded):
    """A loaded single-pass bundle; fulfils `models.translator.Translator`."""

    def __init__(
        self, card: BundleCard, network: torch.nn.Module, runtime: Runtime, blood_level_hu: float | None
    ) -> None:
        """Take a network in eval mode, frozen, on its device; `load` is the way to get one from a bundle."""
        super().__init__(card, runtime, passes="1 pass", blood_level_hu=blood_level_hu)
        self._network = network

    def _look(
        self, hu: NDArray[np.float32], seed: int, spacing_mm: float | None, progress: Progress | None, *, again: bool
    ) -> NDArray[np.float32]:
        """Nothing is random here, so that every seed gives the same result."""
        check_slices(hu)
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be non-negative")
        return translate_slices(
            hu,
            Frame.of(self.card),
            self.runtime,
            self._predict,
            seen=seen_slices(len(hu), self.card.context_mm, spacing_mm),
            gain=self.gain,
            again=again,
            progress=progress,
        )

    def _predict(self, source: Tensor) -> Tensor:
        with self.runtime.autocast():
            output: Tensor = self._network(source)
        return predicted_image(self.card, output[:, :1].float(), source)


def load(
    path: Path,
    *,
    device: Device = "cpu",
    precision: Precision = "fp32",
    batch_size: int | None = None,
    blood_level_hu: float | None = None,
) -> SinglePassTranslator:
    """Check the weights against the card and build the translator; raises BundleError and DeviceUnavailable."""
    runtime = Runtime.choose(device, precision, batch_size)
    card = read_card(path)
    check_level(card, blood_level_hu)
    try:
        config = read_generator(card.network)
    except (ConfigError, TypeError) as error:
        raise BundleError(f"{path}: {error}.") from error
    if card.matrix % config.size_multiple:
        raise BundleError(f"{path}: matrix is {card.matrix}; the network needs a multiple of {config.size_multiple}.")
    if config.in_channels != (needed := 1 + len(card.context_mm)):
        raise BundleError(f"{path}: in_channels is {config.in_channels}, but context_mm asks for {needed}.")
    if config.out_channels not in (1, needed):
        raise BundleError(f"{path}: out_channels is {config.out_channels}; it must be 1 or {needed}.")
    network = load_network(path, card, lambda: build_generator(config)).to(runtime.device).eval()
    return SinglePassTranslator(card, network, runtime, blood_level_hu)
