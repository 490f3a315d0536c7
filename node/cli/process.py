"""`process`, `series check` and `demo`: the pipeline without a network, and the whole path with one."""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from config.settings import Settings
from node.bootstrap import Node, eligibility_policy, job_options, open_executor, open_store
from node.cli.console import ConfigOption, Exit, JsonOption, out, print_json, print_table, progress_bar, settings_from
from node.demo.scene import play
from node.dicom.headers import SliceHeader, read_header
from node.errors import Permanent, Refused, UnreadableInstance
from node.ingest.eligibility import Accept, judge
from node.pipeline.run import JobResult
from storage.errors import NotFound

series = typer.Typer(no_args_is_help=True, help="Series as they arrive, before any job.")

Folder = Annotated[Path, typer.Argument(help="Folder of DICOM files.", exists=True, file_okay=False)]
SeriesUid = Annotated[str, typer.Option("--series", help="SeriesInstanceUID, where a folder holds several.")]

Found = dict[str, list[tuple[Path, SliceHeader]]]


def process(
    context: typer.Context,
    dicom_dir: Folder,
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for the derived series; new or empty.")],
    series_uid: SeriesUid = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Translate one series on disk: the same gate, pixels and UIDs as the node, without network or database."""
    settings = settings_from(context, config)
    paths = _eligible(settings, dicom_dir, series_uid)
    if out_dir.exists() and any(out_dir.iterdir()):
        raise Refused(f"{out_dir} is not empty; derived series are never mixed with other files")
    with progress_bar() as bar:
        task = bar.add_task("loading the model", total=None)
        executor = open_executor(settings.model)
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=".syncect-") as staging:
            work_dir = Path(staging) / "series"
            work_dir.mkdir()
            options = job_options(settings, repeat=0, produced_at=datetime.now(UTC))
            result = executor.run(paths, options, work_dir, _Reporter(bar, task))
            if not result.held_reason:
                shutil.copytree(work_dir, out_dir, dirs_exist_ok=True)
    _report(result, out_dir, executor.bundle, executor.description, as_json=as_json)


class _Reporter:
    """Shows the stage of a job and how far it is."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=stage, completed=done, total=total)


def _report(result: JobResult, out_dir: Path, bundle: str, description: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "series_uid": result.series_uid,
                "study_uid": result.study_uid,
                "bundle": bundle,
                "translator": description,
                "held_reason": result.held_reason,
                "measurements": result.measurements,
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
                ("bundle", f"{bundle}, {description}"),
                *((key, f"{value:.4g}") for key, value in result.measurements.items()),
                ("written to", str(out_dir)),
            ],
        )


@series.command("check")
def check(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Folder of DICOM files, or SeriesInstanceUID of a received series.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Would this series be translated, and if not, why; nothing is run. Exit code 4 if none would be."""
    settings = settings_from(context, config)
    folder = Path(source)
    if folder.is_dir():
        found, unreadable = _scan(settings, folder)
    else:
        with open_store(settings) as node:
            found, unreadable = _received(node, source), []
    rows = []
    for uid, members in found.items():
        verdict = judge([header for _, header in members], eligibility_policy(settings))
        rows.append(
            {
                "series_uid": uid,
                "slices": len(members),
                "description": members[0][1].series_description,
                "verdict": type(verdict).__name__.upper(),
                "reason": "" if isinstance(verdict, Accept) else verdict.reason,
            }
        )
    if as_json:
        print_json({"series": rows, "unreadable": unreadable})
    else:
        print_table(
            ["SERIES", "SLICES", "VERDICT", "REASON"],
            [(str(row["series_uid"]), str(row["slices"]), str(row["verdict"]), str(row["reason"])) for row in rows],
        )
        for sentence in unreadable:
            out().print(f"not read: {sentence}", markup=False)
    if not any(row["verdict"] == "ACCEPT" for row in rows):
        raise typer.Exit(Exit.REFUSED)


def demo(
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for the demo's files and its picture.")] = Path(
        "demo-out"
    ),
    bundle: Annotated[str, typer.Option("--bundle", help="Bundle to show.")] = "demo",
    slices: Annotated[int, typer.Option("--slices", min=8, max=400)] = 24,
) -> None:
    """Show the whole path on this machine: scanner, node and TPS over DICOM, and a picture of the result."""
    console = out()
    result = play(out_dir.absolute(), lambda line: console.print(line, markup=False), slices=slices, bundle=bundle)
    for sentence in result.checks:
        console.print(f"   checked: {sentence}", markup=False)
    console.print(f"5. look at the picture: {result.picture}", markup=False, soft_wrap=True)


def _eligible(settings: Settings, folder: Path, series_uid: str) -> list[Path]:
    """Files of the one series to translate; raises Refused with the reason where the gate says no."""
    found, unreadable = _scan(settings, folder)
    if series_uid:
        if series_uid not in found:
            raise NotFound(f"{folder} holds no series {series_uid}")
        found = {series_uid: found[series_uid]}
    if not found:
        detail = f"; {unreadable[0]}" if unreadable else ""
        raise NotFound(f"{folder} holds no DICOM series{detail}")
    if len(found) > 1:
        raise typer.BadParameter(f"{folder} holds {len(found)} series; choose one with --series: {', '.join(found)}")
    ((uid, members),) = found.items()
    verdict = judge([header for _, header in members], eligibility_policy(settings))
    if not isinstance(verdict, Accept):
        raise Refused(f"series {uid} is not translated: {verdict.reason}")
    return [path for path, _ in members]


def _scan(settings: Settings, folder: Path) -> tuple[Found, list[str]]:
    """Series below a folder, and a sentence for each file that could not be read."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return _headers(settings, paths)


def _received(node: Node, series_uid: str) -> Found:
    cases = node.overview.cases(series_uid=series_uid, limit=1)
    if not cases:
        raise NotFound(f"{series_uid} is neither a folder nor a series that was received")
    names = node.series.spool_names(cases[0].series_id)
    found, unreadable = _headers(node.settings, [node.spool.path(name) for name in names])
    if unreadable:
        raise Permanent(unreadable[0])
    return found


def _headers(settings: Settings, paths: Sequence[Path]) -> tuple[Found, list[str]]:
    found: Found = defaultdict(list)
    unreadable = []
    keywords = eligibility_policy(settings).keywords
    with progress_bar() as bar:
        for path in bar.track(paths, description="reading headers"):
            try:
                header = read_header(path, keywords=keywords)
            except UnreadableInstance as error:
                unreadable.append(f"{path.name}: {error}")
                continue
            found[header.series_uid].append((path, header))
    return dict(found), unreadable


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(process)
    app.command()(demo)
    app.add_typer(series, name="series")
