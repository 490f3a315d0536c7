"""Compares the spool with the store, file by file, and mends what can be mended; both while the node runs."""

import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from node.ops.retention import ORPHAN_AFTER
from storage.database import Database
from storage.errors import StorageError
from storage.inventory import Inventory, KeptFile
from storage.jobs import JobStore
from storage.outbox import OutboxStore
from storage.overview import Overview
from storage.series import SeriesStore
from storage.shared_spool import MANIFEST, SharedSpool
from storage.spool import Condition, Spool

IN_FLIGHT: Final = timedelta(minutes=10)
"""A file lies in the spool before its row is written; only an older one without a row belongs to nobody."""
GLANCE_AT: Final = 2000  # files of each kind
UNPUBLISHED: Final = timedelta(hours=1)
_ASKED_AT_ONCE: Final = 500  # names in one query

# States in which somebody still needs the files of a result.
_NEEDED: Final = ("PRODUCED", "SENDING", "FAILED", "HELD")


@dataclass(frozen=True)
class SpoolFinding:
    """One thing that is not as the store says.

    kind: "received" or "result", a file of either that is gone, damaged or unreadable; "unshared", one that lies here
    and not in the object store of the settings; "found", a file that had been lost and is there again; "waiting", one
    that is lost and must be sent again; "orphan", what no row refers to.
    name: relative to the spool.
    """

    kind: str
    condition: str
    name: str
    job: str = ""
    sop_instance_uid: str = ""
    series_id: int = 0
    job_id: int | None = None


@dataclass(frozen=True)
class Repair:
    """What was done about a finding, in words."""

    finding: SpoolFinding
    done: str


