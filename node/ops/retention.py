"""Retention: what no delivery needs any more leaves the disk, by age, and earlier where the disk gets full.

A row says that files are gone before they are; a process that is killed in between leaves files without a row, which
the next ticks find by their age.
"""

import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from config.settings import RetentionSettings
from storage.errors import ObjectsUnavailable
from storage.jobs import JobStore
from storage.retention import Ages, Removal, RetentionStore
from storage.spool import Spool

log = logging.getLogger(__name__)

TICK_S: Final = 60.0
BATCH: Final = 20  # series in one transaction: an instance that arrives meanwhile waits some hundredths of a second
TICK_LIMIT_S: Final = 15.0  # a process that is told to stop waits no longer for a tick
SETTLED_FOR: Final = timedelta(hours=1)  # what ended so recently stays even on a full disk: a person may take it back
SWEEP_EVERY: Final = timedelta(hours=6)
LEFT_BEHIND_AFTER: Final = timedelta(hours=1)
ORPHAN_AFTER: Final = timedelta(days=30)
"""A received file without a row may be an instance that was answered with 0x0000, where the database was put back from
a backup; so long a person has time to notice it and to run `syncect db rebuild`. What was set aside stays as long."""
_GIB: Final = 1024**3


class Retention:
    """One tick removes what is due. Several processes may have one; what one of them marked is its own to remove."""

    def __init__(
        self,
        store: RetentionStore,
        jobs: JobStore,
        spool: Spool,
        settings: RetentionSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._jobs, self._spool, self._settings = store, jobs, spool, settings
        self._clock = clock
        self._swept_at: datetime | None = None

    def tick(self) -> int:
        """Remove what is old enough, then what must go for want of space; returns how many series lost files."""
        until_s = time.monotonic() + TICK_LIMIT_S
        removed = self._by_age(until_s) + self._by_space(until_s)
        now = self._clock()
        if self._swept_at is None or now - self._swept_at >= SWEEP_EVERY:
            self._sweep(now, until_s)
            self._swept_at = now
        return removed

    def _by_age(self, until_s: float) -> int:
        ages = ages_of(self._settings, self._clock())
        if ages == Ages(None, None):
            return 0
        return self._purge(ages, "it is old enough", until_s)

    def _by_space(self, until_s: float) -> int:
        target_bytes = self._settings.target_free_gb * _GIB
        self._spool.make_room()
        if self._spool.free_bytes() >= target_bytes:
            return 0
        before = self._clock() - SETTLED_FOR
        reason = f"less than {self._settings.target_free_gb:g} GB were free"
        removed = self._purge(
            Ages(before, before), reason, until_s, enough=lambda: self._spool.free_bytes() >= target_bytes
        )
        if self._spool.free_bytes() < target_bytes:
            log.warning(
                "less than retention.target_free_gb is free, and nothing more may go", extra={"event": "disk_low"}
            )
        return removed

    def _purge(self, ages: Ages, reason: str, until_s: float, *, enough: Callable[[], bool] = lambda: False) -> int:
        removed, after = 0, 0
        while time.monotonic() < until_s and not enough():
            ids = self._store.with_files(ages, BATCH, after=after)
            if not ids:
                break
            removals = self._store.purge(ids, ages, reason, self._clock())
            remove_files(self._spool, removals)
            removed, after = removed + len(removals), ids[-1]
        return removed

    def _sweep(self, now: datetime, until_s: float) -> None:
        """What belongs to nothing: files and folders without a row, and old history; then the database file itself."""
        try:
            self._sweep_shared(now)
        except ObjectsUnavailable as error:
            log.warning("the object store is not swept: %s", error, extra={"event": "objects_not_swept"})
        for name, job_id in self._spool.result_folders(older_than=now - LEFT_BEHIND_AFTER).items():
            if not self._jobs.refers_to(job_id, name):
                self._spool.unstage(self._spool.path(name))
                log.warning(
                    "removed %s, which a killed process left behind: job %d does not need it",
                    name,
                    job_id,
                    extra={"event": "leftover_removed", "job": job_id},
                )
        orphans = [
            name for names in self._spool.received_files(older_than=now - ORPHAN_AFTER) for name in self._unknown(names)
        ]
        if orphans:
            freed = self._spool.remove(orphans, ())
            log.warning(
                "removed %d received files without a row (%.1f MB)",
                len(orphans),
                freed / 1e6,
                extra={"event": "files_without_row_removed"},
            )
        if count := self._spool.empty_set_aside(older_than=now - ORPHAN_AFTER):
            log.warning(
                "removed %d files and folders that were set aside %d days ago",
                count,
                ORPHAN_AFTER.days,
                extra={"event": "files_set_aside_removed"},
            )
        if self._settings.history_days:
            while self._store.forget(now - timedelta(days=self._settings.history_days)):
                pass
        if freed := self._store.compact(lambda: time.monotonic() < until_s):
            log.info(
                "the database gave back %.1f MB that it did not use", freed / 1e6, extra={"event": "database_shrunk"}
            )

    def _sweep_shared(self, now: datetime) -> None:
        """The same in the object store, where a killed process leaves files as well. Raises ObjectsUnavailable."""
        for names in self._spool.shared_files(older_than=now - ORPHAN_AFTER):
            if orphans := list(self._unknown(names)):
                self._spool.remove(orphans, ())
                log.warning(
                    "removed %d objects without a row", len(orphans), extra={"event": "objects_without_row_removed"}
                )
        for name, job_id in self._spool.shared_results(older_than=now - LEFT_BEHIND_AFTER).items():
            if not self._jobs.refers_to(job_id, name):
                self._spool.remove((), [name])
                log.warning(
                    "removed %s from the object store: job %d does not need it",
                    name,
                    job_id,
                    extra={"event": "leftover_removed", "job": job_id},
                )

    def _unknown(self, names: list[str]) -> Iterable[str]:
        for start in range(0, len(names), 500):
            yield from self._store.unknown(names[start : start + 500])


def ages_of(settings: RetentionSettings, now: datetime) -> Ages:
    """Since when results and received files must have been settled to be old enough at `now`."""
    source_days = settings.source_days or settings.days
    return Ages(
        results=now - timedelta(days=settings.days) if settings.days else None,
        sources=now - timedelta(days=source_days) if source_days else None,
    )


def remove_files(spool: Spool, removals: Iterable[Removal]) -> int:
    """Remove what the store said that no row refers to any more; returns the bytes that were freed.

    A file that cannot be removed is logged and stays until it is swept.
    """
    freed = 0
    for removal in removals:
        try:
            freed += spool.remove(removal.received, removal.folders)
        except OSError as error:
            log.error(
                "files of series %d could not be removed: %s",
                removal.series_id,
                error.strerror,
                extra={"event": "files_not_removed", "series": removal.series_id},
            )
    return freed
