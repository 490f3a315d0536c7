"""How a process waits for a database that cannot be used: with growing pauses, and one line of log a minute."""

import logging
import threading
import time
from collections.abc import Callable

from storage.errors import SchemaMismatch, StoreUnavailable

log = logging.getLogger(__name__)

PAUSES_S = (0.5, 1.0, 2.0, 5.0)
TELL_EVERY_S = 60.0


class Outage:
    """One user of the database; `who` begins the lines of its log. Several threads may share it."""

    def __init__(self, who: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._who, self._clock_s = who, clock_s
        self._turn = threading.Lock()
        self.failures = 0  # since the database could last be used; a hot path calls `over` only where there are any
        self._began_s, self._told_s = 0.0, 0.0

    def failed(self, error: StoreUnavailable | SchemaMismatch) -> float:
        """The database could not be used; the seconds to wait before the next try."""
        with self._turn:
            now_s = self._clock_s()
            is_first = self.failures == 0
            self.failures += 1
            if is_first:
                self._began_s = now_s
            is_due = is_first or now_s - self._told_s >= TELL_EVERY_S
            if is_due:
                self._told_s = now_s
            pause_s = PAUSES_S[min(self.failures, len(PAUSES_S)) - 1]
            count = self.failures
        if is_due:
            tried = "" if is_first else f" (failed {count} times in {now_s - self._began_s:.0f} s)"
            log.error("%s waits for the database: %s%s", self._who, error, tried, extra={"event": "store_unavailable"})
        return pause_s

    def over(self) -> None:
        """The database could be used."""
        with self._turn:
            failures, self.failures = self.failures, 0
            lasted_s = self._clock_s() - self._began_s
        if failures:
            log.warning(
                "%s: the database can be used again after %.0f s",
                self._who,
                lasted_s,
                extra={"event": "store_available"},
            )
