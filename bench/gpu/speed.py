"""Seconds of a denoising step and of whole series, beside the rate of a large matrix product on the same card."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.aims import aim_of
from bench.gpu.report import Section
from bench.gpu.size import Size
from bench.gpu.tools import (
    SEED,
    SLICES_MM,
    Timing,
    arithmetic,
    bundle_of,
    live_network,
    peak_gb,
    phantom_slices,
    shipped,
    step_inputs,
    tidy,
    time_calls,
    translator,
)
from bench.naive_ncsnpp import NaiveNcsnpp
from models.bundle import read_card
from models.networks.config import NcsnppConfig
from models.registry import METHODS
from models.translator import Precision
from models.translators.engine import Engine

STEP = 2
SERIES: tuple[tuple[str, Precision], ...] = (
    ("syndiff", "bf16"),
    ("syndiff_student", "bf16"),
    ("pix2pix", "bf16"),
    ("reggan", "bf16"),
    ("syndiff", "fp32"),
)


@dataclass(frozen=True)
class Variant:
    """How a step is computed: `form` "naive" (as published), "plain" (our network) or "folded" (the engine).

    `number`: "fp32", "tf32" (fp32 with TF32 convolutions and products) or "bf16".
    """

    form: str
    number: str
    channels_last: bool = True
    benchmark: bool = False

    def __str__(self) -> str:
        layout, timed = "" if self.channels_last else ", NCHW", ", autotuned" if self.benchmark else ""
        return f"{self.form} {self.number}{layout}{timed}"

    def settings(self) -> dict[str, bool]:
        """Keywords for `arithmetic`."""
        return {"tf32": self.number == "tf32", "benchmark": self.benchmark, "deterministic": not self.benchmark}


FOLDED = tuple(Variant("folded", number, benchmark=timed) for number in ("bf16", "fp32") for timed in (False, True))
PLAIN = tuple(Variant("plain", number, channels_last=last) for number in ("bf16", "fp32") for last in (True, False))
ALONE = (Variant("naive", "fp32", channels_last=False), Variant("naive", "tf32", channels_last=False))
EXTRA = (Variant("folded", "tf32"), Variant("plain", "tf32", channels_last=False))


def speed(section: Section, *, device: str, size: Size, folder: Path) -> None:
    """What the product does comes first: whole series, then single steps."""
    _series(section, device, size, folder)
    rates = matrix_rates(section, device, size)
    for name, config in step_networks(size).items():
        _steps(section, name, config, device=device, size=size, rates=rates)


def step_networks(size: Size) -> dict[str, NcsnppConfig]:
    """The networks whose single steps are timed: that of the publication and that of the shipped bundle."""
    return {
        f"syndiff {size.published}": METHODS["syndiff"].presets[size.published].network,
        f"bundle {size.shipped[0]}": NcsnppConfig.from_card(read_card(shipped(size.shipped[0])).network),
    }


def matrix_rates(section: Section, device: str, size: Size) -> dict[str, float]:
    """FLOP per s of a large square matrix product by kind of number: what convolutions could reach at best."""
    rates: dict[str, float] = {}
    side = size.matrix_side
    for number in ("bf16", "tf32", "fp32"):
        kind = torch.bfloat16 if number == "bf16" else torch.float32
        square = torch.randn(side, side, device=device, dtype=kind)
        with arithmetic(tf32=number == "tf32"), torch.inference_mode():
            timing = time_calls(partial(torch.mm, square, square), device, seconds=size.seconds_each / 2)
        rates[number] = 2 * side**3 / timing.least_s
        section.row(figure=f"product of {side} x {side} matrices, {number}", tflop_per_s=rates[number] / 1e12)
    return rates


def count_flop(step: Callable[[], Tensor]) -> float:
    """Operations of one call as torch counts them: two a multiplication, convolutions by their definition."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        step()
    return float(counted.get_total_flops())


@contextmanager
def prepared(variant: Variant, config: NcsnppConfig, batch: int, device: str) -> Iterator[Callable[[], Tensor]]:
    """One denoising step of `batch` images in this form, ready to be called; settings and inference mode inside."""
    network = live_network(config, device)
    if not variant.channels_last:
        network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images, t, z = step_inputs(config, batch, device)
    if variant.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with arithmetic(**variant.settings()), torch.inference_mode():
        if variant.form == "folded":
            yield partial(Engine(network, "bf16" if variant.number == "bf16" else "fp32").fold(STEP, z), images)
        elif variant.form == "naive":
            yield partial(NaiveNcsnpp(network), images, t, z)
        else:
            with torch.autocast(device, dtype=torch.bfloat16, enabled=variant.number == "bf16"):
                yield partial(network, images, t, z)


def step_row(
    section: Section, name: str, variant: Variant, batch: int, timing: Timing, *, device: str, graph: bool
) -> None:
    """One row of a step; its figures are those of one slice of the batch."""
    section.row(
        figure=f"step of {name}",
        form=variant.form,
        number=variant.number,
        batch=batch,
        channels_last=variant.channels_last,
        cudnn_benchmark=variant.benchmark,
        cuda_graph=graph,
        ms_per_step_per_slice=1e3 * timing.least_s / batch,
        median_ms_per_step_per_slice=1e3 * timing.median_s / batch,
        **peak_gb(device),
    )


