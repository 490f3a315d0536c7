"""Owns what every translator does around its network: device, weights, native HU in and out; must not know a method."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from models.bundle import BundleCard, BundleError, read_weights
from models.frame import Frame, all_finite
from models.translator import Device, DeviceUnavailable, Precision, Progress, TranslationError

_GPU_BATCH = 8

NetworkT = TypeVar("NetworkT", bound=torch.nn.Module)


@dataclass(frozen=True)
class Runtime:
    """Where and how a translator runs: device "cpu" or "cuda", precision "fp32" or "bf16", slices at once."""

    device: str
    precision: str
    batch_size: int

    @classmethod
    def choose(cls, device: Device, precision: Precision, batch_size: int | None) -> "Runtime":
        """Settle what "auto" means here, as `models.load_bundle` promises; raises DeviceUnavailable."""
        chosen = choose_device(device)
        return cls(
            device=chosen,
            precision={"auto": "bf16" if chosen == "cuda" else "fp32"}.get(precision, precision),
            batch_size=(batch_size or _GPU_BATCH) if chosen == "cuda" else 1,
        )

    @property
    def description(self) -> str:
        """Device and precision, for logs."""
        return f"{torch.cuda.get_device_name() if self.device == 'cuda' else 'cpu'}, {self.precision}"

    @property
    def arithmetic(self) -> str:
        """Everything that may change the last bit of a result: processor, number of threads or batch, precision."""
        if self.device == "cuda":
            return f"{torch.cuda.get_device_name()}, batch {self.batch_size}, {self.precision}"
        return f"cpu {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, {self.precision}"

    def autocast(self) -> torch.autocast:
        """Context in which the network runs at this precision."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def choose_device(device: Device) -> str:
    """Return "cpu" or "cuda"; raises DeviceUnavailable when "cuda" is asked for and none can be used."""
    usable = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if usable else "cpu"
    if device == "cuda" and not usable:
        raise DeviceUnavailable("device is set to cuda, but torch finds no usable GPU on this machine")
    return device


def load_network(path: Path, card: BundleCard, build: Callable[[], NetworkT]) -> NetworkT:
    """Build a network, give it the bundle's checked weights as float32 and freeze it; raises BundleError."""
    weights = read_weights(path, card)
    # Weights are random only until the next lines replace them; the caller's random stream stays as it was.
    with torch.random.fork_rng(devices=[]):
        network = build()
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_safetensors(weights).items()})
    except (RuntimeError, SafetensorError) as error:
        raise BundleError(f"{path}: the weights do not fit the network that the card describes: {error}.") from error
    return network.requires_grad_(False)


def check_slices(hu: NDArray[np.float32]) -> None:
    """Refuse what is no stack of slices [N, H, W]; raises ValueError."""
    if hu.ndim != 3 or 0 in hu.shape[1:]:
        raise ValueError(f"hu has shape {hu.shape}; it must be [N, H, W]")


def translate_slices(
    hu: NDArray[np.float32],
    frame: Frame,
    runtime: Runtime,
    predict: Callable[[Tensor], Tensor],
    *,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Run `predict`, from model values [B, 1, M, M] to model values, over native HU [N, H, W] in batches.

    Returns float32 HU [N, H, W] as `Translator.translate` promises; raises TranslationError where a prediction is not
    finite. What `predict` returns for a slice must not depend on the other slices.
    """
    total, result = len(hu), np.empty(hu.shape, dtype=np.float32)
    for start in range(0, total, runtime.batch_size):
        stop = min(start + runtime.batch_size, total)
        with torch.inference_mode():
            native = torch.from_numpy(np.asarray(hu[start:stop], dtype=np.float32)).to(runtime.device)
            source = frame.to_model(native)
            predicted = predict(source)
            if not all_finite(predicted):
                raise TranslationError(f"the prediction of slices {start} to {stop - 1} is not finite")
            result[start:stop] = frame.to_native(predicted - source, native).cpu().numpy()
        if progress is not None:
            progress(stop, total)
    return result
