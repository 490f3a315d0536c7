"""Owns translation with a bundle whose generator needs one pass (pix2pix, cyclegan, reggan); must not train."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import BundleCard, BundleError, read_card
from models.frame import Frame
from models.networks.config import ConfigError
from models.networks.generators import build_generator, read_generator
from models.translator import Device, Precision, Progress
from models.zoo.prediction import predicted_image
from models.zoo.slicewise import Runtime, check_slices, load_network, translate_slices


@dataclass(frozen=True)
class SinglePassTranslator:
    """A loaded single-pass bundle; fulfils `models.translator.Translator`. The network is in eval mode, frozen."""

    card: BundleCard
    network: torch.nn.Module
    runtime: Runtime

    @property
    def device(self) -> str:
        """ "cpu" or "cuda"."""
        return self.runtime.device

    @property
    def precision(self) -> str:
        """ "fp32" or "bf16"."""
        return self.runtime.precision

    @property
    def description(self) -> str:
        """One line: bundle, method, device, precision."""
        return f"{self.card.name} {self.card.version} ({self.card.method}, 1 pass) on {self.runtime.description}"

    @property
    def arithmetic(self) -> str:
        """See `Translator`."""
        return self.runtime.arithmetic

    def translate(self, hu: NDArray[np.float32], seed: int, *, progress: Progress | None = None) -> NDArray[np.float32]:
        """See `Translator.translate`; nothing is random here, so that every seed gives the same result."""
        check_slices(hu)
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be non-negative")
        return translate_slices(hu, Frame.of(self.card), self.runtime, self._predict, progress=progress)

    def _predict(self, source: Tensor) -> Tensor:
        with self.runtime.autocast():
            output: Tensor = self.network(source)
        return predicted_image(self.card, output.float(), source)


def load(
    path: Path, *, device: Device = "cpu", precision: Precision = "fp32", batch_size: int | None = None
) -> SinglePassTranslator:
    """Check the weights against the card and build the translator; raises BundleError and DeviceUnavailable."""
    runtime = Runtime.choose(device, precision, batch_size)
    card = read_card(path)
    try:
        config = read_generator(card.network)
    except (ConfigError, TypeError) as error:
        raise BundleError(f"{path}: {error}.") from error
    if card.matrix % config.size_multiple:
        raise BundleError(f"{path}: matrix is {card.matrix}; the network needs a multiple of {config.size_multiple}.")
    network = load_network(path, card, lambda: build_generator(config)).to(runtime.device).eval()
    return SinglePassTranslator(card, network, runtime)