def _time_step(
    section: Section, name: str, config: NcsnppConfig, variant: Variant, batch: int, *, device: str, seconds: float
) -> float:
    """Time one variant at one batch without a graph; returns the seconds of a call."""
    tidy(device)
    with prepared(variant, config, batch, device) as step:
        timing = time_calls(step, device, seconds=seconds)
    step_row(section, name, variant, batch, timing, device=device, graph=False)
    return timing.least_s


def _steps(
    section: Section, name: str, config: NcsnppConfig, *, device: str, size: Size, rates: Mapping[str, float]
) -> None:
    with prepared(Variant("folded", "fp32"), config, 1, device) as step:
        flop = count_flop(step)
    del step  # it holds a network
    section.row(figure=f"step of {name}: operations", gflop_per_slice=flop / 1e9)
    taken: dict[tuple[Variant, int], float] = {}
    for variant, batch in _plans(config, device, size):
        # An autotuned shape tries several algorithms for some sixty convolutions first.
        seconds = (8 if variant.benchmark else 2) * size.seconds_each
        if section.has_time_for(f"step of {name}, {variant}, batch {batch}", seconds=seconds):
            taken[variant, batch] = _time_step(
                section, name, config, variant, batch, device=device, seconds=size.seconds_each
            )
    for number, rate in rates.items():
        if best := _fastest(taken, number):
            section.row(
                figure=f"step of {name}, folded {number}, best batch",
                tflop_per_s=flop / best / 1e12,
                share_of_matrix_rate=flop / best / rate,
            )
    naive, folded = taken.get((ALONE[0], 1)), [s for s in (_fastest(taken, n) for n in ("fp32", "bf16")) if s]
    if naive and folded:
        _with_aim(section, f"{device}, naive / folded, faster precision", naive / min(folded))


def _plans(config: NcsnppConfig, device: str, size: Size) -> list[tuple[Variant, int]]:
    """Variants and batches, the more important ones first. A CPU has no autotuning and no TF32."""
    plans = [(variant, batch) for variant in FOLDED for batch in size.batches]
    plans += [(variant, batch) for variant in PLAIN if variant.number == "bf16" for batch in size.batches]
    plans += [(variant, size.batch) for variant in (*PLAIN[2:], *EXTRA)]
    if config.patch_size == 1:
        plans = [plans[0], (ALONE[0], 1), *plans[1:], (ALONE[1], 1)]
    return [(v, batch) for v, batch in plans if device == "cuda" or not (v.benchmark or v.number == "tf32")]


def _fastest(taken: Mapping[tuple[Variant, int], float], number: str) -> float | None:
    """Least seconds per slice of the product's form, which has no autotuning."""
    found = [s / b for (v, b), s in taken.items() if (v.form, v.number, v.benchmark) == ("folded", number, False)]
    return min(found, default=None)


def _series(section: Section, device: str, size: Size, folder: Path) -> None:
    """From native HU to native HU; the faster of two calls, after one of one batch that warms up."""
    hu = phantom_slices(size.slices, size.rows)
    own: list[tuple[str, Precision]] = [(name, "bf16") for name in size.shipped]
    jobs = [(name, precision, size.batch) for name, precision in (*SERIES, *own)]
    jobs += [("syndiff", "bf16", batch) for batch in size.batches if batch != size.batch]
    for name, precision, batch in jobs:
        if not section.has_time_for(f"series by {name}, {precision}, batch {batch}", seconds=4 * size.seconds_each):
            continue
        path = shipped(name) if name in size.shipped else bundle_of(name, size.published, folder)
        seconds = _one_series(section, name, path, hu, device=device, precision=precision, batch=batch)
        if (name, precision, batch) == ("syndiff", "bf16", size.batch):
            _with_aim(section, f"{device}, syndiff: s for {size.slices} slices", seconds)


def _one_series(
    section: Section, name: str, path: Path, hu: NDArray[np.float32], *, device: str, precision: Precision, batch: int
) -> float:
    tidy(device)
    loaded = translator(path, device, precision, batch)
    loaded.translate(hu[:batch], SEED, spacing_mm=SLICES_MM)
    timing = time_calls(
        partial(loaded.translate, hu, SEED, spacing_mm=SLICES_MM), device, seconds=0, warm_up=0, least=2
    )
    section.row(
        figure=f"series of {len(hu)} slices by {name}",
        number=precision,
        batch=batch,
        s_per_series=timing.least_s,
        s_per_slice=timing.least_s / len(hu),
        **peak_gb(device),
    )
    return timing.least_s


def _with_aim(section: Section, figure: str, value: float) -> None:
    """A figure of bench/aims.py; an aim that is not met fails nothing, since it says nothing of correctness."""
    aim = aim_of(figure)
    section.row(figure=figure, value=value, aim=str(aim) if aim else None, met=aim.met(value) if aim else None)
