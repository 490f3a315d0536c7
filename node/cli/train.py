"""`train`: one method on one cohort, from a preset or a file of settings to a bundle; in folds too."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from models.errors import ModelsError
from models.registry import METHODS
from node.cli.cohort import CacheOption, fetch_from
from node.cli.console import Exit, JsonOption, print_json, progress_bar, say, settings_from, write
from node.cli.train_view import Bar, show_estimate, show_folds, show_result, tell_estimate
from node.errors import Misconfigured, NodeError, Retryable

if TYPE_CHECKING:
    from models.cohort import Cohort
    from models.training import Estimate, TrainOptions, TrainResult

    Method = str
else:
    Method = Literal[tuple(METHODS)]  # the command line offers what the table holds
Target = Literal["cect", "cect_registered", "enhanced_source"]


def train(
    context: typer.Context,
    method: Annotated[Method | None, typer.Argument(help="What to train; may stand in the file instead.")] = None,
    cohort: Annotated[
        str | None, typer.Option("--cohort", help="Cohort folder, or the URL where `cohort shard` put one.")
    ] = None,
    cache: CacheOption = None,
    run: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run; new, unless --resume is given.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file of settings; options given here count more.", metavar="FILE"),
    ] = None,
    write_config: Annotated[
        bool, typer.Option("--write-config", help="Print the whole file of these settings, commented, and end.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Take a few steps, print what the run will take, and end.")
    ] = False,
    preset: Annotated[
        str | None, typer.Option("--preset", help="paper (the default), published, small, tiny and others.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Name of the bundle; default: the method's.")] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="Shipped name or folder of the bundle that syndiff_student distils.")
    ] = None,
    target: Annotated[
        Target | None, typer.Option("--target", help="What to predict, by default cect; the others are of phantoms.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the preset's.")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="End in order after so much time; rates follow the time then.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Of all processes together.")] = None,
    accumulate: Annotated[
        int | None, typer.Option("--accumulate", min=1, help="Let a batch pass in so many parts, for less memory.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of weights, noise and order.")] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", min=0, help="Stop after so many epochs without a better one; 0: never.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Cross-validate: so many runs, each validates on its patients.")
    ] = None,
    fold: Annotated[int | None, typer.Option("--fold", min=1, help="Only this one of the folds, from 1.")] = None,
    validation_slices: Annotated[
        int | None, typer.Option("--validation-slices", min=1, help="So many judge each epoch; 64 by default.")
    ] = None,
    without_validation: Annotated[
        bool | None,
        typer.Option("--without-validation", help="Choose no best epoch by patients: the last one counts."),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option("--checkpoint-every", min=1, metavar="STEPS", help="How often --resume finds something new; 500."),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=0, help="Processes that read slices.")] = None,
    device: Annotated[
        Literal["auto", "cuda", "cpu"] | None, typer.Option("--device", help="Where it trains; auto by default.")
    ] = None,
    precision: Annotated[
        Literal["auto", "bf16", "fp32"] | None, typer.Option("--precision", help="What it computes in; auto.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a method on a cohort and leave the bundle of its best epoch in OUT/bundle.

    Before it begins it says what the run will take. On several GPUs or hosts, with the losses of one: accelerate launch
    --num_processes N -m node.cli train METHOD --cohort DIR --out RUN
    """
    from models import find_bundle

    regime = {"epochs": epochs, "batch_size": batch_size, "accumulate": accumulate, "seed": seed}
    given = {
        "method": method,
        "preset": preset,
        "target": target,
        "regime": {key: value for key, value in regime.items() if value is not None} or None,
        "device": device,
        "precision": precision,
        "patience": patience,
        "minutes": minutes,
        "folds": folds,
        "fold": fold,
        "validation_slices": validation_slices,
        "without_validation": without_validation,
        "checkpoint_every": checkpoint_every,
        "workers": workers,
        "name": name,
        "teacher": None if teacher is None else str(find_bundle(teacher)),
    }
    with _mistakes():
        from models.training import SETTINGS_FILE, read_options, render

        if resume and config is None and run is not None and (run / SETTINGS_FILE).exists():
            config = run / SETTINGS_FILE
        options = read_options(config, {key: value for key, value in given.items() if value is not None})
        if write_config:
            write(render(options))
            return
        if cohort is None:
            raise typer.BadParameter("it is needed to train", param_hint="--cohort")
        if run is None and not dry_run:
            raise typer.BadParameter("it is needed to train", param_hint="--out")
        _start(_opened(context, cohort, cache), run, options, resume=resume, dry_run=dry_run, as_json=as_json)


