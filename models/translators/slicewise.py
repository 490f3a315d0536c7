"""What every translator does around its network: device, precision, weights, native HU in and out."""

import copy
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from models.bundle import LEVELS_HU, BundleCard, BundleError, read_weights
from models.context import seen_slices
from models.frame import Frame, all_finite
from models.translator import Device, DeviceFault, DeviceUnavailable, Precision, Progress, TranslationError
from models.translators.devices import device_faults
from models.views import through_view

_GPU_BATCH = 8

log = logging.getLogger(__name__)

NetworkT = TypeVar("NetworkT", bound=torch.nn.Module)

_TURN: Final = threading.Lock()
"""One batch of one series at a time is computed in a process, whatever number of series it has in hand.

A batch then finds the memory that it would find alone, and the switches of cuDNN, which are the process's, are its own.
"""


@dataclass
class Runtime:
    """Where and how a translator runs: device "cpu" or "cuda", precision "fp32" or "bf16", slices at once.

    `batch_size` is what the memory was found to hold: it only ever shrinks, see `halve_batch`, and `short` says that it
    did: cuDNN chooses its algorithms by the memory that is left, and in fp32 another one differs by 0.004 HU.
    `shared`: that of the translator whose `sibling` this one belongs to.
    """

    device: str
    precision: str
    batch_size: int
    short: bool = False
    shared: "Runtime | None" = None

    @classmethod
    def choose(cls, device: Device, precision: Precision, batch_size: int | None) -> "Runtime":
        """Settle what "auto" means here, as `models.load_bundle` promises; raises DeviceUnavailable."""
        chosen = choose_device(device)
        fast = "bf16" if chosen == "cuda" or computes_bf16() else "fp32"
        return cls(
            device=chosen,
            precision=fast if precision == "auto" else precision,
            batch_size=(batch_size or _GPU_BATCH) if chosen == "cuda" else 1,
        )

    @property
    def description(self) -> str:
        """Device and precision, for logs; says so where the processor has to imitate the precision."""
        if self.device == "cuda":
            return f"{torch.cuda.get_device_name()}, {self.precision}"
        imitated = self.precision == "bf16" and not computes_bf16()
        capability = torch.backends.cpu.get_cpu_capability()
        return f"cpu {capability}, {self.precision}" + (" (imitated: slower than fp32 here)" if imitated else "")

    @property
    def arithmetic(self) -> str:
        """Everything that may change the last bit of a result: processor, number of threads or batch, precision."""
        if self.device == "cuda":
            batch = f"batch {self.batch_size}{' in little memory' if self.short else ''}"
            return f"{torch.cuda.get_device_name()}, {batch}, {self.precision}, no TF32"
        return f"cpu {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, {self.precision}"

    def halve_batch(self) -> bool:
        """Take half as many slices at once from now on; False at one slice, which has no half."""
        halved, self.batch_size, self.short = self.batch_size > 1, max(1, self.batch_size // 2), True
        if self.shared is not None:  # the next series begins with what this one found
            self.shared.batch_size, self.shared.short = min(self.batch_size, self.shared.batch_size), True
        return halved

    def autocast(self) -> torch.autocast:
        """Context in which the network runs at this precision."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")


@dataclass(frozen=True)
class Loaded(ABC):
    """What every loaded bundle says of itself, and its two looks; fulfils `models.translator.Translator`.

    `passes` is in words ("4 steps"); `engine` names code of ours that computes in its own way, and its version.
    `blood_level_hu` is the level asked for, None for the one that was taught.
    """

    card: BundleCard
    runtime: Runtime
    passes: str
    engine: str = ""
    blood_level_hu: float | None = None

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
        """One line: bundle, method, passes, device, precision."""
        card = self.card
        level = f", blood at {self.level_hu:g} HU" if self.level_hu is not None else ""
        return f"{card.name} {card.version} ({card.method}, {self.passes}{level}) on {self.runtime.description}"

    @property
    def arithmetic(self) -> str:
        """All that may change the last bit of a result."""
        level = f"blood at {self.level_hu:g} HU" if self.gain != 1 else ""
        return ", ".join(part for part in (self.runtime.arithmetic, self.engine, level) if part)

    @property
    def level_hu(self) -> float | None:
        """The enhancement of the blood pool that results are drawn with, in HU; None where the bundle has no level."""
        return self.blood_level_hu or self.card.blood_level_hu

    @property
    def gain(self) -> float:
        """Factor of the predicted difference: the level asked for over the one that was taught."""
        if self.level_hu is None or self.card.blood_level_hu is None:
            return 1.0
        return self.level_hu / self.card.blood_level_hu

    def translate(
        self, hu: NDArray[np.float32], seed: int, *, spacing_mm: float | None = None, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """See `Translator.translate`."""
        return self._look(hu, seed, spacing_mm, progress, again=False)

    def second_look(
        self, hu: NDArray[np.float32], seed: int, *, spacing_mm: float | None = None, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """See `Translator.second_look`."""
        return self._look(hu, seed, spacing_mm, progress, again=True)

    def sibling(self) -> Self:
        """See `LoadedTranslator.sibling`."""
        other = copy.copy(self)
        object.__setattr__(other, "runtime", replace(self.runtime, shared=self.runtime))
        return other

    @abstractmethod
    def _look(
        self, hu: NDArray[np.float32], seed: int, spacing_mm: float | None, progress: Progress | None, *, again: bool
    ) -> NDArray[np.float32]:
        """Translate; `again` shows each slice through a view, see `models.views`."""


@contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """Let cuDNN compute the same bits in every process; what the process had set before comes back afterwards.

    torch allows TF32, float32 with 10 bits of mantissa, in convolutions unless told otherwise, and algorithms that add
    in any order, for the transposed convolutions of a U-Net among others; timing them may choose another each time.
    """
    wanted = {"allow_tf32": False, "benchmark": False, "deterministic": True}
    cudnn = torch.backends.cudnn
    before = {name: getattr(cudnn, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(cudnn, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(cudnn, name, value)


def choose_device(device: Device) -> str:
    """Return "cpu" or "cuda"; raises DeviceUnavailable when "cuda" is asked for and none can be used."""
    usable = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if usable else "cpu"
    if device == "cuda" and not usable:
        raise DeviceUnavailable("device is set to cuda, but torch finds no usable GPU on this machine")
    return device


def computes_bf16() -> bool:
    """Whether this processor multiplies bfloat16 by instructions of its own (AVX512-BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


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


def check_level(card: BundleCard, blood_level_hu: float | None) -> None:
    """Refuse a level that this bundle cannot draw; raises BundleError."""
    if blood_level_hu is None:
        return
    if card.blood_level_hu is None:
        raise BundleError(
            f"blood_level_hu is {blood_level_hu:g}, but the bundle {card.name} was taught no level: it draws what it "
            "takes for each patient's own. Leave the setting out, or take a bundle whose card names a blood_level_hu."
        )
    low, high = LEVELS_HU
    if not low <= blood_level_hu <= high:
        raise BundleError(f"blood_level_hu is {blood_level_hu:g}; it must lie from {low:g} to {high:g}.")


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
    seen: NDArray[np.intp] | None = None,
    gain: float = 1.0,
    again: bool = False,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Run `predict`, from model values [B, C, M, M] to model values [B, 1, M, M], over native HU [N, H, W] in batches.

    `seen` [C, N]: the slices that are shown for each one, see `models.context`; None for itself alone. `gain` times the
    predicted difference is what is added. `again` shows each slice through a view, see `models.views`. Returns float32
    HU [N, H, W] as `Translator.translate` promises; raises
    TranslationError where a prediction is not finite. What `predict` returns for a slice must not depend on the other
    slices of the batch. A slice without a pixel in the
    window comes back clipped, and the network does not run. Out of memory halves the batch, says so, and starts the
    series over, so that one batch size, the one `Runtime.arithmetic` names, made all of it; with one slice at a time
    it raises DeviceFault, as does any other failure of the device.
    """
    result, wanted, done = np.empty(hu.shape, dtype=np.float32), list[int](), 0
    shown = seen if seen is not None else seen_slices(len(hu), (), None)
    for z, image in enumerate(hu):
        if frame.sees(image):
            wanted.append(z)
        else:
            result[z] = image.clip(*frame.hu_window)
    while done < len(wanted):
        batch = wanted[done : done + runtime.batch_size]
        try:
            with _TURN, device_faults():
                result[batch] = _translate_batch(hu, batch, frame, runtime, predict, seen=shown, gain=gain, again=again)
        except DeviceFault as fault:
            if not isinstance(fault.__cause__, torch.OutOfMemoryError) or not runtime.halve_batch():
                raise
            log.warning(
                "out of memory: %d slices at once from now on, and this series again",
                runtime.batch_size,
                extra={"event": "device_memory_short"},
            )
            done = 0
            continue
        done += len(batch)
        if progress is not None:
            progress(len(hu) - len(wanted) + done, len(hu))
    return result


def _translate_batch(
    hu: NDArray[np.float32],
    batch: list[int],
    frame: Frame,
    runtime: Runtime,
    predict: Callable[[Tensor], Tensor],
    *,
    seen: NDArray[np.intp],
    gain: float,
    again: bool,
) -> NDArray[np.float32]:
    with torch.inference_mode(), repeatable_convolutions():
        needed, places = np.unique(seen[:, batch], return_inverse=True)
        natives = torch.from_numpy(np.asarray(hu[needed], dtype=np.float32)).to(runtime.device)
        order = torch.from_numpy(places.reshape(len(seen), len(batch)).T.copy()).to(runtime.device)
        source, native = frame.to_model(natives)[order, 0], natives[order[:, 0]]
        difference = through_view(predict, source, batch) if again else predict(source) - source[:, :1]
        if not all_finite(difference):
            raise TranslationError(f"the prediction of slices {batch[0]} to {batch[-1]} is not finite")
        return frame.to_native(difference * gain, native).cpu().numpy()
