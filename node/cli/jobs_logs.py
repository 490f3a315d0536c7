"""`syncect jobs logs`: what all processes of this host wrote about one series, merged by time."""

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from config.settings import Settings
from node.cli.console import ConfigOption, JsonOption, print_json, reading, say, settings_from, usage, write
from node.operate.texts import moment_before, now_utc, utc_iso, zone_of
from storage.cases import Case, LinkedIds

if TYPE_CHECKING:
    from node.ops.log_reader import Line, LogReader

FOLLOW_S = 0.5

Id = Annotated[str, typer.Argument(help="Job id, or a SeriesInstanceUID, which needs no store.", metavar="ID")]
Since = Annotated[str, typer.Option("--since", help="Written since then: 30m, 2h, 3d, 2026-11-26.", metavar="TIME")]
Follow = Annotated[bool, typer.Option("--follow", help="Go on with what is written from now on, until Ctrl-C.")]


def logs(
    context: typer.Context,
    job_id: Id,
    since: Since = "",
    follow: Follow = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """What the processes of this host wrote about one job, by time."""
    from node.ops.log_files import FOLDER
    from node.ops.log_reader import LogReader, Wanted

    settings = settings_from(context, config)
    with usage():
        begin = utc_iso(moment_before(since, now_utc(), zone_of(settings))) if since else ""
    if "." in job_id:
        ids = {key: frozenset({job_id}) for key in ("series_uid", "derived_series_uid")}
        wanted = Wanted(ids)
    else:
        with reading(context, config) as node:
            case = node.overview.case(job_id)
            wanted = Wanted(_ids(case, node.overview.linked(case)), case.series_uid)
    reader = LogReader(settings.node.data_dir.absolute() / FOLDER, wanted, begin)
    found = reader.read()
    if follow:
        _follow(reader, found, as_json=as_json)
    elif as_json:
        print_json(found)
    else:
        _print(found, as_json=False)
    _tell(job_id, reader, settings, is_empty=not found)


def _ids(case: Case, linked: LinkedIds) -> dict[str, frozenset[str]]:
    """What lines about a case are known by."""
    known: dict[str, list[object]] = {
        "case": [case.id],
        "job": [case.job_id],
        "delivery": [*linked.deliveries],
        "series_uid": [case.series_uid],
        "derived_series_uid": [case.derived_series_uid],
        "series": [case.series_id],
        "association": [*linked.associations],
    }
    return {key: frozenset(str(value) for value in values if value is not None) for key, values in known.items()}


def _follow(reader: "LogReader", found: "list[Line]", *, as_json: bool) -> None:
    while True:
        _print(found, as_json=as_json)
        sys.stdout.flush()
        time.sleep(FOLLOW_S)
        found = reader.read()


def _print(found: "list[Line]", *, as_json: bool) -> None:
    from node.ops.log_lines import console_text

    for line in found:
        write((json.dumps(line) if as_json else console_text(line)) + "\n")


def _tell(job_id: str, reader: "LogReader", settings: Settings, *, is_empty: bool) -> None:
    """What the lines do not show, on standard error."""
    if is_empty:
        since = f" since {reader.since}" if reader.since else ""
        say(f"no line about {job_id}{since} is in {reader.folder}; files read: {len(reader.files)}")
        if not settings.log.files:
            say("log.files = false: the processes of this node keep no log files")
    if reader.damaged:
        say(f"damaged lines that were passed over: {reader.damaged}")
    for words in reader.unreadable:
        say(f"a log file cannot be read: {words}")
    if not settings.node.url().startswith("sqlite"):
        say(
            "processes on other hosts write into the log folder of their own node.data_dir; "
            "this command shows them where it is run there"
        )
