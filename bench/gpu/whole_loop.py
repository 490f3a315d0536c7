"""The loop of `models.training`, stopped and resumed, where accelerate and TensorBoard, its needs, are installed."""

import importlib.util
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.gpu.report import Section
from models.cohort import Cohort

LOOP_S = 25.0
"""Loading accelerate and TensorBoard takes most of it."""


def whole_loop(section: Section, cohort: Cohort, device: str, folder: Path) -> None:
    """Train Pix2Pix at its smallest, stop it after three steps, and let it go on."""
    what = "the loop of models.training"
    if missing := [name for name in ("accelerate", "tensorboard") if importlib.util.find_spec(name) is None]:
        section.note(f"{what}: not run, {missing[0]} is not installed")
        return
    if not section.has_time_for(what, seconds=LOOP_S if device == "cuda" else 4):
        return
    from models.training import TrainOptions, train  # noqa: PLC0415

    place: Any = device
    options = TrainOptions("pix2pix", "tiny", regime={"epochs": 2, "batch_size": 2}, device=place, checkpoint_every=1)
    options = replace(options, without_validation=not cohort.split("validation"))
    out = folder / "loop"
    with suppress(_Stopped):
        train(cohort, out, options, observer=_StopsAfter(3))
    result = train(cohort, out, options, resume=True)
    written = [json.loads(line)["step"] for line in (out / "losses.jsonl").read_text().splitlines()]
    section.check(f"{what}, resumed: steps missing", len(written) - result.steps, 0, "each stands in the journal once")
    section.check(f"{what}: steps", result.steps, 6, "it went on after the third", least=True)


class _Stopped(Exception):
    """Ends a run where a kill would."""


class _StopsAfter:
    """An observer of `models.training` that ends the run after so many steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def began(self, description: str, step: int, total_steps: int) -> None:
        """See `models.training.Observer`."""

    def stepped(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        """See `models.training.Observer`."""
        if step >= self._steps:
            raise _Stopped

    def validated(self, epoch: int, figures: Mapping[str, float], *, best: bool) -> None:
        """See `models.training.Observer`."""
