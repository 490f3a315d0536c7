"""`evaluate`: bundles side by side on the test patients of a cohort, and their figures in their cards."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import models
from models.bundle import CARD_FILE, TEXT_FILE
from node.cli.console import JsonOption, out, print_json, print_table, progress_bar, system_answer
from node.errors import Permanent, Refused

if TYPE_CHECKING:
    from models.cohort import Cohort
    from models.evaluation import Report, Row


@dataclass(frozen=True)
class _Choices:
    device: Literal["auto", "cuda", "cpu"]
    precision: Literal["auto", "bf16", "fp32"]
    patients: int | None


def evaluate(
    cohort: Annotated[Path, typer.Option("--cohort", help="Cohort folder.", exists=True, file_okay=False)],
    report: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report; new or empty.", file_okay=False)],
    bundle: Annotated[
        list[str] | None,
        typer.Option("--bundle", help="Name of a shipped bundle, or the path of a bundle folder; may be repeated."),
    ] = None,
    device: Annotated[Literal["auto", "cuda", "cpu"], typer.Option("--device", help="Where the bundles run.")] = "auto",
    precision: Annotated[
        Literal["auto", "bf16", "fp32"], typer.Option("--precision", help="What they compute in.")
    ] = "auto",
    patients: Annotated[
        int | None, typer.Option("--patients", min=1, help="The first N of each test split, for a quick look.")
    ] = None,
    write_card: Annotated[
        bool, typer.Option("--write-card", help="Put the figures into the cards; needs bundles given by path.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure bundles beside the plain scan and a mean enhancement; leaves tables, tests and pictures in OUT."""
    from models.evaluation import write_metrics

    given = bundle or []
    paths = _found(given)
    if write_card:
        _check_cards(given, paths)
    if report.exists() and any(report.iterdir()):
        raise Refused(f"{report} is not empty; a report is never mixed with other files")
    opened, result = _run(cohort, paths, report, _Choices(device, precision, patients))
    if write_card:
        for path in paths:
            write_metrics(path, result.rows, opened)
    if as_json:
        print_json(
            {
                "report": report / "report.html",
                "cohort_digest": opened.digest,
                "cards": [path / CARD_FILE for path in paths] if write_card else [],
                "rows": [row.to_mapping() for row in result.rows],
            }
        )
        return
    _show(result.rows)
    for path in paths if write_card else []:
        out().print(f"card written: {path / TEXT_FILE}", markup=False, soft_wrap=True)
    out().print(f"report: {report / 'report.html'}", markup=False, soft_wrap=True)


def _found(bundles: Sequence[str]) -> list[Path]:
    """Folders of the bundles; one that would stand in the tables twice is a mistake."""
    paths = [models.find_bundle(name) for name in bundles]
    digests = [models.read_card(path).digest for path in paths]
    for name, digest in zip(bundles, digests, strict=True):
        if digests.count(digest) > 1:
            raise typer.BadParameter(f"the model of {name} is given twice", param_hint="--bundle")
    return paths


def _check_cards(bundles: Sequence[str], paths: Sequence[Path]) -> None:
    """Before anything is measured: may these cards be written?"""
    if not bundles:
        raise typer.BadParameter("there is no bundle whose card could be written", param_hint="--write-card")
    for name, path in zip(bundles, paths, strict=True):
        if Path(name).resolve() != path:
            raise typer.BadParameter(
                f"{name} is a shipped bundle; name the path of the folder whose card is to be written",
                param_hint="--write-card",
            )
        if not os.access(path, os.W_OK):
            raise Refused(f"{path} cannot be written to; copy the bundle to a folder of your own")


def _run(cohort: Path, bundles: Sequence[Path], report: Path, choices: _Choices) -> "tuple[Cohort, Report]":
    from models.cohort import CohortError, open_cohort
    from models.evaluation import evaluate as measure
    from node.cohorts.shards import lacks_patients

    try:
        opened = open_cohort(cohort)
        report.mkdir(parents=True, exist_ok=True)  # tried now, not after hours of measuring
        with progress_bar() as bar:
            task = bar.add_task("patients", total=None)
            result = measure(
                opened,
                bundles,
                report,
                device=choices.device,
                precision=choices.precision,
                patients=choices.patients,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except CohortError as error:
        if lacks_patients(cohort):
            raise Permanent(
                f"{cohort} was fetched for a training, without the patients that are tested on; "
                "`syncect cohort fetch URL --all` fetches them too"
            ) from error
        raise
    except OSError as error:
        raise Permanent(f"the report cannot be written: {system_answer(error)}") from error
    return opened, result


def _show(rows: "Sequence[Row]") -> None:
    print_table(
        ["COHORT", "NAME", "PSNR [dB]", "SSIM", "NMAE", "GAIN [dB]", "BLOOD BIAS [HU]", "BLOOD MAE [HU]", "FALSE [HU]"],
        [
            (
                row.cohort,
                row.name,
                _figure(row.means["psnr_db"], ".2f"),
                _figure(row.means["ssim"], ".4f"),
                _figure(row.means["nmae"], ".4f"),
                _figure(row.gains["psnr_gain_db"], "+.2f"),
                _figure(blood.bias_hu if blood else math.nan, "+.1f"),
                _figure(blood.mae_hu if blood else math.nan, ".1f"),
                _figure(row.means["false_enhancement_mae_hu"], ".1f"),
            )
            for row in rows
            for blood in (row.structures.get("blood_pool"),)
        ],
    )


def _figure(value: float, form: str) -> str:
    return f"{value:{form}}" if math.isfinite(value) else "-"


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(evaluate)
