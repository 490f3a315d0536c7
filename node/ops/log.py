"""The log format of all processes: one line per event, UTC, UIDs and job ids only."""

import logging
import time
from collections.abc import Callable
from copy import copy

from node.errors import NodeError
from storage.errors import StorageError

REPEATS = 5
WINDOW_S = 60.0
_MAX_TEXTS = 1000


class RepeatFilter(logging.Filter):
    """Lets a message of the same words pass `REPEATS` times in `WINDOW_S`; the next that passes says how many did not.

    A peer that is rejected 700 times a second must not fill the disk with lines.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._seen: dict[str, tuple[float, int]] = {}  # text -> begin of its window, how often it came in it

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        text, now_s = record.getMessage(), self._clock_s()
        began_s, count = self._seen.get(text, (now_s, 0))
        left_out = count - REPEATS
        if now_s - began_s >= WINDOW_S:
            began_s, count = now_s, 0
            if left_out > 0:
                record.msg, record.args = f"{text} ({left_out} more of these in the last {WINDOW_S:.0f} s)", None
        if text not in self._seen and len(self._seen) >= _MAX_TEXTS:
            self._seen.clear()  # so many different texts are no repetition
        self._seen[text] = began_s, count + 1
        return count < REPEATS


class SentenceFormatter(logging.Formatter):
    """An error of our own says everything in its sentence: a database that is down needs no traceback."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback of an error that nobody expected."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, NodeError | StorageError):
            record = copy(record)
            record.msg, record.args = f"{record.getMessage()}: {error}", None
            record.exc_info = record.exc_text = None
        return super().format(record)


def configure_logging(role: str, *, verbose: bool = False) -> None:
    """Log to standard error as `2026-01-31T12:00:00Z INFO receiver  message`."""
    formatter = SentenceFormatter(f"%(asctime)sZ %(levelname)s {role} %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    # These libraries log identifiers and whole datasets, which may name patients, or a line per tick.
    for name in ("pydicom", "apscheduler", "matplotlib", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
