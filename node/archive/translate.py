"""One series of an archive from its place to its result: what an actor does with an entry. Ray is not known here.

The gate, the pixels, the judgement of the result and the UIDs are those of the node. A series that is done twice gives
the same files under the same names, because the moment of production is that of the run.
"""

import hashlib
import logging
import os
import socket
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from config.settings import Settings
from models.translator import DeviceFault
from node.archive.index import Entry
from node.archive.outcome import End, Outcome
from node.archive.places import fetch_all, open_place
from node.bootstrap.roles import eligibility_policy
from node.bootstrap.worker import open_executor
from node.dicom.headers import SliceHeader
from node.errors import Doubtful, NodeError, Permanent, Retryable
from node.operate.judged import headers_of
from node.receive.eligibility import Accept, Incomplete, judge
from node.translate.job import JobOptions, JobResult, join_reasons
from storage.errors import ObjectsUnavailable

log = logging.getLogger(__name__)

MAX_BEGINS: Final = 4
"""So often a series may be begun and not ended, because process or host ended, before it is FAILED and begun no more."""
PAUSES_S: Final = (2.0, 10.0, 30.0, 60.0)
"""Between the tries of a series whose object store or disk does not answer."""


@dataclass(frozen=True)
class Run:
    """What all series of a run share. out: the URL of the output. options: those of every job, with one moment."""

    settings: Settings
    out: str
    options: JobOptions


class ArchiveTranslator:
    """Made once in each actor, with the bundle loaded; called with a row of the index, it gives a row of outcome."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._out = open_place(run.out, run.settings.spool)
        self._policy = eligibility_policy(run.settings)
        self._executor = open_executor(run.settings.model)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Translate one series. Raises ObjectsUnavailable and Retryable after several tries, which ends the run."""
        entry, begun_s = Entry(str(row["source"]), str(row["series_uid"])), time.monotonic()
        for pause_s in (*PAUSES_S, 0.0):
            try:
                outcome = self._once(entry)
                return replace(outcome, key=entry.key, seconds=round(time.monotonic() - begun_s, 3)).row()
            except (ObjectsUnavailable, Retryable, OSError) as error:
                log.warning("a series of the archive waits: %s", type(error).__name__, extra={"event": "archive_waits"})
                if not pause_s:
                    raise
                time.sleep(pause_s)
        raise AssertionError  # the last pause is 0

    def _once(self, entry: Entry) -> Outcome:
        mark = self._begin(entry)
        if mark is None:
            return self._of(entry, End.FAILED, f"processes ended {MAX_BEGINS} times while they worked on it")
        try:
            return self._translate(entry)
        except DeviceFault:
            log.exception("the device failed; another actor goes on", extra={"event": "archive_device_failed"})
            os._exit(1)  # with the mark left: nothing that this process computes is to be trusted any more
        finally:
            self._out.delete([mark])

    def _begin(self, entry: Entry) -> str | None:
        """Leave a mark that this series is in hand; None where too many are left of processes that ended."""
        left = {found.key for found in self._out.list(f"begun/{entry.key}")}
        free = (f"begun/{entry.key}/{number}" for number in range(MAX_BEGINS))
        mark = next((one for one in free if one not in left), None)
        if mark is not None:
            self._out.put(mark, socket.gethostname().encode())
        return mark

    def _translate(self, entry: Entry) -> Outcome:
        try:
            place = open_place(entry.source, self._run.settings.spool)
            with tempfile.TemporaryDirectory(prefix="syncect-archive-") as name:
                folder = Path(name, "source")
                folder.mkdir()
                return self._of_files(entry, fetch_all(place, folder), Path(name, "made"))
        except Doubtful as error:
            return self._of(entry, End.HELD, str(error))
        except Permanent as error:
            return self._of(entry, End.FAILED, str(error))
        except (ObjectsUnavailable, NodeError, DeviceFault, OSError):
            raise
        except Exception as error:  # the process boundary: one unusual series must not stop the others
            log.exception("a series of the archive ended with an unexpected error", extra={"event": "archive_crashed"})
            return self._of(entry, End.FAILED, f"unexpected {type(error).__name__}; the actor's log has the details")

    def _of_files(self, entry: Entry, files: list[Path], made: Path) -> Outcome:
        found, unreadable = headers_of(self._run.settings, files, iter)
        uid, headers = _chosen(entry, found, len(unreadable))
        verdict = judge(headers, self._policy)
        if not isinstance(verdict, Accept):
            end = End.INCOMPLETE if isinstance(verdict, Incomplete) else End.SKIPPED
            return self._of(replace(entry, series_uid=uid), end, verdict.reason, slices=len(headers))
        made.mkdir()
        paths = list(dict.fromkeys(header.path for header in headers))
        result = self._executor.run(paths, self._run.options, made, _nothing)
        held = join_reasons(verdict.doubt, result.held_reason)
        return self._put(replace(entry, series_uid=uid), result, held, slices=len(headers))

    def _put(self, entry: Entry, result: JobResult, held: str | None, *, slices: int) -> Outcome:
        """Put the files; those of a result that is held lie apart, where nobody takes them for a finished one."""
        place = f"{'held' if held else 'series'}/{result.series_uid}"
        digest = hashlib.sha256()
        for one in result.files:
            self._out.put(f"{place}/{one.path.name}", one.path.read_bytes())
            digest.update(one.sha256.encode())
        return replace(
            self._of(entry, End.HELD if held else End.PRODUCED, held or "", slices=slices),
            derived_series_uid=result.series_uid,
            study_uid=result.study_uid,
            place=place,
            sha256=digest.hexdigest(),
        )

    def _of(self, entry: Entry, end: End, reason: str, *, slices: int = 0) -> Outcome:
        return Outcome(
            key="",
            source=entry.source,
            series_uid=entry.series_uid,
            end=end.value,
            reason=reason,
            derived_series_uid="",
            study_uid="",
            place="",
            slices=slices,
            sha256="",
            bundle=self._executor.bundle,
            translator=self._executor.description,
            host=socket.gethostname(),
            seconds=0.0,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _chosen(entry: Entry, found: dict[str, list[SliceHeader]], unreadable: int) -> tuple[str, list[SliceHeader]]:
    """The series that an entry means; raises Permanent."""
    if entry.series_uid:
        if entry.series_uid not in found:
            raise Permanent(f"the source holds no series {entry.series_uid} ({unreadable} files were not read)")
        return entry.series_uid, found[entry.series_uid]
    if len(found) != 1:
        held = f"holds {len(found)} series" if found else "holds no DICOM series"
        raise Permanent(f"the source {held}, and the index names none ({unreadable} files were not read)")
    ((uid, headers),) = found.items()
    return uid, headers


def _nothing(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches a single series of an archive."""
