"""The worker of `model.executor = "ray"`: one process that connects to the cluster and has many jobs in hand.

Each job has a thread, which is a `Worker` of its own with its own lease and heartbeat. When the head of the cluster is
gone the jobs go back to the queue and the process ends: the next one connects anew, or says that it cannot.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from models.bundle import BundleCard
from node.beats import CANNOT_WORK, LONG_LIMIT_S, Beating
from node.translate.carried import BundleAsk
from node.translate.job import JobOptions, JobResult, Progress
from node.translate.leases import ExpiredLeases
from node.translate.loaded import ExecutorUnavailable
from node.translate.ray_cluster import ClusterPlan, HeadWatch, Unreachable
from node.translate.ray_executor import ActorPool, connected, settle_device
from node.translate.worker import DeviceFailed, Worker
from storage.jobs import JobStore

log = logging.getLogger(__name__)

TICK_S: Final = 2.0
CONNECT_EVERY_S: Final = 5.0
STOP_WITHIN_S: Final = 20.0  # less than the grace of the supervisor, so that jobs are given back and not lost


class RayExecutor:
    """One bundle on the actors of a pool; what the worker sees of it is as in `node.translate.job.Executor`.

    limit_s(description, slices): how long a job may make no step.
    """

    spare_devices = 0  # the actor that takes the job next may stand anywhere; there is no order to try them in

    def __init__(self, pool: ActorPool, ask: BundleAsk, limit_s: Callable[[str, int], float]) -> None:
        hello = pool.open(ask)
        self.bundle, self.digest, self.arithmetic, self.device = ask.label, ask.digest, hello.arithmetic, hello.device
        self.description = f"{hello.description}, by Ray"
        self._pool, self._ask, self._hello, self._limit_s = pool, ask, hello, limit_s

    @property
    def card(self) -> BundleCard:
        """The card of the loaded bundle."""
        return self._hello.card

    def run(self, paths: Sequence[Path], options: JobOptions, out_dir: Path, progress: Progress) -> JobResult:
        """See `ActorPool.run`."""
        limit_s = self._limit_s(self.description, len(paths))
        return self._pool.run(self._ask, paths, options, out_dir, progress, limit_s=limit_s)


class ClusterGone(DeviceFailed):
    """The cluster is gone; this process ends, and a new one connects anew."""


class RayWorker:
    """Runs jobs on a cluster until it is told to stop.

    make(pool, lane): the worker of lane 0, 1 ..., which all have one name; the first one frees what was left behind.
    device: of the settings. announce: as for a Worker, while there is no cluster.
    """

    def __init__(
        self,
        plan: ClusterPlan,
        device: str,
        make: Callable[[ActorPool, int], Worker],
        *,
        announce: Callable[[str], None],
        beat: Beating,
        jobs: JobStore,
        clock: Callable[[], datetime],
    ) -> None:
        self._plan, self._device, self._make = plan, device, make
        self._announce, self._beat = announce, beat
        self._leases = ExpiredLeases(jobs, clock)

    def release_expired(self) -> None:
        """A tick: free the jobs of workers, also on other hosts, that stopped answering."""
        self._leases.tick()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, and wait for a cluster. Raises ClusterGone, also where a lane ended by an error."""
        told = ""
        while not stop.is_set():
            try:
                self._beat("", "connecting to Ray", 0, 0, LONG_LIMIT_S)
                with connected(self._plan) as address:
                    self._work(ActorPool(self._plan, settle_device(self._device, self._plan)), HeadWatch(address), stop)
                return
            except (ExecutorUnavailable, Unreachable) as error:
                if str(error) != told:  # not at each try, of which there are 17,000 in a day
                    log.error("this worker cannot work: %s", error, extra={"event": "worker_cannot_work"})
                    told = str(error)
                self._announce(f"{CANNOT_WORK}{error}")
            stop.wait(CONNECT_EVERY_S)

    def _work(self, pool: ActorPool, watch: HeadWatch, stop: threading.Event) -> None:
        lanes, ending = _Lanes(pool, self._make), threading.Event()
        try:
            lanes.grow(ending)
            while not stop.wait(TICK_S):
                self._beat("", f"at most {pool.lanes} jobs at a time by Ray", 0, 0, LONG_LIMIT_S)
                if watch.is_lost():
                    pool.lose("the head of the Ray cluster does not answer any more")
                    raise ClusterGone(
                        "the head of the Ray cluster does not answer any more; a new process connects again"
                    )
                if lanes.ended_by is not None:
                    raise ClusterGone(f"a lane of the worker ended by {type(lanes.ended_by).__name__}")
                pool.tick()
                lanes.grow(ending)
        finally:
            ending.set()
            lanes.join()
            pool.close()


class _Lanes:
    """Threads with one job at a time in hand. The first frees what was left behind, then come the others."""

    def __init__(self, pool: ActorPool, make: Callable[[ActorPool, int], Worker]) -> None:
        self._pool, self._make = pool, make
        self._first = make(pool, 0)
        self._threads: list[threading.Thread] = []
        self.ended_by: BaseException | None = None

    def grow(self, stop: threading.Event) -> None:
        """Begin as many lanes as there are seats."""
        if not self._threads:
            self._begin(self._first, stop)
        while self._first.has_begun.is_set() and len(self._threads) < self._pool.lanes:
            self._begin(self._make(self._pool, len(self._threads)), stop, is_first=False)

    def join(self) -> None:
        """Wait until each has given its job back, for as long as the supervisor allows."""
        until_s = time.monotonic() + STOP_WITHIN_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _begin(self, worker: Worker, stop: threading.Event, *, is_first: bool = True) -> None:
        def run() -> None:
            try:
                worker.run(stop, begin=is_first)
            except BaseException as error:  # the thread's boundary: the process ends with the same error
                log.exception("a lane of the worker ended", extra={"event": "lane_ended"})
                self.ended_by = error

        thread = threading.Thread(target=run, name=f"lane-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()
