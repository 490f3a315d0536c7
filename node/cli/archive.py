"""`archive run`, `archive ls`: a list of series on a cluster, without receiver, store and couriers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from config.load import ConfigError
from config.settings import Settings
from node.cli.console import ConfigOption, Exit, JsonOption, out, print_json, print_table, settings_from

if TYPE_CHECKING:
    from node.archive.run import Tally

archive = typer.Typer(no_args_is_help=True, help="Lists of series that are translated on a Ray cluster.")

Place = Annotated[
    str, typer.Option("--out", "-o", help="Where results and outcomes go: a folder, or s3://BUCKET/PREFIX.")
]


@archive.command("run")
def run(
    context: typer.Context,
    index: Annotated[Path, typer.Argument(help="Parquet file with a column `source`.", exists=True, dir_okay=False)],
    place: Place,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Translate each series of a list: the same gate, pixels and UIDs as the node. The same words again go on.

    Every series gets one row in OUT/outcomes.parquet. Exit code 1 if one FAILED.
    """
    settings = settings_from(context, config)
    tally = _run(settings, index, _whole(place), quiet=as_json)
    if as_json:
        print_json({"total": tally.total, "ends": dict(tally.ends), "series_per_hour": round(tally.series_per_hour, 1)})
    else:
        print_table(["OUTCOME", "SERIES"], [(end, str(count)) for end, count in sorted(tally.ends.items())])
    from node.archive.run import ended_well

    if not ended_well(tally):
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
    from node.archive.places import open_place
    from node.archive.run import read_outcomes

    settings = settings_from(context, config)
    rows = [row for row in read_outcomes(open_place(_whole(place), settings.spool)).values() if end in ("", row["end"])]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["SERIES", "OUTCOME", "SLICES", "SECONDS", "PLACE", "REASON"],
        [
            (one["series_uid"], one["end"], str(one["slices"]), f"{one['seconds']:.1f}", one["place"], one["reason"])
            for one in rows
        ],
    )


def _whole(place: str) -> str:
    return place if "://" in place else str(Path(place).absolute())


def _require() -> None:
    try:
        import obstore  # noqa: F401
        import pyarrow  # noqa: F401
        import ray  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError('an archive needs Ray and obstore: pip install "syncect[ray,objects]"') from error


def _run(settings: Settings, index: Path, place: str, *, quiet: bool) -> "Tally":
    _require()
    from node.archive.run import run_archive
    from node.bootstrap.ray_worker import plan_of
    from node.translate.ray_executor import connected, settle_device, stream

    plan = plan_of(settings)

    def show(tally: "Tally") -> None:
        if not quiet:
            out().print(_line(tally), markup=False)

    with connected(plan):
        device = settle_device(settings.model.device, plan)

        def on_ray(rows: Any, translator: type, made_of: Any) -> Any:
            return stream(rows, translator, made_of, plan, device)

        return run_archive(settings, index, place, on_ray, show)


def _line(tally: "Tally") -> str:
    left = tally.left_s
    ends = ", ".join(f"{count} {end}" for end, count in sorted(tally.ends.items())) or "none ended yet"
    when = "" if left is None or tally.done == tally.total else f", {left / 60:.0f} min left"
    return f"{tally.done} of {tally.total} series: {ends}; {tally.series_per_hour:.0f} per hour{when}"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(archive, name="archive")
