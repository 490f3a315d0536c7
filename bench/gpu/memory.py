"""Memory by batch, and what happens where it ends: the batch is halved and the result is that of the smaller batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.gpu.report import Section
from bench.gpu.size import Size
from bench.gpu.tools import SEED, bundle_of, peak_gb, phantom_slices, tidy, translator
from models.translator import Precision
from models.zoo import slicewise
from models.zoo.slicewise import Loaded

SHARE = 0.6
"""Of what the largest batch takes: it does not fit, and half of it does."""


def memory(section: Section, *, device: str, size: Size, folder: Path) -> None:
    """Peaks first; the limit is made of them."""
    path, largest = bundle_of("syndiff", size.published, folder), max(size.batches)
    hu = phantom_slices(largest + 1, size.rows)
    for precision in size.precisions:
        for batch in size.batches:
            if section.has_time_for(f"peak at batch {batch}, {precision}", seconds=1):
                _translate(path, device, precision, batch, hu[:batch])
                section.row(figure=f"syndiff {size.published}, {precision}", batch=batch, **peak_gb(device))
        if section.has_time_for(f"out of memory, {precision}", seconds=3):
            _out_of_memory(section, path, hu, device=device, precision=precision, largest=largest)


def _translate(
    path: Path, device: str, precision: Precision, batch: int, hu: NDArray[np.float32]
) -> tuple[NDArray[np.float32], int, str]:
    """Result, the batch that it was made with in the end, and the arithmetic; memory is tidied before, not after."""
    tidy(device)
    loaded = translator(path, device, precision, batch)
    result = loaded.translate(hu, SEED)
    assert isinstance(loaded, Loaded)
    return result, loaded.runtime.batch_size, loaded.arithmetic


def _out_of_memory(
    section: Section, path: Path, hu: NDArray[np.float32], *, device: str, precision: Precision, largest: int
) -> None:
    what = f"out of memory at batch {largest}, {precision}"
    _translate(path, device, precision, largest, hu[:largest])
    taken = peak_gb(device)["peak_reserved_gb"]
    with little_memory(device, largest, taken):
        found, batch, said = _translate(path, device, precision, largest, hu)
    section.check(f"{what}: the batch it was halved to", batch, largest / 2, "more than this does not fit")
    if device == "cuda":
        named = f"batch {batch}," in said
        section.check(f"{what}: arithmetic names another batch", not named, 0, "it enters the UIDs")
    expected, kept, _ = _translate(path, device, precision, batch, hu)
    section.check(f"{what}: batch afterwards", abs(kept - batch), 0, "the limit is gone")
    error = np.abs(found - expected)
    section.check(
        f"{what}: halved against that batch from the start, max HU",
        float(error.max()),
        0,
        "one batch makes the whole series; another result would mean that cuDNN chose by the memory left",
    )


@contextmanager
def little_memory(device: str, batch: int, taken_gb: float | None) -> Iterator[None]:
    """Less memory than this batch takes: a limit of torch's allocator or, on a CPU, an imitation of the refusal."""
    tidy(device)
    if device == "cuda" and taken_gb is not None:
        whole_gb = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 1e9
        torch.cuda.set_per_process_memory_fraction(min(1.0, SHARE * taken_gb / whole_gb))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            tidy(device)
        return
    whole = slicewise._translate_batch

    def refuse(hu: NDArray[np.float32], slices: list[int], *rest: Any) -> NDArray[np.float32]:
        if len(slices) > SHARE * batch:
            raise torch.OutOfMemoryError("imitated")
        return whole(hu, slices, *rest)

    slicewise._translate_batch = refuse
    try:
        yield
    finally:
        slicewise._translate_batch = whole
