"""Real training steps of real methods on a phantom cohort: steps per second, whether the loss falls, and resuming.

Batches, learning rates, checkpoint file and precision are those of `models.training`, whose loop itself needs more.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.gpu.report import Section
from bench.gpu.size import Run, Size
from bench.gpu.tools import bundle_of, largest, peak_gb, synchronise, tidy
from bench.gpu.whole_loop import whole_loop
from models.bundle import HU_WINDOW
from models.cohort import Cohort
from models.frame import Frame
from models.methods.method import Batch, Method, make_method
from models.methods.optimisation import Compute
from models.phantom.cohort import write_phantom_cohort
from models.registry import METHODS
from models.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from models.training.slices import BatchPlan, SliceSet, read_batches

EPOCHS = 1000
REPEATED = 5
COMPARISONS = ("l1", "cycle", "identity", "teacher")
"""The objective's terms that compare images; adversarial ones have no minimum to approach."""
FALLS = "0.5 is chance; ranks do not ask how the losses scatter, and the first tenth falls steeply"


@dataclass
class Course:
    """One run: what every step returned, where it stopped for a checkpoint, and seconds."""

    losses: list[dict[str, float]] = field(default_factory=list)
    saved_at: int = 0
    steps_s: float = 0.0
    reading_s: float = 0.0
    saving_s: float = 0.0

    def compared(self) -> list[float]:
        """The sum of the comparing terms, step by step."""
        return [sum(v for k, v in losses.items() if k.startswith(COMPARISONS)) for losses in self.losses]


def training(section: Section, *, device: str, size: Size, folder: Path) -> None:
    """Runs by importance; a batch that does not fit is halved, as a person would."""
    patients, slices, rows = size.cohort
    begun = time.monotonic()
    cohort = write_phantom_cohort(folder / "cohort", patients, 1, slices=slices, rows=rows, external_share=0.0)
    section.row(
        figure="phantom cohort",
        patients=patients,
        slices=patients * slices,
        rows=rows,
        seconds=time.monotonic() - begun,
    )
    whole_loop(section, cohort, device, folder)
    for run in size.runs:
        if section.has_time_for(f"training {run.method} {run.preset}", seconds=run.seconds / 3):
            _one_run(section, run, cohort, device, folder)


def _one_run(section: Section, run: Run, cohort: Cohort, device: str, folder: Path) -> None:
    batch = run.batch
    while True:
        tidy(device)
        try:
            _train(section, run, batch, cohort, device=device, out=folder / f"run-{run.method}-{batch}")
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        else:
            return
        section.note(f"{run.method} {run.preset}: out of memory at batch {batch}; again with {batch // 2}")
        batch //= 2


@dataclass(frozen=True)
class Attempt:
    """A run at the batch that fits, with its data and its folder."""

    run: Run
    batch: int
    device: str
    slices: SliceSet
    plan: BatchPlan
    out: Path

    @property
    def what(self) -> str:
        """Name in the report."""
        return f"training {self.run.method} {self.run.preset}"

    def fresh(self) -> Method:
        """The method before its first step."""
        return build(self.run, self.batch, self.device, self.out.parent)

    def saved(self) -> Mapping[str, Any]:
        """What the checkpoint's file holds of the method."""
        checkpoint = load_checkpoint(self.out)
        assert checkpoint is not None
        return checkpoint.state


def build(run: Run, batch: int, device: str, folder: Path) -> Method:
    """A fresh method on the device, in the precision that training takes there by itself.

    A method that learns from another one gets a SynDiff of random weights in `folder` as its teacher.
    """
    changes: dict[str, Any] = {"prediction": "image"} if run.image else {}
    if METHODS[run.method].needs_teacher:
        changes["teacher"] = str(bundle_of("syndiff", run.preset, folder))
    method = make_method(run.method, run.preset, regime={"batch_size": batch, "epochs": EPOCHS}, **changes)
    method.parts.compute = Compute(device, precision_on(device))
    method.parts.to(device)
    return method


def precision_on(device: str) -> str:
    """What `precision = "auto"` means for training."""
    return "bf16" if device == "cuda" else "fp32"


