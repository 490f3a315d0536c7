"""`process` and `series check` do their work here, on series on disk; this module is loaded only for them."""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.progress import Progress, TaskID

from config.settings import Settings
from node.bootstrap.roles import eligibility_policy
from node.bootstrap.store import Node
from node.bootstrap.worker import job_options, open_executor
from node.cli.console import progress_bar
from node.dicom.headers import SliceHeader, read_header
from node.errors import Permanent, Refused, UnreadableInstance
from node.receive.eligibility import Accept, judge
from node.translate.job import JobResult
from storage.errors import NotFound

Found = dict[str, list[SliceHeader]]


@dataclass(frozen=True)
class Processed:
    """A derived series on disk, and what made it."""

    result: JobResult
    bundle: str
    translator: str


@dataclass(frozen=True)
class Checked:
    """What the eligibility rules decided about one series."""

    series_uid: str
    slices: int
    description: str
    verdict: str
    reason: str


def process_folder(settings: Settings, dicom_dir: Path, out_dir: Path, series_uid: str) -> Processed:
    """Translate one series into `out_dir`; a HELD result is returned and nothing is written.

    Raises Refused where the series is not eligible or `out_dir` is not empty, NotFound without a series, Permanent
    where nothing can be written there.
    """
    paths = _eligible(settings, dicom_dir, series_uid)
    if out_dir.exists() and any(out_dir.iterdir()):
        raise Refused(f"{out_dir} is not empty; derived series are never mixed with other files")
    with progress_bar() as bar, _staging(out_dir) as staging:
        task = bar.add_task("loading the model", total=None)
        executor = open_executor(settings.model)
        work_dir = staging / "series"
        work_dir.mkdir()
        options = job_options(settings, datetime.now(UTC))
        result = executor.run(paths, options, work_dir, _Reporter(bar, task))
        if not result.held_reason:
            shutil.copytree(work_dir, out_dir, dirs_exist_ok=True)
    return Processed(result, executor.bundle, executor.description)


@contextmanager
def _staging(out_dir: Path) -> Iterator[Path]:
    """A folder beside `out_dir` for what is not whole yet; raises Permanent before anything is computed."""
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=".syncect-")
    except OSError as error:
        raise Permanent(f"{out_dir} cannot be written: {error.strerror}") from error
    with folder as name:
        yield Path(name)


def check_folder(settings: Settings, folder: Path) -> tuple[list[Checked], list[str]]:
    """The verdict on every series below a folder, and a sentence for each file that could not be read."""
    found, unreadable = _headers(settings, _files(folder))
    return [_check(settings, uid, headers) for uid, headers in found.items()], unreadable


def check_received(node: Node, series_uid: str) -> Checked:
    """What the eligibility rules decide about a series in the spool; raises NotFound."""
    cases = node.overview.cases(series_uid=series_uid, limit=1)
    if not cases:
        raise NotFound(f"{series_uid} is neither a folder nor a series that was received")
    names = node.series.spool_names(cases[0].series_id)
    found, unreadable = _headers(node.settings, [node.spool.path(name) for name in names])
    if unreadable:
        raise Permanent(unreadable[0])
    return _check(node.settings, series_uid, found[series_uid])


def _check(settings: Settings, uid: str, headers: list[SliceHeader]) -> Checked:
    verdict = judge(headers, eligibility_policy(settings))
    reason = "" if isinstance(verdict, Accept) else verdict.reason
    return Checked(uid, len(headers), headers[0].series_description, type(verdict).__name__.upper(), reason)


class _Reporter:
    """Shows the stage of a job and how far it is."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=stage, completed=done, total=total)


def _eligible(settings: Settings, folder: Path, series_uid: str) -> list[Path]:
    found, unreadable = _headers(settings, _files(folder))
    if series_uid:
        if series_uid not in found:
            raise NotFound(f"{folder} holds no series {series_uid}")
        found = {series_uid: found[series_uid]}
    if not found:
        raise NotFound(no_series(folder, unreadable))
    if len(found) > 1:
        raise typer.BadParameter(f"{folder} holds {len(found)} series; choose one with --series: {', '.join(found)}")
    ((uid, headers),) = found.items()
    verdict = judge(headers, eligibility_policy(settings))
    if not isinstance(verdict, Accept):
        raise Refused(f"series {uid} is not translated: {verdict.reason}")
    return [header.path for header in headers]


def no_series(folder: Path | str, unreadable: Sequence[str]) -> str:
    """A sentence for a folder in which nothing was found, with what is wrong with its first file."""
    return f"{folder} holds no DICOM series" + (f"; {unreadable[0]}" if unreadable else "")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


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
            found[header.series_uid].append(header)
    return dict(found), unreadable
