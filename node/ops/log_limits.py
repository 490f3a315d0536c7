"""What bounds the log: a flood cannot fill it.

What repeats is left out and counted, and the traceback of an error that nobody expected comes at most once a minute
from one place. See docs/operate/logs.md.
"""

import logging
import threading
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from types import TracebackType

from node.ops.log_files import LogFile, lines_lost
from node.ops.log_lines import OPERATIONAL, bind_ids

REPEATS = 5  # lines of the same words ...
ALIKE = 30  # ... and of one message with whatever values, in ...
WINDOW_S = 60.0

_MAX_KEPT = 1000


@dataclass
class _Window:
    """How often a message came since `began_s`; `sample` is the newest that was left out."""

    began_s: float
    passed: int = 0
    left_out: int = 0
    sample: str = ""
    last: logging.LogRecord | None = None


class RepeatFilter(logging.Filter):
    """Lets a message of the same words pass `REPEATS` times in `WINDOW_S`, one of the same format `ALIKE` times.

    The next of them that passes says how many did not; `ended` says it where none comes any more. A peer that is
    rejected 700 times a second must not fill the disk with lines. Steps of `--verbose` (DEBUG) have many values and are
    limited by their words only.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._turn = threading.Lock()
        self._seen: dict[tuple[str, int, str], _Window] = {}  # by logger, level and words
        self._alike: dict[tuple[str, int, str], _Window] = {}  # by logger, level and format
        self._look_s = 0.0
        self._traced: dict[tuple[object, ...], float] = {}  # place of an error -> when its traceback was written

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        text, now_s = _settled(record), self._clock_s()
        with self._turn:
            same = _window(self._seen, (record.name, record.levelno, text), now_s)
            if same.passed >= REPEATS and now_s - same.began_s < WINDOW_S:
                return _left_out(same, record, text)
            alike = _window(self._alike, (record.name, record.levelno, str(record.msg)), now_s)
            is_limited = record.levelno > logging.DEBUG
            if is_limited and alike.passed >= ALIKE and now_s - alike.began_s < WINDOW_S:
                return _left_out(alike, record, text)
            said = [words for words in (_renew(same, now_s, "of these"), _renew(alike, now_s, "like it")) if words]
            if said:
                record.msg, record.args = f"{text} ({'; '.join(said)})", None
            same.passed, alike.passed = same.passed + 1, alike.passed + 1
            self._shorten(record, now_s)
        return True

    def ended(self) -> list[logging.LogRecord]:
        """What was left out in windows that are over: one record for each, and each only once."""
        now_s = self._clock_s()
        found: list[logging.LogRecord] = []
        with self._turn:
            if now_s < self._look_s:
                return found
            self._look_s = now_s + 1.0  # a look at hundreds of windows for every line would cost more than the line
            for windows, words in ((self._seen, "of these"), (self._alike, "like it")):
                for key in [key for key, window in windows.items() if now_s - window.began_s >= WINDOW_S]:
                    window = windows.pop(key)
                    if window.left_out and window.last is not None:
                        found.append(_summary(window, words))
        return found

    def _shorten(self, record: logging.LogRecord, now_s: float) -> None:
        """Take the traceback off where one from the same place was written less than a minute ago."""
        if not record.exc_info or record.exc_info[1] is None or isinstance(record.exc_info[1], OPERATIONAL):
            return
        error = record.exc_info[1]
        place = (record.name, record.lineno, type(error), *_innermost(record.exc_info[2]))
        if now_s - self._traced.get(place, -WINDOW_S) < WINDOW_S:
            record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}, as before", None
            record.exc_info = record.exc_text = None
            return
        if len(self._traced) >= _MAX_KEPT:
            self._traced.clear()
        self._traced[place] = now_s


def _settled(record: logging.LogRecord) -> str:
    """What the record says. Where its values do not fit, without them: a wrong call of a library ends nothing."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        record.msg, record.args = str(record.msg), None
        return str(record.msg)


def _window(windows: dict[tuple[str, int, str], _Window], key: tuple[str, int, str], now_s: float) -> _Window:
    if key not in windows:
        if len(windows) >= _MAX_KEPT:
            windows.clear()  # so many different texts are no repetition
        windows[key] = _Window(now_s)
    return windows[key]


def _left_out(window: _Window, record: logging.LogRecord, text: str) -> bool:
    window.left_out, window.sample, window.last = window.left_out + 1, text, record
    return False


def _renew(window: _Window, now_s: float, words: str) -> str:
    """Begin anew where the window is over; what was left out in it, in words."""
    if now_s - window.began_s < WINDOW_S:
        return ""
    count = window.left_out
    window.began_s, window.passed, window.left_out, window.last = now_s, 0, 0, None
    return f"{count} more {words} in the last {WINDOW_S:.0f} s" if count else ""


def _summary(window: _Window, words: str) -> logging.LogRecord:
    assert window.last is not None
    record = copy(window.last)
    record.msg, record.args = f"{window.sample} (the last of {window.left_out} {words} that were left out)", None
    record.exc_info = record.exc_text = None
    return record


def _innermost(trace: TracebackType | None) -> tuple[str, int]:
    if trace is None:
        return "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno


class LimitedHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only for the checker
    """Writes what a `RepeatFilter` lets pass, and its counts. A line that cannot be written is counted, too.

    file: gets the same lines once it is set.
    """

    def __init__(self, repeats: RepeatFilter) -> None:
        super().__init__()
        self._repeats, self._lost = repeats, 0
        self.file: LogFile | None = None
        self.addFilter(bind_ids)
        self.addFilter(repeats)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the counts of windows that are over, and the record."""
        for one in [*self._repeats.ended(), record]:
            self._write(one)
            if self.file is not None:
                self.file.handle(one)
                if trouble := self.file.new_trouble():
                    self._write(trouble)

    def _write(self, record: logging.LogRecord) -> None:
        lost = self._lost
        super().emit(record)
        if lost and self._lost == lost:
            self._lost = 0
            super().emit(lines_lost(lost))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - a name of logging
        """Count a line that found no room: logging itself would write a traceback for each."""
        self._lost += 1
