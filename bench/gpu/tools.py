"""What several sections share: random bundles that compute, settings of the card, clocks."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.generator import random_bundle
from bench.naive_ncsnpp import enliven
from models import find_bundle, load_bundle
from models.networks.config import NcsnppConfig
from models.networks.ncsnpp import Ncsnpp
from models.phantom import make_patient
from models.translator import Device, LoadedTranslator, Precision, Translator
from models.translators.slicewise import Loaded

FIELD_OF_VIEW_MM = 500.0
SEED = 7
SLICES_MM = 5.0


@contextmanager
def arithmetic(*, tf32: bool = False, benchmark: bool = False, deterministic: bool = False) -> Iterator[None]:
    """Settings of convolutions and matrix products for what does not go through a translator, which has its own."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, products.allow_tf32
    try:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, products.allow_tf32 = (
            tf32,
            benchmark,
            deterministic,
            tf32,
        )
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, products.allow_tf32 = before


def synchronise(device: str) -> None:
    """Wait until the card has done all that it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


def tidy(device: str) -> None:
    """Give back all of the card's memory that nobody holds, and forget the peak so far."""
    if device == "cuda":
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> dict[str, float | None]:
    """Most memory since `tidy`, in 10^9 bytes: held by tensors, and taken from the card. None on a CPU."""
    if device != "cuda":
        return {"peak_allocated_gb": None, "peak_reserved_gb": None}
    return {
        "peak_allocated_gb": torch.cuda.max_memory_allocated() / 1e9,
        "peak_reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
    }


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the least and the median of `calls`."""

    least_s: float
    median_s: float
    calls: int


def time_calls(
    call: Callable[[], object], device: str, *, seconds: float, warm_up: int = 3, least: int = 3, most: int = 50
) -> Timing:
    """Time a call, waiting for the card before and after each, for about `seconds` after the warm-up.

    On a CPU, where the seconds of the dry run mean nothing, once after one call.
    """
    if device != "cuda":
        warm_up, least, most = min(warm_up, 1), 1, 1
    for _ in range(warm_up):
        call()
    synchronise(device)
    taken: list[float] = []
    while len(taken) < least or (sum(taken) < seconds and len(taken) < most):
        started = time.perf_counter()
        call()
        synchronise(device)
        taken.append(time.perf_counter() - started)
    return Timing(min(taken), float(np.median(taken)), len(taken))


def live_network(config: NcsnppConfig, device: str) -> Ncsnpp:
    """A frozen network of live random weights on the device, laid out as the translator does it."""
    with torch.random.fork_rng(devices=[]):
        network = Ncsnpp(config).requires_grad_(False).eval()
    enliven(network, 1)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def step_inputs(config: NcsnppConfig, batch: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Images [batch, C, M, M], time [1] and latent [1, nz] of one denoising step, the same numbers on every device."""
    random = torch.Generator().manual_seed(1)
    images = torch.randn(batch, config.num_channels, config.image_size, config.image_size, generator=random)
    z = torch.randn(1, config.nz, generator=random)
    return images.to(device), torch.tensor([2], device=device), z.to(device)


def bundle_of(method: str, preset: str, folder: Path) -> Path:
    """The bundle of a method at a preset with live random weights, written once in `folder`."""
    path = folder / f"{method}-{preset}"
    if not path.exists():
        with torch.random.fork_rng(devices=[]):
            random_bundle(path, method, preset)
    return path


def shipped(name: str) -> Path:
    """The folder of a bundle that comes with the package."""
    return find_bundle(name)


def translator(path: Path, device: str, precision: Precision, batch: int) -> LoadedTranslator:
    """A loaded bundle that takes `batch` slices at once, on a CPU too."""
    place: Device = "cuda" if device == "cuda" else "cpu"
    loaded = load_bundle(path, device=place, precision=precision, batch_size=batch)
    take_at_once(loaded, batch)
    return loaded


def take_at_once(loaded: Translator, batch: int) -> Translator:
    """The same translator with another batch; loading it anew would take longer than what is measured."""
    assert isinstance(loaded, Loaded)
    loaded.runtime.batch_size = batch
    return loaded


def phantom_slices(count: int, rows: int) -> NDArray[np.float32]:
    """Slices [count, rows, rows] in HU; four different ones repeat."""
    few = _few_slices(rows)
    return few[np.arange(count) % len(few)]


@cache
def _few_slices(rows: int) -> NDArray[np.float32]:
    spacing_mm = (15.0, FIELD_OF_VIEW_MM / rows, FIELD_OF_VIEW_MM / rows)
    return make_patient(4, slices=4, rows=rows, spacing_mm=spacing_mm).ncct_hu.astype(np.float32)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected, both taken on the CPU in float64."""
    a, b = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((a - b).norm() / b.norm())


def largest(values: Sequence[float]) -> float:
    """The largest, and not a number where one is not: max() would lose it."""
    return float(np.max(np.asarray(values, dtype=np.float64)))
