"""Records the result of a job, and keeps one that the database could not take until it can: nothing is made twice."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from node.errors import GiveBack
from node.translate.job import JobResult
from storage.errors import LeaseLost, StoreUnavailable
from storage.jobs import ClaimedJob, JobStore, ProducedInstance, ProducedSeries
from storage.spool import Condition, Spool

log = logging.getLogger(__name__)

_AWAY = "the database could not be used when the job was to be recorded"


@dataclass(frozen=True)
class Finished:
    """What a job came to. held_reason: why a person must look at it before it is sent; "" or None where none must."""

    job: ClaimedJob
    result: JobResult
    product_dir: str
    held_reason: str | None


class Recorder:
    """Records what one thread of a worker has made. destinations: of results that no route sends elsewhere."""

    def __init__(
        self, jobs: JobStore, spool: Spool, worker: str, destinations: Sequence[str], clock: Callable[[], datetime]
    ) -> None:
        self._jobs, self._spool, self._worker, self._clock = jobs, spool, worker, clock
        self._destinations = tuple(destinations)
        self._unrecorded: Finished | None = None

    def record(self, finished: Finished) -> None:
        """Record a result. Raises LeaseLost, and then its files are removed, and StoreUnavailable."""
        try:
            self._record(finished)
        except LeaseLost:
            self._spool.unstage(self._spool.path(finished.product_dir))  # nobody refers to it
            raise

    def again(self) -> None:
        """Record the result that the database could not take. Raises LeaseLost, StoreUnavailable, GiveBack.

        Its job may have gone to another worker meanwhile, or the database has recorded it and only its answer was lost.
        """
        finished, self._unrecorded = self._unrecorded, None
        if finished is None:
            raise GiveBack(_AWAY)
        if not self._is_whole(finished):
            raise GiveBack(f"{_AWAY}, and its files are not there any more")
        try:
            self._record(finished)
        except LeaseLost:
            if not self._is_wanted(finished):
                self._spool.unstage(self._spool.path(finished.product_dir))
            raise

    def _record(self, finished: Finished) -> None:
        job = finished.job
        try:
            self._jobs.finish(
                job.id,
                self._worker,
                _product(finished.result, finished.product_dir),
                destinations=self._destinations,
                held_reason=finished.held_reason,
                now=self._clock(),
            )
        except StoreUnavailable:
            self._unrecorded = finished
            raise
        log.info(
            "job %d %s: series %s",
            job.id,
            "held" if finished.held_reason else "produced",
            finished.result.series_uid,
            extra={
                "event": "job_held" if finished.held_reason else "job_produced",
                "derived_series_uid": finished.result.series_uid,
            },
        )

    def _is_whole(self, finished: Finished) -> bool:
        files = ((f"{finished.product_dir}/{one.path.name}", one.sha256) for one in finished.result.files)
        return all(self._spool.condition(name, sha256) is Condition.INTACT for name, sha256 in files)

    def _is_wanted(self, finished: Finished) -> bool:
        try:
            return self._jobs.refers_to(finished.job.id, finished.product_dir)
        except StoreUnavailable:
            return True  # a worker that starts looks again


def _product(result: JobResult, product_dir: str) -> ProducedSeries:
    return ProducedSeries(
        series_uid=result.series_uid,
        product_dir=product_dir,
        instances=tuple(
            ProducedInstance(
                sop_instance_uid=made.sop_instance_uid,
                source_sop_instance_uid=made.source_sop_instance_uid,
                file_name=made.path.name,
                sha256=made.sha256,
            )
            for made in result.files
        ),
        measurements=dict(result.measurements),
        remarks=result.remarks,
        series_number=result.series_number,
        series_description=result.series_description,
    )
