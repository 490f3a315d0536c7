"""`process` and `series check`: the pipeline without a network."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from node.cli.console import (
    ConfigOption,
    Exit,
    JsonOption,
    PhiOption,
    out,
    print_json,
    print_table,
    reading,
    settings_from,
)
from node.errors import Doubtful, Refused
from node.operate.texts import masked_text
from storage.errors import NotFound

series = typer.Typer(no_args_is_help=True, help="Series as they arrive, before any job.")

Folder = Annotated[Path, typer.Argument(help="Folder of DICOM files.", exists=True, file_okay=False)]
SeriesUid = Annotated[str, typer.Option("--series", help="SeriesInstanceUID, where a folder holds several.")]


def process(
    context: typer.Context,
    dicom_dir: Folder,
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for the derived series; new or empty.")],
    series_uid: SeriesUid = "",
    companions: Annotated[
        bool, typer.Option("--companions", help="Also make the objects that a destination can get beside the images.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Translate one series on disk: the same gate, pixels and UIDs as the node, without network or database."""
    from node.cli.offline import process_folder

    try:
        done = process_folder(
            settings_from(context, config), dicom_dir, out_dir, series_uid, with_companions=companions
        )
    except Doubtful as error:
        raise Refused(f"held, nothing was written: {error}") from error
    result = done.result
    if as_json:
        print_json(
            {
                "series_uid": result.series_uid,
                "study_uid": result.study_uid,
                "bundle": done.bundle,
                "translator": done.translator,
                "held_reason": result.held_reason,
                "measurements": result.measurements,
                "companions": [out_dir / name for name in done.companions],
                "files": [] if result.held_reason else [out_dir / made.path.name for made in result.files],
            }
        )
    if result.held_reason:
        raise Refused(f"held, nothing was written: {result.held_reason}")
    if not as_json:
        print_table(
            ["", ""],
            [
                ("series", result.series_uid),
                ("slices", str(len(result.files))),
                *([("beside them", ", ".join(done.companions))] if done.companions else []),
                ("bundle", done.bundle),
                ("translator", done.translator),
                *((key, f"{value:.4g}") for key, value in result.measurements.items()),
                ("written to", str(out_dir)),
            ],
        )


@series.command("check")
def check(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Folder of DICOM files, or SeriesInstanceUID of a received series.")],
    phi: PhiOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Would this series be translated, and if not, why; nothing is run. Exit code 4 if none would be."""
    from node.cli.offline import check_folder, no_series
    from node.operate.judged import check_received

    settings = settings_from(context, config)
    if Path(source).is_dir():
        rows, unreadable = check_folder(settings, Path(source))
        if not rows:
            raise NotFound(no_series(source, unreadable))
    else:
        with reading(context, config) as node:
            rows, unreadable = [check_received(node, source)], []
    if as_json:
        shown = [asdict(row) | {"description": masked_text(row.description, show=phi)} for row in rows]
        print_json({"series": shown, "unreadable": unreadable})
    else:
        print_table(
            ["SERIES", "SLICES", "VERDICT", "REASON"],
            [(row.series_uid, str(row.slices), row.verdict, row.reason) for row in rows],
        )
        for sentence in unreadable:
            out().print(f"not read: {sentence}", markup=False)
    if not any(row.verdict in ("ACCEPT", "HOLD") for row in rows):
        raise typer.Exit(Exit.REFUSED)


@series.command("rules")
def rules(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """The rules that decide what is translated, held or skipped: what each looks for, and where it comes from."""
    from node.cli.offline import rule_rows

    rows = rule_rows(settings_from(context, config))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    for row in rows:
        looked_for = [("looks for", ", ".join(row.words))] if row.words else []
        print_table(
            [row.outcome, row.code],
            [("reason", row.reason), ("looks at", ", ".join(row.attributes)), *looked_for, ("source", row.source)],
        )
        out().print()


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(process)
    app.add_typer(series, name="series")
