"""The one loop that trains every method: steps, validation, stopping, resuming."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

from torch import Tensor

from models.bundle import HU_WINDOW, BundleCard, BundleError, parse_card, read_card
from models.cohort import Cohort, CohortPatient
from models.frame import Frame
from models.methods.method import (
    Batch,
    Method,
    build_method,
    describe_bundle,
    method_card,
    step_in_parts,
    write_method_bundle,
)
from models.methods.optimisation import NotFinite
from models.training.about import describe_run, teacher_of
from models.training.accelerated import OfOneProcess, TrainingProcess
from models.training.checkpoint import (
    Best,
    Checkpoint,
    begin_run,
    load_checkpoint,
    save_checkpoint,
    tell_difference,
    write_whole,
)
from models.training.clock import Clock
from models.training.journal import Journal
from models.training.keep import recover_folder, replace_folder
from models.training.options import Diverged, TrainingError, TrainOptions
from models.training.people import choose_people
from models.training.resident import hold, show_batches
from models.training.runfile import SETTINGS_FILE, plain_model, render, resolve
from models.training.slices import BatchPlan, SliceSet, read_batches
from models.training.validation import Validator

BUNDLE_FOLDER = "bundle"


class Observer(Protocol):
    """What is told of a run's progress."""

    def began(self, description: str, step: int, total_steps: int) -> None:
        """The run starts, or goes on after `step` steps; it takes `total_steps`, unless something ends it before."""
        ...

    def stepped(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        """The `step`-th step of the run is done, in this epoch; both count from 1."""
        ...

    def validated(self, epoch: int, figures: Mapping[str, float], *, best: bool) -> None:
        """An epoch ended, or the time was up; figures are empty for a run without validation."""
        ...


class Silent:
    """An observer that shows nothing."""

    def began(self, description: str, step: int, total_steps: int) -> None:
        """See Observer."""

    def stepped(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        """See Observer."""

    def validated(self, epoch: int, figures: Mapping[str, float], *, best: bool) -> None:
        """See Observer."""


@dataclass(frozen=True)
class TrainResult:
    """What a run came to: the bundle of its best epoch, the steps it took, the best validation if there was one.

    `stopped_early`: patience or the time ended it.
    """

    bundle: Path
    card: BundleCard
    steps: int
    best: Best | None
    stopped_early: bool


def train(
    cohort: Cohort, out: Path, options: TrainOptions, *, resume: bool = False, observer: Observer | None = None
) -> TrainResult:
    """Train a method on the split "train" of a cohort, in the folder `out`, and leave its best bundle there.

    After every epoch the generator (its moving average where one is kept) translates slices of the split "validation";
    the bundle is that of the epoch with the lowest NMAE, or of the last one in a run without validation; from the first
    epoch on it is there, and always whole. Writes run.json, run.toml, losses.jsonl, validations.jsonl, tensorboard/,
    checkpoint-0.pt and bundle/. A run that was killed goes on with `resume` and has the losses that it would have had,
    a limit in minutes excepted. Under `accelerate launch` or torchrun all processes call this with the same arguments,
    divide each batch among themselves, and have the losses that one process would have, but for the rounding of sums;
    the first alone reads and writes `out`, and a run may go on with another number of processes.
    Raises TrainingError, CohortError, DeviceUnavailable, BundleError for a teacher, PeerLost for another process.
    """
    return Run(cohort, out, options, resume=resume, observer=observer or Silent()).run()


def _method(options: TrainOptions) -> Method:
    """Refuses what would fail after hours only; raises BundleError for a teacher that cannot teach."""
    config = resolve(options)
    try:
        method = build_method(options.method, config)
    except ValueError as error:
        raise TrainingError(f"no network can be built: {error}.") from error
    try:
        card = method_card(method, describe_bundle(options.name or options.method, "1"))
        parse_card(card.to_mapping(), where="model")
    except BundleError as error:
        raise TrainingError(str(error)) from error
    return method


class Run:
    """What one call of `train` holds: method, data, place of computation, steps taken, best validation."""

    def __init__(self, cohort: Cohort, out: Path, options: TrainOptions, *, resume: bool, observer: Observer) -> None:
        self.process = TrainingProcess(options.device, options.precision)
        self.cohort, self.out, self.options = cohort, out, options
        self.observer = observer if self.process.rank == 0 else Silent()
        self.method: Method = _method(options)
        regime, matrix = self.method.config.regime, self.method.config.matrix
        people = choose_people(cohort, options)
        self.slices = self._slices(people.train, stacked=self.method.stacked)
        self.plan = BatchPlan(len(self.slices), regime, self.method.paired, self.process.rank, self.process.processes)
        self.validator = Validator.of(self._slices(people.validation, stacked=False), options.validation_slices)
        self.facts = {
            "options": options.to_mapping(),
            "regime": asdict(regime),
            "model": plain_model(self.method.config),
            "cohort": cohort.digest,
            "teacher": teacher.digest if (teacher := teacher_of(self.method)) else None,
            "arithmetic": f"{self.process.device_type}, {self.process.precision}",
        }
        self._check_same()
        self._claim: IO[str] | None = None
        checkpoint = self.process.by_first(lambda: self._begin(resume=resume))
        self.method.parts.compute = self.process.compute
        self.method.parts.to(self.process.device)
        self.held = hold(self.slices, matrix, self.process.device) if options.resident else None
        self.step, self.best, self.out_of_time = 0, None, False
        self.clock = Clock(options.minutes)
        if checkpoint is not None:
            self.method.parts.load_state_dict(checkpoint.state)
            self.step, self.best, self.out_of_time = checkpoint.step, checkpoint.best, checkpoint.ended
            self.clock.go_on(checkpoint.seconds)

    def _check_same(self) -> None:
        """Processes with other settings or patients than the first would train another model; raises OfOneProcess."""
        if told := tell_difference(self.process.agree(self.facts), self.facts):
            raise OfOneProcess(f"the first process of this run has {told}, as process {self.process.rank} has.")

    def _begin(self, *, resume: bool) -> Checkpoint | None:
        self._claim = begin_run(self.out, self.facts, resume=resume)
        write_whole(self.out / SETTINGS_FILE, render(self.options))
        recover_folder(self.bundle)
        return load_checkpoint(self.out)

    def _slices(self, patients: Sequence[CohortPatient], *, stacked: bool) -> SliceSet:
        config, options = self.method.config, self.options
        return SliceSet(
            patients,
            Frame(HU_WINDOW, config.matrix),
            options.target,
            context_mm=config.context_mm,
            stacked=stacked,
            blood_level_hu=options.blood_level_hu,
        )

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on, as they will be seen but perhaps on another device."""
        if self.held is not None:
            return show_batches(self.held, self.plan, epoch, start, self.options.augmentation)
        return read_batches(self.slices, self.plan, epoch, start, workers=self.options.workers)

    @property
    def bundle(self) -> Path:
        return self.out / BUNDLE_FOLDER

    @property
    def finished(self) -> bool:
        return self.step >= self.plan.total_steps or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        return self.out_of_time or self._without_hope

    @property
    def _without_hope(self) -> bool:
        return self.best is not None and 0 < self.options.patience <= self.best.since

    def run(self) -> TrainResult:
        """Epochs until there are no more, no better ones, or no time."""
        self.observer.began(self.process.description, self.step, self.plan.total_steps)
        journal = None
        if self.process.rank == 0:
            journal = Journal(self.out, self.facts | {"processes": self.process.processes}, step=self.step)
        try:
            while not self.finished:
                self._epoch(journal)
        finally:
            if journal is not None:
                journal.close()
            self.release()
        card = parse_card(self.process.by_first(lambda: read_card(self.bundle).to_mapping()), where=BUNDLE_FOLDER)
        return TrainResult(self.bundle, card, self.step, self.best, self.stopped_early)

    def release(self) -> None:
        """Let another training have the folder."""
        if self._claim is not None:
            self._claim.close()

    def _epoch(self, journal: Journal | None) -> None:
        epoch, done = self.plan.position(self.step)
        steps = self.plan.steps_in(epoch)
        for number, batch in enumerate(self.batches(epoch, done), done):
            position = epoch + number / steps
            losses = self.take_step(batch.to(self.process.device), self._schedule(position))
            if journal is not None:
                journal.step(self.step, position, losses)
            self.observer.stepped(epoch + 1, self.step, losses)
            self.out_of_time = self.options.minutes is not None and self.process.agree(self.clock.share) >= 1
            if self.out_of_time:
                break
            if self.step % self.options.checkpoint_every == 0 and number + 1 < steps:
                self._save()
        self._end_epoch(epoch + 1, journal)

    def _schedule(self, epoch: float) -> float:
        """The epoch by which rates are set: that of the steps, or of the clock where the time goes faster."""
        if self.options.minutes is None:
            return epoch
        return max(epoch, self.process.agree(self.clock.share) * self.method.config.regime.epochs)

    def take_step(self, batch: Batch, epoch: float) -> dict[str, float]:
        """Move all networks once on a batch on this process's device; `epoch` with its fraction sets the rates."""
        self.method.parts.set_rates(epoch, self.step)
        count = self.method.config.regime.accumulate
        try:
            if count > 1:
                losses = step_in_parts(self.method, batch, self.step, count)
            else:
                losses = self.method.training_step(batch, self.step)
        except NotFinite as error:
            raise Diverged(f"Step {self.step + 1}: {error}; a lower learning rate may help.") from error
        self.step += 1
        return losses

    def finish_epoch(self) -> None:
        """Validate and save where the run stands now, without an entry in the journal."""
        self._end_epoch(1, None)

    def _end_epoch(self, epoch: int, journal: Journal | None) -> None:
        """Translate in all processes, judge in the first, which decides for all, then save."""
        validator = self.validator
        prediction = None if validator is None else validator.predict(self.method, self.process.device)
        self.best = self.process.by_first(lambda: self._judge(prediction, epoch, journal))
        self._save()

    def _judge(self, prediction: Tensor | None, epoch: int, journal: Journal | None) -> Best | None:
        figures: Mapping[str, float] = {}
        if self.validator is None or prediction is None:
            improved, best = True, None
        else:
            figures, pictures = self.validator.judge(prediction)
            improved = self.best is None or figures["nmae"] < self.best.figures["nmae"]
            best = Best(epoch, figures) if self.best is None or improved else self.best.passed()
            if journal is not None:
                journal.validation(self.step, epoch, self.process.processes, figures, pictures)
        if improved:
            about = describe_run(self.options, self.method, self.cohort, epoch=epoch, step=self.step, figures=figures)
            replace_folder(self.bundle, lambda folder: write_method_bundle(self.method, folder, about))
        self.observer.validated(epoch, figures, best=improved)
        return best

    def _save(self) -> None:
        """The first process saves for all; a full disk ends all."""

        def save() -> None:
            state, spent = self.method.parts.state_dict(), (self.clock.spent_s, self.out_of_time)
            save_checkpoint(self.out, Checkpoint(self.step, self.best, state, *spent))

        self.process.by_first(save)
