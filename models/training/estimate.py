"""What a run will take, from a few steps of it that are timed and thrown away."""

import math
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from models.cohort import Cohort
from models.methods.method import Batch
from models.training.accelerated import OfOneProcess, is_first
from models.training.loop import Run, Silent
from models.training.options import TrainOptions

STEPS = 4
"""Steps at most; the first, in which memory is found and kernels are chosen, does not count where there are others."""
ENOUGH_S = 20.0
_JOURNAL_BYTES_PER_STEP = 700  # a line of losses.jsonl and the events of TensorBoard, for some six losses


@dataclass(frozen=True)
class Estimate:
    """What a run will take if nothing ends it early.

    `memory_bytes` is the most that this process (on a GPU: the networks and their steps on it) has used so far.
    """

    device: str
    steps: int
    epochs: int
    seconds_per_step: float
    seconds_per_validation: float
    seconds: float
    disk_bytes: int
    memory_bytes: int
    epochs_in_budget: float | None


def estimate(cohort: Cohort, options: TrainOptions, near: Path) -> Estimate:
    """Take a few steps of a run in a folder that is removed again, made in `near`, where the run's own folder will lie.

    Of several processes, all take them together, and only the first needs `near`.
    Raises what `train` raises; a step that the memory is too small for fails here and not after hours.
    """
    with tempfile.TemporaryDirectory(dir=near if is_first() else None, prefix=".estimate-") as folder:
        run = Run(cohort, Path(folder) / "run", replace(options, minutes=None), resume=False, observer=Silent())
        per_step = _time_steps(run)
        started = time.perf_counter()
        run.finish_epoch()
        per_validation = time.perf_counter() - started
        run.release()
        disk = _size(Path(folder)) * 2  # while one is replaced, checkpoint and bundle are there twice
        regime, plan = run.method.config.regime, run.plan
        used = torch.cuda.max_memory_allocated() if run.process.device_type == "cuda" else _peak_bytes()
    total = plan.total_steps * per_step + regime.epochs * per_validation
    budget_s = None if options.minutes is None else options.minutes * 60
    return Estimate(
        device=run.process.description,
        steps=plan.total_steps,
        epochs=regime.epochs,
        seconds_per_step=per_step,
        seconds_per_validation=per_validation,
        seconds=total if budget_s is None else min(total, budget_s),
        disk_bytes=disk + plan.total_steps * _JOURNAL_BYTES_PER_STEP,
        memory_bytes=used,
        epochs_in_budget=None if budget_s is None else budget_s / total * regime.epochs,
    )


def _time_steps(run: Run) -> float:
    """Seconds of a step, reading included."""
    seconds: list[float] = []
    started = time.perf_counter()
    for batch in _some(run):
        _try_step(run, batch)
        seconds.append(time.perf_counter() - started)
        if run.process.agree(sum(seconds)) > ENOUGH_S:
            break
        started = time.perf_counter()
    counted = seconds[1:] or seconds
    return sum(counted) / len(counted)


def _try_step(run: Run, batch: Batch) -> None:
    """One step, to its end on the device; what it cannot do is told in a sentence, not by a traceback of torch."""
    try:
        losses = run.take_step(batch.to(run.process.device), 0.0)
    except torch.OutOfMemoryError as error:
        words = "a larger regime.accumulate, a smaller batch_size or a smaller network needs less"
        raise OfOneProcess(f"one step needs more memory than the device has; {words}.") from error
    except RuntimeError as error:
        raise OfOneProcess(f"these settings make no training step: {str(error).splitlines()[0]}") from error
    assert all(math.isfinite(value) for value in losses.values())  # waits for the device, too


def _some(run: Run) -> Iterator[Batch]:
    for _, batch in zip(range(min(STEPS, run.plan.steps_in(0))), run.batches(0, 0), strict=False):
        yield batch


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
