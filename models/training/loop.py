"""The one loop that trains every method: steps, validation, stopping, resuming."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from models.bundle import HU_WINDOW, BundleCard, read_card
from models.cohort import Cohort
from models.frame import Frame
from models.methods.method import Batch, Method, make_method, write_method_bundle
from models.methods.optimisation import NotFinite
from models.registry import METHODS
from models.training.about import describe_run, teacher_of
from models.training.accelerated import TrainingProcess
from models.training.checkpoint import Best, Checkpoint, begin_run, load_checkpoint, save_checkpoint
from models.training.journal import Journal
from models.training.options import Diverged, TrainingError, TrainOptions
from models.training.slices import BatchPlan, SliceSet, read_batches
from models.training.validation import Validator

BUNDLE_FOLDER = "bundle"


class Observer(Protocol):
    """What is told of a run's progress."""

    def began(self, description: str, step: int, total_steps: int) -> None:
        """The run starts, or goes on after `step` steps."""
        ...

    def stepped(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        """The `step`-th step of the run is done, in this epoch; both count from 1."""
        ...

    def validated(self, epoch: int, figures: Mapping[str, float], *, best: bool) -> None:
        """An epoch ended; figures are empty where the cohort has nobody to validate on."""
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
    """What a run came to: the bundle of its best epoch, the steps it took, the best validation if there was one."""

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
    the bundle is that of the epoch with the lowest NMAE, or of the last one where nobody is there to validate on.
    Writes run.json, losses.jsonl, validations.jsonl, tensorboard/, checkpoint-<process>.pt and bundle/. A run that was
    killed goes on with `resume` and has the losses that it would have had. Under `accelerate launch` all processes
    call this with the same arguments. Raises TrainingError, CohortError, DeviceUnavailable, BundleError for a
    teacher, KeyError for an unknown method or preset, TypeError for an unknown field of its regime.
    """
    return Run(cohort, out, options, resume=resume, observer=observer or Silent()).run()


def _method(options: TrainOptions) -> Method:
    """Raises BundleError for a teacher that cannot teach."""
    if (options.teacher is None) == METHODS[options.method].needs_teacher:
        taught = ", ".join(name for name, row in METHODS.items() if row.needs_teacher)
        raise TrainingError(f"{taught} needs a teacher, and no other method takes one.")
    changes = {} if options.teacher is None else {"teacher": options.teacher}
    return make_method(options.method, options.preset, regime=options.regime, **changes)


class Run:
    """What one call of `train` holds: method, data, place of computation, steps taken, best validation."""

    def __init__(self, cohort: Cohort, out: Path, options: TrainOptions, *, resume: bool, observer: Observer) -> None:
        self.process = TrainingProcess(options.device, options.precision)
        self.cohort, self.out, self.options = cohort, out, options
        self.observer = observer if self.process.rank == 0 else Silent()
        self.method: Method = _method(options)
        regime, frame = self.method.config.regime, Frame(HU_WINDOW, self.method.config.matrix)
        patients = cohort.split("train")
        if not patients:
            raise TrainingError(f"{cohort.path} has no patient in the split train.")
        self.slices = SliceSet(patients, frame, options.target)
        self.plan = BatchPlan(len(self.slices), regime, self.method.paired, self.process.rank, self.process.processes)
        # Only the first process looks at them.
        self.validator = Validator.of(cohort.split("validation"), frame, options) if self.process.rank == 0 else None
        facts = {
            "options": options.to_mapping(),
            "regime": asdict(regime),
            "cohort": cohort.digest,
            "teacher": teacher.digest if (teacher := teacher_of(self.method)) else None,
            "processes": self.process.processes,
            "arithmetic": f"{self.process.device_type}, {self.process.precision}",
        }
        if self.process.rank == 0:
            begin_run(out, facts, resume=resume)
        self.process.wait()
        self.method.parts.compute = self.process.compute
        self.method.parts.to(self.process.device)
        self.step, self.best = 0, None
        if checkpoint := load_checkpoint(out, self.process.rank):
            self.method.parts.load_state_dict(checkpoint.state)
            self.step, self.best = checkpoint.step, checkpoint.best

    @property
    def bundle(self) -> Path:
        return self.out / BUNDLE_FOLDER

    @property
    def finished(self) -> bool:
        return self.step >= self.plan.total_steps or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        return self.best is not None and 0 < self.options.patience <= self.best.since

    def run(self) -> TrainResult:
        """Epochs until there are no more, or no better ones."""
        self.observer.began(self.process.description, self.step, self.plan.total_steps)
        journal = Journal(self.out, step=self.step) if self.process.rank == 0 else None
        try:
            while not self.finished:
                self._epoch(journal)
        finally:
            if journal is not None:
                journal.close()
        return TrainResult(self.bundle, read_card(self.bundle), self.step, self.best, self.stopped_early)

    def _epoch(self, journal: Journal | None) -> None:
        epoch, done = self.plan.position(self.step)
        steps = self.plan.steps_in(epoch)
        batches = read_batches(self.slices, self.plan, epoch, done, workers=self.options.workers)
        for number, batch in enumerate(batches, done):
            position = epoch + number / steps
            losses = self.take_step(batch.to(self.process.device), position)
            if journal is not None:
                journal.step(self.step, position, losses)
            self.observer.stepped(epoch + 1, self.step, losses)
            if self.step % self.options.checkpoint_every == 0 and number + 1 < steps:
                self._save()
        self._end_epoch(epoch + 1, journal)

    def take_step(self, batch: Batch, epoch: float) -> dict[str, float]:
        """Move all networks once on a batch on this process's device; `epoch` with its fraction sets the rates."""
        self.method.parts.set_rates(epoch, self.step)
        try:
            losses = self.method.training_step(batch, self.step)
        except NotFinite as error:
            raise Diverged(f"Step {self.step + 1}: {error}; a lower learning rate may help.") from error
        self.step += 1
        return losses

    def _end_epoch(self, epoch: int, journal: Journal | None) -> None:
        """Validate in the first process, which decides for all, then save in all."""
        best = self.best
        if self.process.rank == 0:
            best = self._validate(epoch, journal)
        self.best = self.process.agree(best)
        self._save()

    def _validate(self, epoch: int, journal: Journal | None) -> Best | None:
        figures: Mapping[str, float] = {}
        if self.validator is None:
            improved, best = self.step >= self.plan.total_steps, None
        else:
            figures, pictures = self.validator.measure(self.method, self.process.device)
            improved = self.best is None or figures["nmae"] < self.best.figures["nmae"]
            best = Best(epoch, figures) if self.best is None or improved else self.best.passed()
            if journal is not None:
                journal.validation(self.step, epoch, figures, pictures)
        if improved:
            about = describe_run(self.options, self.method, self.cohort, epoch=epoch, step=self.step, figures=figures)
            write_method_bundle(self.method, self.bundle, about)
        self.observer.validated(epoch, figures, best=improved)
        return best

    def _save(self) -> None:
        """All processes save the same step; none goes on before the last has, so that they cannot drift apart."""
        save_checkpoint(self.out, self.process.rank, Checkpoint(self.step, self.best, self.method.parts.state_dict()))
        self.process.wait()
