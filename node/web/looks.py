"""A look at the images of a case, or a search, is a deed of a person, noted once and not again for each slice."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

AGAIN_AFTER_S: Final = 600.0
_REMEMBERED: Final = 1000


class Looks:
    """Remembers who looked at which case, so that turning over slices is one look; a later visit is another."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._noted_s: OrderedDict[tuple[str, str], float] = OrderedDict()

    def note(self, who: str, case_id: str, write: Callable[[], object]) -> None:
        """Call `write` where this person has not looked at the case within `AGAIN_AFTER_S`; what it raises passes."""
        key, now_s = (who, case_id), self._clock_s()
        with self._lock:
            before_s = self._noted_s.get(key)
        if before_s is not None and now_s - before_s < AGAIN_AFTER_S:
            return
        write()  # first, so that a look that cannot be noted is tried again
        with self._lock:
            self._noted_s[key] = now_s
            self._noted_s.move_to_end(key)
            while len(self._noted_s) > _REMEMBERED:
                self._noted_s.popitem(last=False)
