"""Beats: a process says of each line of its work where it is, and within how many seconds it will say so again.

A beat comes from the work itself and never from a thread beside it, which would go on while the work hangs. A line of
work that was silent for longer than it said is taken for hung. Times are those of the monotonic clock, which all
processes of one host share and nobody sets.

With its beats a process tells what it has counted since it began (`Numbers`), for /metrics.
"""

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

IDLE_LIMIT_S: Final = 60.0  # longer than SQLite waits for a lock (30 s) or PostgreSQL for a connection (10 s)
STEP_LIMIT_S: Final = 300.0  # one step with bounds of its own: a query of a peer, one instance to a peer, one commit
LONG_LIMIT_S: Final = 900.0  # what was never measured: the loading of a model, the headers of a large series
FIRST_LIMIT_S_PER_SLICE: Final = 20.0  # of a job, while nobody has measured its translator on its device
WAITS_FOR_DATABASE: Final = "waiting for the database"
CANNOT_WORK: Final = "CANNOT WORK: "  # before the reason, where a worker says what it works with
LATENCY_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MOST_NUMBERS: Final = 100  # the text in which they stand is written, and read, as one piece
_WRITE_EVERY_S: Final = 1.0

Beating = Callable[[str, str, int, int, float], None]
"""Called as beat(line, stage, done, total, limit_s): the next beat of this line comes within `limit_s` seconds."""


def no_beat(_line: str, _stage: str, _done: int, _total: int, _limit_s: float) -> None:
    """The beat of what nobody watches, such as a command that a person waits for."""


@dataclass(frozen=True)
class Beat:
    """The last word, at `at_s`, of one line of work: `done` of `total` steps of a stage that began at `since_s`.

    since_s, at_s: seconds of the monotonic clock of this host. limit_s: seconds after which its silence is a fault.
    """

    line: str
    stage: str
    done: int
    total: int
    since_s: float
    at_s: float
    limit_s: float

    @property
    def work(self) -> str:
        """What it does, for a person."""
        where = f"{self.stage} {self.done} of {self.total}" if self.total else self.stage
        return f"{self.line}: {where}" if self.line else where

    def silent_s(self, now_s: float) -> float:
        """Seconds since it spoke; 0 for a beat of before the host was restarted."""
        return max(0.0, now_s - self.at_s)


def overdue(beats: Sequence[Beat], now_s: float, awake_since_s: float = 0.0) -> Beat | None:
    """The beat that is silent for longer than it said, the longest of several.

    awake_since_s: since when the caller looks; silence while nobody could look is nobody's fault.
    """
    late = [beat for beat in beats if now_s - max(beat.at_s, awake_since_s) > beat.limit_s]
    return min(late, key=lambda beat: beat.at_s, default=None)


class Heart:
    """Gathers the beats of a process and gives them to its sinks, at most once a second unless a stage changes.

    A sink that fails is not asked to be perfect: a disk that is full or read-only is no reason to stop the work.
    """

    def __init__(self, *sinks: Callable[[Sequence[Beat]], None], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._sinks, self._clock_s = sinks, clock_s
        self._beats: dict[str, Beat] = {}
        self._written_s = float("-inf")
        self._lock = threading.Lock()

    def beat(self, line: str, stage: str, done: int, total: int, limit_s: float) -> None:
        """Say where a line of work is; the next word of this line comes within `limit_s` seconds."""
        with self._lock:
            now_s, before = self._clock_s(), self._beats.get(line)
            same = before is not None and before.stage == stage
            since_s = before.since_s if before is not None and same else now_s
            self._beats[line] = Beat(line, stage, done, total, since_s, now_s, limit_s)
            tells_news = not same or (before is not None and before.limit_s != limit_s)
            if not tells_news and now_s - self._written_s < min(_WRITE_EVERY_S, limit_s / 4):
                return
            self._written_s = now_s
            for sink in self._sinks:
                try:
                    sink(tuple(self._beats.values()))
                except OSError as error:
                    log.debug("a beat could not be written: %s", error.strerror, extra={"event": "beat_lost"})

    def rest(self, line: str) -> None:
        """A line of work is over; nobody waits for its next word."""
        with self._lock:
            self._beats.pop(line, None)
            self._written_s = float("-inf")


class Numbers:
    """What a process has counted since it began, and what it measured last; any thread may add to it.

    A number is named by `name`, or `name:of` where there are several of its kind, such as `sent:tps`. Both are words of
    ours or of the settings, never of a peer. There are at most MOST_NUMBERS; what comes beyond is not counted.
    """

    def __init__(self) -> None:
        self._values: dict[str, float] = {}
        self._gauges: Callable[[], Mapping[str, float]] = dict
        self._lock = threading.Lock()

    def add(self, name: str, value: float = 1, *, of: str = "") -> None:
        """Count `value` more."""
        self._change(f"{name}:{of}" if of else name, lambda before: before + value)

    def put(self, name: str, value: float) -> None:
        """Replace what was measured before."""
        self._change(name, lambda _before: value)

    def time(self, name: str, seconds: float) -> None:
        """Count what took so long: under `name:BOUND`, the lowest of LATENCY_BOUNDS_S that it kept, and `name_sum`."""
        place = bisect_left(LATENCY_BOUNDS_S, seconds)
        bound = f"{LATENCY_BOUNDS_S[place]:g}" if place < len(LATENCY_BOUNDS_S) else "+Inf"
        self.add(name, of=bound)
        self.add(f"{name}_sum", seconds)

    def ask(self, gauges: Callable[[], Mapping[str, float]]) -> None:
        """Ask for these whenever the numbers are written; an error leaves them out."""
        self._gauges = gauges

    def all(self) -> dict[str, float]:
        """All numbers now, rounded to millionths."""
        with self._lock:
            found = dict(self._values)
        try:
            found |= self._gauges()
        except Exception as error:  # a device that failed must not end the work beside it
            log.debug("the device could not be asked: %s", type(error).__name__, extra={"event": "device_not_asked"})
        return {name: round(value, 6) for name, value in found.items()}

    def _change(self, key: str, change: Callable[[float], float]) -> None:
        with self._lock:
            if key in self._values or len(self._values) < MOST_NUMBERS:
                self._values[key] = change(self._values.get(key, 0))
