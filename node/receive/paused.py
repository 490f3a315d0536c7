"""Whether a person paused receiving: then instances are refused as where the disk is full, and their senders try again.

The association is accepted all the same, so that C-ECHO, storage commitment and performed procedure steps are answered.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from storage.errors import StoreUnavailable
from storage.pauses import Pause, PauseStore
from storage.states import Stage

LOOK_S: Final = 1.0
UNDER_WAY: Final = timedelta(minutes=5)
"""So long after a pause began an association goes on that had stored something: half a series helps nobody."""


class PausedReceiving:
    """Looks into the store at most once in `LOOK_S`; what it found last counts while the store cannot be used."""

    def __init__(
        self,
        pauses: PauseStore,
        host: str,
        clock: Callable[[], datetime],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pauses, self._host, self._clock, self._clock_s = pauses, host, clock, clock_s
        self._turn = threading.Lock()
        self._known: Pause | None = None
        self._looked_s = float("-inf")

    def refuses(self, stored: int) -> bool:
        """Whether an instance is refused now, of an association that stored so many before."""
        pause = self._now()
        if pause is None:
            return False
        return not stored or self._clock() - pause.at > UNDER_WAY

    def _now(self) -> Pause | None:
        with self._turn:
            if self._clock_s() - self._looked_s >= LOOK_S:
                with suppress(StoreUnavailable):  # what follows meets the same trouble, and answers it
                    self._known = self._pauses.of(Stage.RECEIVE, self._host)
                self._looked_s = self._clock_s()
            return self._known
