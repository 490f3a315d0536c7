"""What `train` shows: what a run will take, how far it is, and what it came to."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress, TaskID

from node.cli.console import out, print_table

if TYPE_CHECKING:
    from models.training import Estimate, TrainResult


class Bar:
    """Shows steps, time left, losses and validations; fulfils models.training.Observer."""

    def __init__(self, bar: Progress, minutes: float | None) -> None:
        self._bar, self._limit_s = bar, None if minutes is None else minutes * 60
        self._task: TaskID | None = None
        self._shown_at, self._began_at, self._first, self._total = 0.0, 0.0, 0, 0

    def began(self, description: str, step: int, total_steps: int) -> None:
        """See Observer."""
        self._bar.console.print(f"training on {description}", markup=False)
        self._task = self._bar.add_task("training", total=total_steps, completed=step)
        self._began_at, self._first, self._total = time.monotonic(), step, total_steps

    def stepped(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        """See Observer."""
        now = time.monotonic()
        if self._task is None or now - self._shown_at < 0.5:
            return
        self._shown_at = now
        words = "  ".join(f"{name} {value:.3g}" for name, value in list(losses.items())[:4])
        left = duration(time_left_s(now - self._began_at, step - self._first, self._total - step, self._limit_s))
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}  {left} left  {words}")

    def validated(self, epoch: int, figures: Mapping[str, float], *, best: bool) -> None:
        """See Observer."""
        words = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        mark = "  (best)" if best and figures else ""
        self._bar.console.print(f"epoch {epoch}: {words or 'nobody to validate on'}{mark}", markup=False)


def time_left_s(passed_s: float, steps: int, steps_left: int, limit_s: float | None) -> float:
    """Seconds that the rest will take at the pace so far, validations included, and not beyond the limit."""
    left = passed_s / max(steps, 1) * steps_left
    return left if limit_s is None else max(0.0, min(left, limit_s - passed_s))


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as H:MM:SS, days before them."""
    return str(timedelta(seconds=round(seconds)))


def tell_estimate(found: "Estimate", runs: int) -> str:
    """One line of what a run, or so many of them, will take."""
    many = f"{runs} runs of " if runs > 1 else ""
    epochs = "epoch" if found.epochs == 1 else "epochs"
    return (
        f"about {duration(found.seconds * runs)} for {many}{found.steps} steps in {found.epochs} {epochs}, "
        f"{_size(found.disk_bytes * runs)} on disk, {_size(found.memory_bytes)} of memory"
    )


def show_estimate(found: "Estimate", runs: int) -> None:
    """The figures of a dry run as a table."""
    rows = [
        ("device", found.device),
        ("runs", str(runs)),
        ("steps, epochs of each", f"{found.steps}, {found.epochs}"),
        ("seconds of a step", f"{found.seconds_per_step:.3g}"),
        ("seconds of a validation, saving included", f"{found.seconds_per_validation:.3g}"),
        ("duration of all", duration(found.seconds * runs)),
        ("disk", _size(found.disk_bytes * runs)),
        ("memory", _size(found.memory_bytes)),
    ]
    if found.epochs_in_budget is not None:
        rows.append(("epochs that the minutes allow", f"{found.epochs_in_budget:.3g}"))
    print_table(["", ""], rows)


def show_result(result: "TrainResult") -> None:
    """What a run came to."""
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


def show_folds(rows: Sequence[Mapping[str, object]], file: Path) -> None:
    """The table of a cross-validation, and where it lies."""
    columns = list(rows[0])
    print_table([column.upper() for column in columns], [[str(row[column]) for column in columns] for row in rows])
    out().print(f"table: {file}", markup=False, soft_wrap=True)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
