"""A second bundle translates what the first one did, is measured by the same gates, and sends nothing.

Real jobs come first: a shadow begins only where none is due, and stops at its next step when one becomes due. Whatever
goes wrong is written to the shadow's own row and nowhere else.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from models.translator import DeviceFault
from node.beats import LONG_LIMIT_S, Beating, no_beat
from node.dicom.volume import read_volume
from node.errors import NodeError
from node.translate.job import Executor, JobOptions, JobResult
from storage.errors import ObjectsUnavailable
from storage.shadows import ShadowJob, ShadowStore
from storage.spool import Spool

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0  # for a job to shadow
ASK_EVERY_S: Final = 0.5  # whether a real job is due
SOFT_TISSUE_HU: Final = (-200.0, 500.0)
"""Where results are compared: air, lung, bone and couch, which no bundle changes, would only dilute the figures."""


class _Interrupted(Exception):
    """A real job is due, or the worker was told to stop."""


class ShadowRunner:
    """Runs one shadow at a time in the worker's process.

    bundle: its label. `open_executor` loads it when it is first needed. `options_for(job, now)` as for a real job.
    name: of the worker.
    """

    def __init__(
        self,
        store: ShadowStore,
        spool: Spool,
        bundle: str,
        open_executor: Callable[[], Executor],
        options_for: Callable[[ShadowJob, datetime], JobOptions],
        *,
        name: str,
        beat: Beating = no_beat,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._spool, self._bundle = store, spool, bundle
        self._open_executor, self._options_for = open_executor, options_for
        self._name, self._beat, self._clock, self._clock_s = name, beat, clock, clock_s
        self._executor: Executor | None = None
        self._look_at_s = self._ask_at_s = clock_s()
        spool.empty_scratch(name)  # what a killed process left

    def run_once(self, stop: threading.Event) -> bool:
        """Do one shadow where nothing else is due; False where there was none to do. Raises DeviceFault."""
        if self._clock_s() < self._look_at_s:
            return False
        self._look_at_s = self._clock_s() + LOOK_EVERY_S
        try:
            job = self._store.begin(self._bundle, self._clock())
            if job is None:
                return False
            self._settle(job, stop)
        except DeviceFault:  # the device may be of no use to this process any more, nor to the real bundle
            raise
        except Exception:  # a shadow must not end the worker
            log.exception("a shadow could not be run or recorded", extra={"event": "shadow_not_run"})
            return False
        self._look_at_s = self._clock_s()
        return True

    def _settle(self, job: ShadowJob, stop: threading.Event) -> None:
        try:
            result, difference = self._run(job, stop)
        except _Interrupted:
            self._store.drop(job.job_id, self._bundle)
        except Exception as error:
            self._executor = None  # what it holds on the device is free for the real bundle
            told = isinstance(error, NodeError | DeviceFault)
            reason = str(error) if told else f"unexpected {type(error).__name__}; the worker's log has the details"
            log.warning(
                "shadow of job %d failed: %s",
                job.job_id,
                reason,
                exc_info=None if told else error,
                extra={"event": "shadow_failed", "job": job.job_id},
            )
            self._store.failed(job.job_id, self._bundle, reason, self._clock())
            if isinstance(error, DeviceFault):
                raise
        else:
            figures = {**result.measurements, **difference}
            self._store.measured(job.job_id, self._bundle, figures, result.held_reason or "", self._clock())
            log.info(
                "shadow of job %d measured: %.1f HU on average",
                job.job_id,
                difference["mean_abs_hu"],
                extra={"event": "shadow_measured", "job": job.job_id},
            )
        finally:
            self._spool.empty_scratch(self._name)

    def _run(self, job: ShadowJob, stop: threading.Event) -> tuple[JobResult, dict[str, float]]:
        def progress(stage: str, done: int, total: int) -> None:
            self._beat("", f"shadow of job {job.job_id}: {stage}", done, total, LONG_LIMIT_S)
            self._give_way(stop)

        self._beat("", f"shadow of job {job.job_id}: read", 0, 0, LONG_LIMIT_S)
        self._give_way(stop)
        if self._executor is None:
            self._executor = self._open_executor()
        folder = self._spool.empty_scratch(self._name)
        self._fetch(job)
        sources = [self._spool.path(name) for name, _, _ in job.sources]
        result = self._executor.run(sources, self._options_for(job, self._clock()), folder, progress)
        first = sorted(self._spool.path(job.product_dir).glob("*.dcm"))
        return result, compare_results(first, [made.path for made in result.files])

    def _fetch(self, job: ShadowJob) -> None:
        """Have the files on this host, or leave the shadow for another time."""
        try:
            self._spool.fetch(job.sources)
            self._spool.fetch_folder(job.product_dir)
        except ObjectsUnavailable as error:
            log.warning(
                "no shadow of job %d: %s", job.job_id, error, extra={"event": "shadow_waits", "job": job.job_id}
            )
            raise _Interrupted from error

    def _give_way(self, stop: threading.Event) -> None:
        if stop.is_set():
            raise _Interrupted
        if self._clock_s() >= self._ask_at_s:
            self._ask_at_s = self._clock_s() + ASK_EVERY_S
            if self._store.work_waits(self._clock()):
                raise _Interrupted


def compare_results(first: list[Path], second: list[Path]) -> dict[str, float]:
    """How far two results of one source are apart in soft tissue, HU; raises what the reading of a series raises."""
    one, two = read_volume(first).hu, read_volume(second).hu
    inside = (one >= SOFT_TISSUE_HU[0]) & (one <= SOFT_TISSUE_HU[1])
    difference = np.abs(one[inside] - two[inside])
    return {
        "mean_abs_hu": float(difference.mean()) if difference.size else 0.0,
        "max_abs_hu": float(difference.max(initial=0.0)),
    }
