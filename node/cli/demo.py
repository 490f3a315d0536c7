"""`demo`: the whole path on one machine, with a phantom or with a series of the reader's own."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from node.cli.console import tidy_reason
from node.cli.tables import print_text
from node.errors import Refused

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the demo's files and its picture.", metavar="DIR")]
Bundle = Annotated[str, typer.Option("--bundle", help="Bundle to show.")]
Slices = Annotated[int, typer.Option("--slices", min=8, max=400, help="Slices of the phantom.")]
Series = Annotated[
    Path | None,
    typer.Option(
        "--series",
        help="Show this series of your own, a folder of DICOM files, in place of the phantom.",
        exists=True,
        file_okay=False,
        metavar="DIR",
    ),
]
SeriesUid = Annotated[
    str, typer.Option("--series-uid", help="SeriesInstanceUID, where that folder holds several.", metavar="UID")
]
Release = Annotated[
    str, typer.Option("--release", help="Send a HELD result all the same, for this reason.", metavar="REASON")
]
Stay = Annotated[
    bool | None,
    typer.Option("--stay/--no-stay", help="Leave node and page running to look at. Default: on a terminal."),
]


def demo(
    out_dir: Out = Path("demo-out"),
    bundle: Bundle = "demo-1step",
    slices: Slices = 24,
    series: Series = None,
    series_uid: SeriesUid = "",
    release: Release = "",
    stay: Stay = None,
) -> None:
    """Show the whole path on this machine: scanner, node and TPS over DICOM, and a picture of the result.

    Exit code 4 where the node skips or holds the series, so that nothing is sent.
    """
    from node.demo.play import Wish, play

    if series_uid and series is None:
        raise typer.BadParameter("--series-uid chooses a series in a folder: give --series DIR too")
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    stays = is_terminal if stay is None else stay
    reason = tidy_reason(release)
    wish = Wish(out_dir.absolute(), bundle, slices, stays, series, series_uid, reason)
    shown = play(wish, print_text)
    if shown.kept:
        raise Refused(shown.kept)


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(demo)
