"""Ticks: short calls at a fixed pace inside a process. Jobs never live here; they live in the store."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from node.beats import STEP_LIMIT_S, Beating
from node.ops.clock import JUMP_S
from storage.errors import SchemaMismatch, StoreUnavailable
from storage.outage import Outage

log = logging.getLogger(__name__)

_LOOK_AT_CLOCK_S = 1.0


class Ticker:
    """Calls each function every so many seconds, never twice at once; an error is logged and the next tick comes.

    Each tick beats under a name of its own, so that one which hangs is noticed. APScheduler plans the next call as a
    date: with the system clock set back by an hour it would call nobody for an hour, so a jump plans all calls anew.
    """

    def __init__(self, ticks: Mapping[Callable[[], object], float], beat: Beating) -> None:
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": ThreadPoolExecutor(max(1, len(ticks)))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for number, (function, every_s) in enumerate(ticks.items(), 1):
            # With the number: of two alike, one that hangs would be covered by the beats of the other.
            line = f"{getattr(function, '__qualname__', 'tick')} {number}"
            self._scheduler.add_job(_guarded(function, partial(beat, line)), "interval", seconds=every_s)

        self._stop = threading.Event()
        self._clock_watch = threading.Thread(target=self._follow_clock, name="tick-clock")

    def __enter__(self) -> "Ticker":
        self._scheduler.start()
        self._clock_watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._clock_watch.join()
        self._scheduler.shutdown(wait=True)

    def _follow_clock(self) -> None:
        offset_s = _clock_offset_s()
        while not self._stop.wait(_LOOK_AT_CLOCK_S):
            before_s, offset_s = offset_s, _clock_offset_s()
            if abs(offset_s - before_s) > JUMP_S:
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))


def _clock_offset_s() -> float:
    """What setting the system clock changes, and the passing of time does not."""
    return time.time() - time.monotonic()


def _guarded(function: Callable[[], object], beat: Callable[[str, int, int, float], None]) -> Callable[[], None]:
    outage = Outage(f"the tick `{getattr(function, '__name__', 'tick')}`")

    def tick() -> None:
        beat("ticking", 0, 0, STEP_LIMIT_S)
        try:
            function()
            outage.over()
        except (StoreUnavailable, SchemaMismatch) as error:
            outage.failed(error)
        except Exception:  # the process boundary of a tick: a locked database now is no reason to stop for ever
            log.exception("tick failed; the next one tries again", extra={"event": "tick_failed"})

    return tick
