"""`archive run`, `ls`, `release`: a list of series on a cluster, without receiver, store and couriers."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from config.load import ConfigError
from config.settings import Settings
from node.cli.console import (
    ConfigOption,
    Exit,
    JsonOption,
    ReasonOption,
    operator,
    out,
    print_json,
    print_table,
    say,
    settings_from,
    tidy_reason,
)

if TYPE_CHECKING:
    from node.archive.run import Tally

archive = typer.Typer(no_args_is_help=True, help="Lists of series that are translated on a Ray cluster.")

_START_TRIES = (
    12  # of a cluster of this machine: about ten minutes where it is busy, and nobody is there who starts it again
)

Place = Annotated[
    str, typer.Option("--out", "-o", help="Where results and outcomes go: a folder, or s3://BUCKET/PREFIX.")
]


@archive.command("run")
def run(
    context: typer.Context,
    index: Annotated[Path, typer.Argument(help="Parquet file with a column `source`.", exists=True, dir_okay=False)],
    place: Place,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also what FAILED or was INCOMPLETE before.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Translate each series of a list: the same gate, pixels and UIDs as the node. The same words again go on.

    Every series gets one row in OUT/outcomes.parquet. Exit code 1 if one FAILED, or has no outcome yet; 5 where a PACS
    takes no C-MOVE from here.
    """
    from node.network.no_association import NoAssociation

    try:
        tally = _run(settings_from(context, config), index, _whole(place), retry_failed=retry_failed, quiet=as_json)
    except NoAssociation as failure:
        say(f"syncect: {failure}")
        raise typer.Exit(Exit.UNREACHABLE) from None
    if as_json:
        print_json(
            {
                "total": tally.total,
                "ends": dict(tally.ends),
                "open": tally.total - tally.done,
                "waiting": tally.waiting,
                "series_per_hour": round(tally.series_per_hour, 1),
            }
        )
    if tally.waiting:
        ask = f"`syncect archive ls --out {place} --end WAITING` says why"
        say(f"syncect: {len(tally.waiting)} series have no outcome yet; {ask}, and the same command again goes on")
    if not tally.ended_well:
        raise typer.Exit(Exit.ERROR)


@archive.command("ls")
def ls(
    context: typer.Context,
    place: Place,
    end: Annotated[str, typer.Option("--end", help="Only what ended so, such as FAILED.", metavar="OUTCOME")] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List what became of each series of an archive so far."""
    _require()
    from node.archive.run import list_outcomes

    rows = list_outcomes(settings_from(context, config), _whole(place), end)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["SERIES", "OUTCOME", "SLICES", "SECONDS", "PLACE", "REASON"],
        [
            (
                one["series_uid"] or one["source"],
                one["end"],
                str(one["slices"]),
                f"{one['seconds']:.1f}",
                one["place"],
                one["reason"],
            )
            for one in rows
        ],
    )


@archive.command("release")
def release(
    context: typer.Context,
    series: Annotated[
        list[str], typer.Argument(help="SeriesInstanceUIDs as in `archive ls`, or keys of rows.", metavar="SERIES...")
    ],
    place: Place,
    reason: ReasonOption = "",
    config: ConfigOption = None,
) -> None:
    """Let HELD results count as PRODUCED after a person has looked at them.

    --reason is needed and stands in every image. A second call ends what a killed one has begun, with its words.
    """
    _require()
    from node.archive.release import release as let
    from node.cli.jobs_verbs import CODES, worst_of
    from node.cli.tables import plain
    from node.operate import verbs
    from node.operate.texts import now_utc

    why, settings, codes = tidy_reason(reason), settings_from(context, config), [Exit.OK]
    if not why:
        raise typer.BadParameter("a release overrules a doubt, so say why: --reason TEXT; it stands in every image")
    for one in dict.fromkeys(series):
        try:
            folder = let(settings, _whole(place), one, actor=operator(), reason=why, now=now_utc())
        except verbs.FAILED as error:
            say(f"syncect: {plain(verbs.told(one, error))}")
            codes.append(CODES[next(outcome for kinds, outcome in verbs.FAILURES if isinstance(error, kinds))])
            continue
        say(f"{one}: released; its files are in {folder}")
    if (worst := worst_of(codes)) is not Exit.OK:
        raise typer.Exit(worst)


def _whole(place: str) -> str:
    return place if "://" in place else str(Path(place).absolute())


def _require(*more: str) -> None:
    for name in ("obstore", "pyarrow", *more):
        if find_spec(name) is None:
            raise ConfigError(f'an archive needs the package {name}: pip install "syncect[ray,objects]"')


def _run(settings: Settings, index: Path, place: str, *, retry_failed: bool, quiet: bool) -> "Tally":
    _require("ray")
    from node.archive.permits import permitted
    from node.archive.run import Archive, check_output, read_entries, run_archive
    from node.bootstrap.ray_worker import plan_of
    from node.translate.ray_executor import connected, settle_device, stream

    read_entries(settings, index)  # before a cluster is started, which takes a while
    plan, (ask, constancy) = plan_of(settings), permitted(settings)
    again = frozenset({"FAILED", "INCOMPLETE"}) if retry_failed else frozenset()
    archive = Archive(settings, index, place, ask, constancy, again)
    check_output(archive)

    def show(tally: "Tally") -> None:
        if not quiet:
            out().print(_line(tally), markup=False)

    with _ended_by_sigterm(), connected(plan, _START_TRIES):
        device = settle_device(settings.model.device, plan)
        archive = replace(archive, ask=replace(ask, device=device))
        return run_archive(archive, lambda rows, made, run: stream(rows, made, run, plan, device), show)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM, by which a container or a batch system ends a command, is as Ctrl-C: rows are kept, and Ray is ended."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(tally: "Tally") -> str:
    left = tally.left_s
    ends = ", ".join(f"{count} {end}" for end, count in sorted(tally.ends.items())) or "none ended yet"
    when = "" if left is None or tally.done == tally.total else f", {left / 60:.0f} min left"
    waits = f", {len(tally.waiting)} WAITING" if tally.waiting else ""
    quiet = f"; none ended for {tally.quiet_s / 60:.0f} min" if tally.is_quiet else ""
    return f"{tally.done} of {tally.total} series: {ends}{waits}; {tally.series_per_hour:.0f} per hour{when}{quiet}"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(archive, name="archive")
