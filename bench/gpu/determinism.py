"""Whether two runs give the same bits, in one process and in two, and how far results depend on the batch.

`Translator.arithmetic`, which enters the UIDs of derived series, promises equal bits for equal arithmetic.
"""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.gpu.report import Section
from bench.gpu.size import Size
from bench.gpu.speed import STEP, step_networks
from bench.gpu.tools import (
    SEED,
    SLICES_MM,
    arithmetic,
    bundle_of,
    live_network,
    phantom_slices,
    shipped,
    step_inputs,
    take_at_once,
    translator,
)
from models.translator import Precision, Translator
from models.translators.engine import Engine

METHODS = ("syndiff", "pix2pix", "reggan", "cyclegan", "syndiff_student")
EXACT = "equal arithmetic promises equal bits"
BATCH_LIMIT_HU = {"fp32": 1.0, "bf16": 60.0}
"""Of random networks at published sizes, which change some 100 HU; the shipped bundle has the gate of bf16, 15 HU."""


def determinism(section: Section, *, device: str, size: Size, folder: Path) -> None:
    """Processes first: a job that is run again after a crash runs in another one."""
    hu = phantom_slices(max(size.batches) + 1, size.rows)
    own = f"bundle {size.shipped[0]}"
    bundles = {own: shipped(size.shipped[0])}
    bundles |= {f"{method} {size.published}": bundle_of(method, size.published, folder) for method in METHODS}
    if section.has_time_for("company in a batch", seconds=3):
        _company(section, device, size)
    for precision in size.precisions:
        if section.has_time_for(f"{own}, {precision}: several series at a time", seconds=2):
            together(section, device, precision, size)
    if section.has_time_for("another process", seconds=20 if device == "cuda" else 3):
        _other_process(section, device, size)
    for name, path in bundles.items():
        for precision in size.precisions:
            if section.has_time_for(f"{name}, {precision}: twice", seconds=1):
                _repeats(section, name, path, hu, device=device, precision=precision, batch=size.batch)
    for name in (own, f"syndiff {size.published}"):
        for precision in size.precisions:
            if section.has_time_for(f"{name}, {precision}: batches", seconds=2):
                _batches(section, name, bundles[name], hu, device=device, precision=precision, size=size)


def _company(section: Section, device: str, size: Size) -> None:
    """Whether a slice's bits depend on its place in a full batch, and on the slices beside it.

    Where they do not, an actor may fill a batch with slices of several series and give each the bits it has alone.
    """
    for name, config in step_networks(size).items():
        images, _t, z = step_inputs(config, size.batch, device)
        for precision in size.precisions:
            with arithmetic(), torch.inference_mode():
                step = Engine(live_network(config, device), precision).fold(STEP, z[:1].expand_as(z).contiguous())
                alone = step(images)
                moved = step(images.roll(1, 0)).roll(-1, 0)
                others = step(torch.cat([images[:1], -images[1:].flip(0)]))
            section.row(
                figure=f"step of {name}, {precision}, full batch: bits that depend on place and on company",
                batch=size.batch,
                differing_by_place=int((alone != moved).sum()),
                differing_by_company=int((alone[:1] != others[:1]).sum()),
            )


def digest(name: str, device: str, precision: Precision, batch: int, rows: int) -> str:
    """SHA-256 of a shipped bundle's result; the whole computation of one process."""
    result = translator(shipped(name), device, precision, batch).translate(
        phantom_slices(batch, rows), SEED, spacing_mm=SLICES_MM
    )
    return hashlib.sha256(result.tobytes()).hexdigest()


def together(section: Section, device: str, precision: Precision, size: Size) -> None:
    """Whether series that one process has in hand at a time have the bits of each alone, as in an actor of Ray."""
    loaded = translator(shipped(size.shipped[0]), device, precision, size.batch)
    hu = phantom_slices(size.batch + 3, size.rows)
    series = [(hu[number:], SEED + number) for number in range(3)]

    def run(of: Translator, one: tuple[NDArray[np.float32], int]) -> NDArray[np.float32]:
        return of.translate(one[0], one[1], spacing_mm=SLICES_MM)

    alone = [run(loaded, one) for one in series]
    with ThreadPoolExecutor(len(series)) as threads:
        crowd = list(threads.map(run, [loaded.sibling() for _ in series], series))
    differing = sum(int((one != other).sum()) for one, other in zip(alone, crowd, strict=True))
    section.check(f"bundle {size.shipped[0]}, {precision}: pixels that depend on other series", differing, 0, EXACT)


def _repeats(
    section: Section,
    name: str,
    path: Path,
    hu: NDArray[np.float32],
    *,
    device: str,
    precision: Precision,
    batch: int,
) -> None:
    loaded = translator(path, device, precision, batch)
    first, second = loaded.translate(hu, SEED, spacing_mm=SLICES_MM), loaded.translate(hu, SEED, spacing_mm=SLICES_MM)
    third = translator(path, device, precision, batch).translate(hu, SEED, spacing_mm=SLICES_MM)
    worst = max(float(np.abs(first - again).max()) for again in (second, third))
    section.check(f"{name}, {precision}: two runs, and one after loading again, differ by HU", worst, 0, EXACT)


def _other_process(section: Section, device: str, size: Size) -> None:
    name = size.shipped[0]
    for precision in size.precisions:
        here = digest(name, device, precision, size.batch, size.rows)
        words = [name, device, precision, str(size.batch), str(size.rows)]
        command = [sys.executable, "-m", "bench.gpu.determinism", *words]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ))
        there = run.stdout.strip()
        if run.returncode:
            section.note(run.stderr[-2000:])
        section.check(f"bundle {name}, {precision}: differing results of two processes", here != there, 0, EXACT)


def _batches(
    section: Section,
    name: str,
    path: Path,
    hu: NDArray[np.float32],
    *,
    device: str,
    precision: Precision,
    size: Size,
) -> None:
    loaded = translator(path, device, precision, 1)
    batches = sorted({1, 3, *size.batches})
    results = {batch: take_at_once(loaded, batch).translate(hu, SEED, spacing_mm=SLICES_MM) for batch in batches}
    limit = 15.0 if name.startswith("bundle") and precision == "bf16" else BATCH_LIMIT_HU[precision]
    for batch, result in results.items():
        error = np.abs(result - results[1])
        flipped = float((np.rint(result) != np.rint(results[1])).mean())
        section.row(
            figure=f"{name}, {precision}: batch {batch} against 1",
            mean_hu=float(error.mean()),
            max_hu=float(error.max()),
            share_of_other_whole_hu=flipped,
        )
    worst = max(float(np.abs(result - results[1]).max()) for result in results.values())
    section.check(f"{name}, {precision}: batches differ by HU", worst, limit, "another batch may sum in another order")


if __name__ == "__main__":
    name_, device_, precision_, batch_, rows_ = sys.argv[1:]
    sys.stdout.write(digest(name_, device_, "bf16" if precision_ == "bf16" else "fp32", int(batch_), int(rows_)))
