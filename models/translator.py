"""What every translator promises, whatever its method, and how a bundle becomes one. torch is loaded by the latter."""

import gc
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Protocol, cast

from models.bundle import BundleCard, BundleError, read_card
from models.errors import ModelsError
from models.registry import METHODS

if TYPE_CHECKING:  # every command loads this file for its errors, and few need an array
    import numpy as np
    from numpy.typing import NDArray

Device = Literal["auto", "cuda", "cpu"]
Precision = Literal["auto", "bf16", "fp32"]
Progress = Callable[[int, int], None]


class DeviceUnavailable(ModelsError):
    """The asked device does not exist on this machine; nothing slower is taken in its place."""


class DeviceFault(ModelsError):
    """The device failed; what it computes in this process is not to be trusted any more, and a new process may help."""


class TranslationError(ModelsError):
    """A model returned something that is no image, such as a value that is not finite."""


class Translator(Protocol):
    """A loaded bundle that turns non-contrast slices into predicted contrast-enhanced ones.

    `device` is "cpu" or "cuda", `precision` "fp32" or "bf16": what is really used, never "auto". `description` is one
    line for logs and reports. `arithmetic` names all that may change the last bit of a result (measured: 1 against 2
    threads differ by up to 7e-4 HU, enough to flip a rounded pixel); results of equal `arithmetic` are equal.
    `level_hu` is the enhancement of the blood pool that results are drawn with; None where the bundle has no level.
    """

    @property
    def card(self) -> BundleCard: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def arithmetic(self) -> str: ...

    @property
    def level_hu(self) -> float | None: ...

    def translate(
        self, hu: "NDArray[np.float32]", seed: int, *, spacing_mm: float | None = None, progress: Progress | None = None
    ) -> "NDArray[np.float32]":
        """Predict contrast-enhanced HU for slices of the native matrix, before compositing.

        hu: float32 HU [N, H, W], any H and W. seed: non-negative; all noise comes from it and is shared by the slices,
        so that a slice's result depends neither on the batch (on a CPU to the last bit) nor on other slices than those
        of the card's `context_mm`. spacing_mm: distance of slice centres, needed where the card has a `context_mm`.
        progress(done, total) counts slices. Returns float32 HU [N, H, W] inside `card.hu_window`: the source clipped to
        the window plus the upsampled predicted difference, which is zero for a slice that has no pixel in it. Raises
        TranslationError where the prediction is not finite, ValueError for a wrong shape, DeviceFault where the device
        fails.
        """
        ...

    def second_look(
        self, hu: "NDArray[np.float32]", seed: int, *, spacing_mm: float | None = None, progress: Progress | None = None
    ) -> "NDArray[np.float32]":
        """Predict again, each slice moved, turned and scaled a little, and the prediction's change moved back.

        Arguments, result and errors are those of `translate`; the time is too. Slice z is seen, with the neighbours
        that the network is shown, through view z % 7 of `models.views.VIEWS`, so that a result depends on nothing else
        than that of `translate` does, and on the number of the slice. Where a model is sure of what it sees the two
        agree; `models.doubt` makes the doubt of a result of their difference.
        """
        ...


class LoadedTranslator(Translator, Protocol):
    """What `load_bundle` gives: its network may work for several series at a time, each with a sibling of its own."""

    def sibling(self) -> Translator:
        """A translator with the same network for one more series at the same time, in another thread.

        The series take turns, a batch at a time, and no batch holds slices of two: its noise is that of its series. So
        a result has the bits that it has without company. Memory that is too small for a batch shrinks that of the
        sibling and of those made later, never that of a series that has begun.
        """
        ...


def load_bundle(
    path: str | Path,
    *,
    device: Device = "cpu",
    precision: Precision = "fp32",
    batch_size: int | None = None,
    gpu: int = 0,
    blood_level_hu: float | None = None,
) -> LoadedTranslator:
    """Load the bundle folder `path` for a device.

    "cuda" without a usable GPU raises DeviceUnavailable; "auto" takes the GPU where there is one, and
    `Translator.device` says what was taken. precision "auto" is bf16 on a GPU and on a CPU with instructions for it
    (AVX512-BF16, AMX), else fp32. batch_size is the number of slices a GPU takes at once (default 8), halved where the
    memory is too small; a CPU always takes one: faster there, and bit-reproducible. gpu: its number, from 0, where
    there are several. blood_level_hu: the enhancement of the blood pool to draw, for a bundle that was taught a level;
    None for that level. Raises BundleError for a damaged bundle, an unknown method, or a level that the bundle cannot
    draw; DeviceFault where the device fails.
    """
    folder = Path(path)
    method = read_card(folder).method
    if method not in METHODS:
        raise BundleError(f"{folder}: method {method!r} is unknown; known are {', '.join(sorted(METHODS))}.")
    module, devices = _loaded(METHODS[method].translation, "models.translators.devices")
    with devices.device_faults():
        if device != "cpu":
            devices.use_gpu(gpu)
        loaded = module.load(
            folder, device=device, precision=precision, batch_size=batch_size, blood_level_hu=blood_level_hu
        )
        return cast("LoadedTranslator", loaded)


def _loaded(*names: str) -> list[ModuleType]:
    """Modules that load torch: 150,000 objects, among which Python looks for no garbage meanwhile (0.4 s of 1.7 s)."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        if was_enabled:
            gc.enable()


def count_alike_gpus() -> int:
    """How many GPUs of this machine are of the kind of the first one, counted from it; 0 without a GPU."""
    return cast("int", importlib.import_module("models.translators.devices").count_alike())


def device_memory() -> tuple[int, int] | None:
    """Bytes of the GPU of this process that are in use, by all programs, and its total; None where it uses none."""
    devices = sys.modules.get("models.translators.devices")  # nothing was loaded yet: nothing is in use
    return cast("tuple[int, int] | None", devices.memory()) if devices is not None else None
