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
from bench.gpu.tools import SEED, SLICES_MM, bundle_of, peak_gb, phantom_slices, take_at_once, tidy, translator
from models.translator import Translator
from models.translators import slicewise
from models.translators.slicewise import Loaded

SHARE = 0.45
"""Of the memory that the largest batch takes: its activations alone are more, however little workspace cuDNN takes."""


def memory(section: Section, *, device: str, size: Size, folder: Path) -> None:
    """Peaks first; the limit is made of them."""
    path = bundle_of("syndiff", size.published, folder)
    hu = phantom_slices(max(size.batches) + 1, size.rows)
    for precision in size.precisions:
        if section.has_time_for(f"memory, {precision}", seconds=6 if device == "cuda" else 1):
            loaded = translator(path, device, precision, 1)
            for batch in size.batches:
                tidy(device)
                take_at_once(loaded, batch).translate(hu[:batch], SEED, spacing_mm=SLICES_MM)
                section.row(figure=f"syndiff {size.published}, {precision}", batch=batch, **peak_gb(device))
            _out_of_memory(section, loaded, hu, max(size.batches))


def _out_of_memory(section: Section, loaded: Translator, hu: NDArray[np.float32], largest: int) -> None:
    """`loaded` has just translated one largest batch, whose peak is the last one known."""
    device, what = loaded.device, f"out of memory at batch {largest}, {loaded.precision}"
    assert isinstance(loaded, Loaded)
    with little_memory(device, largest, peak_gb(device)["peak_reserved_gb"]):
        found, batch, said = (
            loaded.translate(hu, SEED, spacing_mm=SLICES_MM),
            loaded.runtime.batch_size,
            loaded.arithmetic,
        )
    section.check(f"{what}: the batch it was halved to", batch, largest / 2, "more than this does not fit")
    if device == "cuda":
        named = f"batch {batch} in little memory," in said
        section.check(f"{what}: arithmetic names another batch", not named, 0, "it enters the UIDs")
    expected = loaded.translate(hu, SEED, spacing_mm=SLICES_MM)
    section.check(f"{what}: batch afterwards", abs(loaded.runtime.batch_size - batch), 0, "it only ever shrinks")
    section.check(
        f"{what}: halved against that batch with memory to spare, max HU",
        float(np.abs(found - expected).max()),
        0.05,
        "one batch makes the whole series; cuDNN chooses by the memory left, which cost 0.004 HU in fp32 on an H200",
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

    def refuse(hu: NDArray[np.float32], slices: list[int], *rest: Any, **named: Any) -> NDArray[np.float32]:
        if len(slices) > batch / 2:
            raise torch.OutOfMemoryError("imitated")
        return whole(hu, slices, *rest, **named)

    slicewise._translate_batch = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        slicewise._translate_batch = whole
