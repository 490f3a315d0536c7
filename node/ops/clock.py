"""The clock of this host, and what happens to what waits in the store when somebody sets it.

Leases and waiting times stand in the store as moments. On one host (SQLite) a jump of the system clock would make a
series wait for an hour, or take a living worker's job from it. The difference between the wall clock and the clock that
counts from the boot is the same for every process of the host, so each notices a jump by itself, before it uses the
time for anything; the first one moves the waiting rows by the jump. Several hosts (PostgreSQL) take the time of the
store, whatever their own clocks say, and count on from it by themselves.
"""

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.errors import StoreUnavailable

log = logging.getLogger(__name__)

ASK_EVERY_S = 30.0
JUMP_S = 2.0  # less is the slewing of NTP
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def seconds_since_boot() -> float:
    """Seconds since the boot, those of a suspended machine included; nobody can set this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class HostClock:
    """Gives the time in UTC. `shift(jump, now)` moves what waits in the store.

    `path` keeps the known difference of the clocks; all processes of a node share it. It survives a restart of the
    node, but not one of the machine, after which it is taken anew and the jump is 0: a machine may begin with any time.
    """

    def __init__(
        self,
        path: Path,
        shift: Callable[[timedelta, datetime], None],
        *,
        wall_s: Callable[[], float] = time.time,
        boot_s: Callable[[], float] = seconds_since_boot,
        boot_id: str | None = None,
    ) -> None:
        self._path, self._shift = path, shift
        self._wall_s, self._boot_s = wall_s, boot_s
        self._boot_id = this_boot() if boot_id is None else boot_id
        self._turn = threading.Lock()
        self._known_s: float | None = None

    def __call__(self) -> datetime:
        """The time, after whatever waits was moved by a jump.

        While the database cannot be used nobody takes a lease or a series away; what waits is moved by a later call.
        """
        wall_s, difference_s = self._wall_s(), self._difference_s()
        if self._known_s is None or abs(difference_s - self._known_s) > JUMP_S:
            with self._turn, suppress(StoreUnavailable):
                self._settle()
            wall_s = self._wall_s()
        return datetime.fromtimestamp(wall_s, UTC)

    def _difference_s(self) -> float:
        return self._wall_s() - self._boot_s()

    def _settle(self) -> None:
        """Move what waits, unless another process has done so. Its lock is the kernel's, and ends with the process."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(
            os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+", encoding="utf-8"
        ) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            known_s, now_s = self._recorded_s(file.read()), self._difference_s()
            jump_s = 0.0 if known_s is None else now_s - known_s
            if abs(jump_s) > JUMP_S:
                log.warning(
                    "the clock of this machine was set %s by %.0f s",
                    _way(jump_s),
                    abs(jump_s),
                    extra={"event": "clock_set"},
                )
            if known_s is None or abs(jump_s) > JUMP_S:
                self._shift(timedelta(seconds=jump_s), datetime.fromtimestamp(self._wall_s(), UTC))
                file.seek(0)
                file.truncate()
                json.dump({"boot_id": self._boot_id, "difference_s": now_s}, file)
            self._known_s = now_s

    def _recorded_s(self, text: str) -> float | None:
        """What the processes of this boot know; None for another boot or a file cut off by a crash."""
        with suppress(ValueError, KeyError, TypeError):
            known = json.loads(text)
            if known["boot_id"] == self._boot_id:
                return float(known["difference_s"])
        return None


class StoreClock:
    """Gives the time of the store in UTC; `ask` asks it, once in `ASK_EVERY_S`. Raises what `ask` raises at first."""

    def __init__(self, ask: Callable[[], datetime], *, boot_s: Callable[[], float] = seconds_since_boot) -> None:
        self._ask, self._boot_s = ask, boot_s
        self._turn = threading.Lock()
        self._anchor: datetime | None = None
        self._asked_s = 0.0

    def __call__(self) -> datetime:
        """The time; a store that does not answer later than at first is counted on from."""
        with self._turn:
            if self._anchor is None or self._boot_s() - self._asked_s >= ASK_EVERY_S:
                self._anchor, self._asked_s = self._asked(), self._boot_s()
            return self._anchor + timedelta(seconds=self._boot_s() - self._asked_s)

    def _asked(self) -> datetime:
        expected = None if self._anchor is None else self._anchor + timedelta(seconds=self._boot_s() - self._asked_s)
        try:
            now = self._ask()
        except StoreUnavailable:
            if expected is None:
                raise
            return expected
        jump_s = 0.0 if expected is None else (now - expected).total_seconds()
        if abs(jump_s) > JUMP_S:
            log.warning(
                "the clock of the database was set %s by %.0f s",
                _way(jump_s),
                abs(jump_s),
                extra={"event": "clock_of_database_set"},
            )
        return now


def this_boot() -> str:
    """What tells this boot of the machine from all others; "" where the system does not say."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _way(jump_s: float) -> str:
    return "forward" if jump_s > 0 else "back"
