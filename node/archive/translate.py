"""One series of an archive from its place to its result: what an actor does with an entry. Ray is not known here.

The gate, the pixels, the judgement of the result and the UIDs are those of the node. A series that is done twice gives
the same files under the same names, because the moment of production is that of the run. What has to be said to the
driver goes as a value: Ray would log the text of an exception.
"""

import json
import logging
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from config.settings import Settings
from models.translator import DeviceFault
from node.archive.guard import Guard
from node.archive.index import BUCKET, DICOMWEB, Entry, folder_of
from node.archive.moved import Lacking, move
from node.archive.outcome import End, Outcome, digest_of
from node.archive.pacs import Busy, retrieve, server_of
from node.bootstrap.constancy import environment_of, why_missing
from node.bootstrap.places import fetch_all, open_place, read
from node.bootstrap.roles import eligibility_policy
from node.errors import Doubtful, Misconfigured, Permanent, Retryable
from node.operate.judged import headers_of
from node.receive.eligibility import Accept, Incomplete, judge
from node.translate.carried import BundleAsk, CarriedJobs
from node.translate.job import Executor, JobOptions, JobResult, join_reasons
from node.translate.loaded import ExecutorUnavailable
from storage.constancy import ConstancyView
from storage.errors import ObjectsUnavailable

log = logging.getLogger(__name__)

MAX_BEGINS: Final = 4
"""Processes that may end, in one start of the driver, while they have one series in hand; then it is FAILED."""
MAX_BEGINS_IN_ALL: Final = 12
"""The same over all starts of the driver, which a host takes with it when it ends."""
PAUSES_S: Final = (2.0, 10.0, 30.0, 60.0)
"""Between the tries of a series whose object store or disk does not answer."""
MOST_ASKED_S: Final = 600.0
"""The longest such pause that a DICOMweb server gets which asks for one (Retry-After)."""
ARITHMETIC: Final = "arithmetic"
_OFTEN_BYTES: Final = 256 << 20  # of a series whose size nobody says
_ROOM: Final = 4  # times the bytes of the sources: they, the result of the same size, and as much again

ANSWER, OPEN, STOP = "outcome", "open", "stop"
"""What a row comes back with: its outcome (JSON); one that is WAITING (JSON); why no other would have one either."""


@dataclass(frozen=True)
class Run:
    """What all series of a run share.

    out: the URL of the output. options: those of every job, with one moment. start: of the driver, hex, at random.
    constancy: runs with this bundle, None where the settings ask for none.
    """

    settings: Settings
    out: str
    options: JobOptions
    ask: BundleAsk
    start: str
    constancy: tuple[ConstancyView, ...] | None = None


class _OutputAway(Exception):
    """The output cannot be read or written; the sentence says why."""