class SpoolCheck:
    """One spool and its store; `verify` changes nothing."""

    def __init__(self, spool: Spool, database: Database) -> None:
        self._shared = spool if isinstance(spool, SharedSpool) else None
        self._spool, self._inventory, self._series = spool, Inventory(database), SeriesStore(database)
        self._jobs, self._outbox, self._overview = JobStore(database), OutboxStore(database), Overview(database)
        self._differed: dict[str, KeptFile] = {}  # by their names, what `verify` found

    def count(self) -> int:
        """How many files `verify` reads."""
        return self._inventory.count()

    def verify(self, now: datetime, progress: Callable[[], None] = lambda: None) -> Iterator[SpoolFinding]:
        """Every finding; `progress` is called after each file that was read."""
        for kept in self._inventory.files():
            if (condition := self._condition(kept)) is not Condition.INTACT:
                self._differed[kept.name] = kept
                yield _finding("received" if kept.job_id is None else "result", condition, kept)
            elif self._is_unshared(kept) and self._inventory.still_wants(kept):
                yield _finding("unshared", "not in the object store", kept)
            progress()
        yield from self._lost()
        yield from self._orphans(now)

    def glance(self, until_s: float) -> tuple[int, list[KeptFile]]:
        """How many of the newest kept files were looked for, and which are gone or have another size; none is read.

        until_s: monotonic time at which to stop looking.
        """
        looked, missing = 0, []
        for kept in self._inventory.newest(GLANCE_AT):
            if time.monotonic() > until_s:
                break
            looked += 1
            if not self._is_there(kept) and self._inventory.still_wants(kept) and not self._is_there(kept):
                missing.append(kept)
        return looked, missing

    def _is_unshared(self, kept: KeptFile) -> bool:
        return self._shared is not None and not self._shared.has(kept.name, kept.size_bytes)

    def _is_there(self, kept: KeptFile) -> bool:
        try:
            found = self._spool.path(kept.name).lstat()
        except OSError:
            return self._shared is not None and self._shared.has(kept.name, kept.size_bytes)
        return stat.S_ISREG(found.st_mode) and kept.size_bytes in (None, found.st_size)

    def _condition(self, kept: KeptFile) -> Condition:
        condition = self._spool.examine(kept.name, kept.sha256, kept.size_bytes)
        if condition is Condition.INTACT or not self._inventory.still_wants(kept):
            return Condition.INTACT
        return self._spool.examine(kept.name, kept.sha256, kept.size_bytes)  # it may have been restored meanwhile

    def _lost(self) -> Iterator[SpoolFinding]:
        for series_id in self._inventory.waiting_series():
            for one in self._series.lost_sources(series_id):
                condition = self._spool.examine(one.spool_name, one.sha256, one.size_bytes)
                kind = "found" if condition is Condition.INTACT else "waiting"
                yield SpoolFinding(kind, condition, one.spool_name, str(series_id), one.sop_instance_uid, series_id)

    def _orphans(self, now: datetime) -> Iterator[SpoolFinding]:
        old = [
            name for day in self._spool.received_files(older_than=now - IN_FLIGHT) for name in day
        ]  # before the rows are read: a file is older than its row
        known = self._inventory.known_names()
        for name in old:
            if name not in known:
                yield SpoolFinding("orphan", "no row refers to it", name)
        if self._shared is not None:
            yield from self._orphan_objects(now, known)
        for name, job_id in self._spool.result_folders(older_than=now - UNPUBLISHED).items():
            if not self._jobs.refers_to(job_id, name):
                yield SpoolFinding("orphan", "no job refers to it", name, job_id=job_id)

    def _orphan_objects(self, now: datetime, known: set[str]) -> Iterator[SpoolFinding]:
        """What lies in the object store without a row; what came there since `known` was read is too young."""
        for names in self._spool.shared_files(older_than=now - IN_FLIGHT):
            for name in names:
                if name not in known and not self._spool.path(name).exists():
                    yield SpoolFinding("orphan", "no row refers to it in the object store", name)
        for name, job_id in self._spool.shared_results(older_than=now - UNPUBLISHED).items():
            if not self._jobs.refers_to(job_id, name) and not self._spool.path(name).exists():
                yield SpoolFinding("orphan", "no job refers to it in the object store", name, job_id=job_id)

    # -- the object store --------------------------------------------------------------------------------------

    def share_one(self, finding: SpoolFinding) -> None:
        """Put what was found here into the object store; of a result all files. Raises ObjectsUnavailable."""
        assert self._shared is not None
        if finding.job_id is None:
            self._shared.share(self._series.wanted([finding.name]))
        else:
            self._shared.share_result(finding.name.rpartition("/")[0])

    def share_all(self, now: datetime) -> tuple[int, int]:
        """Put all that lies here and is known into the object store where it lacks it; how many files and results.

        A received file whose bytes are not those of its row stays here alone: the store may have the right ones. Raises
        ObjectsUnavailable; what was put stays there.
        """
        assert self._shared is not None
        files = results = 0
        for names in self._spool.received_files(older_than=now):
            for start in range(0, len(names), _ASKED_AT_ONCE):
                files += self._shared.share(self._series.wanted(names[start : start + _ASKED_AT_ONCE]))
        for folder, job_id in self._spool.result_folders(older_than=now).items():
            if "/.staging-" not in folder and self._jobs.refers_to(job_id, folder):
                results += self._share_result(folder)
        return files, results

    def _share_result(self, folder: str) -> bool:
        assert self._shared is not None
        if lacked := not self._shared.has(f"{folder}/{MANIFEST}"):
            self._shared.share_folder(folder)
        return lacked

    # -- repair ------------------------------------------------------------------------------------------------

    def repair(self, findings: list[SpoolFinding], actor: str, now: datetime) -> Iterator[Repair]:
        """Mend what was found; each finding is told with what was done about it.

        What `verify` of this object found is looked at once more: to read a large spool takes hours, in which instances
        come again, results are made again, and another person may repair as well.
        """
        received: dict[int, list[SpoolFinding]] = defaultdict(list)
        found: dict[int, list[SpoolFinding]] = defaultdict(list)
        made_again: dict[int, str] = {}
        for finding in findings:
            if (kept := self._differed.get(finding.name)) and self._condition(kept) is Condition.INTACT:
                yield Repair(finding, "left: it was put right meanwhile, or nobody wants it any more")
            elif finding.kind == "received":
                received[finding.series_id].append(finding)
            elif finding.kind == "found":
                found[finding.series_id].append(finding)
            elif finding.kind == "result" and finding.job_id is not None:
                if finding.job_id not in made_again:
                    made_again[finding.job_id] = self._make_again(finding, actor, now)
                yield Repair(finding, made_again[finding.job_id])
            elif finding.kind == "unshared":
                self.share_one(finding)
                yield Repair(finding, "put into the object store")
            elif finding.kind == "orphan":
                yield Repair(finding, self._set_aside(finding))
            else:
                yield Repair(finding, "left: the instance must be sent again")
        for series_id, group in found.items():
            if self._shared is not None:  # other hosts may have found other bytes
                self._shared.put_back(self._series.wanted([one.name for one in group]))
            self._series.find_sources(series_id, [one.name for one in group], actor, now)
            yield from (Repair(one, "it counts again; the series is judged anew") for one in group)
        for series_id, group in received.items():
            yield from self._lose(series_id, group, actor, now)

    def _lose(self, series_id: int, group: list[SpoolFinding], actor: str, now: datetime) -> Iterator[Repair]:
        missing = self._series.lose_sources(series_id, {one.name: one.condition for one in group}, actor, now)
        done = (
            "marked as missing: a resend of the instance makes it good"
            if missing
            else "left: the result of the series is there, or a person closed its job; a resend makes it good"
        )
        yield from (Repair(one, done) for one in group)

    def _make_again(self, finding: SpoolFinding, actor: str, now: datetime) -> str:
        assert finding.job_id is not None
        try:
            state = self._overview.case(finding.job).state
        except StorageError:
            state = ""
        if state not in _NEEDED:
            return f"left: the job is {state or 'gone'}; it is made again when it is to be sent again"
        reason = f"files of the result are {finding.condition} in the spool; it is made again"
        done = self._outbox.make_again(finding.job_id, reason, actor, now)
        return "queued: a worker makes the result again" if done else "left: the job went on meanwhile"

    def _set_aside(self, finding: SpoolFinding) -> str:
        if self._shared is not None:
            return "left: retention removes it from the object store, and from here"
        path = self._spool.path(finding.name)
        try:
            target: Path = self._spool.set_aside(path, is_folder=path.is_dir() and not path.is_symlink())
        except FileNotFoundError:
            return "left: it is gone by now"
        return f"moved to {target}; retention removes it after {ORPHAN_AFTER.days} days"


def _finding(kind: str, condition: str, kept: KeptFile) -> SpoolFinding:
    case_id, uid = kept.case_id, kept.sop_instance_uid
    return SpoolFinding(kind, condition, kept.name, case_id, uid, kept.series_id, kept.job_id)
