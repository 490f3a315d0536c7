"""The worker claims a job, runs it and records its outcome, one job at a time; `LeaseKeeper` keeps its lease.

It may be killed at any line: only the transactions of the JobStore count. A folder that was published without its
transaction belongs to no job: the next attempt writes its own, and a worker that starts removes what is left.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from structlog.contextvars import bound_contextvars

from models.translator import DeviceFault
from node.beats import (
    IDLE_LIMIT_S,
    LONG_LIMIT_S,
    WAITS_FOR_DATABASE,
    Beating,
    Numbers,
    no_beat,
)
from node.errors import DamagedInstance, Doubtful, GiveBack, Permanent, Retryable
from node.translate.device_record import DeviceRecord
from node.translate.heartbeat import LEASE_S, LeaseKeeper
from node.translate.job import AnyExecutor, JobOptions, JobResult, join_reasons
from node.translate.leases import ExpiredLeases
from node.translate.loaded import Executors, ExecutorUnavailable
from node.translate.recorder import Finished, Recorder
from node.translate.release import write_released
from storage.errors import LeaseLost, ObjectsUnavailable, SchemaMismatch, StoreUnavailable
from storage.jobs import ClaimedJob, JobStore
from storage.outage import Outage
from storage.remakes import Release
from storage.spool import LOST, Spool
from storage.states import WORKER_CANNOT
from storage.turns import NO_RULES, RulesAt
from storage.wakes import Bell, Polling

log = logging.getLogger(__name__)

LEFT_BEHIND_AFTER = timedelta(hours=1)  # far longer than a result waits between its folder and its transaction
OBJECTS_AGAIN_S = 30.0
RETRY_AFTER_S = (10.0, 60.0)  # after the first attempt, and after the second
MAX_ATTEMPTS = 1 + len(RETRY_AFTER_S)


class DeviceFailed(Retryable):
    """The device failed in this process, which ends: a new one takes the next job."""


class _Stopped(Exception):
    """The worker was told to stop in the middle of a job."""


class Worker:
    """Runs jobs of the store until it is told to stop.

    `open_executor(bundle, faults)`, `forbids(executor)`, which is asked before each job, and `announce`: see
    `Executors`. `options_for(job, produced_at)` says what the settings want in the derived series. destinations: of
    results that no route sends elsewhere.
    `idle(stop)` is called where no job is due, and says whether it did anything; it must give way to a job.
    `permit(job, executor)` raises ExecutorUnavailable where a job must wait for a constancy run. `rules(now)`
    limit which job's turn may come.
    `previous_end` says why the supervisor killed the worker before this one, or "". `bell` says when to look for a job.
    `has_room()` is asked before each claim. `device_elsewhere`: another process has the device, and ends in the place
    of this one.

    When the device fails, the process ends. A new one translates the job with one slice at a time, and then on another
    GPU of the same kind, where there is one; at last the job is HELD. It never takes the processor instead.
    """

    def __init__(
        self,
        jobs: JobStore,
        spool: Spool,
        open_executor: Callable[[str, int], AnyExecutor],
        options_for: Callable[[ClaimedJob, datetime], JobOptions],
        destinations: Sequence[str],
        *,
        name: str,
        announce: Callable[[str], None] = lambda _words: None,
        forbids: Callable[[AnyExecutor], str] = lambda _executor: "",
        idle: Callable[[threading.Event], bool] = lambda _stop: False,
        permit: Callable[[ClaimedJob, AnyExecutor], None] = lambda _job, _executor: None,
        rules: RulesAt = lambda _now: NO_RULES,
        beat: Beating = no_beat,
        numbers: Numbers | None = None,
        record: DeviceRecord | None = None,
        previous_end: str = "",
        bell: Bell | None = None,
        has_room: Callable[[], bool] = lambda: True,
        device_elsewhere: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._jobs, self._spool, self._idle = jobs, spool, idle
        self._executors, self._options_for = Executors(open_executor, forbids, announce), options_for
        self._permit, self._rules = permit, rules
        self._name, self._clock, self._lease = name, clock, LeaseKeeper(jobs, name, clock)
        self._beat, self._record, self._previous_end = beat, record or DeviceRecord(), previous_end
        self._numbers, self._bell = numbers or Numbers(), bell or Polling()
        self._has_room, self._device_elsewhere = has_room, device_elsewhere
        self._leases = ExpiredLeases(jobs, clock)
        self._recorder = Recorder(jobs, spool, name, destinations, clock)
        self._executor: AnyExecutor | None = None  # of the job in hand
        self._unrecorded: ClaimedJob | None = None  # its outcome, for want of the database
        self._failed_device = ""
        self.has_begun = threading.Event()
        """Set when what an earlier process of this name left is free, so that other threads may claim by this name."""

    def run(self, stop: threading.Event, *, begin: bool = True) -> None:
        """Work until `stop` is set; a job in hand then goes back to the queue. It waits for a database that is gone.

        begin: first free the jobs and remove the folders that an earlier process of this name left; of several threads
        of one process, one does it before the others. Raises DeviceFailed.
        """
        outage, first = Outage("the worker"), begin
        while True:
            try:
                self._take_up()
                if first:
                    self._begin()
                    first = False
                self.has_begun.set()
                self._work(stop, outage)
                return
            except StoreUnavailable as error:
                # What it had in hand is free at once; of several threads, the others go on with theirs.
                first = first or (begin and not self._device_elsewhere)
                self._beat("", WAITS_FOR_DATABASE, 0, 0, IDLE_LIMIT_S)
                if stop.wait(outage.failed(error)):
                    return

    def _take_up(self) -> None:
        """End the job that was in hand when the database went away: this worker is not dead, and no death counts."""
        if (job := self._unrecorded) is not None:
            self._conclude(job, self._recorder.again)
            self._unrecorded = None

    def _begin(self) -> None:
        self._beat("", "starting", 0, 0, LONG_LIMIT_S)
        why = f"the worker was killed: {self._previous_end}" if self._previous_end else ""
        for job_id in self._jobs.release_expired(self._clock(), dead_worker=self._name, why=why):
            log.warning(
                "job %d was left behind by a worker that was killed",
                job_id,
                extra={"event": "job_left_behind", "job": job_id},
            )
        self._sweep()
        self._prepare()

    def _work(self, stop: threading.Event, outage: Outage) -> None:
        while not stop.is_set():
            self._beat("", "waiting for a job", 0, 0, IDLE_LIMIT_S)
            self._bell.listen()
            busy = self.run_once(stop)
            outage.over()
            busy = busy or self._use_idle_time(stop)
            if self._failed_device:
                raise DeviceFailed(f"{self._failed_device}; a new process takes the next job")
            if not busy:
                self._bell.wait(stop)

    def _use_idle_time(self, stop: threading.Event) -> bool:
        try:
            return self._idle(stop)
        except DeviceFault as fault:
            self._failed_device = str(fault)
            return True

    def _sweep(self) -> None:
        """Remove folders that no job refers to: those of killed attempts and releases, and of results made anew."""
        for name, job_id in self._spool.result_folders(older_than=self._clock() - LEFT_BEHIND_AFTER).items():
            if not self._jobs.refers_to(job_id, name):
                self._spool.unstage(self._spool.path(name))
                log.warning(
                    "removed %s, which a killed process left behind: job %d does not need it",
                    name,
                    job_id,
                    extra={"event": "leftover_removed", "job": job_id},
                )

    def release_expired(self) -> None:
        """A tick: free the jobs of workers, also on other hosts, that stopped answering."""
        self._leases.tick()

    def run_once(self, stop: threading.Event) -> bool:
        """Claim one job and bring it to an end; False when none was due, or there is no room for one."""
        if not self._has_room():
            return False
        now = self._clock()
        job = self._jobs.claim(self._name, LEASE_S, now, self._rules(now))
        if job is None:
            return False
        self._take(job, stop)
        return True

    def _take(self, job: ClaimedJob, stop: threading.Event) -> None:
        with bound_contextvars(**_about(job)):
            log.info(
                "job %d claimed: %d slices of series %s, attempt %d",
                job.id,
                job.slices,
                job.series_uid,
                job.attempt,
                extra={"event": "job_claimed"},
            )
        self._conclude(job, partial(self._produce, job, stop))

    def _conclude(self, job: ClaimedJob, produce: Callable[[], None]) -> None:
        """Bring a claimed job to an end; raises StoreUnavailable where no end could be recorded."""
        with bound_contextvars(**_about(job)):
            try:
                self._settle(job, produce)
            except LeaseLost as error:
                log.warning("job %d dropped: %s", job.id, error, extra={"event": "job_dropped"})
            except StoreUnavailable:
                self._unrecorded = job
                raise

    def _settle(self, job: ClaimedJob, produce: Callable[[], None]) -> None:
        """Run a claimed job and record its outcome; raises LeaseLost when it is no longer ours."""
        try:
            produce()
        except (LeaseLost, StoreUnavailable, SchemaMismatch):  # without the database no outcome can be recorded
            raise
        except (_Stopped, GiveBack) as error:
            self._jobs.give_back(job.id, self._name, str(error) or "the worker was stopped", now=self._clock())
        except ObjectsUnavailable as error:
            self._wait_for_objects(job, str(error))
        except DeviceFault as fault:
            self._device_failed(job, fault)
        except (ExecutorUnavailable, Doubtful) as error:
            reason = str(error) if isinstance(error, Doubtful) else f"{WORKER_CANNOT}{error}"
            log.error("job %d held: %s", job.id, reason, extra={"event": "job_held"})
            self._jobs.hold(job.id, self._name, reason, self._clock())
        except DamagedInstance as error:
            self._wait_for_resend(job, str(error))
        except Permanent as error:
            log.error("job %d failed: %s", job.id, error, extra={"event": "job_failed"})
            self._jobs.fail(job.id, self._name, str(error), self._clock())
        except (Retryable, OSError) as error:
            self._retry_later(job, str(error) if isinstance(error, Retryable) else f"{error.strerror} in the spool")
        except Exception as error:  # the process boundary: one unusual series must not stop the others
            log.exception("job %d ended with an unexpected error", job.id, extra={"event": "job_crashed"})
            self._retry_later(job, f"unexpected {type(error).__name__}; the worker's log has the details")

    def _wait_for_objects(self, job: ClaimedJob, reason: str) -> None:
        """No job fails by an object store that is away; it is tried again until that is back."""
        now = self._clock()
        log.error(
            "job %d will be tried again in %g s: %s",
            job.id,
            OBJECTS_AGAIN_S,
            reason,
            extra={"event": "job_waits_for_objects"},
        )
        later = now + timedelta(seconds=OBJECTS_AGAIN_S)
        self._jobs.give_back(job.id, self._name, reason, now=now, not_before=later)

    def _device_failed(self, job: ClaimedJob, fault: DeviceFault) -> None:
        """Leave the job to a new process with the next measure, or hold it where none is left."""
        self._failed_device = "" if self._device_elsewhere else str(fault)
        spare = self._executor.spare_devices if self._executor is not None else 0
        if job.device_faults <= spare:
            log.error("job %d goes to a new process: %s", job.id, fault, extra={"event": "job_given_back"})
            self._jobs.give_back(job.id, self._name, str(fault), now=self._clock(), is_device_fault=True)
            return
        tried = "with one slice at a time in a new process" + (f" and on {spare} more of its kind" if spare else "")
        reason = f"{WORKER_CANNOT}{fault}, also {tried}"
        log.error("job %d held: %s", job.id, reason, extra={"event": "job_held"})
        self._jobs.hold(job.id, self._name, reason, self._clock())

    def _produce(self, job: ClaimedJob, stop: threading.Event) -> None:
        if not job.sources:
            raise Permanent("its received files were removed from the disk; send the series again, then retry the job")
        self._beat("", f"job {job.id}: load the model", 0, 0, LONG_LIMIT_S)
        with self._lease.keep(job, LONG_LIMIT_S):  # an actor may have to be placed first
            executor = self._executor_for(job)
        begun_s = time.monotonic()
        staged = self._spool.stage(job.id, job.attempt)
        try:
            result = self._compute(executor, job, staged, stop)
            if job.release is not None:
                result = _with_release(result, job.release, staged)
            product_dir = self._publish(job, staged)
        finally:
            self._spool.unstage(staged)
        self._beat("", f"job {job.id}: record the result", 0, 0, LONG_LIMIT_S)
        seconds, slices = time.monotonic() - begun_s, len(result.files)
        self._record.measured(executor.description, seconds / max(1, slices))
        self._numbers.add("slices", slices)
        self._numbers.add("translation_s", seconds)
        self._numbers.put("slice_s", seconds / max(1, slices))
        self._recorder.record(Finished(job, result, product_dir, join_reasons(job.doubt, result.held_reason)))

    def _prepare(self) -> None:
        """Load bundle and device before the first job, so that it need not wait; a failure is announced and retried."""
        try:
            self._executors.first(0)
        except ExecutorUnavailable:
            pass
        except StoreUnavailable:  # which is asked for the bundle's acceptance; `run` waits for it
            raise
        except Exception:  # the process boundary: a job that comes will meet the same error, and be tried again
            log.exception("bundle and device could not be loaded", extra={"event": "bundle_not_loaded"})

    def _executor_for(self, job: ClaimedJob) -> AnyExecutor:
        self._executor = None
        self._executor = self._executors.of(job.bundle, job.device_faults + job.deaths)
        self._permit(job, self._executor)
        return self._executor

    def _compute(self, executor: AnyExecutor, job: ClaimedJob, staged: Path, stop: threading.Event) -> JobResult:
        limit_s = self._record.limit_s(executor.description, job.slices)
        with self._lease.keep(job, limit_s) as kept:

            def progress(stage: str, done: int, total: int) -> None:
                if kept.lost.is_set():
                    raise LeaseLost(f"job {job.id} was taken away")
                if stop.is_set():
                    raise _Stopped
                kept.reach(stage, done, total, self._clock())
                self._beat("", f"job {job.id}: {stage}", done, total, limit_s)

            self._fetch(job, progress)
            self._beat("", f"job {job.id}: read", 0, job.slices, limit_s)
            paths = [self._spool.path(one.spool_name) for one in job.sources]
            return executor.run(paths, self._options_for(job, job.produced_at), staged, progress)

    def _fetch(self, job: ClaimedJob, progress: Callable[[str, int, int], None]) -> None:
        """Have the sources on this host; raises ObjectsUnavailable, also where no result could be published."""
        self._spool.require_shared()
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            progress("fetch", done, len(job.sources))

        self._spool.fetch(((one.spool_name, one.sha256, one.size_bytes) for one in job.sources), step)

    def _publish(self, job: ClaimedJob, staged: Path) -> str:
        """Publish a result; with an object store that takes a while, in which the lease must not run out."""
        with self._lease.keep(job, LONG_LIMIT_S) as kept:
            self._beat("", f"job {job.id}: publish", 0, 0, LONG_LIMIT_S)
            product_dir = self._spool.publish(staged)
            if kept.lost.is_set():
                self._spool.unstage(self._spool.path(product_dir))
                raise LeaseLost(f"job {job.id} was taken away")
            return product_dir

    def _wait_for_resend(self, job: ClaimedJob, reason: str) -> None:
        """Files of the source are damaged or gone: the series waits for them, and the job is no failure."""
        conditions = {
            source.spool_name: self._spool.condition(source.spool_name, source.sha256, source.size_bytes)
            for source in job.sources
        }
        lost = {name: condition for name, condition in conditions.items() if condition in LOST}
        if not lost:  # it cannot be read for the moment, or came again meanwhile
            self._retry_later(job, reason)
            return
        now = self._clock()
        self._jobs.give_back(job.id, self._name, reason, now=now)
        missing = self._jobs.lose_sources(job.series_id, lost, self._name, now)
        log.error(
            "job %d waits: %d files of series %s must be sent again: %s",
            job.id,
            missing,
            job.series_uid,
            reason,
            extra={"event": "job_waits_for_files"},
        )

    def _retry_later(self, job: ClaimedJob, reason: str) -> None:
        now = self._clock()
        if job.attempt >= MAX_ATTEMPTS:
            log.error("job %d failed after %d attempts: %s", job.id, job.attempt, reason, extra={"event": "job_failed"})
            self._jobs.fail(job.id, self._name, f"{reason} ({job.attempt} attempts)", now)
            return
        delay_s = RETRY_AFTER_S[job.attempt - 1]
        log.warning("job %d will be tried again in %g s: %s", job.id, delay_s, reason, extra={"event": "job_postponed"})
        self._jobs.requeue(job.id, self._name, reason, not_before=now + timedelta(seconds=delay_s), now=now)


def _about(job: ClaimedJob) -> dict[str, object]:
    """What every line of its log names."""
    return {"case": job.case, "job": job.id, "series_uid": job.series_uid}


def _with_release(result: JobResult, release: Release, staged: Path) -> JobResult:
    """A result that was released before, with what a person said then in its files: else its bytes would differ."""
    folder = staged / "released"
    folder.mkdir(mode=0o700)
    made = [(one.path, one.sha256) for one in result.files]
    digests = write_released(made, release.doubt, release.actor, release.reason, folder)
    for path, _ in made:
        (folder / path.name).replace(path)
    folder.rmdir()
    files = (replace(one, sha256=sha256) for one, sha256 in zip(result.files, digests, strict=True))
    return replace(result, files=tuple(files))