class ArchiveTranslator:
    """Made once in each actor; called with a row of the index, it gives ANSWER, OPEN or STOP and the key of the row."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._out = open_place(run.out, run.settings.spool)
        self._policy = eligibility_policy(run.settings)
        self._jobs = CarriedJobs()
        self._me = f"{run.start}.{uuid.uuid4().hex}"
        self._is_known = False

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Translate one series, with several tries where something does not answer; raises nothing that is meant."""
        _guard()
        entry, begun_s = Entry(row["source"], row["series_uid"], row["study_uid"]), time.monotonic()
        kind, why, lacks, asked_s = "", "", False, 0.0
        for pause_s in (0.0, *PAUSES_S):
            time.sleep(max(pause_s, asked_s))
            asked_s = 0.0
            try:
                return _ended(self._once(entry), begun_s)
            except ExecutorUnavailable as error:
                kind, why, lacks = STOP, str(error), False
                break
            except Misconfigured as error:
                kind, why, lacks = STOP, str(error), False
            except _OutputAway as error:
                kind, why, lacks = STOP, f"the output: {error}", False
            except (ObjectsUnavailable, Retryable, OSError) as error:
                kind, why, lacks = OPEN, _words(error), isinstance(error, Lacking)
                asked_s = min(error.wait_s, MOST_ASKED_S) if isinstance(error, Busy) else 0.0
            log.warning("series %s of the archive waits: %s", entry.key, why, extra={"event": "archive_waits"})
        with suppress(_OutputAway):
            self._forget(entry)
        if kind == STOP:
            return {"key": entry.key, "kind": STOP, "text": why}
        if lacks:
            return _ended(self._of(entry, End.INCOMPLETE, why), begun_s)
        return _ended(self._of(entry, End.WAITING, why), begun_s, OPEN)

    def _once(self, entry: Entry) -> Outcome:
        others = self._begun_by_others(entry)
        if len(others) >= MAX_BEGINS_IN_ALL or sum(one.startswith(self._run.start) for one in others) >= MAX_BEGINS:
            return self._of(entry, End.FAILED, f"processes ended {len(others)} times while they worked on it")
        executor = self._executor(careful=bool(others))
        try:
            outcome = self._translate(entry, executor)
        except DeviceFault:
            log.exception("the device failed; another actor goes on", extra={"event": "archive_device_failed"})
            os._exit(1)  # with the mark left: nothing that this process computes is to be trusted any more
        self._forget(entry)
        return replace(outcome, bundle=executor.bundle, translator=executor.description)

    # -- the output ----------------------------------------------------------------------------------------------

    def _begun_by_others(self, entry: Entry) -> list[str]:
        """Leave a mark that this series is in hand; returns what marks there are of processes that did not end it."""
        with _asking_the_output():
            names = [Path(found.key).name for found in self._out.list(f"begun/{entry.key}")]
            self._out.put(f"begun/{entry.key}/{self._me}", socket.gethostname().encode())
        return [name for name in names if name != self._me]

    def _forget(self, entry: Entry) -> None:
        with _asking_the_output():
            self._out.delete([f"begun/{entry.key}/{self._me}"])

    def _put(self, place: str, folder: Path) -> None:
        with _asking_the_output():
            for path in sorted(folder.iterdir()):
                self._out.put(f"{place}/{path.name}", path.read_bytes())

    def _executor(self, *, careful: bool) -> Executor:
        """The bundle as all actors of the run have it. careful: one slice at a time, after a process that ended."""
        ask = replace(self._run.ask, careful=careful)
        if not self._is_known:
            self._jobs.hello(ask)
        executor = Executor(ask.label, self._jobs.translator(ask))
        if not self._is_known:
            self._compare(executor.arithmetic)
            if self._run.constancy is not None:
                days, now = self._run.settings.model.constancy_days, datetime.now(UTC)
                if why := why_missing(self._run.constancy, environment_of(executor), days, now):
                    raise ExecutorUnavailable(why)
            self._is_known = True
        return executor

    def _compare(self, mine: str) -> None:
        """See that one output is of one arithmetic: another one has other bits, and other UIDs."""
        with _asking_the_output():
            self._out.put_new(ARITHMETIC, mine.encode())
            theirs = read(self._out, ARITHMETIC).decode(errors="replace")
        if theirs != mine:
            raise ExecutorUnavailable(
                f"this output was begun with {theirs}, and an actor computes with {mine}; give the run GPUs of one "
                "kind, or another output"
            )

    # -- one series ----------------------------------------------------------------------------------------------

    def _translate(self, entry: Entry, executor: Executor) -> Outcome:
        try:
            with self._fetched(entry) as (files, made):
                return self._of_files(entry, executor, files, made)
        except Doubtful as error:
            return self._of(entry, End.HELD, str(error))
        except Misconfigured:
            raise
        except Permanent as error:
            return self._of(entry, End.FAILED, str(error))
        except (_OutputAway, ObjectsUnavailable, Retryable, DeviceFault, OSError):
            raise
        except Exception as error:  # the process boundary: one unusual series must not stop the others
            name = type(error).__name__  # and not its text, which may quote a value of the source
            log.error("series %s of the archive: unexpected %s", entry.key, name, extra={"event": "archive_crashed"})
            return self._of(entry, End.FAILED, f"unexpected {name} in an actor")

    @contextmanager
    def _fetched(self, entry: Entry) -> Iterator[tuple[list[Path], Path]]:
        """The files of a source, under names of our own, and an empty folder for what is made of them."""
        if entry.is_of_pacs:
            room, fetch = _ROOM * _OFTEN_BYTES, partial(self._from_pacs, entry)
        else:
            _refuse_missing(entry)
            place = open_place(entry.source, self._run.settings.spool)
            found = sorted(place.list(""), key=lambda one: one.key)
            room, fetch = _ROOM * sum(one.size_bytes for one in found), partial(fetch_all, place, found)
        with tempfile.TemporaryDirectory(dir=self._jobs.folder(room)) as name:
            source, made = Path(name, "source"), Path(name, "made")
            source.mkdir()
            made.mkdir()
            yield fetch(source), made

    def _from_pacs(self, entry: Entry, folder: Path) -> list[Path]:
        """All images of a series as files in an empty folder; never only a part of them."""
        if entry.source.startswith(DICOMWEB):
            return retrieve(server_of(self._run.settings, entry), entry, folder)
        names = move(self._run.settings, entry)
        with _asking_the_output():
            found = [one for one in map(self._out.head, names) if one is not None]
        if len(found) < len(names):
            missing = len(names) - len(found)
            raise Lacking(f"{missing} of the {len(names)} images that the PACS lists did not arrive")
        files = fetch_all(self._out, found, folder)
        with _asking_the_output():
            self._out.delete(names)
        return files

    def _of_files(self, entry: Entry, executor: Executor, files: list[Path], made: Path) -> Outcome:
        found, unreadable = headers_of(self._run.settings, files, iter)
        unread = len(unreadable)
        if not entry.series_uid and len(found) != 1:
            held = f"{len(found)} series, and the index names none" if found else "no DICOM series"
            return self._of(entry, End.FAILED, f"the source holds {held}", unread=unread)
        uid = entry.series_uid or next(iter(found))
        if uid not in found:
            return self._of(entry, End.FAILED, "the source does not hold this series", unread=unread)
        headers = found[uid]
        verdict = judge(headers, self._policy)
        if not isinstance(verdict, Accept):
            end = End.INCOMPLETE if isinstance(verdict, Incomplete) else End.SKIPPED
            outcome = self._of(entry, end, verdict.reason)
        else:
            paths = list(dict.fromkeys(header.path for header in headers))
            with _guard().steps(len(headers)) as step:
                result = executor.run(paths, self._run.options, made, step)
            outcome = self._of_result(entry, result, join_reasons(verdict.doubt, result.held_reason))
            self._put(outcome.place, made)
        return replace(outcome, series_uid=uid, slices=len(headers), unread=unread)

    def _of_result(self, entry: Entry, result: JobResult, held: str | None) -> Outcome:
        """What is held lies apart, where nobody takes it for a finished result."""
        return replace(
            self._of(entry, End.HELD if held else End.PRODUCED, held or ""),
            derived_series_uid=result.series_uid,
            study_uid=result.study_uid,
            place=f"{'held' if held else 'series'}/{result.series_uid}",
            sha256=digest_of(one.sha256 for one in result.files),
        )

    def _of(self, entry: Entry, end: End, reason: str, *, unread: int = 0) -> Outcome:
        return Outcome(
            key=entry.key,
            source=entry.source,
            series_uid=entry.series_uid,
            end=end.value,
            reason=reason,
            derived_series_uid="",
            study_uid=entry.study_uid,
            place="",
            slices=0,
            unread=unread,
            sha256="",
            bundle=self._run.ask.label,
            translator="",
            host=socket.gethostname(),
            seconds=0.0,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _refuse_missing(entry: Entry) -> None:
    """Raise Permanent for a folder that is missing beside others; with none beside it a share may not be mounted."""
    folder = folder_of(entry.source)
    if entry.source.startswith(BUCKET) or folder.is_dir() or not folder.parent.is_dir():
        return
    with os.scandir(folder.parent) as others:
        if any(others):
            raise Permanent("there is no such folder, and there are others beside it")


@contextmanager
def _asking_the_output() -> Iterator[None]:
    try:
        yield
    except (ObjectsUnavailable, OSError) as error:
        raise _OutputAway(_words(error)) from error


def _words(error: Exception) -> str:
    """Of the system's errors only what it answered: the name of a file may be a patient's."""
    return (error.strerror or "it cannot be read") if isinstance(error, OSError) else str(error)


def _ended(outcome: Outcome, begun_s: float, kind: str = ANSWER) -> dict[str, str]:
    seconds = round(time.monotonic() - begun_s, 3)
    return {"key": outcome.key, "kind": kind, "text": json.dumps(replace(outcome, seconds=seconds).row())}


@cache
def _guard() -> Guard:
    """Of this process, from its first series on."""
    return Guard(os.getpid())
