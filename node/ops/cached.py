"""What this host keeps of files that lie in an object store: it goes when another host's retention removed them there.

Nothing is removed from the object store here, so nothing can be lost: what is still wanted is fetched again.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from storage.jobs import JobStore
from storage.retention import RetentionStore
from storage.shared_spool import SharedSpool

TICK_S: Final = 600.0
_OLDER_THAN: Final = timedelta(hours=1)  # far longer than a file lies in the spool before its row


class CacheTidy:
    """One tick removes the cached files of this host to which no row refers any more."""

    def __init__(
        self,
        store: RetentionStore,
        jobs: JobStore,
        spool: SharedSpool,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._jobs, self._spool, self._clock = store, jobs, spool, clock

    def tick(self) -> None:
        """Remove what is due."""
        older_than = self._clock() - _OLDER_THAN
        for names in self._spool.received_files(older_than=older_than):
            for start in range(0, len(names), 500):
                self._spool.forget(self._store.unknown(names[start : start + 500]), ())
        results = self._spool.result_folders(older_than=older_than)
        self._spool.forget((), [name for name, job in results.items() if not self._jobs.refers_to(job, name)])
