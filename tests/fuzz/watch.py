"""Runs one input with its limits: 5 s of the processor, 30 s in all, and twice the memory that its target may take."""

import resource
import signal
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.fuzz.seen import place_of
from tests.fuzz.target import MB, Run, Target

LIMIT_S: Final = 5.0  # of the processor, which a busy machine does not stretch
WAIT_S: Final = 30.0  # of the clock
_LOOKED_AT_BYTES: Final = MB  # the largest size of the process has to grow by so much before an input is measured


class Hung(BaseException):
    """An input took longer than it may; no `except Exception` of the product catches it."""


@dataclass(frozen=True)
class Finding:
    """What an input did that it must not. kind: "crash", "hang" or "memory"; where: file and function, or a figure."""

    kind: str
    where: str
    text: str

    @property
    def name(self) -> str:
        """Tells findings apart that have different causes, as far as that can be seen."""
        return f"{self.kind} {self.where}"


def peak_rss_bytes() -> int:
    """The largest size that this process ever had (getrusage, which counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_TIMERS: Final = ((signal.ITIMER_PROF, signal.SIGPROF), (signal.ITIMER_REAL, signal.SIGALRM))


@contextmanager
def _alarms(limit_s: float, wait_s: float) -> Iterator[None]:
    def ring(_number: int, _frame: Any) -> None:
        raise Hung

    before = [signal.signal(number, ring) for _, number in _TIMERS]
    for (timer, _), seconds in zip(_TIMERS, (limit_s, wait_s), strict=True):
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (timer, number), handler in zip(_TIMERS, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


class Watch:
    """Runs inputs of one target in the main thread of a process, and remembers the slowest and the largest."""

    def __init__(self, target: Target, run: Run, *, limit_s: float = LIMIT_S, wait_s: float = WAIT_S) -> None:
        self._target, self._run, self._limits = target, run, (limit_s, wait_s)
        self.slowest_s, self.largest_bytes = 0.0, 0
        self._peak = peak_rss_bytes()

    def try_one(self, data: bytes) -> Finding | None:
        """What is wrong with what the target does with an input."""
        begun = time.process_time()
        found = self._outcome(data)
        self.slowest_s = max(self.slowest_s, time.process_time() - begun)
        return found or self._memory(data)

    def _outcome(self, data: bytes) -> Finding | None:
        try:
            with _alarms(*self._limits):
                self._run(data)
        except self._target.ends:
            return None
        except Hung as error:
            return Finding(
                "hang",
                _where(error),
                f"more than {self._limits[0]:g} s of the processor or {self._limits[1]:g} s\n{_trace(error)}",
            )
        except Exception as error:
            return Finding("crash", f"{type(error).__name__} {_where(error)}{_words(error)}", _trace(error))
        return None

    def _memory(self, data: bytes) -> Finding | None:
        """An input with which the process grew is run once more, and what Python and numpy allocate for it counted."""
        peak = peak_rss_bytes()
        grown, self._peak = peak - self._peak, max(peak, self._peak)
        if grown < _LOOKED_AT_BYTES:
            return None
        tracemalloc.start()
        try:
            self._outcome(data)
            _, taken = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            self._peak = max(peak_rss_bytes(), self._peak)
        self.largest_bytes = max(self.largest_bytes, taken)
        if max(taken, grown) <= 2 * self._target.memory_bytes:
            return None
        text = f"{taken >> 20} MiB counted, {grown >> 20} MiB of the process, for {len(data)} bytes"
        return Finding("memory", f"more than {2 * self._target.memory_bytes >> 20} MiB", text)


def _where(error: BaseException) -> str:
    """The innermost function of the project, its tests included, that the error passed."""
    places = [place_of(frame) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((place for place in reversed(places) if place and not place.startswith("tests/fuzz/watch")), "")


def _words(error: BaseException) -> str:
    """The property that does not hold: a target writes it before a colon."""
    return f" {str(error).partition(':')[0][:60]}" if isinstance(error, AssertionError) else ""


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-4000:]
