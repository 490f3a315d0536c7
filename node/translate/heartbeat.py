"""Keeps the lease of a job: a thread beside it extends the lease for as long as the job gets on, and no longer."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from storage.errors import LeaseLost, SchemaMismatch, StoreUnavailable
from storage.jobs import ClaimedJob, JobStore, Progress
from storage.outage import Outage

log = logging.getLogger(__name__)

LEASE_S = 60.0
HEARTBEAT_S = 2.0  # also how old the progress is that a reader sees


class KeptLease:
    """What a running job and its heartbeat tell each other: how far the job is, and that the lease is `lost`.

    limit_s: how long it may stand still; a job that does so for longer loses its lease.
    """

    def __init__(self, limit_s: float) -> None:
        self.lost = threading.Event()
        self.progress: Progress | None = None
        self._limit_s, self._moved_s = limit_s, time.monotonic()

    @property
    def stands_still(self) -> bool:
        """Whether the job has made no step for longer than it may."""
        return time.monotonic() - self._moved_s > self._limit_s

    def reach(self, stage: str, done: int, total: int, now: datetime) -> None:
        """The job did `done` of `total` steps of a stage, which began when it was first reached."""
        self._moved_s = time.monotonic()
        before = self.progress
        started_at = before.started_at if before is not None and before.stage == stage else now
        self.progress = Progress(stage, done, total, started_at)


class LeaseKeeper:
    """Extends the leases of one worker, each while its job runs."""

    def __init__(self, jobs: JobStore, worker: str, clock: Callable[[], datetime]) -> None:
        self._jobs, self._worker, self._clock = jobs, worker, clock

    @contextmanager
    def keep(self, job: ClaimedJob, limit_s: float) -> Iterator[KeptLease]:
        """Extend the lease while the block runs and gets on, and write down how far the job is."""
        kept, done = KeptLease(limit_s), threading.Event()
        thread = threading.Thread(target=self._beat, args=(job, kept, done), name=f"heartbeat-{job.id}", daemon=True)
        thread.start()
        try:
            yield kept
        finally:
            done.set()
            thread.join()

    def _beat(self, job: ClaimedJob, kept: KeptLease, done: threading.Event) -> None:
        outage, about = Outage(f"the heartbeat of job {job.id}"), {"job": job.id, "series_uid": job.series_uid}
        while not done.wait(HEARTBEAT_S):
            if kept.stands_still:
                log.error(
                    "job %d makes no progress; its lease is not extended", job.id, extra={"event": "job_stuck", **about}
                )
                continue
            try:
                self._jobs.heartbeat(job.id, self._worker, LEASE_S, self._clock(), progress=kept.progress)
            except (LeaseLost, SchemaMismatch):
                kept.lost.set()
                return
            except StoreUnavailable as error:
                done.wait(outage.failed(error))
            except Exception:  # a locked database must not end the heartbeat; the lease outlasts several beats
                log.exception("heartbeat of job %d failed", job.id, extra={"event": "job_heartbeat_failed", **about})
