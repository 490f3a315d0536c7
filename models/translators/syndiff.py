"""Translation with a SynDiff bundle, in one step or more: noise from a seed, and the sampler.

SynDiff: Özbey et al., IEEE TMI 42(12), 2023. The methods that train such a bundle differ in training only.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import BundleCard, BundleError, read_card
from models.context import seen_slices
from models.diffusion import DiffusionConfig, Schedule, estimate_x0, make_schedule, reverse_sample
from models.frame import Frame
from models.networks.config import ConfigError, NcsnppConfig
from models.networks.ncsnpp import Ncsnpp
from models.prediction import predicted_image
from models.translator import Device, Precision, Progress
from models.translators.engine import ENGINE_VERSION, Engine
from models.translators.slicewise import (
    Loaded,
    Runtime,
    check_level,
    check_slices,
    load_network,
    repeatable_convolutions,
    translate_slices,
)


@dataclass(frozen=True)
class SeriesNoise:
    """Every random number that one series needs: x_T [1, 1, M, M], z [T, 1, nz], posterior_noise [T, 1, 1, M, M]."""

    x_T: NDArray[np.float32]  # noqa: N815
    z: NDArray[np.float32]
    posterior_noise: NDArray[np.float32]

    @classmethod
    def from_seed(cls, seed: int, *, num_timesteps: int, nz: int, matrix: int) -> "SeriesNoise":
        """Draw from numpy's Philox, the same stream on every platform; raises ValueError for a negative seed."""
        generator = np.random.Generator(np.random.Philox(seed))
        return cls(
            x_T=generator.standard_normal((1, 1, matrix, matrix), dtype=np.float32),
            z=generator.standard_normal((num_timesteps, 1, nz), dtype=np.float32),
            posterior_noise=generator.standard_normal((num_timesteps, 1, 1, matrix, matrix), dtype=np.float32),
        )


class SyndiffTranslator(Loaded):
    """A loaded SynDiff bundle; fulfils `models.translator.Translator` and can replay given noise."""

    def __init__(
        self,
        card: BundleCard,
        network: Ncsnpp,
        schedule: Schedule,
        runtime: Runtime,
        blood_level_hu: float | None = None,
    ) -> None:
        """Take a network with its weights loaded; `load` is the way to get one from a bundle."""
        steps = schedule.num_timesteps
        super().__init__(
            card,
            runtime,
            passes="1 step" if steps == 1 else f"{steps} steps",
            engine=f"engine {ENGINE_VERSION}",
            blood_level_hu=blood_level_hu,
        )
        self._frame = Frame.of(card)
        self._schedule = schedule
        self._network = network.to(runtime.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._engine = Engine(self._network, runtime.precision)

    def _look(
        self, hu: NDArray[np.float32], seed: int, spacing_mm: float | None, progress: Progress | None, *, again: bool
    ) -> NDArray[np.float32]:
        check_slices(hu)
        seen = seen_slices(len(hu), self.card.context_mm, spacing_mm)
        noise = SeriesNoise.from_seed(
            seed,
            num_timesteps=self._schedule.num_timesteps,
            nz=self._network.config.nz,
            matrix=self._frame.matrix,
        )
        x_T, z, posterior_noise = (
            torch.from_numpy(a).to(self.runtime.device) for a in (noise.x_T, noise.z, noise.posterior_noise)
        )
        # All slices share z, so that every step is folded once for the series; steps are consumed last first.
        steps = {t: self._engine.fold(t, z[-1 - t]) for t in range(self._schedule.num_timesteps)}

        def predict(source: Tensor) -> Tensor:
            def predict_x0(x: Tensor, t: int, _z: Tensor) -> Tensor:
                images = torch.cat([x.expand_as(source[:, :1]), source], dim=1)
                return predicted_image(self.card, steps[t](images)[:, :1], source)

            return reverse_sample(self._schedule, predict_x0, x_T, z, posterior_noise)

        return translate_slices(
            hu, self._frame, self.runtime, predict, seen=seen, gain=self.gain, again=again, progress=progress
        )

    def sample(
        self,
        source: NDArray[np.float32],
        x_T: NDArray[np.float32],
        z: NDArray[np.float32],
        posterior_noise: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Run the reverse diffusion with given noise, in the model's own value range.

        source [N, C, M, M]; x_T [N, 1, M, M]; z [T, N, nz]; posterior_noise [T, N, 1, M, M]; both in the order of
        consumption, the last time step first. A 1 in place of N shares noise across the batch. Returns float32
        [N, 1, M, M].
        """
        tensors = (
            torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)) for a in (source, x_T, z, posterior_noise)
        )
        with torch.inference_mode(), repeatable_convolutions():
            return self._sample(*(tensor.to(self.runtime.device) for tensor in tensors)).cpu().numpy()

    def _sample(self, source: Tensor, x_T: Tensor, z: Tensor, posterior_noise: Tensor) -> Tensor:
        """With a latent per slice nothing can be folded: the plain network runs."""

        def predict_x0(x: Tensor, t: int, latent: Tensor) -> Tensor:
            step = torch.full((1,), t, device=x.device)
            with self.runtime.autocast():
                return estimate_x0(
                    self._network, self.card, x_next=x.expand_as(source[:, :1]), source=source, t=step, z=latent
                )

        return reverse_sample(self._schedule, predict_x0, x_T, z, posterior_noise)


def load(
    path: Path,
    *,
    device: Device = "cpu",
    precision: Precision = "fp32",
    batch_size: int | None = None,
    blood_level_hu: float | None = None,
) -> SyndiffTranslator:
    """Check the weights against the card and build the translator; raises BundleError and DeviceUnavailable."""
    runtime = Runtime.choose(device, precision, batch_size)
    card = read_card(path)
    check_level(card, blood_level_hu)
    try:
        config = NcsnppConfig.from_card(card.network)
        schedule = make_schedule(DiffusionConfig.from_mapping(card.diffusion))
    except (ConfigError, ValueError, TypeError) as error:
        raise BundleError(f"{path}: {error}.") from error
    if card.network.get("architecture") != "ncsnpp" or card.matrix % config.size_multiple:
        raise BundleError(f"{path}: the network must be ncsnpp with a matrix that is a multiple of its smallest size.")
    if config.num_channels != (needed := 2 + len(card.context_mm)):
        raise BundleError(f"{path}: num_channels is {config.num_channels}, but context_mm asks for {needed}.")
    network = load_network(path, card, lambda: Ncsnpp(config))
    return SyndiffTranslator(card, network, schedule, runtime, blood_level_hu)
