"""`rules test`: what the rules of the settings make of series on disk."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from config.syntax import is_ae_title
from node.cli.console import ConfigOption, JsonOption, PhiOption, out, print_json, print_table, settings_from
from node.cli.tables import plain
from storage.errors import NotFound

app = typer.Typer(no_args_is_help=True, help="The rules of the settings, tried on series that lie on a disk.")

Folder = Annotated[Path, typer.Argument(help="Folder of DICOM files.", exists=True, file_okay=False)]


@app.callback()
def _group() -> None:
    """Keep `test` a command of its own, although it is the only one."""


@app.command("test")
def try_rules(
    context: typer.Context,
    folder: Folder,
    calling_ae: Annotated[str, typer.Option("--calling-ae", help="AE title of who would send it.", metavar="AE")] = "",
    called_ae: Annotated[
        str, typer.Option("--called-ae", help="AE title by which the node would be called; else scp.ae_title.")
    ] = "",
    phi: PhiOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Which route would each series take, and why not another; nothing is sent and nothing run.

    For each series: would it be translated, by which route and bundle, and where would the result go. Exit code 3
    without a series.
    """
    from node.cli.offline import headers_below, no_series
    from node.operate.routed import routed
    from node.receive.routing import Call

    settings = settings_from(context, config)
    called = called_ae or settings.scp.ae_title
    if called not in settings.scp.ae_titles:
        raise typer.BadParameter(f"the node is called {' or '.join(settings.scp.ae_titles)}, not {plain(called)}")
    if calling_ae and not is_ae_title(calling_ae):
        raise typer.BadParameter(f"{plain(calling_ae)} is no AE title: 1 to 16 printable ASCII characters")
    found, unreadable = headers_below(settings, folder)
    if not found:
        raise NotFound(no_series(folder, unreadable))
    rows = routed(settings, found, Call(called, calling_ae), phi=phi)
    if as_json:
        print_json({"series": [asdict(row) for row in rows], "unreadable": unreadable})
        return
    for row in rows:
        verdict = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
        print_table(
            ["SERIES", row.series_uid],
            [
                ("slices", str(row.slices)),
                ("verdict", verdict),
                ("route", row.why or "the settings have no routes"),
                ("bundle", row.bundle),
                ("to", ", ".join(row.destinations) or "no destination is set"),
                *([("doubt", row.doubt)] if row.doubt else []),
                *((f"not {one.route}", one.words()) for one in row.not_taken),
            ],
        )
        out().print()
    for sentence in unreadable:
        out().print(f"not read: {sentence}", markup=False)
