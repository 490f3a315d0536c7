"""Ticks: short calls at a fixed pace inside a process. Jobs never live here; they live in the store."""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

from node.beats import STEP_LIMIT_S, Beating
from storage.errors import StoreUnavailable
from storage.outage import Outage

log = logging.getLogger(__name__)


class Ticker:
    """Calls each function every so many seconds, never twice at once; an error is logged and the next tick comes.

    Each tick beats under the name of its function, so that one which hangs is noticed. The pace is that of the clock
    that nobody can set: a scheduler of dates would stand still for an hour when the system clock is set back by one.
    """

    def __init__(self, ticks: Mapping[Callable[[], object], float], beat: Beating) -> None:
        self._stop = threading.Event()
        self._threads = []
        for function, every_s in ticks.items():
            name = getattr(function, "__qualname__", "tick")
            tick = _guarded(function, partial(beat, name))
            self._threads.append(threading.Thread(target=self._run, args=(tick, every_s), name=f"tick-{name}"))

    def __enter__(self) -> "Ticker":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, tick: Callable[[], None], every_s: float) -> None:
        while not self._stop.wait(every_s):
            tick()


def _guarded(function: Callable[[], object], beat: Callable[[str, int, int, float], None]) -> Callable[[], None]:
    outage = Outage(f"the tick `{getattr(function, '__name__', 'tick')}`")

    def tick() -> None:
        beat("ticking", 0, 0, STEP_LIMIT_S)
        try:
            function()
            outage.over()
        except StoreUnavailable as error:
            outage.failed(error)
        except Exception:  # the process boundary of a tick: a locked database now is no reason to stop for ever
            log.exception("tick failed; the next one tries again")

    return tick
