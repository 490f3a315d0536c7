"""Frees the jobs of workers that stopped answering, and takes nobody for dead who could not answer."""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from storage.errors import StoreUnavailable
from storage.jobs import JobStore

log = logging.getLogger(__name__)

GRACE_S: Final = 15.0  # a worker asks again after 5 s at the latest, and then extends its lease within 2 s


class ExpiredLeases:
    """`tick()` frees the jobs whose leases ran out.

    While the database was away no worker could extend its lease, and each such death would count against its job. So
    after an outage the living ones have `GRACE_S` to extend theirs.
    """

    def __init__(
        self, jobs: JobStore, clock: Callable[[], datetime], *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._jobs, self._clock, self._clock_s = jobs, clock, clock_s
        self._was_away = False
        self._from_s = float("-inf")

    def tick(self) -> None:
        """Free what may be freed. Raises StoreUnavailable."""
        try:
            if self._was_away:
                self._jobs.ask()
                self._was_away, self._from_s = False, self._clock_s() + GRACE_S
            if self._clock_s() >= self._from_s:
                self._free()
        except StoreUnavailable:
            self._was_away = True
            raise

    def _free(self) -> None:
        for job_id in self._jobs.release_expired(self._clock()):
            log.warning("the lease of job %d ran out", job_id, extra={"event": "job_lease_ended", "job": job_id})
