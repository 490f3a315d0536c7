"""What CUDA graphs would save: the engine's steps recorded once and replayed, alone and in whole series.

A variant of the bench, not of the product. A graph replays launches with fixed addresses, so that a recorded step has
one shape and its own input and output.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.gpu.report import Section
from bench.gpu.size import Size
from bench.gpu.speed import Variant, prepared, step_networks, step_row
from bench.gpu.tools import (
    SEED,
    SLICES_MM,
    bundle_of,
    peak_gb,
    phantom_slices,
    shipped,
    step_inputs,
    synchronise,
    tidy,
    time_calls,
    translator,
)
from models.networks.config import NcsnppConfig
from models.translators.engine import Engine, FoldedStep

WARM_UPS = 3
NEEDS_CUDA = "needs cuda"


class RecordedStep:
    """A folded step that is recorded at its first call with each shape and replayed at the others."""

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        self._step = step
        self._recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """As `models.translators.engine.FoldedStep`; the result is a copy, which the next replay does not overwrite."""
        if images.shape not in self._recorded:
            self._recorded[images.shape] = self._record(images)
        graph, given, result = self._recorded[images.shape]
        given.copy_(images)
        graph.replay()
        return result.clone()

    def _record(self, images: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = images.clone()
        # Warmed up beside the main stream, as torch asks for: the first calls choose algorithms and take workspaces.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                self._step(given)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._step(given)
        return graph, given, result


class RecordingEngine:
    """Stands in for a translator's engine; keeps recorded steps, so that only series of one seed may follow."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._steps: dict[int, RecordedStep] = {}

    def fold(self, t: int, z: Tensor) -> FoldedStep:
        """As `models.translators.engine.Engine.fold`."""
        if t not in self._steps:
            self._steps[t] = RecordedStep(self._engine.fold(t, z))
        return self._steps[t]


def graphs(section: Section, *, device: str, size: Size, folder: Path) -> None:
    """Steps by network, autotuning and batch, then series."""
    for name, config in step_networks(size).items():
        for benchmark in (False, True):
            variant = Variant("folded", "bf16", benchmark=benchmark)
            for batch in size.batches:
                what = f"step of {name} with a graph, benchmark {benchmark}, batch {batch}"
                if device != "cuda":
                    section.row(figure=what, state=NEEDS_CUDA)
                elif section.has_time_for(what, seconds=(10 if benchmark else 3) * size.seconds_each):
                    _one_step(section, name, variant, config, batch=batch, seconds=size.seconds_each)
    for name in ("syndiff", size.shipped[0]):
        for batch in size.batches:
            what = f"series of {size.slices} slices by {name} with graphs, batch {batch}"
            if device != "cuda":
                section.row(figure=what, state=NEEDS_CUDA)
            elif section.has_time_for(what, seconds=2):
                path = shipped(name) if name in size.shipped else bundle_of(name, size.published, folder)
                _one_series(section, what, path, batch, size)


def _one_step(
    section: Section, name: str, variant: Variant, config: NcsnppConfig, *, batch: int, seconds: float
) -> None:
    tidy("cuda")
    with prepared(variant, config, batch, "cuda") as step:
        images, _, _ = step_inputs(config, batch, "cuda")
        assert isinstance(step, partial)
        expected = step.func(images)
        recorded = RecordedStep(step.func)
        found = recorded(images)
        timing = time_calls(partial(recorded, images), "cuda", seconds=seconds)
        error = float((found - expected).abs().max())
        section.check(
            f"step of {name}, benchmark {variant.benchmark}, batch {batch}: graph against none, max",
            error,
            0.05,
            "a replay runs the same kernels; autotuning may have chosen others for the recording",
        )
        step_row(section, name, variant, batch, timing, device="cuda", graph=True)


def _one_series(section: Section, what: str, path: Path, batch: int, size: Size) -> None:
    hu = phantom_slices(size.slices, size.rows)
    tidy("cuda")
    plain = translator(path, "cuda", "bf16", batch)
    expected = plain.translate(hu, SEED, spacing_mm=SLICES_MM)
    loaded = translator(path, "cuda", "bf16", batch)
    loaded._engine = RecordingEngine(loaded._engine)  # type: ignore[attr-defined]
    found = loaded.translate(hu, SEED, spacing_mm=SLICES_MM)
    synchronise("cuda")
    timing = time_calls(
        partial(loaded.translate, hu, SEED, spacing_mm=SLICES_MM), "cuda", seconds=0, warm_up=0, least=2
    )
    section.row(
        figure=what,
        number="bf16",
        s_per_series=timing.least_s,
        max_hu_against_no_graph=float(np.abs(found - expected).max()),
        **peak_gb("cuda"),
    )