def _train(section: Section, run: Run, batch: int, cohort: Cohort, *, device: str, out: Path) -> None:
    out.mkdir(parents=True)
    method = build(run, batch, device, out.parent)
    slices = SliceSet(cohort.split("train"), Frame(HU_WINDOW, method.config.matrix), "cect")
    plan = BatchPlan(len(slices), method.config.regime, method.paired)
    attempt = Attempt(run, batch, device, slices, plan, out)
    course = _walk(attempt, method, min(run.seconds, max(section.until_s - time.monotonic(), 0.0)))
    what, steps = attempt.what, len(course.losses)
    section.row(
        figure=what,
        batch=attempt.batch,
        precision=precision_on(device),
        steps=steps,
        steps_per_s=steps / course.steps_s,
        share_of_time_reading=course.reading_s / course.steps_s,
        save_checkpoint_s=course.saving_s,
        **peak_gb(device),
    )
    broken = sum(not math.isfinite(value) for losses in course.losses for value in losses.values())
    section.check(f"{what}: losses that are not finite", broken, 0, "one would leave no weight usable")
    first, last, share = _fall(course.compared())
    section.row(figure=f"{what}: comparing terms", mean_of_first_tenth=first, mean_of_last_tenth=last)
    if not METHODS[run.method].needs_teacher:  # which begins as its teacher, and is taught by random weights here
        section.check(f"{what}: mean loss of the last tenth / of the first", last / first, 0.95, "it learns")
        text = f"{what}: share of pairs of steps, first and last tenth, with a fall"
        section.check(text, share, 0.75, FALLS, least=True)
    del method  # its place is needed for the next
    tidy(device)
    _resume(section, attempt, course)


def _walk(attempt: Attempt, method: Method, seconds: float) -> Course:
    """Steps until time or steps are used up, with a checkpoint at 60 % and at least REPEATED steps after it."""
    run, device, course = attempt.run, attempt.device, Course()
    synchronise(device)
    begun = time.perf_counter()
    for step, (batch, position, reading_s) in enumerate(_batches(attempt, 0)):
        course.reading_s += reading_s
        spent = time.perf_counter() - begun - course.saving_s
        done = max(spent / max(seconds, 1e-9) if step >= run.least_steps else 0.0, step / run.most_steps)
        if not course.saved_at and (done >= 0.6 or step + REPEATED >= run.most_steps):
            started = time.perf_counter()
            save_checkpoint(attempt.out, Checkpoint(step, None, method.parts.state_dict()))
            course.saved_at, course.saving_s = step, time.perf_counter() - started
        if done >= 1 and step >= course.saved_at + REPEATED:
            break
        course.losses.append(_step(method, batch, position, step, device))
    synchronise(device)
    course.steps_s = time.perf_counter() - begun - course.saving_s
    return course


def _step(method: Method, batch: Batch, position: float, step: int, device: str) -> dict[str, float]:
    method.parts.set_rates(position, step)
    return method.training_step(batch.to(device), step)


def _batches(attempt: Attempt, start: int) -> Iterator[tuple[Batch, float, float]]:
    """Batches from this step on, as the loop reads them, with the epoch and its fraction, and seconds of reading."""
    plan, slices = attempt.plan, attempt.slices
    epoch, done = plan.position(start)
    while True:
        steps = plan.steps_in(epoch)
        started = time.perf_counter()
        for number, batch in enumerate(read_batches(slices, plan, epoch, done), done):
            yield batch, epoch + number / steps, time.perf_counter() - started
            started = time.perf_counter()
        epoch, done = epoch + 1, 0


def _fall(values: Sequence[float]) -> tuple[float, float, float]:
    """Means of the first and of the last tenth, five steps at least, and the share of pairs of theirs that fall."""
    count = max(len(values) // 10, 5)
    first, last = np.asarray(values[:count]), np.asarray(values[-count:])
    return float(first.mean()), float(last.mean()), float((last[None] < first[:, None]).mean())


def _resume(section: Section, attempt: Attempt, course: Course) -> None:
    """A fresh method takes the checkpoint and goes the same steps again, as after a kill."""
    what, device, state, method = attempt.what, attempt.device, attempt.saved(), attempt.fresh()
    method.parts.load_state_dict(state)
    taken = _tensors(method.parts.state_dict())
    differing = sum(not torch.equal(taken[key].cpu(), value) for key, value in _tensors(state).items())
    section.check(f"{what}: tensors that differ after loading", differing, 0, "a checkpoint holds all of a run")
    again: list[dict[str, float]] = []
    for step, (images, position, _) in enumerate(_batches(attempt, course.saved_at), course.saved_at):
        if len(again) == REPEATED:
            break
        again.append(_step(method, images, position, step, device))
    before = course.losses[course.saved_at : course.saved_at + REPEATED]
    differences = [_worst(a, b) for a, b in zip(again, before, strict=True)]
    if device == "cpu":
        section.check(f"{what}: resumed losses, relative", largest(differences), 0, "on a CPU to the last bit")
        return
    why = "atomic additions of a GPU sum in any order, and bfloat16 rounds what differs"
    section.check(f"{what}: resumed losses of the first step, relative", differences[0], 2e-2, why)
    section.row(figure=f"{what}: resumed losses", relative_after_steps=differences)


def _worst(found: Mapping[str, float], expected: Mapping[str, float]) -> float:
    """Largest difference of any term, relative to the term or to a hundredth of the largest term if that is more."""
    floor = max(abs(value) for value in expected.values()) / 100
    return largest([abs(found[key] - value) / max(abs(value), floor, 1e-12) for key, value in expected.items()])


def _tensors(state: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors below a checkpoint, by the path of their keys."""
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            found |= _tensors(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            found[f"{prefix}{key}"] = value
    return found
