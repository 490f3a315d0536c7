"""`process` and `series check`: the pipeline without a network."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from config.settings import Settings
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
from node.cli.tables import plain
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
    destination: Annotated[
        str, typer.Option("--destination", help="Would it be sent to this destination, by its profile.", metavar="NAME")
    ] = "",
    phi: PhiOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Would this series be translated, and if not, why; nothing is run. Exit code 4 if none would be.

    With --destination: would a folder's series be sent there as it is, by the rules that are asked before a delivery.
    Exit code 4 if one would not be.
    """
    from node.cli.offline import check_folder, no_series
    from node.operate.judged import check_received

    settings = settings_from(context, config)
    if destination:
        _check_for(settings, source, destination, as_json=as_json)
        return
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


def _check_for(settings: Settings, source: str, name: str, *, as_json: bool) -> None:
    """What the profile of a destination says of the series in a folder; exit code 4 where it refuses one."""
    from node.cli.offline import no_series, preflight_folder
    from node.dicom.profiles.load import load_profile

    known = {destination.name: destination for destination in settings.destination}
    if name not in known:
        raise typer.BadParameter(f"no destination is named {plain(name)}; there are {', '.join(known) or 'none'}")
    if not Path(source).is_dir():
        raise typer.BadParameter("--destination asks about files: give a folder, such as that of `syncect process`")
    profile = load_profile(known[name].profile)
    rows, unreadable = preflight_folder(profile, Path(source))
    if not rows:
        raise NotFound(no_series(source, unreadable))
    if as_json:
        print_json({"destination": name, "profile": profile.name, "series": rows, "unreadable": unreadable})
    else:
        words = [("; ".join(breach.words() for breach in row.breaches)) for row in rows]
        print_table(
            ["SERIES", "SLICES", "VERDICT", "REASON"],
            [(row.series_uid, str(row.slices), row.verdict, said) for row, said in zip(rows, words, strict=True)],
        )
        for sentence in unreadable:
            out().print(f"not read: {sentence}", markup=False)
    if any(row.breaches for row in rows):
        raise typer.Exit(Exit.REFUSED)


@series.command("rules")
def rules(
    context: typer.Context,
    profile: Annotated[
        str, typer.Option("--profile", help="Instead: what this profile asks of a series before it is sent.")
    ] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """The rules that decide what is translated, held or skipped: what each looks for, and where it comes from."""
    from node.cli.offline import rule_rows

    if profile:
        _rules_of(profile, as_json=as_json)
        return
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


def _rules_of(name: str, *, as_json: bool) -> None:
    """The rules of a profile, its own first."""
    from node.dicom.profiles.load import load_profile, profile_names

    if name not in profile_names():
        raise typer.BadParameter(f"no profile is named {plain(name)}; there are {', '.join(profile_names())}")
    rows = load_profile(name).rules
    if as_json:
        print_json(rows)
        return
    for row in rows:
        source = row.source if row.proven else f"{row.source} (unproven)"
        print_table(
            [row.profile, row.code],
            [("asks", row.why), ("check", row.check), ("looks at", ", ".join(row.keywords)), ("source", source)],
        )
        out().print()


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(process)
    app.add_typer(series, name="series")
