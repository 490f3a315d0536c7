"""`commission`: the report that a physicist signs before a bundle is used for patients."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from node.cli.console import JsonOption, out, print_json, progress_bar
from node.errors import Refused


def commission(
    bundle: Annotated[str, typer.Option("--bundle", help="Name of a shipped bundle, or the path of a bundle folder.")],
    report: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report; new or empty.", file_okay=False)],
    cohort: Annotated[
        Path | None,
        typer.Option("--cohort", help="Cohort of own patients; else phantoms are made.", exists=True, file_okay=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of real series, with --regions.", exists=True, file_okay=False),
    ] = None,
    regions: Annotated[
        Path | None, typer.Option("--regions", help="File of regions on these series.", exists=True, dir_okay=False)
    ] = None,
    device: Annotated[Literal["auto", "cuda", "cpu"], typer.Option("--device", help="Where the bundle runs.")] = "auto",
    precision: Annotated[
        Literal["auto", "bf16", "fp32"], typer.Option("--precision", help="What it computes in.")
    ] = "auto",
    patients: Annotated[
        int | None, typer.Option("--patients", min=1, help="The first N of each test split, for a quick look.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle, the node and what planning on its results would change; leaves report.html, .pdf and .json."""
    if (data is None) != (regions is None):
        raise typer.BadParameter("--data and --regions belong together", param_hint="--regions")
    if report.exists() and any(report.iterdir()):
        raise Refused(f"{report} is not empty; a report is never mixed with other files")
    from models.cohort import open_cohort
    from node.commission.run import Wish
    from node.commission.run import commission as make_report

    report.mkdir(parents=True, exist_ok=True)
    opened = open_cohort(cohort) if cohort is not None else None
    wish = Wish(bundle, opened, data, regions, device, precision, patients)
    with progress_bar() as bar:
        task = bar.add_task("loading the model", total=None)
        written = make_report(wish, report, lambda what: bar.update(task, description=what))
    if as_json:
        print_json({"report": report / "report.pdf", "sha256": written.pdf_sha256, "contents_sha256": written.digest})
        return
    out().print(f"report: {report / 'report.pdf'}, SHA-256 {written.pdf_sha256}", markup=False, soft_wrap=True)
    out().print(
        f"read it and sign it, then: syncect models accept {bundle} --report {report / 'report.pdf'} --who NAME",
        markup=False,
        soft_wrap=True,
    )


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(commission)
