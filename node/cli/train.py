"""`train`: one method on one cohort, from a preset to a bundle."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import Progress, TaskID

from models.registry import METHODS
from node.cli.console import JsonOption, print_json, print_table, progress_bar
from node.errors import Misconfigured

if TYPE_CHECKING:
    from models.training import TrainOptions, TrainResult

    Method = str
else:
    Method = Literal[tuple(METHODS)]  # the command line offers what the table holds
Target = Literal["cect", "cect_registered", "enhanced_source"]


def train(
    method: Annotated[Method, typer.Argument(help="What to train.")],
    cohort: Annotated[Path, typer.Option("--cohort", help="Cohort folder.", exists=True, file_okay=False)],
    run: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; new, unless --resume is given.")],
    preset: Annotated[str, typer.Option("--preset", help="paper, published, small, tiny; see the README.")] = "paper",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Name of the bundle; default: the method's.")] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="Shipped name or folder of the bundle that syndiff_student distils.")
    ] = None,
    target: Annotated[
        Target, typer.Option("--target", help="What to predict; the last two exist for phantoms.")
    ] = "cect",
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Of all processes together.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of weights, noise and order.")] = None,
    patience: Annotated[
        int, typer.Option("--patience", min=0, help="Stop after so many epochs without a better one; 0: never.")
    ] = 0,
    validation_slices: Annotated[
        int, typer.Option("--validation-slices", min=1, help="So many are translated after each epoch to judge it.")
    ] = 64,
    checkpoint_every: Annotated[
        int, typer.Option("--checkpoint-every", min=1, metavar="STEPS", help="How often --resume finds something new.")
    ] = 500,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that read slices.")] = 0,
    device: Annotated[Literal["auto", "cuda", "cpu"], typer.Option("--device", help="Where it trains.")] = "auto",
    precision: Annotated[
        Literal["auto", "bf16", "fp32"], typer.Option("--precision", help="What it computes in.")
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a method on a cohort and leave the bundle of its best epoch in OUT/bundle.

    On several GPUs or hosts: accelerate launch --num_processes N -m node.cli train METHOD --cohort DIR --out RUN
    """
    from models import find_bundle

    try:
        from models.training import TrainOptions
    except ImportError as error:
        raise Misconfigured(f"training needs the extra packages of syncect[train] ({error.name} is missing)") from error
    regime = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    options = TrainOptions(
        method=method,
        preset=preset,
        target=target,
        regime={key: value for key, value in regime.items() if value is not None},
        device=device,
        precision=precision,
        patience=patience,
        validation_slices=validation_slices,
        checkpoint_every=checkpoint_every,
        workers=workers,
        name=name,
        teacher=None if teacher is None else str(find_bundle(teacher)),
    )
    result = _run(cohort, run, options, resume=resume)
    best = None if result.best is None else asdict(result.best)
    if as_json:
        print_json(
            {
                "bundle": result.bundle,
                "digest": result.card.digest,
                "steps": result.steps,
                "best": best,
                "stopped_early": result.stopped_early,
            }
        )
        return
    figures = {} if result.best is None else result.best.figures
    print_table(
        ["", ""],
        [
            ("steps", str(result.steps) + (" (stopped early)" if result.stopped_early else "")),
            ("best epoch", "none, nobody to validate on" if result.best is None else str(result.best.epoch)),
            *((key, f"{value:.4g}") for key, value in figures.items()),
            ("bundle", str(result.bundle)),
            ("digest", result.card.digest),
        ],
    )


def _run(cohort: Path, run: Path, options: "TrainOptions", *, resume: bool) -> "TrainResult":
    from models.cohort import open_cohort
    from models.training import TrainingError
    from models.training import train as train_method

    presets = METHODS[options.method].presets
    if options.preset not in presets:
        known = ", ".join(presets)
        raise typer.BadParameter(f"{options.method} has no preset {options.preset}; it has {known}")
    try:
        with progress_bar() as bar:
            return train_method(open_cohort(cohort), run, options, resume=resume, observer=_Bar(bar))
    except TrainingError as error:
        raise Misconfigured(str(error)) from error


class _Bar:
    """Shows steps, losses and validations; fulfils models.training.Observer."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._shown_at = 0.0

    def began(self, description: str, step: int, total_steps: int) -> None:
        self._bar.console.print(f"training on {description}", markup=False)
        self._task = self._bar.add_task("training", total=total_steps, completed=step)

    def stepped(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        if self._task is None or time.monotonic() - self._shown_at < 0.5:
            return
        self._shown_at = time.monotonic()
        words = "  ".join(f"{name} {value:.3g}" for name, value in list(losses.items())[:4])
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}  {words}")

    def validated(self, epoch: int, figures: Mapping[str, float], *, best: bool) -> None:
        words = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        mark = "  (best)" if best else ""
        self._bar.console.print(f"epoch {epoch}: {words or 'nobody to validate on'}{mark}", markup=False)


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(train)