def _opened(context: typer.Context, cohort: str, cache: Path | None) -> "Cohort":
    from models.cohort import open_cohort

    if "://" not in cohort:
        return open_cohort(cohort)
    from node.cohorts.shards import TRAINED_ON

    return fetch_from(cohort, settings_from(context, None).spool, cache, TRAINED_ON)


def _start(
    opened: "Cohort", run: Path | None, options: "TrainOptions", *, resume: bool, dry_run: bool, as_json: bool
) -> None:
    from models.training import estimate, is_first

    if dry_run or not resume:
        near = next(path for path in (*(run or Path("x")).absolute().parents,) if path.is_dir())
        first = replace(options, fold=1) if options.folds and not options.fold else options
        expected = estimate(opened, first, near)
        runs = options.folds if first is not options else 1
        if is_first():
            _tell(expected, runs, dry_run=dry_run, as_json=as_json)
    if dry_run or run is None:
        return
    if options.folds:
        _folds(opened, run, options, resume=resume, as_json=as_json)
        return
    result = _run(opened, run, options, resume=resume)
    if is_first():
        if as_json:
            print_json(_plain(result))
        else:
            show_result(result)


def _tell(expected: "Estimate", runs: int, *, dry_run: bool, as_json: bool) -> None:
    if dry_run and as_json:
        print_json(asdict(expected) | {"runs": runs})
    elif dry_run:
        show_estimate(expected, runs)
    else:
        say(tell_estimate(expected, runs))


def _folds(cohort: "Cohort", out: Path, options: "TrainOptions", *, resume: bool, as_json: bool) -> None:
    """The runs of the folds one after the other, or of one, and the table as soon as all are there."""
    from models.training import FOLDS_FILE, fold_folder, is_first, summarise_folds

    results = []
    for fold in [options.fold] if options.fold else range(1, options.folds + 1):
        folder = fold_folder(out, fold)
        if is_first():
            say(f"fold {fold} of {options.folds}")
        results.append(_run(cohort, folder, replace(options, fold=fold), resume=resume and folder.exists()))
    if not is_first():
        return
    rows = summarise_folds(out, options.folds)
    if as_json:
        print_json({"folds": [_plain(result) for result in results], "rows": rows})
    elif rows is None:
        show_result(results[0])
    else:
        show_folds(rows, out / FOLDS_FILE)


def _run(cohort: "Cohort", run: Path, options: "TrainOptions", *, resume: bool) -> "TrainResult":
    from models.training import train as train_method

    with progress_bar() as bar:
        return train_method(cohort, run, options, resume=resume, observer=Bar(bar, options.minutes))


def _plain(result: "TrainResult") -> dict[str, object]:
    return {
        "bundle": result.bundle,
        "digest": result.card.digest,
        "steps": result.steps,
        "best": None if result.best is None else asdict(result.best),
        "stopped_early": result.stopped_early,
    }


@contextmanager
def _mistakes() -> Iterator[None]:
    """What a person has to mend is an error of usage; so is a training without its packages.

    Of the processes of one host one says what all would say; each says what may have kept it alone from going on.
    """
    try:
        from models.together import PeerLost
        from models.training import OfOneProcess, TrainingError, UnreadableSlice, is_spokesman
    except ImportError as error:
        raise Misconfigured(f"training needs the extra packages of syncect[train] ({error.name} is missing)") from error
    try:
        yield
    except (ModelsError, NodeError) as error:
        code = Exit.USAGE if isinstance(error, TrainingError | Misconfigured) else Exit.ERROR
        is_own = isinstance(error, OfOneProcess | UnreadableSlice | PeerLost | Retryable)
        if not (is_spokesman() or is_own):
            raise typer.Exit(code) from error
        if isinstance(error, TrainingError):
            raise Misconfigured(str(error)) from error
        raise


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(train)
