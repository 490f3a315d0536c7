"""`process` and `series check` do their work here, on series on disk; this module is loaded only for them."""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.progress import Progress, TaskID

from config.settings import Settings
from config.syntax import FOREIGN_UID
from node.bootstrap.roles import eligibility_policy
from node.bootstrap.worker import job_options, open_executor
from node.cli.console import progress_bar
from node.dicom.companions.kinds import KINDS
from node.dicom.companions.make import CompanionMaker
from node.dicom.profiles.checks import Values
from node.dicom.profiles.load import Breach, Profile, broken_rules
from node.dicom.profiles.read import read_values
from node.dicom.uids import UidFactory
from node.errors import Permanent, Refused, UnreadableInstance
from node.operate.judged import Checked, Found, headers_of, judged
from node.receive.eligibility import Accept, judge
from node.receive.gate_rule import Outcome
from node.receive.rules import RULES
from node.translate.job import JobResult, join_reasons
from storage.errors import NotFound


@dataclass(frozen=True)
class Processed:
    """A derived series on disk, and what made it; companions: their files, relative to its folder."""

    result: JobResult
    bundle: str
    translator: str
    companions: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleRow:
    """One rule of the input gate as a reader sees it; words: what it looks for, where it is a list of words."""

    code: str
    outcome: str
    attributes: tuple[str, ...]
    words: tuple[str, ...]
    reason: str
    source: str


def rule_rows(settings: Settings) -> list[RuleRow]:
    """The rules that count at this site, in the order in which they are asked; its own come last."""
    policy = eligibility_policy(settings)
    built_in = [
        RuleRow(rule.code, rule.outcome.value, rule.attributes, getattr(rule, "words", ()), rule.reason, rule.source)
        for rule in RULES
        if policy.asks(rule)
    ]
    own = [
        RuleRow("site_rule", Outcome.SKIP.value, (rule.keyword,), (rule.op, *rule.values), rule.reason, "the settings")
        for rule in policy.rules
    ]
    return built_in + own


def process_folder(
    settings: Settings, dicom_dir: Path, out_dir: Path, series_uid: str, *, with_companions: bool = False
) -> Processed:
    """Translate one series into `out_dir`; a HELD result is returned and nothing is written.

    with_companions: make every object beside the images that there can be of the result.

    Raises Refused where the series is not eligible or `out_dir` is not empty, NotFound without a series, Permanent
    where nothing can be written there.
    """
    paths, doubt = _eligible(settings, dicom_dir, series_uid)
    if out_dir.exists() and any(out_dir.iterdir()):
        raise Refused(f"{out_dir} is not empty; derived series are never mixed with other files")
    with progress_bar() as bar, _staging(out_dir) as staging:
        task = bar.add_task("loading the model", total=None)
        executor = open_executor(settings.model)
        work_dir = staging / "series"
        work_dir.mkdir()
        options = job_options(settings, datetime.now(UTC))
        result = executor.run(paths, options, work_dir, _Reporter(bar, task))
        result = replace(result, held_reason=join_reasons(doubt, result.held_reason))
        companions = _companions(work_dir, options.uids, result) if with_companions and not result.held_reason else []
        if not result.held_reason:
            shutil.copytree(work_dir, out_dir, dirs_exist_ok=True)
    made = tuple(str(path.relative_to(work_dir)) for path in companions)
    return Processed(result, executor.bundle, executor.description, made)


def _companions(folder: Path, uids: UidFactory, result: JobResult) -> list[Path]:
    maker = CompanionMaker(folder, uids, result.measurements)
    return [maker.make(kind).path for kind in maker.choose(tuple(KINDS))]


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


def headers_below(settings: Settings, folder: Path) -> tuple[Found, list[str]]:
    """The headers of every series below a folder, and a sentence for each file that could not be read."""
    return headers_of(settings, _files(folder), _with_bar)


def check_folder(settings: Settings, folder: Path) -> tuple[list[Checked], list[str]]:
    """The verdict on every series below a folder, and a sentence for each file that could not be read."""
    found, unreadable = headers_below(settings, folder)
    return [judged(settings, uid, headers) for uid, headers in found.items()], unreadable


@dataclass(frozen=True)
class Preflight:
    """What a destination's profile says of one series; breaches: each rule that it breaks, in words of its own."""

    series_uid: str
    slices: int
    verdict: str
    breaches: tuple[Breach, ...]


def preflight_folder(profile: Profile, folder: Path) -> tuple[list[Preflight], list[str]]:
    """What a profile says of every series below a folder, and a sentence for each file that could not be read.

    Companions are left out: the profile is about images.
    """
    beside = {kind.sop_class_uid for kind in KINDS.values()}
    found: dict[str, list[Values]] = defaultdict(list)
    unreadable = []
    for path in _with_bar(_files(folder)):
        try:
            header = read_values(path, (*profile.keywords, "SeriesInstanceUID", "SOPClassUID"))
        except UnreadableInstance as error:
            unreadable.append(f"{path.name}: {error}")
            continue
        if "".join(header.get("SOPClassUID", ())) not in beside:
            found["".join(header.get("SeriesInstanceUID", ()))].append(header)
    return [_preflight(profile, uid, headers) for uid, headers in found.items()], unreadable


def _preflight(profile: Profile, series_uid: str, headers: Sequence[Values]) -> Preflight:
    breaches = tuple(broken_rules(profile, headers))
    shown = series_uid if FOREIGN_UID.fullmatch(series_uid) else ""
    return Preflight(shown, len(headers), "REFUSED" if breaches else "PASSED", breaches)


class _Reporter:
    """Shows the stage of a job and how far it is."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=stage, completed=done, total=total)


def _eligible(settings: Settings, folder: Path, series_uid: str) -> tuple[list[Path], str]:
    """The files of the one series to translate, and why its result must be looked at, or ""."""
    found, unreadable = headers_below(settings, folder)
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
    return list(dict.fromkeys(header.path for header in headers)), verdict.doubt


def no_series(folder: Path | str, unreadable: Sequence[str]) -> str:
    """A sentence for a folder in which nothing was found, with what is wrong with its first file."""
    return f"{folder} holds no DICOM series" + (f"; {unreadable[0]}" if unreadable else "")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _with_bar(paths: Sequence[Path]) -> Iterator[Path]:
    with progress_bar() as bar:
        yield from bar.track(paths, description="reading headers")
